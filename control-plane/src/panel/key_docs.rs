//! API docs for a key: just what it may call.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use latchkey_filter::profile::Profile;
use latchkey_filter::profile::carriers::Carrier;
use latchkey_protocol::right::EVERY;

use super::failure::Failure;
use super::frame::{self, Frame};
use super::key::find;
use super::keys;
use crate::app::App;
use crate::error::ApiError;
use crate::explain::Simulator;
use crate::key_docs::{self, Operation};
use crate::session::Visitor;
use crate::store::usable_tokens::{TokenRow, token_of_key};
use crate::store::{Account, Key, KeyState, StoreError};
use crate::time::Time;
use crate::token;

#[derive(Template)]
#[template(path = "panel/key_docs.html")]
struct DocsPage {
    frame: Frame,
    key: Key,
    key_path: String,
    title: String,
    /// How the token is sent, each way as a line of `curl`.
    carriers: Vec<String>,
    /// What is about no content type, and then what is about each.
    groups: Vec<(String, Vec<Operation>)>,
}

/// Shows the readable page.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (key, operations) = look(&app, &visitor, &id).await?;
    let profile = app.profile(&visitor.account()?.profile)?;
    // What is about no content type comes last.
    let mut groups: BTreeMap<(bool, String), Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        let name = operation.resource.clone().unwrap_or_default();
        groups.entry((name.is_empty(), name)).or_default().push(operation);
    }
    let groups = groups.into_iter().map(|((_, name), operations)| (name, operations)).collect();
    Ok(frame::html(&DocsPage {
        title: profile.title.clone(),
        carriers: profile.carriers.iter().map(carrier).collect(),
        frame: Frame::new(visitor, "keys", format!("API docs for {}", key.name)),
        key_path: keys::path(&key),
        key,
        groups,
    }))
}

/// Returns the `OpenAPI` document.
pub(super) async fn document(
    State(app): State<App>,
    visitor: Visitor,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (key, operations) = look(&app, &visitor, &id).await?;
    let profile = app.profile(&visitor.account()?.profile)?;
    let document = key_docs::document::document(profile, &key.name, &operations);
    let name = format!("attachment; filename=\"{}.openapi.json\"", key.id);
    Ok(([(header::CONTENT_DISPOSITION, name)], Json(document)).into_response())
}

async fn look(app: &App, visitor: &Visitor, id: &str) -> Result<(Key, Vec<Operation>), ApiError> {
    let key = find(app, visitor, id).await?;
    if key.state != KeyState::Active {
        return Ok((key, Vec::new()));
    }
    let account = visitor.account()?;
    let profile = Arc::clone(app.profile(&account.profile)?);
    let resources = resources(app, account, &key).await?;
    let (asked, key_id) = (Arc::clone(&profile), key.id.clone());
    let row = app.store.read(move |db| token_of_key(db, &asked, &key_id)).await?;
    let now_ms = Time::now().as_ms().unsigned_abs();
    // Tens of thousands of requests may be judged: not where others wait for, and one key at a time.
    let _turn = app.panel.docs.acquire().await;
    let operations = tokio::task::spawn_blocking(move || {
        // What its rules say, not what passes while they are tried out.
        let row = row.map(|row| TokenRow { is_enforced: true, ..row });
        let profile = Profile { enforce: true, ..(*profile).clone() };
        let credential = (token::generate(&profile.keys.token), row);
        let simulator = Simulator::new(&profile, Some(credential));
        key_docs::operations(&profile, &simulator, &resources, now_ms)
    });
    let operations = operations.await.map_err(StoreError::from)?;
    Ok((key, operations))
}

/// Returns the content types of an account and of a key's rules.
async fn resources(app: &App, account: &Account, key: &Key) -> Result<Vec<String>, ApiError> {
    let mut resources = keys::choices(app, account).await?.resources;
    for rule in &key.rules {
        if rule.resource != EVERY && !resources.contains(&rule.resource) {
            resources.push(rule.resource.clone());
        }
    }
    Ok(resources)
}

fn carrier(carrier: &Carrier) -> String {
    match carrier {
        Carrier::Bearer(name) => format!("{name}: Bearer TOKEN"),
        Carrier::Header(name) => format!("{name}: TOKEN"),
        Carrier::Query(name) => format!("?{name}=TOKEN"),
    }
}
