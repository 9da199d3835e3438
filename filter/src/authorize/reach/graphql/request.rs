//! The queries in a request: one in the URL, one in a JSON body, or several in a JSON list.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Asked;
use crate::authorize::Rejection;
use crate::authorize::body::{self, Body};
use crate::authorize::query::Parameter;
use crate::authorize::reach::value::Value;

/// A query, and what is given for its variables, in JSON.
pub(super) struct Given<'a> {
    pub(super) query: Cow<'a, str>,
    variables: Option<&'a str>,
}

/// Returns all queries of a request.
///
/// # Errors
///
/// A [`Rejection`] if they cannot be told, or not by all readers alike.
pub(super) fn queries<'a>(asked: &'a Asked<'_, '_>) -> Result<Vec<Given<'a>>, Rejection> {
    let body = match asked.request.body {
        Body::Pending => return Err(Rejection::BodyPending),
        Body::TooLarge => return Err(Rejection::BodyTooLarge),
        Body::Unavailable => return Err(Rejection::BodyUnavailable),
        Body::Whole(body) => body,
    };
    // Where entities are decoded before parameters are told apart, as some PHP code does, `&quot;` is
    // no separator.
    if asked.query.text().contains(';') {
        return Err(unreadable("expected no `;` in the query string"));
    }
    if matches!(asked.method, "GET" | "HEAD") {
        if !body.is_empty() {
            return Err(unreadable("expected the query in the URL, and no body"));
        }
        return Ok(vec![query_in_url(asked)?]);
    }
    // Some servers take the one, some the other.
    for parameter in asked.query.parameters() {
        if let Some(name) = DECIDING.iter().find(|name| parameter.could_be(name)) {
            return Err(unreadable(format_args!(
                "expected the query in the body, and no `{name}` in the URL"
            )));
        }
    }
    body::check_is_json(asked.request.headers)?;
    let Operations(operations) = serde_json::from_slice(body).map_err(unreadable)?;
    for operation in &operations {
        refuse_persisted(operation.extensions.as_ref())?;
    }
    let given = |Operation { query, variables, .. }: Operation<'a>| Given {
        query,
        variables: variables.map(RawValue::get),
    };
    Ok(operations.into_iter().map(given).collect())
}

impl<'a> Given<'a> {
    /// Returns what is given for variables, by name.
    ///
    /// A list gives none; where it is empty, it is how PHP writes an object without members. A text is
    /// what some servers would read once more.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] if it cannot be told.
    pub(super) fn variables(&self) -> Result<Vec<(Cow<'a, str>, Value<'a>)>, Rejection> {
        let Some(json) = self.variables.filter(|json| !json.is_empty()) else {
            return Ok(Vec::new());
        };
        match serde_json::from_str(json).map_err(unreadable)? {
            Value::Scalar | Value::List(_) => Ok(Vec::new()),
            Value::Text(text) if text.is_empty() => Ok(Vec::new()),
            Value::Object(members) => Ok(members),
            Value::Name(_) | Value::Text(_) | Value::Variable(_) => {
                Err(unreadable("expected an object in `variables`"))
            }
        }
    }
}

fn unreadable(why: impl fmt::Display) -> Rejection {
    Rejection::Graphql(format!("the request cannot be read: {why}"))
}

/// Returns the query of a URL in which nothing else is that a server might go by.
fn query_in_url<'a>(asked: &'a Asked<'_, '_>) -> Result<Given<'a>, Rejection> {
    let mut given: [Option<&Parameter<'_>>; MEMBERS.len()] = [None; MEMBERS.len()];
    for parameter in asked.query.parameters() {
        let member = MEMBERS.iter().position(|name| parameter.is_plainly(name));
        match member.and_then(|index| given.get_mut(index)) {
            Some(place @ None) if parameter.is_cleanly_encoded() => *place = Some(parameter),
            Some(_) | None => {
                return Err(unreadable(
                    "expected the parameters `query`, `variables`, `operationName` and \
                     `extensions` only, each once, and spelled and encoded plainly",
                ));
            }
        }
    }
    let [query, variables, _, extensions] = given;
    if let Some(extensions) = extensions {
        let extensions = serde_json::from_slice(&extensions.value).map_err(unreadable)?;
        refuse_persisted(Some(&extensions))?;
    }
    let query = query.ok_or_else(|| unreadable("expected the parameter `query`"))?;
    let text = |parameter: &'a Parameter<'_>| {
        std::str::from_utf8(&parameter.value)
            .map_err(|_| unreadable("expected the parameters in UTF-8"))
    };
    Ok(Given { query: Cow::Borrowed(text(query)?), variables: variables.map(text).transpose()? })
}

/// Refuses a request that names a query which the server keeps: what it would do is not known here.
fn refuse_persisted(extensions: Option<&Extensions>) -> Result<(), Rejection> {
    let names = extensions.into_iter().flat_map(BTreeMap::keys);
    match names.into_iter().find(|name| name.eq_ignore_ascii_case("persistedQuery")) {
        Some(name) => Err(unreadable(format_args!("expected no `{name}`"))),
        None => Ok(()),
    }
}

/// What a client tells beside the query.
type Extensions = BTreeMap<String, IgnoredAny>;

/// One operation (GraphQL over HTTP, section 5.1).
///
/// A member that is there twice, or that is not known here, is an error: the server might go by it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation<'a> {
    #[serde(borrow)]
    query: Cow<'a, str>,
    extensions: Option<Extensions>,
    #[serde(borrow)]
    variables: Option<&'a RawValue>,
    #[serde(rename = "operationName")]
    _operation_name: Option<IgnoredAny>,
}

/// The operations of a body: an object, or a list of objects.
struct Operations<'a>(Vec<Operation<'a>>);

impl<'de> Deserialize<'de> for Operations<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMore { may_be_list: true })
    }
}

/// One operation of a list.
struct Listed<'a>(Operations<'a>);

impl<'de> Deserialize<'de> for Listed<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMore { may_be_list: false }).map(Self)
    }
}

struct OneOrMore {
    may_be_list: bool,
}

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Operations<'de>;

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

/// What an operation may consist of.
const MEMBERS: [&str; 4] = ["query", "variables", "operationName", "extensions"];

/// Parameters by which some servers find the query to run and its variables, whatever the body says.
const DECIDING: [&str; 8] =
    ["query", "variables", "extensions", "id", "queryId", "documentId", "doc_id", "hash"];
