//! The Envoy under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::http;
use crate::process::Process;
use crate::{project, wait};

/// How to start an Envoy.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    /// Address on which gateways listen.
    pub gateway_host: String,
    /// API profiles, each with the port of its gateway.
    pub gateways: Vec<(String, u16)>,
    /// Port of the API behind the gateways.
    pub upstream_port: u16,
    /// Port of the control plane.
    pub control_plane_port: u16,
    /// Port of Envoy's own pages.
    pub admin_port: u16,
    /// Number of worker threads.
    pub workers: u32,
    /// The filters' credential.
    pub edge_token: Option<String>,
    /// Replacements in the configuration: from, to.
    pub edits: Vec<(String, String)>,
    /// More options of `latchkey envoy-config`.
    pub config_options: Vec<String>,
    /// File for the listeners, which Envoy then watches; none, they are part of the bootstrap.
    pub listeners_file: Option<PathBuf>,
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// How it was started.
    pub options: EnvoyOptions,
    /// Its configuration.
    pub config: PathBuf,
    folder: PathBuf,
    process: Process,
}

impl Envoy {
    /// Starts an Envoy with its files in a folder, and waits until it is live.
    ///
    /// # Errors
    ///
    /// If it does not start; with what it said.
    pub async fn start(options: EnvoyOptions, folder: &Path) -> anyhow::Result<Self> {
        let text = options.config(folder)?;
        Self::start_as(options, &text, folder, wait::START).await
    }

    /// Starts an Envoy with another configuration than its options describe, and waits for as long as
    /// that may take to load.
    ///
    /// # Errors
    ///
    /// If it does not start; with what it said.
    pub async fn start_as(
        options: EnvoyOptions,
        text: &str,
        folder: &Path,
        deadline: Duration,
    ) -> anyhow::Result<Self> {
        let config = folder.join("envoy.yaml");
        std::fs::write(&config, text)?;
        let process = Process::start("envoy", project::envoy()?, folder, |command| {
            command.arg("-c").arg(&config);
            command.args(["--use-dynamic-base-id", "--file-flush-interval-msec", "100"]);
            command.args(["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]);
            command.args(["--concurrency", &options.workers.to_string()]);
            command.env_remove("LATCHKEY_EDGE_TOKEN");
            if let Some(token) = &options.edge_token {
                command.env("LATCHKEY_EDGE_TOKEN", token);
            }
        })?;
        let mut envoy = Self { options, config, folder: folder.to_owned(), process };
        let url = envoy.admin_url("/ready");
        let process = &mut envoy.process;
        let live = wait::until("Envoy's readiness", deadline, async || {
            if let Ok(Some(status)) = process.has_ended() {
                return Some(Err(status));
            }
            let answer = http::send("GET", &url, &[], b"").await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        });
        match live.await? {
            Ok(()) => Ok(envoy),
            Err(status) => bail!("Envoy ended with {status}; it said:\n{}", envoy.log()),
        }
    }

    /// Returns all that Envoy has said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("envoy.log")).unwrap_or_default()
    }

    /// Returns the number of the process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the URL of one of Envoy's own pages.
    #[must_use]
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.options.admin_port)
    }

    /// Returns one of Envoy's own pages.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        Ok(http::send("GET", &self.admin_url(path), &[], b"").await?.text())
    }

    /// Returns a statistic; 0 if there is none of that name.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn statistic(&self, name: &str) -> anyhow::Result<u64> {
        let text = self.admin("/stats").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map_or(Ok(0), |value| value.parse().context("the statistic is no number"))
    }

    /// Ends the program at once, as a crash would.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Asks the program to end, and waits until it has.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop().await?;
        Ok(())
    }

    /// Reports whether the program has ended by itself.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.has_ended()?.is_some())
    }
}

impl EnvoyOptions {
    /// Returns the configuration, made by `latchkey envoy-config`.
    ///
    /// # Errors
    ///
    /// If the command fails, or an edit finds nothing to replace.
    pub fn config(&self, folder: &Path) -> anyhow::Result<String> {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut command = Command::new(project::latchkey()?);
        command.arg("envoy-config");
        for (profile, port) in &self.gateways {
            let listen = format!("{}:{port}", self.gateway_host);
            command.args(["--profile", profile, "--listen", &listen]);
        }
        command.args(["--upstream", &local(self.upstream_port)]);
        command.args(["--control-plane", &local(self.control_plane_port)]);
        command.args(["--admin", &local(self.admin_port)]);
        command.arg("--wasm").arg(project::wasm()?);
        command.arg("--access-log").arg(folder.join("access.log"));
        command.args(&self.config_options);
        let output = command.output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let mut config = String::from_utf8(output.stdout)?;
        for (from, to) in &self.edits {
            if !config.contains(from) {
                bail!("`{from}` is not in the configuration");
            }
            config = config.replace(from, to);
        }
        match &self.listeners_file {
            None => Ok(config),
            Some(file) => split_listeners(&config, file),
        }
    }
}

/// Moves the listeners of a bootstrap to a file of their own, and returns the rest with a reference
/// to it. The file appears whole, as Envoy demands of files that it watches.
fn split_listeners(config: &str, file: &Path) -> anyhow::Result<String> {
    let (head, rest) = config.split_once("  listeners:\n").context("no listeners")?;
    let (listeners, clusters) = rest.split_once("  clusters:\n").context("no clusters")?;
    let mut resources = "resources:\n".to_owned();
    for line in listeners.lines() {
        let line = line.strip_prefix("  ").unwrap_or(line);
        match line.strip_prefix("- name: gateway") {
            Some(name) => resources.push_str(&format!("{LISTENER_TYPE}\n  name: gateway{name}\n")),
            None => resources.push_str(&format!("{line}\n")),
        }
    }
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, resources)?;
    std::fs::rename(&fresh, file)?;
    let folder = file.parent().context("no folder")?.display();
    Ok(format!(
        "dynamic_resources:\n  lds_config:\n    path_config_source:\n      path: {}\n      \
         watched_directory: {{ path: {folder} }}\n{head}  clusters:\n{clusters}",
        file.display()
    ))
}

const LISTENER_TYPE: &str = "- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener";
