//! The query string: its parameters as upstreams may read them, and its text without some of them.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::Rejection;
use super::edits::Rewrite;
use super::spelling::{Spelled, decodings, initial_of};

/// A query string, read once.
#[derive(Debug)]
pub struct Query<'a> {
    text: &'a str,
    parameters: Vec<Parameter<'a>>,
    /// With which letters the names begin that its parameters could have, a bit for each.
    initials: u32,
    /// Names that only some readers find, within other parameters.
    hidden: Vec<Spelled<'static>>,
}

/// One parameter of a query string.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// As it was sent: `name=value`.
    pub raw: &'a str,
    spelled: Spelled<'a>,
    /// Decoded value.
    pub value: Cow<'a, [u8]>,
    /// Whether it goes no further, so that it decides nothing.
    is_removed: bool,
}

impl<'a> Query<'a> {
    /// Reads a query string, without its question mark.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let parts = text.split('&').filter(|raw| !raw.is_empty());
        let parameters: Vec<Parameter<'_>> = parts.map(Parameter::parse).collect();
        let initials = |all, parameter: &Parameter<'_>| all | parameter.spelled.initials();
        let initials = parameters.iter().fold(0, initials);
        Self { text, parameters, initials, hidden: hidden(text) }
    }

    /// Returns the query string as it was sent.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the parameters that go on, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter<'a>> {
        self.parameters.iter().filter(|parameter| !parameter.is_removed)
    }

    /// Takes those parameters out of what decides and is forwarded of which this is true. Returns whether
    /// there is one.
    pub fn remove(&mut self, is_removed: impl Fn(&Parameter<'_>) -> bool) -> bool {
        let mut is_any = false;
        for parameter in &mut self.parameters {
            parameter.is_removed = is_removed(parameter);
            is_any |= parameter.is_removed;
        }
        is_any
    }

    /// Returns the parameters that an upstream could read under a name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Parameter<'a>> {
        // Nearly always there is none, and that is told at once.
        let is_possible = self.initials & initial_of(name) != 0;
        let parameters = if is_possible { self.parameters.as_slice() } else { &[] };
        let goes_on = |parameter: &&Parameter<'a>| !parameter.is_removed;
        parameters.iter().filter(goes_on).filter(move |parameter| parameter.could_be(name))
    }

    /// Reports whether an upstream could find a parameter of a name, be it within another one.
    #[must_use]
    pub fn may_have(&self, name: &str) -> bool {
        self.named(name).next().is_some() || self.hides(name)
    }

    /// Returns the parameters of a name on which a decision depends: every upstream reads them under it.
    ///
    /// # Errors
    ///
    /// [`Rejection::Parameter`] if there is one that only some upstreams would read under it.
    pub fn judged<'q>(
        &'q self,
        name: &'q str,
    ) -> Result<impl Iterator<Item = &'q Parameter<'a>> + use<'a, 'q>, Rejection> {
        if self.hides(name) {
            return Err(Rejection::Parameter(format!("`{name}`: expected it behind `&` only")));
        }
        if self.named(name).any(|parameter| !parameter.is_plainly_listed(name)) {
            return Err(Rejection::Parameter(format!(
                "`{name}`: expected it spelled `{name}`, `{name}[]` or `{name}[0]`"
            )));
        }
        Ok(self.named(name))
    }

    /// Reports whether some upstreams would find a parameter of a name where others see part of another.
    #[must_use]
    pub fn hides(&self, name: &str) -> bool {
        self.hidden.len() > MAX_HIDDEN || self.hidden.iter().any(|hidden| hidden.could_be(name))
    }

    /// Returns the query string without what was removed and with some changes, the rest byte for byte.
    #[must_use]
    pub fn rewritten(&self, rewrites: &[Rewrite]) -> String {
        let mut parameters = self.parameters.iter();
        let mut parts: Vec<Cow<'_, str>> = Vec::with_capacity(self.parameters.len());
        for raw in self.text.split('&') {
            // An empty part is no parameter.
            let parameter = if raw.is_empty() { None } else { parameters.next() };
            if parameter.is_some_and(|parameter| parameter.is_removed) {
                continue;
            }
            let replaced = rewrites.iter().find_map(|rewrite| match rewrite {
                Rewrite::Replace { name, value } if parameter?.could_be(name) => {
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
        Self { raw, spelled: Spelled::new(decode(name)), value: decode(value), is_removed: false }
    }

    /// Reports whether an upstream could read the parameter under a name.
    #[must_use]
    pub fn could_be(&self, name: &str) -> bool {
        self.spelled.could_be(name)
    }

    /// Reports whether some upstreams would find a parameter of a name within this one.
    #[must_use]
    pub fn hides(&self, name: &str) -> bool {
        hidden(self.raw).iter().any(|hidden| hidden.could_be(name))
    }

    /// Reports whether every upstream reads the parameter under a name: it is spelled just so.
    #[must_use]
    pub fn is_plainly(&self, name: &str) -> bool {
        self.spelled.text() == name.as_bytes()
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
        let Some(rest) = self.spelled.text().strip_prefix(name.as_bytes()) else {
            return false;
        };
        match rest {
            [] => true,
            [b'[', index @ .., b']'] => index.len() <= 4 && index.iter().all(u8::is_ascii_digit),
            _ => false,
        }
    }
}

/// Returns the names that a reader could find within parameters: one that takes `;` for a separator,
/// too, or begins at the last `?`, or tells parameters apart only after it has decoded them.
fn hidden(text: &str) -> Vec<Spelled<'static>> {
    // Nearly all query strings have nothing of this kind.
    if !may_hide(text.as_bytes()) {
        return Vec::new();
    }
    let mut hidden = Vec::new();
    let mut add = |name: &[u8]| {
        if !name.is_empty() && hidden.len() <= MAX_HIDDEN {
            hidden.push(Spelled::new(Cow::Owned(name.to_vec())));
        }
    };
    let name_and_value = |part: &[u8]| {
        let mut sides = part.splitn(2, |&byte| byte == b'=');
        (sides.next().unwrap_or_default().to_vec(), sides.next().is_some())
    };
    for raw in text.split('&').filter(|raw| may_hide(raw.as_bytes())) {
        for part in raw.split(';').skip(1) {
            add(&decode(part.split('=').next().unwrap_or_default()));
        }
        // Text for people has question marks and separators, too; a parameter has a value.
        for part in raw.split('?').skip(1) {
            let (name, has_value) = name_and_value(part.as_bytes());
            if has_value {
                add(&name);
            }
        }
        for reading in decodings(raw.as_bytes()).skip(1) {
            for part in reading.split(|byte| matches!(byte, b'&' | b';')).skip(1) {
                let (name, has_value) = name_and_value(part);
                if has_value {
                    add(&name);
                }
            }
        }
    }
    hidden
}

/// Reports whether there is a separator, plain or encoded, or something that is encoded more than once.
fn may_hide(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b';' | b'?' | b'%')) {
        match rest.get(at..).unwrap_or_default() {
            [b'%', b'2', b'5' | b'6', ..]
            | [b'%', b'3', b'b' | b'B', ..]
            | [b'%', b'u' | b'U', ..]
            | [b';' | b'?', ..] => return true,
            [_, after @ ..] => rest = after,
            [] => return false,
        }
    }
    false
}

/// Returns a parameter as it stands in a query string.
fn encoded(name: &str, value: &str) -> String {
    let [name, value] = [name, value].map(|text| utf8_percent_encode(text, ENCODED));
    format!("{name}={value}")
}

/// Decodes `application/x-www-form-urlencoded` text; what encodes nothing stays as it is.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// Most names that are looked at within parameters; where there are more, any name could be among them.
const MAX_HIDDEN: usize = 256;

/// All but the unreserved characters (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(raw: &str, name: &str) -> Option<usize> {
        Query::parse(raw).judged(name).ok().map(Iterator::count)
    }

    #[test]
    fn name_in_another_spelling_cannot_be_judged() {
        for (raw, count) in [
            ("content_type=a", Some(1)),
            ("content_type[]=a&content_type=b", Some(2)),
            ("content_type[12]=a", Some(1)),
            ("content_type%5B%5D=a", Some(1)),
            ("content%5ftype=a", Some(1)),
            ("%63ontent_type=a", Some(1)),
            ("", Some(0)),
            ("content_types=a&xcontent_type=a&=content_type", Some(0)),
            ("content.type=a", None),
            ("content+type[x][y]=a", None),
            ("%20content_type=a", None),
            ("content_type%00x=a", None),
            ("content[type=a", None),
            ("Content_Type=a", None),
            ("contentType", None),
            ("?content_type=a", None),
            ("%63ontent%255ftype=a", None),
            ("content_type=a&CONTENT_TYPE=a", None),
        ] {
            assert_eq!(judged(raw, "content_type"), count, "{raw}");
        }
    }

    #[test]
    fn removal_leaves_the_rest_byte_for_byte() {
        for (raw, rest) in [
            ("t=1", ""),
            ("a=%7e&t=1&b=+", "a=%7e&b=+"),
            ("&&t=1&", "&&"),
            ("%74=1&a", "a"),
            ("t", ""),
            ("T=1", "T=1"),
        ] {
            let mut query = Query::parse(raw);
            let is_removed = query.remove(|parameter| parameter.is_plainly("t"));
            assert_eq!((query.rewritten(&[]).as_str(), is_removed), (rest, raw != rest), "{raw}");
            let decides = query.parameters().any(|parameter| parameter.is_plainly("t"));
            assert!(!decides, "it decides nothing any more");
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
            assert_eq!(Query::parse(raw).rewritten(&rewrites), rest, "{raw}");
        }
    }

    #[test]
    fn parameter_within_another_is_noticed() {
        for (raw, hidden) in [
            ("a=1;hydrate=2", true),
            ("a;b;%68ydrate", true),
            ("a=1;hydrate[]=2&c", true),
            ("a=1?hydrate=2", true),
            ("a=1?Hydrate=2", true),
            ("a=1%26hydrate=2", true),
            ("a=1%2526hydrate%253D2", true),
            ("a=1%3bhydrate=2", true),
            ("a=1%3Fhydrate=2", false),
            ("return=https%3A%2F%2Fx%2F%3Fhydrate%3D1", false),
            ("a=1%2525252526hydrate%3D2", true),
            ("hydrate=1;a=2", false),
            ("a=1&hydrate=2", false),
            ("a=;hydrated", false),
            ("a=is it so? hydrate", false),
            ("a=%26hydrate", false),
        ] {
            assert_eq!(Query::parse(raw).hides("hydrate"), hidden, "{raw}");
        }
    }

    #[test]
    fn percent_sign_that_encodes_nothing_is_noticed() {
        for (raw, clean) in
            [("a=%7b%7D", true), ("a", true), ("a=%", false), ("a=%7", false), ("a=%zz", false)]
        {
            let query = Query::parse(raw);
            assert_eq!(query.parameters[0].is_cleanly_encoded(), clean, "{raw}");
        }
    }
}
