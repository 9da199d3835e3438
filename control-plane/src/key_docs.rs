//! What a key may call, as a list and as an `OpenAPI` document.
//!
//! Nothing is concluded from the rules here: the filter's own code is asked for each route of the
//! profile and each content type of the account whether a request of that kind would pass.

use latchkey_filter::profile::Profile;
use latchkey_filter::profile::carriers::Carrier;
use latchkey_filter::profile::keys::ResourceNames;
use latchkey_filter::profile::routes::{AccessLevel, NeedResource, Route};
use serde_json::json;
use utoipa::openapi::path::{
    HttpMethod, Operation as ApiOperation, OperationBuilder, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Required,
    ResponseBuilder,
};

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

/// Returns the `OpenAPI` 3.1 document of what a key may call.
pub(crate) fn document(profile: &Profile, key_name: &str, operations: &[Operation]) -> OpenApi {
    let mut paths = Paths::new();
    for operation in operations {
        if let Some(method) = http_method(&operation.method) {
            paths.add_path_operation(&operation.path, vec![method], described(operation));
        }
    }
    let mut components = Components::new();
    let mut securities = Vec::new();
    for carrier in &profile.carriers {
        let (name, scheme) = security_scheme(carrier);
        components.add_security_scheme(name, scheme);
        securities.push(SecurityRequirement::new(name, Vec::<String>::new()));
    }
    let info = InfoBuilder::new()
        .title(format!("{}: what the key “{key_name}” may call", profile.title))
        .version("1")
        .description(Some(
            "Made from the key's rules; operations that the key may not call are left out.",
        ));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components))
        .security(Some(securities))
        .build()
}

fn described(operation: &Operation) -> ApiOperation {
    let mut builder = OperationBuilder::new()
        .operation_id(Some(operation_id(operation)))
        .summary(Some(format!("{} {}", operation.method, operation.path)))
        .tag(operation.resource.as_deref().unwrap_or("general"));
    for name in &operation.segments {
        builder = builder.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(text(&[]))),
        );
    }
    for parameter in &operation.parameters {
        let schema = match parameter.is_list {
            true => Schema::Array(
                ArrayBuilder::new()
                    .items(utoipa::openapi::RefOr::T(text(&parameter.values)))
                    .build(),
            ),
            false => text(&parameter.values),
        };
        builder = builder.parameter(
            ParameterBuilder::new()
                .name(&parameter.name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(parameter.meaning))
                .schema(Some(schema)),
        );
    }
    if operation.is_graphql && operation.method == "GET" {
        builder = builder.parameter(
            ParameterBuilder::new()
                .name("query")
                .parameter_in(ParameterIn::Query)
                .required(Required::True)
                .schema(Some(text(&[]))),
        );
    } else if matches!(operation.method.as_str(), "POST" | "PUT" | "PATCH") {
        let mut object = ObjectBuilder::new();
        if operation.is_graphql {
            object = object
                .property("query", text(&[]))
                .property("variables", ObjectBuilder::new())
                .property("operationName", text(&[]))
                .required("query");
        }
        let content = ContentBuilder::new().schema(Some(Schema::Object(object.build()))).build();
        let body = RequestBodyBuilder::new().content("application/json", content).build();
        builder = builder.request_body(Some(body));
    }
    for (status, description) in RESPONSES {
        builder = builder.response(status, ResponseBuilder::new().description(description));
    }
    builder.build()
}

fn text(values: &[String]) -> Schema {
    let mut object = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    if !values.is_empty() {
        object = object.enum_values(Some(values.iter().map(|value| json!(value))));
    }
    Schema::Object(object.build())
}

fn operation_id(operation: &Operation) -> String {
    let words = operation.path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| !word.is_empty());
    let method = operation.method.to_lowercase();
    std::iter::once(method.as_str()).chain(words).collect::<Vec<_>>().join("_")
}

fn http_method(name: &str) -> Option<HttpMethod> {
    Some(match name {
        "DELETE" => HttpMethod::Delete,
        "GET" => HttpMethod::Get,
        "HEAD" => HttpMethod::Head,
        "OPTIONS" => HttpMethod::Options,
        "PATCH" => HttpMethod::Patch,
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        _ => return None,
    })
}

fn security_scheme(carrier: &Carrier) -> (&'static str, SecurityScheme) {
    match carrier {
        Carrier::Bearer(_) => {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
            ("bearer", SecurityScheme::Http(scheme))
        }
        Carrier::Header(name) => {
            ("header", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name))))
        }
        Carrier::Query(name) => {
            ("query", SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new(name))))
        }
    }
}

/// Answers of every operation.
const RESPONSES: [(&str, &str); 4] = [
    ("200", "What the API answers."),
    ("401", "The token is missing, unknown, expired or revoked."),
    ("403", "The key may not do this."),
    ("429", "A limit is used up; `Retry-After` tells when a call is possible again."),
];
