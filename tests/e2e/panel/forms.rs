//! Forms, by real keys and clicks: with and without scripts, and far away from the service.

use latchkey_tests::wait;
use serde_json::{Value, json};

use super::{OPERATOR, PASSWORD, Panel};

/// Makes a key with two rules and a limit, and returns its id.
async fn make_key(panel: &Panel) -> String {
    panel.make_account().await;
    let rules = json!([{"resource": "blogposts", "actions": ["read"]},
                       {"resource": "authors", "actions": ["read"]}]);
    let limits = json!([{"name": "builds", "amount": 500, "bucket_seconds": 3600, "buckets": 1}]);
    let key = json!({"name": "Website", "rules": rules, "limits": limits});
    panel.stack.control_plane.create_key("acme", &key).await.unwrap().id
}

/// The return key used to press "Remove rule": a plan lost its limit of 30 days that way.
#[tokio::test]
async fn return_key_in_a_text_field_removes_nothing() {
    let panel = Panel::start().await;
    let key = make_key(&panel).await;
    let (browser, control_plane) = (&panel.browser, &panel.stack.control_plane);
    let at = format!("/accounts/acme/keys/{key}");
    let records = [
        at.as_str(),
        "/accounts/acme/resources/blogposts",
        "/plans/growth",
        "/accounts/acme",
        "/plans/for-tests",
    ];
    let pages = [
        "/accounts",
        "/accounts/acme/keys/new",
        &at,
        &format!("{at}/replace"),
        "/accounts/acme/content-types/blogposts",
        "/accounts/acme/new-content-type",
        "/accounts/acme/test",
        "/accounts/acme/members",
        "/accounts/acme/settings",
        "/accounts/acme/usage/correct",
        "/plans/growth",
        "/new-plan",
        "/operators",
        "/me",
    ];
    let before = stored(&panel, &records).await;
    let mut pressed = 0;
    for has_scripts in [true, false] {
        browser.allow_scripts(has_scripts).await.unwrap();
        for page in pages {
            for index in 0.. {
                panel.open(page).await;
                let rows = rows(&panel).await;
                let Some(field) = browser.press_return(TEXT_FIELDS, index).await.unwrap() else {
                    break;
                };
                // A page that follows has all rows, or shows none because they were saved.
                let after = self::rows(&panel).await;
                assert!(
                    after == rows || after.is_null() || rows.is_null(),
                    "{page} {field}: {rows} → {after}"
                );
                pressed += 1;
            }
        }
        assert_eq!(stored(&panel, &records).await, before, "scripts: {has_scripts}");
    }
    assert!(pressed > 60, "{pressed}");
    // With the account's id typed in, too: what ends something for good takes its own button.
    panel.open("/accounts/acme/settings").await;
    browser.click("Remove the account").await.unwrap();
    browser.fill("Type the account's id to confirm", "acme").await.unwrap();
    browser.press_return("[name=confirm]", 0).await.unwrap();
    control_plane.call("GET", "/accounts/acme", &Value::Null).await.unwrap();
    panel.browser.quit().await.unwrap();
}

/// Returns records as they are stored, as far as forms could change them.
async fn stored(panel: &Panel, paths: &[&str]) -> Vec<Value> {
    let mut records = Vec::new();
    for path in paths {
        records.push(panel.stack.control_plane.call("GET", path, &Value::Null).await.unwrap());
    }
    records
}

/// Returns the number of rows of the page's form; nothing if it has no rows at all.
async fn rows(panel: &Panel) -> Value {
    let rows = "return document.readyState === 'complete' && [document.querySelector('[data-rows]') \
                && document.querySelectorAll('[data-row]').length]";
    let rows = wait::until("the page", wait::LONG, async || {
        let rows = panel.browser.run(rows, vec![]).await.ok()?;
        rows.get(0).cloned()
    });
    rows.await.unwrap()
}

/// A second click used to make a second key, whose token nobody saw.
#[tokio::test]
async fn second_click_has_no_second_effect() {
    let panel = Panel::start().await;
    let key = make_key(&panel).await;
    let (browser, control_plane) = (&panel.browser, &panel.stack.control_plane);
    browser.delay(300).await.unwrap();
    for has_scripts in [true, false] {
        browser.allow_scripts(has_scripts).await.unwrap();
        let name = format!("Twice {has_scripts}");
        panel.open("/accounts/acme/keys/new").await;
        browser.fill("Name", &name).await.unwrap();
        browser.click_twice("Make the key").await.unwrap();
        browser.wait_for("It is shown this once.").await.unwrap();
        let token = panel.token().await;
        assert_eq!(count(&panel, &name).await, 1);
        // Back and once more: the same answer.
        browser.back().await.unwrap();
        browser.fill("Name", &name).await.unwrap();
        browser.click("Make the key").await.unwrap();
        browser.wait_for("It is shown this once.").await.unwrap();
        assert_eq!(panel.token().await, token);
        assert_eq!(count(&panel, &name).await, 1);

        panel.open(&format!("/accounts/acme/keys/{key}/replace")).await;
        if has_scripts {
            browser.click_twice("Make the new key").await.unwrap();
            browser.wait_for("Made to replace Website.").await.unwrap();
        }
        let id = format!("twice-{has_scripts}");
        panel.open("/accounts").await;
        browser.fill("Name", "Twice").await.unwrap();
        browser.fill("Id", &id).await.unwrap();
        browser.click_twice("Make the account").await.unwrap();
        browser.wait_for("The account is there.").await.unwrap();

        let email = format!("{has_scripts}@example.com");
        panel.open("/accounts/acme/members").await;
        browser.fill("E-mail", &email).await.unwrap();
        browser.click_twice("Make an invitation").await.unwrap();
        browser.wait_for("Send this link").await.unwrap();
        assert!(browser.text_of("#link").await.unwrap().contains("/links/"));
        let seen = browser.text_of("[aria-label='Open invitations']").await.unwrap();
        assert_eq!(seen.matches(&email).count(), 1, "{seen}");
    }
    let replacements =
        control_plane.call("GET", "/accounts/acme/keys", &Value::Null).await.unwrap();
    let items = replacements["items"].as_array().unwrap();
    assert_eq!(items.iter().filter(|item| item["replaces"] == key.as_str()).count(), 1);
    browser.delay(0).await.unwrap();
    panel.browser.quit().await.unwrap();
}

/// Returns how many keys of the account have a name.
async fn count(panel: &Panel, name: &str) -> usize {
    let keys = panel.stack.control_plane.call("GET", "/accounts/acme/keys", &Value::Null).await;
    let keys = keys.unwrap();
    keys["items"].as_array().unwrap().iter().filter(|key| key["name"] == name).count()
}

/// Text fields of forms that change something, as far as they can be seen.
const TEXT_FIELDS: &str =
    "form[method=post] input:not([type=hidden]):not([type=checkbox]):not([readonly])";

/// One click used to cut a client off: regenerating ended the token before at once, and nothing was asked.
#[tokio::test]
async fn former_token_works_a_day_longer_unless_it_is_ended() {
    let panel = Panel::start().await;
    let key = make_key(&panel).await;
    let (browser, control_plane) = (&panel.browser, &panel.stack.control_plane);
    let at = format!("/accounts/acme/keys/{key}");
    let before = control_plane.regenerate("acme", &key, 0).await.unwrap().token;
    panel.open(&at).await;
    browser.click("Regenerate").await.unwrap();
    let seen = browser.text().await.unwrap();
    assert!(seen.contains(&format!("Give “Website” ({key}) a new token?")), "{seen}");
    browser.click("Make a new token").await.unwrap();
    browser.wait_for("It is shown this once.").await.unwrap();
    let after = panel.token().await;
    for token in [&before, &after] {
        panel.wait_for_status(token, "/api/v1/content/authors", 200).await;
    }
    let record = control_plane.call("GET", &at, &Value::Null).await.unwrap();
    let until: jiff::Timestamp = record["previous_token_until"].as_str().unwrap().parse().unwrap();
    let seconds = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((86_300..=86_400).contains(&seconds), "{seconds}");

    // One sees whether the token before is still used.
    let is_told = wait::until("the use of the token before", wait::LONG, async || {
        panel.open(&at).await;
        browser.text().await.ok().filter(|seen| seen.contains("It was last used"))
    });
    is_told.await.unwrap();
    browser.click("End it now").await.unwrap();
    browser.click("End the token before").await.unwrap();
    browser.wait_for("The token before has ended.").await.unwrap();
    panel.wait_for_status(&before, "/api/v1/content/authors", 401).await;
    panel.wait_for_status(&after, "/api/v1/content/authors", 200).await;
    let again = control_plane.api("POST", &format!("{at}/end-grace"), &Value::Null).await.unwrap();
    assert_eq!(again.status, 409, "{}", again.text());
    control_plane.regenerate("acme", &key, 3_600).await.unwrap();
    let ended = control_plane.call("POST", &format!("{at}/end-grace"), &Value::Null).await.unwrap();
    assert!(ended["previous_token_until"].is_null(), "{ended}");
    panel.wait_for_status(&after, "/api/v1/content/authors", 401).await;
    panel.open("/accounts/acme/audit?action=key.end_grace").await;
    let log = browser.text().await.unwrap();
    assert_eq!(log.matches("key.end_grace on").count(), 2, "{log}");

    // A limit goes only if that was asked.
    panel.open("/plans/growth").await;
    let plan = control_plane.call("GET", "/plans/growth", &Value::Null).await.unwrap();
    for _ in plan["limits"].as_array().unwrap() {
        browser.click("Remove limit").await.unwrap();
    }
    browser.click("Save").await.unwrap();
    browser.wait_for("Saving this removes the limit").await.unwrap();
    let now = control_plane.call("GET", "/plans/growth", &Value::Null).await.unwrap();
    assert_eq!(now, plan);
    browser.click("Save without it").await.unwrap();
    browser.wait_for("The plan was saved.").await.unwrap();
    let now = control_plane.call("GET", "/plans/growth", &Value::Null).await.unwrap();
    assert_eq!(now["limits"], json!([]));
    panel.browser.quit().await.unwrap();
}

/// Saving after a session had ended used to lead to the start, and what was typed was lost.
#[tokio::test]
async fn session_that_ended_loses_no_form() {
    let panel = Panel::start().await;
    panel.make_account().await;
    let browser = &panel.browser;
    for has_scripts in [true, false] {
        browser.allow_scripts(has_scripts).await.unwrap();
        let name = format!("Late {has_scripts}");
        panel.open("/accounts/acme/keys/new").await;
        browser.fill("Name", &name).await.unwrap();
        browser.fill("Note", "Written for an hour").await.unwrap();
        browser.choose("Content type", 0, "blogposts").await.unwrap();
        browser.tick("READ", 0).await.unwrap();
        end_sessions(&panel);
        browser.click("Make the key").await.unwrap();
        browser.wait_for("Your session had ended.").await.unwrap();
        browser.fill("E-mail", OPERATOR).await.unwrap();
        browser.fill("Password", PASSWORD).await.unwrap();
        browser.click("Sign in").await.unwrap();
        browser.wait_for("You were signed out before this form was sent.").await.unwrap();
        assert_eq!(count(&panel, &name).await, 0, "nothing is carried out by itself");
        browser.click("Make the key").await.unwrap();
        browser.wait_for("It is shown this once.").await.unwrap();
        assert_eq!(count(&panel, &name).await, 1);
        let note = "return document.getElementById('note').value";
        assert_eq!(browser.run(note, vec![]).await.unwrap(), "Written for an hour");
    }
    panel.browser.quit().await.unwrap();
}

/// Makes all sessions as old as those that have ended.
fn end_sessions(panel: &Panel) {
    let store = rusqlite::Connection::open(panel.stack.control_plane.data.join("latchkey.db"));
    store.unwrap().execute("UPDATE sessions SET seen_at_ms = 1", []).unwrap();
}

/// Everything that is wrong used to be said in rounds, and the focus was nowhere.
#[tokio::test]
async fn first_field_in_error_has_the_focus() {
    let panel = Panel::start().await;
    panel.make_account().await;
    let browser = &panel.browser;
    for has_scripts in [true, false] {
        browser.allow_scripts(has_scripts).await.unwrap();
        panel.open("/accounts/acme/new-content-type").await;
        browser.fill("Name", "pages").await.unwrap();
        browser.click("Add relation").await.unwrap();
        browser.wait_for("Points at").await.unwrap();
        browser.fill("Field", "no field").await.unwrap();
        browser.click("Save").await.unwrap();
        browser.wait_for("Expected at least one resource").await.unwrap();
        let seen = browser.text().await.unwrap();
        assert!(seen.contains("Expected the name of a field"), "{seen}");
        let focused =
            "const e = document.activeElement; return [e.id, e.getAttribute('aria-describedby')]";
        let expected = json!(["relation-0-field", "relation-0-field-error"]);
        assert_eq!(browser.run(focused, vec![]).await.unwrap(), expected);
    }
    panel.browser.quit().await.unwrap();
}
