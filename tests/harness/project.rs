//! Where the built parts are.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

/// Returns the project's folder.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the control plane's program.
///
/// # Errors
///
/// If it is not built.
pub fn latchkey() -> anyhow::Result<PathBuf> {
    // Test programs are in target/PROFILE/deps, others in target/PROFILE.
    let mut folder = std::env::current_exe()?;
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    built(folder.join("latchkey"))
}

/// Returns the filter's module.
///
/// # Errors
///
/// If it is not built.
pub fn wasm() -> anyhow::Result<PathBuf> {
    Ok(built(folder().join("target/latchkey.wasm"))?.canonicalize()?)
}

/// Returns the Envoy to test with: `$ENVOY`, or the one that `envoy/fetch.sh` finds or fetches.
///
/// # Errors
///
/// If there is none and none can be fetched.
pub fn envoy() -> anyhow::Result<PathBuf> {
    let script = folder().join("envoy/fetch.sh");
    let output = Command::new(&script).output().context("cannot run envoy/fetch.sh")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Returns the file of a shipped API profile.
///
/// # Errors
///
/// If there is none.
pub fn profile(name: &str) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(folder().join(format!("filter/profiles/{name}.json")))?)
}

/// Returns a file of attempts to get past the filter.
///
/// # Errors
///
/// If there is none, or it is no JSON.
pub fn bypass(name: &str) -> anyhow::Result<serde_json::Value> {
    let path = folder().join(format!("tests/fixtures/bypass/{name}.json"));
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

fn built(path: PathBuf) -> anyhow::Result<PathBuf> {
    if path.exists() {
        Ok(path)
    } else {
        bail!("`{}` is not there; run `make build`", path.display())
    }
}
