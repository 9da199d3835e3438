//! The files that pages load: a style sheet, a script and a picture, all within the program.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use latchkey_protocol::KeyHash;

use super::failure::Failure;
use crate::error::ApiError;

/// Name, type and content.
const FILES: [(&str, &str, &str); 3] = [
    ("panel.css", "text/css; charset=utf-8", include_str!("../../assets/panel.css")),
    ("panel.js", "text/javascript; charset=utf-8", include_str!("../../assets/panel.js")),
    ("favicon.svg", "image/svg+xml", include_str!("../../assets/favicon.svg")),
];

/// Changes with the files, so that browsers can keep them until then.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: String = FILES.iter().map(|(_, _, content)| *content).collect();
    let hash = KeyHash::of(all.as_bytes());
    crate::token::hex(&hash.as_bytes()[..6])
});

pub(super) async fn get(Path(name): Path<String>) -> Result<Response, Failure> {
    let found = FILES.iter().find(|(file, _, _)| *file == name);
    let (_, content_type, content) = found.ok_or(ApiError::NoSuchPath)?;
    let headers = [
        (header::CONTENT_TYPE, *content_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, *content).into_response())
}
