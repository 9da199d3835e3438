//! Stage: the token, wherever the client put it, and all that must not travel on.

use std::borrow::Cow;

use memchr::memmem;

use super::Headers;
use super::query::Query;
use crate::profile::carriers::Carrier;

/// What a client presented.
#[derive(Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    /// No token anywhere.
    Nothing,
    /// One token, perhaps in several places.
    Token(Cow<'a, [u8]>),
    /// Something that is no usable token.
    Unusable(Unusable),
}

/// Why what was presented is no usable token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Several tokens that differ.
    #[error("several different tokens were sent")]
    Differing,
    /// A carrier with nothing in it.
    #[error("an empty token was sent")]
    Empty,
    /// Not `Bearer`, one space, and a token without blanks.
    #[error("expected `Bearer`, one space and a token")]
    NotBearer,
    /// Longer than any token.
    #[error("the token is too long")]
    TooLong,
}

/// The tokens found in a request.
#[derive(Debug)]
pub struct Found<'a> {
    /// What they amount to.
    pub presented: Presented<'a>,
    /// Texts found in carriers, usable or not, each once; no copy of them may travel on.
    pub secrets: Vec<Cow<'a, [u8]>>,
    /// Whether one of them was in the query string.
    pub in_query: bool,
}

/// Returns what the carriers of a request hold.
pub fn find<'a>(carriers: &[Carrier], headers: &Headers<'a>, query: &Query<'a>) -> Found<'a> {
    let mut found = Found { presented: Presented::Nothing, secrets: Vec::new(), in_query: false };
    for carrier in carriers {
        match carrier {
            Carrier::Bearer(name) => {
                for value in headers.named(name) {
                    found.add(bearer(value), Cow::Borrowed(value));
                }
            }
            Carrier::Header(name) => {
                for value in headers.named(name) {
                    found.add(whole(value), Cow::Borrowed(value));
                }
            }
            Carrier::Query(name) => {
                for parameter in query.named(name) {
                    found.in_query = true;
                    let token = whole(&parameter.value).map(|_| parameter.value.clone());
                    found.add(token, parameter.value.clone());
                }
            }
        }
    }
    found
}

impl<'a> Found<'a> {
    fn add<T>(&mut self, token: Result<T, Unusable>, text: Cow<'a, [u8]>)
    where
        T: Into<Cow<'a, [u8]>>,
    {
        let token = token.map(Into::into);
        self.keep_secret(match &token {
            Ok(token) => token.clone(),
            // A token with something wrong around it is a token all the same.
            Err(_) => last_word(text),
        });
        let presented = match token {
            Ok(token) => Presented::Token(token),
            Err(why) => Presented::Unusable(why),
        };
        if self.presented == Presented::Nothing {
            self.presented = presented;
        } else if self.presented != presented {
            self.presented = Presented::Unusable(Unusable::Differing);
        }
    }

    /// Takes note of a text of which no copy may travel on.
    ///
    /// One too short to be a token is not looked for: it would be found in innocent text. Nor are
    /// more than a few: a request with so many is refused, and each costs a look at every header.
    fn keep_secret(&mut self, secret: Cow<'a, [u8]>) {
        if secret.len() >= MIN_SECRET_BYTES
            && self.secrets.len() < MAX_SECRETS
            && !self.secrets.contains(&secret)
        {
            self.secrets.push(secret);
        }
    }

    /// Reports whether a text holds one of the secrets.
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        // Most texts are shorter than a token; to see that takes no search.
        let may_hold = |secret: &[u8]| secret.len() <= text.len();
        self.secrets.iter().any(|secret| may_hold(secret) && memmem::find(text, secret).is_some())
    }
}

/// Returns the token of an `Authorization` header's value.
///
/// The scheme's name is matched without regard to case (RFC 9110, section 11.1); between it and the
/// token is one space, and no other blank anywhere.
fn bearer(value: &[u8]) -> Result<&[u8], Unusable> {
    let space = value.iter().position(|&byte| byte == b' ').ok_or(Unusable::NotBearer)?;
    let (scheme, rest) = value.split_at_checked(space).ok_or(Unusable::NotBearer)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Unusable::NotBearer);
    }
    let token = whole(rest.strip_prefix(b" ").unwrap_or_default())?;
    if token.iter().any(u8::is_ascii_whitespace) {
        return Err(Unusable::NotBearer);
    }
    Ok(token)
}

fn whole(value: &[u8]) -> Result<&[u8], Unusable> {
    if value.is_empty() {
        return Err(Unusable::Empty);
    }
    if value.len() > MAX_TOKEN_BYTES {
        return Err(Unusable::TooLong);
    }
    Ok(value)
}

fn last_word(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let trimmed = text.trim_ascii_end();
    match trimmed.iter().rposition(u8::is_ascii_whitespace) {
        Some(blank) => Cow::Owned(trimmed.iter().skip(blank + 1).copied().collect()),
        None => text,
    }
}

/// Longest token that is looked up, in bytes. Ours are at most 86; the rest is room for tokens
/// that were made elsewhere and imported.
const MAX_TOKEN_BYTES: usize = 256;

/// Shortest text that is removed wherever it stands, in bytes: no token has fewer than this, and
/// words such as `Bearer` have.
const MIN_SECRET_BYTES: usize = 16;

/// Most texts that are looked for.
const MAX_SECRETS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(headers: &[(&str, &str)], query: &str) -> String {
        let headers: Vec<_> = headers.iter().map(|&(n, v)| (n, v.as_bytes())).collect();
        let carriers = [
            Carrier::Header("x-auth-token".to_owned()),
            Carrier::Query("auth_token".to_owned()),
            Carrier::Bearer("authorization".to_owned()),
        ];
        match find(&carriers, &Headers(&headers), &Query::parse(query)).presented {
            Presented::Nothing => "nothing".to_owned(),
            Presented::Token(token) => String::from_utf8(token.into_owned()).unwrap(),
            Presented::Unusable(why) => why.to_string(),
        }
    }

    #[test]
    fn token_is_found_in_each_carrier() {
        for (headers, query, token) in [
            (&[][..], "", "nothing"),
            (&[("x-auth-token", "t")], "", "t"),
            (&[], "a=b&auth_token=t%2B", "t+"),
            (&[("authorization", "Bearer t")], "", "t"),
            (&[("authorization", "bEARER t")], "", "t"),
            (&[("x-auth-token", "t"), ("x-auth-token", "t")], "auth_token=t", "t"),
        ] {
            assert_eq!(presented(headers, query), token, "{headers:?} {query}");
        }
    }

    #[test]
    fn differing_tokens_are_unusable() {
        for (headers, query) in [
            (&[("x-auth-token", "t"), ("x-auth-token", "u")][..], ""),
            (&[("x-auth-token", "t")], "auth_token=u"),
            (&[("x-auth-token", "t")], "auth_token="),
            (&[], "auth_token=t&auth_token[]=u"),
            (&[], "auth_token=t&auth.token=u"),
        ] {
            let why = Unusable::Differing.to_string();
            assert_eq!(presented(headers, query), why, "{headers:?} {query}");
        }
    }

    #[test]
    fn unusable_header_is_no_token() {
        let long = format!("Bearer {}", "t".repeat(MAX_TOKEN_BYTES + 1));
        for (value, why) in [
            ("", Unusable::NotBearer),
            ("t", Unusable::NotBearer),
            ("Bearer", Unusable::NotBearer),
            ("Bearer:", Unusable::NotBearer),
            ("Bearer: t", Unusable::NotBearer),
            ("Bearer ", Unusable::Empty),
            ("Bearer  t", Unusable::NotBearer),
            ("Bearer t ", Unusable::NotBearer),
            ("Bearer t u", Unusable::NotBearer),
            ("Bearer\tt", Unusable::NotBearer),
            (" Bearer t", Unusable::NotBearer),
            ("Basic dDp1", Unusable::NotBearer),
            (long.as_str(), Unusable::TooLong),
        ] {
            assert_eq!(presented(&[("authorization", value)], ""), why.to_string(), "{value}");
        }
    }
}
