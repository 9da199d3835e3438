//! Resources: what an account's keys have rights on, and how they point at each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A content type of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Resource {
    #[cfg_attr(feature = "schema", schema(examples("blogposts")))]
    /// Its name.
    pub name: String,
    /// Field → the content types that it may point at. A field within a list or an object is named by
    /// its path, such as `sections.author`.
    #[serde(default)]
    pub relations: BTreeMap<String, Relation>,
}

/// Where a relation may point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "expected `\"*\"` or a list of resources")]
pub enum Relation {
    /// `"*"`: at any content type.
    Any(String),
    /// At these.
    Some(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_has_this_form_on_the_wire() {
        let wire = r#"{"name":"posts","relations":{"any":"*","author":["authors"]}}"#;
        let resource: Resource = serde_json::from_str(wire).unwrap();
        assert_eq!(resource.relations["any"], Relation::Any("*".to_owned()));
        assert_eq!(resource.relations["author"], Relation::Some(vec!["authors".to_owned()]));
        assert_eq!(serde_json::to_string(&resource).unwrap(), wire);
    }
}
