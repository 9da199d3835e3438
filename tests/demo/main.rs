//! `make run`: everything on one machine, with demo accounts for both profiles.
//!
//! Starts the control plane, an upstream that echoes, and Envoy with a gateway per profile; prints
//! what to try; ends all of it on Ctrl-C or SIGTERM.

mod accounts;

use std::fs::{DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use latchkey_tests::{ControlPlane, Envoy, EnvoyOptions, Upstream, wait};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use accounts::Demo;

// One thread, for the whole time: Envoy ends when the thread that started it does.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "\nlatchkey: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut running = tokio::select! {
        started = Running::start(&settings) => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    tokio::select! {
        _ = interrupt.recv() => say("\nstopping"),
        _ = terminate.recv() => say("\nstopping"),
        ended = running.until_one_ends() => {
            let ended = ended?;
            bail!("{ended} ended by itself; its log is in {}", settings.logs().display());
        }
    }
    running.stop().await
}

/// What the environment says.
struct Settings {
    gateway_port: u16,
    fltr_port: u16,
    control_plane_port: u16,
    upstream_port: u16,
    admin_port: u16,
    workers: u32,
    data: PathBuf,
    operator_token: Option<String>,
}

impl Settings {
    fn from_environment() -> anyhow::Result<Self> {
        let control_plane_port = number("CONTROL_PLANE_PORT", 8081)?;
        let data = match std::env::var_os("DATA_DIR").filter(|folder| !folder.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(format!(".data/{control_plane_port}")),
        };
        let given = |name| std::env::var(name).ok().filter(|token| !token.is_empty());
        Ok(Self {
            gateway_port: number("GATEWAY_PORT", 8080)?,
            fltr_port: number("FLTR_PORT", 8090)?,
            control_plane_port,
            upstream_port: number("UPSTREAM_PORT", 8082)?,
            admin_port: number("ENVOY_ADMIN_PORT", 9901)?,
            workers: number("ENVOY_WORKERS", 2)?,
            data,
            operator_token: given("OPERATOR_TOKEN").or_else(|| given("LATCHKEY_OPERATOR_TOKEN")),
        })
    }

    fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// Checks that nothing else is where this will be, to say so before anything has started.
    fn check_ports(&self) -> anyhow::Result<()> {
        for (port, name) in [
            (self.gateway_port, "GATEWAY_PORT"),
            (self.fltr_port, "FLTR_PORT"),
            (self.control_plane_port, "CONTROL_PLANE_PORT"),
            (self.upstream_port, "UPSTREAM_PORT"),
            (self.admin_port, "ENVOY_ADMIN_PORT"),
        ] {
            if std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
                bail!("port {port} is taken; choose another with {name}=…");
            }
        }
        Ok(())
    }

    /// Checks that no other copy uses the data: it would lose its logs.
    fn check_data(&self) -> anyhow::Result<()> {
        let Ok(lock) = File::open(self.data.join("lock")) else {
            return Ok(());
        };
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            bail!("another copy uses `{}`; choose another with DATA_DIR=…", self.data.display());
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => bail!("{name}: expected a number, found `{text}`"),
        },
        Ok(_) | Err(_) => Ok(default),
    }
}

/// All that was started.
struct Running {
    control_plane: ControlPlane,
    envoy: Envoy,
    _upstream: Upstream,
}

impl Running {
    async fn start(settings: &Settings) -> anyhow::Result<Self> {
        settings.check_ports()?;
        settings.check_data()?;
        let logs = settings.logs();
        make_fresh(&logs)?;
        let token = settings.operator_token.as_deref();
        let (port, data) = (settings.control_plane_port, &settings.data);
        let sealing_key = accounts::sealing_key(data)?;
        let environment = [("LATCHKEY_SEALING_KEY", sealing_key.as_str())];
        let control_plane = ControlPlane::start(port, data, &logs, token, &environment).await?;
        let upstream = Upstream::start(settings.upstream_port).await?;
        let demo = Demo::prepare(&control_plane).await?;
        let options = EnvoyOptions {
            gateway_host: "127.0.0.1".to_owned(),
            gateways: vec![
                ("flotiq".to_owned(), settings.gateway_port),
                ("fltr".to_owned(), settings.fltr_port),
            ],
            upstream_port: settings.upstream_port,
            control_plane_port: port,
            admin_port: settings.admin_port,
            workers: settings.workers,
            edge_token: Some(control_plane.edge_token()?),
            edits: Vec::new(),
            config_options: Vec::new(),
            listeners_file: None,
        };
        let envoy = Envoy::start(options, &logs).await?;
        let workers = 2 * (u64::from(settings.workers) + 1);
        control_plane.wait_until_in_force(workers).await?;
        demo.use_up_trial(settings).await?;
        let link = control_plane.link(&json!({"purpose": "operator"})).await?;
        say(demo.guide(settings, &control_plane, &link));
        Ok(Self { control_plane, envoy, _upstream: upstream })
    }

    /// Returns the name of the first program that ends.
    async fn until_one_ends(&mut self) -> anyhow::Result<&'static str> {
        loop {
            if self.control_plane.has_ended()? {
                return Ok("the control plane");
            }
            if self.envoy.has_ended()? {
                return Ok("Envoy");
            }
            wait::pause(CHECK_EVERY).await;
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.envoy.stop().await?;
        self.control_plane.stop().await?;
        Ok(())
    }
}

/// Makes the folder of logs, without those of the run before.
fn make_fresh(logs: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(logs)
        .with_context(|| format!("cannot make the folder `{}`", logs.display()))?;
    for name in ["control-plane.log", "envoy.log", "access.log"] {
        let path = logs.join(name);
        if path.exists() {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot remove `{}`", path.display()))?;
        }
    }
    Ok(())
}

fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// How soon a program that ended by itself is noticed.
const CHECK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
