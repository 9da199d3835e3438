//! Accounts, for operators.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::markup;
use crate::api::accounts::{CreateAccount, EditAccount, open, revise, set_suspended};
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::{Account, Page, Plan, accounts, plans};

#[derive(Template)]
#[template(path = "panel/accounts.html")]
struct AccountsPage {
    frame: Frame,
    accounts: Vec<Account>,
    search: String,
    /// Id of the last account shown, if there are others.
    after: Option<String>,
    plans: Vec<Plan>,
    /// Name and title of each profile.
    profiles: Vec<(String, String)>,
    /// What was filled in: id, name, plan, profile.
    filled: [String; 4],
    errors: Errors,
}

impl AccountsPage {
    /// Reports whether a plan or a profile is what was chosen.
    fn is_chosen(&self, name: &str) -> bool {
        let [_, _, plan, profile] = &self.filled;
        plan == name || profile == name
    }
}

/// Lists accounts.
pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let filled = draft.as_ref().map(filled_in).unwrap_or_default();
    page(&app, visitor, &asked, filled, Errors::default()).await
}

/// Makes an account.
pub(super) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let body = CreateAccount {
        id: form.filled("id"),
        name: form.text("name").to_owned(),
        plan: form.filled("plan"),
        profile: form.text("profile").to_owned(),
    };
    match open(&app, visitor.origin(), body).await {
        Ok(account) => {
            let to = format!("/accounts/{}/keys?done=account-created", account.id);
            Ok(Redirect::to(&to).into_response())
        }
        Err(error) => {
            let filled = filled_in(&form);
            let mut errors = form_errors(error)?;
            // All that is in the way of a new account beside its fields: its id is another's.
            errors.0.iter_mut().filter(|(name, _)| name.is_empty()).for_each(|(name, _)| {
                "id".clone_into(name);
            });
            page(&app, visitor, &Form::default(), filled, errors).await
        }
    }
}

/// Returns what was filled in: id, name, plan, profile.
fn filled_in(form: &Form) -> [String; 4] {
    ["id", "name", "plan", "profile"].map(|name| form.text(name).to_owned())
}

async fn page(
    app: &App,
    visitor: Visitor,
    asked: &Form,
    filled: [String; 4],
    errors: Errors,
) -> Result<Response, Failure> {
    let search = asked.text("search").to_owned();
    let page = Page { after: asked.filled("after"), limit: ACCOUNTS_PER_PAGE };
    let text = search.clone();
    let (mut accounts, plans) =
        app.store.read(move |db| Ok((accounts::search(db, &text, &page)?, all_plans(db)?))).await?;
    let has_more = accounts.len() > ACCOUNTS_PER_PAGE;
    accounts.truncate(ACCOUNTS_PER_PAGE);
    let after = accounts.last().filter(|_| has_more).map(|account| account.id.clone());
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(
        &AccountsPage {
            frame: Frame::new(visitor, "accounts", "Accounts").after(asked),
            accounts,
            search,
            after,
            plans,
            profiles: app.profiles.all().map(|p| (p.name.clone(), p.title.clone())).collect(),
            filled,
            errors,
        },
        is_refused,
    ))
}

#[derive(Template)]
#[template(path = "panel/settings.html")]
struct SettingsPage {
    frame: Frame,
    name: String,
    plan: String,
    plans: Vec<Plan>,
    errors: Errors,
}

/// Shows the settings of an account.
pub(super) async fn settings(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let account = visitor.account()?.clone();
    let (name, plan) = match draft {
        Some(form) => (form.text("name").to_owned(), form.text("plan").to_owned()),
        None => (account.name, account.plan),
    };
    settings_page(&app, visitor, name, plan, Errors::default(), &asked).await
}

/// Saves the settings of an account.
pub(super) async fn save(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let id = visitor.account()?.id.clone();
    let (name, plan) = (form.text("name").to_owned(), form.text("plan").to_owned());
    let body = EditAccount { name: Some(name.clone()), plan: Some(plan.clone()), profile: None };
    match revise(&app, &id, visitor.origin(), body).await {
        Ok(_) => {
            let to = format!("/accounts/{id}/settings?done=account-saved");
            Ok(Redirect::to(&to).into_response())
        }
        Err(error) => {
            settings_page(&app, visitor, name, plan, form_errors(error)?, &Form::default()).await
        }
    }
}

/// Suspends an account.
pub(super) async fn suspend(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    set_suspended(&app, &id, visitor.origin(), true).await?;
    let since = app.store.watch_revision().borrow().to_string();
    let to = format!("/accounts/{id}/settings?done=account-suspended&since={since}");
    Ok(Redirect::to(&to).into_response())
}

/// Ends the suspension of an account.
pub(super) async fn resume(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    set_suspended(&app, &id, visitor.origin(), false).await?;
    let since = app.store.watch_revision().borrow().to_string();
    let to = format!("/accounts/{id}/settings?done=account-resumed&since={since}");
    Ok(Redirect::to(&to).into_response())
}

/// Removes an account with all that it owns, if its id was typed in.
pub(super) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    if form.text("confirm") != id {
        let account = visitor.account()?.clone();
        let message = format!("expected `{id}`, the id of the account that is removed");
        let errors = form_errors(ApiError::field("confirm", message))?;
        let form = Form::default();
        return settings_page(&app, visitor, account.name, account.plan, errors, &form).await;
    }
    app.store
        .change_urgently(visitor.origin(), move |change| accounts::delete(change, &id))
        .await?;
    Ok(Redirect::to("/accounts?done=account-deleted").into_response())
}

async fn settings_page(
    app: &App,
    visitor: Visitor,
    name: String,
    plan: String,
    errors: Errors,
    asked: &Form,
) -> Result<Response, Failure> {
    let plans = app.store.read(all_plans).await?;
    let frame = Frame::new(visitor, "settings", "Settings").after(asked);
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(&SettingsPage { frame, name, plan, plans, errors }, is_refused))
}

fn all_plans(db: &rusqlite::Connection) -> Result<Vec<Plan>, crate::store::StoreError> {
    plans::list(db, &Page::everything())
}

/// A screen or two.
const ACCOUNTS_PER_PAGE: usize = 50;
