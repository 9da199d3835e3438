//! Routes: method and path template → what a request needs.

use std::borrow::Cow;

use latchkey_protocol::{KeyKind, Right};
use serde::Deserialize;

use super::graphql::Graphql;

/// One route of an API.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "RouteFile")]
pub struct Route {
    /// Methods, in capitals; `GET` covers `HEAD`.
    pub methods: Vec<String>,
    /// Path template: literal segments, `{name}` for one, `{*name}` at the end for one or more.
    pub path: String,
    /// What a request needs.
    pub access: Access,
    /// Name of the answer set, where its refusals look different.
    pub answers: Option<String>,
    /// Parameters that ask for more.
    pub parameter_needs: Vec<ParameterNeeds>,
    /// The parameter that asks for related objects inline.
    pub hydration: Option<Hydration>,
    /// The parameter that names what is searched.
    pub search: Option<Search>,
    /// The parameters by whose properties the answer is filtered or sorted.
    pub properties: Vec<PropertyParameter>,
    /// The route is a GraphQL endpoint.
    pub graphql: Option<Graphql>,
}

/// The file's form of a route: one flat object, so that an unknown field is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    methods: Vec<String>,
    path: String,
    #[serde(default)]
    access: AccessLevel,
    #[serde(default)]
    needs: Vec<Need>,
    #[serde(default)]
    only_kinds: Vec<KeyKind>,
    #[serde(default)]
    pass_kinds: Vec<KeyKind>,
    answers: Option<String>,
    #[serde(default)]
    parameter_needs: Vec<ParameterNeeds>,
    hydration: Option<Hydration>,
    search: Option<Search>,
    #[serde(default)]
    properties: Vec<PropertyParameter>,
    graphql: Option<Graphql>,
}

impl From<RouteFile> for Route {
    fn from(file: RouteFile) -> Self {
        Self {
            methods: file.methods,
            path: file.path,
            access: Access {
                level: file.access,
                needs: file.needs,
                only_kinds: file.only_kinds,
                pass_kinds: file.pass_kinds,
            },
            answers: file.answers,
            parameter_needs: file.parameter_needs,
            hydration: file.hydration,
            search: file.search,
            properties: file.properties,
            graphql: file.graphql,
        }
    }
}

/// Who may use a route.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Whether a key is needed at all.
    #[serde(default, rename = "access")]
    pub level: AccessLevel,
    /// Rights needed, all of them.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Kinds of keys that may use the route; empty, all.
    #[serde(default)]
    pub only_kinds: Vec<KeyKind>,
    /// Kinds of keys that may use the route without the rights.
    #[serde(default)]
    pub pass_kinds: Vec<KeyKind>,
}

/// Whether a route needs a key at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLevel {
    /// No; but a token that is sent must be usable.
    Public,
    /// Any usable key.
    AnyKey,
    /// A key with rights.
    #[default]
    Rights,
}

/// A right that a route needs, with places for segments of the path.
///
/// Written `resource:action`. The resource is a name, `*` for every one, or `{name}` for a segment;
/// the action is a name, `*` for every one, or `?` for any one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Need {
    /// Name of the resource, or of the segment that names it.
    pub resource: NeedResource,
    /// Name of the action, `*` or `?`.
    pub action: String,
}

/// Which resource is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeedResource {
    /// The one of this name; `*` is every one.
    Named(String),
    /// The one that the segment with this name says.
    Segment(String),
}

impl TryFrom<String> for Need {
    type Error = latchkey_protocol::right::ParseRightError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let Right { resource, action } = text.parse()?;
        let segment = resource.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        let resource = match segment {
            Some(name) => NeedResource::Segment(name.to_owned()),
            None => NeedResource::Named(resource),
        };
        Ok(Self { resource, action })
    }
}

/// Rights that a query parameter adds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterNeeds {
    /// Name of the parameter.
    pub parameter: String,
    /// Values that add nothing; any other does.
    pub unless: Vec<String>,
    /// Rights needed besides.
    pub needs: Vec<Need>,
}

/// Related objects inline.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hydration {
    /// Name of the parameter; its values are the numbers of relation steps, from 0.
    pub parameter: String,
    /// Action needed on all that can come inline.
    pub action: String,
    /// Most steps, below 10.
    #[serde(default = "default_max_steps")]
    pub max_steps: u8,
}

/// A search over several resources.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Name of the parameter that names a resource; may be repeated.
    pub parameter: String,
    /// Action needed on each.
    pub action: String,
}

/// A parameter that names properties by which the answer is filtered or sorted.
///
/// A path that leads over a relation tells of the related objects, so it needs the action on these.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropertyParameter {
    /// Name of the parameter; unlike other parameters that decide, it may stand on routes that do not
    /// list it.
    pub parameter: String,
    /// How it names them.
    pub form: PropertyForm,
    /// Action needed on what relations lead to.
    pub action: String,
    /// Fields of which it is known that they lead nowhere, whatever the resource.
    #[serde(default)]
    pub own_fields: Vec<String>,
}

/// How a parameter names properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PropertyForm {
    /// As members of an object in JSON.
    Json,
    /// As paths, one behind the other.
    Path,
}

const fn default_max_steps() -> u8 {
    2
}

impl Route {
    /// Returns the segment of a path that the template calls by this name.
    pub(crate) fn segment<'a>(&self, name: &str, segments: &'a [Cow<'_, str>]) -> Option<&'a str> {
        let index = template(&self.path).position(|part| part == Part::Parameter(name))?;
        segments.get(index).map(AsRef::as_ref)
    }

    /// Returns the names of the parameters that ask for more than the path does.
    pub(crate) fn deciding_parameters(&self) -> impl Iterator<Item = &str> {
        let added = self.parameter_needs.iter().map(|added| added.parameter.as_str());
        let hydration = self.hydration.iter().map(|hydration| hydration.parameter.as_str());
        added.chain(hydration).chain(self.search.iter().map(|search| search.parameter.as_str()))
    }

    fn check(&self) -> Result<(), String> {
        if !self.path.starts_with('/') {
            return Err(format!(
                "path: expected a path that starts with `/`, found `{}`",
                self.path
            ));
        }
        if self.methods.is_empty() {
            return Err("methods: expected at least one method".to_owned());
        }
        for method in &self.methods {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
                return Err(format!("methods: expected capitals, found `{method}`"));
            }
        }
        let last = template(&self.path).count().saturating_sub(1);
        for (index, part) in template(&self.path).enumerate() {
            match part {
                Part::Literal(text) if text.contains(['{', '}']) => {
                    return Err(format!(
                        "path: expected `{{name}}` as a whole segment, found `{text}`"
                    ));
                }
                Part::Rest if index != last => {
                    return Err("path: expected `{*name}` at the end only".to_owned());
                }
                Part::Literal(_) | Part::Parameter(_) | Part::Rest => {}
            }
        }
        self.check_needs("needs", &self.access.needs)?;
        for (index, added) in self.parameter_needs.iter().enumerate() {
            self.check_needs(&format!("parameter_needs[{index}].needs"), &added.needs)?;
        }
        if let Some(hydration) = &self.hydration
            && !(1..=9).contains(&hydration.max_steps)
        {
            let found = hydration.max_steps;
            return Err(format!("hydration.max_steps: expected 1 to 9, found {found}"));
        }
        if let Some(graphql) = &self.graphql {
            graphql.check().map_err(|error| format!("graphql.{error}"))?;
        }
        let says_nothing = self.access.level == AccessLevel::Rights
            && self.access.needs.is_empty()
            && self.access.only_kinds.is_empty()
            && self.search.is_none()
            && self.graphql.is_none();
        if says_nothing {
            return Err("needs: expected a right, or `access`, or `only_kinds`".to_owned());
        }
        Ok(())
    }

    fn check_needs(&self, field: &str, needs: &[Need]) -> Result<(), String> {
        for (index, need) in needs.iter().enumerate() {
            if let NeedResource::Segment(name) = &need.resource
                && !template(&self.path).any(|part| part == Part::Parameter(name))
            {
                return Err(format!(
                    "{field}[{index}]: expected a segment of `{}`, found `{{{name}}}`",
                    self.path
                ));
            }
        }
        Ok(())
    }
}

/// All routes, found by path first and then by method.
///
/// A literal segment wins over `{name}`: `/x/batch` is never the object called "batch", whatever
/// the method, so a method that the literal route does not list is unlisted.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    literals: Vec<(String, Self)>,
    parameter: Option<Box<Self>>,
    /// Routes that end here, as indices.
    ending: Vec<usize>,
    /// Routes that take all that follows, as indices.
    rest: Vec<usize>,
}

impl RouteTable {
    pub(super) fn new(routes: Vec<Route>) -> Result<Self, String> {
        let mut root = Node::default();
        for (index, route) in routes.iter().enumerate() {
            route.check().map_err(|error| format!("routes[{index}].{error}"))?;
            let listed = root.insert(template(&route.path));
            for &other in listed.iter() {
                let twice = routes
                    .get(other)
                    .and_then(|other| other.methods.iter().find(|m| route.methods.contains(m)));
                if let Some(method) = twice {
                    return Err(format!(
                        "routes[{index}]: expected each method and path once, found `{method} {}` \
                         as routes[{other}] too",
                        route.path
                    ));
                }
            }
            listed.push(index);
        }
        Ok(Self { routes, root })
    }

    /// Returns all routes, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// Returns the route of a method and the decoded segments of a path.
    #[must_use]
    pub fn find(&self, method: &str, segments: &[Cow<'_, str>]) -> Option<&Route> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.root
            .find(segments)?
            .iter()
            .filter_map(|&index| self.routes.get(index))
            .find(|route| route.methods.iter().any(|listed| listed == method))
    }
}

impl Node {
    fn insert<'a>(&mut self, parts: impl Iterator<Item = Part<'a>>) -> &mut Vec<usize> {
        let mut node = self;
        for part in parts {
            match part {
                Part::Literal(text) => node = node.literal(text),
                Part::Parameter(_) => node = node.parameter.get_or_insert_default(),
                Part::Rest => return &mut node.rest,
            }
        }
        &mut node.ending
    }

    fn literal(&mut self, text: &str) -> &mut Self {
        let index = match self.literals.iter().position(|(literal, _)| literal == text) {
            Some(index) => index,
            None => {
                self.literals.push((text.to_owned(), Self::default()));
                self.literals.len() - 1
            }
        };
        // The index was found or made just above.
        &mut self.literals[index].1
    }

    fn find(&self, segments: &[Cow<'_, str>]) -> Option<&[usize]> {
        let Some((first, rest)) = segments.split_first() else {
            return if self.ending.is_empty() { None } else { Some(&self.ending) };
        };
        if let Some((_, node)) = self.literals.iter().find(|(literal, _)| literal == first)
            && let Some(found) = node.find(rest)
        {
            return Some(found);
        }
        if first.is_empty() {
            return None;
        }
        if let Some(found) = self.parameter.as_ref().and_then(|node| node.find(rest)) {
            return Some(found);
        }
        if self.rest.is_empty() { None } else { Some(&self.rest) }
    }
}

#[derive(PartialEq, Eq)]
enum Part<'a> {
    Literal(&'a str),
    Parameter(&'a str),
    Rest,
}

fn template(path: &str) -> impl Iterator<Item = Part<'_>> {
    path.split('/').skip(1).map(|segment| {
        let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        match name {
            Some(name) if name.starts_with('*') => Part::Rest,
            Some(name) => Part::Parameter(name),
            None => Part::Literal(segment),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use crate::profile::{Profile, SHIPPED};

    fn path_of(profile: &Profile, method: &str, path: &str) -> Option<String> {
        let segments: Vec<Cow<'_, str>> = path.split('/').skip(1).map(Cow::from).collect();
        profile.routes.find(method, &segments).map(|route| route.path.clone())
    }

    #[test]
    fn literal_segment_wins_over_a_parameter() {
        let flotiq = Profile::parse(SHIPPED[0].1).unwrap();
        let content = "/api/v1/content";
        for (method, path, found) in [
            ("GET", "/api/v1/content/posts", Some("/{type}")),
            ("HEAD", "/api/v1/content/posts", Some("/{type}")),
            ("GET", "/api/v1/content/posts/removed", Some("/{type}/removed")),
            ("DELETE", "/api/v1/content/posts/removed", None),
            ("POST", "/api/v1/content/posts/batch", Some("/{type}/batch")),
            ("GET", "/api/v1/content/posts/batch", None),
            ("GET", "/api/v1/content/posts/batch/version", Some("/{type}/{id}/version")),
            ("GET", "/api/v1/content/posts/", None),
            ("GET", "/api/v1/content/", None),
            ("GET", "/api/v1/content", None),
            ("GET", "/api/v1/content/posts/1/version/2/3", None),
            ("get", "/api/v1/content/posts", None),
        ] {
            let expected = found.map(|rest| format!("{content}{rest}"));
            assert_eq!(path_of(&flotiq, method, path), expected, "{method} {path}");
        }
        assert_eq!(path_of(&flotiq, "GET", "/image/0x0/a.jpg").as_deref(), Some("/image/{*rest}"));
        assert_eq!(path_of(&flotiq, "GET", "/image"), None);
        assert_eq!(path_of(&flotiq, "GET", "/image/"), None);
    }
}
