//! The form in which a key is made or changed.

use latchkey_filter::profile::keys::{KeyRules, ResourceNames};
use latchkey_protocol::right::EVERY;
use latchkey_protocol::{KeyKind, Rule};
use rusqlite::Connection;

use super::failure::Errors;
use super::form::Form;
use super::keys::fingerprint;
use super::limit_rows::{self, LimitRow};
use super::markup::{self, Markup};
use crate::api::fields::Fields;
use crate::api::keys::{CreateKey, EditKey};
use crate::store::{Key, Page, StoreError, resources};
use crate::time::Time;

/// What stands in the form.
#[derive(Debug)]
pub(super) struct KeyForm {
    pub(super) name: String,
    pub(super) environment: String,
    pub(super) note: String,
    /// As `datetime-local` wants it, in UTC.
    pub(super) expires_at: String,
    pub(super) rules: Vec<RuleRow>,
    /// One on each line.
    pub(super) networks: String,
    pub(super) enforce: bool,
    pub(super) limits: Vec<LimitRow>,
    /// Which limits saving would remove, where that has to be asked.
    pub(super) drops: String,
    pub(super) choices: Choices,
    pub(super) errors: Errors,
    /// Whether it holds what was not saved.
    pub(super) is_changed: bool,
    /// What tells whether someone changed the key since the form was opened.
    pub(super) seen: String,
}

/// A rule as a row of the form.
#[derive(Clone, Debug)]
pub(super) struct RuleRow {
    /// Number in the names of its fields.
    pub(super) number: usize,
    pub(super) resource: String,
    pub(super) actions: Vec<ActionBox>,
    /// What is wrong with `resource` and `actions`.
    errors: Errors,
}

/// An action as a box to tick.
#[derive(Clone, Debug)]
pub(super) struct ActionBox {
    pub(super) action: String,
    pub(super) label: String,
    pub(super) is_ticked: bool,
}

/// What there is to choose from.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    /// Names of content types; if empty, a name is typed in.
    pub(super) resources: Vec<String>,
    actions: Vec<String>,
}

impl Choices {
    /// Returns what keys of an account can have rules on.
    pub(super) fn of(db: &Connection, account: &str, rules: &KeyRules) -> Result<Self, StoreError> {
        let resources = match &rules.resources {
            ResourceNames::Listed(names) => names.clone(),
            ResourceNames::Named { .. } => {
                let all = resources::list(db, account, &Page::everything())?;
                all.into_iter().map(|resource| resource.name).collect()
            }
        };
        Ok(Self { resources, actions: rules.actions.clone() })
    }

    /// Returns the row that nothing is filled into.
    pub(super) fn blank_row(&self, number: usize) -> RuleRow {
        self.clone().row(number, &Rule { resource: String::new(), actions: Vec::new() })
    }

    /// Reports whether a name is typed in: there are none to choose from, or too many for each row.
    pub(super) fn is_typed_in(&self) -> bool {
        self.resources.is_empty() || self.resources.len() > MAX_CHOICES
    }

    /// Returns the row of a rule; a resource that is no choice becomes one.
    fn row(&mut self, number: usize, rule: &Rule) -> RuleRow {
        let is_choice = rule.resource.is_empty()
            || rule.resource == EVERY
            || self.resources.contains(&rule.resource);
        if !is_choice && !self.resources.is_empty() {
            self.resources.push(rule.resource.clone());
        }
        // What is no longer an action of the API can be seen and taken away.
        let gone =
            rule.actions.iter().filter(|action| *action != EVERY && !self.actions.contains(action));
        let every = EVERY.to_owned();
        let boxes = self.actions.iter().chain(gone).chain(std::iter::once(&every));
        let actions = boxes.map(|action| ActionBox {
            label: if action == EVERY { "ALL".to_owned() } else { markup::action_name(action) },
            is_ticked: rule.actions.contains(action),
            action: action.clone(),
        });
        let actions = actions.collect();
        RuleRow { number, resource: rule.resource.clone(), actions, errors: Errors::default() }
    }
}

impl KeyForm {
    /// Returns the form of a key that is to be made.
    pub(super) fn blank(choices: Choices) -> Self {
        let rules = vec![choices.blank_row(0)];
        Self {
            name: String::new(),
            environment: String::new(),
            note: String::new(),
            expires_at: String::new(),
            rules,
            networks: String::new(),
            enforce: true,
            limits: Vec::new(),
            drops: String::new(),
            choices,
            errors: Errors::default(),
            is_changed: false,
            seen: String::new(),
        }
    }

    /// Returns the form of a key that there is.
    pub(super) fn of(key: &Key, mut choices: Choices) -> Self {
        let rules = key.rules.iter().enumerate().map(|(number, rule)| choices.row(number, rule));
        Self {
            name: key.name.clone(),
            environment: key.environment.clone().unwrap_or_default(),
            note: key.note.clone().unwrap_or_default(),
            expires_at: key.expires_at.map(shown).unwrap_or_default(),
            rules: rules.collect(),
            networks: key.allowed_networks.join("\n"),
            enforce: key.enforce,
            limits: key
                .limits
                .iter()
                .enumerate()
                .map(|(number, limit)| LimitRow::of(number, limit))
                .collect(),
            drops: String::new(),
            choices,
            errors: Errors::default(),
            is_changed: false,
            seen: fingerprint(key),
        }
    }

    /// Returns what was filled in.
    pub(super) fn read(form: &Form, mut choices: Choices) -> Self {
        let rows = form.rows("rule").into_iter().map(|number| {
            let actions = form.all(&format!("rule-{number}-action")).map(str::to_owned).collect();
            let resource = form.text(&format!("rule-{number}-resource")).to_owned();
            choices.row(number, &Rule { resource, actions })
        });
        Self {
            name: form.text("name").to_owned(),
            environment: form.text("environment").to_owned(),
            note: form.lines("note").unwrap_or_default(),
            expires_at: form.text("expires_at").to_owned(),
            rules: rows.collect(),
            networks: form.lines("networks").unwrap_or_default(),
            enforce: !form.has("shadow"),
            limits: limit_rows::read(form),
            drops: String::new(),
            choices,
            errors: Errors::default(),
            is_changed: false,
            seen: form.text("seen").to_owned(),
        }
    }

    /// Returns what was filled in before the session ended, or else what there is.
    pub(super) fn draft_or(
        draft: Option<&Form>,
        choices: Choices,
        other: impl FnOnce(Choices) -> Self,
    ) -> Self {
        match draft {
            Some(form) => Self { is_changed: true, ..Self::read(form, choices) },
            None => other(choices),
        }
    }

    /// Does what a button within the form asks for without saving: a row more or less. Reports whether
    /// one did.
    pub(super) fn was_reshaped(&mut self, form: &Form) -> bool {
        let is_reshaped = if let Some(reshape) = form.reshapes("rule") {
            let row = |number| self.choices.blank_row(number);
            reshape.apply(&mut self.rules, |row| row.number, row);
            true
        } else if let Some(reshape) = form.reshapes("limit") {
            reshape.apply(&mut self.limits, |row| row.number, LimitRow::blank);
            true
        } else {
            false
        };
        self.is_changed |= is_reshaped;
        is_reshaped
    }

    /// Returns the key to make, and what could not be read. Rows that nothing was filled into are left out.
    pub(super) fn request_to_make(&self) -> (CreateKey, Fields) {
        let mut fields = Fields::default();
        let limits = limit_rows::limits(&self.limits, &mut fields);
        let expires_at = self.expiry(None, &mut fields);
        let body = CreateKey {
            name: self.name.clone(),
            rules: Some(self.rules()),
            enforce: self.enforce,
            expires_at,
            environment: filled(&self.environment),
            allowed_networks: Some(self.networks()),
            limits: Some(limits),
            note: filled(&self.note),
            replaces: None,
        };
        (body, fields)
    }

    /// Returns what to change of a key, and what could not be read; what an Application key has fixed is left
    /// out.
    pub(super) fn request_to_change(&self, key: &Key) -> (EditKey, Fields) {
        let is_user_defined = key.kind == KeyKind::UserDefined;
        let mut fields = Fields::default();
        let limits = limit_rows::limits(&self.limits, &mut fields);
        let expires_at = self.expiry(key.expires_at, &mut fields);
        let body = EditKey {
            name: Some(self.name.clone()),
            rules: is_user_defined.then(|| self.rules()),
            enforce: is_user_defined.then_some(self.enforce),
            // One that has passed can stay as it is, and only so.
            expires_at: (expires_at != key.expires_at).then_some(expires_at),
            environment: Some(filled(&self.environment)),
            allowed_networks: Some(Some(self.networks())),
            limits: Some(Some(limits)),
            note: Some(filled(&self.note)),
        };
        (body, fields)
    }

    /// Puts beside each field what is wrong with it.
    pub(super) fn with_errors(mut self, errors: Errors) -> Self {
        self.is_changed = true;
        self.errors.0.extend(errors.0);
        for (index, row) in self.rules.iter_mut().filter(|row| !row.is_blank()).enumerate() {
            row.errors = self.errors.inside(&format!("rules[{index}]"));
            // In the words of the form.
            if row.resource.is_empty() {
                row.errors = Errors(vec![said("resource", "choose a content type")]);
            } else if row.actions.iter().all(|action| !action.is_ticked) {
                row.errors.0.retain(|(name, _)| name != "actions");
                row.errors.0.push(said("actions", "tick at least one action"));
            }
        }
        limit_rows::put_errors(&mut self.limits, &self.errors);
        self
    }

    /// Returns what is wrong and stands beside no field.
    pub(super) fn other_errors(&self) -> Vec<String> {
        let shown =
            ["name", "environment", "note", "expires_at", "allowed_networks", "rules", "limits"];
        self.errors.besides(&shown)
    }

    fn rules(&self) -> Vec<Rule> {
        let filled = self.rules.iter().filter(|row| !row.is_blank());
        let rule = |row: &RuleRow| Rule {
            resource: row.resource.clone(),
            actions: row
                .actions
                .iter()
                .filter(|action| action.is_ticked)
                .map(|action| action.action.clone())
                .collect(),
        };
        filled.map(rule).collect()
    }

    fn networks(&self) -> Vec<String> {
        let lines = self.networks.split(['\n', ',']).map(str::trim);
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Returns the time that was filled in; the one before if it is shown the same.
    fn expiry(&self, before: Option<Time>, fields: &mut Fields) -> Option<Time> {
        if self.expires_at.is_empty() {
            return None;
        }
        if before.is_some_and(|before| shown(before) == self.expires_at) {
            return before;
        }
        // Browsers leave out seconds that are zero.
        let seconds = if self.expires_at.len() == "2026-01-01T00:00".len() { ":00Z" } else { "Z" };
        let time = serde_json::from_value(format!("{}{seconds}", self.expires_at).into());
        if time.is_err() {
            let found = &self.expires_at;
            let message = format!("expected a day and a time (UTC), found `{found}`");
            fields.add("expires_at", message);
        }
        time.ok()
    }
}

impl RuleRow {
    /// Returns the attributes of a field that tell of what is wrong with it.
    pub(super) fn mark(&self, field: &str) -> Markup {
        self.errors.mark(field, &format!("rule-{}-{field}", self.number))
    }

    /// Returns what is wrong with a field.
    pub(super) fn said(&self, field: &str) -> Markup {
        self.errors.said(field, &format!("rule-{}-{field}", self.number))
    }

    /// Reports whether nothing was filled in.
    fn is_blank(&self) -> bool {
        self.resource.is_empty() && self.actions.iter().all(|action| !action.is_ticked)
    }
}

/// From how many on a list in each row would make pages slow, and finding a name in it, too.
const MAX_CHOICES: usize = 100;

/// Returns a time as `datetime-local` shows it, in UTC.
fn shown(at: Time) -> String {
    at.rfc3339().chars().take("2026-01-01T00:00".len()).collect()
}

fn said(field: &str, message: &str) -> (String, String) {
    (field.to_owned(), message.to_owned())
}

fn filled(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn choices() -> Choices {
        let actions = ["read", "create"].map(str::to_owned).to_vec();
        Choices { resources: vec!["posts".to_owned()], actions }
    }

    #[test]
    fn form_becomes_the_key_that_was_filled_in() {
        let form = Form::parse(
            b"name=Web&environment=&rule-0-resource=posts&rule-0-action=read&rule-3-resource=\
              &rule-5-resource=tags&rule-5-action=create&networks=192.0.2.0/24%0D%0A%0D%0A10.0.0.1\
              &expires_at=2030-01-02T03:04&limit-1-name=calls&limit-1-amount=1,000&limit-1-buckets=30\
              &limit-1-unit=86400",
        ).unwrap();
        let filled = KeyForm::read(&form, choices());
        assert_eq!(filled.choices.resources, ["posts", "tags"], "what is no choice becomes one");
        let (key, fields) = filled.request_to_make();
        assert!(fields.finish().is_ok());
        assert_eq!(key.name, "Web");
        assert_eq!(key.environment, None);
        let rules: Vec<String> = key.rules.unwrap().iter().map(markup::rule).collect();
        assert_eq!(rules, ["posts: READ", "tags: CREATE"]);
        assert_eq!(key.allowed_networks.unwrap(), ["192.0.2.0/24", "10.0.0.1"]);
        assert_eq!(key.expires_at.unwrap().rfc3339(), "2030-01-02T03:04:00Z");
        assert_eq!(key.limits.unwrap()[0].amount, 1000);
    }

    /// A key that was made with all actions had only those of its day once its note was edited.
    #[test]
    fn form_of_a_key_keeps_its_rules_as_they_are() {
        for actions in [&["*"][..], &["read"], &["create", "read", "gone"]] {
            let rule = Rule {
                resource: "tags".to_owned(),
                actions: actions.iter().map(|&action| action.to_owned()).collect(),
            };
            let mut choices = choices();
            let row = choices.row(0, &rule);
            let form = KeyForm { rules: vec![row], ..KeyForm::blank(choices) };
            let [saved] = form.rules().try_into().unwrap();
            let set = |rule: &Rule| rule.actions.iter().cloned().collect::<BTreeSet<_>>();
            assert_eq!(set(&saved), set(&rule));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_beside_its_field() {
        let form = Form::parse(
            b"name=Web&expires_at=soon&limit-0-name=calls&limit-0-amount=many&limit-0-buckets=1\
              &limit-0-unit=1",
        )
        .unwrap();
        let filled = KeyForm::read(&form, choices());
        let (_, fields) = filled.request_to_make();
        let errors = crate::panel::failure::form_errors(fields.finish().unwrap_err()).unwrap();
        let filled = filled.with_errors(errors);
        assert_eq!(filled.errors.of("expires_at").len(), 1);
        let said = filled.limits[0].said("amount").to_string();
        assert!(said.contains("Expected a whole number, found <code>many</code>."), "{said}");
        assert!(filled.other_errors().is_empty());
    }

    #[test]
    fn rows_come_and_go_without_scripts() {
        let form = Form::parse(b"rule-4-resource=posts&add-rule=1").unwrap();
        let mut filled = KeyForm::read(&form, choices());
        assert!(filled.was_reshaped(&form));
        assert_eq!(filled.rules.iter().map(|row| row.number).collect::<Vec<_>>(), [4, 5]);
        let form = Form::parse(b"rule-4-resource=posts&rule-5-resource=&remove-rule=4").unwrap();
        let mut filled = KeyForm::read(&form, choices());
        assert!(filled.was_reshaped(&form));
        assert_eq!(filled.rules.iter().map(|row| row.number).collect::<Vec<_>>(), [5]);
        assert!(!filled.was_reshaped(&Form::parse(b"name=x").unwrap()));
    }
}
