//! Rights: what a key holds and what a route needs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Stands for every resource of an account, or every action on one.
pub const EVERY: &str = "*";

/// One (resource, action), written `resource:action`; everything is `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Right {
    /// Name of the resource, or [`EVERY`].
    pub resource: String,
    /// Name of the action, or [`EVERY`].
    pub action: String,
}

impl Right {
    /// Returns the right to act on a resource.
    #[must_use]
    pub fn new(resource: &str, action: &str) -> Self {
        Self { resource: resource.to_owned(), action: action.to_owned() }
    }
}

/// Writes `resource:action`; the right to everything is `*`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.resource == EVERY && self.action == EVERY {
            return f.write_str(EVERY);
        }
        write!(f, "{}:{}", self.resource, self.action)
    }
}

/// A text that is no right.
#[derive(Debug, thiserror::Error)]
#[error("expected `resource:action`, found `{0}`")]
pub struct ParseRightError(String);

impl FromStr for Right {
    type Err = ParseRightError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == EVERY {
            return Ok(Self::new(EVERY, EVERY));
        }
        match text.rsplit_once(':') {
            Some((resource, action)) if !resource.is_empty() && !action.is_empty() => {
                Ok(Self::new(resource, action))
            }
            Some(_) | None => Err(ParseRightError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Right {
    type Error = ParseRightError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Right> for String {
    fn from(right: Right) -> Self {
        right.to_string()
    }
}

/// What a key may do on one resource, as people write it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name of the resource; `*` is every resource.
    pub resource: String,
    /// Names of the actions; `["*"]` is every action.
    pub actions: Vec<String>,
}

/// All that a key holds, in one normal form: equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Rule>", into = "Vec<Rule>")]
pub struct RightSet {
    /// Sorted by resource, one rule a resource, its actions sorted and none twice.
    rules: Vec<Rule>,
}

impl RightSet {
    /// Returns the rules in normal form: sorted, one a resource.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Reports whether the set holds an action on a resource, by name or through `*`.
    ///
    /// To hold [`EVERY`] action or resource takes a rule that says `*`: rules that name all there
    /// are today do not cover what is added tomorrow.
    #[must_use]
    pub fn holds(&self, resource: &str, action: &str) -> bool {
        self.actions(resource).any(|held| held == EVERY || held == action)
    }

    /// Reports whether the set holds any action at all on a resource.
    #[must_use]
    pub fn holds_any_action(&self, resource: &str) -> bool {
        self.actions(resource).next().is_some()
    }

    fn actions<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a str> {
        let named = if resource == EVERY { None } else { self.rule(resource) };
        self.rule(EVERY)
            .into_iter()
            .chain(named)
            .flat_map(|rule| rule.actions.iter().map(String::as_str))
    }

    /// Returns the rule on a resource, or the one on every resource for [`EVERY`].
    #[must_use]
    pub fn rule(&self, resource: &str) -> Option<&Rule> {
        let index =
            self.rules.binary_search_by(|rule| rule.resource.as_str().cmp(resource)).ok()?;
        self.rules.get(index)
    }
}

impl From<Vec<Rule>> for RightSet {
    fn from(mut given: Vec<Rule>) -> Self {
        given.sort();
        let mut rules: Vec<Rule> = Vec::with_capacity(given.len());
        for rule in given {
            match rules.last_mut() {
                Some(last) if last.resource == rule.resource => last.actions.extend(rule.actions),
                Some(_) | None => rules.push(rule),
            }
        }
        for rule in &mut rules {
            rule.actions.sort();
            rule.actions.dedup();
        }
        Self { rules }
    }
}

impl From<RightSet> for Vec<Rule> {
    fn from(set: RightSet) -> Self {
        set.rules
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(resource: &str, actions: &[&str]) -> Rule {
        Rule {
            resource: resource.to_owned(),
            actions: actions.iter().map(|&action| action.to_owned()).collect(),
        }
    }

    #[test]
    fn set_holds_what_its_rules_say() {
        let set = RightSet::from(vec![
            rule("posts", &["read"]),
            rule("authors", &["*"]),
            rule("posts", &["create", "read"]),
        ]);
        for (resource, action, held) in [
            ("posts", "read", true),
            ("posts", "create", true),
            ("posts", "delete", false),
            ("posts", "*", false),
            ("authors", "delete", true),
            ("authors", "*", true),
            ("tags", "read", false),
            ("*", "read", false),
            ("", "read", false),
        ] {
            assert_eq!(set.holds(resource, action), held, "{resource}:{action}");
        }
        assert!(set.holds_any_action("posts"));
        assert!(!set.holds_any_action("tags"));
        assert!(!RightSet::from(vec![rule("posts", &[])]).holds_any_action("posts"));
    }

    #[test]
    fn rule_on_every_resource_covers_each() {
        let set = RightSet::from(vec![rule("*", &["read"])]);
        assert!(set.holds("posts", "read"));
        assert!(set.holds("*", "read"));
        assert!(!set.holds("posts", "update"));
        assert!(!set.holds("*", "*"));
    }

    #[test]
    fn right_is_parsed_and_shown_alike() {
        for text in ["posts:read", "*:read", "posts:*", "a:b:c", "*"] {
            assert_eq!(text.parse::<Right>().unwrap().to_string(), text);
        }
        for text in ["", "posts", ":read", "posts:"] {
            assert!(text.parse::<Right>().is_err(), "{text}");
        }
    }

    proptest! {
        /// A set holds an action exactly if one of the rules it was made of says so.
        #[test]
        fn normal_form_changes_no_answer(
            rules in prop::collection::vec(("[a-c*]", prop::collection::vec("[rcud*]", 0..4)), 0..6),
            resource in "[a-d]",
            action in "[rcud]",
        ) {
            let rules: Vec<Rule> = rules
                .into_iter()
                .map(|(resource, actions)| Rule { resource, actions })
                .collect();
            let naive = rules.iter().any(|rule| {
                (rule.resource == "*" || rule.resource == resource)
                    && rule.actions.iter().any(|held| *held == "*" || *held == action)
            });
            prop_assert_eq!(RightSet::from(rules).holds(&resource, &action), naive);
        }
    }
}
