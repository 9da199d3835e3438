//! Rate-limit headers: the one place that writes them.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use crate::leases::Rate;
use crate::profile::answers::RateLimitHeaders;

/// Returns the headers that tell a client what its limits leave.
///
/// `X-RateLimit-…` tells of the limit nearest to exhaustion. `RateLimit-Policy` and `RateLimit` tell of
/// all of them (draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4: structured fields, `q` and
/// `r` in calls, `w` and `t` in seconds).
#[must_use]
pub fn headers(
    forms: &[RateLimitHeaders],
    rates: &[Rate],
    now_ms: u64,
) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    let Some(nearest) = rates.iter().min_by(|a, b| by_exhaustion(a, b)) else {
        return headers;
    };
    for form in forms {
        match form {
            RateLimitHeaders::Legacy => {
                let reset = nearest.state.resets_at_ms.div_ceil(1000);
                headers.push(("x-ratelimit-limit", nearest.state.limit.amount.to_string()));
                headers.push(("x-ratelimit-remaining", nearest.remaining.to_string()));
                headers.push(("x-ratelimit-reset", reset.to_string()));
            }
            RateLimitHeaders::Standard => {
                let policy = list(rates, |rate, text| {
                    let limit = &rate.state.limit;
                    let (amount, window) =
                        (limit.amount.min(MAX_INTEGER), limit.window().seconds());
                    write!(text, ";q={amount};w={window}")
                });
                headers.push(("ratelimit-policy", policy));
                let left = list(rates, |rate, text| {
                    let until_ms = rate.state.resets_at_ms.saturating_sub(now_ms);
                    let (remaining, seconds) =
                        (rate.remaining.min(MAX_INTEGER), until_ms.div_ceil(1000));
                    write!(text, ";r={remaining};t={seconds}")
                });
                headers.push(("ratelimit", left));
            }
        }
    }
    headers
}

/// Compares what is left as a share of the whole; of equal shares, the one that lasts longer counts
/// as nearer.
fn by_exhaustion(a: &Rate, b: &Rate) -> Ordering {
    let share = |this: &Rate, other: &Rate| {
        u128::from(this.remaining) * u128::from(other.state.limit.amount.max(1))
    };
    let by_share = share(a, b).cmp(&share(b, a));
    by_share.then(b.state.resets_at_ms.cmp(&a.state.resets_at_ms))
}

/// Returns a list of structured fields: the name of each limit, and what is said of it.
fn list(rates: &[Rate], say: impl Fn(&Rate, &mut String) -> fmt::Result) -> String {
    let mut text = String::with_capacity(rates.len() * BYTES_PER_LIMIT);
    for rate in rates {
        if !text.is_empty() {
            text.push_str(", ");
        }
        push_quoted(&rate.state.limit.name, &mut text);
        // To write to a string does not fail.
        let _ = say(rate, &mut text);
    }
    text
}

/// Adds a name as a string of structured fields (RFC 9651, section 3.3.3).
fn push_quoted(name: &str, text: &mut String) {
    text.push('"');
    for character in name.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            _ => text.push('?'),
        }
    }
    text.push('"');
}

/// What the text of a limit usually has at most.
const BYTES_PER_LIMIT: usize = 48;

/// Largest integer of structured fields (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use latchkey_protocol::Limit;
    use latchkey_protocol::lease::LimitState;

    use super::*;

    fn rate(name: &str, amount: u64, remaining: u64, resets_at_ms: u64) -> Rate {
        let limit = Limit {
            name: name.to_owned(),
            amount,
            bucket_seconds: 3600,
            buckets: 1,
            identity: None,
            generation: 0,
        };
        Rate { state: Rc::new(LimitState { limit, remaining, resets_at_ms }), remaining }
    }

    fn shown(rates: &[Rate], now_ms: u64) -> Vec<String> {
        let forms = [RateLimitHeaders::Legacy, RateLimitHeaders::Standard];
        headers(&forms, rates, now_ms).iter().map(|(n, v)| format!("{n}: {v}")).collect()
    }

    #[test]
    fn headers_are_those_of_the_documents() {
        let rates = [rate("hourly", 1000, 847, 1_704_657_600_000)];
        assert_eq!(
            shown(&rates, 1_704_655_753_500),
            [
                "x-ratelimit-limit: 1000",
                "x-ratelimit-remaining: 847",
                "x-ratelimit-reset: 1704657600",
                r#"ratelimit-policy: "hourly";q=1000;w=3600"#,
                r#"ratelimit: "hourly";r=847;t=1847"#,
            ]
        );
        assert!(shown(&[], 0).is_empty());
    }

    #[test]
    fn limit_nearest_to_exhaustion_is_shown() {
        let rates = [rate("a", 1000, 500, 9000), rate("b", 10, 1, 2000), rate("c", 0, 0, 1)];
        assert_eq!(shown(&rates, 0)[0], "x-ratelimit-limit: 0");
        assert_eq!(
            shown(&rates[..2], 0)[..2],
            ["x-ratelimit-limit: 10", "x-ratelimit-remaining: 1"]
        );
        assert!(shown(&rates[..2], 0)[4].ends_with(r#""a";r=500;t=9, "b";r=1;t=2"#));
    }

    #[test]
    fn name_cannot_end_its_string() {
        let mut text = String::new();
        push_quoted("a\"b\\c\r\nä", &mut text);
        assert_eq!(text, r#""a\"b\\c???""#);
    }
}
