//! What the gateway would make of a request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use latchkey_filter::profile::Profile;
use latchkey_protocol::{KeyHash, PlainToken};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::extract::{Body, present};
use super::fields::Fields;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::explain::{self, Explanation, Question};
use crate::store::accounts::AccountState;
use crate::store::usable_tokens::{TokenRow, token_by_hash, token_of_key};
use crate::store::{KeyState, StoreError, accounts, keys};
use crate::time::Time;
use crate::token;

/// A request to look into.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainRequest {
    /// Id of the account.
    #[schema(examples("acme"))]
    pub(crate) account: String,
    /// Id of the key with which the request is made; or else `token`. With neither, it is made without
    /// a token.
    #[serde(default, deserialize_with = "present")]
    pub(crate) key: Option<String>,
    /// The token with which it is made, if it is not in the path.
    #[serde(default, deserialize_with = "present")]
    pub(crate) token: Option<String>,
    #[schema(examples("GET"))]
    pub(crate) method: String,
    /// The path with its query string.
    #[schema(examples("/api/v1/content/blogposts?hydrate=1"))]
    pub(crate) path: String,
    /// The body: a text is sent as it is, anything else as JSON.
    #[serde(default)]
    pub(crate) body: Value,
    /// Where the client is; if absent, where the key may be used from.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(crate) client_address: Option<IpAddr>,
}

/// Returns what the gateway would make of a request and why: the filter's own code decides. Limits are
/// not looked at, nothing is counted, and nothing is sent to the API.
#[utoipa::path(post, path = "/explain", request_body = ExplainRequest,
    responses((status = 200, body = Explanation), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn explain(
    State(app): State<App>,
    Body(body): Body<ExplainRequest>,
) -> Result<Json<Explanation>, ApiError> {
    Ok(Json(look_into(&app, body).await?))
}

/// Returns what the gateway would make of a request and why.
///
/// # Errors
///
/// With all fields that cannot be taken as they are.
pub(crate) async fn look_into(app: &App, body: ExplainRequest) -> Result<Explanation, ApiError> {
    let mut fields = Fields::default();
    fields.method("method", &body.method);
    fields.text("path", &body.path, MAX_PATH_CHARS);
    for (field, text) in [("key", &body.key), ("token", &body.token)] {
        fields.text(field, text.as_deref().unwrap_or_default(), MAX_TOKEN_CHARS);
    }
    if body.key.is_some() && body.token.is_some() {
        fields.add("token", "expected `key` or `token`, found both");
    }
    fields.finish()?;
    let account = body.account.clone();
    let account = app.store.read(move |db| accounts::get(db, &account)).await?;
    let profile = Arc::clone(app.profile(&account.profile)?);
    let asked = Arc::clone(&profile);
    let now = Time::now();
    let token = body.token.or_else(|| explain::token_in(&profile, &body.path));
    let is_suspended = account.state == AccountState::Suspended;
    let (account, key) = (account.id, body.key);
    let (credential, state) = app
        .store
        .read(move |db| match (key, token) {
            (Some(key), _) => {
                let state = keys::get(db, &account, &key, now.as_ms())?.state;
                let row = token_of_key(db, &asked, &key)?;
                Ok((Some((token::generate(&asked.keys.token), row)), Some(state)))
            }
            (None, Some(token)) => {
                let (row, state) = by_token(db, &asked, &account, &token, now)?;
                Ok((Some((PlainToken::from(token), row)), state))
            }
            (None, None) => Ok((None, None)),
        })
        .await?;
    let body_bytes = match body.body {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes()),
        value => Some(serde_json::to_vec(&value).map_err(StoreError::from)?),
    };
    let question = Question {
        method: body.method,
        path: body.path,
        body: body_bytes,
        client_address: body.client_address.map(|address| address.to_canonical()),
        credential,
        now_ms: now.as_ms().unsigned_abs(),
    };
    let mut explanation = explain::explain(&profile, question);
    if explanation.reason == "unknown_token" {
        explanation.decided_by = match state {
            Some(KeyState::Active) if is_suspended => "the account is suspended".to_owned(),
            Some(KeyState::Suspended) => "the key is suspended".to_owned(),
            Some(KeyState::Revoked) => "the key is revoked".to_owned(),
            Some(KeyState::Expired) => "the key has expired".to_owned(),
            Some(KeyState::Active) => "the token was of this key, and is no longer".to_owned(),
            None => "the token is of no key".to_owned(),
        };
    }
    Ok(explanation)
}

/// Returns what filters know of a token of an account, and the state of its key.
fn by_token(
    db: &Connection,
    profile: &Profile,
    account: &str,
    token: &str,
    now: Time,
) -> Result<(Option<TokenRow>, Option<KeyState>), StoreError> {
    let hash = KeyHash::of(token.as_bytes());
    let Some((owner, key)) = keys::by_hash(db, &hash)? else {
        return Ok((None, None));
    };
    if owner != account {
        let message = format!("expected a token of account `{account}`, found one of another");
        return Err(StoreError::Field { field: "token", message });
    }
    let state = keys::get(db, account, &key, now.as_ms())?.state;
    Ok((token_by_hash(db, profile, &hash)?, Some(state)))
}

/// Longer than any token that is looked up.
const MAX_TOKEN_CHARS: usize = 1_000;

/// Longer than any request line that Envoy takes by default (60 KiB).
const MAX_PATH_CHARS: usize = 65_536;
