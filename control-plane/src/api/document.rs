//! The API's description in `OpenAPI` 3.1: what `utoipa` reads from handlers and types, and what it cannot.
//!
//! What holds for all operations alike is said here once: which errors there are and in which form, which
//! headers are understood, by which name a client calls an operation. So are the bounds of fields, from the
//! constants by which they are checked.

mod bounds;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::error::StatusCodes;
use crate::profiles::Profiles;

/// Names of the query parameters of each operation, by method and path.
pub(crate) type QueryNames = BTreeMap<(String, String), Vec<String>>;

/// Returns the whole description, for the profiles that are installed.
pub(crate) fn finish(document: &OpenApi, profiles: &Profiles) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    bounds::add(&mut document, profiles);
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                describe(path, method, operation);
            }
        }
    }
    document
}

/// Returns which query parameters each operation has.
pub(crate) fn query_names(document: &Value) -> QueryNames {
    let mut all = QueryNames::new();
    let paths = document.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let parameters = operation.get("parameters").and_then(Value::as_array);
            let names = parameters.into_iter().flatten().filter(|one| one["in"] == "query");
            let names = names.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect();
            all.insert((method.to_uppercase(), path.clone()), names);
        }
    }
    all
}

/// What an operation is, as far as its description depends on it.
struct Traits {
    name: String,
    is_made_once: bool,
    /// Whether it is about one record, which answers tell the tag of.
    is_of_record: bool,
    /// Whether it understands `If-Match`.
    takes_tag: bool,
}

impl Traits {
    fn of(path: &str, method: &str, handler: &str) -> Self {
        let name = format!("{handler}_{}", noun(path, handler == "list"));
        let is_made_once = MADE_ONCE.contains(&name.as_str());
        let verbs = ["}", "/suspend", "/resume", "/end-grace"];
        let is_of_record = verbs.iter().any(|verb| path.ends_with(verb));
        let is_change = method != "get" && is_of_record;
        let takes_tag = is_change || name == "regenerate_key";
        Self { name, is_made_once, is_of_record, takes_tag }
    }
}

fn describe(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let handler = operation.get("operationId").and_then(Value::as_str).unwrap_or(method);
    let traits = Traits::of(path, method, handler);
    operation.insert("operationId".to_owned(), json!(traits.name));
    describe_parameters(&traits, operation);
    if let Some(body) = operation.get_mut("requestBody") {
        body["required"] = json!(!EMPTY_BODIES.contains(&traits.name.as_str()));
    }
    let has_input = operation.contains_key("parameters");
    let has_body = operation.contains_key("requestBody");
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(responses) = responses.as_object_mut() {
        describe_errors(&traits, has_input, has_body, responses);
        for (status, response) in responses.iter_mut().filter(|(status, _)| status.starts_with('2'))
        {
            describe_success(status, response, traits.is_of_record || traits.is_made_once);
        }
    }
}

fn describe_parameters(traits: &Traits, operation: &mut Map<String, Value>) {
    let mut parameters: Vec<Value> =
        operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    for parameter in &mut parameters {
        bounds::add_to_parameter(&traits.name, parameter);
    }
    if traits.takes_tag {
        let what = "`ETag` of the record as it has to be";
        parameters.push(header("If-Match", what, r#"^(\*|"[0-9a-f]{1,64}")?$"#));
    }
    if traits.is_made_once {
        let what = "Name of this request: sent again within a day, it gets the same answer";
        parameters.push(header("Idempotency-Key", what, "^[!-~]{1,255}$"));
    }
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), json!(parameters));
    }
}

/// Adds the errors that an operation of its kind answers with, each in the form of all.
fn describe_errors(
    traits: &Traits,
    has_input: bool,
    has_body: bool,
    responses: &mut Map<String, Value>,
) {
    let mut errors =
        vec![StatusCodes::UNAUTHENTICATED, StatusCodes::THROTTLED, StatusCodes::UNAVAILABLE];
    let known = |(status, _): &(u16, &str)| responses.contains_key(&status.to_string());
    errors.extend(StatusCodes::DECLARED.into_iter().filter(known));
    if has_input || has_body {
        errors.push(StatusCodes::INVALID);
    }
    if has_body {
        errors.extend(StatusCodes::OF_BODIES);
    }
    if traits.takes_tag {
        errors.push(StatusCodes::OUTDATED);
    }
    if traits.is_made_once {
        errors.extend([StatusCodes::NAME_TAKEN, StatusCodes::CONFLICT]);
    }
    for (status, description) in errors {
        responses.insert(status.to_string(), problem(description));
    }
}

fn describe_success(status: &str, response: &mut Value, is_record: bool) {
    let description = match status {
        "201" => "It was made.",
        "204" => "It is done.",
        _ => "What was asked for.",
    };
    response["description"] = json!(description);
    if status == "204" || !is_record {
        return;
    }
    let text = json!({"type": "string"});
    response["headers"]["ETag"] = json!({"description": "Tag of the record", "schema": text});
    if status == "201" {
        response["headers"]["Location"] = json!({"description": "Where it is", "schema": text});
    }
}

/// Returns what an operation is about: the last part of its path that names a kind of record.
fn noun(path: &str, is_list: bool) -> &'static str {
    let parts = path.rsplit('/').filter(|part| !part.starts_with('{'));
    let known = |part: &str| NOUNS.iter().find(|(plural, _)| *plural == part);
    match parts.filter_map(known).next() {
        Some(("audit", _)) => "audit_entries",
        Some((plural, _)) if is_list => plural,
        Some((_, singular)) => singular,
        None => "it",
    }
}

fn header(name: &str, description: &str, pattern: &str) -> Value {
    json!({
        "name": name, "in": "header", "required": false, "description": description,
        "schema": {"type": "string", "pattern": pattern},
    })
}

fn problem(description: &str) -> Value {
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    json!({"description": description, "content": {"application/problem+json": {"schema": schema}}})
}

/// Parts of paths, and what one of them is called.
const NOUNS: [(&str, &str); 9] = [
    ("accounts", "account"),
    ("audit", "audit_entry"),
    ("explain", "request"),
    ("keys", "key"),
    ("links", "link"),
    ("plans", "plan"),
    ("proxies", "proxy"),
    ("resources", "resource"),
    ("usage", "usage"),
];

/// Operations that make something with each request.
const MADE_ONCE: [&str; 4] = ["create_account", "create_key", "create_link", "regenerate_key"];

/// Operations whose body may be empty, which counts as `{}`.
const EMPTY_BODIES: [&str; 3] = ["edit_account", "edit_key", "put_resource"];
