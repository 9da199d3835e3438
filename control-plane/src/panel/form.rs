//! What people fill in: forms, and the queries of pages.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::failure::Failure;
use crate::error::ApiError;

/// The fields of a form, in their order; a name may be there several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`, which every text is.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
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

    /// Reports whether a field is there, such as a box that is ticked or the button that was used.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Returns the numbers of rows such as `rule-0-resource`, in the order of their first field.
    pub(crate) fn rows(&self, prefix: &str) -> Vec<usize> {
        let mut rows = Vec::new();
        for (name, _) in &self.0 {
            let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
            let number = number.and_then(|rest| rest.split('-').next()?.parse().ok());
            if let Some(number) = number
                && !rows.contains(&number)
            {
                rows.push(number);
            }
        }
        rows
    }
}

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
        Ok(Self(Form::parse(parts.uri.query().unwrap_or_default().as_bytes())))
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
            Form::parse(b"rule-2-resource=a&rule-2-action=read&rule-0-resource=b&rule-x-y=1");
        assert_eq!(form.rows("rule"), [2, 0]);
        assert_eq!(form.all("rule-2-action").collect::<Vec<_>>(), ["read"]);
        assert_eq!(Form::parse(b"note=one%0D%0Atwo").lines("note").unwrap(), "one\ntwo");
        assert_eq!(encode("a b/c+d?\u{e4}"), "a%20b%2Fc%2Bd%3F%C3%A4");
    }
}
