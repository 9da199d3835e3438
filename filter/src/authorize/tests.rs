mod graphql;
mod properties;
mod reach;
mod spellings;

use latchkey_protocol::{
    AccountResources, KeyKind, Resource, Revision, RightSet, Rule, TokenColumns, Update,
};
use proptest::prelude::*;

use super::*;
use crate::answer;
use crate::profile::SHIPPED;

const RW: &str = "token-of-the-read-write-key";
const RO: &str = "token-of-the-read-only-key";
const SCOPED: &str = "token-of-a-scoped-key";
const BOUND: &str = "token-bound-to-a-network";
const BRIEF: &str = "token-that-expires-at-1000";
const SHADOWED: &str = "token-of-a-shadowed-key";

fn rules(rules: &[(&str, &[&str])]) -> RightSet {
    let rule = |&(resource, actions): &(&str, &[&str])| Rule {
        resource: resource.to_owned(),
        actions: actions.iter().map(|&action| action.to_owned()).collect(),
    };
    RightSet::from(rules.iter().map(rule).collect::<Vec<_>>())
}

fn replica(scoped: &[(&str, &[&str])]) -> Replica {
    replica_with(scoped, &[])
}

/// A replica of an account with resources, each with its relations.
fn replica_with(scoped: &[(&str, &[&str])], resources: &[Resource]) -> Replica {
    let revision = Revision { number: 1, mark: 1 };
    let user = KeyKind::UserDefined;
    let keys = [
        (RW, KeyKind::ApplicationReadWrite, 0, 0, 0),
        (RO, KeyKind::ApplicationReadOnly, 1, 0, 0),
        (SCOPED, user, 2, 0, 0),
        (BOUND, user, 0, 0, 1),
        (BRIEF, user, 0, 1000, 0),
        (SHADOWED, user, 2, 0, 0),
    ];
    let update = Update {
        accounts: vec!["acme".to_owned()],
        account_limits: vec![0],
        resources: vec![AccountResources { account: 0, resources: resources.to_vec() }],
        right_sets: vec![rules(&[("*", &["*"])]), rules(&[("*", &["read"])]), rules(scoped)],
        network_sets: vec![vec!["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()]],
        tokens: TokenColumns {
            hashes: keys.map(|(token, ..)| KeyHash::of(token.as_bytes())).to_vec(),
            keys: keys.map(|(token, ..)| format!("id-of-{token}")).to_vec(),
            kinds: keys.map(|(_, kind, ..)| kind).to_vec(),
            accounts: keys.map(|_| 0).to_vec(),
            right_sets: keys.map(|(_, _, rights, ..)| rights).to_vec(),
            expires_at_ms: keys.map(|(.., expires_at_ms, _)| expires_at_ms).to_vec(),
            network_sets: keys.map(|(.., networks)| networks).to_vec(),
            shadowed: vec![5],
            ..TokenColumns::default()
        },
        ..Update::empty(revision)
    };
    Replica::of(&update).unwrap()
}

fn flotiq() -> Profile {
    Profile::parse(SHIPPED[0].1).unwrap()
}

fn fltr() -> Profile {
    Profile::parse(SHIPPED[1].1).unwrap()
}

fn headers(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    [(":method", method), (":path", path), (":authority", "gateway")]
        .iter()
        .chain(more)
        .map(|&(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .collect()
}

fn borrowed(headers: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

fn judge<'a>(
    profile: &'a Profile,
    replica: &Replica,
    headers: &[(String, Vec<u8>)],
) -> Judgement<'a> {
    judge_body(profile, replica, headers, Body::Whole(b""))
}

fn judge_body<'a>(
    profile: &'a Profile,
    replica: &Replica,
    headers: &[(String, Vec<u8>)],
    body: Body<'_>,
) -> Judgement<'a> {
    let client_address = &|| Some("192.0.2.7".parse().unwrap());
    let headers = borrowed(headers);
    let request = Request { headers: Headers(&headers), body, now_ms: 999, client_address };
    authorize(profile, Some(replica), &request)
}

/// Status of a request with a token, 200 if it is permitted.
fn status(profile: &Profile, replica: &Replica, method: &str, path: &str, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let carrier = match profile.name.as_str() {
        "flotiq" => ("x-auth-token", token),
        _ => ("authorization", bearer.as_str()),
    };
    let with_token = [carrier];
    let more = if token.is_empty() { &[][..] } else { &with_token[..] };
    let headers = headers(method, path, more);
    status_of(profile, &judge(profile, replica, &headers))
}

fn status_of(profile: &Profile, judgement: &Judgement<'_>) -> u16 {
    match &judgement.outcome {
        Ok(_) => 200,
        Err(rejection) => answer::refusal(profile, judgement, rejection, Headers(&[])).status,
    }
}

/// FACTS of the Flotiq API: each route with the rights that a scoped key needs, and whether the
/// read-only Application key may use it. `-` is no right that a scoped key could have.
const FLOTIQ_ROUTES: [(&str, &str, &str, bool); 44] = [
    ("GET", "/api/v1/content/posts", "R", true),
    ("HEAD", "/api/v1/content/posts", "R", true),
    ("GET", "/api/v1/content/posts/1", "R", true),
    ("GET", "/api/v1/content/posts/1/version", "R", true),
    ("GET", "/api/v1/content/posts/1/version/2", "R", true),
    ("GET", "/api/v1/content/posts/removed", "RD", false),
    ("POST", "/api/v1/content/posts", "C", false),
    ("POST", "/api/v1/content/posts/batch", "C", false),
    ("POST", "/api/v1/content/posts/batch?updateExisting=false", "C", false),
    ("POST", "/api/v1/content/posts/batch?updateExisting=true", "CU", false),
    ("POST", "/api/v1/content/posts/batch?updateExisting=1", "CU", false),
    ("POST", "/api/v1/content/posts/batch?updateExisting%5B%5D=true", "CU", false),
    ("POST", "/api/v1/content/posts/batch?updateExisting=false&updateExisting=true", "CU", false),
    ("PATCH", "/api/v1/content/posts/batch", "U", false),
    ("PUT", "/api/v1/content/posts/1", "U", false),
    ("PATCH", "/api/v1/content/posts/1", "U", false),
    ("POST", "/api/v1/content/posts/1/publish", "U", false),
    ("POST", "/api/v1/content/posts/1/unpublish", "U", false),
    ("POST", "/api/v1/content/posts/1/archive", "U", false),
    ("POST", "/api/v1/content/posts/batch-publish", "U", false),
    ("POST", "/api/v1/content/posts/batch-unpublish", "U", false),
    ("POST", "/api/v1/content/posts/batch-archive", "U", false),
    ("POST", "/api/v1/content/posts/1/duplicate", "RC", false),
    ("DELETE", "/api/v1/content/posts/1", "D", false),
    ("POST", "/api/v1/content/posts/batch-delete", "D", false),
    ("GET", "/api/v1/content/posts?hydrate=0", "R", true),
    ("GET", "/api/v1/content/posts?hydrate=1", "-", true),
    ("GET", "/api/v1/content/posts/1?hydrate=2", "-", true),
    ("GET", "/api/v1/search?q=x&content_type[]=posts", "R", true),
    ("GET", "/api/v1/search?q=x&content_type%5B0%5D=posts", "R", true),
    ("GET", "/api/v1/search?content_type[]=posts&content_type[]=tags", "-", true),
    ("GET", "/api/v1/search?content_type[]=posts&hydrate=1", "-", true),
    ("GET", "/api/v1/search?q=x", "R", true),
    ("GET", "/api/v1/internal/contenttype/posts", "any", true),
    ("GET", "/api/v1/internal/contenttype/tags", "-", true),
    ("POST", "/api/v1/internal/contenttype", "-", false),
    ("PUT", "/api/v1/internal/contenttype/posts", "-", false),
    ("DELETE", "/api/v1/internal/contenttype/posts", "-", false),
    ("POST", "/api/v1/internal/contenttype/posts/purge", "-", false),
    ("POST", "/api/v1/spaces/main/purge", "-", false),
    ("GET", "/api/v1/workflow", "-", true),
    ("GET", "/api/v1/workflow/posts/1", "R", true),
    ("PUT", "/api/v1/workflow/posts/1", "U", false),
    ("GET", "/api/v2/unlisted", "-", false),
];

#[test]
fn flotiq_routes_need_what_the_facts_say() {
    let profile = flotiq();
    let names = [('R', "read"), ('C', "create"), ('U', "update"), ('D', "delete")];
    for held in 0_u8..16 {
        let held: Vec<(char, &str)> = names
            .into_iter()
            .enumerate()
            .filter(|&(bit, _)| held & (1 << bit) != 0)
            .map(|(_, name)| name)
            .collect();
        let actions: Vec<&str> = held.iter().map(|&(_, action)| action).collect();
        let replica = replica(&[("posts", &actions)]);
        for (method, path, needed, read_only) in FLOTIQ_ROUTES {
            let scoped = match needed {
                "-" => false,
                "any" => !held.is_empty(),
                _ => needed.chars().all(|letter| held.iter().any(|&(name, _)| name == letter)),
            };
            for (token, permitted) in [(RW, true), (RO, read_only), (SCOPED, scoped)] {
                let expected = if permitted { 200 } else { 403 };
                let got = status(&profile, &replica, method, path, token);
                assert_eq!(got, expected, "{method} {path} {token} {actions:?}");
            }
            assert_eq!(status(&profile, &replica, method, path, ""), 401, "{method} {path}");
            assert_eq!(status(&profile, &replica, method, path, "x"), 401, "{method} {path}");
        }
    }
}

#[test]
fn flotiq_special_routes() {
    let profile = flotiq();
    let replica = replica(&[("posts", &["read", "create", "update", "delete"])]);
    // PHP would stop before it sees what the search is narrowed to.
    let crowded = format!("/api/v1/search?{}content_type[]=posts", "a&".repeat(1000));
    for (method, path, token, expected) in [
        ("GET", "/image/0x0/a.jpg", "", 200),
        ("GET", "/image/0x0/a.jpg", SCOPED, 200),
        ("GET", "/image/0x0/a.jpg", "made-up", 401),
        ("POST", "/image/0x0/a.jpg", "", 401),
        ("POST", "/api/media", SCOPED, 403),
        ("POST", "/api/media", RW, 200),
        ("POST", "/api/media", RO, 403),
        ("GET", "/api/v1/internal/contenttype", SCOPED, 200),
        ("GET", "/api/graphql/schema", SCOPED, 200),
        ("GET", "/api/v1/open-api-schema.json", SCOPED, 200),
        ("GET", "/api/auth-context", SCOPED, 200),
        ("OPTIONS", "/api/v1/content/posts", SCOPED, 403),
        ("GET", "/api/v1/content/tags", SCOPED, 403),
        ("GET", "/api/v1/content/Posts", SCOPED, 403),
        ("GET", "/api/v1/content/posts/", SCOPED, 403),
        ("GET", "/api/v1/content/%70osts", SCOPED, 200),
        ("GET", "/api/v1/content/posts?hydrate=3", RW, 400),
        ("GET", "/api/v1/content/posts?hydrate=", RW, 400),
        ("GET", "/api/v1/content/posts?hydrate=1&hydrate=0", RW, 400),
        ("GET", "/api/v1/content/posts?hydrate[]=0", RW, 400),
        ("GET", "/api/v1/search?content_type=", SCOPED, 403),
        ("GET", "/api/v1/search?content_type=%ff", SCOPED, 400),
        ("GET", "/api/v1/search?content_type[12]=posts", SCOPED, 200),
        ("GET", "/api/v1/search?content_type[]=posts&content[type=tags", SCOPED, 400),
        ("GET", "/api/v1/search?content_type[]=posts&content.type=posts", SCOPED, 400),
        ("GET", "/api/v1/search?content_type[]=posts&content_type[][]=posts", SCOPED, 400),
        ("GET", "/api/v1/search?content_type[x]=posts", SCOPED, 400),
        ("GET", "/api/v1/search?content_type%00=posts", SCOPED, 400),
        ("GET", &crowded, SCOPED, 400),
        ("GET", "/api/v1/content/posts?_method=DELETE", RW, 400),
        ("GET", "/api/v1/content/posts?_method=get", RW, 200),
        ("GET", "/api/v1/content/posts/token-of-a-scoped-key", SCOPED, 400),
        ("GET", "//api/v1/content/posts", RW, 400),
        ("GET", "/api/v1/content/posts?a#b", RW, 400),
    ] {
        assert_eq!(status(&profile, &replica, method, path, token), expected, "{method} {path}");
    }
}

/// FACTS of the FLTR API: each route and its scope; empty is public, `*` is full access.
const FLTR_ROUTES: [(&str, &str, &str); 24] = [
    ("GET", "/v1/datasets", "datasets:read"),
    ("GET", "/v1/datasets/7", "datasets:read"),
    ("HEAD", "/v1/datasets/7", "datasets:read"),
    ("POST", "/v1/datasets", "datasets:write"),
    ("PATCH", "/v1/datasets/7", "datasets:write"),
    ("DELETE", "/v1/datasets/7", "datasets:delete"),
    ("GET", "/v1/datasets/7/documents", "documents:read"),
    ("GET", "/v1/datasets/7/documents/8", "documents:read"),
    ("POST", "/v1/datasets/7/documents", "documents:write"),
    ("DELETE", "/v1/datasets/7/documents/8", "documents:delete"),
    ("POST", "/v1/mcp/query", "mcp:query"),
    ("GET", "/v1/mcp/query", "mcp:query"),
    ("POST", "/v1/mcp/batch-query", "mcp:batch_query"),
    ("GET", "/v1/mcp/datasets", ""),
    ("GET", "/v1/mcp/manifest", ""),
    ("GET", "/v1/mcp/manifest/7", ""),
    ("POST", "/v1/datasets/7/query", ""),
    ("GET", "/v1/webhooks", "webhooks:manage"),
    ("POST", "/v1/webhooks", "webhooks:manage"),
    ("DELETE", "/v1/webhooks/7", "webhooks:manage"),
    ("GET", "/v1/account", "account:read"),
    ("GET", "/v1/credits", "account:read"),
    ("PUT", "/v1/datasets/7", "*"),
    ("GET", "/v2/datasets", "*"),
];

#[test]
fn fltr_routes_need_what_the_facts_say() {
    let profile = fltr();
    let scopes: [(&str, &[&str]); 10] = [
        ("datasets:read", &["datasets:read"]),
        ("datasets:write", &["datasets:write", "datasets:read"]),
        ("datasets:delete", &["datasets:delete", "datasets:write", "datasets:read"]),
        ("documents:read", &["documents:read"]),
        ("documents:write", &["documents:write", "documents:read"]),
        ("documents:delete", &["documents:delete", "documents:read"]),
        ("mcp:query", &["mcp:query"]),
        ("mcp:batch_query", &["mcp:batch_query", "mcp:query"]),
        ("webhooks:manage", &["webhooks:manage"]),
        ("account:read", &["account:read"]),
    ];
    for (scope, implied) in scopes {
        let (resource, action) = scope.split_once(':').unwrap();
        let replica = replica(&[(resource, &[action])]);
        for (method, path, needed) in FLTR_ROUTES {
            let permitted = needed.is_empty() || implied.contains(&needed);
            let expected = if permitted { 200 } else { 403 };
            let got = status(&profile, &replica, method, path, SCOPED);
            assert_eq!(got, expected, "{method} {path} {scope}");
            assert_eq!(status(&profile, &replica, method, path, RW), 200, "{method} {path}");
            let anonymous = if needed.is_empty() { 200 } else { 401 };
            assert_eq!(status(&profile, &replica, method, path, ""), anonymous, "{method} {path}");
            assert_eq!(status(&profile, &replica, method, path, "x"), 401, "{method} {path}");
        }
    }
    assert_eq!(status(&profile, &replica(&[]), "OPTIONS", "/v1/datasets", ""), 200);
}

#[test]
fn key_is_refused_from_elsewhere_and_after_its_time() {
    let (profile, replica) = (flotiq(), replica(&[]));
    let at = |token: &str, now_ms: u64, address: &str| {
        let headers = headers("GET", "/api/v1/content/posts", &[("x-auth-token", token)]);
        let address = address.parse().ok();
        let client_address = || address;
        let headers = Headers(&borrowed(&headers));
        let body = Body::Pending;
        let request = Request { headers, body, now_ms, client_address: &client_address };
        authorize(&profile, Some(&replica), &request).outcome.err()
    };
    for (address, refused) in [
        ("192.0.2.7", None),
        ("::ffff:192.0.2.7", None),
        ("2001:db8::1", None),
        ("198.51.100.1", Some(Rejection::AddressNotAllowed)),
        ("2001:db9::1", Some(Rejection::AddressNotAllowed)),
        ("unknown", Some(Rejection::AddressNotAllowed)),
    ] {
        assert_eq!(at(BOUND, 0, address), refused, "{address}");
        assert_eq!(at(RW, 0, address), None, "{address}");
    }
    assert_eq!(at(BRIEF, 999, ""), None);
    assert_eq!(at(BRIEF, 1000, ""), Some(Rejection::ExpiredKey));
}

#[test]
fn nothing_is_looked_up_before_there_is_a_snapshot() {
    let profile = flotiq();
    let outcome = |method: &str, path: &str, more: &[(&str, &str)]| {
        let headers = headers(method, path, more);
        let client_address = &|| None;
        let (headers, body) = (Headers(&borrowed(&headers)), Body::Whole(b""));
        let request = Request { headers, body, now_ms: 0, client_address };
        authorize(&profile, None, &request).outcome
    };
    let token = [("x-auth-token", RW)];
    assert_eq!(outcome("GET", "/api/v1/content/posts", &token), Err(Rejection::NotReady));
    assert_eq!(outcome("GET", "/image/a/b", &token), Err(Rejection::NotReady));
    assert_eq!(outcome("GET", "/image/a/b", &[]), Ok(Permit::Anonymous));
    assert_eq!(outcome("GET", "/api/v1/content/posts", &[]), Err(Rejection::MissingToken));
    let preflight = [("access-control-request-method", "GET")];
    assert_eq!(outcome("OPTIONS", "/api/v1/content/posts", &preflight), Ok(Permit::Anonymous));
}

#[test]
fn every_copy_of_the_token_and_of_identity_is_removed() {
    let (profile, replica) = (flotiq(), replica(&[]));
    let referer = format!("https://x.example/?auth_token={RW}");
    let path = format!("/api/v1/content/%70osts?auth_token={RW}&a=%7e&b={RW}x&auth_token[]={RW}&c");
    let headers = headers(
        "GET",
        &path,
        &[
            ("x-auth-token", RW),
            ("x_auth_token", "other"),
            ("authorization", &format!("Bearer {RW}")),
            ("referer", &referer),
            ("cookie", "kept=1"),
            ("x-latchkey-account", "evil"),
            ("x_latchkey_key", "evil"),
            ("x-latchkey-anything", "evil"),
            ("x-original-url", "/evil"),
            ("x-latchkeyless", "kept"),
        ],
    );
    let judgement = judge(&profile, &replica, &headers);
    let edits = judgement.edits;
    assert_eq!(
        edits.remove,
        [
            "x-auth-token",
            "x_auth_token",
            "authorization",
            "referer",
            "x-latchkey-account",
            "x_latchkey_key",
            "x-latchkey-anything",
            "x-original-url",
        ]
    );
    assert_eq!(edits.path.as_deref(), Some("/api/v1/content/posts?a=%7e&c"));
    let key = format!("id-of-{RW}");
    assert_eq!(
        edits.set,
        [("x-latchkey-account", "acme".into()), ("x-latchkey-key", key.as_str().into())]
    );
    assert!(judgement.token_in_query);
}

/// A refused request reaches the access log, so it must be stripped as well.
#[test]
fn refused_request_is_stripped_too() {
    let (profile, replica) = (flotiq(), replica(&[]));
    for (path, logged) in [
        ("/api/v1/content/posts?auth_token=made-up-token-of-nobody", "/api/v1/content/posts"),
        ("//posts?auth_token=made-up-token-of-nobody&a=b", "//posts?a=b"),
        ("/made-up-token-of-nobody?auth_token=made-up-token-of-nobody", "/"),
        ("//made-up-token-of-nobody?auth_token=made-up-token-of-nobody", "/"),
    ] {
        let judgement = judge(&profile, &replica, &headers("GET", path, &[]));
        assert!(judgement.outcome.is_err(), "{path}");
        assert_eq!(judgement.edits.path.as_deref(), Some(logged), "{path}");
    }
}

#[test]
fn answers_have_the_bodies_that_clients_know() {
    let replica = replica(&[("posts", &["read"]), ("datasets", &["read"])]);
    let answer = |profile: &Profile, path: &str, more: &[(&str, &str)]| {
        let headers = headers("GET", path, more);
        let judgement = judge(profile, &replica, &headers);
        let rejection = judgement.outcome.as_ref().unwrap_err();
        let answer = answer::refusal(profile, &judgement, rejection, Headers(&borrowed(&headers)));
        let header = |name: &str| {
            let found = answer.headers.iter().find(|(header, _)| header == name);
            found.map_or(String::new(), |(_, value)| value.clone())
        };
        assert_eq!(header("cache-control"), "no-store");
        (answer.status, answer.body.clone(), header("www-authenticate"), header("content-type"))
    };
    let json = "application/json".to_owned();
    let (flotiq, fltr) = (flotiq(), fltr());

    assert_eq!(
        answer(&flotiq, "/api/v1/content/posts", &[]),
        (
            401,
            r#"{"code":401,"message":"Unauthorized"}"#.to_owned(),
            r#"ApiKey realm="flotiq", token_in="the header x-auth-token or the query parameter auth_token""#.to_owned(),
            json.clone(),
        )
    );
    assert_eq!(
        answer(&flotiq, "/api/graphql", &[("x-auth-token", "x")]),
        (
            401,
            r#"{"errors":[{"message":"Unauthorized","extensions":{"code":"UNAUTHORIZED"}}]}"#
                .to_owned(),
            r#"ApiKey realm="flotiq", error="invalid_token", token_in="the header x-auth-token or the query parameter auth_token""#.to_owned(),
            json.clone(),
        )
    );
    assert_eq!(
        answer(&flotiq, "/api/v1/content/tags", &[("x-auth-token", SCOPED)]),
        (
            403,
            r#"{"code":403,"message":"Access denied or quota limit exceeded"}"#.to_owned(),
            r#"ApiKey realm="flotiq", error="insufficient_scope", scope="tags:read""#.to_owned(),
            json.clone(),
        )
    );
    assert_eq!(
        answer(&flotiq, "/a/../b", &[]),
        (
            400,
            r#"{"errors":["the path holds a dot segment"]}"#.to_owned(),
            String::new(),
            json.clone()
        )
    );
    assert_eq!(
        answer(&fltr, "/v1/datasets", &[("authorization", "Bearer  x")]),
        (
            401,
            r#"{"error":"Invalid API key","code":"invalid_api_key"}"#.to_owned(),
            r#"Bearer realm="fltr", error="invalid_token", token_in="the header authorization as Bearer""#.to_owned(),
            json.clone(),
        )
    );
    let scoped = ("authorization", &*format!("Bearer {SCOPED}"));
    assert_eq!(
        answer(&fltr, "/v1/account", &[scoped]),
        (
            403,
            r#"{"error":"Insufficient permissions","code":"insufficient_scope","details":{"required_scope":"account:read","granted_scopes":["datasets:read","posts:read"]}}"#
                .to_owned(),
            r#"Bearer realm="fltr", error="insufficient_scope", scope="account:read""#.to_owned(),
            json,
        )
    );
    let (status, body, _, content_type) =
        answer(&fltr, "/v1/account", &[scoped, ("accept", "application/problem+json")]);
    assert_eq!((status, content_type.as_str()), (403, "application/problem+json"));
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], 403);
    assert_eq!(problem["title"], "Forbidden");
    assert_eq!(problem["required_scope"], "account:read");

    let problems = ("accept", "application/problem+json");
    let (_, body, challenge, _) = answer(&fltr, "/v1/other", &[scoped, problems]);
    assert!(!challenge.contains("scope="), "{challenge}");
    for told in [&challenge, &body] {
        assert!(told.contains("no route of this API lists this method and path"), "{told}");
    }
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem.get("required_scope"), None);
    for (profile, place) in [(&flotiq, "the query parameter auth_token"), (&fltr, "as Bearer")] {
        for more in [&[problems][..], &[problems, ("x-auth-token", "x"), ("authorization", "x")]] {
            let (status, body, challenge, _) = answer(profile, "/api/v1/content/posts", more);
            assert_eq!(status, 401);
            assert!(body.contains(place) && challenge.contains(place), "{challenge} {body}");
        }
    }
}

proptest! {
    /// Whatever the bytes: an outcome, no panic, and no token in what travels on.
    #[test]
    fn no_bytes_make_it_panic_or_let_a_token_through(
        method in prop::collection::vec(any::<u8>(), 0..8),
        path in prop::collection::vec(any::<u8>().prop_filter("path", |b| *b != b'?'), 0..64),
        name in "[a-z_-]{1,24}",
        value in prop::collection::vec(any::<u8>(), 0..300),
        carriers in 0_u8..4,
    ) {
        let replica = replica(&[("posts", &["read"])]);
        for profile in [flotiq(), fltr()] {
            let mut headers = vec![
                (":method".to_owned(), method.clone()),
                (":path".to_owned(), [b"/", &*path, b"?auth_token=", RW.as_bytes()].concat()),
                (name.clone(), [value.as_slice(), RW.as_bytes()].concat()),
            ];
            if carriers & 1 != 0 {
                headers.push(("x-auth-token".to_owned(), RW.as_bytes().to_vec()));
            }
            if carriers & 2 != 0 {
                headers.push(("authorization".to_owned(), format!("Bearer {RW}").into_bytes()));
            }
            let judgement = judge(&profile, &replica, &headers);
            if let Err(rejection) = &judgement.outcome {
                let answer = answer::refusal(&profile, &judgement, rejection, Headers(&borrowed(&headers)));
                prop_assert!(!answer.body.contains(RW));
            }
            if profile.name == "flotiq" {
                let forwarded = judgement.edits.path.unwrap_or_default();
                prop_assert!(!forwarded.contains(RW));
                prop_assert!(judgement.edits.remove.contains(&name));
            }
        }
    }

    /// The forwarded request, judged again, is on the same route and needs the same rights.
    #[test]
    fn forwarded_request_is_what_was_judged(
        path in "/(api/v1/(content/|%63ontent/)?)?[a-z%0-9./;]{0,12}(\\?[a-z=&%0-9\\[\\]]{0,16})?",
    ) {
        let (profile, replica) = (flotiq(), replica(&[("posts", &["read"])]));
        let first = judge(&profile, &replica, &headers("GET", &path, &[("x-auth-token", SCOPED)]));
        if first.outcome.is_ok() {
            let forwarded = first.edits.path.clone().unwrap_or(path);
            let headers = headers("GET", &forwarded, &[("x-auth-token", SCOPED)]);
            let second = judge(&profile, &replica, &headers);
            prop_assert_eq!(second.outcome, first.outcome);
            prop_assert_eq!(
                second.route.map(|route| &route.path),
                first.route.map(|route| &route.path)
            );
            prop_assert_eq!(second.edits.path, None);
        }
    }
}
