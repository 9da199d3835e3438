//! What a key may do: every route of both profiles, from their data, for every shape of key.

use latchkey_tests::http::{pooled_client, send_pooled};
use latchkey_tests::{Stack, project};
use serde_json::{Value, json};

/// A key and what the test knows of it.
struct Holder {
    kind: &'static str,
    token: String,
    rules: Vec<(String, String)>,
}

impl Holder {
    fn holds(&self, resource: &str, action: &str, implied: &Value) -> bool {
        self.rules.iter().any(|(held_resource, held)| {
            let named = held_resource == "*" || held_resource == resource;
            let implies = implied[resource][held]
                .as_array()
                .is_some_and(|actions| actions.iter().any(|implied| implied == action));
            named && (held == "*" || held == action || action == "?" || implies)
        })
    }
}

/// Every action alone and with each other, on one resource.
fn subsets(resource: &str, actions: &[&str]) -> Vec<Value> {
    (0..1_usize << actions.len())
        .map(|bits| {
            let some: Vec<&str> = actions
                .iter()
                .enumerate()
                .filter(|(bit, _)| bits & (1 << bit) != 0)
                .map(|(_, action)| *action)
                .collect();
            if some.is_empty() {
                json!([])
            } else {
                json!([{"resource": resource, "actions": some}])
            }
        })
        .collect()
}

async fn holders(stack: &Stack, account: &str, shapes: Vec<Value>) -> Vec<Holder> {
    let mut holders = Vec::new();
    for rules in shapes {
        let key = json!({"name": "shape", "rules": rules});
        let key = stack.control_plane.create_key(account, &key).await.unwrap();
        let mut pairs = Vec::new();
        for rule in rules.as_array().unwrap() {
            for action in rule["actions"].as_array().unwrap() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                pairs.push((text(&rule["resource"]), text(action)));
            }
        }
        holders.push(Holder { kind: "user_defined", token: key.token, rules: pairs });
    }
    holders
}

/// Works out from a profile's file, by the plainest reading, whether a key may use a route.
fn is_permitted(profile: &Value, route: &Value, path: &str, key: &Holder) -> bool {
    let list = |name: &str| route[name].as_array().cloned().unwrap_or_default();
    let kind = json!(key.kind);
    if matches!(route["access"].as_str(), Some("public" | "any_key"))
        || list("pass_kinds").contains(&kind)
    {
        return true;
    }
    if !list("only_kinds").is_empty() && !list("only_kinds").contains(&kind) {
        return false;
    }
    let mut needs: Vec<String> =
        list("needs").iter().map(|need| need.as_str().unwrap().to_owned()).collect();
    // A search that names nothing is narrowed to what the key may read.
    if !route["search"].is_null() {
        return key.rules.iter().any(|(_, action)| action == "read" || action == "*");
    }
    // The account has no content types, so none of a query's fields is known.
    if !route["graphql"].is_null() {
        needs.push("*:read".to_owned());
    }
    needs.iter().all(|need| {
        let (resource, action) = need.rsplit_once(':').unwrap();
        let template = route["path"].as_str().unwrap_or_default();
        let segment = template.split('/').position(|segment| segment == resource);
        let resource = match segment {
            Some(index) => path.split('/').nth(index).unwrap(),
            None => resource,
        };
        key.holds(resource, action, &profile["implied_actions"])
    })
}

async fn check_every_route(stack: &Stack, name: &str, keys: &[Holder]) -> usize {
    let file = project::profile(name).unwrap();
    let profile: Value = serde_json::from_str(&file).unwrap();
    let mut routes = profile["routes"].as_array().unwrap().clone();
    let mut unlisted = profile["unlisted"].clone();
    unlisted["methods"] = json!(["GET", "POST", "PUT", "DELETE"]);
    unlisted["path"] = json!("/v9/nothing/here");
    routes.push(unlisted);

    let client = pooled_client();
    let port = stack.port(name).unwrap();
    let mut checked = 0;
    for route in &routes {
        let template = route["path"].as_str().unwrap();
        let path: String = template
            .split('/')
            .skip(1)
            .map(|segment| match segment {
                "{type}" | "{name}" => "/posts".to_owned(),
                _ if segment.starts_with('{') => "/x7".to_owned(),
                _ => format!("/{segment}"),
            })
            .collect();
        for method in route["methods"].as_array().unwrap() {
            let method = method.as_str().unwrap();
            let is_graphql = !route["graphql"].is_null();
            let (query, body) = match (is_graphql, method) {
                (true, "GET") => ("?query=%7Bposts%7Bid%7D%7D", ""),
                (true, _) => ("", r#"{"query": "{posts{id}}"}"#),
                (false, _) => ("", ""),
            };
            for key in keys {
                let url = format!("http://127.0.0.1:{port}{path}{query}");
                let header = match name {
                    "flotiq" => ("x-auth-token", key.token.clone()),
                    _ => ("authorization", format!("Bearer {}", key.token)),
                };
                let json = ("content-type", "application/json");
                let headers = [(header.0, header.1.as_str()), json];
                let answer = send_pooled(&client, method, &url, &headers, body).await.unwrap();
                let expected = if is_permitted(&profile, route, &path, key) { 200 } else { 403 };
                let (kind, rules) = (key.kind, &key.rules);
                assert_eq!(answer.status, expected, "{method} {path} {kind} {rules:?}");
                checked += 1;
            }
        }
    }
    checked
}

#[tokio::test]
async fn flotiq_routes_are_open_to_just_the_keys_with_their_rights() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    let mut shapes = subsets("posts", &["read", "create", "update", "delete"]);
    shapes.push(json!([{"resource": "*", "actions": ["read"]}]));
    shapes.push(json!([{"resource": "*", "actions": ["*"]}]));
    shapes.push(json!([{"resource": "other", "actions": ["*"]}]));
    shapes.push(json!([{"resource": "_media", "actions": ["create"]}]));
    let mut keys = holders(&stack, "acme", shapes).await;
    for (kind, action) in [("application_read_write", "*"), ("application_read_only", "read")] {
        let key = control_plane.application_key("acme", kind).await.unwrap();
        let rules = vec![("*".to_owned(), action.to_owned())];
        keys.push(Holder { kind, token: key.token, rules });
    }
    stack.wait_until_in_force().await.unwrap();
    let checked = check_every_route(&stack, "flotiq", &keys).await;
    assert!(checked > 900, "{checked}");
}

#[tokio::test]
async fn fltr_routes_are_open_to_just_the_keys_with_their_scopes() {
    let stack = Stack::start(&["fltr"]).await.unwrap();
    stack.control_plane.create_account("lib", "fltr").await.unwrap();
    let mut shapes = subsets("datasets", &["read", "write", "delete"]);
    shapes.extend(subsets("documents", &["read", "write", "delete"]));
    shapes.extend(subsets("mcp", &["query", "batch_query"]));
    shapes.push(json!([{"resource": "webhooks", "actions": ["manage"]}]));
    shapes.push(json!([{"resource": "account", "actions": ["read"]}]));
    shapes.push(json!([{"resource": "*", "actions": ["read"]}]));
    shapes.push(json!([{"resource": "*", "actions": ["*"]}]));
    let keys = holders(&stack, "lib", shapes).await;
    stack.wait_until_in_force().await.unwrap();
    let checked = check_every_route(&stack, "fltr", &keys).await;
    assert!(checked > 500, "{checked}");
}

#[tokio::test]
async fn answer_to_a_missing_right_names_it() {
    let stack = Stack::start(&["flotiq", "fltr"]).await.unwrap();
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    control_plane.create_account("lib", "fltr").await.unwrap();
    let rules = json!([{"resource": "posts", "actions": ["read"]}]);
    let cms = holders(&stack, "acme", vec![rules]).await;
    let rules = json!([{"resource": "datasets", "actions": ["write"]}]);
    let rag = holders(&stack, "lib", vec![rules]).await;
    stack.wait_until_in_force().await.unwrap();

    let headers = [("x-auth-token", cms[0].token.as_str())];
    let answer = stack.send("flotiq", "DELETE", "/api/v1/content/posts/1", &headers).await.unwrap();
    let body = json!({"code": 403, "message": "Access denied or quota limit exceeded"});
    assert_eq!((answer.status, answer.json()), (403, body));
    assert!(answer.header("www-authenticate").contains("scope=\"posts:delete\""));

    let bearer = format!("Bearer {}", rag[0].token);
    let headers = [("authorization", bearer.as_str())];
    let answer = stack.send("fltr", "DELETE", "/v1/datasets/7", &headers).await.unwrap();
    let body = json!({"error": "Insufficient permissions", "code": "insufficient_scope",
        "details": {"required_scope": "datasets:delete", "granted_scopes": ["datasets:write"]}});
    assert_eq!((answer.status, answer.json()), (403, body));
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer realm=\"fltr\", error=\"insufficient_scope\", scope=\"datasets:delete\""
    );
}
