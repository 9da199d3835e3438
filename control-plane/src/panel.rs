//! The panel: pages in which people make, scope, rotate and watch keys.
//!
//! HTML is made on the server (`templates/panel`), and works without scripts; `assets/panel.js` adds
//! comfort. Pages call what the management API calls (`api/`), so that both check alike. Every route
//! stands in one table with what it takes; `session.rs` refuses the others before a page's code runs.

pub(crate) mod drafts;
pub(crate) mod failure;
pub(crate) mod form;
pub(crate) mod once;

mod accounts;
mod assets;
mod audit;
mod chart;
mod content_types;
mod corrections;
mod explain;
mod forecast;
mod frame;
mod home;
mod key;
mod key_docs;
mod key_form;
mod keys;
mod limit_rows;
mod links;
mod markup;
mod me;
mod members;
mod operators;
mod picture;
mod plans;
mod proxies;
mod reading;
mod relation_rows;
mod replacement;
mod shelf;
mod sign_in;
#[cfg(test)]
mod tests;
mod usage;

use axum::handler::Handler;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tower_http::csrf::CsrfLayer;

use crate::app::App;
use crate::error::ApiError;
use crate::password::Passwords;
use crate::session::Needs::{self, Member, Nothing, Operator, SignedIn};
use crate::session::guard;
use crate::store::Role::{Admin, Developer, Viewer};
use drafts::Drafts;
use failure::Failure;
use once::Taken;
use reading::Reading;
use shelf::Shelf;
use sign_in::Throttle;

/// What the pages keep between requests.
#[derive(Debug)]
pub(crate) struct Panel {
    /// Address at which people open it, without a slash at the end.
    url: String,
    pub(crate) passwords: Passwords,
    throttle: Throttle,
    /// Tokens and links that were just made and are about to be shown.
    shelf: Shelf,
    /// Forms that were taken, with what came of them.
    taken: Taken,
    /// The same for forms of one-time links: strangers who send many push out no one's who is signed in.
    taken_of_links: Taken,
    /// Forms that came after their session had ended.
    drafts: Drafts,
    /// Room for forms that are being read: of people who are signed in, and of others.
    pub(crate) reading: Reading,
    pub(crate) reading_of_strangers: Reading,
    /// Whose turn it is to work out what a key may call.
    docs: Semaphore,
}

impl Panel {
    /// Returns the panel at an address.
    ///
    /// # Errors
    ///
    /// If the system has no random bytes.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            passwords: Passwords::new()?,
            throttle: Throttle::new(),
            shelf: Shelf::default(),
            taken: Taken::default(),
            taken_of_links: Taken::default(),
            drafts: Drafts::default(),
            reading: Reading::new(32 << 20, 8 << 20),
            reading_of_strangers: Reading::new(16 << 20, 1 << 20),
            docs: Semaphore::new(1),
        })
    }

    /// Reports whether a request came over TLS, as far as is known.
    pub(crate) fn is_secure(&self, headers: &HeaderMap) -> bool {
        // Who claims TLS where there is none only keeps the own browser from sending the cookie.
        let forwarded = headers.get("x-forwarded-proto").is_some_and(|value| value == "https");
        self.url.starts_with("https://") || forwarded
    }

    /// Returns the address of a one-time link that ends with a secret.
    pub(crate) fn link(&self, secret: &str) -> String {
        format!("{}/links/{secret}", self.url)
    }
}

/// A route of the panel.
struct Route {
    /// For tests that go through the table.
    #[cfg(test)]
    method: axum::http::Method,
    path: &'static str,
    needs: Needs,
    handler: MethodRouter<App>,
}

/// Returns the panel's pages.
pub(crate) fn router(app: &App) -> Router<App> {
    let mut router = Router::new();
    for route in routes() {
        let guard = middleware::from_fn_with_state((app.clone(), route.needs), guard);
        router = router.route(route.path, route.handler.route_layer(guard));
    }
    let csrf =
        CsrfLayer::new().with_rejection_response(|_| Failure(ApiError::Forged).into_response());
    router
        .layer(csrf)
        .route("/assets/{file}", get(assets::get))
        .layer(middleware::from_fn(frame::secure))
}

/// Every page and every action with what it takes.
fn routes() -> Vec<Route> {
    vec![
        page("/sign-in", Nothing, sign_in::show),
        action("/sign-in", Nothing, sign_in::sign_in),
        page("/links/{secret}", Nothing, links::show),
        action("/links/{secret}", Nothing, links::take),
        page("/", SignedIn, home::show),
        action("/sign-out", SignedIn, sign_in::sign_out),
        page("/me", SignedIn, me::show),
        action("/me", SignedIn, me::save),
        action("/me/password", SignedIn, me::set_password),
        action("/me/sign-out-everywhere", SignedIn, me::sign_out_everywhere),
        page("/accounts/{account}", Member(Viewer), home::account),
        page("/accounts/{account}/in-force", Member(Viewer), proxies::in_force),
        page("/accounts/{account}/keys", Member(Viewer), keys::list),
        page("/accounts/{account}/keys/new", Member(Admin), keys::new),
        action("/accounts/{account}/keys/new", Member(Admin), keys::create),
        page("/accounts/{account}/keys/{key}", Member(Viewer), key::show),
        action("/accounts/{account}/keys/{key}", Member(Admin), key::save),
        action("/accounts/{account}/keys/{key}/regenerate", Member(Admin), key::regenerate),
        action("/accounts/{account}/keys/{key}/end-grace", Member(Admin), key::end_grace),
        action("/accounts/{account}/keys/{key}/suspend", Member(Admin), key::suspend),
        action("/accounts/{account}/keys/{key}/resume", Member(Admin), key::resume),
        action("/accounts/{account}/keys/{key}/revoke", Member(Admin), key::revoke),
        action("/accounts/{account}/keys/{key}/reveal", Member(Admin), key::reveal),
        page("/accounts/{account}/keys/{key}/docs", Member(Viewer), key_docs::show),
        page("/accounts/{account}/keys/{key}/openapi.json", Member(Viewer), key_docs::document),
        page("/accounts/{account}/keys/{key}/replace", Member(Viewer), replacement::show),
        action("/accounts/{account}/keys/{key}/replace", Member(Admin), replacement::create),
        page("/accounts/{account}/usage", Member(Viewer), usage::show),
        page("/accounts/{account}/usage/correct", Operator, corrections::show),
        action("/accounts/{account}/usage/correct", Operator, corrections::correct),
        page("/accounts/{account}/content-types", Member(Viewer), content_types::list),
        page("/accounts/{account}/new-content-type", Member(Admin), content_types::new),
        action("/accounts/{account}/new-content-type", Member(Admin), content_types::create),
        page("/accounts/{account}/content-types/{name}", Member(Viewer), content_types::show),
        action("/accounts/{account}/content-types/{name}", Member(Admin), content_types::save),
        action(
            "/accounts/{account}/content-types/{name}/delete",
            Member(Admin),
            content_types::delete,
        ),
        page("/accounts/{account}/test", Member(Developer), explain::show),
        action("/accounts/{account}/test", Member(Developer), explain::ask),
        page("/accounts/{account}/audit", Member(Developer), audit::list),
        page("/accounts/{account}/audit.csv", Member(Developer), audit::csv),
        page("/accounts/{account}/members", Member(Viewer), members::list),
        action("/accounts/{account}/members", Member(Admin), members::invite),
        action("/accounts/{account}/members/{person}", Member(Admin), members::set_role),
        action("/accounts/{account}/members/{person}/remove", Member(Admin), members::remove),
        action("/accounts/{account}/invitations/{link}/withdraw", Member(Admin), members::withdraw),
        page("/accounts/{account}/settings", Operator, accounts::settings),
        action("/accounts/{account}/settings", Operator, accounts::save),
        action("/accounts/{account}/suspend", Operator, accounts::suspend),
        action("/accounts/{account}/resume", Operator, accounts::resume),
        action("/accounts/{account}/delete", Operator, accounts::delete),
        page("/accounts", Operator, accounts::list),
        action("/accounts", Operator, accounts::create),
        page("/plans", Operator, plans::list),
        page("/new-plan", Operator, plans::new),
        action("/new-plan", Operator, plans::create),
        page("/plans/{plan}", Operator, plans::show),
        action("/plans/{plan}", Operator, plans::save),
        action("/plans/{plan}/delete", Operator, plans::delete),
        page("/proxies", Operator, proxies::list),
        page("/audit", Operator, audit::list),
        page("/audit.csv", Operator, audit::csv),
        page("/operators", Operator, operators::list),
        action("/operators", Operator, operators::invite),
        action("/operators/password-link", Operator, operators::password_link),
        action("/operators/{person}/remove", Operator, operators::remove),
        action("/operators/invitations/{link}/withdraw", Operator, operators::withdraw),
    ]
}

fn page<H: Handler<T, App>, T: 'static>(path: &'static str, needs: Needs, handler: H) -> Route {
    Route {
        #[cfg(test)]
        method: axum::http::Method::GET,
        path,
        needs,
        handler: get(handler),
    }
}

fn action<H: Handler<T, App>, T: 'static>(path: &'static str, needs: Needs, handler: H) -> Route {
    Route {
        #[cfg(test)]
        method: axum::http::Method::POST,
        path,
        needs,
        handler: post(handler),
    }
}
