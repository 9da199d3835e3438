//! How refusals look: statuses and bodies with places to fill.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Answers to every reason for which a request is refused.
///
/// Each has a place for its `"{status}"`, so that another status is one edit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// No token, or none that is usable.
    pub unauthenticated: AnswerTemplate,
    /// A needed right is not held.
    pub forbidden: AnswerTemplate,
    /// The key may not be used from the client's address.
    pub address_not_allowed: AnswerTemplate,
    /// The request can be read in more than one way, or not at all.
    pub bad_request: AnswerTemplate,
    /// The body is larger than what is judged; as `bad_request` if absent.
    pub too_large: Option<AnswerTemplate>,
    /// The body is of another type than what is judged; as `bad_request` if absent.
    pub unsupported_type: Option<AnswerTemplate>,
    /// The body did not come in time; as `bad_request` if absent.
    pub timeout: Option<AnswerTemplate>,
    /// A limit over a long window is used up.
    pub quota: AnswerTemplate,
    /// A limit over a window of at most `throttle_seconds` is used up.
    pub throttle: AnswerTemplate,
    /// There is nothing to decide with.
    pub unavailable: AnswerTemplate,
}

/// Headers by which clients learn what their limits leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RateLimitHeaders {
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    #[serde(rename = "x-ratelimit")]
    Legacy,
    /// `RateLimit-Policy` and `RateLimit`.
    #[serde(rename = "ratelimit")]
    Standard,
}

/// Answers that differ on some routes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerSet {
    /// In place of [`Answers::unauthenticated`].
    pub unauthenticated: Option<AnswerTemplate>,
    /// In place of [`Answers::forbidden`].
    pub forbidden: Option<AnswerTemplate>,
    /// In place of [`Answers::bad_request`].
    pub bad_request: Option<AnswerTemplate>,
    /// In place of [`Answers::unavailable`].
    pub unavailable: Option<AnswerTemplate>,
}

/// A status and a JSON body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerTemplate {
    /// HTTP status, 400 to 599.
    #[serde(deserialize_with = "error_status")]
    pub status: u16,
    /// JSON text, sent byte for byte but for its places.
    ///
    /// A string such as `"{message}"` is a place: it is replaced, quotes included, by a JSON value.
    pub body: Box<RawValue>,
}

fn error_status<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(from)?;
    if (400..=599).contains(&status) {
        return Ok(status);
    }
    Err(serde::de::Error::custom(format_args!("expected a status of 400 to 599, found {status}")))
}

impl AnswerTemplate {
    /// Returns the body with its places filled: (name, JSON value).
    #[must_use]
    pub fn fill(&self, places: &[(&str, serde_json::Value)]) -> String {
        let mut body = String::with_capacity(self.body.get().len());
        let mut rest = self.body.get();
        while let Some(start) = rest.find("\"{") {
            let (before, at) = rest.split_at(start);
            body.push_str(before);
            let filled = places.iter().find_map(|(name, value)| {
                at.strip_prefix("\"{")?
                    .strip_prefix(name)?
                    .strip_prefix("}\"")
                    .map(|after| (value, after))
            });
            match filled {
                Some((value, after)) => {
                    body.push_str(&value.to_string());
                    rest = after;
                }
                None => {
                    body.push_str("\"{");
                    rest = at.get(2..).unwrap_or_default();
                }
            }
        }
        body.push_str(rest);
        body
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_filled_and_all_else_stays() {
        let template: AnswerTemplate = serde_json::from_str(
            r#"{"status": 403, "body": {"z":"{a}", "a":["{b}"],"c":"{unknown}","{a}":"x{a}"}}"#,
        )
        .unwrap();
        assert_eq!(
            template.fill(&[("a", json!("q\"\n{b}")), ("b", json!([1]))]),
            r#"{"z":"q\"\n{b}", "a":[[1]],"c":"{unknown}","q\"\n{b}":"x{a}"}"#
        );
    }
}
