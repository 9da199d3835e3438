//! What a key may call, as a list and as an `OpenAPI` document.
//!
//! Nothing is concluded from the rules here: the filter's own code is asked for each route of the
//! profile and each content type of the account whether a request of that kind would pass.

pub(crate) mod document;

use latchkey_filter::profile::Profile;
use latchkey_filter::profile::keys::ResourceNames;
use latchkey_filter::profile::routes::{AccessLevel, NeedResource, Route};

use crate::explain::Simulator;

/// Something that a key may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) method: String,
    /// Path with the content type filled in; other segments as `{name}`.
    pub(crate) path: String,
    /// The content type that it is about.
    pub(crate) resource: Option<String>,
    /// Names of the segments that are left to fill in.
    pub(crate) segments: Vec<String>,
    /// Parameters of the query, with the values that the key may give them.
    pub(crate) parameters: Vec<Parameter>,
    /// Whether it takes GraphQL.
    pub(crate) is_graphql: bool,
    /// Whether it passes without a key, too.
    pub(crate) is_public: bool,
}

/// A parameter of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    /// What it does.
    pub(crate) meaning: &'static str,
    pub(crate) values: Vec<String>,
    /// Whether several values can be given.
    pub(crate) is_list: bool,
}

/// Returns what the key of a simulated gateway may call, in the order of the profile's routes.
/// `resources` are the content types to look at.
pub(crate) fn operations(
    profile: &Profile,
    simulator: &Simulator<'_>,
    resources: &[String],
    now_ms: u64,
) -> Vec<Operation> {
    let asker = Asker { profile, simulator, resources, now_ms };
    let mut operations = Vec::new();
    for route in profile.routes.all() {
        for method in &route.methods {
            match resource_segment(route) {
                Some(segment) => operations.extend(asker.expanded(route, method, segment)),
                None => operations.extend(asker.operation(route, method, &route.path, None)),
            }
        }
    }
    operations
}

/// Asks the simulated gateway.
struct Asker<'a> {
    profile: &'a Profile,
    simulator: &'a Simulator<'a>,
    resources: &'a [String],
    now_ms: u64,
}

impl Asker<'_> {
    /// Returns the operations of a route whose path names a content type: one for each that the key
    /// may call it for, or one for all where it may for types that nobody has named.
    fn expanded(&self, route: &Route, method: &str, segment: &str) -> Vec<Operation> {
        let place = format!("{{{segment}}}");
        let of_types = self.resources.iter().filter_map(|resource| {
            let path = route.path.replace(&place, resource);
            self.operation(route, method, &path, Some(resource.clone()))
        });
        let mut operations: Vec<Operation> = of_types.collect();
        if operations.is_empty() && self.resources.is_empty() {
            operations.extend(self.operation(route, method, &route.path, None));
        }
        operations
    }

    fn operation(
        &self,
        route: &Route,
        method: &str,
        path: &str,
        resource: Option<String>,
    ) -> Option<Operation> {
        let sample = self.sample(path);
        let is_graphql = route.graphql.is_some();
        let is_permitted = match (is_graphql, method) {
            (true, "GET") => self.permits(method, &format!("{sample}?query=%7B__typename%7D")),
            (true, _) => {
                let body = Some(r#"{"query":"{__typename}"}"#);
                self.simulator.permits(method, &sample, body, self.now_ms)
            }
            (false, _) => self.permits(method, &sample),
        };
        is_permitted.then(|| Operation {
            method: method.to_owned(),
            path: path.replace("{*", "{"),
            resource,
            segments: segments(path).map(|name| name.trim_start_matches('*').to_owned()).collect(),
            parameters: self.parameters(route, method, &sample),
            is_graphql,
            is_public: route.access.level == AccessLevel::Public,
        })
    }

    fn parameters(&self, route: &Route, method: &str, sample: &str) -> Vec<Parameter> {
        let permits = |query: String| self.permits(method, &format!("{sample}?{query}"));
        let mut parameters = Vec::new();
        if let Some(search) = &route.search {
            let name = &search.parameter;
            let types =
                self.resources.iter().filter(|resource| permits(format!("{name}[]={resource}")));
            parameters.push(Parameter {
                name: format!("{name}[]"),
                meaning: "content types to search; all that the key may read if none is named",
                values: types.cloned().collect(),
                is_list: true,
            });
        }
        if let Some(hydration) = &route.hydration {
            let steps = (1..=hydration.max_steps)
                .filter(|steps| permits(format!("{}={steps}", hydration.parameter)));
            let values: Vec<String> =
                std::iter::once(0).chain(steps).map(|n| n.to_string()).collect();
            if values.len() > 1 {
                parameters.push(Parameter {
                    name: hydration.parameter.clone(),
                    meaning: "steps along relations of which related objects come inline",
                    values,
                    is_list: false,
                });
            }
        }
        for needs in &route.parameter_needs {
            if permits(format!("{}=true", needs.parameter)) {
                parameters.push(Parameter {
                    name: needs.parameter.clone(),
                    meaning: "asks for more than the request does without it",
                    values: vec!["true".to_owned(), "false".to_owned()],
                    is_list: false,
                });
            }
        }
        parameters
    }

    fn permits(&self, method: &str, path: &str) -> bool {
        self.simulator.permits(method, path, None, self.now_ms)
    }

    /// Returns a path with something in the place of each segment that is left to fill in.
    fn sample(&self, path: &str) -> String {
        let sample_type = match &self.profile.keys.resources {
            ResourceNames::Listed(_) => "1".to_owned(),
            ResourceNames::Named { characters, .. } => {
                // The first letter, so that it can be the name of a type as well as an id.
                let letter = characters.chars().find(char::is_ascii_alphanumeric);
                letter.unwrap_or('1').to_string()
            }
        };
        let mut sample = path.to_owned();
        for name in segments(path) {
            sample = sample.replace(&format!("{{{name}}}"), &sample_type);
        }
        sample
    }
}

/// Returns the name of the segment that names the content type, if one does.
fn resource_segment(route: &Route) -> Option<&str> {
    route.access.needs.iter().find_map(|need| match &need.resource {
        NeedResource::Segment(name) => Some(name.as_str()),
        NeedResource::Named(_) => None,
    })
}

/// Returns the names of the segments that are left to fill in.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use latchkey_filter::profile::SHIPPED;
    use std::sync::Arc;

    use latchkey_protocol::{KeyKind, Resource, RightSet, Rule};

    use super::*;
    use crate::store::usable_tokens::{AccountRow, TokenRow};
    use crate::token;

    /// Returns what a key with some rules may call, as `METHOD path?parameter=value,…`.
    fn may_call(profile: usize, kind: KeyKind, rules: &[(&str, &[&str])]) -> Vec<String> {
        let profile = Profile::parse(SHIPPED[profile].1).unwrap();
        let resources: Vec<Resource> = [r#"{"name":"authors"}"#, POSTS]
            .map(|json| serde_json::from_str(json).unwrap())
            .to_vec();
        let names: Vec<String> = match &profile.keys.resources {
            ResourceNames::Listed(names) => names.clone(),
            ResourceNames::Named { .. } => resources.iter().map(|r| r.name.clone()).collect(),
        };
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(resource, actions)| Rule {
                resource: (*resource).to_owned(),
                actions: actions.iter().map(|&action| action.to_owned()).collect(),
            })
            .collect();
        let token = token::generate(&profile.keys.token);
        let row = TokenRow {
            hash: token.hash(),
            key: "key".to_owned(),
            kind,
            account: AccountRow {
                id: "acme".to_owned(),
                limits: [].into(),
                resources: Some(resources.into()),
            },
            limits: [].into(),
            rights: Arc::new(RightSet::from(rules)),
            networks: Vec::new(),
            expires_at_ms: None,
            is_enforced: true,
        };
        let simulator = Simulator::new(&profile, Some((token, Some(row))));
        let shown = |operation: Operation| {
            let parameters = operation.parameters.iter();
            let parameters: String = parameters
                .map(|parameter| format!("?{}={}", parameter.name, parameter.values.join(",")))
                .collect();
            format!("{} {}{parameters}", operation.method, operation.path)
        };
        operations(&profile, &simulator, &names, 1).into_iter().map(shown).collect()
    }

    #[test]
    fn scoped_key_may_call_what_its_rules_reach() {
        let calls = may_call(0, KeyKind::UserDefined, &[("posts", &["read", "update"])]);
        let of_types: Vec<&str> =
            calls.iter().map(String::as_str).filter(|call| call.contains("/content/")).collect();
        // Authors would come inline: not with this key.
        assert!(of_types.contains(&"GET /api/v1/content/posts"), "{calls:#?}");
        assert!(of_types.contains(&"PATCH /api/v1/content/posts/{id}"), "{calls:#?}");
        assert!(!of_types.iter().any(|call| call.contains("authors")), "{calls:#?}");
        assert!(!of_types.iter().any(|call| call.starts_with("DELETE")), "{calls:#?}");
        assert!(
            calls.contains(&"GET /api/v1/search?content_type[]=posts".to_owned()),
            "{calls:#?}"
        );

        let both: &[(&str, &[&str])] = &[("posts", &["read"]), ("authors", &["read"])];
        let calls = may_call(0, KeyKind::UserDefined, both);
        assert!(
            calls.contains(&"GET /api/v1/content/posts?hydrate=0,1,2".to_owned()),
            "{calls:#?}"
        );
        let search = "GET /api/v1/search?content_type[]=authors,posts?hydrate=0,1,2".to_owned();
        assert!(calls.contains(&search), "{calls:#?}");
    }

    #[test]
    fn key_without_rules_may_call_what_any_key_may() {
        let calls = may_call(0, KeyKind::UserDefined, &[]);
        assert!(!calls.iter().any(|call| call.contains("/content/")), "{calls:#?}");
        assert!(calls.contains(&"GET /api/auth-context".to_owned()), "{calls:#?}");
        assert!(calls.contains(&"GET /image/{rest}".to_owned()), "{calls:#?}");
    }

    #[test]
    fn scopes_imply_others_here_as_in_the_gateway() {
        let calls = may_call(1, KeyKind::UserDefined, &[("datasets", &["delete"])]);
        for call in ["GET /v1/datasets", "PATCH /v1/datasets/{id}", "DELETE /v1/datasets/{id}"] {
            assert!(calls.iter().any(|other| other == call), "{call}: {calls:#?}");
        }
        assert!(!calls.iter().any(|call| call.contains("/webhooks")), "{calls:#?}");
    }

    const POSTS: &str = r#"{"name":"posts","relations":{"author":["authors"]}}"#;
}
