//! The Envoys that are compared, all running at the same time; one that has nothing to do costs
//! nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use latchkey_tests::process::Process;
use latchkey_tests::{ControlPlane, Envoy, EnvoyOptions, ports, wait};

use crate::configs::Filters;
use crate::cores::Cores;
use crate::load::Client;

/// An Envoy with some filters, and what it asks.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// What judges the requests.
    pub(crate) filters: Filters,
    /// The Envoy.
    pub(crate) envoy: Envoy,
    /// Port on which it listens.
    pub(crate) port: u16,
    /// Process that Envoy asks, if any.
    pub(crate) asked: Option<u32>,
    /// How long it took until Envoy was ready.
    pub(crate) start_time: Duration,
    _server: Option<Process>,
}

/// Where and how Envoys are started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    /// Which cores they run on.
    pub(crate) cores: Cores,
    /// Folder below which each has one of its own.
    pub(crate) folder: &'a Path,
}

impl Site<'_> {
    /// Starts an Envoy with one worker on the proxies' core, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub(crate) async fn start(
        &self,
        name: &str,
        filters: Filters,
        control_plane: Option<&ControlPlane>,
    ) -> anyhow::Result<Gateway> {
        let folder = self.folder(name)?;
        let options = options(1, control_plane)?;
        let text = filters.config(&options, &folder)?;
        let port = port(&options)?;
        let start = Instant::now();
        self.cores.use_proxy_core()?;
        let envoy = Envoy::start_as(options, &text, &folder, START).await;
        self.cores.use_load_core()?;
        let start_time = start.elapsed();
        let asked = control_plane.map(ControlPlane::process_id).transpose()?;
        Ok(Gateway { filters, envoy: envoy?, port, asked, start_time, _server: None })
    }

    /// Starts an Envoy as above, with an `ext_authz` server that knows so many keys.
    ///
    /// # Errors
    ///
    /// If one of them does not start.
    pub(crate) async fn start_with_server(&self, name: &str, keys: u32) -> anyhow::Result<Gateway> {
        let folder = self.folder(name)?;
        let port = ports::free()?;
        let program = std::env::current_exe()?;
        let server = Process::start("ext-authz", program, &folder, |command| {
            command.args(["--ext-authz-server", &port.to_string(), &keys.to_string()]);
        })?;
        wait::until("the server for ext_authz", START, async || Client::connect(port).await.ok())
            .await?;
        let mut gateway = self.start(name, Filters::ExtAuthz { port }, None).await?;
        gateway.asked = Some(server.id());
        gateway._server = Some(server);
        Ok(gateway)
    }

    /// Makes a folder below this one.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        Ok(folder)
    }
}

/// Returns how to start an Envoy with so many workers; without a control plane, its port is nobody's.
///
/// # Errors
///
/// If no port is free.
pub(crate) fn options(
    workers: u32,
    control_plane: Option<&ControlPlane>,
) -> anyhow::Result<EnvoyOptions> {
    Ok(EnvoyOptions {
        gateway_host: "127.0.0.1".to_owned(),
        gateways: vec![("flotiq".to_owned(), ports::free()?)],
        upstream_port: ports::free()?,
        control_plane_port: match control_plane {
            Some(control_plane) => control_plane.port,
            None => ports::free()?,
        },
        admin_port: ports::free()?,
        workers,
        edge_token: control_plane.map(ControlPlane::edge_token).transpose()?,
        edits: Vec::new(),
        config_options: Vec::new(),
        listeners_file: None,
    })
}

/// Returns the port of the only gateway.
///
/// # Errors
///
/// If there is none.
pub(crate) fn port(options: &EnvoyOptions) -> anyhow::Result<u16> {
    options.gateways.first().map(|(_, port)| *port).context("no gateway")
}

/// Waits until a request is answered as it must be.
///
/// # Errors
///
/// If it never is.
pub(crate) async fn until_answered(port: u16, request: &[u8], status: u16) -> anyhow::Result<()> {
    wait::until("the first answer of the expected status", START, async || {
        let mut client = Client::connect(port).await.ok()?;
        let answer = client.exchange(request).await.ok()?;
        (answer.status == status).then_some(())
    })
    .await
}

/// How long a start may take with a million keys.
pub(crate) const START: Duration = Duration::from_secs(180);
