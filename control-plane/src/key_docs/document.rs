//! What a key may call as an `OpenAPI` document.

use latchkey_filter::profile::Profile;
use latchkey_filter::profile::carriers::Carrier;
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

use super::Operation;

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

#[cfg(test)]
mod tests {
    use latchkey_filter::profile::SHIPPED;

    use super::*;
    use crate::key_docs::Parameter;

    #[test]
    fn document_describes_each_operation() {
        let operation = |method: &str, is_graphql: bool| Operation {
            method: method.to_owned(),
            path: "/api/v1/content/posts/{id}".to_owned(),
            resource: Some("posts".to_owned()),
            segments: vec!["id".to_owned()],
            parameters: vec![Parameter {
                name: "hydrate".to_owned(),
                meaning: "steps",
                values: vec!["0".to_owned(), "1".to_owned()],
                is_list: false,
            }],
            is_graphql,
            is_public: false,
        };
        let profile = Profile::parse(SHIPPED[0].1).unwrap();
        let operations =
            [operation("GET", false), operation("PATCH", false), operation("POST", true)];
        let document = serde_json::to_value(document(&profile, "Website", &operations)).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let path = &document["paths"]["/api/v1/content/posts/{id}"];
        assert_eq!(path["get"]["parameters"][0]["in"], "path");
        assert_eq!(path["get"]["parameters"][1]["schema"]["enum"], json!(["0", "1"]));
        assert!(path["get"]["requestBody"].is_null() && !path["patch"]["requestBody"].is_null());
        let body = &path["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["query"]));
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!(schemes["header"]["name"], "x-auth-token");
        assert_eq!(schemes["query"]["in"], "query");
    }
}
