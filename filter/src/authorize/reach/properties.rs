//! What filters and sort orders ask about.
//!
//! Whoever filters or sorts by a property of a related object learns of it without reading it: so a
//! property path that names a relation needs what the related objects need.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

use latchkey_protocol::right::EVERY;

use super::graphql::MAX_WORK;
use super::value::Value;
use super::{Asked, Part, Reach};
use crate::authorize::Rejection;
use crate::profile::routes::{PropertyForm, PropertyParameter};
use crate::resources::{ResourceId, Resources, Role, Target, role};

/// Adds what the parameters of a route need by which its answer is filtered or sorted.
pub(super) fn add<'p>(
    asked: &Asked<'_, 'p>,
    parameters: &'p [PropertyParameter],
    reach: &mut Reach<'p>,
) -> Result<(), Rejection> {
    if !parameters.iter().any(|given| asked.query.may_have(&given.parameter)) {
        return Ok(());
    }
    let resources = asked.key.account.resources();
    let names = reach.resources();
    let ids: Vec<Option<ResourceId>> = names.iter().map(|name| resources.find(name)).collect();
    let of =
        Around { known: ids.iter().copied().flatten().collect(), has_unknown: ids.contains(&None) };
    for PropertyParameter { parameter: name, form, action, own_fields } in parameters {
        let mut named = Properties::new(resources, own_fields, &[], MAX_WORK);
        for parameter in asked.query.judged(name)? {
            let unreadable =
                |expected: &str| Rejection::Parameter(format!("`{name}`: expected {expected}"));
            if !parameter.is_cleanly_encoded() {
                return Err(unreadable("it percent-encoded so that all read it alike"));
            }
            match form {
                PropertyForm::Json => match serde_json::from_slice(&parameter.value) {
                    Ok(value @ (Value::Object(_) | Value::List(_))) => named.look(&value, &of),
                    Ok(_) | Err(_) => return Err(unreadable("an object in JSON")),
                },
                PropertyForm::Path => match std::str::from_utf8(&parameter.value) {
                    Ok(text) => named.look_at_paths(text, &of),
                    Err(_) => return Err(unreadable("UTF-8")),
                },
            }
        }
        match named.reached() {
            None => return Err(Rejection::Parameter(format!("`{name}`: expected less of it"))),
            Some((Reached { has_everything, ids }, _)) => {
                for id in ids.into_iter().collect::<BTreeSet<_>>() {
                    reach.add_right(resources.name(id), action, Part::Parameter(name));
                }
                if has_everything {
                    reach.add_right(EVERY, action, Part::Parameter(name));
                }
            }
        }
    }
    Ok(())
}

/// Finds out which relations are named in values.
pub(super) struct Properties<'r> {
    resources: &'r Resources,
    /// What variables may stand for.
    variables: &'r [(Cow<'r, str>, Value<'r>)],
    /// Fields that lead nowhere else, also of a resource whose relations are not known.
    own_fields: &'r [String],
    reached: Reached,
    /// How many relations may still be looked at.
    work_left: usize,
}

/// What relations lead to.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Whether it may be anything.
    pub(super) has_everything: bool,
    /// These, some more than once.
    pub(super) ids: Vec<ResourceId>,
}

/// The resources of which properties are named.
#[derive(Clone, Debug)]
pub(super) struct Around {
    known: Rc<[ResourceId]>,
    /// Whether there are some that are not registered.
    has_unknown: bool,
}

impl Around {
    /// Returns those with these places.
    pub(super) fn of(ids: &Rc<[ResourceId]>) -> Self {
        Self { known: Rc::clone(ids), has_unknown: false }
    }
}

impl<'r> Properties<'r> {
    /// Returns what looks at so many values and relations at the most.
    pub(super) fn new(
        resources: &'r Resources,
        own_fields: &'r [String],
        variables: &'r [(Cow<'r, str>, Value<'r>)],
        work_left: usize,
    ) -> Self {
        Self { resources, variables, own_fields, reached: Reached::default(), work_left }
    }

    /// Returns what was reached, and how many relations may still be looked at; none if to find out takes
    /// too long.
    pub(super) fn reached(self) -> Option<(Reached, usize)> {
        (self.work_left > 0).then_some((self.reached, self.work_left))
    }

    /// Looks at an argument: its name and value.
    pub(super) fn look_at_argument(&mut self, name: &str, value: &Value<'_>, of: &Around) {
        let within = self.follow(name, of);
        self.look_at_given(value, &within);
    }

    /// Looks at what is given as a whole: a text is a property path.
    fn look_at_given(&mut self, value: &Value<'_>, of: &Around) {
        match value {
            Value::Text(text) => self.look_at_paths(text, of),
            Value::List(values) => {
                for value in values {
                    self.look_at_given(value, of);
                }
            }
            Value::Variable(name) => self.look_at_variable(name, |this, value| {
                this.look_at_given(value, of);
            }),
            Value::Name(_) | Value::Object(_) | Value::Scalar => self.look(value, of),
        }
    }

    fn look_at_variable(&mut self, name: &str, look: impl Fn(&mut Self, &Value<'_>)) {
        let variables = self.variables;
        self.work_left = self.work_left.saturating_sub(variables.len());
        for (_, value) in variables.iter().filter(|(given, _)| given == name) {
            look(self, value);
        }
    }

    /// Looks at a value in which members are properties.
    pub(super) fn look(&mut self, value: &Value<'_>, of: &Around) {
        self.work_left = self.work_left.saturating_sub(1);
        if self.work_left == 0 {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    // What is within a property of an unknown resource may be a related object's.
                    if of.has_unknown && value.is_nested() && !self.is_own(name) {
                        self.reached.has_everything = true;
                    }
                    let within = self.follow(name, of);
                    self.look(value, &within);
                }
            }
            Value::List(values) => {
                for value in values {
                    self.look(value, of);
                }
            }
            // A text beside operators is what is compared, but some name the property in one, too.
            Value::Text(text) if is_path(text) => {
                let known = Around { has_unknown: false, ..of.clone() };
                self.follow(text, &known);
            }
            Value::Name(name) => {
                // Such as `author_ASC`.
                let ends = name.match_indices('_').map(|(end, _)| end);
                for end in ends.chain([name.len()]) {
                    self.follow(name.get(..end).unwrap_or_default(), of);
                }
            }
            Value::Variable(name) => self.look_at_variable(name, |this, value| {
                this.look(value, of);
            }),
            Value::Scalar | Value::Text(_) => {}
        }
    }

    /// Looks at property paths, one behind the other.
    fn look_at_paths(&mut self, text: &str, of: &Around) {
        for path in text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '|')) {
            self.follow(path, of);
        }
    }

    /// Follows a property path. Returns what its last part is of.
    fn follow(&mut self, path: &str, of: &Around) -> Around {
        let is_one = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_one && !path.contains("__") {
            return self.step(path, of);
        }
        if of.has_unknown && parts(path).nth(1).is_some() && !self.is_own(path) {
            self.reached.has_everything = true;
        }
        parts(path).fold(of.clone(), |around, part| self.step(part, &around))
    }

    /// Returns what a property of some resources is of: of others where it is a relation, and of the same
    /// ones where it is not.
    fn step(&mut self, part: &str, of: &Around) -> Around {
        let mut known: Vec<ResourceId> = Vec::new();
        // The objects of unknown resources are unknown as well.
        let mut has_unknown = of.has_unknown;
        let mut is_same = true;
        for &id in of.known.iter() {
            let Some(relations) = self.resources.relations(id) else {
                (has_unknown, is_same) = (true, false);
                continue;
            };
            self.work_left = self.work_left.saturating_sub(relations.len() + 1);
            let mut stays = true;
            for (relation, target) in relations {
                let role = role(relation, part);
                if matches!(role, Role::Neither | Role::OnTheWay) {
                    continue;
                }
                is_same = false;
                stays &= role == Role::Both;
                match target {
                    Target::Any => self.reached.has_everything = true,
                    Target::Some(ids) => {
                        self.reached.ids.extend(ids.iter());
                        known.extend(ids.iter());
                    }
                }
            }
            if stays {
                known.push(id);
            }
        }
        if is_same {
            return of.clone();
        }
        known.sort_unstable();
        known.dedup();
        Around { known: known.into(), has_unknown }
    }

    fn is_own(&self, path: &str) -> bool {
        parts(path).next().is_some_and(|first| self.own_fields.iter().any(|own| own == first))
    }
}

/// Returns the names in a property path, such as `author.email`, `-sections[*].author` or
/// `author__email`.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    let names = path.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'));
    let names = names.flat_map(|name| name.split("__")).map(|name| name.trim_matches('-'));
    names.filter(|name| !name.is_empty() && !name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reports whether a text is written as a path of two properties or more.
fn is_path(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_-.[]*/:>".contains(c);
    text.chars().all(is_part) && parts(text).nth(1).is_some()
}
