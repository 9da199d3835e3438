//! Commands that ask a running control plane: the management API from a shell.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::cli::{ExplainOptions, say};

/// Prints what the gateway would make of a request.
///
/// # Errors
///
/// If the control plane cannot be asked, or does not take the request as it is.
pub(crate) fn explain(options: ExplainOptions) -> anyhow::Result<()> {
    let mut question = Map::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            question.insert(name.to_owned(), Value::String(value));
        }
    };
    add("account", Some(options.account));
    add("key", options.key);
    add("token", options.token.map(token).transpose()?);
    add("method", Some(options.method.to_ascii_uppercase()));
    add("path", Some(options.path));
    add("body", options.body.map(body).transpose()?);
    add("client_address", options.client_address.map(|address| address.to_string()));
    let url = format!("{}/api/v1/explain", options.control_plane.trim_end_matches('/'));
    let answer = post(&url, &options.operator_token, &Value::Object(question))?;
    if options.json {
        say(serde_json::to_string_pretty(&answer).context("cannot write the answer")?);
    } else {
        say(in_words(&answer));
    }
    Ok(())
}

fn token(given: String) -> anyhow::Result<String> {
    if given != "-" {
        return Ok(given);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("--token: cannot read standard input")?;
    Ok(text.trim().to_owned())
}

fn body(given: String) -> anyhow::Result<String> {
    match given.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("--body: cannot read `{file}`"))
        }
        None => Ok(given),
    }
}

fn post(url: &str, operator_token: &str, body: &Value) -> anyhow::Result<Value> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let authorization = format!("Bearer {operator_token}");
    let mut response = agent
        .post(url)
        .header("authorization", &authorization)
        .send_json(body)
        .with_context(|| format!("cannot ask {url}"))?;
    let status = response.status().as_u16();
    let answer: Value = response.body_mut().read_json().unwrap_or_default();
    if status != 200 {
        let detail = answer["detail"].as_str().unwrap_or("no reason was given");
        bail!("the control plane answered {status}: {detail}");
    }
    if !answer["decision"].is_string() {
        bail!("what answers at {url} is no control plane");
    }
    Ok(answer)
}

/// Returns an explanation as people read it.
fn in_words(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!(
        "{}, {} ({}): {}",
        text(&answer["decision"]),
        answer["status"],
        text(&answer["reason"]),
        text(&answer["decided_by"])
    )];
    match answer["route"].as_str() {
        Some(route) => lines.push(format!("  route    {route}")),
        None => lines.push("  route    none of the profile's".to_owned()),
    }
    for need in answer["needed"].as_array().into_iter().flatten() {
        let what = match (need["right"].as_str(), need["kinds"].as_array()) {
            (Some(right), _) => right.to_owned(),
            (None, Some(kinds)) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
            (None, None) => String::new(),
        };
        let state = if need["is_held"] == true { "held   " } else { "MISSING" };
        lines.push(format!("  {state}  {what:<24}  {}", text(&need["needed_by"])));
    }
    let held = answer["held"].as_array().into_iter().flatten();
    for rule in held {
        let actions = rule["actions"].as_array().into_iter().flatten();
        let actions: Vec<String> = actions.map(text).collect();
        lines.push(format!("  rule     {}: {}", text(&rule["resource"]), actions.join(", ")));
    }
    if let Some(path) = answer["forwarded"].as_str() {
        lines.push(format!("  forwards {path}"));
    }
    if let Value::Object(_) = answer["answer"] {
        lines.push(format!(
            "  answers  {} {}",
            json!(answer["answer"]["status"]),
            answer["answer"]["body"]
        ));
    }
    lines.join("\n")
}

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
