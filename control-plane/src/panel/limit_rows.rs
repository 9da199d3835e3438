//! Limits as rows of a form.

use latchkey_protocol::{Identity, Limit};

use super::failure::Errors;
use super::form::Form;
use super::markup::{self, Markup};
use crate::api::fields::Fields;

/// A limit as a row of a form.
#[derive(Clone, Debug)]
pub(super) struct LimitRow {
    /// Number in the names of its fields.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) amount: String,
    pub(super) buckets: String,
    /// Length of a bucket, in seconds.
    pub(super) bucket_seconds: String,
    /// Name of the identity whose calls count; all if empty.
    pub(super) identity: String,
    /// What is wrong with its fields, by their names in the form.
    errors: Errors,
}

/// What a bucket can be chosen to last: seconds and name.
pub(super) const UNITS: [(&str, &str); 4] =
    [("1", "seconds"), ("60", "minutes"), ("3600", "hours"), ("86400", "days")];

/// Whose calls can be chosen to count: name and what people read.
pub(super) const IDENTITIES: [(&str, &str); 4] = [
    ("", "all calls of the account"),
    ("key", "calls with API keys"),
    ("oauth", "calls with OAuth tokens"),
    ("anonymous", "calls without a token, by address"),
];

impl LimitRow {
    /// Returns the row that nothing is filled into.
    pub(super) fn blank(number: usize) -> Self {
        Self {
            number,
            name: String::new(),
            amount: String::new(),
            buckets: "30".to_owned(),
            bucket_seconds: "86400".to_owned(),
            identity: String::new(),
            errors: Errors::default(),
        }
    }

    /// Returns the row of a limit.
    pub(super) fn of(number: usize, limit: &Limit) -> Self {
        Self {
            number,
            name: limit.name.clone(),
            amount: limit.amount.to_string(),
            buckets: limit.buckets.to_string(),
            bucket_seconds: limit.bucket_seconds.to_string(),
            identity: limit.identity.map_or("", identity_name).to_owned(),
            errors: Errors::default(),
        }
    }

    /// Reports whether the bucket's length is none that has a name.
    pub(super) fn has_other_unit(&self) -> bool {
        UNITS.iter().all(|(seconds, _)| *seconds != self.bucket_seconds)
    }

    /// Returns the attributes of a field that tell of what is wrong with it.
    pub(super) fn mark(&self, field: &str) -> Markup {
        self.errors.mark(field, &format!("limit-{}-{field}", self.number))
    }

    /// Returns what is wrong with a field.
    pub(super) fn said(&self, field: &str) -> Markup {
        self.errors.said(field, &format!("limit-{}-{field}", self.number))
    }

    fn is_blank(&self) -> bool {
        self.name.is_empty() && self.amount.is_empty()
    }

    fn limit(&self, index: usize, fields: &mut Fields) -> Limit {
        let mut number = |field: &str, text: &str| {
            text.replace([',', ' ', '_'], "").parse().unwrap_or_else(|_| {
                let message = format!("expected a whole number, found `{text}`");
                fields.add(&format!("limits[{index}].{field}"), message);
                1
            })
        };
        let amount = number("amount", &self.amount);
        let mut small =
            |field: &str, text: &str| u32::try_from(number(field, text)).unwrap_or(u32::MAX);
        Limit {
            name: self.name.clone(),
            amount,
            bucket_seconds: small("bucket_seconds", &self.bucket_seconds),
            buckets: small("buckets", &self.buckets),
            identity: serde_json::from_value(self.identity.as_str().into()).ok(),
            generation: 0,
        }
    }
}

/// Returns in words which of the limits that there are a form leaves out, unless the form says that this is
/// meant.
pub(super) fn unasked_drops(before: &[Limit], rows: &[LimitRow], form: &Form) -> Option<String> {
    let is_left_out = |limit: &&Limit| rows.iter().all(|row| row.name != limit.name);
    let dropped: Vec<String> = before
        .iter()
        .filter(is_left_out)
        .map(|limit| {
            let window = markup::duration(limit.window().seconds());
            format!("the limit “{}” ({} in {window})", limit.name, markup::number(&limit.amount))
        })
        .collect();
    let dropped = dropped.join(" and ");
    (!dropped.is_empty() && form.text("drops") != dropped).then_some(dropped)
}

const fn identity_name(identity: Identity) -> &'static str {
    match identity {
        Identity::Anonymous => "anonymous",
        Identity::Key => "key",
        Identity::Oauth => "oauth",
    }
}

/// Reads the rows of a form, those that nothing was filled into left out.
pub(super) fn read(form: &Form) -> Vec<LimitRow> {
    let rows = form.rows("limit").into_iter().map(|number| {
        let text = |field: &str| form.text(&format!("limit-{number}-{field}")).to_owned();
        LimitRow {
            number,
            name: text("name"),
            amount: text("amount"),
            buckets: text("buckets"),
            bucket_seconds: text("unit"),
            identity: text("identity"),
            errors: Errors::default(),
        }
    });
    rows.filter(|row| !row.is_blank()).collect()
}

/// Returns the limits of rows; notes what is no number.
pub(super) fn limits(rows: &[LimitRow], fields: &mut Fields) -> Vec<Limit> {
    rows.iter().enumerate().map(|(index, row)| row.limit(index, fields)).collect()
}

/// Puts beside each row what is wrong with it.
pub(super) fn put_errors(rows: &mut [LimitRow], errors: &Errors) {
    for (index, row) in rows.iter_mut().enumerate() {
        row.errors = errors.inside(&format!("limits[{index}]"));
        for (name, _) in &mut row.errors.0 {
            if name == "bucket_seconds" {
                "unit".clone_into(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan used to lose its limit of 30 days by a slip, and nothing was asked.
    #[test]
    fn limit_goes_only_if_that_was_asked() {
        let limit = Limit {
            name: "calls".to_owned(),
            amount: 1_000_000,
            bucket_seconds: 86_400,
            buckets: 30,
            identity: None,
            generation: 0,
        };
        let asked = "the limit “calls” (1,000,000 in 30 days)";
        let drops = |sent: &str, rows: &[LimitRow]| {
            let form = Form::parse(sent.as_bytes()).unwrap();
            unasked_drops(std::slice::from_ref(&limit), rows, &form)
        };
        assert_eq!(drops("", &[LimitRow::of(0, &limit)]), None);
        assert_eq!(drops("", &[]).as_deref(), Some(asked));
        assert_eq!(drops("drops=something+else", &[]).as_deref(), Some(asked));
        let sent =
            form_urlencoded::Serializer::new(String::new()).append_pair("drops", asked).finish();
        assert_eq!(drops(&sent, &[]), None);
    }
}
