//! Operators, and people who lost their password.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::{IntoResponse, Redirect, Response};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::markup;
use super::members::{lay_aside, shown};
use super::shelf::Secret;
use crate::api::links::{self as invitations, NewLink};
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::links::{self, Link, Purpose};
use crate::store::people::{self, Person};
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/operators.html")]
struct OperatorsPage {
    frame: Frame,
    operators: Vec<Person>,
    invitations: Vec<Link>,
    /// What was filled in: whom to invite, and who lost a password.
    email: String,
    person_email: String,
    errors: Errors,
    /// The link that was just made, and for whom.
    link: Option<Secret>,
}

/// Lists operators and invitations.
pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    method: Method,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let link = shown(&app, &visitor, &method, PATH.to_owned());
    let filled =
        draft.map(|form| (form.text("email").to_owned(), form.text("person_email").to_owned()));
    page(&app, visitor, filled.unwrap_or_default(), Errors::default(), link, &asked).await
}

/// Makes an invitation and shows its link once.
pub(super) async fn invite(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let email = invitations::normalized(form.text("email"));
    let purpose = Purpose::Operator { email: Some(email.clone()) };
    show_link(&app, visitor, email, purpose).await
}

/// Makes a link with which a person chooses a new password.
pub(super) async fn password_link(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let email = invitations::normalized(form.text("person_email"));
    match invitations::purpose_password(&app, &email, "person_email").await {
        Ok(purpose) => show_link(&app, visitor, email, purpose).await,
        Err(error) => {
            let filled = (String::new(), email);
            page(&app, visitor, filled, form_errors(error)?, None, &Form::default()).await
        }
    }
}

/// Takes the rights of an operator from someone.
pub(super) async fn remove(
    State(app): State<App>,
    visitor: Visitor,
    Path(person): Path<String>,
) -> Result<Response, Failure> {
    let removed = app.store.change_urgently(visitor.origin(), move |change| {
        people::set_operator(change, &person, false)
    });
    removed.await?;
    Ok(Redirect::to("/operators?done=operator-removed").into_response())
}

/// Withdraws an invitation.
pub(super) async fn withdraw(
    State(app): State<App>,
    visitor: Visitor,
    Path(link): Path<String>,
) -> Result<Response, Failure> {
    app.store
        .change_urgently(visitor.origin(), move |change| links::withdraw(change, None, &link))
        .await?;
    Ok(Redirect::to("/operators?done=withdrawn").into_response())
}

async fn show_link(
    app: &App,
    visitor: Visitor,
    email: String,
    purpose: Purpose,
) -> Result<Response, Failure> {
    let made: Result<NewLink, ApiError> = invitations::make(app, visitor.origin(), purpose).await;
    match made {
        Ok(NewLink { url, .. }) => {
            let link = Secret { text: url, whose: email };
            let again = lay_aside(app, &visitor, PATH.to_owned(), &link);
            let (filled, asked) = (Default::default(), Form::default());
            let page = page(app, visitor, filled, Errors::default(), Some(link), &asked).await?;
            Ok((again, page).into_response())
        }
        Err(error) => {
            let filled = (email, String::new());
            page(app, visitor, filled, form_errors(error)?, None, &Form::default()).await
        }
    }
}

async fn page(
    app: &App,
    visitor: Visitor,
    (email, person_email): (String, String),
    errors: Errors,
    link: Option<Secret>,
    asked: &Form,
) -> Result<Response, Failure> {
    let now_ms = Time::now().as_ms();
    let (mut people, invitations) =
        app.store.read(move |db| Ok((people::all(db)?, links::open(db, None, now_ms)?))).await?;
    people.retain(|person| person.is_operator);
    let frame = Frame::new(visitor, "operators", "Operators").after(asked);
    let operators = people;
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(
        &OperatorsPage { frame, operators, invitations, email, person_email, errors, link },
        is_refused,
    ))
}

/// Path of the page.
const PATH: &str = "/operators";
