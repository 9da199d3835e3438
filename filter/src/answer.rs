//! Answers: how a refusal looks to the client.

pub mod rate_limit;
pub mod response;

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
            Self::TooManyPreflights { .. } => "too_many_preflights",
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
/// 401 always carries a challenge (RFC 9110, section 15.5.2), which says where a token is expected; a
/// missing right is named as RFC 6750, section 3.1, says.
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
    let is_problem = prefers_problem(headers);
    let is_listed = judgement.route.is_some();
    let body = if is_problem {
        problem(profile, template.status, rejection, &places, is_listed)
    } else {
        template.fill(&places)
    };

    let content_type = if is_problem { PROBLEM_TYPE } else { "application/json" };
    let mut answer_headers = vec![
        ("content-type".to_owned(), content_type.to_owned()),
        ("cache-control".to_owned(), "no-store".to_owned()),
        ("vary".to_owned(), profile.vary.clone()),
    ];
    if let Some(challenge) = challenge(profile, rejection, is_listed) {
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
        Rejection::ExpiredKey
        | Rejection::MissingToken
        | Rejection::UnknownToken
        | Rejection::UnusableToken(_) => {
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
        Rejection::TooManyPreflights { .. } => (None, &answers.throttle),
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

/// Reports whether a request is refused for want of a token that is good.
fn is_unauthenticated(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::ExpiredKey
            | Rejection::MissingToken
            | Rejection::UnknownToken
            | Rejection::UnusableToken(_)
    )
}

/// Returns what a profile's bodies can show of a refusal.
fn places(status: u16, rejection: &Rejection) -> Vec<(&'static str, Value)> {
    let mut places = vec![("message", json!(rejection.to_string())), ("status", json!(status))];
    if let Rejection::LimitReached { retry_after_seconds, .. } = rejection {
        places.push(("retry_after", json!(retry_after_seconds)));
    }
    if let Rejection::TooManyPreflights { retry_after_seconds } = rejection {
        places.push(("retry_after", json!(retry_after_seconds)));
    }
    if let Rejection::MissingRight(MissingRight { needed, held }) = rejection {
        places.push(("required_scope", json!(needed.to_string())));
        places.push(("granted_scopes", json!(held)));
    }
    places
}

fn problem(
    profile: &Profile,
    status: u16,
    rejection: &Rejection,
    places: &[(&'static str, Value)],
    is_listed: bool,
) -> String {
    let detail = if is_unauthenticated(rejection) {
        format!("{rejection}; this API expects its token in {}", profile.token_places)
    } else if !is_listed && matches!(rejection, Rejection::MissingRight(_)) {
        NOT_LISTED.to_owned()
    } else {
        rejection.to_string()
    };
    let mut problem = json!({
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "detail": detail,
    });
    if let Some(members) = problem.as_object_mut() {
        for (name, value) in places {
            let is_told = match *name {
                "message" | "status" => true,
                "required_scope" => !is_listed,
                _ => false,
            };
            if !is_told {
                members.insert((*name).to_owned(), value.clone());
            }
        }
    }
    problem.to_string()
}

fn retry_after_seconds(rejection: &Rejection) -> Option<u64> {
    match rejection {
        Rejection::LimitReached { retry_after_seconds, .. } => *retry_after_seconds,
        Rejection::TooManyPreflights { retry_after_seconds } => Some(*retry_after_seconds),
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

fn challenge(profile: &Profile, rejection: &Rejection, is_listed: bool) -> Option<String> {
    let scheme = &profile.challenge;
    let realm = &profile.name;
    match rejection {
        Rejection::MissingToken => {
            let places = &profile.token_places;
            Some(format!("{scheme} realm=\"{realm}\", token_in=\"{places}\""))
        }
        Rejection::ExpiredKey | Rejection::UnknownToken | Rejection::UnusableToken(_) => {
            let places = &profile.token_places;
            Some(format!(
                "{scheme} realm=\"{realm}\", error=\"invalid_token\", token_in=\"{places}\""
            ))
        }
        Rejection::MissingRight(_) if !is_listed => Some(format!(
            "{scheme} realm=\"{realm}\", error=\"insufficient_scope\", \
             error_description=\"{NOT_LISTED}\""
        )),
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
        | Rejection::TooManyPreflights { .. }
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

/// Reports whether `Accept` headers ask for problem details by name, and no less than for plain JSON
/// (RFC 9110, section 12.5.1).
fn prefers_problem(headers: Headers<'_>) -> bool {
    // Most clients name something shorter, and none of what follows is of any use then.
    if headers.named("accept").all(|value| value.len() < PROBLEM_TYPE.len()) {
        return false;
    }
    let values = headers.named("accept").filter_map(|value| std::str::from_utf8(value).ok());
    let ranges = values.flat_map(|value| value.split(',').map(range));
    let (mut problem, mut json) = (None, [None; 3]);
    for (name, weight) in ranges {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let known = match () {
            () if is(PROBLEM_TYPE) => &mut problem,
            () if is("application/json") => &mut json[0],
            () if is("application/*") => &mut json[1],
            () if is("*/*") => &mut json[2],
            () => continue,
        };
        *known = Some(known.map_or(weight, |known: u16| known.max(weight)));
    }
    // The range that fits a type most closely is the one that counts.
    let json = json.into_iter().flatten().next().unwrap_or_default();
    problem.is_some_and(|problem| problem > 0 && problem >= json)
}

/// Returns a media range without its parameters, and its weight in thousandths.
fn range(text: &str) -> (&str, u16) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|parameter| {
        parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")).map(thousandths)
    });
    (name, weight.unwrap_or(1000))
}

/// Returns a weight (RFC 9110, section 12.4.2) in thousandths; what is none is as if it was not there.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{fraction:0<3}");
    match (whole, digits.get(..3).and_then(|digits| digits.parse::<u16>().ok())) {
        ("0", Some(thousandths)) => thousandths,
        _ => 1000,
    }
}

/// Says why a request is refused that only a key to everything may make.
const NOT_LISTED: &str = "no route of this API lists this method and path, so it takes full access";

const PROBLEM_TYPE: &str = "application/problem+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_details_go_to_those_who_ask_for_them() {
        for (values, asked) in [
            (&["application/problem+json"][..], true),
            (&["text/html, Application/Problem+JSON;q=0.5"], true),
            (&["application/problem+json, application/json"], true),
            (&["application/problem+json;q=0.5, */*;q=0.1"], true),
            (&["application/json;q=0.2", "application/problem+json ; Q=0.2"], true),
            (&["application/problem+json;q=0.1, application/json"], false),
            (&["application/problem+json;q=0.1", "application/json;q=0.101"], false),
            (&["application/problem+json;q=0.9, */*"], false),
            (&["application/problem+json;q=0.5, application/*;q=0.6, */*;q=0.1"], false),
            (&["application/problem+json;q=0.5, application/json;q=0.1, */*;q=0.9"], true),
            (&["application/problem+json;q=0"], false),
            (&["application/problem+json;q=0.00"], false),
            (&["application/problem+json;q=x"], true),
            (&["application/json"], false),
            (&["*/*"], false),
            (&["application/*"], false),
            (&[""], false),
            (&[], false),
        ] {
            let headers: Vec<_> = values.iter().map(|value| ("accept", value.as_bytes())).collect();
            assert_eq!(prefers_problem(Headers(&headers)), asked, "{values:?}");
        }
    }

    #[test]
    fn scope_holds_no_character_that_would_end_it() {
        assert_eq!(scope_text("a\"b\\c d\r\nä:read"), "a?b?c?d???:read");
    }
}
