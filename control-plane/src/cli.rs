//! The command line.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tracing::Level;

/// API-key access for anything behind Envoy.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the control plane: the panel, the management API, and updates for filters.
    Serve(ServeOptions),
    /// Prints a complete Envoy configuration.
    EnvoyConfig(EnvoyConfigOptions),
    /// Tells what the gateway would make of a request, and why.
    Explain(ExplainOptions),
}

/// Options of `latchkey serve`.
#[derive(Args)]
pub(crate) struct ServeOptions {
    /// Address to listen on.
    #[arg(long, env = "LATCHKEY_LISTEN", default_value = "127.0.0.1:8081")]
    pub(crate) listen: SocketAddr,
    /// Folder of the store and of the credentials that were made; made if absent.
    #[arg(long, env = "LATCHKEY_DATA", value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Folder with API profiles (*.json), beside `flotiq` and `fltr` or in their place.
    #[arg(long, env = "LATCHKEY_PROFILES", value_name = "DIR")]
    pub(crate) profiles: Option<PathBuf>,
    /// Least important lines to log: error, warn, info or debug.
    #[arg(long, env = "LATCHKEY_LOG", default_value = "info")]
    pub(crate) log: Level,
    /// Credential of operators [else `OPERATOR_TOKEN`, else `operator-token` in the data folder].
    #[arg(long, env = "LATCHKEY_OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) operator_token: Option<String>,
    /// Credential of filters [else `edge-token` in the data folder].
    #[arg(long, env = "LATCHKEY_EDGE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) edge_token: Option<String>,
    /// Address at which people open the panel; with `https` its cookies are for TLS only
    /// [default: `http://` and the address to listen on].
    #[arg(long, env = "LATCHKEY_PANEL_URL", value_name = "URL")]
    pub(crate) panel_url: Option<String>,
    /// Networks of proxies in front, whose `X-Forwarded-For` is believed; separated by commas.
    #[arg(long, env = "LATCHKEY_TRUSTED_PROXIES", value_name = "NETWORK,…")]
    pub(crate) trusted_proxies: Option<String>,
    /// Where tokens are shown: in answers of the API and in the panel, or in the panel only.
    #[arg(long, env = "LATCHKEY_TOKEN_ACCESS", default_value = "api", value_name = "WHERE")]
    pub(crate) token_access: TokenAccess,
    /// 32 random bytes in base64, with which tokens are kept encrypted, so that the panel can show
    /// them again [default: tokens are shown once].
    #[arg(long, env = "LATCHKEY_SEALING_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) sealing_key: Option<String>,
}

/// Where tokens are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TokenAccess {
    /// In the answers of the management API, and in the panel.
    Api,
    /// In the panel only.
    Panel,
}

/// Options of `latchkey envoy-config`; `--profile`, `--listen` and `--upstream` may be repeated for
/// several gateways in one Envoy, in the same order.
#[derive(Args, Debug)]
pub(crate) struct EnvoyConfigOptions {
    /// API profile of a gateway: `flotiq`, `fltr`, or a file.
    #[arg(long, required = true, value_name = "NAME|FILE")]
    pub(crate) profile: Vec<String>,
    /// Address on which the gateway listens.
    #[arg(long, required = true, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Vec<String>,
    /// Address of the API behind the gateway; one for all, or one for each.
    #[arg(long, required = true, value_name = "HOST:PORT")]
    pub(crate) upstream: Vec<String>,
    /// Address of the control plane.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) control_plane: String,
    /// The filter's module, as Envoy will find it.
    #[arg(long, value_name = "FILE")]
    pub(crate) wasm: PathBuf,
    /// Address of Envoy's own administration pages.
    #[arg(long, default_value = "127.0.0.1:9901", value_name = "ADDRESS:PORT")]
    pub(crate) admin: String,
    /// Name by which the control plane lists this Envoy.
    #[arg(long, default_value = "gateway")]
    pub(crate) node_id: String,
    /// File of the access log.
    #[arg(long, default_value = "/dev/stdout", value_name = "FILE")]
    pub(crate) access_log: PathBuf,
    /// How long a request waits for the first snapshot, in milliseconds.
    #[arg(long, default_value_t = 2000, value_name = "MS")]
    pub(crate) startup_wait_ms: u64,
    /// What happens to limited calls while the control plane cannot be asked.
    #[arg(long, default_value = "deny", value_name = "DO")]
    pub(crate) when_unreachable: WhenUnreachable,
    /// How long the API may take until its answer begins, in seconds; 0 for any time.
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    pub(crate) response_timeout_seconds: u32,
    /// How long a request or its answer may be silent, in seconds, however long it takes in all; 0 for
    /// any time.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) idle_timeout_seconds: u32,
}

/// Options of `latchkey explain`; without `--key` and `--token`, the request is made without a token.
#[derive(Args)]
pub(crate) struct ExplainOptions {
    /// Id of the account.
    #[arg(long)]
    pub(crate) account: String,
    /// Id of the key with which the request is made.
    #[arg(long, conflicts_with = "token")]
    pub(crate) key: Option<String>,
    /// Token with which it is made; `-` reads it from standard input, so that others do not see it.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Body of the request, such as a GraphQL query in JSON; `@FILE` reads it from a file.
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(crate) body: Option<String>,
    /// Address of the client [default: one from which the key may be used].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) client_address: Option<IpAddr>,
    /// Prints the answer of the API as it is.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the control plane is.
    #[arg(long, env = "LATCHKEY_URL", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    pub(crate) control_plane: String,
    /// Credential of operators.
    #[arg(long, env = "LATCHKEY_OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) operator_token: String,
    /// Method of the request.
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,
    /// Path of the request, with its query string.
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
}

/// Leaves the credentials out.
impl std::fmt::Debug for ExplainOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExplainOptions").field("account", &self.account).finish_non_exhaustive()
    }
}

/// What happens to limited calls while the control plane cannot be asked.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum WhenUnreachable {
    /// Admit them, and count them later: limits may be exceeded.
    Allow,
    /// Refuse them for the time being.
    Deny,
}

/// Leaves the credentials out.
impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeOptions")
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("profiles", &self.profiles)
            .finish_non_exhaustive()
    }
}

/// Prints a line for the one who started the program; a closed output is no reason to stop.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints why the program stops.
pub(crate) fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "latchkey: {error:#}");
}
