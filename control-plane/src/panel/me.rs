//! The person's own page: name, password, sessions.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::links::check_password;
use super::sign_in::Whence;
use super::{markup, sign_in};
use crate::api::fields::Fields;
use crate::app::App;
use crate::session::Visitor;
use crate::store::{people, sessions};
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/me.html")]
struct MePage {
    frame: Frame,
    name: String,
    sessions: Vec<(sessions::Session, bool)>,
    /// How many of them are not this one.
    others: u64,
    errors: Errors,
}

/// Shows the page.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let draft = draft.map(|form| form.text("name").to_owned());
    let name = draft.unwrap_or_else(|| visitor.person.name.clone());
    page(&app, visitor, name, Errors::default(), &asked).await
}

/// Saves the name.
pub(super) async fn save(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let name = form.text("name").to_owned();
    let mut fields = Fields::default();
    fields.name("name", &name);
    if let Err(error) = fields.finish() {
        return page(&app, visitor, name, form_errors(error)?, &Form::default()).await;
    }
    let (origin, person) = (visitor.origin(), visitor.person.id);
    app.store.change(origin, move |change| people::rename(change, &person, &name)).await?;
    Ok(Redirect::to("/me?done=profile-saved").into_response())
}

/// Sets another password; all other sessions end.
pub(super) async fn set_password(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let mut fields = Fields::default();
    check_password(&mut fields, form.verbatim("new_password"));
    let (email, whence) = (&visitor.person.email, Whence::of(&app, &headers, &visitor.address));
    if sign_in::check(&app, email, form.verbatim("password"), &whence).await?.is_none() {
        fields.add("password", "this is not your password");
    }
    if let Err(error) = fields.finish() {
        let name = visitor.person.name.clone();
        return page(&app, visitor, name, form_errors(error)?, &Form::default()).await;
    }
    let hashed = app.panel.passwords.hash(form.verbatim("new_password").to_owned()).await?;
    let person = visitor.person.id.clone();
    app.store
        .change_urgently(visitor.origin(), move |change| {
            people::set_password(change, &person, &hashed)
        })
        .await?;
    let jar = sign_in::start(&app, &headers, &visitor.address, visitor.person, None).await?;
    Ok((jar, Redirect::to("/me?done=password-saved")).into_response())
}

/// Ends all sessions of the person but this one, which gets another cookie.
pub(super) async fn sign_out_everywhere(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let person = visitor.person.clone();
    app.store
        .change_urgently(visitor.origin(), move |change| {
            sessions::sign_out_everywhere(change, &person)
        })
        .await?;
    let jar = sign_in::start(&app, &headers, &visitor.address, visitor.person, None).await?;
    Ok((jar, Redirect::to("/me?done=signed-out-everywhere")).into_response())
}

async fn page(
    app: &App,
    visitor: Visitor,
    name: String,
    errors: Errors,
    asked: &Form,
) -> Result<Response, Failure> {
    let (person, this) = (visitor.person.id.clone(), visitor.session);
    let now_ms = Time::now().as_ms();
    let sessions = app.store.read(move |db| sessions::of_person(db, &person, now_ms)).await?;
    let sessions = sessions.into_iter().map(|session| {
        let is_this = session.hash == this;
        (session, is_this)
    });
    let sessions: Vec<_> = sessions.collect();
    let others = sessions.iter().filter(|(_, is_this)| !is_this).count() as u64;
    let frame = Frame::new(visitor, "me", "Your profile").after(asked);
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(&MePage { frame, name, sessions, others, errors }, is_refused))
}
