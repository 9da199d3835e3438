//! The panel in a real browser: each flow from end to end, for people who never saw it.

use std::time::Instant;

use latchkey_tests::{Browser, Stack, wait};
use serde_json::{Value, json};

use crate::report;

mod accounts;
mod forms;
mod pages;

/// A stack, a browser, and an operator who is signed in.
struct Panel {
    stack: Stack,
    browser: Browser,
}

impl Panel {
    async fn start() -> Self {
        Self::start_in(&[]).await
    }

    async fn start_in(environment: &[(&str, &str)]) -> Self {
        let stack = Stack::start_in(&["flotiq"], |_| {}, environment).await.unwrap();
        let browser = Browser::start(stack.folder.path()).await.unwrap();
        let panel = Self { stack, browser };
        panel.join(&json!({"purpose": "operator"}), OPERATOR).await;
        panel
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.stack.control_plane.port)
    }

    async fn open(&self, path: &str) {
        self.browser.open(&self.url(path)).await.unwrap();
    }

    /// Follows a one-time link as someone new, who is signed in afterwards.
    async fn join(&self, link: &Value, email: &str) {
        let url = self.stack.control_plane.link(link).await.unwrap();
        self.browser.open(&url).await.unwrap();
        if link["email"].is_null() {
            self.browser.fill("E-mail", email).await.unwrap();
        }
        let name = email.split('@').next().unwrap();
        self.browser.fill("Your name", name).await.unwrap();
        self.browser.fill("Password", PASSWORD).await.unwrap();
        let button = if link["purpose"] == "member" { "Join" } else { "Continue" };
        self.browser.click(button).await.unwrap();
        self.browser.wait_for("Sign out").await.unwrap();
    }

    async fn sign_out(&self) {
        self.browser.click("Sign out").await.unwrap();
        self.browser.wait_for("No account yet?").await.unwrap();
    }

    /// Makes an account of the Flotiq profile with two content types.
    async fn make_account(&self) {
        let control_plane = &self.stack.control_plane;
        control_plane.create_account("acme", "flotiq").await.unwrap();
        for (name, relations) in
            [("authors", json!({})), ("blogposts", json!({"author": ["authors"]}))]
        {
            let path = format!("/accounts/acme/resources/{name}");
            control_plane.call("PUT", &path, &json!({"relations": relations})).await.unwrap();
        }
    }

    /// Waits until a request with a token is answered with a status.
    async fn wait_for_status(&self, token: &str, path: &str, status: u16) {
        let is_answered = wait::until("the status", wait::LONG, async || {
            let headers = [("x-auth-token", token)];
            let answer = self.stack.send("flotiq", "GET", path, &headers).await.ok()?;
            (answer.status == status).then_some(())
        });
        assert!(is_answered.await.is_ok(), "{path} is not answered {status}");
    }

    async fn token(&self) -> String {
        self.browser.text_of("#token").await.unwrap()
    }
}

/// Someone who never saw the product makes a key, scopes it, uses it, watches it and removes it.
#[tokio::test]
async fn scoped_key_is_made_used_watched_and_removed() {
    let panel = Panel::start().await;
    let (browser, start) = (&panel.browser, Instant::now());

    // An account and its content types.
    panel.open("/accounts").await;
    browser.fill("Name", "Acme Publishing").await.unwrap();
    browser.fill("Id", "acme").await.unwrap();
    browser.click("Make the account").await.unwrap();
    browser.wait_for("Application key: read and write").await.unwrap();
    for (name, field) in [("authors", None), ("blogposts", Some("author"))] {
        browser.click("Content types").await.unwrap();
        browser.click("New content type").await.unwrap();
        browser.fill("Name", name).await.unwrap();
        if let Some(field) = field {
            browser.click("Add relation").await.unwrap();
            browser.fill("Field", field).await.unwrap();
            browser.fill("Points at", "authors").await.unwrap();
        }
        browser.click("Save").await.unwrap();
        browser.wait_for("The content type was saved.").await.unwrap();
    }
    report(&format!("panel: an account with two content types took {:?}", start.elapsed()));

    // A key with two rules.
    let start = Instant::now();
    browser.click("API keys").await.unwrap();
    browser.click("New key").await.unwrap();
    browser.fill("Name", "Website").await.unwrap();
    browser.fill("Environment", "production").await.unwrap();
    browser.choose("Content type", 0, "blogposts").await.unwrap();
    browser.tick("READ", 0).await.unwrap();
    browser.tick("CREATE", 0).await.unwrap();
    browser.click("Add rule").await.unwrap();
    browser.choose("Content type", 1, "authors").await.unwrap();
    browser.tick("READ", 1).await.unwrap();
    browser.click("Make the key").await.unwrap();
    browser.wait_for("It is shown this once.").await.unwrap();
    browser.wait_for("In force in 1 of 1 proxy.").await.unwrap();
    let token = panel.token().await;
    report(&format!("panel: a key with two rules took {:?}", start.elapsed()));
    assert!(token.starts_with("ftq_") && token.len() == 34, "{token}");
    browser.click("QR code").await.unwrap();
    let qr = browser
        .run("return document.querySelector('.qr-code svg').getBoundingClientRect().width", vec![]);
    assert!(qr.await.unwrap().as_f64().unwrap() > 100.0);
    // It is not shown again.
    panel.browser.open(&browser.url().await.unwrap()).await.unwrap();
    let seen = browser.text().await.unwrap();
    assert!(!seen.contains(&token) && seen.contains("cannot be shown again"), "{seen}");

    // It does what its rules say.
    panel.wait_for_status(&token, "/api/v1/content/blogposts?hydrate=1", 200).await;
    panel.wait_for_status(&token, "/api/v1/content/authors", 200).await;
    panel.wait_for_status(&token, "/api/v1/content/orders", 403).await;
    browser.click("API docs for this key").await.unwrap();
    browser.wait_for("just the operations that this key may call").await.unwrap();
    let docs = browser.text().await.unwrap();
    for line in ["/api/v1/content/blogposts/batch", "/api/v1/content/authors/{id}", "hydrate: 0, 1"]
    {
        assert!(docs.contains(line), "{line} is not in\n{docs}");
    }
    for line in ["DELETE", "PUT", "orders", "/removed"] {
        assert!(!docs.contains(line), "{line} is in\n{docs}");
    }
    let url = browser.url().await.unwrap().replace("/docs", "/openapi.json");
    let document = browser.run(FETCH, vec![json!(url)]).await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = &document["paths"];
    let posts = &paths["/api/v1/content/blogposts"];
    assert!(!posts["get"].is_null() && !posts["post"].is_null(), "{document}");
    assert!(paths["/api/v1/content/authors"]["post"].is_null(), "{document}");

    // Its calls are counted.
    let counted = wait::until("the calls", wait::LONG, async || {
        panel.open("/accounts/acme/usage").await;
        browser.text().await.ok().filter(|seen| seen.contains("Website 2 100 %"))
    });
    counted.await.unwrap();

    // Another token, then none.
    browser.click("Website").await.unwrap();
    browser.click("Regenerate").await.unwrap();
    browser.choose("The present token", 0, "ends at once").await.unwrap();
    browser.click("Make a new token").await.unwrap();
    browser.wait_for("The key has a new token.").await.unwrap();
    let newer = panel.token().await;
    panel.wait_for_status(&token, "/api/v1/content/authors", 401).await;
    panel.wait_for_status(&newer, "/api/v1/content/authors", 200).await;
    browser.click("Suspend").await.unwrap();
    browser.wait_for("The key is suspended.").await.unwrap();
    panel.wait_for_status(&newer, "/api/v1/content/authors", 401).await;
    browser.click("Resume").await.unwrap();
    browser.wait_for("The key works again.").await.unwrap();
    panel.wait_for_status(&newer, "/api/v1/content/authors", 200).await;
    let start = Instant::now();
    browser.click("Remove").await.unwrap();
    browser.click("Remove the key for good").await.unwrap();
    browser.wait_for("The key was removed.").await.unwrap();
    browser.wait_for("In force in 1 of 1 proxy.").await.unwrap();
    report(&format!("panel: removing it, until it was in force, took {:?}", start.elapsed()));
    panel.wait_for_status(&newer, "/api/v1/content/authors", 401).await;

    browser.click("Audit log").await.unwrap();
    let log = browser.text().await.unwrap();
    for action in ["key.revoke", "key.resume", "key.suspend", "key.regenerate", "key.create"] {
        assert!(log.contains(action), "{action}: {log}");
    }
    assert!(log.contains(OPERATOR) && log.contains("127.0.0.1"), "{log}");
    panel.browser.quit().await.unwrap();
}

/// What was filled in and not saved is asked about; what is wrong is said where it is.
#[tokio::test]
async fn nothing_that_was_filled_in_is_lost_unasked() {
    let panel = Panel::start().await;
    panel.make_account().await;
    let browser = &panel.browser;
    panel.open("/accounts/acme/keys/new").await;
    assert!(!browser.would_ask().await.unwrap());
    browser.fill("Name", "Half done").await.unwrap();
    assert!(browser.would_ask().await.unwrap());
    // Nothing is asked where it is saved.
    browser.choose("Content type", 0, "blogposts").await.unwrap();
    browser.tick("READ", 0).await.unwrap();
    browser.click("Make the key").await.unwrap();
    browser.wait_for("It is shown this once.").await.unwrap();

    panel.open("/accounts/acme/keys/new").await;
    browser.fill("Name", "Wrong").await.unwrap();
    browser.tick("READ", 0).await.unwrap();
    browser.click("Networks, limits of its own, shadow mode").await.unwrap();
    browser.fill("Allowed networks", "nowhere").await.unwrap();
    browser.click("Make the key").await.unwrap();
    browser.wait_for("Expected a network such as").await.unwrap();
    let seen = browser.text().await.unwrap();
    assert!(seen.contains("found nowhere") && seen.contains("Choose a content type."), "{seen}");
    assert!(browser.would_ask().await.unwrap(), "it is still not saved");
    let name = "return document.getElementById('name').value";
    assert_eq!(browser.run(name, vec![]).await.unwrap(), "Wrong");

    // Rows come from the server as well.
    panel.open("/accounts/acme/keys/new").await;
    browser.click("Networks, limits of its own, shadow mode").await.unwrap();
    browser.click("Add limit").await.unwrap();
    browser.click("Add limit").await.unwrap();
    let units = "return [...document.querySelectorAll('form select[name^=limit-]')].map((s) => s.name + s.value)";
    let rows = json!(["limit-0-unit86400", "limit-1-unit86400"]);
    assert_eq!(browser.run(units, vec![]).await.unwrap(), rows);
    assert!(browser.would_ask().await.unwrap());
    let reload = "const form = document.querySelector('form[data-guard]'); const add = form.querySelector('[name=add-limit]'); form.requestSubmit(add)";
    browser.run(reload, vec![]).await.unwrap();
    assert!(browser.would_ask().await.unwrap(), "what the server added is not saved either");

    // Two people at once: the second is told.
    let key = json!({"name": "Shared", "rules": []});
    let key = panel.stack.control_plane.create_key("acme", &key).await.unwrap();
    let path = format!("/accounts/acme/keys/{}", key.id);
    panel.open(&path).await;
    let edit = json!({"rules": [{"resource": "blogposts", "actions": ["*"]}]});
    panel.stack.control_plane.call("PATCH", &path, &edit).await.unwrap();
    browser.fill("Name", "Renamed").await.unwrap();
    browser.click("Save").await.unwrap();
    browser.wait_for("Someone else has changed the key meanwhile").await.unwrap();
    // All actions stay all actions.
    panel.open(&path).await;
    browser.fill("Name", "Renamed").await.unwrap();
    browser.click("Save").await.unwrap();
    browser.wait_for("The key was saved.").await.unwrap();
    let saved = panel.stack.control_plane.call("GET", &path, &Value::Null).await.unwrap();
    assert_eq!(saved["rules"], edit["rules"]);
    assert_eq!(saved["name"], "Renamed");

    // A plan that is full says so, in the form and when one tries all the same.
    let plan = json!({"name": "Tiny", "limits": [], "max_user_keys": 0});
    panel.stack.control_plane.call("PUT", "/plans/for-tests", &plan).await.unwrap();
    panel.open("/accounts/acme/keys/new").await;
    browser.wait_for("The plan “Tiny” is full.").await.unwrap();
    browser.fill("Name", "One too many").await.unwrap();
    browser.click("Make the key").await.unwrap();
    browser.wait_for("Plan for-tests allows 0 user defined keys").await.unwrap();
    panel.browser.quit().await.unwrap();
}

/// Each role sees what it may do and no more, and nobody finds the account of others.
#[tokio::test]
async fn members_see_what_their_role_allows() {
    let panel = Panel::start().await;
    panel.make_account().await;
    let browser = &panel.browser;
    let key = json!({"name": "Website", "rules": [{"resource": "blogposts", "actions": ["read"]}]});
    let key = panel.stack.control_plane.create_key("acme", &key).await.unwrap();

    // The operator invites an owner in the panel.
    panel.open("/accounts/acme/members").await;
    browser.fill("E-mail", "owner@example.com").await.unwrap();
    browser.choose("Role", 0, "owner").await.unwrap();
    browser.click("Make an invitation").await.unwrap();
    let link = browser.text_of("#link").await.unwrap();
    panel.sign_out().await;
    browser.open(&link).await.unwrap();
    browser.fill("Your name", "Olive Owner").await.unwrap();
    browser.fill("Password", PASSWORD).await.unwrap();
    browser.click("Join").await.unwrap();
    browser.wait_for("Application key: read only").await.unwrap();
    browser.open(&link).await.unwrap();
    browser.wait_for("This link was used already").await.unwrap();

    for (role, sees_new, sees_test) in
        [("viewer", false, false), ("developer", false, true), ("admin", true, true)]
    {
        panel.open("/").await;
        panel.sign_out().await;
        let email = format!("{role}@example.com");
        let link = json!({"purpose": "member", "account": "acme", "role": role, "email": email});
        panel.join(&link, &email).await;
        browser.wait_for("Website").await.unwrap();
        let seen = browser.text().await.unwrap();
        assert_eq!(seen.contains("New key"), sees_new, "{role}: {seen}");
        assert_eq!(seen.contains("Regenerate"), sees_new, "{role}: {seen}");
        assert_eq!(seen.contains("Test a request"), sees_test, "{role}: {seen}");
        assert!(!seen.contains("Proxies") && !seen.contains("Plans"), "{role}: {seen}");
        panel.open(&format!("/accounts/acme/keys/{}", key.id)).await;
        let seen = browser.text().await.unwrap();
        assert!(seen.contains("Website"), "{role}: {seen}");
        assert_eq!(seen.contains("Add rule"), sees_new, "{role}: {seen}");
        panel.open("/plans").await;
        browser.wait_for("This is for operators").await.unwrap();
    }

    // Another account of the same service is not there.
    panel.stack.control_plane.create_account("other", "flotiq").await.unwrap();
    panel.open("/accounts/other/keys").await;
    browser.wait_for("Account other does not exist").await.unwrap();
    panel.browser.quit().await.unwrap();
}

/// Signing in, a wrong password again and again, other sessions, and a lost password.
#[tokio::test]
async fn people_sign_in_and_out_everywhere() {
    let panel = Panel::start().await;
    let browser = &panel.browser;
    let cookie = "return document.cookie";
    assert_eq!(browser.run(cookie, vec![]).await.unwrap(), "", "no script sees the session");

    // Another session, without a browser.
    let session = {
        let form = format!("email={OPERATOR}&password={PASSWORD}").replace(' ', "+");
        let url = panel.url("/sign-in");
        let headers = [("content-type", b"application/x-www-form-urlencoded".as_slice())];
        let answer =
            latchkey_tests::http::send("POST", &url, &headers, form.as_bytes()).await.unwrap();
        let cookie = answer.header("set-cookie").to_owned();
        assert!(cookie.starts_with("latchkey_session="), "it comes first: {cookie}");
        assert!(cookie.contains("; HttpOnly; SameSite=Lax; Path=/"), "{cookie}");
        cookie.split(';').next().unwrap().to_owned()
    };
    let accounts = async || {
        let headers = [("cookie", session.as_bytes())];
        let url = panel.url("/accounts");
        latchkey_tests::http::send("GET", &url, &headers, b"").await.unwrap().status
    };
    assert_eq!(accounts().await, 200);
    panel.open("/me").await;
    browser.click("Sign out everywhere else").await.unwrap();
    browser.click("End all other sessions").await.unwrap();
    browser.wait_for("All your other sessions have ended.").await.unwrap();
    assert_eq!(accounts().await, 303);

    // Behind TLS the cookie is for TLS only.
    let form = format!("email={OPERATOR}&password={PASSWORD}").replace(' ', "+");
    let headers = [
        ("content-type", b"application/x-www-form-urlencoded".as_slice()),
        ("x-forwarded-proto", b"https".as_slice()),
    ];
    let url = panel.url("/sign-in");
    let answer = latchkey_tests::http::send("POST", &url, &headers, form.as_bytes()).await.unwrap();
    let cookie = answer.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-latchkey_session=") && cookie.contains("; Secure"),
        "{cookie}"
    );

    // A link for a new password ends what the old one began.
    let link = json!({"purpose": "password", "email": OPERATOR});
    let link = panel.stack.control_plane.link(&link).await.unwrap();
    browser.open(&link).await.unwrap();
    browser.fill("Password", "another good sentence").await.unwrap();
    browser.click("Set the password").await.unwrap();
    browser.wait_for("Sign out").await.unwrap();
    panel.sign_out().await;
    for attempt in 0..20 {
        browser.fill("E-mail", OPERATOR).await.unwrap();
        browser.fill("Password", PASSWORD).await.unwrap();
        browser.follow("Sign in").await.unwrap();
        let seen = browser.text().await.unwrap();
        if seen.contains("Too many attempts") {
            assert!(attempt > 2, "it takes some attempts");
            panel.browser.quit().await.unwrap();
            return;
        }
        assert!(seen.contains("The e-mail address or the password is not right."), "{seen}");
    }
    unreachable!("passwords can be tried without end");
}

/// With a sealing key a token can be copied later; each time is in the audit log, and the store does not
/// have it in the clear.
#[tokio::test]
async fn token_that_is_kept_can_be_shown_again() {
    let sealing_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let environment = [("LATCHKEY_SEALING_KEY", sealing_key), ("LATCHKEY_TOKEN_ACCESS", "panel")];
    let panel = Panel::start_in(&environment).await;
    panel.make_account().await;
    let (browser, control_plane) = (&panel.browser, &panel.stack.control_plane);
    let key = json!({"name": "Website", "rules": [{"resource": "blogposts", "actions": ["read"]}]});
    let answer = control_plane.call("POST", "/accounts/acme/keys", &key).await.unwrap();
    assert!(answer["token"].is_null(), "the API shows no token: {answer}");
    let id = answer["key"]["id"].as_str().unwrap();
    panel.open(&format!("/accounts/acme/keys/{id}")).await;
    browser.click("Show the token and its QR code").await.unwrap();
    browser.wait_for("The token").await.unwrap();
    let token = panel.token().await;
    panel.wait_for_status(&token, "/api/v1/content/blogposts", 200).await;

    // The form does not say otherwise.
    panel.open("/accounts/acme/keys/new").await;
    browser.wait_for("It is kept encrypted, and can be shown and copied again.").await.unwrap();

    // From the list, without leaving it.
    panel.open("/accounts/acme/keys?search=Website").await;
    browser.click("Copy").await.unwrap();
    browser.wait_for("Copied").await.unwrap();
    panel.open("/accounts/acme/audit?action=key.reveal").await;
    let log = browser.text().await.unwrap();
    assert_eq!(log.matches("key.reveal on").count(), 2, "{log}");

    for entry in std::fs::read_dir(&control_plane.data).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let is_there = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!is_there, "the token is in {}", path.display());
    }
    let log = std::fs::read_to_string(panel.stack.folder.path().join("control-plane.log")).unwrap();
    assert!(!log.contains(&token) && !log.contains(PASSWORD), "{log}");
    panel.browser.quit().await.unwrap();
}

/// A key is replaced: a new one with the same rules, both side by side, and an end to the old one when
/// nothing uses it.
#[tokio::test]
async fn key_is_replaced_without_breaking_a_client() {
    let panel = Panel::start().await;
    panel.make_account().await;
    let browser = &panel.browser;
    let key = json!({"name": "Website", "rules": [{"resource": "blogposts", "actions": ["read"]}]});
    let old = panel.stack.control_plane.create_key("acme", &key).await.unwrap();
    panel.wait_for_status(&old.token, "/api/v1/content/blogposts", 200).await;
    let is_counted = wait::until("the call", wait::LONG, async || {
        panel.open(&format!("/accounts/acme/keys/{}/replace", old.id)).await;
        let path = format!("/accounts/acme/keys/{}", old.id);
        let key = panel.stack.control_plane.call("GET", &path, &Value::Null).await.ok()?;
        (!key["last_used_at"].is_null()).then_some(())
    });
    is_counted.await.unwrap();
    browser.fill("Name of the new key", "Website 2").await.unwrap();
    browser.click("Make the new key").await.unwrap();
    browser.wait_for("Made to replace Website.").await.unwrap();
    let new = panel.token().await;
    panel.wait_for_status(&new, "/api/v1/content/blogposts", 200).await;
    panel.wait_for_status(&new, "/api/v1/content/orders", 403).await;
    browser.click("See both side by side").await.unwrap();
    browser.wait_for("Not yet: it was last used").await.unwrap();
    let seen = browser.text().await.unwrap();
    assert!(seen.contains("Old: Website") && seen.contains("New: Website 2"), "{seen}");
    assert!(!seen.contains("Remove the old key for good"), "{seen}");
    // A time that has passed already.
    panel.open(&format!("/accounts/acme/keys/{}/replace?quiet=0", old.id)).await;
    browser.click("Remove the old key").await.unwrap();
    browser.click("Remove the old key for good").await.unwrap();
    browser.wait_for("The key was removed.").await.unwrap();
    panel.wait_for_status(&old.token, "/api/v1/content/blogposts", 401).await;
    panel.wait_for_status(&new, "/api/v1/content/blogposts", 200).await;
    panel.browser.quit().await.unwrap();
}

/// Fetches a document as whoever is signed in, while the page waits.
const FETCH: &str = "const r = new XMLHttpRequest(); r.open('GET', arguments[0], false); r.send(); return JSON.parse(r.responseText);";

const OPERATOR: &str = "operator@example.com";
const PASSWORD: &str = "correct horse battery staple";
