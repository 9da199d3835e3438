//! API docs for a key: just what it may call.

use askama::Template;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::failure::Failure;
use super::frame::{self, Frame};
use super::key::find;
use super::keys;
use crate::app::App;
use crate::error::ApiError;
use crate::explain::Simulator;
use crate::key_docs::{self, Operation};
use crate::session::Visitor;
use crate::store::changes::token_of_key;
use crate::store::{Key, KeyState};
use crate::time::Time;
use crate::token;
use latchkey_filter::profile::Profile;
use latchkey_filter::profile::carriers::Carrier;

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
    let mut groups: Vec<(String, Vec<Operation>)> = Vec::new();
    for operation in operations {
        let name = operation.resource.clone().unwrap_or_default();
        match groups.iter_mut().find(|(other, _)| *other == name) {
            Some((_, group)) => group.push(operation),
            None => groups.push((name, vec![operation])),
        }
    }
    // What is about no content type comes last.
    groups.sort_by(|(a, _), (b, _)| (a.is_empty(), a).cmp(&(b.is_empty(), b)));
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
    let document = key_docs::document(profile, &key.name, &operations);
    let name = format!("attachment; filename=\"{}.openapi.json\"", key.id);
    Ok(([(header::CONTENT_DISPOSITION, name)], Json(document)).into_response())
}

async fn look(app: &App, visitor: &Visitor, id: &str) -> Result<(Key, Vec<Operation>), ApiError> {
    let key = find(app, visitor, id).await?;
    if key.state != KeyState::Active {
        return Ok((key, Vec::new()));
    }
    let account = visitor.account()?;
    let profile = std::sync::Arc::clone(app.profile(&account.profile)?);
    let resources = resources(app, account, &key).await?;
    let key_id = key.id.clone();
    let now_ms = Time::now().as_ms().unsigned_abs();
    // Thousands of requests are judged: not on a thread that others wait for.
    let operations = app
        .store
        .read(move |db| {
            let row = token_of_key(db, &profile, &key_id)?;
            let mut row = row;
            if let Some(row) = &mut row {
                // What its rules say, not what passes while they are tried out.
                row.is_enforced = true;
            }
            let profile = Profile { enforce: true, ..(*profile).clone() };
            let credential = (token::generate(&profile.keys.token), row);
            let simulator = Simulator::new(&profile, Some(credential));
            Ok(key_docs::operations(&profile, &simulator, &resources, now_ms))
        })
        .await?;
    Ok((key, operations))
}

/// Returns the content types of an account and of a key's rules.
async fn resources(
    app: &App,
    account: &crate::store::Account,
    key: &Key,
) -> Result<Vec<String>, ApiError> {
    let mut resources = keys::choices(app, account).await?.resources;
    for rule in &key.rules {
        if rule.resource != latchkey_protocol::right::EVERY && !resources.contains(&rule.resource) {
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
