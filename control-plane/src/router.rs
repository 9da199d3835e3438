//! Every route of the service in one table.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use bytes::Bytes;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::document::{self, QueryNames};
use crate::api::fields::Fields;
use crate::api::{
    accounts, audit, corrections, explain, keys, links, once, plans, proxies, resources, usage,
};
use crate::app::App;
use crate::client_address::{self, ClientAddress};
use crate::connections::Place;
use crate::credentials::Credential;
use crate::edge::{leases, updates};
use crate::error::ApiError;
use crate::metrics::StatusLabel;
use crate::panel;
use crate::store::{StoreError, plans as stored_plans};

/// Returns the whole service.
pub(crate) fn router(app: App) -> Router {
    let (api, described) = management_api().split_for_parts();
    let document = document::finish(&described, &app.profiles);
    let query_names = Arc::new(document::query_names(&document));
    // Once for all: whoever asks need not be known.
    let text = Bytes::from(document.to_string());
    let api = api
        .route_layer(middleware::from_fn_with_state(app.clone(), once::once))
        .route_layer(middleware::from_fn_with_state(query_names, require_known_query))
        .route_layer(middleware::from_fn_with_state(app.clone(), require_operator_token))
        .route("/api/v1/openapi.json", routing::get(async move || described_as(text)))
        .route_layer(middleware::from_fn_with_state(app.clone(), count))
        .with_state(app.clone());
    let edge = Router::new()
        .route(latchkey_protocol::poll::PATH, routing::get(updates::poll))
        .route(latchkey_protocol::lease::PATH, routing::post(leases::take_in))
        .route_layer(middleware::from_fn_with_state(app.clone(), require_edge_token))
        .route_layer(middleware::map_response(updates::sign));
    let health = Router::new()
        .route("/healthz", routing::get(async || "ok\n"))
        .route("/readyz", routing::get(ready))
        .route("/metrics", routing::get(metrics));
    edge.merge(health)
        .merge(panel::router(&app))
        .with_state(app.clone())
        .merge(api)
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_allowed_here)
        .layer(middleware::from_fn(bound_time))
        .layer(middleware::from_fn_with_state(app, client_address::note))
        .layer(CatchPanicLayer::custom(|_| ApiError::Panicked.into_response()))
}

fn described_as(text: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The routes of the management API with their description; the document itself needs no token.
fn management_api() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .routes(routes!(accounts::list, accounts::create))
        .routes(routes!(accounts::get, accounts::edit, accounts::delete))
        .routes(routes!(accounts::suspend))
        .routes(routes!(accounts::resume))
        .routes(routes!(plans::list))
        .routes(routes!(plans::get, plans::put, plans::delete))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::get, keys::edit, keys::revoke))
        .routes(routes!(keys::regenerate))
        .routes(routes!(keys::suspend))
        .routes(routes!(keys::resume))
        .routes(routes!(keys::end_grace))
        .routes(routes!(resources::list))
        .routes(routes!(resources::get, resources::put, resources::delete))
        .routes(routes!(usage::get))
        .routes(routes!(corrections::correct))
        .routes(routes!(explain::explain))
        .routes(routes!(links::create))
        .routes(routes!(audit::list))
        .routes(routes!(proxies::list));
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", api)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Latchkey management API",
        description = "Accounts, plans, keys and content types, for operators and their tools. \
                       Errors are problem details (RFC 9457); times are RFC 3339 in UTC."
    ),
    modifiers(&OperatorToken),
    security(("operator_token" = []))
)]
struct Document;

struct OperatorToken;

impl Modify for OperatorToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("operator_token", SecurityScheme::Http(scheme));
    }
}

async fn require_operator_token(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let expected = "expected `Authorization: Bearer <operator token>`";
    require(&app, app.operator, &request, expected)?;
    Ok(next.run(request).await)
}

/// Refuses query parameters that an operation does not have: what is misspelled would be ignored.
async fn require_known_query(
    State(names): State<Arc<QueryNames>>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    let method = method.as_str().to_owned();
    let known = names.get(&(method, path.as_str().to_owned())).map_or(&[][..], Vec::as_slice);
    let query = request.uri().query().unwrap_or_default();
    let mut fields = Fields::default();
    let mut seen: Vec<String> = Vec::new();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        if !known.iter().any(|known| *known == name) {
            let expected = match known {
                [] => "expected no query parameter".to_owned(),
                known => format!("expected one of `{}`", known.join("`, `")),
            };
            fields.add(&name, format!("{expected}, found `{name}`"));
        } else if seen.iter().any(|seen| *seen == name) {
            fields.add(&name, "expected it once");
        }
        seen.push(name.into_owned());
    }
    fields.finish()?;
    Ok(next.run(request).await)
}

async fn require_edge_token(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    require(&app, app.edge, &request, "expected `Authorization: Bearer <edge token>`")?;
    if let Some(place) = request.extensions().get::<Place>() {
        place.is_of_filter();
    }
    Ok(next.run(request).await)
}

/// Lets a request pass only with a credential; one without it counts against its network.
fn require(
    app: &App,
    credential: Credential,
    request: &Request,
    expected: &'static str,
) -> Result<(), ApiError> {
    let headers = request.headers();
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token);
    match token {
        Some(token) if credential.is(token) => Ok(()),
        Some(_) | None => {
            let is_sent = headers.contains_key(header::AUTHORIZATION);
            let address = request.extensions().get().map(|ClientAddress(address)| *address);
            // What is not sent guesses nothing.
            let guesser = address.filter(|_| is_sent);
            let refusal = ApiError::Unauthenticated { expected, is_sent };
            Err(app.wrong_tokens.note(guesser, expected, refusal))
        }
    }
}

async fn nothing_here(headers: HeaderMap) -> Response {
    tell(&headers, ApiError::NoSuchPath)
}

async fn not_allowed_here(headers: HeaderMap) -> Response {
    tell(&headers, ApiError::MethodNotAllowed)
}

/// Answers people with a page, and programs with a problem.
fn tell(headers: &HeaderMap, error: ApiError) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        return panel::failure::Failure(error).into_response();
    }
    error.into_response()
}

/// Bounds the time that a request takes, its body's included: one that never comes would stay for ever.
async fn bound_time(request: Request, next: Next) -> Result<Response, ApiError> {
    let answered = tokio::time::timeout(REQUEST_TIME, next.run(request)).await;
    answered.map_err(|_| ApiError::TimedOut)
}

async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let label = StatusLabel { status: response.status().as_u16() };
    app.metrics.requests.get_or_create(&label).inc();
    response
}

/// Answers 200 if the store does, what is written reaches the disk, and the ledger is kept.
async fn ready(State(app): State<App>) -> Result<&'static str, ApiError> {
    if !app.desk.is_open() {
        return Err(ApiError::NotReady);
    }
    if !app.store.is_writable().await {
        return Err(StoreError::Unwritable.into());
    }
    let profile = app.profiles.all().next().map(|profile| profile.name.clone()).unwrap_or_default();
    match app.store.read(move |db| stored_plans::is_installed(db, &profile)).await {
        Ok(_) => Ok("ready\n"),
        Err(error) => {
            tracing::error!(%error, "the store does not answer");
            Err(ApiError::NotReady)
        }
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let revision = *app.store.watch_revision().borrow();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], app.metrics.text(revision, app.store.is_well()))
        .into_response()
}

/// Longest time that a request takes: that of the longest poll, and room for a slow line.
const REQUEST_TIME: Duration = Duration::from_secs(60);
