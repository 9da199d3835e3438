//! Bounds of fields and parameters, as JSON Schema.

use serde_json::{Value, json};

use crate::api::corrections::MAX_REASON_CHARS;
use crate::api::fields::{
    MAX_AMOUNT, MAX_BUCKET_SECONDS, MAX_EMAIL_CHARS, MAX_ID_CHARS, MAX_LIMITS, MAX_METHOD_CHARS,
    MAX_NAME_CHARS, MAX_NETWORKS, MAX_RULES,
};
use crate::api::keys::{MAX_ENVIRONMENT_CHARS, MAX_GRACE_SECONDS, MAX_NOTE_CHARS};
use crate::api::resources::{MAX_FIELD_CHARS, MAX_RELATIONS};
use crate::profiles::Profiles;
use latchkey_protocol::window::MAX_BUCKETS;

/// Adds to a document what its types do not say.
pub(super) fn add(document: &mut Value, profiles: &Profiles) {
    let Some(schemas) = document.pointer_mut("/components/schemas") else {
        return;
    };
    for (schema, fields) in NEVER_NULL {
        for field in fields {
            refuse_null(&mut schemas[schema]["properties"][field]);
        }
    }
    let id = json!({"pattern": ID, "maxLength": MAX_ID_CHARS});
    let name = json!({"minLength": 1, "maxLength": MAX_NAME_CHARS, "pattern": NAME});
    let names: Vec<&str> = profiles.all().map(|profile| profile.name.as_str()).collect();
    let text = |max: usize| json!({"maxLength": max, "pattern": TEXT});
    let email = json!({"maxLength": MAX_EMAIL_CHARS, "pattern": EMAIL});
    let limits = json!({"maxItems": MAX_LIMITS});
    let networks = json!({"maxItems": MAX_NETWORKS});
    for (schema, field, bounds) in [
        ("CreateAccount", "id", id.clone()),
        ("CreateAccount", "name", name.clone()),
        ("CreateAccount", "profile", json!({"enum": names})),
        ("EditAccount", "name", name.clone()),
        ("CreateKey", "name", name.clone()),
        ("CreateKey", "rules", json!({"maxItems": MAX_RULES})),
        ("CreateKey", "environment", text(MAX_ENVIRONMENT_CHARS)),
        ("CreateKey", "note", text(MAX_NOTE_CHARS)),
        ("CreateKey", "limits", limits.clone()),
        ("CreateKey", "allowed_networks", networks.clone()),
        ("EditKey", "name", name.clone()),
        ("EditKey", "rules", json!({"maxItems": MAX_RULES})),
        ("EditKey", "environment", text(MAX_ENVIRONMENT_CHARS)),
        ("EditKey", "note", text(MAX_NOTE_CHARS)),
        ("EditKey", "limits", limits.clone()),
        ("EditKey", "allowed_networks", networks),
        ("RegenerateKey", "grace_seconds", json!({"maximum": MAX_GRACE_SECONDS})),
        ("PutPlan", "name", name),
        ("PutPlan", "limits", limits),
        ("PutPlan", "max_user_keys", json!({"maximum": u32::MAX})),
        ("PutResource", "relations", relations()),
        ("Limit", "name", id),
        ("Limit", "amount", json!({"maximum": MAX_AMOUNT})),
        ("Limit", "bucket_seconds", json!({"minimum": 1, "maximum": MAX_BUCKET_SECONDS})),
        ("Limit", "buckets", json!({"minimum": 1, "maximum": MAX_BUCKETS})),
        ("Rule", "actions", json!({"minItems": 1})),
        ("CreateLink", "email", email),
        (
            "ExplainRequest",
            "method",
            json!({"pattern": format!("^[A-Z]{{1,{MAX_METHOD_CHARS}}}$")}),
        ),
        ("ExplainRequest", "path", text(65_536)),
        ("ExplainRequest", "key", text(1_000)),
        ("ExplainRequest", "token", text(1_000)),
        (
            "ExplainRequest",
            "client_address",
            json!({"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
        ),
        ("CorrectUsage", "used", json!({"maximum": MAX_AMOUNT})),
        (
            "CorrectUsage",
            "reason",
            json!({"minLength": 1, "maxLength": MAX_REASON_CHARS, "pattern": NAME}),
        ),
    ] {
        merge(&mut schemas[schema]["properties"][field], &bounds);
    }
    schemas["ExplainRequest"]["not"] = json!({"required": ["key", "token"]});
    schemas["Relation"] = json!({"oneOf": [
        {"type": "string", "const": "*"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
    ]});
    // Generators cannot read tuples.
    let pair = json!({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2});
    schemas["Answer"]["properties"]["headers"]["items"] = pair;
    drop_narrow_formats(schemas);
}

/// Adds to a parameter of an operation what its type does not say.
pub(super) fn add_to_parameter(operation: &str, parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let bounds = match name.as_str() {
        "account" if parameter["in"] == "query" => json!({"pattern": ID_OR_NOTHING}),
        "after" if matches!(operation, "list_accounts" | "list_plans") => {
            json!({"pattern": ID_OR_NOTHING, "maxLength": MAX_ID_CHARS})
        }
        "account" | "plan" | "key" => json!({"pattern": ID, "maxLength": MAX_ID_CHARS}),
        "after" if operation == "list_audit_entries" => {
            json!({"pattern": "^(0|[1-9][0-9]{0,8})?$"})
        }
        "limit" => {
            let number = json!({"type": "integer", "minimum": 1, "maximum": 1000});
            parameter["schema"] = json!({"anyOf": [number, {"type": "string", "const": ""}]});
            return;
        }
        _ => return,
    };
    refuse_null(&mut parameter["schema"]);
    merge(&mut parameter["schema"], &bounds);
}

fn relations() -> Value {
    let names = json!({"type": "string", "maxLength": MAX_FIELD_CHARS, "pattern": FIELD});
    json!({"maxProperties": MAX_RELATIONS, "propertyNames": names})
}

/// Adds members to a schema, in the place of those that are there.
fn merge(schema: &mut Value, members: &Value) {
    for (name, value) in members.as_object().into_iter().flatten() {
        schema[name] = value.clone();
    }
}

/// Takes `null` from what a schema allows.
fn refuse_null(schema: &mut Value) {
    if let Some(types) = schema.get("type").and_then(Value::as_array) {
        let mut others = types.iter().filter(|kind| *kind != "null");
        if let (Some(one), None) = (others.next().cloned(), others.next()) {
            schema["type"] = one;
        }
    }
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let mut others = choices.iter().filter(|choice| choice["type"] != "null");
        if let (Some(one), None) = (others.next().cloned(), others.next()) {
            *schema = one;
        }
    }
}

/// Takes away that whole numbers have 32 bits with a sign: most have another range.
fn drop_narrow_formats(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("format").is_some_and(|format| format == "int32") {
                members.remove("format");
            }
            members.values_mut().for_each(drop_narrow_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_narrow_formats),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

/// Fields that may be absent and are never `null`.
const NEVER_NULL: [(&str, &[&str]); 5] = [
    ("CorrectUsage", &["key"]),
    ("EditAccount", &["name", "plan"]),
    ("EditKey", &["name", "rules", "enforce"]),
    ("ExplainRequest", &["key", "token", "client_address"]),
    ("CreateLink", &["email", "account", "role"]),
];

const ID_OR_NOTHING: &str = "^([A-Za-z0-9][A-Za-z0-9._-]*)?$";

const ID: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// The name of a field, or a path of such names.
const FIELD: &str = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$";

/// No control characters, and not white space alone.
const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000-\u001f\u007f-\u009f]*$";

/// No control characters but line breaks and tabs.
const TEXT: &str = r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*$";

const EMAIL: &str = r"^[\u0021-\u003f\u0041-\u007e]+@[\u0021-\u003f\u0041-\u007e]+$";
