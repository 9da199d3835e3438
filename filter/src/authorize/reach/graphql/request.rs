//! The queries in a request: one in the URL, one in a JSON body, or several in a JSON list.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::authorize::body::{self, Body};
use crate::authorize::query::Query;
use crate::authorize::{Rejection, Request};

/// Returns the texts of all queries of a request.
///
/// # Errors
///
/// A [`Rejection`] if they cannot be told, or not by all readers alike.
pub(super) fn queries(
    request: &Request<'_>,
    method: &str,
    url: &Query<'_>,
) -> Result<Vec<String>, Rejection> {
    let body = match request.body {
        Body::Pending => return Err(Rejection::BodyPending),
        Body::TooLarge => return Err(Rejection::BodyTooLarge),
        Body::Unavailable => return Err(Rejection::BodyUnavailable),
        Body::Whole(body) => body,
    };
    for name in [QUERY, EXTENSIONS] {
        if url.is_behind_semicolon(name) {
            return Err(unreadable(format_args!("`{name}` stands behind a `;`")));
        }
    }
    for parameter in url.named(EXTENSIONS) {
        let extensions = serde_json::from_slice(&parameter.value).map_err(unreadable)?;
        refuse_persisted(&extensions)?;
    }
    if matches!(method, "GET" | "HEAD") {
        if !body.is_empty() {
            return Err(unreadable("expected the query in the URL, and no body"));
        }
        return Ok(vec![query_in_url(url)?]);
    }
    // Some servers take the one, some the other.
    if url.named(QUERY).next().is_some() {
        return Err(unreadable("expected the query in the body, and none in the URL"));
    }
    body::check_is_json(request.headers)?;
    let Operations(operations) = serde_json::from_slice(body).map_err(unreadable)?;
    for operation in &operations {
        refuse_persisted(&operation.extensions)?;
    }
    Ok(operations.into_iter().map(|operation| operation.query).collect())
}

fn unreadable(why: impl fmt::Display) -> Rejection {
    Rejection::Graphql(format!("the request cannot be read: {why}"))
}

fn query_in_url(url: &Query<'_>) -> Result<String, Rejection> {
    let mut parameters = url.named(QUERY);
    let (Some(parameter), None) = (parameters.next(), parameters.next()) else {
        return Err(unreadable("expected the parameter `query`, once"));
    };
    if !parameter.is_plainly(QUERY) || !parameter.is_cleanly_encoded() {
        return Err(unreadable("expected the parameter `query` spelled and encoded plainly"));
    }
    String::from_utf8(parameter.value.to_vec())
        .map_err(|_| unreadable("expected the parameter `query` in UTF-8"))
}

/// Refuses a request that names a query which the server keeps: what it would do is not known here.
fn refuse_persisted(extensions: &Option<BTreeMap<String, Value>>) -> Result<(), Rejection> {
    let names = extensions.iter().flat_map(BTreeMap::keys);
    match names.into_iter().find(|name| name.eq_ignore_ascii_case("persistedQuery")) {
        Some(name) => Err(unreadable(format_args!("expected no `{name}`"))),
        None => Ok(()),
    }
}

/// One operation (GraphQL over HTTP, section 5.1).
///
/// A member that is there twice, or that is not known here, is an error: the server might go by it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    query: String,
    extensions: Option<BTreeMap<String, Value>>,
    #[serde(rename = "variables")]
    _variables: Option<Value>,
    #[serde(rename = "operationName")]
    _operation_name: Option<Value>,
}

/// The operations of a body: an object, or a list of objects.
struct Operations(Vec<Operation>);

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMore { may_be_list: true })
    }
}

/// One operation of a list.
struct Listed(Operations);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMore { may_be_list: false }).map(Self)
    }
}

struct OneOrMore {
    may_be_list: bool,
}

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Operations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `query`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let operation = Operation::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Operations(vec![operation]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        if self.may_be_list {
            while let Some(Listed(Operations(operations))) = list.next_element()? {
                all.extend(operations);
            }
        }
        if all.is_empty() {
            return Err(Error::custom("expected an object with `query`"));
        }
        Ok(Operations(all))
    }
}

const QUERY: &str = "query";
const EXTENSIONS: &str = "extensions";
