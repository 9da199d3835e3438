//! Records with their entity tags, so that nobody undoes what another has changed meanwhile.

use axum::Json;
use axum::http::header::{ETAG, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use latchkey_protocol::KeyHash;
use serde::Serialize;

use crate::error::ApiError;
use crate::token;

/// A record in an answer, with its tag (RFC 9110, section 8.8.3).
#[derive(Debug)]
pub(crate) struct Record<T>(pub(crate) T);

/// A record that was made or replaced.
#[derive(Debug)]
pub(crate) struct Put<T> {
    /// Whether it was not there before.
    pub(crate) is_new: bool,
    /// Where it is.
    pub(crate) path: String,
    pub(crate) record: T,
}

impl<T: Serialize> IntoResponse for Record<T> {
    fn into_response(self) -> Response {
        ([(ETAG, tag_header(&self.0))], Json(self.0)).into_response()
    }
}

impl<T: Serialize> IntoResponse for Put<T> {
    fn into_response(self) -> Response {
        if self.is_new {
            return (StatusCode::CREATED, at(&self.path), Record(self.record)).into_response();
        }
        Record(self.record).into_response()
    }
}

/// Returns the header that says where something is that was made (RFC 9110, section 10.2.2).
pub(super) fn at(path: &str) -> [(axum::http::HeaderName, HeaderValue); 1] {
    [(LOCATION, HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("")))]
}

/// Returns the header with a record's tag.
pub(super) fn tag_header<T: Serialize>(record: &T) -> HeaderValue {
    HeaderValue::from_str(&tag(record)).unwrap_or(HeaderValue::from_static(""))
}

/// Returns a record's tag: it changes with everything but when the record was last used.
pub(crate) fn tag<T: Serialize>(record: &T) -> String {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        members.remove("last_used_at");
    }
    let hash = KeyHash::of(value.to_string().as_bytes());
    format!("\"{}\"", token::hex(&hash.as_bytes()[..TAG_BYTES]))
}

/// Returns the tags of which a record has to have one, if the request names some (RFC 9110, section 13.1.1).
///
/// # Errors
///
/// If the header is no list of strong tags.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Vec<String>>, ApiError> {
    let (mut tags, mut has_any) = (Vec::new(), false);
    for value in headers.get_all(IF_MATCH) {
        // What cannot be read is no tag, rather than no condition.
        let text = value.to_str().unwrap_or("?");
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            // A weak one fits no record (RFC 9110, section 13.1.1).
            let is_weak = tag.starts_with("W/");
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let is_tag =
                tag == "*" || (tag.len() > 1 && tag.starts_with('"') && tag.ends_with('"'));
            if !is_tag {
                let message =
                    format!("expected `*` or what an answer said as `ETag`, found `{tag}`");
                return Err(ApiError::field("If-Match", message));
            }
            has_any = true;
            if !is_weak {
                tags.push(tag.to_owned());
            }
        }
    }
    Ok(has_any.then_some(tags))
}

/// Bytes of a hash that tell two states of a record apart.
const TAG_BYTES: usize = 16;
