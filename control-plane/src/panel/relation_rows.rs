//! Relations of a content type as rows of a form.

use std::collections::BTreeMap;

use latchkey_filter::profile::keys::KeyRules;
use latchkey_protocol::right::EVERY;
use latchkey_protocol::{Relation, Resource};

use super::failure::{Errors, form_errors};
use super::form::Form;
use super::markup::Markup;
use crate::api::resources::check;

/// A relation as a row of the form.
#[derive(Clone, Debug)]
pub(super) struct RelationRow {
    /// Number in the names of its fields.
    pub(super) number: usize,
    pub(super) field: String,
    /// Names of types with commas between, or `*`.
    pub(super) targets: String,
    /// What is wrong with `field` and `targets`.
    pub(super) errors: Errors,
}

impl RelationRow {
    /// Returns what it describes.
    fn relation(&self) -> Relation {
        let names = self.targets.split([',', ' ']).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names == [EVERY] { Relation::Any(EVERY.to_owned()) } else { Relation::Some(names) }
    }

    /// Returns the attributes of a field that tell of what is wrong with it.
    pub(super) fn mark(&self, field: &str) -> Markup {
        self.errors.mark(field, &format!("relation-{}-{field}", self.number))
    }

    /// Returns what is wrong with a field.
    pub(super) fn said(&self, field: &str) -> Markup {
        self.errors.said(field, &format!("relation-{}-{field}", self.number))
    }

    /// Returns the row that nothing is filled into.
    pub(super) fn blank(number: usize) -> Self {
        Self { number, field: String::new(), targets: String::new(), errors: Errors::default() }
    }
}

/// Reads the rows of a form.
pub(super) fn read(form: &Form) -> Vec<RelationRow> {
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
pub(super) fn check_all(rows: &mut [RelationRow], rules: &KeyRules) {
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
pub(super) fn resource(name: &str, rows: &[RelationRow]) -> Resource {
    let mut resource = named(name);
    resource.relations = rows.iter().map(|row| (row.field.clone(), row.relation())).collect();
    resource
}

/// Returns a content type without relations.
pub(super) fn named(name: &str) -> Resource {
    Resource { name: name.to_owned(), relations: BTreeMap::new() }
}
