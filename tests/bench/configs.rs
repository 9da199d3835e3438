//! Envoy's configurations: all are what `latchkey envoy-config` prints, with other filters.
//!
//! So listeners, connection manager and routes are the same for each; the upstream is Envoy itself,
//! by `direct_response`, and there is no access log.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use latchkey_tests::EnvoyOptions;

use crate::keys::{key_id, token_of};

/// What judges the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filters {
    /// Envoy's `api_key_auth` with so many keys.
    ApiKeyAuth { keys: u32 },
    /// As above, and behind it Envoy's `local_ratelimit`.
    ApiKeyAuthAndLimit { keys: u32 },
    /// Envoy's `buffer`: nothing but that it waits for the body.
    Buffer,
    /// Envoy's `ext_authz`, asking a server on a port.
    ExtAuthz { port: u16 },
    /// Nothing.
    None,
    /// A Wasm filter that does nothing.
    Nothing,
    /// Latchkey.
    Ours,
}

impl Filters {
    /// Returns the configuration, with files that it refers to in a folder.
    ///
    /// # Errors
    ///
    /// If what `latchkey envoy-config` prints has another form than expected.
    pub(crate) fn config(self, options: &EnvoyOptions, folder: &Path) -> anyhow::Result<String> {
        let text = options.config(folder)?;
        let text = without_block(&text, "access_log:")?;
        let text = with_direct_responses(&text);
        let (before, rest) = text.split_once(HTTP_FILTERS).context("no HTTP filters")?;
        let (ours, after) = rest.split_once(ROUTER).context("no router")?;
        let filters = match self {
            Self::Ours => return Ok(text),
            Self::None => String::new(),
            Self::ApiKeyAuth { keys } => api_key_auth(keys, folder)?,
            Self::ApiKeyAuthAndLimit { keys } => api_key_auth(keys, folder)? + LOCAL_RATE_LIMIT,
            Self::Buffer => BUFFER.to_owned(),
            Self::ExtAuthz { .. } => EXT_AUTHZ.to_owned(),
            Self::Nothing => {
                let (_, module) = ours.split_once("local: { filename: ").context("no module")?;
                let (module, _) = module.split_once(" }").context("no module")?;
                let nothing = module.replace("latchkey.wasm", "nothing.wasm");
                NOTHING.replace("MODULE", &nothing)
            }
        };
        let before = without_block(before, "typed_per_filter_config:")?;
        let cluster = match self {
            Self::ExtAuthz { port } => EXT_AUTHZ_CLUSTER.replace("PORT", &port.to_string()),
            Self::ApiKeyAuth { .. }
            | Self::ApiKeyAuthAndLimit { .. }
            | Self::Buffer
            | Self::None
            | Self::Nothing
            | Self::Ours => String::new(),
        };
        Ok(format!("{before}{HTTP_FILTERS}{filters}{ROUTER}{}\n{cluster}", after.trim_end()))
    }
}

/// Leaves out every block that starts with a line, together with what is indented below it.
fn without_block(text: &str, first_line: &str) -> anyhow::Result<String> {
    let mut kept = String::with_capacity(text.len());
    let mut left_out = None;
    let mut is_found = false;
    for line in text.lines() {
        let (indent, words) = (line.len() - line.trim_start().len(), line.trim_start());
        // An item of a list belongs to the block without being indented further.
        if left_out.is_some_and(|at| indent > at || indent == at && words.starts_with("- ")) {
            continue;
        }
        left_out = (words == first_line).then_some(indent);
        is_found |= left_out.is_some();
        if left_out.is_none() {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    is_found.then_some(kept).with_context(|| format!("no `{first_line}` in the configuration"))
}

/// Lets Envoy answer by itself where it would ask an upstream.
fn with_direct_responses(text: &str) -> String {
    let mut changed = String::with_capacity(text.len());
    let mut route = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if route.is_some_and(|at| indent > at) {
            continue;
        }
        route = (line.trim_start() == "route:").then_some(indent);
        changed.push_str(line.get(..indent).unwrap_or_default());
        let line = line.trim_start();
        changed.push_str(if route.is_some() { DIRECT_RESPONSE } else { line });
        changed.push('\n');
    }
    changed
}

/// Envoy loads JSON many times faster than YAML, so the keys are in a file of their own.
fn api_key_auth(keys: u32, folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("api_key_auth.json");
    let mut file = BufWriter::new(File::create(&path)?);
    write!(
        file,
        r#"{{"resources": [{{"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "api_key_auth", "typed_config": {{"@type": "{API_KEY_AUTH_TYPE}",
            "key_sources": [{{"header": "x-auth-token"}}], "credentials": ["#
    )?;
    for index in 0..keys {
        let comma = if index == 0 { "" } else { "," };
        let (key, client) = (token_of(index), key_id(index));
        write!(file, r#"{comma}{{"key":"{key}","client":"{client}"}}"#)?;
    }
    file.write_all(b"]}}]}")?;
    file.flush()?;
    Ok(format!(
        r#"          - name: api_key_auth
            config_discovery:
              config_source:
                path_config_source: {{ path: "{}" }}
              type_urls: [{API_KEY_AUTH_TYPE}]
"#,
        path.display()
    ))
}

const HTTP_FILTERS: &str = "          http_filters:\n";

const ROUTER: &str = "          - name: envoy.filters.http.router\n";

const DIRECT_RESPONSE: &str = r#"direct_response: { status: 200, body: { inline_string: "ok" } }"#;

const API_KEY_AUTH_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth";

const LOCAL_RATE_LIMIT: &str = r#"          - name: local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: bench
              token_bucket: { max_tokens: 1000000000, tokens_per_fill: 1000000000, fill_interval: 1s }
              filter_enabled: { default_value: { numerator: 100, denominator: HUNDRED } }
              filter_enforced: { default_value: { numerator: 100, denominator: HUNDRED } }
"#;

const BUFFER: &str = r#"          - name: buffer
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
              max_request_bytes: 262144
"#;

const EXT_AUTHZ: &str = r#"          - name: ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              http_service:
                server_uri: { uri: "http://ext_authz", cluster: ext_authz, timeout: 1s }
              allowed_headers:
                patterns:
                - exact: x-auth-token
"#;

const EXT_AUTHZ_CLUSTER: &str = r#"  - name: ext_authz
    connect_timeout: 1s
    type: STATIC
    load_assignment:
      cluster_name: ext_authz
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: { address: 127.0.0.1, port_value: PORT }
"#;

const NOTHING: &str = r#"          - name: nothing
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: nothing
                vm_config:
                  vm_id: nothing
                  runtime: envoy.wasm.runtime.v8
                  code:
                    local: { filename: MODULE }
"#;
