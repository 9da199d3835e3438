//! Answers: how a refusal looks to the client.

pub mod rate_limit;

use serde_json::{Value, json};

use crate::authorize::{Headers, Judgement, MissingRight, Rejection};
use crate::profile::Profile;
use crate::profile::answers::{AnswerSet, AnswerTemplate};

/// A complete local reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, none with a control character in its value.
    pub headers: Vec<(String, String)>,
    /// JSON text.
    pub body: String,
}

impl Rejection {
    /// Returns a short name of the reason, for metrics and access logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AddressNotAllowed => "address_not_allowed",
            Self::BodyPending => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyUnavailable => "body_unavailable",
            Self::ExpiredKey => "expired_key",
            Self::Graphql(_) => "unreadable_query",
            Self::MethodOverride(_) => "method_override",
            Self::MisplacedToken => "misplaced_token",
            Self::MissingRight(_) => "missing_right",
            Self::MissingToken => "missing_token",
            Self::NoRoom => "no_room",
            Self::NotReady => "not_ready",
            Self::LimitReached { .. } => "limit_reached",
            Self::Parameter(_) => "ambiguous_parameter",
            Self::Path(_) => "ambiguous_path",
            Self::UnknownToken => "unknown_token",
            Self::Unreachable => "control_plane_unreachable",
            Self::UnsupportedBody(_) => "unsupported_body",
            Self::UnusableToken(_) => "unusable_token",
        }
    }
}

/// Returns the answer to a request that was refused.
///
/// The body is the profile's own, or problem details (RFC 9457) for a client that accepts them. A
/// 401 always carries a challenge (RFC 9110, section 15.5.2); a missing right is named as RFC 6750,
/// section 3.1, says.
#[must_use]
pub fn refusal(
    profile: &Profile,
    judgement: &Judgement<'_>,
    rejection: &Rejection,
    headers: Headers<'_>,
) -> Answer {
    let set = profile.answer_set(judgement.route.and_then(|route| route.answers.as_deref()));
    let template = template(profile, set, rejection);
    let places = places(template.status, rejection);
    let is_problem = accepts_problem(headers);
    let body = if is_problem {
        problem(template.status, rejection, &places)
    } else {
        template.fill(&places)
    };

    let content_type = if is_problem { PROBLEM_TYPE } else { "application/json" };
    let mut answer_headers = vec![
        ("content-type".to_owned(), content_type.to_owned()),
        ("cache-control".to_owned(), "no-store".to_owned()),
    ];
    if let Some(challenge) = challenge(profile, rejection) {
        answer_headers.push(("www-authenticate".to_owned(), challenge));
    }
    if let Some(seconds) = retry_after_seconds(rejection) {
        answer_headers.push(("retry-after".to_owned(), seconds.to_string()));
    }
    if judgement.token_in_query {
        answer_headers.push(("referrer-policy".to_owned(), "no-referrer".to_owned()));
    }
    for (name, value) in &profile.refusal_headers {
        answer_headers.push((name.clone(), value.clone()));
    }
    Answer { status: template.status, headers: answer_headers, body }
}

fn template<'a>(
    profile: &'a Profile,
    set: Option<&'a AnswerSet>,
    rejection: &Rejection,
) -> &'a AnswerTemplate {
    let answers = &profile.answers;
    let bad_request = set.and_then(|set| set.bad_request.as_ref());
    let (special, default) = match rejection {
        Rejection::MissingToken
        | Rejection::UnusableToken(_)
        | Rejection::UnknownToken
        | Rejection::ExpiredKey => {
            (set.and_then(|set| set.unauthenticated.as_ref()), &answers.unauthenticated)
        }
        Rejection::MissingRight(_) => {
            (set.and_then(|set| set.forbidden.as_ref()), &answers.forbidden)
        }
        Rejection::AddressNotAllowed => (None, &answers.address_not_allowed),
        Rejection::Graphql(_)
        | Rejection::Parameter(_)
        | Rejection::MethodOverride(_)
        | Rejection::MisplacedToken
        | Rejection::Path(_) => (bad_request, &answers.bad_request),
        Rejection::BodyPending => (answers.timeout.as_ref().or(bad_request), &answers.bad_request),
        Rejection::BodyTooLarge => {
            (answers.too_large.as_ref().or(bad_request), &answers.bad_request)
        }
        Rejection::UnsupportedBody(_) => {
            (answers.unsupported_type.as_ref().or(bad_request), &answers.bad_request)
        }
        Rejection::LimitReached { limit, .. } => {
            let is_throttle = limit
                .as_ref()
                .is_some_and(|limit| limit.window().seconds() <= profile.throttle_seconds);
            (None, if is_throttle { &answers.throttle } else { &answers.quota })
        }
        Rejection::BodyUnavailable
        | Rejection::NoRoom
        | Rejection::NotReady
        | Rejection::Unreachable => {
            (set.and_then(|set| set.unavailable.as_ref()), &answers.unavailable)
        }
    };
    special.unwrap_or(default)
}

/// Returns what a profile's bodies can show of a refusal.
fn places(status: u16, rejection: &Rejection) -> Vec<(&'static str, Value)> {
    let mut places = vec![("message", json!(rejection.to_string())), ("status", json!(status))];
    if let Rejection::LimitReached { retry_after_seconds, .. } = rejection {
        places.push(("retry_after", json!(retry_after_seconds)));
    }
    if let Rejection::MissingRight(MissingRight { needed, held }) = rejection {
        places.push(("required_scope", json!(needed.to_string())));
        places.push(("granted_scopes", json!(held)));
    }
    places
}

fn problem(status: u16, rejection: &Rejection, places: &[(&'static str, Value)]) -> String {
    let mut problem = json!({
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "detail": rejection.to_string(),
    });
    if let Some(members) = problem.as_object_mut() {
        for (name, value) in places {
            if *name != "message" && *name != "status" {
                members.insert((*name).to_owned(), value.clone());
            }
        }
    }
    problem.to_string()
}

fn retry_after_seconds(rejection: &Rejection) -> Option<u64> {
    match rejection {
        Rejection::LimitReached { retry_after_seconds, .. } => *retry_after_seconds,
        // The filter asks every second at least.
        Rejection::NoRoom | Rejection::NotReady | Rejection::Unreachable => Some(1),
        Rejection::AddressNotAllowed
        | Rejection::BodyPending
        | Rejection::BodyTooLarge
        | Rejection::BodyUnavailable
        | Rejection::ExpiredKey
        | Rejection::Graphql(_)
        | Rejection::MethodOverride(_)
        | Rejection::MisplacedToken
        | Rejection::MissingRight(_)
        | Rejection::MissingToken
        | Rejection::Parameter(_)
        | Rejection::Path(_)
        | Rejection::UnknownToken
        | Rejection::UnsupportedBody(_)
        | Rejection::UnusableToken(_) => None,
    }
}

/// The reason phrases of RFC 9110, section 15; `about:blank` problems have them as titles.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Refused",
    }
}

fn challenge(profile: &Profile, rejection: &Rejection) -> Option<String> {
    let scheme = &profile.challenge;
    let realm = &profile.name;
    match rejection {
        Rejection::MissingToken => Some(format!("{scheme} realm=\"{realm}\"")),
        Rejection::ExpiredKey | Rejection::UnknownToken | Rejection::UnusableToken(_) => {
            Some(format!("{scheme} realm=\"{realm}\", error=\"invalid_token\""))
        }
        Rejection::MissingRight(MissingRight { needed, .. }) => {
            let scope = scope_text(&needed.to_string());
            Some(format!(
                "{scheme} realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{scope}\""
            ))
        }
        Rejection::AddressNotAllowed
        | Rejection::BodyPending
        | Rejection::BodyTooLarge
        | Rejection::BodyUnavailable
        | Rejection::Graphql(_)
        | Rejection::LimitReached { .. }
        | Rejection::MethodOverride(_)
        | Rejection::MisplacedToken
        | Rejection::NoRoom
        | Rejection::NotReady
        | Rejection::Parameter(_)
        | Rejection::Path(_)
        | Rejection::Unreachable
        | Rejection::UnsupportedBody(_) => None,
    }
}

/// Returns a right with only the characters that a scope may have (RFC 6750, section 3).
///
/// The name of the resource may come from the path, so from the client.
fn scope_text(right: &str) -> String {
    let is_scope_char = |character: char| matches!(character, '!' | '#'..='[' | ']'..='~');
    right.chars().map(|c| if is_scope_char(c) { c } else { '?' }).collect()
}

/// Reports whether an `Accept` header asks for problem details by name.
fn accepts_problem(headers: Headers<'_>) -> bool {
    headers.named("accept").filter_map(|value| std::str::from_utf8(value).ok()).any(|value| {
        value.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(PROBLEM_TYPE));
            named && !parts.any(is_zero_weight)
        })
    })
}

/// Reports whether a parameter of a media range is the weight 0 (RFC 9110, section 12.4.2).
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
}

const PROBLEM_TYPE: &str = "application/problem+json";

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &str) -> bool {
        accepts_problem(Headers(&[("accept", value.as_bytes())]))
    }

    #[test]
    fn problem_details_go_to_those_who_ask_for_them() {
        for (value, asked) in [
            ("application/problem+json", true),
            ("text/html, Application/Problem+JSON;q=0.5", true),
            ("application/problem+json;q=0", false),
            ("application/problem+json;q=0.00", false),
            ("application/json", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(accepts(value), asked, "{value}");
        }
    }

    #[test]
    fn scope_holds_no_character_that_would_end_it() {
        assert_eq!(scope_text("a\"b\\c d\r\nä:read"), "a?b?c?d???:read");
    }
}
