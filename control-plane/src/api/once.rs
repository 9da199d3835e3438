//! Requests that are made once, however often they are sent: `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! That a request was made is kept with what it changes; its answer is kept afterwards, for a day. It may hold
//! a token, so it is encrypted with what only the client knows: its credential and the name that it gave to
//! the request.

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use latchkey_protocol::KeyHash;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::error::ApiError;
use crate::store::answers::{self, Once};
use crate::time::Time;
use crate::token;

/// An answer, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Gives a request that was made before the same answer; others go on.
pub(crate) async fn once(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let path = request.extensions().get().map(MatchedPath::as_str);
    let is_made_once =
        request.method() == Method::POST && path.is_some_and(|it| PATHS.contains(&it));
    let Some(given) = request.headers().get(NAME).filter(|_| is_made_once) else {
        return Ok(next.run(request).await);
    };
    let is_name = |text: &&str| {
        (1..=MAX_NAME_CHARS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let given = given.to_str().ok().filter(is_name);
    let Some(given) = given.map(str::to_owned) else {
        let message = format!("expected 1 to {MAX_NAME_CHARS} visible ASCII characters");
        return Err(ApiError::field("Idempotency-Key", message));
    };
    let credential = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let secret = Secret::of(credential.unwrap_or_default(), &given);
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| ApiError::TooLarge)?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let said = [parts.method.as_str().as_bytes(), target.as_bytes(), &body].join(&b'\n');
    let once = Once { name: secret.name(), content: KeyHash::of(&said) };

    let now_ms = Time::now().as_ms();
    let before = app.store.read(move |db| answers::find(db, &once.name, now_ms)).await?;
    if let Some(before) = before {
        if before.content != once.content {
            return Err(ApiError::NameTaken);
        }
        let kept = before.answer.and_then(|sealed| secret.open(&sealed));
        return kept.map(Kept::into_response).ok_or_else(ApiError::answer_lost);
    }
    parts.extensions.insert(once);
    // By itself, so that the answer is kept even if the client goes away: it will ask again.
    let work = tokio::spawn(async move {
        let answered = next.run(Request::from_parts(parts, Body::from(body))).await;
        let is_done = answered.status().is_success();
        if is_done { keep(&app, &secret, answered).await } else { Ok(answered) }
    });
    work.await.unwrap_or(Err(ApiError::Panicked))
}

/// Keeps an answer, and gives it.
async fn keep(app: &App, secret: &Secret, answered: Response) -> Result<Response, ApiError> {
    let (parts, body) = answered.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| ApiError::Panicked)?;
    let kept = Kept {
        status: parts.status.as_u16(),
        headers: [CONTENT_TYPE, ETAG, LOCATION]
            .iter()
            .filter_map(|name| Some((name.to_string(), text(&parts.headers, name)?)))
            .collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    if let Some(sealed) = secret.seal(&kept) {
        let name = secret.name();
        // What was asked for is done: that its answer is not kept is no reason to say otherwise.
        if let Err(error) = app.store.write(move |db| answers::keep(db, &name, &sealed)).await {
            tracing::warn!(%error, "an answer could not be kept for when its request comes again");
        }
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

impl Kept {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        }
        let no_store = HeaderValue::from_static("no-store");
        headers.insert(axum::http::header::CACHE_CONTROL, no_store);
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

/// What the client knows: its credential and the name of its request.
struct Secret(KeyHash);

impl Secret {
    fn of(credential: &[u8], name: &str) -> Self {
        Self(KeyHash::of(&[credential, name.as_bytes()].join(&b'\n')))
    }

    /// Returns by what the request is known, from which the secret cannot be told.
    fn name(&self) -> KeyHash {
        KeyHash::of(&[b"name ", self.0.as_bytes().as_slice()].concat())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        let key = KeyHash::of(&[b"key ", self.0.as_bytes().as_slice()].concat());
        XChaCha20Poly1305::new(key.as_bytes().into())
    }

    fn seal(&self, kept: &Kept) -> Option<Vec<u8>> {
        let nonce = token::random_bytes::<NONCE_BYTES>();
        let json = serde_json::to_vec(kept).ok()?;
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), json.as_slice()).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Kept> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let json = self.cipher().decrypt(&XNonce::from(*nonce), sealed).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

/// Where something is made with each request.
const PATHS: [&str; 4] = [
    "/api/v1/accounts",
    "/api/v1/accounts/{account}/keys",
    "/api/v1/accounts/{account}/keys/{key}/regenerate",
    "/api/v1/links",
];

const NAME: HeaderName = HeaderName::from_static("idempotency-key");

/// Tells an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Room for any identifier.
const MAX_NAME_CHARS: usize = 255;

/// The largest body that the API takes.
const MAX_BODY_BYTES: usize = 2 << 20;

/// Length of a nonce of `XChaCha20`, long enough to be drawn at random.
const NONCE_BYTES: usize = 24;
