//! Stage: the token, wherever the client put it, and all that must not travel on.

use std::borrow::Cow;

use latchkey_protocol::TokenFormat;
use memchr::memmem;

use super::query::Query;
use super::spelling::{decodings, is_encoded_too_often, is_same_header};
use super::{Headers, Rejection};
use crate::profile::Profile;
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

/// By what a token of an API is known wherever it stands: its prefix, and letters and digits behind it.
#[derive(Clone, Debug)]
pub struct TokenForm {
    prefix: memmem::Finder<'static>,
    /// How many letters and digits follow at least.
    chars: usize,
}

impl TokenForm {
    /// Returns the form of tokens of a format.
    #[must_use]
    pub fn new(format: &TokenFormat) -> Self {
        let prefix = memmem::Finder::new(format.prefix.as_bytes()).into_owned();
        Self { prefix, chars: format.random_chars + TokenFormat::CHECKSUM_CHARS }
    }

    /// Reports whether a text holds a token of this form; letters and digits alone are none.
    fn is_in(&self, text: &[u8]) -> bool {
        if text.len() < self.bytes() || self.prefix.needle().is_empty() {
            return false;
        }
        let prefix = self.prefix.needle().len();
        self.prefix.find_iter(text).any(|at| self.has_chars(text.get(at + prefix..)))
    }

    /// The same for a text in which capitals may have been lost.
    fn is_in_lowered(&self, text: &[u8]) -> bool {
        let prefix = self.prefix.needle();
        text.len() >= self.bytes()
            && !prefix.is_empty()
            && text.windows(prefix.len()).enumerate().any(|(at, window)| {
                window.eq_ignore_ascii_case(prefix) && self.has_chars(text.get(at + prefix.len()..))
            })
    }

    fn has_chars(&self, text: Option<&[u8]>) -> bool {
        let chars = text.and_then(|text| text.get(..self.chars));
        chars.is_some_and(|chars| chars.iter().all(u8::is_ascii_alphanumeric))
    }

    fn bytes(&self) -> usize {
        self.prefix.needle().len() + self.chars
    }
}

/// The tokens found in a request.
#[derive(Debug)]
pub struct Found<'a> {
    /// What they amount to.
    pub presented: Presented<'a>,
    /// By what else a token is known, of which no copy may travel on.
    pub traces: Traces<'a>,
    /// Why a parameter is refused that only some readers would take for a carrier.
    pub ambiguous: Option<Rejection>,
}

/// By what copies of tokens are found.
#[derive(Clone, Debug)]
pub struct Traces<'a> {
    form: &'a TokenForm,
    /// Texts found in carriers that are not of this form, each once.
    texts: Vec<Cow<'a, [u8]>>,
}

/// Returns what the carriers of a request hold.
pub fn find<'a>(profile: &'a Profile, headers: &Headers<'a>, query: &Query<'a>) -> Found<'a> {
    let traces = Traces { form: &profile.token_form, texts: Vec::new() };
    let mut found = Found { presented: Presented::Nothing, traces, ambiguous: None };
    for carrier in &profile.carriers {
        match carrier {
            Carrier::Bearer(name) => {
                for value in headers.named(name) {
                    found.add(bearer(value), Cow::Borrowed(value));
                }
                found.keep_misspelled(headers, name);
            }
            Carrier::Header(name) => {
                for value in headers.named(name) {
                    found.add(whole(value), Cow::Borrowed(value));
                }
                found.keep_misspelled(headers, name);
            }
            Carrier::Query(name) => {
                found.ambiguous = found.ambiguous.or(query.judged(name).err());
                for parameter in query.named(name) {
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
        self.traces.keep(match &token {
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

    /// Takes note of what stands in headers that some upstreams would read as a carrier: it is presented
    /// to nobody here, and travels nowhere.
    fn keep_misspelled(&mut self, headers: &Headers<'a>, carrier: &str) {
        for &(name, value) in headers.0 {
            if name.len() == carrier.len() && name != carrier && is_same_header(name, carrier) {
                self.traces.keep(last_word(Cow::Borrowed(value)));
            }
        }
    }
}

impl<'a> Traces<'a> {
    /// Takes note of a text of which no copy may travel on.
    ///
    /// One too short to be a token is not looked for: it would be found in innocent text; nor is one too
    /// long. Nor are more than a few: a request with so many is refused, and each costs a look at every header.
    fn keep(&mut self, text: Cow<'a, [u8]>) {
        if (MIN_TEXT_BYTES..=MAX_TOKEN_BYTES).contains(&text.len())
            && self.texts.len() < MAX_TEXTS
            && !self.form.is_in(&text)
            && !self.texts.contains(&text)
        {
            self.texts.push(text);
        }
    }

    /// Reports whether a text holds a token, as it stands or decoded, however often; what is encoded more
    /// often than is looked at here could hold one.
    #[must_use]
    pub fn are_in(&self, text: &[u8]) -> bool {
        // Most texts are shorter than a token, or not encoded; to see that takes no search.
        if text.len() < MIN_TEXT_BYTES {
            return false;
        }
        if memchr::memchr2(b'%', b'\\', text).is_none() {
            return self.are_plainly_in(text);
        }
        decodings(text).any(|reading| self.are_plainly_in(&reading)) || is_encoded_too_often(text)
    }

    /// Reports whether the name of a header or trailer holds a token, the capitals of which are lost there.
    #[must_use]
    pub fn are_in_name(&self, name: &str) -> bool {
        if name.len() < MIN_TEXT_BYTES {
            return false;
        }
        let holds = |text: &[u8]| {
            let (name, text) = (name.to_ascii_lowercase(), text.to_ascii_lowercase());
            memmem::find(name.as_bytes(), &text).is_some()
        };
        let may_hold = |text: &[u8]| text.len() <= name.len();
        self.form.is_in_lowered(name.as_bytes())
            || self.texts.iter().any(|text| may_hold(text) && holds(text))
    }

    fn are_plainly_in(&self, text: &[u8]) -> bool {
        let may_hold = |trace: &[u8]| trace.len() <= text.len();
        self.form.is_in(text)
            || self.texts.iter().any(|trace| may_hold(trace) && memmem::find(text, trace).is_some())
    }

    /// Returns the texts that are not of the API's form, for what comes behind the headers.
    #[must_use]
    pub fn into_texts(self) -> Vec<Vec<u8>> {
        self.texts.into_iter().map(Cow::into_owned).collect()
    }

    /// Returns traces of the API's form, and of texts that were found before.
    #[must_use]
    pub fn of(form: &'a TokenForm, texts: &'a [Vec<u8>]) -> Self {
        let texts = texts.iter().map(|text| Cow::Borrowed(text.as_slice())).collect();
        Self { form, texts }
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
const MIN_TEXT_BYTES: usize = 16;

/// Most texts that are looked for.
const MAX_TEXTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(headers: &[(&str, &str)], query: &str) -> String {
        let headers: Vec<_> = headers.iter().map(|&(n, v)| (n, v.as_bytes())).collect();
        let mut profile = Profile::parse(crate::profile::SHIPPED[0].1).unwrap();
        profile.carriers.push(Carrier::Bearer("authorization".to_owned()));
        match find(&profile, &Headers(&headers), &Query::parse(query)).presented {
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
