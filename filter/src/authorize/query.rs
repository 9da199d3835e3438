//! The query string: its parameters as upstreams may read them, and its text without some of them.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::edits::Rewrite;

/// A query string, read once.
#[derive(Debug)]
pub struct Query<'a> {
    text: &'a str,
    parameters: Vec<Parameter<'a>>,
}

/// One parameter of a query string.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// As it was sent: `name=value`.
    pub raw: &'a str,
    /// Name, as [`Self::is`] compares it.
    name: Cow<'a, [u8]>,
    /// Name, decoded and nothing else.
    spelled: Cow<'a, [u8]>,
    /// Decoded value.
    pub value: Cow<'a, [u8]>,
}

impl<'a> Query<'a> {
    /// Reads a query string, without its question mark.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let parts = text.split('&').filter(|raw| !raw.is_empty());
        Self { text, parameters: parts.map(Parameter::parse).collect() }
    }

    /// Returns the query string as it was sent.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the parameters, in order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter<'a>] {
        &self.parameters
    }

    /// Returns the parameters that an upstream could read under a name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Parameter<'a>> {
        self.parameters.iter().filter(move |parameter| parameter.is(name))
    }

    /// Reports whether an upstream that takes `;` for a separator, too, would find a parameter of a
    /// name where others see part of a value.
    #[must_use]
    pub fn is_behind_semicolon(&self, name: &str) -> bool {
        let hidden = self.text.split('&').flat_map(|raw| raw.split(';').skip(1));
        self.text.contains(';') && hidden.map(Parameter::parse).any(|parameter| parameter.is(name))
    }

    /// Returns the query string without some parameters and with some changes, the rest byte for
    /// byte.
    pub fn rewritten(
        &self,
        removed: impl Fn(&Parameter<'_>) -> bool,
        rewrites: &[Rewrite],
    ) -> String {
        let mut parameters = self.parameters.iter();
        let mut parts: Vec<Cow<'_, str>> = Vec::with_capacity(self.parameters.len());
        for raw in self.text.split('&') {
            // An empty part is no parameter.
            let parameter = if raw.is_empty() { None } else { parameters.next() };
            if parameter.is_some_and(&removed) {
                continue;
            }
            let replaced = rewrites.iter().find_map(|rewrite| match rewrite {
                Rewrite::Replace { name, value } if parameter?.is(name) => {
                    Some(Cow::Owned(encoded(name, value)))
                }
                Rewrite::Add { .. } | Rewrite::Replace { .. } => None,
            });
            parts.push(replaced.unwrap_or(Cow::Borrowed(raw)));
        }
        if rewrites.iter().any(|rewrite| matches!(rewrite, Rewrite::Add { .. })) {
            parts.retain(|part| !part.is_empty());
        }
        for rewrite in rewrites {
            if let Rewrite::Add { name, value } = rewrite {
                parts.push(Cow::Owned(encoded(name, value)));
            }
        }
        parts.join("&")
    }
}

impl<'a> Parameter<'a> {
    fn parse(raw: &'a str) -> Self {
        let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
        let spelled = decode(name);
        Self { raw, name: fold(spelled.clone()), spelled, value: decode(value) }
    }

    /// Reports whether an upstream could read the parameter under a name.
    ///
    /// PHP reads `a.b`, `a b` and `a[b` as `a_b` and `a[x]` as `a`, skips leading blanks, and ends a
    /// name at a zero byte; so `content_type[]`, `content_type[0]` and `auth.token` all count.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        *self.name == *name.as_bytes()
    }

    /// The same for an upstream to which capitals are no other letters.
    #[must_use]
    pub fn is_like(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Reports whether every upstream reads the parameter under a name: it is spelled just so.
    #[must_use]
    pub fn is_plainly(&self, name: &str) -> bool {
        *self.spelled == *name.as_bytes()
    }

    /// Reports whether every upstream decodes the value alike: each percent sign is followed by two
    /// hexadecimal digits.
    #[must_use]
    pub fn is_cleanly_encoded(&self) -> bool {
        self.raw.split('%').skip(1).all(|after| {
            let digits = after.as_bytes().first_chunk::<2>();
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        })
    }

    /// Reports whether every upstream that knows lists reads the parameter as a name's value or one
    /// of its values: `name`, `name[]` or `name[0]`.
    #[must_use]
    pub fn is_plainly_listed(&self, name: &str) -> bool {
        let Some(rest) = self.spelled.strip_prefix(name.as_bytes()) else {
            return false;
        };
        match rest {
            [] => true,
            [b'[', index @ .., b']'] => index.len() <= 4 && index.iter().all(u8::is_ascii_digit),
            _ => false,
        }
    }
}

/// Returns a parameter as it stands in a query string.
fn encoded(name: &str, value: &str) -> String {
    let [name, value] = [name, value].map(|text| utf8_percent_encode(text, ENCODED));
    format!("{name}={value}")
}

fn fold(name: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    // Nearly all names stay as they are.
    if !name.iter().any(|byte| matches!(byte, 0 | b'[' | b'.') || byte.is_ascii_whitespace()) {
        return name;
    }
    let name = name.trim_ascii_start();
    let mut folded = Vec::with_capacity(name.len());
    let last_closing = name.iter().rposition(|&byte| byte == b']');
    for (index, &byte) in name.iter().enumerate() {
        match byte {
            0 => break,
            b'[' if last_closing.is_some_and(|closing| closing > index) => break,
            b'[' | b'.' | b' ' => folded.push(b'_'),
            _ => folded.push(byte),
        }
    }
    Cow::Owned(folded)
}

/// Decodes `application/x-www-form-urlencoded` text; what encodes nothing stays as it is.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// All but the unreserved characters (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_counts() {
        for raw in [
            "content_type=a",
            "content_type[]=a",
            "content_type[0]=a",
            "content_type%5B%5D=a",
            "content%5ftype=a",
            "content.type=a",
            "content+type[x][y]=a",
            "%20content_type=a",
            "content_type%00x=a",
            "content[type=a",
        ] {
            let query = Query::parse(raw);
            let values: Vec<_> = query.named("content_type").map(|p| p.value.to_vec()).collect();
            assert_eq!(values, [b"a"], "{raw}");
        }
        for raw in ["", "content_types=a", "xcontent_type=a", "Content_Type=a", "=content_type"] {
            assert_eq!(Query::parse(raw).named("content_type").count(), 0, "{raw}");
        }
    }

    #[test]
    fn removal_leaves_the_rest_byte_for_byte() {
        let removed = |parameter: &Parameter<'_>| parameter.is("t");
        for (raw, rest) in [
            ("t=1", ""),
            ("a=%7e&t=1&b=+", "a=%7e&b=+"),
            ("&&t=1&", "&&"),
            ("%74=1&a", "a"),
            ("t", ""),
            ("T=1", "T=1"),
        ] {
            assert_eq!(Query::parse(raw).rewritten(removed, &[]), rest, "{raw}");
        }
    }

    #[test]
    fn rewrites_leave_the_rest_byte_for_byte() {
        let add = |value: &str| Rewrite::Add { name: "t[]".to_owned(), value: value.to_owned() };
        let replace = Rewrite::Replace { name: "hydrate".to_owned(), value: "0".to_owned() };
        for (raw, rewrites, rest) in [
            ("", vec![add("a")], "t%5B%5D=a"),
            ("q=%7e+x&", vec![add("a"), add("ä&")], "q=%7e+x&t%5B%5D=a&t%5B%5D=%C3%A4%26"),
            ("q=%7e&hydrate=2&b", vec![replace.clone()], "q=%7e&hydrate=0&b"),
            ("%68ydrate=2", vec![replace], "hydrate=0"),
            ("&&q", vec![], "&&q"),
        ] {
            assert_eq!(Query::parse(raw).rewritten(|_| false, &rewrites), rest, "{raw}");
        }
    }

    #[test]
    fn parameter_behind_a_semicolon_is_noticed() {
        for (raw, behind) in [
            ("a=1;hydrate=2", true),
            ("a;b;%68ydrate", true),
            ("a=1;hydrate[]=2&c", true),
            ("hydrate=1;a=2", false),
            ("a=1&hydrate=2", false),
            ("a=;hydrated", false),
        ] {
            assert_eq!(Query::parse(raw).is_behind_semicolon("hydrate"), behind, "{raw}");
        }
    }

    #[test]
    fn percent_sign_that_encodes_nothing_is_noticed() {
        for (raw, clean) in
            [("a=%7b%7D", true), ("a", true), ("a=%", false), ("a=%7", false), ("a=%zz", false)]
        {
            let query = Query::parse(raw);
            assert_eq!(query.parameters()[0].is_cleanly_encoded(), clean, "{raw}");
        }
    }
}
