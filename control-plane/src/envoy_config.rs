//! `latchkey envoy-config`: a complete Envoy bootstrap.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use askama::Template;
use latchkey_filter::profile::Profile;

use crate::cli::{EnvoyConfigOptions, WhenUnreachable, say};
use crate::profiles::Profiles;

/// Prints the configuration that the options describe.
///
/// # Errors
///
/// With the option that cannot be used, and what was expected.
pub(crate) fn run(options: &EnvoyConfigOptions) -> anyhow::Result<()> {
    say(bootstrap(options)?.trim_end());
    Ok(())
}

/// Returns the configuration that the options describe.
///
/// # Errors
///
/// With the option that cannot be used, and what was expected.
fn bootstrap(options: &EnvoyConfigOptions) -> anyhow::Result<String> {
    let count = options.profile.len();
    if options.listen.len() != count {
        bail!(
            "--listen: expected one address for each of the {count} --profile, found {}",
            options.listen.len()
        );
    }
    if options.upstream.len() != 1 && options.upstream.len() != count {
        bail!(
            "--upstream: expected one address, or one for each of the {count} --profile, found {}",
            options.upstream.len()
        );
    }
    let mut profiles = Profiles::load(None)?;
    let upstreams = upstreams(options)?;
    let mut gateways = Vec::with_capacity(count);
    let mut names = BTreeSet::new();
    for (index, (profile, listen)) in options.profile.iter().zip(&options.listen).enumerate() {
        let (name, profile_json) = profile_json(&mut profiles, profile)?;
        let installed = profiles.get(&name).map(|installed| &installed.profile);
        if !names.insert(name.clone()) {
            bail!("--profile: `{name}` is there twice");
        }
        let upstream = upstreams.get(index).or(upstreams.first()).map(|u| u.name.clone());
        gateways.push(Gateway {
            profile: name,
            listen: own_address("--listen", listen)?,
            upstream: upstream.unwrap_or_default(),
            body_routes: installed.map(|profile| body_routes(profile)).unwrap_or_default(),
            profile_json,
        });
    }
    let bootstrap = Bootstrap {
        node_id: yaml_text("--node-id", &options.node_id)?,
        admin: own_address("--admin", &options.admin)?,
        access_log: yaml_path("--access-log", &options.access_log)?,
        wasm: yaml_path("--wasm", &options.wasm)?,
        startup_wait_ms: options.startup_wait_ms,
        response_timeout_seconds: options.response_timeout_seconds,
        idle_timeout_seconds: options.idle_timeout_seconds,
        when_unreachable: match options.when_unreachable {
            WhenUnreachable::Allow => "allow",
            WhenUnreachable::Deny => "deny",
        },
        control_plane: address("--control-plane", &options.control_plane)?,
        gateways,
        upstreams,
    };
    bootstrap.render().context("cannot write the configuration")
}

#[derive(Template)]
#[template(path = "envoy.yaml", escape = "none")]
struct Bootstrap {
    node_id: String,
    admin: Address,
    access_log: String,
    wasm: String,
    startup_wait_ms: u64,
    response_timeout_seconds: u32,
    idle_timeout_seconds: u32,
    when_unreachable: &'static str,
    control_plane: Address,
    gateways: Vec<Gateway>,
    upstreams: Vec<Upstream>,
}

struct Gateway {
    profile: String,
    listen: Address,
    upstream: String,
    /// How Envoy matches the routes on which bodies decide.
    body_routes: Vec<String>,
    profile_json: String,
}

struct Upstream {
    name: String,
    address: Address,
}

/// A host, as YAML text, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reports whether it is every address of IPv6, which is to stand for those of IPv4 too.
    fn is_every_ipv6(&self) -> bool {
        self.host.trim_matches('"').parse() == Ok(Ipv6Addr::UNSPECIFIED)
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let expected = || anyhow!("expected `host:port`, found `{text}`");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err(expected());
        }
        let port = port.parse().map_err(|_| expected())?;
        let host = if host.contains(':') { format!("\"{host}\"") } else { host.to_owned() };
        Ok(Self { host, port })
    }
}

fn address(option: &str, text: &str) -> anyhow::Result<Address> {
    text.parse().with_context(|| option.to_owned())
}

/// Returns an address to listen on, which Envoy takes as numbers only.
fn own_address(option: &str, text: &str) -> anyhow::Result<Address> {
    let address = address(option, text)?;
    if address.host.trim_matches('"').parse::<IpAddr>().is_err() {
        bail!("{option}: expected an IP address and a port, found `{text}`");
    }
    Ok(address)
}

fn upstreams(options: &EnvoyConfigOptions) -> anyhow::Result<Vec<Upstream>> {
    let is_shared = options.upstream.len() == 1;
    let mut upstreams = Vec::new();
    for (index, text) in options.upstream.iter().enumerate() {
        let name = if is_shared { "upstream".to_owned() } else { format!("upstream_{index}") };
        upstreams.push(Upstream { name, address: address("--upstream", text)? });
    }
    Ok(upstreams)
}

/// Returns how Envoy matches the paths of routes on which bodies decide: as they are, and with letters
/// that are percent-encoded, which Envoy leaves as they are and the filter reads as what they stand for.
fn body_routes(profile: &Profile) -> Vec<String> {
    let with_body = profile.routes.all().iter().filter(|route| route.graphql.is_some());
    let paths: BTreeSet<&str> = with_body.map(|route| route.path.as_str()).collect();
    let plain = paths.iter().map(|path| path_match(path));
    plain.chain(paths.iter().map(|path| encoded_path_match(path))).collect()
}

/// Returns an Envoy match, as YAML, of what a path template may become by percent-encoding.
fn encoded_path_match(template: &str) -> String {
    let segments = template.split('/').map(|segment| match segment.as_bytes() {
        [] => String::new(),
        [b'{', b'*', .., b'}'] => ".+".to_owned(),
        [b'{', .., b'}'] => "[^/]+".to_owned(),
        _ => format!("({}|{ENCODED_SEGMENT})", escaped(segment)),
    });
    let regex = segments.collect::<Vec<_>>().join("/");
    format!(
        "safe_regex: {{ regex: {} }}, headers: [{{ name: \":path\", string_match: {{ contains: \"%\" }} }}]",
        serde_json::Value::from(regex)
    )
}

/// Returns an Envoy path match, as YAML, of a path template.
fn path_match(template: &str) -> String {
    if !template.contains('{') {
        return format!("path: {}", serde_json::Value::from(template));
    }
    let segments = template.split('/').map(|segment| match segment.as_bytes() {
        [b'{', b'*', .., b'}'] => ".+".to_owned(),
        [b'{', .., b'}'] => "[^/]+".to_owned(),
        _ => escaped(segment),
    });
    let regex = segments.collect::<Vec<_>>().join("/");
    format!("safe_regex: {{ regex: {} }}", serde_json::Value::from(regex))
}

/// Returns a regular expression (RE2) of a text as it stands.
fn escaped(text: &str) -> String {
    let special = |character: &char| r"\.+*?()|[]{}^$".contains(*character);
    text.chars().flat_map(|c| special(&c).then_some('\\').into_iter().chain([c])).collect()
}

/// Returns the name of a profile and its JSON, indented to stand in the YAML block.
fn profile_json(profiles: &mut Profiles, given: &str) -> anyhow::Result<(String, String)> {
    let name = match profiles.get(given) {
        Some(_) => given.to_owned(),
        None if Path::new(given).exists() => {
            profiles.add_file(Path::new(given)).context("--profile")?
        }
        None => {
            bail!("--profile: expected {} or the path of a file, found `{given}`", profiles.names())
        }
    };
    let json = profiles.get(&name).map(|installed| installed.json.as_str()).unwrap_or_default();
    let indented: Vec<String> = json
        .lines()
        .map(|line| if line.is_empty() { String::new() } else { format!("{PROFILE_INDENT}{line}") })
        .collect();
    Ok((name, indented.join("\n")))
}

fn yaml_path(option: &str, path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().ok_or_else(|| anyhow!("{option}: expected a path in UTF-8"))?;
    yaml_text(option, text)
}

/// Returns a text as YAML; quoted unless it is plainly harmless. A JSON string is a YAML string.
fn yaml_text(option: &str, text: &str) -> anyhow::Result<String> {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_');
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    if starts && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    if text.is_empty() {
        bail!("{option}: expected a text, found nothing");
    }
    serde_json::to_string(text).with_context(|| option.to_owned())
}

/// A regular expression of a segment with something percent-encoded in it; short, since Envoy bounds how
/// large they may become.
const ENCODED_SEGMENT: &str = "[!-.0-~]*%[!-.0-~]*";

/// Where the profile stands in the template.
const PROFILE_INDENT: &str = "                        ";

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EnvoyConfigOptions {
        EnvoyConfigOptions {
            profile: vec!["flotiq".to_owned(), "fltr".to_owned()],
            listen: vec!["127.0.0.1:8080".to_owned(), "127.0.0.1:8090".to_owned()],
            upstream: vec!["127.0.0.1:8082".to_owned()],
            control_plane: "127.0.0.1:8081".to_owned(),
            wasm: "target/latchkey.wasm".into(),
            admin: "127.0.0.1:9901".to_owned(),
            node_id: "gateway".to_owned(),
            access_log: "/dev/stdout".into(),
            startup_wait_ms: 2000,
            when_unreachable: WhenUnreachable::Deny,
            response_timeout_seconds: 15,
            idle_timeout_seconds: 60,
        }
    }

    #[test]
    fn file_for_reading_is_what_the_command_prints() {
        let file = include_str!("../../envoy/envoy.yaml");
        let printed = bootstrap(&options()).unwrap();
        for (index, (file, printed)) in file.lines().zip(printed.lines()).enumerate() {
            assert_eq!(file, printed, "line {}; run `make envoy/envoy.yaml`", index + 1);
        }
        assert_eq!(file.lines().count(), printed.trim_end().lines().count());
    }

    #[test]
    fn error_names_the_option() {
        let with = |break_it: fn(&mut EnvoyConfigOptions)| {
            let mut options = options();
            break_it(&mut options);
            options
        };
        for (option, options) in [
            ("--profile", with(|o| o.profile[1] = "nobody".to_owned())),
            ("--profile", with(|o| o.profile[1] = "flotiq".to_owned())),
            ("--listen", with(|o| o.listen.truncate(1))),
            ("--listen", with(|o| o.listen[0] = "8080".to_owned())),
            ("--listen", with(|o| o.listen[0] = "localhost:8080".to_owned())),
            ("--upstream", with(|o| o.upstream = vec!["x:1".to_owned(); 3])),
            ("--control-plane", with(|o| o.control_plane = "a b:1".to_owned())),
            ("--admin", with(|o| o.admin = "x:99999".to_owned())),
        ] {
            let error = format!("{:#}", bootstrap(&options).unwrap_err());
            assert!(error.contains(option), "{option}: {error}");
        }
    }

    #[test]
    fn path_template_becomes_a_match() {
        for (template, matched) in [
            ("/api/graphql", r#"path: "/api/graphql""#),
            ("/v1/{space}/graphql", r#"safe_regex: { regex: "/v1/[^/]+/graphql" }"#),
            ("/{a}/$b(c", r#"safe_regex: { regex: "/[^/]+/\\$b\\(c" }"#),
            ("/a.b/{*rest}", r#"safe_regex: { regex: "/a\\.b/.+" }"#),
        ] {
            assert_eq!(path_match(template), matched);
        }
    }

    #[test]
    fn gateway_on_every_address_serves_both_families() {
        for (listen, both) in [
            ("[::]:8080", true),
            ("[0:0::0]:8080", true),
            ("0.0.0.0:8080", false),
            ("[::1]:8080", false),
        ] {
            let mut options = options();
            options.listen[0] = listen.to_owned();
            let printed = bootstrap(&options).unwrap();
            assert_eq!(printed.contains("ipv4_compat: true"), both, "{listen}");
        }
    }

    #[test]
    fn time_outs_are_settings() {
        let mut options = options();
        (options.response_timeout_seconds, options.idle_timeout_seconds) = (7, 77);
        let printed = bootstrap(&options).unwrap();
        assert!(printed.contains("per_try_timeout: 7s") && printed.contains("idle_timeout: 77s"));
        (options.response_timeout_seconds, options.idle_timeout_seconds) = (0, 0);
        let printed = bootstrap(&options).unwrap();
        assert!(!printed.contains("per_try_timeout") && printed.contains("idle_timeout: 0s"));
    }

    #[test]
    fn address_may_be_of_either_family() {
        let address: Address = "[::1]:80".parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), ("\"::1\"", 80));
    }
}
