//! All pages: what scripts cannot be smuggled into, how they look, and who can use them.

use std::path::PathBuf;

use latchkey_tests::browser::Findings;
use latchkey_tests::{project, wait};
use serde_json::{Value, json};

use super::Panel;

/// Pages of the account and of operators; `KEY` and `OLD` stand for keys.
const PAGES: [(&str, &str); 24] = [
    ("accounts", "/accounts"),
    ("keys", "/accounts/acme/keys"),
    ("key-new", "/accounts/acme/keys/new"),
    ("key", "/accounts/acme/keys/KEY"),
    ("key-docs", "/accounts/acme/keys/KEY/docs"),
    ("key-replace", "/accounts/acme/keys/OLD/replace"),
    ("usage", "/accounts/acme/usage"),
    ("usage-correct", "/accounts/acme/usage/correct"),
    ("content-types", "/accounts/acme/content-types"),
    ("content-type", "/accounts/acme/content-types/blogposts"),
    ("content-type-new", "/accounts/acme/new-content-type"),
    ("test", "/accounts/acme/test"),
    ("account-audit", "/accounts/acme/audit"),
    ("members", "/accounts/acme/members"),
    ("settings", "/accounts/acme/settings"),
    ("plans", "/plans"),
    ("plan", "/plans/growth"),
    ("plan-new", "/new-plan"),
    ("proxies", "/proxies"),
    ("audit", "/audit"),
    ("operators", "/operators"),
    ("me", "/me"),
    ("empty-account", "/accounts/empty/keys"),
    ("not-found", "/accounts/nowhere/keys"),
];

/// Fills an account with what there is to see.
async fn furnish(panel: &Panel, text: &str) -> (String, String) {
    let control_plane = &panel.stack.control_plane;
    panel.make_account().await;
    control_plane.create_account("empty", "flotiq").await.unwrap();
    let account = json!({"name": format!("Acme Publishing{text}"), "plan": "growth"});
    control_plane.call("PATCH", "/accounts/acme", &account).await.unwrap();
    for (name, relations) in [
        ("_media", json!({"tags": ["_tag"]})),
        ("_tag", json!({})),
        ("blogposts", json!({"author": ["authors"], "cover": ["_media"]})),
        ("orders", json!({"anything": "*"})),
    ] {
        let path = format!("/accounts/acme/resources/{name}");
        control_plane.call("PUT", &path, &json!({"relations": relations})).await.unwrap();
    }
    let rules = json!([{"resource": "blogposts", "actions": ["read", "create"]},
                       {"resource": "authors", "actions": ["read"]}]);
    let website = json!({"name": format!("Website{text}"), "environment": "production",
        "note": format!("Used by the build of the public site.{text}"), "rules": rules,
        "allowed_networks": ["192.0.2.0/24", "127.0.0.1"], "expires_at": "2031-01-01T00:00:00Z",
        "limits": [{"name": "builds", "amount": 500, "bucket_seconds": 3600, "buckets": 1}]});
    let website = control_plane.create_key("acme", &website).await.unwrap();
    let importer = json!({"name": format!("Importer{text}"), "environment": "staging",
        "rules": [{"resource": "*", "actions": ["*"]}]});
    let importer = control_plane.create_key("acme", &importer).await.unwrap();
    let newer = json!({"name": "Importer 2", "replaces": importer.id,
        "rules": [{"resource": "orders", "actions": ["create", "update"]}]});
    let newer = control_plane.create_key("acme", &newer).await.unwrap();
    let suspend = format!("/accounts/acme/keys/{}/suspend", newer.id);
    control_plane.call("POST", &suspend, &Value::Null).await.unwrap();
    for token in [&website.token, &website.token, &importer.token] {
        panel.wait_for_status(token, "/api/v1/content/blogposts", 200).await;
    }
    a_month(panel, &website.id, &importer.id).await;
    let invitation = json!({"purpose": "member", "account": "acme", "role": "developer",
        "email": "dev@example.com"});
    control_plane.link(&invitation).await.unwrap();
    (website.id, importer.id)
}

/// Reports a month of calls, as proxies do that could not for so long: each as many as a first call may.
async fn a_month(panel: &Panel, website: &str, importer: &str) {
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    let (mut credits, mut usage) = (Vec::new(), Vec::new());
    for days in 1..29_u64 {
        let at_ms = now_ms - days * 86_400_000;
        // Fewer at weekends, and more by and by.
        let count = if days % 7 < 2 { 9_000 } else { 31_000 - days * 400 };
        for part in 0..count / 9_000 {
            let count = if part == 0 { 9_000 + count % 9_000 / 9 } else { 9_000 };
            let subject = json!({"account": {"account": "acme"}});
            credits.push(json!({"subject": subject, "at_ms": at_ms, "count": count}));
        }
        for (key, part) in [(website, count * 7 / 10), (importer, count * 3 / 10)] {
            usage.push(
                json!({"account": "acme", "key": key, "last_used_at_ms": at_ms, "count": part,
                              "rights": ["blogposts:read"]}),
            );
        }
    }
    let control_plane = &panel.stack.control_plane;
    let url = panel.url("/edge/v1/leases");
    let authorization = format!("Bearer {}", control_plane.edge_token().unwrap());
    let headers = [
        ("authorization", authorization.as_bytes()),
        ("content-type", b"application/json".as_slice()),
    ];
    for (number, credit) in credits.into_iter().enumerate() {
        let usage = if number == 0 { std::mem::take(&mut usage) } else { Vec::new() };
        let call = json!({"instance": format!("edge-{number}"), "worker": "w", "sequence": 1,
                          "credits": [credit], "usage": usage});
        let body = serde_json::to_vec(&call).unwrap();
        let answer = latchkey_tests::http::send("POST", &url, &headers, &body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn path(path: &str, (key, old): &(String, String)) -> String {
    path.replace("KEY", key).replace("OLD", old)
}

/// Every page at two widths and in both schemes: pictures to look at, nothing wider than the window,
/// and nothing serious found by axe.
#[tokio::test]
async fn pages_can_be_read_by_everyone() {
    let panel = Panel::start().await;
    let keys = furnish(&panel, "").await;
    let browser = &panel.browser;
    let folder = output();
    let _ = std::fs::remove_dir_all(&folder);
    let mut found = Findings::new();
    for (width, scheme) in [(1280, "light"), (360, "light"), (1280, "dark"), (360, "dark")] {
        browser.show_as(width, scheme).await.unwrap();
        for (name, page) in PAGES {
            panel.open(&path(page, &keys)).await;
            look(&panel, &format!("{name}-{width}-{scheme}"), &mut found).await;
        }
        // Pages that come of a form.
        panel.open("/accounts/acme/test").await;
        browser.choose("Key", 0, "Website").await.unwrap();
        browser.fill("Path", "/api/v1/content/blogposts?hydrate=1").await.unwrap();
        browser.click("Test").await.unwrap();
        browser.wait_for("no rule of the key grants").await.unwrap();
        look(&panel, &format!("test-result-{width}-{scheme}"), &mut found).await;
        panel.open(&path("/accounts/acme/keys/KEY", &keys)).await;
        browser.click("Regenerate").await.unwrap();
        browser.click("Make a new token").await.unwrap();
        browser.wait_for("It is shown this once.").await.unwrap();
        browser.click("QR code").await.unwrap();
        look(&panel, &format!("token-{width}-{scheme}"), &mut found).await;
        panel.open("/accounts/acme/keys/new").await;
        browser.fill("Name", "x").await.unwrap();
        browser.tick("READ", 0).await.unwrap();
        browser.click("Make the key").await.unwrap();
        browser.wait_for("Choose a content type.").await.unwrap();
        look(&panel, &format!("key-errors-{width}-{scheme}"), &mut found).await;
    }
    browser.show_as(1280, "light").await.unwrap();
    panel.open("/accounts").await;
    panel.sign_out().await;
    for (width, scheme) in [(1280, "light"), (360, "dark")] {
        browser.show_as(width, scheme).await.unwrap();
        panel.open("/sign-in").await;
        look(&panel, &format!("sign-in-{width}-{scheme}"), &mut found).await;
        let link = panel.stack.control_plane.link(&json!({"purpose": "operator"})).await.unwrap();
        browser.open(&link).await.unwrap();
        look(&panel, &format!("link-{width}-{scheme}"), &mut found).await;
    }
    let pictures = std::fs::read_dir(&folder).unwrap().count();
    let report = json!({"tool": "axe", "pages": pictures, "serious_or_critical": found});
    let findings = serde_json::to_string_pretty(&report).unwrap();
    std::fs::write(folder.join("accessibility.json"), &findings).unwrap();
    assert!(found.is_empty(), "{findings}");
    panel.browser.quit().await.unwrap();
}

async fn look(panel: &Panel, name: &str, found: &mut Findings) {
    let browser = &panel.browser;
    browser.picture(&output().join(format!("{name}.png"))).await.unwrap();
    assert!(browser.overflow().await.unwrap() <= 0, "{name} is wider than the window");
    let cut_off = browser.run(CUT_OFF, vec![]).await.unwrap();
    assert!(!name.contains("-360-") || cut_off == json!([]), "{name}: {cut_off}");
    let gap = browser.run(GAP, vec![]).await.unwrap().as_f64().unwrap();
    assert!(gap < 80.0, "{name} is stretched: {gap}");
    for (rule, parts) in browser.accessibility().await.unwrap() {
        let parts = parts.into_iter().map(|part| format!("{name}: {part}"));
        found.entry(rule).or_default().extend(parts);
    }
}

/// The keyboard alone leads to the content and to what can be done.
#[tokio::test]
async fn keyboard_alone_is_enough() {
    let panel = Panel::start().await;
    panel.make_account().await;
    panel.open("/accounts/acme/keys").await;
    let focused = "return document.activeElement.textContent.trim()";
    panel.browser.press("\u{e004}").await.unwrap();
    assert_eq!(panel.browser.run(focused, vec![]).await.unwrap(), "Skip to the content");
    let ring = "const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 1";
    let mut seen = Vec::new();
    loop {
        panel.browser.press("\u{e004}").await.unwrap();
        let at = panel.browser.run(focused, vec![]).await.unwrap().as_str().unwrap().to_owned();
        if panel
            .browser
            .run("return document.activeElement === document.body", vec![])
            .await
            .unwrap()
            == true
            || seen.len() > 60
        {
            break;
        }
        let ring = panel.browser.run(ring, vec![]).await.unwrap();
        assert_eq!(ring, true, "{at} shows no focus");
        seen.push(at);
    }
    for name in ["Sign out", "API keys", "Usage", "New key", "Regenerate"] {
        assert!(seen.iter().any(|text| text == name), "{name} is not reached: {seen:?}");
    }
    panel.browser.quit().await.unwrap();
}

/// Scripts in every text field: stored, shown again, and nowhere run.
#[tokio::test]
async fn nothing_that_is_typed_in_becomes_a_script() {
    let panel = Panel::start().await;
    let keys = furnish(&panel, PAYLOAD).await;
    let browser = &panel.browser;
    let forms = PAGES.iter().map(|(_, page)| path(page, &keys));
    let mut fields = 0;
    for page in forms {
        panel.open(&page).await;
        let forms = browser.run("return document.forms.length", vec![]).await.unwrap();
        for index in 0..forms.as_u64().unwrap() {
            panel.open(&page).await;
            let filled = browser.run(FILL, vec![json!(index), json!(PAYLOAD)]).await.unwrap();
            fields += filled.as_u64().unwrap();
            let is_there = wait::until("the next page", wait::LONG, async || {
                let is_old = browser.run("return window.isSent === true", vec![]).await.ok()?;
                (is_old == false).then_some(())
            });
            is_there.await.unwrap();
            harmless(&panel, &page).await;
        }
    }
    assert!(fields > 50, "{fields} fields");
    for (_, page) in PAGES {
        panel.open(&path(page, &keys)).await;
        harmless(&panel, page).await;
    }
    // In addresses, too.
    let attacks = [
        "/sign-in?next=%22%3E%3Cscript%3Ewindow.broken=1%3C/script%3E",
        "/accounts?search=%3Cscript%3Ewindow.broken=1%3C/script%3E",
        "/accounts/acme/keys?search=%3Cimg%20src%3Dx%20onerror%3Dwindow.broken%3D1%3E",
        "/accounts/acme/audit?actor=%22onfocus%3D%22window.broken%3D1%22autofocus%3D%22",
        "/accounts/acme/keys?done=%3Cscript%3Ewindow.broken=1%3C/script%3E&since=%22%3E%3Cscript%3E",
    ];
    for attack in attacks {
        panel.open(attack).await;
        harmless(&panel, attack).await;
    }
    panel.browser.quit().await.unwrap();
}

async fn harmless(panel: &Panel, page: &str) {
    let broken = panel.browser.run(BROKEN, vec![]).await.unwrap();
    assert_eq!(broken, json!([false, 0, 0]), "{page}");
}

/// Fills all text fields of a form with a text and sends it, unless that ends the session or removes
/// what other forms are tried on; returns how many there are.
const FILL: &str = "
    const form = document.forms[arguments[0]];
    const fields = [...form.querySelectorAll('input:not([type=hidden]):not([type=checkbox]), textarea')];
    for (const field of fields) { field.type = 'text'; field.value = arguments[1]; field.removeAttribute('readonly'); }
    if (fields.length && !/sign-out|revoke|delete|remove/.test(form.action)) { form.noValidate = true; window.isSent = true; form.submit(); }
    return fields.length;";

/// Whether a script ran, and how many elements came of a text.
const BROKEN: &str = "return [window.broken === 1, document.querySelectorAll('[data-evil]').length, document.querySelectorAll('script:not([src])').length]";

/// Breaks out of texts, attributes and scripts, wherever nothing is escaped.
const PAYLOAD: &str = "'\"></textarea></title><script data-evil>window.broken=1</script><img data-evil src=x onerror=window.broken=1>{{7*7}}";

/// Tables whose columns are beyond the edge of their card.
const CUT_OFF: &str = "return [...document.querySelectorAll('.scroll:has(table)')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.getAttribute('aria-label'))";

/// The largest distance between parts of a page, in pixels.
const GAP: &str = "const parts = [...document.querySelectorAll('#content > *')].map((e) => e.getBoundingClientRect()); return Math.max(0, ...parts.slice(1).map((part, index) => part.top - parts[index].bottom))";

/// Folder of what the test leaves to be looked at.
fn output() -> PathBuf {
    project::folder().join("target/panel")
}
