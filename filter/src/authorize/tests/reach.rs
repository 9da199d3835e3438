//! What requests can reach, as the facts of the reference API say.

use std::collections::{BTreeMap, BTreeSet};

use latchkey_protocol::Relation;

use super::*;
use crate::authorize::reach::Requirement;

/// `posts` → `authors`, `_media`; `authors` → `companies`; `notes` → anything; `_media` → `_tag`,
/// which is not registered.
fn resources() -> Vec<Resource> {
    let some = |names: &[&str]| Relation::Some(names.iter().map(|&n| n.to_owned()).collect());
    [
        ("posts", vec![("author", some(&["authors"])), ("sections.cover", some(&["_media"]))]),
        ("authors", vec![("company", some(&["companies"])), ("mentor", some(&["authors"]))]),
        ("companies", vec![]),
        ("notes", vec![("about", Relation::Any("*".to_owned()))]),
        ("orders", vec![]),
        ("_media", vec![("tags", some(&["_tag"]))]),
    ]
    .map(|(name, relations)| Resource {
        name: name.to_owned(),
        relations: relations
            .into_iter()
            .map(|(f, r)| (f.to_owned(), r))
            .collect::<BTreeMap<_, _>>(),
    })
    .to_vec()
}

fn reads(names: &[&str]) -> Vec<(&'static str, &'static [&'static str])> {
    let known = ["posts", "authors", "companies", "notes", "orders", "_media", "_tag", "*"];
    let read: &[&str] = &["read"];
    known.into_iter().filter(|known| names.contains(known)).map(|name| (name, read)).collect()
}

fn get<'a>(profile: &'a Profile, path: &str, held: &[&str]) -> Judgement<'a> {
    let replica = replica_with(&reads(held), &resources());
    judge(profile, &replica, &headers("GET", path, &[("x-auth-token", SCOPED)]))
}

/// Rights that a judgement says are needed, in their order.
pub(super) fn needed(judgement: &Judgement<'_>) -> Vec<String> {
    let needed = judgement.needed.iter().map(|needed| match &needed.requirement {
        Requirement::Kind(kinds) => kinds[0].as_str().to_owned(),
        Requirement::Right(right) => right.to_string(),
    });
    needed.collect()
}

#[test]
fn hydration_needs_all_that_comes_inline() {
    let profile = flotiq();
    let content = "/api/v1/content";
    for (path, right) in [
        ("posts?hydrate=0", "posts:read"),
        ("posts/1?hydrate=1", "posts:read authors:read _media:read"),
        (
            "posts?hydrate=2",
            "posts:read authors:read _media:read companies:read authors:read _tag:read",
        ),
        ("authors?hydrate=1", "authors:read companies:read authors:read"),
        ("companies?hydrate=2", "companies:read"),
        ("notes?hydrate=1", "notes:read *:read"),
        ("_media?hydrate=1", "_media:read _tag:read"),
        ("_media?hydrate=2", "_media:read _tag:read *:read"),
        ("unregistered?hydrate=1", "unregistered:read *:read"),
        ("unregistered", "unregistered:read"),
        ("posts/1/version?hydrate=1", "posts:read authors:read _media:read"),
    ] {
        let all = get(&profile, &format!("{content}/{path}"), &["*"]);
        assert_eq!(all.outcome, Ok(Permit::Key), "{path}");
        let mut expected: Vec<&str> = right.split(' ').collect();
        let mut found = needed(&all);
        expected.sort_unstable();
        expected.dedup();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, expected, "{path}");
    }
    let status = |path: &str, held: &[&str]| {
        status_of(&profile, &get(&profile, &format!("{content}/{path}"), held))
    };
    assert_eq!(status("posts?hydrate=1", &["posts", "authors"]), 403);
    assert_eq!(status("posts?hydrate=1", &["posts", "authors", "_media"]), 200);
    assert_eq!(status("posts?hydrate=2", &["posts", "authors", "_media"]), 403);
    assert_eq!(
        status("posts?hydrate=2", &["posts", "authors", "_media", "companies", "_tag"]),
        200
    );
    for value in ["3", "", "01", "1.0", "true", "%31x", "-1", "10"] {
        assert_eq!(status(&format!("posts?hydrate={value}"), &["*"]), 400, "{value}");
    }
    for query in
        ["hydrate=1&hydrate=1", "hydrate[]=1", "hy.drate=0&hydrate=0&hydrate=0", "a;hydrate=2"]
    {
        assert_eq!(status(&format!("posts?{query}"), &["*"]), 400, "{query}");
    }
}

#[test]
fn hydration_is_lowered_where_the_profile_says_so() {
    let (_, flotiq) = SHIPPED[0];
    let lower = flotiq.replace(r#""hydration": "deny""#, r#""hydration": "lower""#);
    let profile = Profile::parse(&lower).unwrap();
    let held = ["posts", "authors", "_media"];
    for (path, held, forwarded) in [
        ("posts?hydrate=2&a=%7e", &held[..], Some("posts?hydrate=1&a=%7e")),
        ("posts?a&%68ydrate=2", &held[..1], Some("posts?a&hydrate=0")),
        ("posts?hydrate=1", &held[..], None),
        ("posts?hydrate=2", &["*"], None),
        ("notes?hydrate=2", &["notes"], Some("notes?hydrate=0")),
    ] {
        let judgement = get(&profile, &format!("/api/v1/content/{path}"), held);
        assert_eq!(judgement.outcome, Ok(Permit::Key), "{path}");
        let forwarded = forwarded.map(|rest| format!("/api/v1/content/{rest}"));
        assert_eq!(judgement.edits.path, forwarded, "{path}");
    }
    let judgement = get(&profile, "/api/v1/content/posts?hydrate=2", &["authors"]);
    assert_eq!(status_of(&profile, &judgement), 403, "what is asked for itself is not lowered");
}

#[test]
fn search_is_narrowed_to_what_the_key_may_read() {
    let profile = flotiq();
    let path = "/api/v1/search";
    for (query, held, outcome) in [
        (
            "?q=x",
            &["posts", "_tag"][..],
            Ok("?q=x&content_type%5B%5D=_tag&content_type%5B%5D=posts"),
        ),
        ("", &["posts"], Ok("?content_type%5B%5D=posts")),
        ("?", &["posts"], Ok("?content_type%5B%5D=posts")),
        ("?q=x", &["*"], Ok("?q=x")),
        ("?q=x", &[], Err(403)),
        ("?content_type[]=posts", &["posts"], Ok("?content_type[]=posts")),
        ("?content_type[]=posts&content_type[1]=orders", &["posts"], Err(403)),
        ("?content_type[]=posts&hydrate=1", &["posts"], Err(403)),
        (
            "?content_type[]=posts&hydrate=1",
            &["posts", "authors", "_media"],
            Ok("?content_type[]=posts&hydrate=1"),
        ),
        (
            "?content_type[]=posts&content_type[]=notes&hydrate=1",
            &["posts", "authors", "_media", "notes"],
            Err(403),
        ),
        (
            "?hydrate=1",
            &["companies", "orders"],
            Ok("?hydrate=1&content_type%5B%5D=companies&content_type%5B%5D=orders"),
        ),
        ("?hydrate=1", &["authors", "orders"], Err(403)),
        (
            "?hydrate=1",
            &["authors", "companies"],
            Ok("?hydrate=1&content_type%5B%5D=authors&content_type%5B%5D=companies"),
        ),
        ("?q=x;content_type[]=orders", &["posts"], Err(400)),
        ("?content_type[]=posts;content_type[]=orders", &["posts"], Err(400)),
    ] {
        let judgement = get(&profile, &format!("{path}{query}"), held);
        match outcome {
            Ok(forwarded) => {
                assert_eq!(judgement.outcome, Ok(Permit::Key), "{query} {held:?}");
                let sent = format!("{path}{query}");
                let reached = judgement.edits.path.unwrap_or(sent);
                assert_eq!(reached, format!("{path}{forwarded}"), "{query} {held:?}");
            }
            Err(status) => {
                assert_eq!(status_of(&profile, &judgement), status, "{query} {held:?}");
            }
        }
    }
}

fn graphql<'a>(profile: &'a Profile, path: &str, query: &str, held: &[&str]) -> Judgement<'a> {
    let replica = replica_with(&reads(held), &resources());
    let more = [("x-auth-token", SCOPED), ("content-type", "application/json")];
    let body = serde_json::json!({"query": query}).to_string();
    judge_body(profile, &replica, &headers("POST", path, &more), Body::Whole(body.as_bytes()))
}

#[test]
fn graphql_needs_each_type_that_it_touches() {
    let profile = flotiq();
    for (query, expected) in [
        ("{ posts(id: 1) { title } }", "posts:read"),
        ("{ postsList { title } }", "posts:read"),
        ("{ a: postsList { b: author { c: name } } }", "posts:read authors:read"),
        (
            "{ posts { author { company { name } mentor { name } } } }",
            "posts:read authors:read companies:read",
        ),
        ("{ posts { sections { cover { url } } } }", "posts:read _media:read"),
        ("{ posts { cover { url } } }", "posts:read _media:read"),
        ("{ posts { internal { createdAt } } }", "posts:read"),
        ("{ posts { author } }", "posts:read authors:read"),
        ("{ notes { about { ... on posts { title } } } }", "notes:read *:read posts:read"),
        ("{ notes { title } }", "notes:read"),
        ("{ posts { sections { cover { tags { name } } } } }", "posts:read _media:read _tag:read"),
        (
            "{ posts { sections { cover { tags { name { x } } } } } }",
            "posts:read _media:read _tag:read *:read",
        ),
        ("{ orders { id } posts { id } }", "orders:read posts:read"),
        ("{ ...F } fragment F on Query { orders { id } }", "orders:read"),
        ("{ posts { ...F } } fragment F on posts { author { name } }", "posts:read authors:read"),
        ("{ posts { ... on Posts { author { name } } } }", "posts:read authors:read"),
        ("{ posts { ... { author { name } } } }", "posts:read authors:read"),
        ("{ posts { ... @skip(if: true) { author { name } } } }", "posts:read authors:read"),
        ("query A { posts { id } } query B { orders { id } }", "posts:read orders:read"),
        ("{ posts { ...F } } fragment F on orders { id }", "posts:read orders:read"),
        ("{ posts { id } } fragment F on orders { id }", "posts:read orders:read"),
        ("{ __typename }", ""),
        ("{ __schema { types { name fields { name } } } }", ""),
        ("{ __type(name: \"x\") { name } }", ""),
        ("{ posts { __typename } }", "posts:read"),
        (
            "query Q($a: [ID!]! = [\"x\"], $b: In = {c: 1}) @d { posts(a: $a) { id @include(if: $b) } }",
            "posts:read",
        ),
        ("{ unknown { id } }", "*:read"),
        ("{ _tagList { id } }", "*:read"),
        ("{ postsConnection { id } }", "*:read"),
        ("{ posts { ... on Unknown { id } } }", "posts:read *:read"),
        ("{ ... on Mutation { deletePosts { id } } }", "*:read"),
        ("mutation { createPosts { id } }", "application_read_write"),
        ("subscription { posts { id } }", "application_read_write"),
        ("query A { posts { id } } mutation B { x }", "posts:read application_read_write"),
    ] {
        let judgement = graphql(&profile, "/api/graphql", query, &["*"]);
        assert_eq!(needed(&judgement).join(" "), expected, "{query}");
        let scoped = graphql(&profile, "/api/graphql", query, &[]);
        let status = if expected.is_empty() { 200 } else { 403 };
        assert_eq!(status_of(&profile, &scoped), status, "{query}");
    }
    for (query, expected) in [
        (
            "{ posts { edges { node { title author { name } } } totalCount pageInfo { hasNextPage } } }",
            "posts:read authors:read",
        ),
        (
            "{ posts { ...C } } fragment C on PostsConnection { edges { ...E } } fragment E on PostsEdge { node { author { name } } }",
            "posts:read authors:read",
        ),
        ("{ postsList { title } }", "*:read"),
        ("{ posts { nodes { author { name } } } }", "posts:read authors:read"),
    ] {
        let judgement = graphql(&profile, "/api/v2/graphql", query, &["*"]);
        assert_eq!(needed(&judgement).join(" "), expected, "{query}");
    }
}

/// An object that has the name of a relation used to hide the relations within it.
#[test]
fn relation_within_an_object_of_its_name_is_found() {
    let profile = flotiq();
    let some = |name: &str| Relation::Some(vec![name.to_owned()]);
    let resource = |name: &str, relations: &[(&str, Relation)]| Resource {
        name: name.to_owned(),
        relations: relations.iter().map(|(f, r)| ((*f).to_owned(), r.clone())).collect(),
    };
    let posts = [("author", some("authors")), ("meta.author.company", some("companies"))];
    let resources =
        [resource("posts", &posts), resource("authors", &[]), resource("companies", &[])];
    let replica = replica_with(&[("posts", &["read"]), ("authors", &["read"])], &resources);
    let more = [("x-auth-token", SCOPED), ("content-type", "application/json")];
    for (query, status) in [
        ("{ postsList { author { name } } }", 200),
        ("{ postsList { meta { author { name } } } }", 200),
        ("{ postsList { meta { author { company { name } } } } }", 403),
        ("{ postsList { author { company { name } } } }", 403),
    ] {
        let body = serde_json::json!({"query": query}).to_string();
        let headers = headers("POST", "/api/graphql", &more);
        let judgement = judge_body(&profile, &replica, &headers, Body::Whole(body.as_bytes()));
        assert_eq!(status_of(&profile, &judgement), status, "{query}");
    }
}

#[test]
fn wrapper_is_no_relation_of_the_same_name() {
    let profile = flotiq();
    let edges = Relation::Some(vec!["orders".to_owned()]);
    let relations = BTreeMap::from([("edges".to_owned(), edges)]);
    let graph = Resource { name: "graphs".to_owned(), relations };
    let orders = Resource { name: "orders".to_owned(), relations: BTreeMap::new() };
    let replica = replica_with(&[("*", &["read"])], &[graph, orders]);
    let more = [("x-auth-token", SCOPED), ("content-type", "application/json")];
    for (path, query, expected) in [
        ("/api/v2/graphql", "{ graphs { edges { node { title } } } }", "graphs:read"),
        (
            "/api/v2/graphql",
            "{ graphs { edges { node { edges { id } } } } }",
            "graphs:read orders:read",
        ),
        ("/api/graphql", "{ graphs { edges { id } } }", "graphs:read orders:read"),
    ] {
        let body = serde_json::json!({"query": query}).to_string();
        let headers = headers("POST", path, &more);
        let judgement = judge_body(&profile, &replica, &headers, Body::Whole(body.as_bytes()));
        assert_eq!(needed(&judgement).join(" "), expected, "{path} {query}");
    }
}

#[test]
fn graphql_settings_close_what_they_say() {
    let (_, flotiq) = SHIPPED[0];
    let with = |setting: &str| {
        let denied =
            flotiq.replace(&format!(r#""{setting}": "allow""#), &format!(r#""{setting}": "deny""#));
        assert_ne!(denied, flotiq);
        Profile::parse(&denied).unwrap()
    };
    let no_introspection = with("introspection");
    let no_scoped = with("graphql_scoped_keys");
    let replica = replica_with(&reads(&["posts"]), &resources());
    for (profile, query, token, expected) in [
        (&no_introspection, "{ __schema { types { name } } }", SCOPED, 403),
        (&no_introspection, "{ __schema { types { name } } }", RO, 403),
        (&no_introspection, "{ __schema { types { name } } }", RW, 200),
        (&no_introspection, "{ posts { __typename } }", SCOPED, 200),
        (&no_scoped, "{ posts { id } }", SCOPED, 403),
        (&no_scoped, "{ __typename }", SCOPED, 403),
        (&no_scoped, "{ posts { id } }", RO, 200),
        (&no_scoped, "{ posts { id } }", RW, 200),
    ] {
        let more = [("x-auth-token", token), ("content-type", "application/json")];
        let body = serde_json::json!({"query": query}).to_string();
        let headers = headers("POST", "/api/graphql", &more);
        let judgement = judge_body(profile, &replica, &headers, Body::Whole(body.as_bytes()));
        assert_eq!(status_of(profile, &judgement), expected, "{query} {token}");
    }
    // What needs no look at the body is refused without it.
    let headers = headers("POST", "/api/graphql", &[("x-auth-token", SCOPED)]);
    let judgement = judge_body(&no_scoped, &replica, &headers, Body::Pending);
    assert_eq!(status_of(&no_scoped, &judgement), 403);
}

#[test]
fn body_that_two_readers_could_read_differently_is_refused() {
    let profile = flotiq();
    let replica = replica_with(&reads(&["posts"]), &resources());
    let json = ("content-type", "application/json");
    let ok = r#"{"query":"{posts{id}}"}"#;
    let deep = format!(
        r#"{{"query":"{{posts{{id}}}}","variables":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    for (method, path, header, body, expected) in [
        ("POST", "", json, ok, 200),
        ("POST", "?operationName=A", json, ok, 200),
        ("POST", "", json, r#"[{"query":"{posts{id}}"},{"query":"{posts{title}}"}]"#, 200),
        (
            "POST",
            "",
            json,
            r#"{"query":"{posts{id}}","variables":{"a":[1,2.5,null,"x"]},"operationName":null,"extensions":{}}"#,
            200,
        ),
        ("POST", "", json, r#"{"\u0071uery":"{posts{id}}"}"#, 200),
        ("POST", "", json, r#"[{"query":"{posts{id}}"},{"query":"{orders{id}}"}]"#, 403),
        ("POST", "", json, r#"{"query":"{posts{id}}","query":"{orders{id}}"}"#, 400),
        ("POST", "", json, r#"{"query":"{posts{id}}","\u0071uery":"{orders{id}}"}"#, 400),
        ("POST", "", json, r#"{"query":"{posts{id}}","Query":"{orders{id}}"}"#, 400),
        ("POST", "", json, r#"{"query":"{posts{id}}","id":"x"}"#, 400),
        (
            "POST",
            "",
            json,
            r#"{"query":"{posts{id}}","extensions":{"persistedQuery":{"sha256Hash":"x"}}}"#,
            400,
        ),
        ("POST", "", json, r#"{"extensions":{"persistedQuery":{"sha256Hash":"x"}}}"#, 400),
        ("POST", "", json, r#"{"query":null}"#, 400),
        ("POST", "", json, r#"{"query":["{posts{id}}"]}"#, 400),
        ("POST", "", json, r#"[["{posts{id}}"]]"#, 400),
        ("POST", "", json, r#"[[{"query":"{posts{id}}"}]]"#, 400),
        ("POST", "", json, "[]", 400),
        ("POST", "", json, "", 400),
        ("POST", "", json, "null", 400),
        ("POST", "", json, r#"{"query":"{posts{id}}"} {}"#, 400),
        ("POST", "", json, "\u{feff}{\"query\":\"{posts{id}}\"}", 400),
        ("POST", "", json, r#"{"query":"{posts{id}}",}"#, 400),
        ("POST", "", json, r#"{"query":"\ud800"}"#, 400),
        ("POST", "", json, &deep, 200),
        ("POST", "?query={orders{id}}", json, ok, 400),
        ("POST", "?qu%65ry[]=x", json, ok, 400),
        ("POST", "?a;query=x", json, ok, 400),
        ("POST", "?extensions={\"persistedQuery\":{}}", json, ok, 400),
        ("POST", "", ("content-type", "application/graphql"), "{posts{id}}", 415),
        ("POST", "", ("content-type", "text/plain"), ok, 415),
        ("POST", "", ("x-other", "x"), ok, 415),
        ("GET", "?query={posts{id}}", ("x-other", "x"), "", 200),
        ("HEAD", "?query=%7Bposts%7Bid%7D%7D&variables=%7B%7D", ("x-other", "x"), "", 200),
        ("GET", "?query={orders{id}}", ("x-other", "x"), "", 403),
        ("GET", "?query={posts{id}}", json, ok, 400),
        ("GET", "?query={posts{id}}&query={posts{id}}", ("x-other", "x"), "", 400),
        ("GET", "?query={posts{id}}&query[]={orders{id}}", ("x-other", "x"), "", 400),
        ("GET", "?query[]={posts{id}}", ("x-other", "x"), "", 400),
        ("GET", "?query={posts{id}}%zz", ("x-other", "x"), "", 400),
        ("GET", "?query={posts{id}}%23;query={orders{id}}", ("x-other", "x"), "", 400),
        ("GET", "?query=%ff", ("x-other", "x"), "", 400),
        ("GET", "?query=", ("x-other", "x"), "", 400),
        ("GET", "", ("x-other", "x"), "", 400),
        ("GET", "?query=mutation{x}", ("x-other", "x"), "", 403),
        (
            "GET",
            "?extensions={\"persistedQuery\":{\"sha256Hash\":\"x\"}}",
            ("x-other", "x"),
            "",
            400,
        ),
    ] {
        let path = format!("/api/graphql{path}");
        let headers = headers(method, &path, &[("x-auth-token", SCOPED), header]);
        let judgement = judge_body(&profile, &replica, &headers, Body::Whole(body.as_bytes()));
        assert_eq!(status_of(&profile, &judgement), expected, "{method} {path} {body}");
    }
    let invalid: &[u8] = b"{\"query\":\"{posts{id}} # \xff\"}";
    let headers = headers("POST", "/api/graphql", &[("x-auth-token", SCOPED), json]);
    for (body, expected) in [
        (Body::Whole(invalid), 400),
        (Body::Pending, 408),
        (Body::TooLarge, 413),
        (Body::Unavailable, 503),
    ] {
        let judgement = judge_body(&profile, &replica, &headers, body);
        assert_eq!(status_of(&profile, &judgement), expected, "{body:?}");
        let made_up = super::headers("POST", "/api/graphql", &[("x-auth-token", "x"), json]);
        let judgement = judge_body(&profile, &replica, &made_up, body);
        assert_eq!(status_of(&profile, &judgement), 401, "a token that is no key's: {body:?}");
    }
}

#[test]
fn shadow_mode_notes_and_lets_through() {
    let (_, flotiq) = SHIPPED[0];
    let enforced = Profile::parse(flotiq).unwrap();
    let shadow = flotiq.replace(r#""enforce": true"#, r#""enforce": false"#);
    let shadow = Profile::parse(&shadow).unwrap();
    let replica = replica_with(&reads(&["posts"]), &resources());
    let judge = |profile, path: &str, token: &str| {
        let judgement = judge(profile, &replica, &headers("GET", path, &[("x-auth-token", token)]));
        let missing = judgement.shadowed.as_ref().map(Right::to_string);
        (status_of(profile, &judgement), missing, judgement.edits.path.clone())
    };
    let missing = |right: &str| Some(right.to_owned());
    let orders = "/api/v1/content/orders";
    assert_eq!(judge(&enforced, orders, SCOPED), (403, None, None));
    assert_eq!(judge(&enforced, orders, SHADOWED), (200, missing("orders:read"), None));
    assert_eq!(judge(&shadow, orders, SCOPED), (200, missing("orders:read"), None));
    assert_eq!(judge(&shadow, "/api/v1/content/posts", SCOPED), (200, None, None));
    assert_eq!(judge(&shadow, "/unlisted", RO), (200, missing("*"), None));
    let whole = "/api/v1/search?q=x";
    assert_eq!(
        judge(&enforced, whole, SHADOWED),
        (200, None, None),
        "it would be narrowed, and is not"
    );
    assert_eq!(judge(&shadow, orders, "made-up").0, 401, "a key is needed all the same");
    assert_eq!(judge(&shadow, "//posts", RW).0, 400);
    assert_eq!(judge(&shadow, "/api/v1/content/posts?hydrate=7", SCOPED).0, 400);
}

#[test]
fn rights_that_a_request_takes_are_named_as_the_rules_name_them() {
    let taken = |profile: &Profile, held: &[(&str, &[&str])], method: &str, path: &str| {
        let replica = replica_with(held, &resources());
        let bearer = format!("Bearer {SCOPED}");
        let more = [("x-auth-token", SCOPED), ("authorization", bearer.as_str())];
        let more = if profile.name == "fltr" { &more[1..] } else { &more[..1] };
        let judgement = judge(profile, &replica, &headers(method, path, more));
        assert_eq!(judgement.outcome, Ok(Permit::Key), "{path}");
        judgement.exercised.iter().map(Right::to_string).collect::<Vec<_>>().join(" ")
    };
    let (flotiq, fltr) = (flotiq(), fltr());
    let posts = "/api/v1/content/posts";
    assert_eq!(taken(&flotiq, &[("posts", &["read", "update"])], "GET", posts), "posts:read");
    assert_eq!(taken(&flotiq, &[("posts", &["*"])], "GET", posts), "posts:read");
    assert_eq!(taken(&flotiq, &[("*", &["read"])], "GET", posts), "*:read");
    let both: [(&str, &[&str]); 2] = [("*", &["read"]), ("posts", &["read"])];
    assert_eq!(taken(&flotiq, &both, "GET", posts), "posts:read");
    let several: [(&str, &[&str]); 3] =
        [("posts", &["read"]), ("authors", &["read"]), ("_media", &["*"])];
    assert_eq!(
        taken(&flotiq, &several, "GET", &format!("{posts}?hydrate=1")),
        "_media:read authors:read posts:read"
    );
    let definition = "/api/v1/internal/contenttype/posts";
    assert_eq!(taken(&flotiq, &[("posts", &["create", "update"])], "GET", definition), "posts:?");
    assert_eq!(taken(&fltr, &[("datasets", &["write"])], "GET", "/v1/datasets"), "datasets:write");
    assert_eq!(taken(&fltr, &[("*", &["write"])], "GET", "/v1/datasets"), "*:write");
    assert_eq!(taken(&fltr, &[("*", &["*"])], "GET", "/unlisted"), "*");
}

proptest! {
    /// What is forwarded needs, judged again, the same rights, and is forwarded as it is.
    #[test]
    fn forwarded_query_is_what_was_judged(
        parts in prop::collection::vec(
            prop::sample::select(&[
                "hydrate=0", "hydrate=1", "hydrate=2", "%68ydrate=2", "content_type[]=posts",
                "content_type[0]=authors", "content_type%5B%5D=companies", "content_type=notes", "q=%7e+x",
                "", "auth_token=", "q", "=", "%zz", "a;b", "hydrate=3", "content_type[x]=posts", "limit=10",
            ][..]),
            0..6,
        ),
        route in prop::sample::select(&["/api/v1/search", "/api/v1/content/posts", "/api/v1/content/authors/1"][..]),
        held in prop::collection::vec(
            prop::sample::select(&["posts", "authors", "companies", "notes", "_media", "_tag", "*"][..]),
            0..5,
        ),
        is_lowered: bool,
    ) {
        let (_, flotiq) = SHIPPED[0];
        let lower = flotiq.replace(r#""hydration": "deny""#, r#""hydration": "lower""#);
        let profile = Profile::parse(if is_lowered { &lower } else { flotiq }).unwrap();
        let path = format!("{route}?{}", parts.join("&"));
        let first = get(&profile, &path, &held);
        if first.outcome.is_ok() {
            let forwarded = first.edits.path.clone().unwrap_or_else(|| path.clone());
            let second = get(&profile, &forwarded, &held);
            prop_assert_eq!(&second.outcome, &first.outcome, "{}", forwarded);
            prop_assert_eq!(&second.edits.path, &None, "{}", forwarded);
            let rights = |judgement| needed(judgement).into_iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(rights(&second), rights(&first), "{}", forwarded);
        }
    }
}
