//! The requests that are sent, made before they are.

use std::rc::Rc;

use serde_json::json;

use crate::keys::{Dataset, Scale, token_of};
use crate::load::Requests;

/// Returns requests that keys of all accounts may make.
pub(crate) fn authorized(scale: Scale) -> Requests {
    let requests = scale.some_keys(DIFFERENT).map(|key| get(ARTICLES, &token_of(key)));
    Rc::new(requests.collect())
}

/// Returns requests whose tokens have the right form and are nobody's.
pub(crate) fn unknown(scale: Scale) -> Requests {
    let tokens = (scale.keys..).take(UNKNOWN).map(token_of);
    Rc::new(tokens.map(|token| get(ARTICLES, &token)).collect())
}

/// Returns requests to read what no key may read.
pub(crate) fn forbidden(scale: Scale) -> Requests {
    let requests = scale.some_keys(DIFFERENT).map(|key| get(ORDERS, &token_of(key)));
    Rc::new(requests.collect())
}

/// Returns requests of an account that has nothing left.
pub(crate) fn over_limit(dataset: &Dataset) -> Requests {
    Rc::new(vec![get(ARTICLES, &dataset.used_up)])
}

/// Returns GraphQL queries with a body of 1 KiB that keys of all accounts may make.
pub(crate) fn graphql(scale: Scale) -> Requests {
    let body = graphql_body();
    let requests = scale.some_keys(DIFFERENT).map(|key| {
        let token = token_of(key);
        let head = format!(
            "POST /api/graphql HTTP/1.1\r\n{HEADERS}x-auth-token: {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        (head + body.as_str()).into_bytes()
    });
    Rc::new(requests.collect())
}

/// Returns the request that reads articles with a token.
pub(crate) fn read_articles(token: &str) -> Vec<u8> {
    get(ARTICLES, token)
}

fn get(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{HEADERS}x-auth-token: {token}\r\n\r\n").into_bytes()
}

/// A list with related objects of three types, and as many plain fields as make it 1 KiB.
fn graphql_body() -> String {
    let head = "query Front { articlesList(page: 1, limit: 20, order_by: \"published_at\") { \
                id title slug lead author { id name portrait { id url alt } } \
                category { id name parent { id name } }";
    let body = |fields: &str| json!({"query": format!("{head}{fields} }} }}")}).to_string();
    let mut fields = String::new();
    for index in 0.. {
        let field = format!(" detail_{index:02}");
        if body(&fields).len() + field.len() > KIBIBYTE {
            break;
        }
        fields.push_str(&field);
    }
    let short = KIBIBYTE.saturating_sub(body(&fields).len());
    fields.push_str(&" ".repeat(short));
    body(&fields)
}

/// What a client sends besides.
const HEADERS: &str = "host: api.example.com\r\nuser-agent: bench/1.0\r\naccept: application/json\r\n\
                       accept-encoding: gzip\r\n";

const ARTICLES: &str = "/api/v1/content/articles?page=1&limit=20";

const ORDERS: &str = "/api/v1/content/orders?page=1&limit=20";

/// Keys that make requests: more than fit into a processor's nearest caches.
const DIFFERENT: u32 = 10_000;

/// Tokens that are nobody's.
const UNKNOWN: usize = 10_000;

const KIBIBYTE: usize = 1024;
