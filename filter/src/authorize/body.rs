//! The body of a request, where what is needed depends on it.

use super::spelling::is_same_header;
use super::{Headers, Rejection};

/// What is there of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// It has not come yet, or not all of it.
    Pending,
    /// It is larger than what is judged.
    TooLarge,
    /// There is one, but it cannot be had here.
    Unavailable,
    /// All of it; empty if the request has none.
    Whole(&'a [u8]),
}

/// Leaves the bytes out: they are the client's own.
impl std::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pending => f.write_str("Pending"),
            Self::TooLarge => f.write_str("TooLarge"),
            Self::Unavailable => f.write_str("Unavailable"),
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
        }
    }
}

/// Reports whether headers announce a body of more than so many bytes.
#[must_use]
pub fn is_announced_larger(headers: Headers<'_>, max_bytes: usize) -> bool {
    let length = headers.text("content-length").and_then(|text| text.parse::<u64>().ok());
    length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max_bytes))
}

/// Checks that headers say that the body is JSON in UTF-8, and is as it is.
///
/// # Errors
///
/// [`Rejection::UnsupportedBody`] if another reader could see something else in it.
pub fn check_is_json(headers: Headers<'_>) -> Result<(), Rejection> {
    let is_encoded = |value: &[u8]| {
        let value = value.trim_ascii();
        !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")
    };
    let named = |name: &'static str| {
        let same = headers.0.iter().filter(move |(header, _)| is_same_header(header, name));
        same.map(|(_, value)| *value)
    };
    if named("content-encoding").any(is_encoded) {
        return Err(Rejection::UnsupportedBody("expected no `Content-Encoding`"));
    }
    let mut types = named("content-type");
    match (types.next().map(is_json), types.next()) {
        (Some(true), None) => Ok(()),
        (Some(_), _) | (None, _) => {
            Err(Rejection::UnsupportedBody("expected `Content-Type: application/json`, once"))
        }
    }
}

/// Reports whether a content type is JSON, with no other parameter than `charset=utf-8`.
fn is_json(content_type: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content_type) else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let is_type = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"));
    is_type
        && parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            name.eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_json_is_judged() {
        let check = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = headers.iter().map(|&(n, v)| (n, v.as_bytes())).collect();
            check_is_json(Headers(&headers)).is_ok()
        };
        for (content_type, is_json) in [
            ("application/json", true),
            ("Application/JSON; Charset=\"UTF-8\"", true),
            ("application/json;charset=utf-8", true),
            ("application/json; charset=utf-16", false),
            ("application/json; boundary=x", false),
            ("application/json, text/plain", false),
            ("application/graphql", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(check(&[("content-type", content_type)]), is_json, "{content_type}");
        }
        let json = ("content-type", "application/json");
        assert!(!check(&[]));
        assert!(!check(&[json, json]));
        assert!(!check(&[json, ("content_type", "text/plain")]));
        assert!(!check(&[json, ("content_encoding", "gzip")]));
        assert!(check(&[json, ("content-encoding", "identity")]));
        for encoding in ["gzip", "br", "identity, gzip"] {
            assert!(!check(&[json, ("content-encoding", encoding)]), "{encoding}");
        }
    }

    #[test]
    fn announced_length_is_believed_where_it_is_too_large() {
        let announced = |length: &str| {
            let headers = [("content-length", length.as_bytes())];
            is_announced_larger(Headers(&headers), 10)
        };
        for (length, larger) in [("10", false), ("11", true), ("x", false), ("", false)] {
            assert_eq!(announced(length), larger, "{length}");
        }
        assert!(announced(&u64::MAX.to_string()), "also where it is more than memory can hold");
    }
}
