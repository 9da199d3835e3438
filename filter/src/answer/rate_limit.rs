//! Rate-limit headers: the one place that writes them.

use std::cmp::Ordering;

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
                let policy = rates.iter().map(|rate| {
                    let limit = &rate.state.limit;
                    let window = limit.window().seconds();
                    let amount = limit.amount.min(MAX_INTEGER);
                    format!("{};q={amount};w={window}", quoted(&limit.name))
                });
                headers.push(("ratelimit-policy", policy.collect::<Vec<_>>().join(", ")));
                let left = rates.iter().map(|rate| {
                    let until_ms = rate.state.resets_at_ms.saturating_sub(now_ms);
                    let name = quoted(&rate.state.limit.name);
                    let remaining = rate.remaining.min(MAX_INTEGER);
                    format!("{name};r={remaining};t={}", until_ms.div_ceil(1000))
                });
                headers.push(("ratelimit", left.collect::<Vec<_>>().join(", ")));
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

/// Returns a name as a string of structured fields (RFC 9651, section 3.3.3).
fn quoted(name: &str) -> String {
    let escape = |character: char| match character {
        '"' | '\\' => vec!['\\', character],
        ' '..='~' => vec![character],
        _ => vec!['?'],
    };
    format!("\"{}\"", name.chars().flat_map(escape).collect::<String>())
}

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
        assert_eq!(quoted("a\"b\\c\r\nä"), r#""a\"b\\c???""#);
    }
}
