//! Failures as pages.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::frame;
use super::markup::{self, Markup};
use crate::error::ApiError;
use crate::store::StoreError;

/// Why a page is not shown, or something on it not done.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) ApiError);

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

#[derive(Template)]
#[template(path = "panel/failure.html")]
struct FailurePage {
    status: u16,
    title: &'static str,
    message: Markup,
    advice: &'static str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let (title, advice) = match status {
            StatusCode::FORBIDDEN => {
                ("Not allowed", "Ask an owner of the account, or an operator.")
            }
            StatusCode::NOT_FOUND => {
                ("Not found", "It may have been removed, or it belongs to an account of others.")
            }
            StatusCode::CONFLICT => ("That is not possible now", "Nothing was changed."),
            StatusCode::BAD_REQUEST => ("That cannot be taken", "Nothing was changed."),
            StatusCode::TOO_MANY_REQUESTS => {
                ("Too many attempts", "Wait a little, then try again.")
            }
            StatusCode::PAYLOAD_TOO_LARGE => ("Too large", "Nothing was changed."),
            _ if status.is_server_error() => {
                ("Something went wrong", "Nothing was changed. The service's log says why.")
            }
            _ => ("That did not work", "Go back, and try again."),
        };
        let retry_after = match self.0 {
            ApiError::Throttled { retry_after_seconds } => Some(retry_after_seconds),
            _ => None,
        };
        let page = FailurePage {
            status: status.as_u16(),
            title,
            message: markup::sentence(&self.0.told()),
            advice,
        };
        let mut response = (status, frame::html(&page)).into_response();
        frame::protect(response.headers_mut());
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Returns what is wrong with the fields of a form, or the failure where the form is not to blame.
///
/// # Errors
///
/// The failure.
pub(crate) fn form_errors(error: ApiError) -> Result<Errors, Failure> {
    match error {
        ApiError::Fields(errors) => {
            Ok(Errors(errors.into_iter().map(|error| (error.field, error.message)).collect()))
        }
        ApiError::Store(StoreError::Field { field, message }) => {
            Ok(Errors(vec![(field.to_owned(), message)]))
        }
        ApiError::Store(StoreError::Conflict(message)) => {
            Ok(Errors(vec![(String::new(), message)]))
        }
        other => Err(Failure(other)),
    }
}

/// What is wrong with the fields of a form; what concerns no field has an empty name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors(pub(crate) Vec<(String, String)>);

impl Errors {
    /// Reports whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what is wrong with a field.
    pub(crate) fn add(&mut self, field: &str, message: &str) {
        self.0.push((field.to_owned(), message.to_owned()));
    }

    /// Returns what is wrong with a field itself.
    pub(crate) fn exactly(&self, field: &str) -> Vec<&str> {
        self.such(|name| name == field)
    }

    /// Returns the attributes of a field that tell of what is wrong with it, and where that is said.
    pub(crate) fn mark(&self, field: &str, id: &str) -> Markup {
        if self.of(field).is_empty() { Markup::none() } else { markup::invalid(id, "") }
    }

    /// Returns the attributes of a field that is described by another element as well.
    pub(crate) fn mark_beside(&self, field: &str, id: &str, other: &str) -> Markup {
        if self.of(field).is_empty() {
            markup::described(other)
        } else {
            markup::invalid(id, other)
        }
    }

    /// Returns what is wrong with a field, as it stands beside the field.
    pub(crate) fn said(&self, field: &str, id: &str) -> Markup {
        markup::errors(id, &self.of(field))
    }

    /// Returns what is wrong inside something, with the names that fields have there.
    pub(crate) fn inside(&self, outer: &str) -> Self {
        let inner = self.0.iter().filter_map(|(name, message)| {
            let rest = name.strip_prefix(outer)?;
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            Some((rest.to_owned(), message.clone()))
        });
        Self(inner.collect())
    }

    /// Returns what is wrong with a field, and with what is inside it.
    pub(crate) fn of(&self, field: &str) -> Vec<&str> {
        self.such(|name| is_inside(name, field))
    }

    /// Returns what is wrong and concerns none of the fields that the form shows.
    pub(crate) fn besides(&self, fields: &[&str]) -> Vec<String> {
        let is_shown = |name: &str| fields.iter().any(|field| is_inside(name, field));
        let others = self.0.iter().filter(|(name, _)| !is_shown(name));
        others
            .map(|(name, message)| match name.as_str() {
                "" => message.clone(),
                name => format!("{name}: {message}"),
            })
            .collect()
    }

    fn such(&self, is_meant: impl Fn(&str) -> bool) -> Vec<&str> {
        let meant = self.0.iter().filter(|(name, _)| !name.is_empty() && is_meant(name));
        meant.map(|(_, message)| message.as_str()).collect()
    }
}

/// Reports whether a name is a field's, or that of something inside it.
fn is_inside(name: &str, field: &str) -> bool {
    name.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
