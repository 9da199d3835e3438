//! Members of an account.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::{IntoResponse, Redirect, Response};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::markup;
use super::shelf::{Secret, Shelved};
use crate::api::links::{self as invitations, NewLink};
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::Role;
use crate::store::links::{self, Link, Purpose};
use crate::store::people::{self, Member};
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/members.html")]
struct MembersPage {
    frame: Frame,
    members: Vec<Member>,
    invitations: Vec<Link>,
    email: String,
    /// What was chosen to invite as.
    invited_as: Role,
    errors: Errors,
    /// The link that was just made, and for whom.
    link: Option<Secret>,
}

/// Lists members and invitations.
pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    method: Method,
    Path(account): Path<String>,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let (email, role) = match &draft {
        Some(form) => (form.text("email"), Role::named(form.text("role"))),
        None => ("", None),
    };
    let filled = (email.to_owned(), role.unwrap_or(Role::Developer));
    let link = shown(&app, &visitor, &method, format!("/accounts/{account}/members"));
    page(&app, visitor, filled, Errors::default(), link, &asked).await
}

/// Makes an invitation and shows its link once.
pub(super) async fn invite(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let role = role(&visitor, &form)?;
    let email = invitations::normalized(form.text("email"));
    let purpose =
        Purpose::Member { account: visitor.account()?.id.clone(), role, email: email.clone() };
    match invitations::make(&app, visitor.origin(), purpose).await {
        Ok(NewLink { url, .. }) => {
            let at = format!("/accounts/{}/members", visitor.account()?.id);
            let link = Secret { text: url, whose: email };
            let again = lay_aside(&app, &visitor, at, &link);
            let filled = (String::new(), role);
            let (errors, asked) = (Errors::default(), Form::default());
            Ok((again, page(&app, visitor, filled, errors, Some(link), &asked).await?)
                .into_response())
        }
        Err(error) => {
            page(&app, visitor, (email, role), form_errors(error)?, None, &Form::default()).await
        }
    }
}

/// Gives a member another role.
pub(super) async fn set_role(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, person)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let role = role(&visitor, &form)?;
    check_owner(&app, &visitor, &person).await?;
    let to = format!("/accounts/{account}/members?done=member-saved");
    app.store
        .change(visitor.origin(), move |change| people::set_role(change, &account, &person, role))
        .await?;
    Ok(Redirect::to(&to).into_response())
}

/// Ends someone's part in the account.
pub(super) async fn remove(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, person)): Path<(String, String)>,
) -> Result<Response, Failure> {
    check_owner(&app, &visitor, &person).await?;
    // Who leaves finds nothing there any more.
    let leaves = person == visitor.person.id && !visitor.person.is_operator;
    let members = format!("/accounts/{account}/members?done=member-removed");
    let to = if leaves { "/".to_owned() } else { members };
    app.store
        .change_urgently(visitor.origin(), move |change| {
            people::remove_member(change, &account, &person)
        })
        .await?;
    Ok(Redirect::to(&to).into_response())
}

/// Lays a link aside for the one who made it, who sees it once more where the form is sent again.
pub(super) fn lay_aside(
    app: &App,
    visitor: &Visitor,
    page: String,
    link: &Secret,
) -> Extension<Shelved> {
    let page = Shelved(page);
    app.panel.shelf.put(visitor.session, &page, link.clone(), 0);
    Extension(page)
}

/// Returns the link that a page is to show; who asks for the headers only does not see it.
pub(super) fn shown(app: &App, visitor: &Visitor, method: &Method, page: String) -> Option<Secret> {
    (method == Method::GET).then(|| app.panel.shelf.take(visitor.session, &Shelved(page)))?
}

/// Withdraws an invitation.
pub(super) async fn withdraw(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, link)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let to = format!("/accounts/{account}/members?done=withdrawn");
    app.store
        .change_urgently(visitor.origin(), move |change| {
            links::withdraw(change, Some(&account), &link)
        })
        .await?;
    Ok(Redirect::to(&to).into_response())
}

/// Returns the role that a form names. Only owners make owners.
fn role(visitor: &Visitor, form: &Form) -> Result<Role, ApiError> {
    let name = form.text("role");
    let role = Role::named(name).ok_or_else(|| {
        ApiError::field(
            "role",
            format!("expected owner, admin, developer or viewer, found `{name}`"),
        )
    })?;
    if role == Role::Owner && !visitor.may(Role::Owner) {
        return Err(ApiError::Forbidden("only owners make owners".to_owned()));
    }
    Ok(role)
}

/// Only owners change what owners are, the members of the account's path being meant.
async fn check_owner(app: &App, visitor: &Visitor, person: &str) -> Result<(), ApiError> {
    let (account, person) = (visitor.account()?.id.clone(), person.to_owned());
    let held = app.store.read(move |db| people::role(db, &account, &person)).await?;
    match held {
        None => Err(ApiError::NoSuchPath),
        Some(Role::Owner) if !visitor.may(Role::Owner) => {
            Err(ApiError::Forbidden("only owners change what other owners may do".to_owned()))
        }
        Some(_) => Ok(()),
    }
}

async fn page(
    app: &App,
    visitor: Visitor,
    (email, invited_as): (String, Role),
    errors: Errors,
    link: Option<Secret>,
    asked: &Form,
) -> Result<Response, Failure> {
    let account = visitor.account()?.id.clone();
    let now_ms = Time::now().as_ms();
    let (members, invitations) = app
        .store
        .read(move |db| {
            Ok((people::members(db, &account)?, links::open(db, Some(&account), now_ms)?))
        })
        .await?;
    let frame = Frame::new(visitor, "members", "Members").after(asked);
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(
        &MembersPage { frame, members, invitations, email, invited_as, errors, link },
        is_refused,
    ))
}
