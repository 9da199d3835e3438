//! How a GraphQL schema names what it serves.

use std::borrow::Cow;

use latchkey_protocol::KeyKind;
use serde::Deserialize;

/// A GraphQL endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graphql {
    /// Action needed on all that a query can return.
    pub action: String,
    /// Name of the type whose fields are the root fields of queries.
    #[serde(default = "default_root_type")]
    pub root_type: String,
    /// Names of the root fields that return a resource.
    pub root_fields: Vec<NamePattern>,
    /// Names of the types that are a resource.
    pub types: Vec<NamePattern>,
    /// What stands between a root field and the resources, from the outside in; empty if a root field
    /// returns them at once.
    #[serde(default)]
    pub wrappers: Vec<Wrapper>,
    /// Kinds of keys that may use mutations and subscriptions, whose selections are not judged; and that
    /// may ask for the schema where the profile denies it to others.
    #[serde(default)]
    pub mutation_kinds: Vec<KeyKind>,
}

/// A type that stands around a resource, such as a connection or an edge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapper {
    /// Names of the type.
    #[serde(default)]
    pub types: Vec<NamePattern>,
    /// Its field that leads further in.
    pub field: String,
}

/// A name made of a resource's: `{type}List`, or `{Type}` with its first letter in capitals.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NamePattern {
    before: String,
    after: String,
    is_capitalized: bool,
}

impl NamePattern {
    /// Returns the name of the resource of which a name is made, if it is of this pattern.
    #[must_use]
    pub fn resource<'a>(&self, name: &'a str) -> Option<Cow<'a, str>> {
        let resource =
            name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        if !self.is_capitalized {
            return Some(Cow::Borrowed(resource));
        }
        let mut characters = resource.chars();
        let first = characters.next()?;
        if first.is_lowercase() {
            return None;
        }
        let mut lowered: String = first.to_lowercase().collect();
        lowered.push_str(characters.as_str());
        Some(Cow::Owned(lowered))
    }
}

impl TryFrom<String> for NamePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        for (place, is_capitalized) in [("{type}", false), ("{Type}", true)] {
            if let Some((before, after)) = text.split_once(place)
                && !after.contains(['{', '}'])
                && !before.contains(['{', '}'])
            {
                let (before, after) = (before.to_owned(), after.to_owned());
                return Ok(Self { before, after, is_capitalized });
            }
        }
        Err(format!("expected a name with `{{type}}` or `{{Type}}` in it once, found `{text}`"))
    }
}

impl Graphql {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.root_fields.is_empty() {
            return Err("root_fields: expected at least one name".to_owned());
        }
        Ok(())
    }
}

fn default_root_type() -> String {
    "Query".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_leads_to_its_resource() {
        for (pattern, name, resource) in [
            ("{type}", "posts", Some("posts")),
            ("{type}List", "postsList", Some("posts")),
            ("{type}List", "posts", None),
            ("all_{type}", "all_posts", Some("posts")),
            ("{Type}", "Posts", Some("posts")),
            ("{Type}", "posts", None),
            ("{Type}", "_media", Some("_media")),
            ("{Type}Edge", "PostsEdge", Some("posts")),
            ("{Type}Edge", "Edge", None),
        ] {
            let pattern = NamePattern::try_from(pattern.to_owned()).unwrap();
            assert_eq!(pattern.resource(name).as_deref(), resource, "{pattern:?} {name}");
        }
        for text in ["", "posts", "{name}", "{type}{type}", "{type", "{Type}{type}"] {
            assert!(NamePattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
