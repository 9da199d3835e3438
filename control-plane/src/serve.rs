//! `latchkey serve`: starting and stopping the service.

use std::fs::{DirBuilder, File, OpenOptions};
use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api;
use crate::app::App;
use crate::cli::{ServeOptions, say};
use crate::client_address;
use crate::connections::{self, Admission, Bounds};
use crate::credentials::{Credential, Provenance};
use crate::edge::leases::{Clerk, Desk};
use crate::edge::recalls::Recalls;
use crate::metrics::Metrics;
use crate::panel::Panel;
use crate::profiles::Profiles;
use crate::router;
use crate::sealing::SealingKey;
use crate::store::links::Purpose;
use crate::store::{OWN_NAME, Origin, Store, links, people, plans};
use crate::wrong_tokens::WrongTokens;

/// Runs the service until it is told to stop.
///
/// # Errors
///
/// If it cannot start: with the folder, file, address or variable that stands in the way.
pub(crate) fn run(options: ServeOptions) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(options.log)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(options))
}

async fn serve(options: ServeOptions) -> anyhow::Result<()> {
    let profiles = Profiles::load(options.profiles.as_deref())?;
    let data = options.data.as_path();
    // For the owner only: there are credentials and people's notes in it.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .with_context(|| format!("cannot make the folder `{}`", data.display()))?;
    let _lock = lock(data)?;

    let (operator, edge) = credentials(&options)?;
    // An empty variable is one that is not set.
    let sealing = match options.sealing_key.as_deref().filter(|key| !key.is_empty()) {
        Some(key) => Some(Arc::new(SealingKey::parse(key)?)),
        None => None,
    };
    let trusted_proxies =
        client_address::networks(options.trusted_proxies.as_deref().unwrap_or_default())?;
    let store = Store::open(data)
        .with_context(|| format!("cannot open the store in `{}`", data.display()))?;
    install_plans(&store, &profiles).await?;

    let signal = wait_for_signal()?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    let (stop, stopping) = watch::channel(false);
    let metrics = Arc::new(Metrics::new());
    let recalls = Arc::<Recalls>::default();
    let desk = Desk::open(Clerk {
        store: store.clone(),
        default_plans: profiles.default_plans(),
        metrics: Arc::clone(&metrics),
        recalls: Arc::clone(&recalls),
    });
    let app = App {
        store,
        profiles: Arc::new(profiles),
        proxies: Arc::default(),
        snapshots: Arc::default(),
        deltas: Arc::default(),
        metrics,
        desk,
        recalls,
        operator,
        edge,
        trusted_proxies: trusted_proxies.into(),
        has_warned_of_proxy: Arc::default(),
        wrong_tokens: Arc::new(WrongTokens::new()),
        token_access: options.token_access,
        sealing,
        panel: Arc::new(Panel::new(&panel_url(&options, address)?)?),
        stopping: stopping.clone(),
    };
    let first_link = first_operator_link(&app).await?;
    let panel = panel_url(&options, address)?;
    let admission = Admission::new(connections(), Arc::clone(&app.trusted_proxies));
    let service = router::router(app);
    say(format_args!("latchkey: listening on http://{address}"));
    say(format_args!("latchkey: panel at {panel}"));
    if let Some(link) = first_link {
        say(format_args!(
            "latchkey: nobody can sign in yet; become the first operator with this link, which works \
             once: {link}"
        ));
    }
    tracing::info!(%address, data = %data.display(), "serving");

    let server = tokio::spawn(connections::serve(listener, service, admission, stopping));
    let signal = signal.await;
    tracing::info!(signal, "stopping");
    stop.send_replace(true);
    match tokio::time::timeout(SHUTDOWN_TIME, server).await {
        Ok(served) => served.context("the service failed")?,
        Err(_) => tracing::warn!("some connections did not end in time and were cut"),
    }
    Ok(())
}

fn credentials(options: &ServeOptions) -> anyhow::Result<(Credential, Credential)> {
    let data = options.data.as_path();
    // An empty variable is one that is not set.
    let given = |token: Option<String>| token.filter(|token| !token.is_empty());
    let operator_token = given(options.operator_token.clone())
        .or_else(|| given(std::env::var("OPERATOR_TOKEN").ok()));
    let (operator, provenance) = Credential::load(
        operator_token.as_deref(),
        "LATCHKEY_OPERATOR_TOKEN or OPERATOR_TOKEN",
        &data.join("operator-token"),
        "latchkey_op_",
    )?;
    if let Provenance::Made(file, token) = provenance {
        say(format_args!("latchkey: operator token, shown this once: {}", token.reveal()));
        say(format_args!("latchkey: it is kept in {} (mode 0600)", file.display()));
    }
    let (edge, provenance) = Credential::load(
        given(options.edge_token.clone()).as_deref(),
        "LATCHKEY_EDGE_TOKEN",
        &data.join("edge-token"),
        "latchkey_edge_",
    )?;
    if let Provenance::Made(file, _) = provenance {
        say(format_args!(
            "latchkey: made an edge token for Envoys in {} (mode 0600); give it to them as the \
             environment variable LATCHKEY_EDGE_TOKEN",
            file.display()
        ));
    }
    if operator.equals(&edge) {
        bail!("the operator token and the edge token are the same; filters must not be operators");
    }
    Ok((operator, edge))
}

/// Returns the address at which people open the panel.
fn panel_url(options: &ServeOptions, address: SocketAddr) -> anyhow::Result<String> {
    let Some(url) = options.panel_url.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(format!("http://{address}"));
    };
    let uri: axum::http::Uri = url.parse().unwrap_or_default();
    let is_web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    if is_web && uri.path() == "/" && uri.query().is_none() {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    bail!("--panel-url: expected an address such as `https://keys.example.com`, found `{url}`")
}

/// Returns a link with which the first operator begins; none if there is an operator.
async fn first_operator_link(app: &App) -> anyhow::Result<Option<String>> {
    if !app.store.is_writable().await {
        return Ok(None);
    }
    // Of several starts, the last one's link is the one that is seen.
    app.store.write(|db| links::withdraw_all_of(db, None, OWN_NAME)).await?;
    if app.store.read(people::has_operator).await? {
        return Ok(None);
    }
    let origin = Origin::of(OWN_NAME, "");
    let purpose = Purpose::Operator { email: None };
    let link = api::links::make(app, origin, purpose).await.map_err(anyhow::Error::new)?;
    Ok(Some(link.url))
}

/// Holds the data folder: two services on one store would not see each other's changes.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    // Where nothing can be written, what is there can be locked.
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .or_else(|error| File::open(&path).map_err(|_| error))
        .with_context(|| format!("cannot make the file `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("another control plane uses the folder `{}`", data.display())
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock the file `{}`", path.display()))
        }
    }
}

async fn install_plans(store: &Store, profiles: &Profiles) -> anyhow::Result<()> {
    for profile in profiles.all() {
        if !store.is_writable().await {
            say(
                "latchkey: the store cannot be written (is the disk full?); proxies get the keys that there \
                 are, and nothing can be changed or leased until it can",
            );
            return Ok(());
        }
        let name = profile.name.clone();
        if store.read(move |db| plans::is_installed(db, &name)).await? {
            continue;
        }
        let (name, defaults) = (profile.name.clone(), profile.plans.clone());
        let origin = Origin::of(OWN_NAME, "");
        store.change(origin, move |change| plans::install(change, &name, &defaults)).await?;
        tracing::info!(profile = profile.name, "put in the profile's plans");
    }
    Ok(())
}

/// Returns how many connections there may be; takes as many descriptors as the system gives.
fn connections() -> Bounds {
    // Where it gives no more, what there is has to do.
    let descriptors = rlimit::increase_nofile_limit(MAX_DESCRIPTORS)
        .or_else(|_| rlimit::Resource::NOFILE.get_soft());
    let descriptors = descriptors.unwrap_or(USUAL_DESCRIPTORS);
    let bounds = Bounds::of_descriptors(descriptors);
    tracing::debug!(descriptors, ?bounds, "connections are bounded");
    bounds
}

fn wait_for_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

/// Threads that read the store: it answers in less than a millisecond, and each of them keeps memory.
const BLOCKING_THREADS: usize = 8;

/// Descriptors that are asked for, and those that most systems give to a process.
const MAX_DESCRIPTORS: u64 = 16_384;
const USUAL_DESCRIPTORS: u64 = 1_024;

/// How long requests may take to end once the service is told to stop. Polls are answered at once.
const SHUTDOWN_TIME: Duration = Duration::from_secs(5);
