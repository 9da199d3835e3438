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
use crate::authorize::spelling::{decoded, folded};
use crate::profile::routes::{PropertyForm, PropertyParameter};
use crate::resources::{ResourceId, Resources, Role, Target, role_of_property};

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
                    Ok(value @ (Value::Object(_) | Value::List(_) | Value::Scalar)) => {
                        named.look(&value, &of);
                    }
                    Ok(_) | Err(_) => return Err(unreadable("an object in JSON")),
                },
                PropertyForm::Path => match std::str::from_utf8(&parameter.value) {
                    Ok(text) => named.look_at_text(text, &of, Naming::Surely),
                    Err(_) => return Err(unreadable("UTF-8")),
                },
            }
        }
        match named.reached() {
            None => return Err(Rejection::Parameter(format!("`{name}`: expected less of it"))),
            Some((Reached { has_everything, ids }, _)) => {
                for id in ids {
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
    /// Fields that lead nowhere else, whatever the resource.
    own_fields: &'r [String],
    reached: Reached,
    /// How many relations, values and bytes of names may still be looked at.
    work_left: usize,
    /// How many texts may still be within each other that are JSON.
    texts_left: u8,
}

/// What relations lead to.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Whether it may be anything.
    pub(super) has_everything: bool,
    pub(super) ids: BTreeSet<ResourceId>,
}

/// The resources of which properties are named.
#[derive(Clone, Debug)]
pub(super) struct Around {
    known: Rc<[ResourceId]>,
    /// Whether there are some that are not registered.
    has_unknown: bool,
}

/// Which words of a name may be a relation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// All.
    Any,
    /// The first, where a quantifier follows: `author_some`. Else it may be a field of its own, such as
    /// `author_name`.
    BeforeQuantifier,
}

/// Whether a text names a property.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// Only where it is written as a path: it may be any text.
    Perhaps,
    /// As what it stands in says.
    Surely,
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
        Self {
            resources,
            variables,
            own_fields,
            reached: Reached::default(),
            work_left,
            texts_left: MAX_TEXTS,
        }
    }

    /// Returns what was reached, and how much may still be looked at; none if to find out takes too long.
    pub(super) fn reached(self) -> Option<(Reached, usize)> {
        (self.work_left > 0).then_some((self.reached, self.work_left))
    }

    /// Looks at an argument: its name and value.
    pub(super) fn look_at_argument(&mut self, name: &str, value: &Value<'_>, of: &Around) {
        let within = self.member(name, value, of);
        if *value == Value::Scalar {
            return;
        }
        let naming = if names_properties(name) { Naming::Surely } else { Naming::Perhaps };
        self.look_at_given(value, &within, naming);
    }

    /// Looks at what is given as a whole.
    fn look_at_given(&mut self, value: &Value<'_>, of: &Around, naming: Naming) {
        if !self.may_look(1) {
            return;
        }
        match value {
            Value::Text(text) => self.look_at_text(text, of, naming),
            Value::List(values) => {
                self.look_at_list(values, of, naming);
                for value in values {
                    self.look_at_given(value, of, naming);
                }
            }
            Value::Variable(name) => self.look_at_variable(name, |this, value| {
                this.look_at_given(value, of, naming);
            }),
            Value::Name(name) => self.look_at_words(name, of),
            Value::Object(_) | Value::Scalar => self.look(value, of),
        }
    }

    fn look_at_variable(&mut self, name: &str, look: impl Fn(&mut Self, &Value<'_>)) {
        let variables = self.variables;
        self.may_look(variables.len());
        for (_, value) in variables.iter().filter(|(given, _)| given == name) {
            look(self, value);
        }
    }

    /// Looks at a value in which members are properties.
    pub(super) fn look(&mut self, value: &Value<'_>, of: &Around) {
        if !self.may_look(1) {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    self.look_at_member(name, value, of);
                }
            }
            Value::List(values) => {
                self.look_at_list(values, of, Naming::Perhaps);
                for value in values {
                    self.look(value, of);
                }
            }
            Value::Text(text) => self.look_at_text(text, of, Naming::Perhaps),
            Value::Name(name) => self.look_at_words(name, of),
            Value::Variable(name) => self.look_at_variable(name, |this, value| {
                this.look(value, of);
            }),
            Value::Scalar => {}
        }
    }

    fn look_at_member(&mut self, name: &str, value: &Value<'_>, of: &Around) {
        if !self.may_look(1) || self.is_own(name) {
            return;
        }
        // What is within a property of an unknown resource may be a related object's.
        if of.has_unknown && value.is_nested() {
            self.reached.has_everything = true;
        }
        let within = self.member(name, value, of);
        match value {
            // What a property is compared with names none.
            value if is_operator(name) && is_compared(value) => {}
            _ if names_properties(name) => self.look_at_given(value, &within, Naming::Surely),
            _ => self.look(value, &within),
        }
    }

    /// Looks at a list that may be a path, each name an item of it: `["author", "email"]`.
    fn look_at_list(&mut self, values: &[Value<'_>], of: &Around, naming: Naming) {
        let mut around = of.clone();
        for (index, value) in values.iter().enumerate() {
            let Value::Text(text) = value else {
                return;
            };
            // Of any other list, only the first could be one: `["author", "=", "x"]`.
            if (naming == Naming::Perhaps && index > 0) || !self.may_look(1) {
                return;
            }
            around = self.follow(text, &around);
        }
    }

    /// Looks at a text: property paths, one behind the other, or JSON.
    fn look_at_text(&mut self, text: &str, of: &Around, naming: Naming) {
        if !self.may_look(text.len() / BYTES_PER_LOOK) {
            return;
        }
        let text = readable(text);
        let trimmed = text.trim_start();
        if trimmed.starts_with(['{', '[']) {
            match serde_json::from_str::<Value<'_>>(trimmed) {
                Ok(_) if self.texts_left == 0 => self.reached.has_everything = true,
                Ok(value) => {
                    self.texts_left -= 1;
                    self.look(&value, of);
                    self.texts_left += 1;
                }
                // Some readers take more for an object than JSON is.
                Err(_) if trimmed.starts_with('{') => self.reached.has_everything = true,
                Err(_) => {}
            }
        }
        // In a text that may be any, what is not registered cannot be told from what is compared.
        let known =
            Around { has_unknown: of.has_unknown && naming == Naming::Surely, ..of.clone() };
        let words = text.split(|c: char| c.is_whitespace() || ",;|()=<>!\"'{}".contains(c));
        for word in words.filter(|word| !word.is_empty()) {
            match naming {
                Naming::Surely => {
                    self.follow(word, &known);
                    self.look_at_words(word, &known);
                }
                Naming::Perhaps if is_path(word) => {
                    self.follow(word, &known);
                }
                Naming::Perhaps => {}
            }
            if !self.may_look(1) {
                return;
            }
        }
    }

    /// Looks at a name that may be of several words, such as `author_email_ASC`: each may be a relation.
    fn look_at_words(&mut self, name: &str, of: &Around) {
        self.follow(name, of);
        self.chain(name, of, Words::Any);
    }

    /// Returns what is within a member, an argument or an object's: what its name says, and where it has
    /// members itself or is a sort order, what relation it begins with.
    fn member(&mut self, name: &str, value: &Value<'_>, of: &Around) -> Around {
        let within = self.follow(name, of);
        match value {
            Value::Name(_) => self.chain(name, &within, Words::Any),
            Value::Object(_) | Value::List(_) | Value::Variable(_) => {
                self.chain(name, &within, Words::BeforeQuantifier)
            }
            Value::Scalar | Value::Text(_) => within,
        }
    }

    /// Follows the relations in a name of several words, each of which may be of several words itself.
    /// Returns what the last one is of. The whole name is not looked at.
    fn chain(&mut self, name: &str, of: &Around, which: Words) -> Around {
        if name.len() > MAX_NAME_BYTES {
            self.reached.has_everything = true;
            return of.clone();
        }
        let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
        let mut around = of.clone();
        let mut at = 0;
        while at < words.len() && self.may_look(1) {
            let mut taken = 1;
            for count in (1..=MAX_WORDS.min(words.len() - at)).rev() {
                let counts = match (which, words.get(at + count)) {
                    (Words::Any, _) => count < words.len(),
                    (Words::BeforeQuantifier, Some(next)) => at == 0 && is_quantifier(next),
                    (Words::BeforeQuantifier, None) => false,
                };
                let candidate = words.get(at..at + count).unwrap_or_default();
                if counts {
                    let (next, is_relation) = self.step(&candidate.join("_"), &around);
                    if is_relation {
                        (around, taken) = (next, count);
                        break;
                    }
                }
            }
            at += taken;
        }
        around
    }

    /// Follows a property path. Returns what its last part is of.
    fn follow(&mut self, path: &str, of: &Around) -> Around {
        let is_one = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_one && path.len() <= MAX_NAME_BYTES && !path.contains("__") {
            return self.step(path, of).0;
        }
        if path.len() > MAX_NAME_BYTES || has_wildcard(path) {
            self.reached.has_everything = true;
            return of.clone();
        }
        let path = readable(path);
        if self.is_own(&path) {
            return of.clone();
        }
        if of.has_unknown && parts(&path).nth(1).is_some() {
            self.reached.has_everything = true;
        }
        parts(&path).fold(of.clone(), |around, part| self.step(part, &around).0)
    }

    /// Returns what a property of some resources is of, of others where it is a relation and of the same
    /// ones where it is not; and whether it is one.
    fn step(&mut self, part: &str, of: &Around) -> (Around, bool) {
        let mut known: BTreeSet<ResourceId> = BTreeSet::new();
        // The objects of unknown resources are unknown as well.
        let mut has_unknown = of.has_unknown;
        let (mut is_relation, mut is_same) = (false, true);
        for &id in of.known.iter() {
            let Some(relations) = self.resources.relations(id) else {
                (has_unknown, is_same) = (true, false);
                continue;
            };
            if !self.may_look(relations.len() + 1) {
                break;
            }
            let mut stays = true;
            for (relation, target) in relations {
                let role = role_of_property(relation, part);
                if matches!(role, Role::Neither | Role::OnTheWay) {
                    continue;
                }
                is_relation = true;
                stays &= role == Role::Both;
                match target {
                    Target::Any => self.reached.has_everything = true,
                    Target::Some(ids) => {
                        self.may_look(ids.len());
                        self.reached.ids.extend(ids.iter());
                        known.extend(ids.iter());
                    }
                }
            }
            if stays {
                known.insert(id);
            }
        }
        if is_same && !is_relation {
            return (of.clone(), false);
        }
        (Around { known: known.into_iter().collect(), has_unknown }, is_relation)
    }

    fn is_own(&self, path: &str) -> bool {
        parts(path).next().is_some_and(|first| self.own_fields.iter().any(|own| own == first))
    }

    /// Takes so much from what may still be looked at. Returns whether something is left.
    fn may_look(&mut self, work: usize) -> bool {
        self.work_left = self.work_left.saturating_sub(work);
        self.work_left > 0
    }
}

/// Returns a text as a reader sees it that decodes it once more.
fn readable(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.bytes().any(|byte| matches!(byte, b'%' | b'\\')) {
        return Cow::Borrowed(text);
    }
    let text = decoded(text.as_bytes());
    Cow::Owned(String::from_utf8_lossy(&folded(&text)).into_owned())
}

/// Returns the names in a property path, such as `author.email`, `-sections[*].author` or
/// `author__email`.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    let names = path.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'));
    let names = names.flat_map(|name| name.split("__"));
    let names = names.map(|name| name.trim_matches(['-', '_'].as_slice()));
    names.filter(|name| !name.is_empty() && !name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reports whether a text is written as a path of two properties or more.
fn is_path(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_-.[]*$@:>".contains(c);
    text.len() <= MAX_NAME_BYTES && text.chars().all(is_part) && parts(text).nth(1).is_some()
}

/// Reports whether a path stands for several properties by a sign within a name, such as `auth*.email`.
fn has_wildcard(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.windows(2).any(|pair| match pair {
        [b'*', other] | [other, b'*'] => other.is_ascii_alphanumeric() || *other == b'_',
        _ => false,
    })
}

/// Reports whether the value of a member or argument of this name names properties.
fn names_properties(name: &str) -> bool {
    let holds = |word: &str| {
        let mut windows = name.as_bytes().windows(word.len());
        windows.any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    };
    NAMING.iter().any(|known| is_word(name, known)) || holds("order") || holds("sort")
}

/// Reports whether a name is a word, whatever its capitals and signs.
fn is_word(name: &str, word: &str) -> bool {
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).eq(word.bytes())
}

/// Reports whether a member of this name holds what a property is compared with.
fn is_operator(name: &str) -> bool {
    OPERATORS.iter().any(|known| is_word(name, known))
}

/// Reports whether a value is nothing but what a property is compared with: no path with a dollar sign,
/// by which some databases name a property in its place.
fn is_compared(value: &Value<'_>) -> bool {
    match value {
        Value::Name(_) | Value::Scalar => true,
        Value::Text(text) => !text.starts_with('$'),
        Value::List(values) => values.iter().all(is_compared),
        Value::Object(_) | Value::Variable(_) => false,
    }
}

/// Reports whether a word says how many related objects a condition is about.
fn is_quantifier(word: &str) -> bool {
    QUANTIFIERS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Names of members by which APIs let clients name properties.
const NAMING: [&str; 11] = [
    "attribute",
    "by",
    "column",
    "columns",
    "field",
    "fields",
    "path",
    "paths",
    "properties",
    "property",
    "relation",
];

/// Names of members by which APIs let clients compare; `filter` and `filter2` are Flotiq's.
const OPERATORS: [&str; 27] = [
    "contains",
    "endswith",
    "eq",
    "equals",
    "filter",
    "filter2",
    "gt",
    "gte",
    "ilike",
    "in",
    "is",
    "like",
    "lt",
    "lte",
    "matches",
    "ne",
    "neq",
    "not",
    "notcontains",
    "notequals",
    "notin",
    "overlaps",
    "regex",
    "startswith",
    "type",
    "value",
    "values",
];

/// Words behind the name of a relation in filters of several GraphQL servers.
const QUANTIFIERS: [&str; 12] = [
    "aggregate",
    "all",
    "any",
    "connection",
    "every",
    "exists",
    "in",
    "is",
    "none",
    "not",
    "single",
    "some",
];

/// Longest name or path that is looked at, in bytes; a longer one could be anything.
const MAX_NAME_BYTES: usize = 512;

/// Most words of a relation's name.
const MAX_WORDS: usize = 6;

/// Most texts within each other that are looked at as JSON: each takes as much of the stack as it is deep.
const MAX_TEXTS: u8 = 2;

/// How many bytes of a text count as one look.
const BYTES_PER_LOOK: usize = 16;
