//! Plans, for operators.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form, encode};
use super::frame::{self, Frame};
use super::limit_rows::{self, LimitRow};
use super::markup;
use crate::api::fields::Fields;
use crate::api::plans::{define_with, withdraw};
use crate::app::App;
use crate::session::Visitor;
use crate::store::{Page, Plan, plans};

#[derive(Template)]
#[template(path = "panel/plans.html")]
struct PlansPage {
    frame: Frame,
    plans: Vec<Plan>,
}

/// Lists plans.
pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let plans = app.store.read(move |db| plans::list(db, &Page::everything())).await?;
    let frame = Frame::new(visitor, "plans", "Plans").after(&asked);
    Ok(frame::html(&PlansPage { frame, plans }))
}

#[derive(Template)]
#[template(path = "panel/plan.html")]
struct PlanPage {
    frame: Frame,
    /// Absent for one that is to be made.
    path: Option<String>,
    id: String,
    name: String,
    max_user_keys: String,
    limits: Vec<LimitRow>,
    /// Which limits saving would remove, where that has to be asked.
    drops: String,
    errors: Errors,
    /// Whether it holds what was not saved.
    is_changed: bool,
}

/// Shows the form of a new plan.
pub(super) async fn new(visitor: Visitor, Draft(draft): Draft) -> Result<Response, Failure> {
    if let Some(form) = draft {
        let id = form.text("id").to_owned();
        return Ok(frame::html(&filled_in(visitor, None, id, &form)));
    }
    Ok(frame::html(&PlanPage {
        frame: Frame::new(visitor, "plans", "New plan"),
        path: None,
        id: String::new(),
        name: String::new(),
        max_user_keys: "10".to_owned(),
        limits: vec![LimitRow::blank(0)],
        drops: String::new(),
        errors: Errors::default(),
        is_changed: false,
    }))
}

/// Makes a plan.
pub(super) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let id = form.text("id").to_owned();
    let wanted = id.clone();
    let is_taken = app.store.read(move |db| Ok(plans::get(db, &wanted).is_ok())).await?;
    put(&app, visitor, None, id, is_taken, &form).await
}

/// Shows a plan.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let plan = app.store.read(move |db| plans::get(db, &id)).await?;
    if let Some(form) = draft {
        return Ok(frame::html(&filled_in(visitor, Some(&plan), plan.id.clone(), &form)));
    }
    let limits = plan.limits.iter().enumerate().map(|(number, limit)| LimitRow::of(number, limit));
    Ok(frame::html(&PlanPage {
        frame: Frame::new(visitor, "plans", plan.name.clone()).after(&asked),
        path: Some(path(&plan.id)),
        limits: limits.collect(),
        drops: String::new(),
        max_user_keys: plan.max_user_keys.to_string(),
        id: plan.id,
        name: plan.name,
        errors: Errors::default(),
        is_changed: false,
    }))
}

/// Saves a plan.
pub(super) async fn save(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let wanted = id.clone();
    let before = app.store.read(move |db| plans::get(db, &wanted)).await?;
    put(&app, visitor, Some(before), id, false, &form).await
}

/// Removes a plan that no account has.
pub(super) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    withdraw(&app, &id, visitor.origin()).await?;
    Ok(Redirect::to("/plans?done=plan-deleted").into_response())
}

async fn put(
    app: &App,
    visitor: Visitor,
    before: Option<Plan>,
    id: String,
    is_taken: bool,
    form: &Form,
) -> Result<Response, Failure> {
    let mut page = filled_in(visitor, before.as_ref(), id, form);
    if let Some(reshape) = form.reshapes("limit") {
        reshape.apply(&mut page.limits, |row| row.number, LimitRow::blank);
        return Ok(frame::html(&page));
    }
    let of_before = before.map(|before| before.limits).unwrap_or_default();
    if let Some(drops) = limit_rows::unasked_drops(&of_before, &page.limits, form) {
        page.drops = drops;
        return Ok(frame::html(&page));
    }
    let mut fields = Fields::default();
    let limits = limit_rows::limits(&page.limits, &mut fields);
    let max_user_keys = page.max_user_keys.parse().unwrap_or_else(|_| {
        let found = &page.max_user_keys;
        fields.add("max_user_keys", format!("expected a whole number, found `{found}`"));
        0
    });
    if is_taken {
        fields.add("plan", format!("there is a plan `{}` already", page.id));
    }
    let plan = Plan { id: page.id.clone(), name: page.name.clone(), limits, max_user_keys };
    match define_with(app, page.frame.visitor.origin(), plan, fields).await {
        Ok((_, plan)) => {
            let to = format!("{}?done=plan-saved", path(&plan.id));
            Ok(Redirect::to(&to).into_response())
        }
        Err(error) => {
            page.errors = form_errors(error)?;
            limit_rows::put_errors(&mut page.limits, &page.errors);
            Ok(frame::form_page(&page, true))
        }
    }
}

/// Returns the page of a plan with what was filled in.
fn filled_in(visitor: Visitor, before: Option<&Plan>, id: String, form: &Form) -> PlanPage {
    let path = before.map(|before| path(&before.id));
    let title = if path.is_some() { id.as_str() } else { "New plan" };
    PlanPage {
        frame: Frame::new(visitor, "plans", title),
        path,
        name: form.text("name").to_owned(),
        max_user_keys: form.text("max_user_keys").to_owned(),
        limits: limit_rows::read(form),
        drops: String::new(),
        errors: Errors::default(),
        is_changed: true,
        id,
    }
}

fn path(id: &str) -> String {
    format!("/plans/{}", encode(id))
}
