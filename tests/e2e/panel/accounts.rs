//! What operators do with accounts.

use serde_json::{Value, json};

use super::Panel;

/// An account is suspended and resumed, and its usage put right, each in force at the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn account_is_suspended_resumed_and_put_right() {
    let panel = Panel::start().await;
    let (control_plane, browser) = (&panel.stack.control_plane, &panel.browser);
    let limits = json!([{"name": "calls", "amount": 2, "bucket_seconds": 86_400, "buckets": 1}]);
    let key = control_plane.create_limited_account("acme", &limits).await.unwrap();
    let posts = "/api/v1/content/posts";
    panel.stack.wait_until_in_force().await.unwrap();

    panel.open("/accounts/acme/settings").await;
    browser.click("Suspend the account").await.unwrap();
    browser.click("Suspend it now").await.unwrap();
    browser.wait_for("The account is suspended.").await.unwrap();
    panel.wait_for_status(&key.token, posts, 401).await;
    panel.open("/accounts/acme/keys").await;
    browser.wait_for("This account is suspended").await.unwrap();
    panel.open("/accounts/acme/settings").await;
    browser.click("Resume the account").await.unwrap();
    browser.wait_for("keys work again").await.unwrap();
    panel.wait_for_status(&key.token, posts, 200).await;

    panel.wait_for_status(&key.token, posts, 403).await;
    control_plane.wait_until_used("acme", "calls", 2).await.unwrap();
    panel.open("/accounts/acme/usage").await;
    browser.click("Correct usage").await.unwrap();
    browser.fill("Calls that count as used", "many").await.unwrap();
    browser.fill("Reason", "a test").await.unwrap();
    browser.click("Correct").await.unwrap();
    browser.wait_for("xpected a number of calls").await.unwrap();
    browser.fill("Calls that count as used", "1").await.unwrap();
    browser.click("Correct").await.unwrap();
    browser.wait_for("The usage was corrected.").await.unwrap();
    panel.wait_for_status(&key.token, posts, 200).await;
    let audit = control_plane.call("GET", "/audit?account=acme", &Value::Null).await.unwrap();
    let actions: Vec<&str> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["action"].as_str())
        .filter(|action| action.starts_with("account.") || action.starts_with("usage."))
        .collect();
    assert_eq!(actions, ["account.create", "account.suspend", "account.resume", "usage.correct"]);
    panel.browser.quit().await.unwrap();
}
