//! What people fill in: forms, and the queries of pages.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use latchkey_protocol::KeyHash;

use super::failure::Failure;
use crate::error::ApiError;

/// The fields of a form, in their order; a name may be there several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`, which every text is; none if there are too many
    /// fields.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let fields: Vec<_> =
            form_urlencoded::parse(bytes).into_owned().take(MAX_FIELDS + 1).collect();
        (fields.len() <= MAX_FIELDS).then_some(Self(fields))
    }

    /// Returns a field's text without blanks around it; empty if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default().trim()
    }

    /// Returns a field as it was sent: passwords may begin with blanks.
    pub(crate) fn verbatim(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// Returns a field's text, unless it is empty.
    pub(crate) fn filled(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Returns a field's lines as browsers send them, with line feeds only; none if it is empty.
    pub(crate) fn lines(&self, name: &str) -> Option<String> {
        self.filled(name).map(|text| text.replace("\r\n", "\n"))
    }

    /// Returns all values of a name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Returns what a button asks for that adds or takes away a row, if one was used.
    pub(crate) fn reshapes(&self, prefix: &str) -> Option<Reshape> {
        if self.has(&format!("add-{prefix}")) {
            return Some(Reshape::Add);
        }
        self.text(&format!("remove-{prefix}")).parse().ok().map(Reshape::Remove)
    }

    /// Reports whether a field is there, such as a box that is ticked or the button that was used.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Returns the form without some fields.
    pub(crate) fn without(&self, is_left_out: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| !is_left_out(name)).cloned().collect())
    }

    /// Returns about how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| FIELD_BYTES + name.len() + value.len()).sum()
    }

    /// Returns what differs whenever a field does, or where the form is sent to.
    pub(crate) fn fingerprint(&self, path: &str) -> KeyHash {
        KeyHash::of(format!("{path} {:?}", self.0).as_bytes())
    }

    /// Returns the numbers of rows such as `rule-0-resource`, in the order of their first field.
    pub(crate) fn rows(&self, prefix: &str) -> Vec<usize> {
        let mut rows = Vec::new();
        for (name, _) in &self.0 {
            let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
            let number = number.and_then(|rest| rest.split('-').next()?.parse().ok());
            if let Some(number) = number
                && !rows.contains(&number)
                && rows.len() < MAX_ROWS
            {
                rows.push(number);
            }
        }
        rows
    }
}

/// A row more or less.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reshape {
    Add,
    /// The one with this number.
    Remove(usize),
}

impl Reshape {
    /// Adds a row with a number of its own, or takes one away.
    pub(crate) fn apply<T>(
        self,
        rows: &mut Vec<T>,
        number: impl Fn(&T) -> usize,
        blank: impl FnOnce(usize) -> T,
    ) {
        match self {
            Self::Add => {
                let highest = rows.iter().map(&number).max();
                rows.push(blank(highest.map_or(0, |highest| highest.saturating_add(1))));
            }
            Self::Remove(gone) => rows.retain(|row| number(row) != gone),
        }
    }
}

/// What a field takes beside its texts.
const FIELD_BYTES: usize = size_of::<(String, String)>();

/// A key with the most rules that it can have, each with all actions, has fewer.
const MAX_FIELDS: usize = 6_000;

/// One more than any list can have, so that too many are told.
const MAX_ROWS: usize = 501;

/// The guard has read it already.
impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(|| ApiError::Panicked.into())
    }
}

/// What the query of a page says.
#[derive(Debug)]
pub(crate) struct Asked(pub(crate) Form);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(Form::parse(query.as_bytes()).ok_or(ApiError::TooLarge)?))
    }
}

/// Returns a text as it may stand in a query or in a segment of a path.
pub(crate) fn encode(text: &str) -> String {
    // A plus is a blank in queries only.
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_their_numbers() {
        let form =
            Form::parse(b"rule-2-resource=a&rule-2-action=read&rule-0-resource=b&rule-x-y=1")
                .unwrap();
        assert_eq!(form.rows("rule"), [2, 0]);
        assert_eq!(form.all("rule-2-action").collect::<Vec<_>>(), ["read"]);
        assert_eq!(Form::parse(b"note=one%0D%0Atwo").unwrap().lines("note").unwrap(), "one\ntwo");
        assert!(Form::parse("a&".repeat(MAX_FIELDS + 1).as_bytes()).is_none());
        assert_eq!(encode("a b/c+d?\u{e4}"), "a%20b%2Fc%2Bd%3F%C3%A4");
    }
}
