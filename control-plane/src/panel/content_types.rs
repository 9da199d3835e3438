//! Content types with their relations.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use latchkey_filter::profile::keys::ResourceNames;
use latchkey_protocol::{Relation, Resource};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form, encode};
use super::frame::{self, Frame};
use super::markup;
use super::picture::Picture;
use super::relation_rows::{self, RelationRow};
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

/// Shows the form of a new content type.
pub(super) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
) -> Result<Response, Failure> {
    if let Some(form) = draft {
        let name = form.text("name").to_owned();
        return page(
            &app,
            visitor,
            None,
            name,
            relation_rows::read(&form),
            Errors::default(),
            None,
        )
        .await;
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
        return page(
            &app,
            visitor,
            path,
            name,
            relation_rows::read(&form),
            Errors::default(),
            None,
        )
        .await;
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
    let mut rows = relation_rows::read(form);
    if let Some(reshape) = form.reshapes("relation") {
        reshape.apply(&mut rows, |row| row.number, RelationRow::blank);
        return page(app, visitor, path, name, rows, Errors::default(), None).await;
    }
    rows.retain(|row| !(row.field.is_empty() && row.targets.is_empty()));
    let account = visitor.account()?.id.clone();
    relation_rows::check_all(&mut rows, app.key_rules(&account).await?);
    let mut errors = Errors::default();
    if path.is_none() && exists(app, &account, &name).await? {
        errors.add("name", &format!("there is a content type `{name}` already"));
    }
    let resource = relation_rows::resource(&name, &rows);
    if errors.is_empty() && rows.iter().all(|row| row.errors.is_empty()) {
        match define(app, &account, visitor.origin(), resource).await {
            Ok(_) => {
                let to = format!("/accounts/{account}/content-types?done=type-saved");
                return Ok(Redirect::to(&to).into_response());
            }
            Err(error) => errors = form_errors(error)?,
        }
    } else if let Err(error) = check(&relation_rows::named(&name), app.key_rules(&account).await?) {
        errors.0.extend(form_errors(error)?.0);
    }
    page(app, visitor, path, name, rows, errors, None).await
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
