//! The audit log: filtered, a page at a time, and as CSV.

use askama::Template;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::failure::Failure;
use super::form::{Asked, Form, encode};
use super::frame::{self, Frame};
use super::markup;
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::audit::{AuditEntry, AuditFilter, search};
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/audit.html")]
struct AuditPage {
    frame: Frame,
    rows: Vec<Row>,
    /// Path of this page.
    path: String,
    /// The filter, as a query.
    query: String,
    actor: String,
    action: String,
    subject: String,
    since: String,
    until: String,
    /// Number of the last entry shown, if there are older ones.
    before: Option<i64>,
}

struct Row {
    entry: AuditEntry,
    /// The details, for reading.
    details: String,
}

/// What can be chosen: the beginning of an action, and what people read.
const ACTIONS: [(&str, &str); 10] = [
    ("", "everything"),
    ("key.", "keys"),
    ("key.reveal", "tokens shown"),
    ("resource.", "content types"),
    ("member.", "members"),
    ("account.", "accounts"),
    ("plan.", "plans"),
    ("person.", "people"),
    ("operator.", "operators"),
    ("link.", "links that were used or withdrawn"),
];

/// Shows the log: of the account that the path names, or else all of it.
pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let path = match &visitor.membership {
        Some((account, _)) => format!("/accounts/{}/audit", account.id),
        None => "/audit".to_owned(),
    };
    let filter = filter(&visitor, &asked)?;
    let before = asked.text("before").parse().ok();
    let mut entries =
        app.store.read(move |db| search(db, &filter, before, ENTRIES_PER_PAGE + 1)).await?;
    let has_more = entries.len() > ENTRIES_PER_PAGE;
    entries.truncate(ENTRIES_PER_PAGE);
    let before = entries.last().filter(|_| has_more).map(|entry| entry.id);
    let rows = entries.into_iter().map(|entry| Row { details: shown(&entry.details), entry });
    let rows = rows.collect();
    let fields = ["actor", "action", "subject", "since", "until"];
    let query: Vec<String> =
        fields.iter().map(|field| format!("{field}={}", encode(asked.text(field)))).collect();
    let text = |field: &str| asked.text(field).to_owned();
    Ok(frame::html(&AuditPage {
        frame: Frame::new(visitor, "audit", "Audit log"),
        rows,
        path,
        query: query.join("&"),
        actor: text("actor"),
        action: text("action"),
        subject: text("subject"),
        since: text("since"),
        until: text("until"),
        before,
    }))
}

/// Returns details for reading, as much as a screen takes.
fn shown(details: &serde_json::Value) -> String {
    let text = serde_json::to_string_pretty(details).unwrap_or_default();
    match text.char_indices().nth(MAX_DETAILS_CHARS) {
        Some((end, _)) => format!("{}\n… the rest is in the CSV", &text[..end]),
        None => text,
    }
}

/// Returns the same as CSV.
pub(super) async fn csv(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let filter = filter(&visitor, &asked)?;
    let entries = app.store.read(move |db| search(db, &filter, None, MAX_CSV_ENTRIES)).await?;
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let written = (|| {
        writer.write_record(["at", "who", "from", "account", "what", "to_what", "details"])?;
        for entry in entries {
            let details = entry.details.to_string();
            let account = entry.account.unwrap_or_default();
            let fields = [
                entry.at.rfc3339(),
                entry.actor,
                entry.from,
                account,
                entry.action,
                entry.subject,
                details,
            ];
            writer.write_record(fields.map(inert))?;
        }
        ::csv::Result::Ok(())
    })();
    let (Ok(()), Ok(bytes)) = (written, writer.into_inner()) else {
        return Err(ApiError::Panicked.into());
    };
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"audit.csv\""),
    ];
    Ok((headers, bytes).into_response())
}

/// Returns a text that no spreadsheet takes for a formula.
fn inert(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

fn filter(visitor: &Visitor, asked: &Form) -> Result<AuditFilter, ApiError> {
    let day = |field: &str| -> Result<Option<i64>, ApiError> {
        let Some(text) = asked.filled(field) else {
            return Ok(None);
        };
        let time: Result<Time, _> = serde_json::from_value(format!("{text}T00:00:00Z").into());
        match time {
            Ok(time) => Ok(Some(time.as_ms())),
            Err(_) => {
                let message = format!("expected a day such as `2026-12-31`, found `{text}`");
                Err(ApiError::field(field, message))
            }
        }
    };
    Ok(AuditFilter {
        since_account: visitor.membership.is_some(),
        account: visitor.membership.as_ref().map(|(account, _)| account.id.clone()),
        actor: asked.filled("actor"),
        action: asked.filled("action"),
        subject: asked.filled("subject"),
        since_ms: day("since")?,
        // The whole day counts.
        until_ms: day("until")?.map(|ms| ms.saturating_add(86_400_000)),
    })
}

/// Two screens.
const ENTRIES_PER_PAGE: usize = 100;

/// Months of a busy service; more are asked for by day.
const MAX_CSV_ENTRIES: usize = 20_000;

/// Characters of details that are read on a screen; the rest is in the CSV.
const MAX_DETAILS_CHARS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_csv_is_a_formula() {
        for (text, written) in [("=1+1", "'=1+1"), ("@x", "'@x"), ("key.create", "key.create")] {
            assert_eq!(inert(text.to_owned()), written);
        }
    }
}
