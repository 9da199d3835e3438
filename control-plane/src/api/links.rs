//! One-time links, with which people begin to use the panel.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use latchkey_protocol::KeyHash;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Body, present};
use super::fields::Fields;
use super::records::at;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::links::{self, Purpose};
use crate::store::{Origin, Role, people};
use crate::time::Time;
use crate::token;

/// A link to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateLink {
    purpose: LinkPurpose,
    /// E-mail address of the person; may be absent for an operator, who then chooses it.
    #[serde(default, deserialize_with = "present")]
    #[schema(examples("ada@example.com"))]
    email: Option<String>,
    /// Id of the account that the person becomes a member of.
    #[serde(default, deserialize_with = "present")]
    #[schema(examples("acme"))]
    account: Option<String>,
    /// As what.
    #[serde(default, deserialize_with = "present")]
    role: Option<Role>,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LinkPurpose {
    /// To become a member of an account.
    Member,
    /// To become an operator.
    Operator,
    /// To choose a new password.
    Password,
}

/// A link that was made; its address is in this answer only.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewLink {
    /// Where the person goes; works once.
    #[schema(examples("https://keys.example.com/links/…"))]
    pub(crate) url: String,
    pub(crate) expires_at: Time,
}

/// Makes a one-time link with which a person joins, or chooses a new password.
#[utoipa::path(post, path = "/links", request_body = CreateLink,
    responses((status = 201, body = NewLink), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn create(
    State(app): State<App>,
    origin: Origin,
    Body(body): Body<CreateLink>,
) -> Result<Response, ApiError> {
    let email = body.email.map(|email| normalized(&email));
    let needed = |field: &str| ApiError::field(field, "expected a value, found nothing");
    let purpose = match body.purpose {
        LinkPurpose::Member => Purpose::Member {
            account: body.account.ok_or_else(|| needed("account"))?,
            role: body.role.ok_or_else(|| needed("role"))?,
            email: email.ok_or_else(|| needed("email"))?,
        },
        LinkPurpose::Operator => Purpose::Operator { email },
        LinkPurpose::Password => {
            purpose_password(&app, &email.ok_or_else(|| needed("email"))?, "email").await?
        }
    };
    let link = make(&app, origin, purpose).await?;
    Ok((StatusCode::CREATED, at(&link.url), Json(link)).into_response())
}

/// Returns an e-mail address as it is stored.
pub(crate) fn normalized(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Returns the purpose of a link for a new password.
///
/// # Errors
///
/// If nobody signs in with the e-mail address.
pub(crate) async fn purpose_password(
    app: &App,
    email: &str,
    field: &str,
) -> Result<Purpose, ApiError> {
    let wanted = email.to_owned();
    match app.store.read(move |db| people::by_email(db, &wanted)).await? {
        Some((person, _)) => Ok(Purpose::Password { person: person.id }),
        None => Err(ApiError::field(field, format!("nobody signs in with `{email}`"))),
    }
}

/// Makes a link.
///
/// # Errors
///
/// With the fields that cannot be taken as they are, or if there is no such account.
pub(crate) async fn make(app: &App, origin: Origin, purpose: Purpose) -> Result<NewLink, ApiError> {
    if let Purpose::Member { email, .. } | Purpose::Operator { email: Some(email) } = &purpose {
        let mut fields = Fields::default();
        fields.email("email", email);
        fields.finish()?;
    }
    let secret = token::new_secret();
    let (id, hash) = (token::new_id("link_"), KeyHash::of(secret.as_bytes()));
    let expires_at = Time::from_ms(Time::now().as_ms().saturating_add(LINK_MS));
    app.store
        .change(origin, move |change| {
            links::create(change, &id, &hash, &purpose, expires_at.as_ms())
        })
        .await?;
    Ok(NewLink { url: app.panel.link(&secret), expires_at })
}

/// 7 days: an invitation may lie in a mailbox over a weekend.
const LINK_MS: i64 = 7 * 86_400_000;
