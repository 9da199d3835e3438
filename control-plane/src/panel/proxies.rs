//! Connected proxies, and how far a change has come.

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::failure::Failure;
use super::form::Asked;
use super::frame::{self, Frame};
use super::markup;
use crate::api::proxies::{Proxy, connected};
use crate::app::App;
use crate::session::Visitor;

#[derive(Template)]
#[template(path = "panel/proxies.html")]
struct ProxiesPage {
    frame: Frame,
    proxies: Vec<Proxy>,
    current: u64,
}

/// Lists proxies.
pub(super) async fn list(State(app): State<App>, visitor: Visitor) -> Result<Response, Failure> {
    let proxies = connected(&app).await?;
    let current = *app.store.watch_revision().borrow();
    let frame = Frame::new(visitor, "proxies", "Proxies");
    Ok(frame::html(&ProxiesPage { frame, proxies, current }))
}

/// In how many proxies a change is in force.
#[derive(Debug, Serialize)]
pub(super) struct InForce {
    /// Proxies that have applied it.
    held: usize,
    /// Proxies that are connected, of the account's API.
    total: usize,
}

/// Returns in how many proxies a change is in force.
pub(super) async fn in_force(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Json<InForce>, Failure> {
    let since = asked.text("since").parse().unwrap_or(0);
    let mut proxies = connected(&app).await?;
    proxies.retain(|proxy| visitor.account().is_ok_and(|account| account.profile == proxy.profile));
    let holds = |proxy: &&Proxy| proxy.applied_revision.is_some_and(|applied| applied >= since);
    Ok(Json(InForce { held: proxies.iter().filter(holds).count(), total: proxies.len() }))
}

impl Proxy {
    /// Reports whether all its workers have applied the last change.
    fn is_current(&self) -> bool {
        self.applied_revision == Some(self.current_revision)
    }
}
