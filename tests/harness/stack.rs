//! A control plane, an upstream and an Envoy together.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::{ControlPlane, Envoy, EnvoyOptions, Upstream, ports};

/// All that a test needs.
#[derive(Debug)]
pub struct Stack {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The API behind the gateways.
    pub upstream: Upstream,
    /// The gateways.
    pub envoy: Envoy,
    /// The folder of everything; kept if the test fails.
    pub folder: Folder,
}

/// A folder that goes with its owner, unless a test fails.
#[derive(Debug)]
pub struct Folder(Option<TempDir>, PathBuf);

impl Folder {
    /// Makes a folder.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn new() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("latchkey-test-")?;
        let path = folder.path().to_owned();
        Ok(Self(Some(folder), path))
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.1
    }
}

impl Folder {
    /// Leaves the folder where it is, and says where.
    pub fn keep(&mut self) {
        if let Some(folder) = self.0.take() {
            eprint_path(&folder.keep());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test's output is where one looks for the logs")]
fn eprint_path(path: &Path) {
    eprintln!("the logs are kept in {}", path.display());
}

impl Stack {
    /// Starts everything, with a gateway for each profile, and waits until the filters are ready.
    ///
    /// # Errors
    ///
    /// If anything does not start.
    pub async fn start(profiles: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(profiles, |_| {}).await
    }

    /// Starts everything, with changes to how Envoy is started.
    ///
    /// # Errors
    ///
    /// If anything does not start.
    pub async fn start_with(
        profiles: &[&str],
        change: impl FnOnce(&mut EnvoyOptions),
    ) -> anyhow::Result<Self> {
        Self::start_in(profiles, change, &[]).await
    }

    /// Starts everything, with changes to how Envoy is started, and variables in the environment of the
    /// control plane.
    ///
    /// # Errors
    ///
    /// If anything does not start.
    pub async fn start_in(
        profiles: &[&str],
        change: impl FnOnce(&mut EnvoyOptions),
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut folder = Folder::new()?;
        let assembled = Self::assemble(profiles, change, environment, folder.path()).await;
        match assembled {
            Ok((control_plane, upstream, envoy)) => {
                Ok(Self { control_plane, upstream, envoy, folder })
            }
            Err(error) => {
                folder.keep();
                Err(error)
            }
        }
    }

    async fn assemble(
        profiles: &[&str],
        change: impl FnOnce(&mut EnvoyOptions),
        environment: &[(&str, &str)],
        folder: &Path,
    ) -> anyhow::Result<(ControlPlane, Upstream, Envoy)> {
        let data = folder.join("data");
        let control_plane =
            ControlPlane::start(ports::free()?, &data, folder, None, environment).await?;
        let upstream = Upstream::start(ports::free()?).await?;
        let mut options = EnvoyOptions {
            gateway_host: "127.0.0.1".to_owned(),
            gateways: Vec::new(),
            upstream_port: upstream.port,
            control_plane_port: control_plane.port,
            admin_port: ports::free()?,
            workers: 2,
            edge_token: Some(control_plane.edge_token()?),
            edits: Vec::new(),
            config_options: Vec::new(),
            listeners_file: None,
        };
        for profile in profiles {
            options.gateways.push(((*profile).to_owned(), ports::free()?));
        }
        change(&mut options);
        let workers = workers(&options)?;
        let envoy = Envoy::start(options, folder).await?;
        control_plane.wait_until_in_force(workers).await?;
        Ok((control_plane, upstream, envoy))
    }

    /// Starts one more Envoy like the first, on ports of its own.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub async fn start_another_envoy(&self) -> anyhow::Result<Envoy> {
        let mut options = self.envoy.options.clone();
        options.admin_port = ports::free()?;
        for (_, port) in &mut options.gateways {
            *port = ports::free()?;
        }
        let folder = self.folder.path().join("another");
        std::fs::create_dir_all(&folder)?;
        let envoy = Envoy::start(options, &folder).await?;
        self.control_plane.wait_until_in_force(2 * workers(&self.envoy.options)?).await?;
        Ok(envoy)
    }

    /// Waits until every worker holds the last change.
    ///
    /// # Errors
    ///
    /// If that does not come true.
    pub async fn wait_until_in_force(&self) -> anyhow::Result<()> {
        let workers = workers(&self.envoy.options)?;
        self.control_plane.wait_until_in_force(workers).await
    }

    /// Returns the port of a profile's gateway.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn port(&self, profile: &str) -> anyhow::Result<u16> {
        let gateways = &self.envoy.options.gateways;
        let gateway = gateways.iter().find(|(name, _)| name == profile);
        gateway.map(|(_, port)| *port).context("no gateway for this profile")
    }

    /// Sends a request through a profile's gateway.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn send(
        &self,
        profile: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Response> {
        let url = format!("http://127.0.0.1:{}{path}", self.port(profile)?);
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|&(name, value)| (name, value.as_bytes())).collect();
        http::send(method, &url, &headers, b"").await
    }
}

/// Returns how many Wasm VMs there are: for each gateway one per worker, and one on the main thread.
fn workers(options: &EnvoyOptions) -> anyhow::Result<u64> {
    Ok(u64::try_from(options.gateways.len())? * (u64::from(options.workers) + 1))
}
