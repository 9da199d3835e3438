//! The management API does what its document says: for validators, generators and whoever asks anything.

use std::process::Command;

use latchkey_tests::stack::Folder;
use latchkey_tests::{ControlPlane, ports, project};
use serde_json::{Value, json};

/// The document is valid, a client is built from it, and each of some thousand requests that are made from it,
/// right and wrong ones, is answered as it says.
#[tokio::test(flavor = "multi_thread")]
async fn document_says_what_the_api_does() {
    let folder = Folder::new().unwrap();
    let (data, port) = (folder.path().join("data"), ports::free().unwrap());
    let control_plane = ControlPlane::start(port, &data, folder.path(), None, &[]).await.unwrap();
    fill(&control_plane).await;
    let url = format!("http://127.0.0.1:{port}");
    let script = project::folder().join("tests/openapi.sh");
    let token = control_plane.operator_token.clone();
    let checked = tokio::task::spawn_blocking(move || {
        Command::new(script).args([url, token]).output().unwrap()
    });
    let checked = checked.await.unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// What the demo has: accounts of both profiles, with content types and keys, and room for more.
async fn fill(control_plane: &ControlPlane) {
    let limits = json!([{"name": "calls", "amount": 1_000, "bucket_seconds": 3_600, "buckets": 1}]);
    let plan = json!({"limits": limits, "max_user_keys": 1_000});
    control_plane.call("PUT", "/plans/roomy", &plan).await.unwrap();
    for (account, profile) in [("blog", "flotiq"), ("shop", "flotiq"), ("search", "fltr")] {
        let body = json!({"id": account, "name": account, "profile": profile, "plan": "roomy"});
        control_plane.call("POST", "/accounts", &body).await.unwrap();
        let mut rules = json!([{"resource": "*", "actions": ["*"]}]);
        if profile == "flotiq" {
            for (name, relations) in
                [("posts", json!({"author": ["authors"]})), ("authors", json!({}))]
            {
                let path = format!("/accounts/{account}/resources/{name}");
                control_plane.call("PUT", &path, &json!({"relations": relations})).await.unwrap();
            }
            rules = json!([{"resource": "posts", "actions": ["read"]}]);
        }
        for index in 0..3 {
            let key = json!({"name": format!("Key {index}"), "rules": rules});
            control_plane.create_key(account, &key).await.unwrap();
        }
    }
    control_plane.call("GET", "/accounts", &Value::Null).await.unwrap();
}
