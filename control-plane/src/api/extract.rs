//! What handlers take from requests, with errors that name the field.

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::records;
use crate::error::ApiError;
use crate::session;
use crate::store::Origin;

/// A JSON body; an empty one counts as `{}`.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (is_json, bytes) = read(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            return from_json(b"{}");
        }
        if !is_json {
            return Err(ApiError::UnsupportedType);
        }
        from_json(&bytes)
    }
}

fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<Body<T>, ApiError> {
    // A list would be read as an object's members in their order.
    if json.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::Malformed("expected a JSON object, found a list".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(value) => value,
        Err(error) if error.inner().to_string().contains("floating point") => {
            return with_whole_numbers(json);
        }
        Err(error) => {
            return Err(named(&error.path().to_string(), &error.into_inner().to_string()));
        }
    };
    deserializer
        .end()
        .map_err(|error| ApiError::Malformed(format!("the body is not one JSON value: {error}")))?;
    Ok(Body(value))
}

/// Reads JSON whose whole numbers may be written with a fraction of zero, which says the same: some programs
/// know no other numbers.
fn with_whole_numbers<T: DeserializeOwned>(json: &[u8]) -> Result<Body<T>, ApiError> {
    let malformed = |error| ApiError::Malformed(format!("the body is not one JSON value: {error}"));
    let mut value: Value = serde_json::from_slice(json).map_err(malformed)?;
    make_whole(&mut value);
    serde_path_to_error::deserialize(value)
        .map(Body)
        .map_err(|error| named(&error.path().to_string(), &error.into_inner().to_string()))
}

fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() <= MAX_WHOLE);
            // The text of a float that is whole ends with what may be left out.
            let text = whole.map(|whole| format!("{whole:.0}"));
            if let Some(Ok(whole)) = text.map(|text| text.parse::<i64>()) {
                *value = Value::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(members) => members.values_mut().for_each(make_whole),
        Value::Bool(_) | Value::Null | Value::String(_) => {}
    }
}

/// Up to here every whole number is one of a float's: 2^53 - 1 (RFC 8259, section 6).
const MAX_WHOLE: f64 = 9_007_199_254_740_991.0;

/// Returns an error of a field, or of the body as a whole where there is no field.
fn named(path: &str, message: &str) -> ApiError {
    // Where in the text it is helps nobody who is told the field.
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    // Serde names a missing or unknown field in its message only.
    let inner = message.split('`').nth(1).filter(|_| {
        message.starts_with("missing field `") || message.starts_with("unknown field `")
    });
    let field = match (path, inner) {
        (".", None) => None,
        (".", Some(inner)) => Some(inner.to_owned()),
        (path, Some(inner)) if path != inner && !path.ends_with(&format!(".{inner}")) => {
            Some(format!("{path}.{inner}"))
        }
        (path, _) => Some(path.to_owned()),
    };
    match field {
        Some(field) => ApiError::field(&field, message),
        None => ApiError::Malformed(format!("the body is not what was expected: {message}")),
    }
}

/// A JSON body that has to be there, as what it leaves out does harm.
#[derive(Debug)]
pub(crate) struct NeededBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for NeededBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (is_json, bytes) = read(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            let message = "expected a JSON object, found nothing; `{}` takes what is the default";
            return Err(ApiError::Malformed(message.to_owned()));
        }
        if !is_json {
            return Err(ApiError::UnsupportedType);
        }
        from_json(&bytes).map(|Body(body)| Self(body))
    }
}

/// Returns the body, and whether it is said to be JSON.
async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<(bool, Bytes), ApiError> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(error) if error.to_string().contains("length limit") => {
            ApiError::TooLarge
        }
        other => ApiError::Malformed(other.body_text()),
    })?;
    // Browsers send other types across origins without asking; JSON they do not.
    let is_json = content_type.is_some_and(|value| {
        let name = value.split(';').next().unwrap_or_default().trim();
        name == "application/json" || (name.starts_with("application/") && name.ends_with("+json"))
    });
    Ok((is_json, bytes))
}

/// The query string.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(query) => Ok(Self(query.0)),
            Err(rejection) => {
                let message = rejection.body_text();
                let message = message.rsplit_once("string: ").map_or(&*message, |(_, rest)| rest);
                Err(match message.split_once(": ") {
                    Some((field, message)) => ApiError::field(field, message),
                    None => named(".", message),
                })
            }
        }
    }
}

/// The parameters in the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(Self(path.0)),
            Err(rejection) => Err(ApiError::Malformed(rejection.body_text())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let once = parts.extensions.get().copied();
        let expected = records::expected(&parts.headers)?;
        Ok(Self { expected, once, ..Self::of("operator", &session::address(parts)) })
    }
}

/// Tells a field that is `null` from one that is absent.
///
/// # Errors
///
/// If the value is neither `null` nor what was expected.
pub(crate) fn nullable<'de, T, D>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(from).map(Some)
}

/// Refuses `null` for a field that may be absent but not empty.
///
/// # Errors
///
/// If the value is `null` or not what was expected.
pub(crate) fn present<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(from).map(Some)
}

/// Takes an empty value of a query parameter for an absent one, as `?after=` is meant.
///
/// # Errors
///
/// If the value is no text.
pub(crate) fn non_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}
