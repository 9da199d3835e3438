//! Content types with their relations.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use latchkey_filter::profile::keys::{KeyRules, ResourceNames};
use latchkey_protocol::right::EVERY;
use latchkey_protocol::{Relation, Resource};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form, encode};
use super::frame::{self, Frame};
use super::markup::{self, Markup};
use super::picture::Picture;
use crate::api::resources::{check, define};
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::{Page, resources};

#[derive(Template)]
#[template(path = "panel/content_types.html")]
struct ListPage {
    frame: Frame,
    types: Vec<TypeRow>,
    picture: Option<Picture>,
    /// The names, where the API has the same for all accounts.
    listed: Vec<String>,
}

struct TypeRow {
    name: String,
    path: String,
    /// Field and where it points.
    relations: Vec<(String, String)>,
}

/// Lists the content types.
pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let account = visitor.account()?.clone();
    let listed = match &app.profile(&account.profile)?.keys.resources {
        ResourceNames::Listed(names) => names.clone(),
        ResourceNames::Named { .. } => Vec::new(),
    };
    let all = all(&app, &account.id).await?;
    let types = all.iter().map(|resource| TypeRow {
        name: resource.name.clone(),
        path: path(&account.id, &resource.name),
        relations: relations(resource),
    });
    Ok(frame::html(&ListPage {
        types: types.collect(),
        picture: Picture::of(&all),
        frame: Frame::new(visitor, "content-types", "Content types").after(&asked),
        listed,
    }))
}

#[derive(Template)]
#[template(path = "panel/content_type.html")]
struct TypePage {
    frame: Frame,
    /// Absent for one that is to be made.
    path: Option<String>,
    name: String,
    rows: Vec<RelationRow>,
    /// Names of all types.
    names: Vec<String>,
    errors: Errors,
    /// Whether it holds what was not saved.
    is_changed: bool,
}

impl TypePage {
    /// Returns what is wrong and stands beside no field.
    fn other_errors(&self) -> Vec<String> {
        self.errors.besides(&["name"])
    }
}

/// A relation as a row of the form.
#[derive(Clone, Debug)]
struct RelationRow {
    number: usize,
    field: String,
    /// Names of types with commas between, or `*`.
    targets: String,
    /// What is wrong with `field` and `targets`.
    errors: Errors,
}

/// Shows the form of a new content type.
pub(super) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
) -> Result<Response, Failure> {
    if let Some(form) = draft {
        let name = form.text("name").to_owned();
        return page(&app, visitor, None, name, read_rows(&form), Errors::default(), None).await;
    }
    page(&app, visitor, None, String::new(), Vec::new(), Errors::default(), Some(&Form::default()))
        .await
}

/// Makes a content type.
pub(super) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let name = form.text("name").to_owned();
    put(&app, visitor, None, name, &form).await
}

/// Shows a content type.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, name)): Path<(String, String)>,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    if let Some(form) = draft {
        let path = Some(path(&account, &name));
        return page(&app, visitor, path, name, read_rows(&form), Errors::default(), None).await;
    }
    let wanted = name.clone();
    let resource = app.store.read(move |db| resources::get(db, &account, &wanted)).await?;
    let rows = resource.relations.iter().enumerate().map(|(number, (field, relation))| {
        let targets = match relation {
            Relation::Any(any) => any.clone(),
            Relation::Some(names) => names.join(", "),
        };
        RelationRow { number, field: field.clone(), targets, errors: Errors::default() }
    });
    let rows = rows.collect();
    let path = Some(path(&visitor.account()?.id, &name));
    page(&app, visitor, path, name, rows, Errors::default(), Some(&asked)).await
}

/// Saves a content type.
pub(super) async fn save(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, name)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    if !exists(&app, &account, &name).await? {
        return Err(ApiError::NoSuchPath.into());
    }
    let path = Some(path(&account, &name));
    put(&app, visitor, path, name, &form).await
}

/// Removes a content type.
pub(super) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, name)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let to = format!("/accounts/{account}/content-types?done=type-deleted");
    app.store
        .change(visitor.origin(), move |change| resources::delete(change, &account, &name))
        .await?;
    Ok(Redirect::to(&to).into_response())
}

async fn put(
    app: &App,
    visitor: Visitor,
    path: Option<String>,
    name: String,
    form: &Form,
) -> Result<Response, Failure> {
    let mut rows = read_rows(form);
    if let Some(reshape) = form.reshapes("relation") {
        reshape.apply(&mut rows, |row| row.number, RelationRow::blank);
        return page(app, visitor, path, name, rows, Errors::default(), None).await;
    }
    rows.retain(|row| !(row.field.is_empty() && row.targets.is_empty()));
    let account = visitor.account()?.id.clone();
    check_rows(&mut rows, app.key_rules(&account).await?);
    let mut errors = Errors::default();
    if path.is_none() && exists(app, &account, &name).await? {
        errors.add("name", &format!("there is a content type `{name}` already"));
    }
    let resource = resource(&name, &rows);
    if errors.is_empty() && rows.iter().all(|row| row.errors.is_empty()) {
        match define(app, &account, visitor.origin(), resource).await {
            Ok(_) => {
                let to = format!("/accounts/{account}/content-types?done=type-saved");
                return Ok(Redirect::to(&to).into_response());
            }
            Err(error) => errors = form_errors(error)?,
        }
    } else if let Err(error) = check(&named(&name), app.key_rules(&account).await?) {
        errors.0.extend(form_errors(error)?.0);
    }
    page(app, visitor, path, name, rows, errors, None).await
}

impl RelationRow {
    /// Returns what it describes.
    fn relation(&self) -> Relation {
        let names = self.targets.split([',', ' ']).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names == [EVERY] { Relation::Any(EVERY.to_owned()) } else { Relation::Some(names) }
    }

    /// Returns the attributes of a field that tell of what is wrong with it.
    fn mark(&self, field: &str) -> Markup {
        self.errors.mark(field, &format!("relation-{}-{field}", self.number))
    }

    /// Returns what is wrong with a field.
    fn said(&self, field: &str) -> Markup {
        self.errors.said(field, &format!("relation-{}-{field}", self.number))
    }

    fn blank(number: usize) -> Self {
        Self { number, field: String::new(), targets: String::new(), errors: Errors::default() }
    }
}

/// Reads the rows of a form.
fn read_rows(form: &Form) -> Vec<RelationRow> {
    form.rows("relation")
        .into_iter()
        .map(|number| RelationRow {
            number,
            field: form.text(&format!("relation-{number}-field")).to_owned(),
            targets: form.text(&format!("relation-{number}-targets")).to_owned(),
            errors: Errors::default(),
        })
        .collect()
}

/// Notes in each row what is wrong with it.
fn check_rows(rows: &mut [RelationRow], rules: &KeyRules) {
    let fields: Vec<String> = rows.iter().map(|row| row.field.clone()).collect();
    for row in rows.iter_mut() {
        let mut errors = Errors::default();
        let any = Relation::Any(EVERY.to_owned());
        if fields.iter().filter(|field| **field == row.field).count() > 1 {
            errors.add("field", "the field is there twice");
        } else if let Some(message) = wrong(&row.field, any, rules) {
            errors.add("field", &message);
        }
        // With a field that is right, what is wrong is what it points at.
        if let Some(message) = wrong("field", row.relation(), rules) {
            errors.add("targets", &message);
        }
        row.errors = errors;
    }
}

/// Returns what is wrong with a relation, if anything is.
fn wrong(field: &str, relation: Relation, rules: &KeyRules) -> Option<String> {
    let mut resource = named("any");
    resource.relations.insert(field.to_owned(), relation);
    let errors = form_errors(check(&resource, rules).err()?).ok()?;
    let of_relation = errors.0.into_iter().find(|(name, _)| name.starts_with("relations"));
    of_relation.map(|(_, message)| message)
}

/// Returns what the rows of a form describe.
fn resource(name: &str, rows: &[RelationRow]) -> Resource {
    let mut resource = named(name);
    resource.relations = rows.iter().map(|row| (row.field.clone(), row.relation())).collect();
    resource
}

/// Returns a content type without relations.
fn named(name: &str) -> Resource {
    Resource { name: name.to_owned(), relations: BTreeMap::new() }
}

async fn exists(app: &App, account: &str, name: &str) -> Result<bool, ApiError> {
    Ok(all(app, account).await?.iter().any(|resource| resource.name == name))
}

async fn all(app: &App, account: &str) -> Result<Vec<Resource>, ApiError> {
    let account = account.to_owned();
    Ok(app.store.read(move |db| resources::list(db, &account, &Page::everything())).await?)
}

async fn page(
    app: &App,
    visitor: Visitor,
    path: Option<String>,
    name: String,
    rows: Vec<RelationRow>,
    errors: Errors,
    // Absent where it holds what was not saved.
    asked: Option<&Form>,
) -> Result<Response, Failure> {
    let names = all(app, &visitor.account()?.id).await?;
    let title = if path.is_some() { name.clone() } else { "New content type".to_owned() };
    let frame = Frame::new(visitor, "content-types", title);
    let is_refused = !errors.is_empty() || rows.iter().any(|row| !row.errors.is_empty());
    Ok(frame::form_page(
        &TypePage {
            frame: match asked {
                Some(asked) => frame.after(asked),
                None => frame,
            },
            is_changed: asked.is_none(),
            path,
            name,
            rows,
            names: names.into_iter().map(|resource| resource.name).collect(),
            errors,
        },
        is_refused,
    ))
}

fn path(account: &str, name: &str) -> String {
    format!("/accounts/{account}/content-types/{}", encode(name))
}

fn relations(resource: &Resource) -> Vec<(String, String)> {
    let relation = |(field, relation): (&String, &Relation)| {
        let targets = match relation {
            Relation::Any(_) => "any type".to_owned(),
            Relation::Some(names) => names.join(", "),
        };
        (field.clone(), targets)
    };
    resource.relations.iter().map(relation).collect()
}
