//! One-time links: becoming an operator or a member, and choosing a new password.

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use latchkey_protocol::KeyHash;

use super::failure::{Errors, Failure, form_errors};
use super::form::Form;
use super::markup::Markup;
use super::sign_in::Whence;
use super::{frame, markup, sign_in};
use crate::api::fields::Fields;
use crate::api::links::normalized;
use crate::app::App;
use crate::error::ApiError;
use crate::session;
use crate::store::links::{self, Link, Purpose};
use crate::store::people::{self, NewPerson};
use crate::store::{Origin, Person, StoreError};
use crate::time::Time;
use crate::token;

#[derive(Template)]
#[template(path = "panel/link.html")]
struct LinkPage {
    /// What the form begins with.
    form: Markup,
    title: String,
    /// What the link is for, in a sentence.
    purpose: String,
    /// Address that cannot be chosen; absent where it can.
    fixed_email: Option<String>,
    email: String,
    name: String,
    /// What is asked for besides.
    asks: Asks,
    button: &'static str,
    errors: Errors,
}

/// Which fields the form has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// The password that the person has.
    Password,
    /// A name, and a password to be chosen.
    NameAndNewPassword,
    /// A password to be chosen.
    NewPassword,
}

/// Shows what the link is for. Looking at it does not use it up, since mail programs look too.
pub(super) async fn show(
    State(app): State<App>,
    Path(secret): Path<String>,
) -> Result<Response, Failure> {
    let link = find(&app, &secret).await?;
    page(&app, &link, &Form::default(), Errors::default()).await
}

/// Uses the link up and signs the person in.
pub(super) async fn take(
    State(app): State<App>,
    Path(secret): Path<String>,
    form: Form,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, _) = request.into_parts();
    let address = session::address(&parts);
    let link = find(&app, &secret).await?;
    let hash = KeyHash::of(secret.as_bytes());
    let taken = match whose(&app, &link, &form).await? {
        Who::Known(person) if !matches!(link.purpose, Purpose::Password { .. }) => {
            join(&app, &person, &form, &address, hash).await
        }
        Who::Known(person) => renew(&app, &person, &form, &address, hash).await,
        Who::New(email) => begin(&app, &email, &form, &address, hash).await,
    };
    match taken {
        Ok(person) => {
            let jar = sign_in::start(&app, &parts.headers, &address, person, None).await?;
            Ok((jar, Redirect::to("/?done=welcome")).into_response())
        }
        Err(error) => page(&app, &link, &form, form_errors(error)?).await,
    }
}

/// Who uses a link.
enum Who {
    /// Someone who signs in already.
    Known(Person),
    /// Someone new, with this e-mail address.
    New(String),
}

async fn whose(app: &App, link: &Link, form: &Form) -> Result<Who, ApiError> {
    let email = match &link.purpose {
        Purpose::Member { email, .. } => email.clone(),
        Purpose::Operator { email: Some(email) } => email.clone(),
        Purpose::Operator { email: None } => normalized(form.text("email")),
        Purpose::Password { person } => {
            let person = person.clone();
            let found = app.store.read(move |db| people::get(db, &person)).await?;
            return Ok(Who::Known(found.0));
        }
    };
    let wanted = email.clone();
    let found = app.store.read(move |db| people::by_email(db, &wanted)).await?;
    Ok(found.map_or(Who::New(email), |(person, _)| Who::Known(person)))
}

/// Gives someone who signs in already what the link is for, if the password is right.
async fn join(
    app: &App,
    person: &Person,
    form: &Form,
    address: &str,
    link: KeyHash,
) -> Result<Person, ApiError> {
    let password = form.verbatim("password");
    let whence = Whence { address, browser: None };
    if sign_in::check(app, &person.email, password, &whence).await?.is_none() {
        let message = "someone signs in with this address already, and this is not the password";
        return Err(ApiError::field("password", message));
    }
    let id = person.id.clone();
    let origin = Origin::of(&person.email, address);
    app.store.change(origin, move |change| links::take(change, &link, &id)).await?;
    Ok(person.clone())
}

/// Gives someone a new password.
async fn renew(
    app: &App,
    person: &Person,
    form: &Form,
    address: &str,
    link: KeyHash,
) -> Result<Person, ApiError> {
    let mut fields = Fields::default();
    check_password(&mut fields, form.verbatim("new_password"));
    fields.finish()?;
    let hashed = app.panel.passwords.hash(form.verbatim("new_password").to_owned()).await?;
    let id = person.id.clone();
    let origin = Origin::of(&person.email, address);
    app.store
        .change(origin, move |change| {
            links::take(change, &link, &id)?;
            people::set_password(change, &id, &hashed)
        })
        .await?;
    Ok(person.clone())
}

/// Makes a person and gives what the link is for.
async fn begin(
    app: &App,
    email: &str,
    form: &Form,
    address: &str,
    link: KeyHash,
) -> Result<Person, ApiError> {
    let mut fields = Fields::default();
    fields.email("email", email);
    fields.name("name", form.text("name"));
    check_password(&mut fields, form.verbatim("new_password"));
    fields.finish()?;
    let new = NewPerson {
        id: token::new_id("person_"),
        email: email.to_owned(),
        name: form.text("name").to_owned(),
        password: app.panel.passwords.hash(form.verbatim("new_password").to_owned()).await?,
    };
    let origin = Origin::of(email, address);
    let person = app
        .store
        .change(origin, move |change| {
            let person = people::create(change, &new)?;
            links::take(change, &link, &person.id)?;
            Ok(person)
        })
        .await?;
    Ok(person)
}

/// Checks a password that is chosen.
pub(super) fn check_password(fields: &mut Fields, password: &str) {
    let chars = password.chars().count();
    if !(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&chars) {
        let message = format!("expected {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters");
        fields.add("new_password", message);
    }
}

async fn find(app: &App, secret: &str) -> Result<Link, ApiError> {
    let hash = KeyHash::of(secret.as_bytes());
    let now_ms = Time::now().as_ms();
    let found = app.store.read(move |db| links::find(db, &hash, now_ms)).await?;
    found.ok_or_else(|| {
        let message = "this link was used already, is too old, or was withdrawn; ask for another";
        StoreError::Conflict(message.to_owned()).into()
    })
}

async fn page(app: &App, link: &Link, form: &Form, errors: Errors) -> Result<Response, Failure> {
    let who = whose(app, link, form).await?;
    let (title, purpose, fixed_email, button) = match &link.purpose {
        Purpose::Member { account, role, email } => (
            "You are invited",
            format!("{} invites you to the account {account} as {}.", link.made_by, role.as_str()),
            Some(email.clone()),
            "Join",
        ),
        Purpose::Operator { email } => (
            "Become an operator",
            "Operators manage all accounts, plans and proxies of this service.".to_owned(),
            email.clone(),
            "Continue",
        ),
        Purpose::Password { .. } => (
            "Choose a new password",
            "All your sessions end, and you are signed in here.".to_owned(),
            match &who {
                Who::Known(person) => Some(person.email.clone()),
                Who::New(_) => None,
            },
            "Set the password",
        ),
    };
    let asks = match (&link.purpose, &who) {
        (Purpose::Password { .. }, _) => Asks::NewPassword,
        (_, Who::Known(_)) => Asks::Password,
        (_, Who::New(_)) => Asks::NameAndNewPassword,
    };
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(
        &LinkPage {
            form: markup::form("", &token::new_id(""), true),
            title: title.to_owned(),
            purpose,
            fixed_email,
            email: form.text("email").to_owned(),
            name: form.text("name").to_owned(),
            asks,
            button,
            errors,
        },
        is_refused,
    ))
}

impl Link {
    /// Returns the address of the one who is invited, and as what.
    pub(super) fn invited(&self) -> (&str, &str) {
        match &self.purpose {
            Purpose::Member { email, role, .. } => (email, role.as_str()),
            Purpose::Operator { email } => {
                (email.as_deref().unwrap_or("whoever has it"), "operator")
            }
            Purpose::Password { person } => (person, "themselves, with a new password"),
        }
    }
}

/// What NIST SP 800-63B asks of a password that is the only factor is 8; a few more cost nothing.
const MIN_PASSWORD_CHARS: usize = 10;

/// A long sentence.
const MAX_PASSWORD_CHARS: usize = 200;
