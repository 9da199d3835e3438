//! Errors of the API: problem details (RFC 9457). The only file with status codes of failures.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::StoreError;

/// What went wrong, for the caller.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the title is the status's own.
    #[serde(rename = "type")]
    #[schema(examples("about:blank"))]
    kind: &'static str,
    #[schema(examples("Bad Request"))]
    title: String,
    #[schema(examples(400))]
    status: u16,
    /// What happened, in a sentence.
    detail: String,
    /// The fields that cannot be taken as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// The field, such as `rules[0].actions[1]`.
    #[schema(examples("rules[0].actions[1]"))]
    pub(crate) field: String,
    /// What was expected and what was found.
    pub(crate) message: String,
}

/// Why a request to the API is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the request cannot be taken as it is")]
    Fields(Vec<FieldError>),
    /// With what it takes.
    #[error("{0}")]
    Forbidden(String),
    #[error(
        "the form did not come from this panel, or from a session that has ended; open the page again"
    )]
    Forged,
    #[error("{0}")]
    Malformed(String),
    #[error("this `Idempotency-Key` was given to another request within a day")]
    NameTaken,
    #[error("this method is not allowed here")]
    MethodNotAllowed,
    #[error("there is nothing at this path")]
    NoSuchPath,
    #[error("there were too many attempts; the next one is possible in {retry_after_seconds} s")]
    Throttled {
        /// When to try again, in seconds.
        retry_after_seconds: u64,
    },
    #[error("the request did not come in time")]
    TimedOut,
    #[error("the body is larger than is allowed")]
    TooLarge,
    #[error("the store does not answer")]
    NotReady,
    #[error("the control plane failed")]
    Panicked,
    #[error("{expected}")]
    Unauthenticated {
        /// What was expected.
        expected: &'static str,
        /// Whether anything was sent.
        is_sent: bool,
    },
    #[error("expected `Content-Type: application/json`")]
    UnsupportedType,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiError {
    /// Returns the error that a request was made before, and its answer is not there.
    pub(crate) fn answer_lost() -> Self {
        Self::Store(StoreError::Conflict(
            "a request with this `Idempotency-Key` is being worked on, or was made and its answer was lost; \
             look at what there is"
                .to_owned(),
        ))
    }

    /// Returns the error that one field cannot be taken as it is.
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Fields(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Fields(_) | Self::Malformed(_) | Self::Store(StoreError::Field { .. }) => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::Forged => StatusCode::FORBIDDEN,
            Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NameTaken => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::NoSuchPath | Self::Store(StoreError::NotFound { .. }) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Store(StoreError::Conflict(_)) => StatusCode::CONFLICT,
            Self::Store(StoreError::Outdated) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotReady | Self::Store(StoreError::Unwritable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Panicked
            | Self::Store(
                StoreError::Abandoned(_)
                | StoreError::File(_)
                | StoreError::Hash
                | StoreError::Json(_)
                | StoreError::LedgerClosed
                | StoreError::LedgerFailed
                | StoreError::Migration(_)
                | StoreError::Sqlite(_)
                | StoreError::Subject(_),
            ) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns what the caller is told, and logs what only operators are.
    pub(crate) fn told(&self) -> String {
        match self.errors().first() {
            Some(FieldError { field, message }) => format!("`{field}`: {message}"),
            None if matches!(self, Self::Store(StoreError::Unwritable)) => self.to_string(),
            None if self.status().is_server_error() => {
                let cause = std::error::Error::source(self).map(ToString::to_string);
                tracing::error!(error = %self, cause, "a request failed");
                "the control plane could not do this; its log says why".to_owned()
            }
            None => self.to_string(),
        }
    }

    fn errors(&self) -> Vec<FieldError> {
        match self {
            Self::Fields(errors) => errors.clone(),
            Self::Store(StoreError::Field { field, message }) => {
                vec![FieldError { field: (*field).to_owned(), message: message.clone() }]
            }
            Self::Forbidden(_)
            | Self::Forged
            | Self::Malformed(_)
            | Self::MethodNotAllowed
            | Self::NameTaken
            | Self::NoSuchPath
            | Self::NotReady
            | Self::Panicked
            | Self::Store(_)
            | Self::Throttled { .. }
            | Self::TimedOut
            | Self::TooLarge
            | Self::Unauthenticated { .. }
            | Self::UnsupportedType => Vec::new(),
        }
    }
}

/// Statuses of errors, with what they mean, for the API's description.
pub(crate) struct StatusCodes;

impl StatusCodes {
    pub(crate) const INVALID: (u16, &str) = (400, "A field cannot be taken as it is.");
    pub(crate) const UNAUTHENTICATED: (u16, &str) = (401, "The operator token is absent or wrong.");
    pub(crate) const CONFLICT: (u16, &str) = (409, "It is at odds with what there is.");
    pub(crate) const OUTDATED: (u16, &str) = (412, "The record is not as `If-Match` says.");
    pub(crate) const THROTTLED: (u16, &str) =
        (429, "There were too many calls with a wrong token.");
    pub(crate) const UNAVAILABLE: (u16, &str) = (503, "The store cannot be written or read.");
    pub(crate) const NAME_TAKEN: (u16, &str) =
        (422, "The `Idempotency-Key` was given to another request.");
    /// Of operations that take a body.
    pub(crate) const OF_BODIES: [(u16, &str); 3] = [
        (408, "The body did not come in time."),
        (413, "The body is larger than is allowed."),
        (415, "The body is not JSON."),
    ];
    /// Of operations that say so.
    pub(crate) const DECLARED: [(u16, &str); 3] =
        [Self::INVALID, (404, "There is no such record."), Self::CONFLICT];
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let errors = self.errors();
        let is_invalid = matches!(self, Self::Unauthenticated { is_sent: true, .. });
        let retry_after_seconds = match self {
            Self::Throttled { retry_after_seconds } => Some(retry_after_seconds),
            _ => None,
        };
        let detail = self.told();
        let problem = Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail,
            errors,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static(if is_invalid {
                "Bearer realm=\"latchkey\", error=\"invalid_token\""
            } else {
                "Bearer realm=\"latchkey\""
            });
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
