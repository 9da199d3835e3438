//! The management API: what operators and their tools rely on.

use std::path::Path;
use std::time::{Duration, Instant};

use latchkey_tests::stack::Folder;
use latchkey_tests::{ControlPlane, Response, http, ports, wait};
use serde_json::{Value, json};

pub(crate) async fn start() -> (ControlPlane, Folder) {
    let folder = Folder::new().unwrap();
    let control_plane = start_on(folder.path(), None).await;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    (control_plane, folder)
}

async fn start_on(folder: &Path, operator_token: Option<&str>) -> ControlPlane {
    let data = folder.join("data");
    let port = ports::free().unwrap();
    ControlPlane::start(port, &data, folder, operator_token, &[]).await.unwrap()
}

pub(crate) async fn get(control_plane: &ControlPlane, path: &str) -> Value {
    control_plane.call("GET", path, &Value::Null).await.unwrap()
}

/// Checks that an answer is problem details that name a field.
pub(crate) fn assert_problem(answer: &Response, status: u16, field: Option<&str>) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    if let Some(field) = field {
        let errors = problem["errors"].as_array().unwrap();
        assert!(errors.iter().any(|error| error["field"] == field), "{field}: {problem}");
    }
}

#[tokio::test]
async fn key_lives_as_documented() {
    let (control_plane, _folder) = start().await;
    let body = json!({
        "name": "Website", "environment": "production", "note": "first\nsecond",
        "rules": [{"resource": "posts", "actions": ["read", "create"]}],
        "expires_at": "2099-01-02T03:04:05Z", "allowed_networks": ["192.0.2.7", "10.1.2.3/8"],
        "limits": [{"name": "daily", "amount": 10, "bucket_seconds": 86400, "buckets": 1}],
    });
    let answer = control_plane.api("POST", "/accounts/acme/keys", &body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("ftq_") && token.len() == 34, "{token}");
    let key = answer.json()["key"].clone();
    let path = format!("/accounts/acme/keys/{}", key["id"].as_str().unwrap());
    for (member, value) in [
        ("account", json!("acme")),
        ("name", json!("Website")),
        ("kind", json!("user_defined")),
        ("state", json!("active")),
        ("rules", body["rules"].clone()),
        ("environment", json!("production")),
        ("note", json!("first\nsecond")),
        ("expires_at", json!("2099-01-02T03:04:05Z")),
        ("last_used_at", Value::Null),
        ("allowed_networks", json!(["192.0.2.7/32", "10.0.0.0/8"])),
        ("limits", body["limits"].clone()),
    ] {
        assert_eq!(key[member], value, "{member}");
    }
    assert!(key["created_at"].as_str().unwrap().ends_with('Z'));
    let hint = key["token_hint"].as_str().unwrap();
    assert!(token.ends_with(hint.trim_start_matches('…')) && hint.len() < 10);
    assert_eq!(get(&control_plane, &path).await, key, "the same, without the token");

    let patch = json!({"name": "Site", "expires_at": null, "allowed_networks": [], "rules": []});
    let edited = control_plane.call("PATCH", &path, &patch).await.unwrap();
    assert_eq!(edited["name"], "Site");
    assert_eq!((&edited["expires_at"], &edited["rules"]), (&Value::Null, &json!([])));
    assert_eq!(edited["note"], "first\nsecond", "what is absent stays");

    for (verb, state) in [("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active")]
    {
        let path = format!("{path}/{verb}");
        let key = control_plane.call("POST", &path, &Value::Null).await.unwrap();
        assert_eq!(key["state"], state);
    }
    let again = control_plane
        .call("POST", &format!("{path}/regenerate"), &json!({"grace_seconds": 60}))
        .await
        .unwrap();
    assert_ne!(again["token"], token.as_str());
    assert_eq!(again["key"]["id"], key["id"]);

    let answer = control_plane.api("DELETE", &path, &Value::Null).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(get(&control_plane, &path).await["state"], "revoked", "the record stays");
    let nothing = control_plane.api("POST", &format!("{path}/regenerate"), &Value::Null).await;
    assert_problem(&nothing.unwrap(), 400, None);
    for verb in ["regenerate", "suspend", "resume"] {
        let path = format!("{path}/{verb}");
        assert_problem(&control_plane.api("POST", &path, &json!({})).await.unwrap(), 409, None);
    }
}

#[tokio::test]
async fn application_keys_exist_from_birth_and_are_never_removed() {
    let (control_plane, _folder) = start().await;
    let keys = get(&control_plane, "/accounts/acme/keys").await;
    let kinds: Vec<&Value> =
        keys["items"].as_array().unwrap().iter().map(|key| &key["kind"]).collect();
    assert_eq!(kinds, ["application_read_write", "application_read_only"]);
    for key in keys["items"].as_array().unwrap() {
        let path = format!("/accounts/acme/keys/{}", key["id"].as_str().unwrap());
        assert_problem(&control_plane.api("DELETE", &path, &Value::Null).await.unwrap(), 409, None);
        let answer = control_plane.api("PATCH", &path, &json!({"rules": []})).await.unwrap();
        assert_problem(&answer, 400, Some("rules"));
    }
    control_plane.create_account("lib", "fltr").await.unwrap();
    assert_eq!(get(&control_plane, "/accounts/lib/keys").await["items"], json!([]));
    let without = json!({"name": "k"});
    let answer = control_plane.api("POST", "/accounts/lib/keys", &without).await.unwrap();
    assert_problem(&answer, 400, Some("rules"));
    let all = json!({"name": "k", "rules": [{"resource": "*", "actions": ["*"]}]});
    let full = control_plane.call("POST", "/accounts/lib/keys", &all).await.unwrap();
    assert_eq!(full["key"]["rules"], json!([{"resource": "*", "actions": ["*"]}]));
    assert!(full["token"].as_str().unwrap().starts_with("fltr_sk_"));
}

#[tokio::test]
async fn bad_input_is_400_and_names_the_field() {
    let (control_plane, _folder) = start().await;
    let keys = "/accounts/acme/keys";
    let rules = json!([{"resource": "posts", "actions": ["read"]}]);
    let limit =
        |amount: Value| json!({"name": "l", "amount": amount, "bucket_seconds": 1, "buckets": 1});
    for (method, path, body, field) in [
        ("POST", "/accounts", json!({"name": "x", "profile": "nobody"}), "profile"),
        ("POST", "/accounts", json!({"profile": "flotiq"}), "name"),
        ("POST", "/accounts", json!({"id": "A B", "name": "x", "profile": "flotiq"}), "id"),
        ("POST", "/accounts", json!({"name": " ", "profile": "flotiq"}), "name"),
        ("POST", "/accounts", json!({"name": "x", "profile": "flotiq", "plan": "gold"}), "plan"),
        ("PATCH", "/accounts/acme", json!({"profile": "fltr"}), "profile"),
        ("POST", keys, json!({"name": "k"}), "rules"),
        ("POST", keys, json!({"name": 7, "rules": []}), "name"),
        ("POST", keys, json!({"name": "k", "rules": rules, "rulez": []}), "rulez"),
        ("POST", keys, json!({"name": "k", "rules": {}}), "rules"),
        (
            "POST",
            keys,
            json!({"name": "k", "rules": [{"resource": "Posts!", "actions": ["read"]}]}),
            "rules[0].resource",
        ),
        (
            "POST",
            keys,
            json!({"name": "k", "rules": [{"resource": "posts", "actions": ["reed"]}]}),
            "rules[0].actions[0]",
        ),
        (
            "POST",
            keys,
            json!({"name": "k", "rules": [{"resource": "posts", "actions": []}]}),
            "rules[0].actions",
        ),
        ("POST", keys, json!({"name": "k", "rules": [{"resource": "posts"}]}), "rules[0].actions"),
        (
            "POST",
            keys,
            json!({"name": "k", "rules": rules, "expires_at": "tomorrow"}),
            "expires_at",
        ),
        (
            "POST",
            keys,
            json!({"name": "k", "rules": rules, "expires_at": "2001-01-01T00:00:00Z"}),
            "expires_at",
        ),
        (
            "POST",
            keys,
            json!({"name": "k", "rules": rules, "allowed_networks": ["10.0.0.0/99"]}),
            "allowed_networks[0]",
        ),
        (
            "POST",
            keys,
            json!({"name": "k", "rules": rules, "limits": [limit(json!(-1))]}),
            "limits[0].amount",
        ),
        ("POST", keys, json!({"name": "x".repeat(300), "rules": rules}), "name"),
        ("POST", keys, json!({"name": "k", "rules": rules, "note": "x".repeat(3000)}), "note"),
        ("POST", keys, json!({"name": "k\u{0}", "rules": rules}), "name"),
        (
            "PUT",
            "/plans/p",
            json!({"limits": [{"name": "l", "amount": 1, "bucket_seconds": 0, "buckets": 1}]}),
            "limits[0].bucket_seconds",
        ),
        (
            "PUT",
            "/plans/p",
            json!({"limits": [limit(json!(1)), limit(json!(2))]}),
            "limits[1].name",
        ),
        ("PUT", "/accounts/acme/resources/Posts", json!({}), "name"),
        (
            "PUT",
            "/accounts/acme/resources/posts",
            json!({"relations": {"a": "tags"}}),
            "relations.a",
        ),
        (
            "PUT",
            "/accounts/acme/resources/posts",
            json!({"relations": {"a": ["T!"]}}),
            "relations.a[0]",
        ),
        ("GET", "/accounts?limit=0", Value::Null, "limit"),
        ("GET", "/accounts?limit=many", Value::Null, "limit"),
        ("GET", "/audit?after=x", Value::Null, "after"),
        ("GET", "/proxies?limit=x", Value::Null, "limit"),
    ] {
        let answer = control_plane.api(method, path, &body).await.unwrap();
        assert_problem(&answer, 400, Some(field));
    }
    for (method, path, body, status) in [
        ("POST", "/accounts", json!({"id": "acme", "name": "x", "profile": "flotiq"}), 409),
        ("GET", "/accounts/nobody", Value::Null, 404),
        ("GET", "/accounts/nobody/keys", Value::Null, 404),
        ("GET", "/accounts/acme/keys/nothing", Value::Null, 404),
        ("DELETE", "/accounts/acme/resources/nothing", Value::Null, 404),
        ("DELETE", "/plans/for-tests", Value::Null, 409),
        ("GET", "/nothing/here", Value::Null, 404),
        ("PUT", "/accounts", json!({}), 405),
        ("POST", "/accounts", json!([1]), 400),
        ("GET", "/accounts/%ff", Value::Null, 400),
    ] {
        let answer = control_plane.api(method, path, &body).await.unwrap();
        assert_problem(&answer, status, None);
    }
}

#[tokio::test]
async fn body_that_is_no_json_is_refused() {
    let (control_plane, _folder) = start().await;
    let url = format!("http://127.0.0.1:{}/api/v1/accounts", control_plane.port);
    let authorization = format!("Bearer {}", control_plane.operator_token);
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(3 << 20));
    for (content_type, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "", 400),
        ("application/json", "{} {}", 400),
        ("application/json", "\u{0}", 400),
        ("text/plain", "{\"name\":\"x\"}", 415),
        ("application/json", large.as_str(), 413),
    ] {
        let headers = [
            ("authorization", authorization.as_bytes()),
            ("content-type", content_type.as_bytes()),
        ];
        let answer = http::send("POST", &url, &headers, body.as_bytes()).await.unwrap();
        assert_problem(&answer, status, None);
    }
}

#[tokio::test]
async fn operator_token_is_needed_and_the_edge_token_is_no_substitute() {
    let (control_plane, _folder) = start().await;
    let edge_token = control_plane.edge_token().unwrap();
    let base = format!("http://127.0.0.1:{}", control_plane.port);
    let operator = format!("Bearer {}", control_plane.operator_token);
    let edge = format!("Bearer {edge_token}");
    let poll = "/edge/v1/updates?profile=flotiq&instance=i&worker=w";
    for (path, token, status) in [
        ("/api/v1/accounts", "", 401),
        ("/api/v1/accounts", "Bearer wrong", 401),
        ("/api/v1/accounts", &edge, 401),
        ("/api/v1/accounts", &operator, 200),
        (poll, "", 401),
        (poll, &operator, 401),
        (poll, &edge, 200),
        ("/api/v1/openapi.json", "", 200),
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/metrics", "", 200),
    ] {
        let headers = [("authorization", token.as_bytes())];
        let answer = http::send("GET", &format!("{base}{path}"), &headers, b"").await.unwrap();
        assert_eq!(answer.status, status, "{path} {token}");
        if status == 401 {
            assert_problem(&answer, 401, None);
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
        }
    }
}

#[tokio::test]
async fn resource_that_a_rule_names_cannot_be_deleted() {
    let (control_plane, _folder) = start().await;
    let path = "/accounts/acme/resources/posts";
    let resource = json!({"relations": {"author": ["authors"], "anything": "*"}});
    let made = control_plane.api("PUT", path, &resource).await.unwrap();
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["relations"], resource["relations"]);
    assert_eq!(control_plane.api("PUT", path, &resource).await.unwrap().status, 200);
    let key = json!({"name": "My site", "rules": [{"resource": "posts", "actions": ["read"]}]});
    let key = control_plane.create_key("acme", &key).await.unwrap();
    let answer = control_plane.api("DELETE", path, &Value::Null).await.unwrap();
    assert_problem(&answer, 400, Some("name"));
    let text = "This content type definition is used by Api Key: My site";
    assert_eq!(answer.json()["errors"][0]["message"], text);
    let path_of_key = format!("/accounts/acme/keys/{}", key.id);
    control_plane.call("DELETE", &path_of_key, &Value::Null).await.unwrap();
    assert_eq!(control_plane.api("DELETE", path, &Value::Null).await.unwrap().status, 204);
}

/// Every worker holds them all.
#[tokio::test]
async fn resources_of_an_account_are_bounded() {
    let (control_plane, _folder) = start().await;
    let targets: Vec<String> = (0..20).map(|_| "x".repeat(64)).collect();
    let fields = (0..450).map(|field| (format!("field{field}"), json!(targets)));
    let large = json!({"relations": fields.collect::<serde_json::Map<_, _>>()});
    let path = "/accounts/acme/resources/posts";
    let answer = control_plane.api("PUT", path, &large).await.unwrap();
    assert_problem(&answer, 409, None);
    assert!(answer.text().contains("524288 bytes"), "{}", answer.text());
    assert_eq!(control_plane.api("GET", path, &Value::Null).await.unwrap().status, 404);
}

#[tokio::test]
async fn plan_bounds_the_number_of_keys() {
    let (control_plane, _folder) = start().await;
    for plan in ["free", "basic", "growth", "custom", "standard"] {
        let plan = get(&control_plane, &format!("/plans/{plan}")).await;
        assert!(!plan["limits"].as_array().unwrap().is_empty());
    }
    let account = json!({"id": "small", "name": "Small", "profile": "flotiq"});
    let account = control_plane.call("POST", "/accounts", &account).await.unwrap();
    assert_eq!(account["plan"], "free", "the profile's default");
    let key = json!({"name": "k", "rules": []});
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(control_plane.create_key("small", &key).await.unwrap());
    }
    let answer = control_plane.api("POST", "/accounts/small/keys", &key).await.unwrap();
    assert_problem(&answer, 409, None);
    let path = format!("/accounts/small/keys/{}", keys[0].id);
    control_plane.call("DELETE", &path, &Value::Null).await.unwrap();
    control_plane.create_key("small", &key).await.unwrap();
    let bigger = json!({"plan": "basic"});
    control_plane.call("PATCH", "/accounts/small", &bigger).await.unwrap();
    control_plane.create_key("small", &key).await.unwrap();
}

#[tokio::test]
async fn lists_are_paged_to_the_end() {
    let (control_plane, _folder) = start().await;
    for index in 0..5 {
        let key = json!({"name": format!("k{index}"), "rules": []});
        control_plane.create_key("acme", &key).await.unwrap();
        let path = format!("/accounts/acme/resources/type_{}", "x".repeat(index + 1));
        control_plane.call("PUT", &path, &json!({})).await.unwrap();
    }
    for (path, count) in [
        ("/accounts", 1),
        ("/plans", 6),
        ("/accounts/acme/keys", 7),
        ("/accounts/acme/resources", 5),
        ("/audit?account=acme", 13),
    ] {
        let whole = get(&control_plane, path).await;
        assert_eq!(whole["items"].as_array().unwrap().len(), count, "{path}");
        assert_eq!(whole["next"], Value::Null);
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let part = get(&control_plane, &format!("{path}{separator}limit=2{after}")).await;
            items.extend(part["items"].as_array().unwrap().clone());
            match part["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(json!(items), whole["items"], "{path}");
    }
}

#[tokio::test]
async fn audit_log_says_who_did_what_and_outlives_the_account() {
    let (control_plane, _folder) = start().await;
    let key = json!({"name": "k", "rules": []});
    let key = control_plane.create_key("acme", &key).await.unwrap();
    let path = format!("/accounts/acme/keys/{}", key.id);
    control_plane.call("PATCH", &path, &json!({"name": "l"})).await.unwrap();
    control_plane.call("DELETE", &path, &Value::Null).await.unwrap();
    control_plane.call("DELETE", "/accounts/acme", &Value::Null).await.unwrap();
    let audit = get(&control_plane, "/audit?account=acme").await;
    let entries = audit["items"].as_array().unwrap();
    let actions: Vec<&str> =
        entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "account.create",
            "key.create",
            "key.create",
            "key.create",
            "key.edit",
            "key.revoke",
            "account.delete"
        ]
    );
    let edit = &entries[4];
    assert_eq!((&edit["actor"], &edit["from"]), (&json!("operator"), &json!("127.0.0.1")));
    assert_eq!(edit["subject"], key.id.as_str());
    assert_eq!(edit["details"]["before"]["name"], "k");
    assert_eq!(edit["details"]["after"]["name"], "l");
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let (mut control_plane, folder) = start().await;
    let key = json!({"name": "k", "rules": []});
    control_plane.create_key("acme", &key).await.unwrap();
    let before = get(&control_plane, "/accounts/acme/keys").await;
    let status = control_plane.stop().await.unwrap();
    assert!(status.success(), "{status}");
    let token = control_plane.operator_token.clone();
    drop(control_plane);
    let control_plane = start_on(folder.path(), Some(&token)).await;
    assert_eq!(get(&control_plane, "/accounts/acme/keys").await, before);
}

/// A poll that waits for a change does not hold up the end.
#[tokio::test]
async fn service_ends_at_once_while_filters_wait() {
    let (mut control_plane, _folder) = start().await;
    let edge_token = format!("Bearer {}", control_plane.edge_token().unwrap());
    let base = format!("http://127.0.0.1:{}", control_plane.port);
    let poll = format!("{base}/edge/v1/updates?profile=flotiq&instance=i&worker=w");
    let headers = [("authorization", edge_token.as_bytes())];
    let snapshot = http::send("GET", &poll, &headers, b"").await.unwrap().json();
    let revision = snapshot["revision"].as_str().unwrap().to_owned();
    let waiting = tokio::spawn(async move {
        let url = format!("{poll}&after={revision}&wait_ms=25000");
        let headers = [("authorization", edge_token.as_bytes())];
        http::send("GET", &url, &headers, b"").await
    });
    wait::until("the open poll", wait::LONG, async || {
        let metrics = http::send("GET", &format!("{base}/metrics"), &[], b"").await.ok()?;
        metrics.text().contains("latchkey_open_polls 1").then_some(())
    })
    .await
    .unwrap();
    let begin = Instant::now();
    assert!(control_plane.stop().await.unwrap().success());
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(waiting.await.unwrap().unwrap().status, 204);
}

#[tokio::test]
async fn two_control_planes_do_not_share_a_folder() {
    let (control_plane, folder) = start().await;
    let port = ports::free().unwrap();
    let second = ControlPlane::start(port, &control_plane.data, folder.path(), None, &[]).await;
    let error = second.unwrap_err().to_string();
    assert!(error.contains("another control plane uses the folder"), "{error}");
}

#[tokio::test]
async fn document_describes_every_route() {
    let (control_plane, _folder) = start().await;
    let document = get(&control_plane, "/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/accounts", &["get", "post"][..]),
        ("/accounts/{account}", &["get", "patch", "delete"]),
        ("/plans", &["get"]),
        ("/plans/{plan}", &["get", "put", "delete"]),
        ("/accounts/{account}/keys", &["get", "post"]),
        ("/accounts/{account}/keys/{key}", &["get", "patch", "delete"]),
        ("/accounts/{account}/keys/{key}/regenerate", &["post"]),
        ("/accounts/{account}/keys/{key}/suspend", &["post"]),
        ("/accounts/{account}/keys/{key}/resume", &["post"]),
        ("/accounts/{account}/keys/{key}/end-grace", &["post"]),
        ("/accounts/{account}/resources", &["get"]),
        ("/accounts/{account}/resources/{name}", &["get", "put", "delete"]),
        ("/accounts/{account}/usage", &["get"]),
        ("/audit", &["get"]),
        ("/explain", &["post"]),
        ("/proxies", &["get"]),
    ] {
        let item = paths[&format!("/api/v1{path}")].as_object().unwrap();
        let mut listed: Vec<&str> = item.keys().map(String::as_str).collect();
        let mut expected = methods.to_vec();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected, "{path}");
        let concrete = path.replace("{account}", "acme").replace(['{', '}'], "");
        for method in item.keys() {
            let url = format!("http://127.0.0.1:{}/api/v1{concrete}", control_plane.port);
            let answer = http::send(&method.to_uppercase(), &url, &[], b"").await.unwrap();
            assert_problem(&answer, 401, None);
        }
        for operation in item.values() {
            assert!(operation["summary"].is_string() || operation["description"].is_string());
        }
    }
    let references = document.to_string();
    for reference in references.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not described");
    }
}
