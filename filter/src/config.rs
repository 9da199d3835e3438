//! The plugin's configuration: JSON that Envoy hands to the filter.

use std::fmt;

use serde::Deserialize;

use crate::profile::Profile;

/// All that an operator configures of the filter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where keys come from.
    pub control_plane: ControlPlane,
    /// How long a request waits for the first snapshot, in milliseconds.
    #[serde(default = "default_startup_wait_ms")]
    pub startup_wait_ms: u64,
    /// Largest body that is judged, in bytes.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: usize,
    /// What happens to calls that are limited while the control plane cannot be asked.
    #[serde(default)]
    pub when_unreachable: WhenUnreachable,
    /// How the API is read.
    pub profile: Profile,
}

/// What happens to a call that needs a lease while the control plane is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnreachable {
    /// It is admitted, and reported when the control plane is back: limits may be exceeded.
    Allow,
    /// It is refused for the time being: 503.
    #[default]
    Deny,
}

/// Where keys come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// Name of the Envoy cluster.
    pub cluster: String,
    /// `:authority` of the calls.
    #[serde(default = "default_authority")]
    pub authority: String,
    /// What stands before the paths of the API, where a proxy mounts it elsewhere.
    #[serde(default)]
    pub path_prefix: String,
    /// The edge credential; better left out and given in the environment variable, since Envoy's
    /// `/config_dump` shows this field.
    #[serde(default)]
    pub edge_token: Option<EdgeToken>,
    /// Name of the environment variable that holds the edge credential.
    #[serde(default = "default_edge_token_env")]
    pub edge_token_env: String,
}

/// The credential of the calls to the control plane.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct EdgeToken(String);

impl EdgeToken {
    /// Returns the credential that a text is, if it can stand in a header.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let usable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        usable.then(|| Self(text.to_owned()))
    }

    /// Returns the credential, for the one header that carries it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EdgeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EdgeToken(redacted)")
    }
}

impl Config {
    /// Returns the configuration that a JSON text describes.
    ///
    /// # Errors
    ///
    /// A sentence that names the field and what was expected.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        if json.trim_ascii().is_empty() {
            return Err("expected a JSON object, found nothing".to_owned());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let config: Self = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let control_plane = &self.control_plane;
        if control_plane.cluster.is_empty() {
            return Err("`control_plane.cluster`: expected the name of a cluster".to_owned());
        }
        if !control_plane.authority.bytes().all(|byte| byte.is_ascii_graphic())
            || control_plane.authority.is_empty()
        {
            return Err("`control_plane.authority`: expected a host name".to_owned());
        }
        let prefix = &control_plane.path_prefix;
        let is_prefix = prefix.is_empty()
            || (prefix.starts_with('/') && !prefix.ends_with('/') && prefix.is_ascii());
        if !is_prefix {
            return Err(format!(
                "`control_plane.path_prefix`: expected `/…` with no slash at the end, found \
                 `{prefix}`"
            ));
        }
        if control_plane.edge_token.as_ref().is_some_and(|token| EdgeToken::new(&token.0).is_none())
        {
            return Err("`control_plane.edge_token`: expected visible ASCII characters".to_owned());
        }
        if self.startup_wait_ms > MAX_STARTUP_WAIT_MS {
            return Err(format!(
                "`startup_wait_ms`: expected at most {MAX_STARTUP_WAIT_MS}, found {}",
                self.startup_wait_ms
            ));
        }
        if !(1..=MAX_BODY_BYTES).contains(&self.max_body_bytes) {
            return Err(format!(
                "`max_body_bytes`: expected 1 to {MAX_BODY_BYTES}, found {}",
                self.max_body_bytes
            ));
        }
        Ok(())
    }
}

fn default_authority() -> String {
    "latchkey".to_owned()
}

fn default_edge_token_env() -> String {
    "LATCHKEY_EDGE_TOKEN".to_owned()
}

const fn default_startup_wait_ms() -> u64 {
    2_000
}

const fn default_max_body_bytes() -> usize {
    DEFAULT_MAX_BODY_BYTES
}

/// Largest body that is judged where nothing else is configured, in bytes: 256 KiB.
pub const DEFAULT_MAX_BODY_BYTES: usize = 256 << 10;

/// Largest body that may be configured, in bytes: what fits into the HTTP/2 window of a stream, 512 KiB
/// in the Envoy configuration that ships with this. A larger one would stall.
const MAX_BODY_BYTES: usize = 448 << 10;

/// Longest wait that may be configured, in milliseconds: past it Envoy's own time-outs answer.
const MAX_STARTUP_WAIT_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::SHIPPED;

    fn config(control_plane: &str, rest: &str) -> String {
        let (_, profile) = SHIPPED[0];
        format!(r#"{{"control_plane": {control_plane}, {rest} "profile": {profile}}}"#)
    }

    #[test]
    fn smallest_configuration_has_defaults() {
        let config = Config::parse(config(r#"{"cluster": "c"}"#, "").as_bytes()).unwrap();
        assert_eq!(config.startup_wait_ms, 2_000);
        assert_eq!(config.max_body_bytes, 262_144);
        assert_eq!(config.control_plane.edge_token_env, "LATCHKEY_EDGE_TOKEN");
        assert_eq!(config.profile.name, "flotiq");
        assert_eq!(config.when_unreachable, WhenUnreachable::Deny);
    }

    #[test]
    fn error_names_the_field() {
        for (json, field) in [
            (String::new(), "expected a JSON object"),
            ("[]".to_owned(), "expected struct"),
            ("{".to_owned(), "EOF"),
            (config("{}", ""), "cluster"),
            (config(r#"{"cluster": ""}"#, ""), "`control_plane.cluster`"),
            (config(r#"{"cluster": 7}"#, ""), "control_plane.cluster"),
            (config(r#"{"cluster": "c", "authority": "a b"}"#, ""), "`control_plane.authority`"),
            (config(r#"{"cluster": "c", "path_prefix": "x/"}"#, ""), "path_prefix"),
            (config(r#"{"cluster": "c", "edge_token": "a\nb"}"#, ""), "edge_token"),
            (config(r#"{"cluster": "c", "retries": 3}"#, ""), "retries"),
            (config(r#"{"cluster": "c"}"#, r#""startup_wait_ms": "2s","#), "startup_wait_ms"),
            (config(r#"{"cluster": "c"}"#, r#""startup_wait_ms": 99999,"#), "startup_wait_ms"),
            (config(r#"{"cluster": "c"}"#, r#""max_body_bytes": 0,"#), "max_body_bytes"),
            (config(r#"{"cluster": "c"}"#, r#""max_body_bytes": 458753,"#), "max_body_bytes"),
            (config(r#"{"cluster": "c"}"#, r#""when_unreachable": "maybe","#), "when_unreachable"),
        ] {
            let error = Config::parse(json.as_bytes()).unwrap_err();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_credential() {
        let token = EdgeToken::new("secret").unwrap();
        assert_eq!(format!("{token:?}"), "EdgeToken(redacted)");
    }
}
