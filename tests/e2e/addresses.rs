//! Clients of IPv4 on a gateway that listens on IPv6 as well.

use latchkey_tests::{Stack, http};
use serde_json::json;

const POSTS: &str = "/api/v1/content/posts";

#[tokio::test]
async fn gateway_on_every_address_knows_each_client_by_its_own() {
    let stack = Stack::start_with(&["flotiq"], |options| options.gateway_host = "[::]".to_owned())
        .await
        .unwrap();
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    let port = stack.port("flotiq").unwrap();
    for (networks, canonical, by_ipv4, by_ipv6) in [
        (json!(["127.0.0.0/8"]), "127.0.0.0/8", 200, 403),
        (json!(["::ffff:127.0.0.0/104"]), "127.0.0.0/8", 200, 403),
        (json!(["::ffff:7f00:1"]), "127.0.0.1/32", 200, 403),
        (json!(["::FFFF:127.0.0.1/128"]), "127.0.0.1/32", 200, 403),
        (json!(["::1"]), "::1/128", 403, 200),
        (json!(["::ffff:192.0.2.0/120"]), "192.0.2.0/24", 403, 403),
        (json!(["::1/128", "::ffff:0:0/96"]), "::1/128", 200, 200),
    ] {
        let key = json!({"name": "k", "allowed_networks": networks,
            "rules": [{"resource": "posts", "actions": ["read"]}]});
        let answer = control_plane.call("POST", "/accounts/acme/keys", &key).await.unwrap();
        assert_eq!(answer["key"]["allowed_networks"][0], canonical, "{networks}");
        let token = answer["token"].as_str().unwrap();
        stack.wait_until_in_force().await.unwrap();
        for (host, status) in [("127.0.0.1", by_ipv4), ("[::1]", by_ipv6)] {
            let url = format!("http://{host}:{port}{POSTS}");
            let headers = [("x-auth-token", token.as_bytes())];
            let answer = http::send("GET", &url, &headers, b"").await.unwrap();
            assert_eq!(answer.status, status, "{networks} from {host}");
        }
    }
}
