//! The query string: its parameters as upstreams may read them, and its text without some of them.

use std::borrow::Cow;

use percent_encoding::percent_decode;

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
    name: Vec<u8>,
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

    /// Returns the query string without some parameters, the rest byte for byte.
    pub fn without(&self, removed: impl Fn(&Parameter<'_>) -> bool) -> String {
        let mut parameters = self.parameters.iter();
        let is_kept = |raw: &&str| {
            // An empty part is no parameter.
            raw.is_empty() || !parameters.next().is_some_and(&removed)
        };
        self.text.split('&').filter(is_kept).collect::<Vec<_>>().join("&")
    }
}

impl<'a> Parameter<'a> {
    fn parse(raw: &'a str) -> Self {
        let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
        let spelled = decode(name);
        Self { raw, name: fold(&spelled), spelled, value: decode(value) }
    }

    /// Reports whether an upstream could read the parameter under a name.
    ///
    /// PHP reads `a.b`, `a b` and `a[b` as `a_b` and `a[x]` as `a`, skips leading blanks, and ends a
    /// name at a zero byte; so `content_type[]`, `content_type[0]` and `auth.token` all count.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// Reports whether every upstream reads the parameter under a name: it is spelled just so.
    #[must_use]
    pub fn is_plainly(&self, name: &str) -> bool {
        *self.spelled == *name.as_bytes()
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

fn fold(name: &[u8]) -> Vec<u8> {
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
    folded
}

/// Decodes `application/x-www-form-urlencoded` text; what encodes nothing stays as it is.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

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
            assert_eq!(Query::parse(raw).without(removed), rest, "{raw}");
        }
    }
}
