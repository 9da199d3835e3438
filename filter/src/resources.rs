//! The resources of an account, and which of them each can lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use latchkey_protocol::{Relation, Resource};

/// The resources of one account, with their relations.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    /// By name. Those that relations point at are here too, registered or not.
    nodes: Vec<Node>,
}

/// Place of a resource among those of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceId(usize);

/// Where a relation may point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// At any resource, so at some that are not known.
    Any,
    /// At these.
    Some(Rc<[ResourceId]>),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    name: Box<str>,
    /// Field → where it points, by field; none if the resource is not registered, so that its
    /// relations are not known.
    relations: Option<Vec<(Box<str>, Target)>>,
}

impl Resources {
    /// Returns what there is to know of an account's resources.
    #[must_use]
    pub fn new(resources: &[Resource]) -> Self {
        let registered: BTreeMap<&str, &Resource> =
            resources.iter().map(|resource| (resource.name.as_str(), resource)).collect();
        let mut names: BTreeSet<&str> = registered.keys().copied().collect();
        for relation in resources.iter().flat_map(|resource| resource.relations.values()) {
            if let Relation::Some(targets) = relation {
                names.extend(targets.iter().map(String::as_str));
            }
        }
        let names: Vec<&str> = names.into_iter().collect();
        let id = |name: &String| names.binary_search(&name.as_str()).ok().map(ResourceId);
        let target = |relation: &Relation| match relation {
            // A relation that may point at nothing is one of which it is not known where it points.
            Relation::Some(targets) if !targets.is_empty() => {
                let targets: BTreeSet<ResourceId> = targets.iter().filter_map(id).collect();
                Target::Some(targets.into_iter().collect())
            }
            Relation::Any(_) | Relation::Some(_) => Target::Any,
        };
        let relations = |resource: &Resource| {
            let fields = resource.relations.iter();
            fields.map(|(field, relation)| (field.as_str().into(), target(relation))).collect()
        };
        let nodes = names.iter().map(|&name| Node {
            name: name.into(),
            relations: registered.get(name).copied().map(relations),
        });
        Self { nodes: nodes.collect() }
    }

    /// Returns a registered resource.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ResourceId> {
        let index = self.nodes.binary_search_by(|node| (*node.name).cmp(name)).ok()?;
        self.nodes.get(index)?.relations.as_ref()?;
        Some(ResourceId(index))
    }

    /// Returns the name of a resource.
    #[must_use]
    pub fn name(&self, id: ResourceId) -> &str {
        self.nodes.get(id.0).map_or("", |node| &node.name)
    }

    /// Returns the relations of a resource, by field; none if it is not registered.
    #[must_use]
    pub fn relations(&self, id: ResourceId) -> Option<&[(Box<str>, Target)]> {
        self.nodes.get(id.0)?.relations.as_deref()
    }
}

/// What a field is to a relation, which is named by its field, or by the path to it: `sections.author`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the field that the relation is.
    Itself,
    /// It is an object on the way to it.
    OnTheWay,
    /// Both: a path has it twice.
    Both,
    /// Neither.
    Neither,
}

/// Returns what a field is to a relation; where the field stands is not looked at.
///
/// A `-` counts as `_`, which is how GraphQL would have to name the field.
#[must_use]
pub fn role(relation: &str, field: &str) -> Role {
    role_by(relation, field, |a, b| a == b || (a == b'-' && b == b'_'))
}

/// The same for a property that is named in a filter or sort order: capitals are no other letters there.
#[must_use]
pub fn role_of_property(relation: &str, property: &str) -> Role {
    role_by(relation, property, |a, b| a.eq_ignore_ascii_case(&b) || (a == b'-' && b == b'_'))
}

fn role_by(relation: &str, field: &str, is_same: impl Fn(u8, u8) -> bool) -> Role {
    let same = |segment: &str| {
        segment.len() == field.len()
            && segment.bytes().zip(field.bytes()).all(|(a, b)| is_same(a, b))
    };
    // Nearly all relations are no paths, and other fields.
    if relation.len() <= field.len() {
        return if same(relation) { Role::Itself } else { Role::Neither };
    }
    if !relation.bytes().any(|byte| byte == b'.') {
        return Role::Neither;
    }
    let mut segments = relation.rsplit('.');
    let is_itself = segments.next().is_some_and(same);
    let is_on_the_way = segments.any(same);
    match (is_itself, is_on_the_way) {
        (true, true) => Role::Both,
        (true, false) => Role::Itself,
        (false, true) => Role::OnTheWay,
        (false, false) => Role::Neither,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, relations: &[(&str, Relation)]) -> Resource {
        let relations = relations.iter().map(|(f, r)| ((*f).to_owned(), r.clone())).collect();
        Resource { name: name.to_owned(), relations }
    }

    #[test]
    fn relations_lead_to_resources_registered_or_not() {
        let authors = Relation::Some(vec!["authors".to_owned(), "_media".to_owned()]);
        let any = Relation::Any("*".to_owned());
        let resources = Resources::new(&[
            resource("posts", &[("author", authors), ("any", any)]),
            resource("authors", &[]),
        ]);
        let posts = resources.find("posts").unwrap();
        let [(any, Target::Any), (author, Target::Some(targets))] =
            resources.relations(posts).unwrap()
        else {
            panic!("two relations were expected");
        };
        assert_eq!((&**any, &**author), ("any", "author"));
        let names: Vec<&str> = targets.iter().map(|&id| resources.name(id)).collect();
        assert_eq!(names, ["_media", "authors"]);
        assert_eq!(resources.relations(targets[0]), None, "it is not registered");
        assert_eq!(resources.relations(targets[1]), Some(&[][..]));
        assert_eq!(resources.find("_media"), None);
        assert_eq!(resources.find("orders"), None);
    }

    #[test]
    fn relation_is_found_by_its_field_at_any_depth() {
        for (relation, field, expected) in [
            ("author", "author", Role::Itself),
            ("sections.author", "author", Role::Itself),
            ("a.b.author", "author", Role::Itself),
            ("cover-image", "cover_image", Role::Itself),
            ("author.company", "author", Role::OnTheWay),
            ("meta.author.company", "author", Role::OnTheWay),
            ("a.b.a", "a", Role::Both),
            ("coauthor", "author", Role::Neither),
            ("author", "coauthor", Role::Neither),
            ("cover_image", "cover-image", Role::Neither),
            ("author", "", Role::Neither),
        ] {
            assert_eq!(role(relation, field), expected, "{relation} {field}");
        }
    }

    #[test]
    fn relation_to_nothing_is_one_to_anything() {
        let nowhere = Relation::Some(vec![]);
        let twice = Relation::Some(vec!["posts".to_owned(), "posts".to_owned()]);
        let resources = Resources::new(&[resource("posts", &[("a", nowhere), ("b", twice)])]);
        let relations = resources.relations(resources.find("posts").unwrap()).unwrap();
        assert_eq!(relations[0].1, Target::Any);
        assert_eq!(relations[1].1, Target::Some(Rc::from([resources.find("posts").unwrap()])));
    }
}
