//! Whole requests on the routes where the query string decides: what is forwarded, judged again, needs
//! the same and is forwarded as it is.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use latchkey_filter::authorize::body::Body;
use latchkey_filter::authorize::{Headers, Judgement, Request, authorize};
use latchkey_filter::profile::{Profile, SHIPPED};
use latchkey_filter::replica::Replica;
use latchkey_protocol::{
    AccountResources, KeyHash, KeyKind, Relation, Resource, Revision, RightSet, Rule, TokenColumns,
    Update,
};
use libfuzzer_sys::fuzz_target;

/// The shipped profile, and the same with hydration lowered.
static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let lower = SHIPPED[0].1.replace(r#""hydration": "deny""#, r#""hydration": "lower""#);
    [SHIPPED[0].1, &lower].iter().filter_map(|json| Profile::parse(json).ok()).collect()
});

const TOKEN: &str = "token-of-a-scoped-key";

fuzz_target!(|query: &str| {
    let replica = replica();
    for profile in PROFILES.iter() {
        for route in ["/api/v1/content/posts", "/api/v1/search", "/api/graphql"] {
            let path = format!("{route}?{query}");
            let first = judge(profile, &replica, &path);
            if first.outcome.is_err() {
                continue;
            }
            let forwarded = first.edits.path.clone().unwrap_or(path);
            assert!(!forwarded.contains(TOKEN), "{query}");
            let second = judge(profile, &replica, &forwarded);
            assert_eq!(second.outcome, first.outcome, "{forwarded}");
            assert_eq!(second.edits.path, None, "{forwarded}");
            assert_eq!(rights(&second), rights(&first), "{forwarded}");
        }
    }
});

fn rights(judgement: &Judgement<'_>) -> Vec<String> {
    let mut rights: Vec<String> =
        judgement.needed.iter().map(|needed| format!("{:?}", needed.requirement)).collect();
    rights.sort();
    rights.dedup();
    rights
}

fn judge<'a>(profile: &'a Profile, replica: &Replica, path: &str) -> Judgement<'a> {
    let headers =
        [(":method", "GET"), (":path", path), (":authority", "g"), ("x-auth-token", TOKEN)]
            .map(|(name, value)| (name, value.as_bytes()));
    let client_address = &|| None;
    let (headers, body) = (Headers(&headers), Body::Whole(b""));
    authorize(profile, Some(replica), &Request { headers, body, now_ms: 0, client_address })
}

/// A key that may read `posts` and `authors`; posts point at authors, and authors at companies.
fn replica() -> Replica {
    let revision = Revision { number: 1, mark: 1 };
    let rule =
        |resource: &str| Rule { resource: resource.to_owned(), actions: vec!["read".to_owned()] };
    let resource = |name: &str, target: &str| Resource {
        name: name.to_owned(),
        relations: BTreeMap::from([("to".to_owned(), Relation::Some(vec![target.to_owned()]))]),
    };
    let update = Update {
        accounts: vec!["acme".to_owned()],
        account_limits: vec![0],
        resources: vec![AccountResources {
            account: 0,
            resources: vec![resource("posts", "authors"), resource("authors", "companies")],
        }],
        right_sets: vec![RightSet::from(vec![rule("posts"), rule("authors")])],
        tokens: TokenColumns {
            hashes: vec![KeyHash::of(TOKEN.as_bytes())],
            keys: vec!["key".to_owned()],
            kinds: vec![KeyKind::UserDefined],
            accounts: vec![0],
            right_sets: vec![0],
            expires_at_ms: vec![0],
            network_sets: vec![0],
            ..TokenColumns::default()
        },
        ..Update::empty(revision)
    };
    let replica = Replica::of(&update);
    replica.expect("the update fits")
}
