//! The demo accounts, and what there is to try with them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use latchkey_tests::{ControlPlane, http};
use serde_json::{Value, json};

use crate::Settings;

/// Tokens of the demo accounts' keys.
pub(crate) struct Demo {
    cms_read_write: String,
    cms_read_only: String,
    cms_website: String,
    rag_full: String,
    rag_reader: String,
    rag_trial: String,
}

impl Demo {
    /// Makes the accounts that are not there yet, and gives the demo keys tokens that can be shown.
    ///
    /// Tokens are kept nowhere, so each start makes new ones; those of the start before work for
    /// another day.
    pub(crate) async fn prepare(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        account(control_plane, CMS, "Acme Publishing", "flotiq", "growth").await?;
        account(control_plane, RAG, "Acme Research", "fltr", "standard").await?;
        for (name, relations) in [
            ("authors", json!({})),
            ("blogposts", json!({"author": ["authors"], "cover": ["_media"]})),
            ("orders", json!({"anything": "*"})),
            ("_media", json!({"tags": ["_tag"]})),
            ("_tag", json!({})),
        ] {
            let path = format!("/accounts/{CMS}/resources/{name}");
            control_plane.call("PUT", &path, &json!({"relations": relations})).await?;
        }
        let website = json!({"name": "Website", "environment": "production", "rules": [
            {"resource": "blogposts", "actions": ["read"]},
            {"resource": "authors", "actions": ["read"]}]});
        let full = json!({"name": "Agent", "rules": [{"resource": "*", "actions": ["*"]}]});
        let reader = json!({"name": "Reader", "rules": [
            {"resource": "datasets", "actions": ["read"]}]});
        let trial = json!({"name": "Trial", "rules": [{"resource": "*", "actions": ["*"]}], "limits": [
            {"name": "trial", "amount": 1, "bucket_seconds": 86_400, "buckets": 30}]});
        Ok(Self {
            cms_read_write: token(control_plane, CMS, "kind", "application_read_write").await?,
            cms_read_only: token(control_plane, CMS, "kind", "application_read_only").await?,
            cms_website: named_token(control_plane, CMS, &website).await?,
            rag_full: named_token(control_plane, RAG, &full).await?,
            rag_reader: named_token(control_plane, RAG, &reader).await?,
            rag_trial: named_token(control_plane, RAG, &trial).await?,
        })
    }

    /// Makes the one call that the trial key may make in 30 days, so that there is a limit to see.
    pub(crate) async fn use_up_trial(&self, settings: &Settings) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/v1/account", settings.fltr_port);
        let authorization = format!("Bearer {}", self.rag_trial);
        let headers = [("authorization", authorization.as_bytes())];
        let status = http::send("GET", &url, &headers, b"").await?.status;
        // It was made already if these are the data of an earlier run.
        ensure!(matches!(status, 200 | 429), "the trial key's call was answered {status}");
        Ok(())
    }

    /// Returns what to look at and what to try.
    pub(crate) fn guide(
        &self,
        settings: &Settings,
        control_plane: &ControlPlane,
        link: &str,
    ) -> String {
        let Settings { gateway_port, fltr_port, control_plane_port, .. } = settings;
        let (upstream, admin) = (settings.upstream_port, settings.admin_port);
        let cms = format!("http://127.0.0.1:{gateway_port}/api/v1/content");
        let graphql = format!("http://127.0.0.1:{gateway_port}/api/graphql");
        let rag = format!("http://127.0.0.1:{fltr_port}/v1");
        let api = format!("http://127.0.0.1:{control_plane_port}/api/v1");
        let operator = &control_plane.operator_token;
        let Self { cms_read_write, cms_read_only, cms_website, .. } = self;
        let Self { rag_full, rag_reader, rag_trial, .. } = self;
        format!(
            r#"
Latchkey is ready.

  gateway, Flotiq profile   http://127.0.0.1:{gateway_port}
  gateway, FLTR profile     http://127.0.0.1:{fltr_port}
  panel                     http://127.0.0.1:{control_plane_port}
  management API            {api}   its document: {api}/openapi.json
  sample upstream           http://127.0.0.1:{upstream}   echoes what reached it
  Envoy's own pages         http://127.0.0.1:{admin}
  logs and data             {data}

Become an operator of the panel with this link, which works once
  {link}

Keys of account `{CMS}` (Flotiq), new at each start
  read and write            {cms_read_write}
  read only                 {cms_read_only}
  Website: blogposts, authors: read
                            {cms_website}
Keys of account `{RAG}` (FLTR)
  Agent: everything         {rag_full}
  Reader: datasets: read    {rag_reader}
  Trial: 1 call in 30 days  {rag_trial}
Operator token              {operator}

Try (the status that each prints is in front)
  200  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'X-AUTH-TOKEN: {cms_website}' {cms}/blogposts
  401  curl -s -o /dev/null -w '%{{http_code}}\n' {cms}/blogposts
  403  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'X-AUTH-TOKEN: {cms_website}' {cms}/orders
  403  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'X-AUTH-TOKEN: {cms_website}' '{cms}/blogposts?hydrate=1'
  200  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'X-AUTH-TOKEN: {cms_website}' -H 'Content-Type: application/json' -d '{{"query":"{{ blogpostsList {{ title author {{ name }} }} }}"}}' {graphql}
  403  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'X-AUTH-TOKEN: {cms_website}' -H 'Content-Type: application/json' -d '{{"query":"{{ blogpostsList {{ cover {{ url }} }} }}"}}' {graphql}
  403  curl -s -o /dev/null -w '%{{http_code}}\n' -X POST -H 'X-AUTH-TOKEN: {cms_read_only}' {cms}/blogposts
  200  curl -s -o /dev/null -w '%{{http_code}}\n' '{cms}/orders?auth_token={cms_read_write}'
  200  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'Authorization: Bearer {rag_full}' {rag}/account
  403  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'Authorization: Bearer {rag_reader}' {rag}/account
  429  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'Authorization: Bearer {rag_trial}' {rag}/account
  200  curl -s -o /dev/null -w '%{{http_code}}\n' {rag}/mcp/manifest
  200  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'Authorization: Bearer {operator}' {api}/accounts/{CMS}/usage
  201  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'Authorization: Bearer {operator}' -H 'Content-Type: application/json' -d '{{"name":"Mine","rules":[{{"resource":"orders","actions":["read"]}}]}}' {api}/accounts/{CMS}/keys
  200  curl -s -o /dev/null -w '%{{http_code}}\n' -H 'Authorization: Bearer {operator}' -H 'Content-Type: application/json' -d '{{"account":"{CMS}","token":"{cms_website}","method":"GET","path":"/api/v1/content/blogposts?hydrate=1"}}' {api}/explain
Leave out `-o /dev/null` to see the bodies: what reached the upstream, or why not. Ctrl-C ends everything."#,
            data = settings.data.display(),
        )
    }
}

/// Returns the key with which the demo's tokens are kept for the panel, made at the first start.
pub(crate) fn sealing_key(data: &Path) -> anyhow::Result<String> {
    let file = data.join("sealing-key");
    if let Ok(key) = std::fs::read_to_string(&file) {
        return Ok(key.trim().to_owned());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    let mut random = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let key = STANDARD.encode(random);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    file.write_all(key.as_bytes())?;
    Ok(key)
}

async fn account(
    control_plane: &ControlPlane,
    id: &str,
    name: &str,
    profile: &str,
    plan: &str,
) -> anyhow::Result<()> {
    if control_plane.api("GET", &format!("/accounts/{id}"), &Value::Null).await?.status == 200 {
        return Ok(());
    }
    let account = json!({"id": id, "name": name, "profile": profile, "plan": plan});
    control_plane.call("POST", "/accounts", &account).await?;
    Ok(())
}

/// Returns a token of the key that a body describes, made if there is none of its name.
async fn named_token(
    control_plane: &ControlPlane,
    account: &str,
    key: &Value,
) -> anyhow::Result<String> {
    let name = key["name"].as_str().context("a demo key has no name")?;
    match token(control_plane, account, "name", name).await {
        Ok(token) => Ok(token),
        Err(_) => Ok(control_plane.create_key(account, key).await?.token),
    }
}

/// Returns a new token of the live key with a member of a value.
async fn token(
    control_plane: &ControlPlane,
    account: &str,
    member: &str,
    value: &str,
) -> anyhow::Result<String> {
    let path = format!("/accounts/{account}/keys?limit=1000");
    let keys = control_plane.call("GET", &path, &Value::Null).await?;
    let items = keys["items"].as_array().context("no items")?;
    let key = items
        .iter()
        .find(|key| key[member] == value && key["state"] != "revoked")
        .with_context(|| format!("account `{account}` has no key with {member} `{value}`"))?;
    let id = key["id"].as_str().context("a key without an id")?;
    Ok(control_plane.regenerate(account, id, GRACE_SECONDS).await?.token)
}

/// Account of the Flotiq profile.
const CMS: &str = "acme-cms";
/// Account of the FLTR profile.
const RAG: &str = "acme-rag";
/// A day: a terminal that is still open keeps working after a restart.
const GRACE_SECONDS: u32 = 86_400;
