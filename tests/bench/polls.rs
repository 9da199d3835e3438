//! What a thousand waiting polls cost the control plane.

use latchkey_tests::{ControlPlane, http, ports, wait};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::gateways::Site;
use crate::keys::Dataset;
use crate::proc;
use crate::report::{Report, megabytes};

/// Opens the polls, and compares the memory.
///
/// # Errors
///
/// If one does not wait.
pub(crate) async fn measure(
    site: &Site<'_>,
    dataset: &Dataset,
    report: &mut Report,
) -> anyhow::Result<()> {
    let folder = site.folder("polls")?;
    let control_plane =
        ControlPlane::start(ports::free()?, &dataset.data, &folder, None, &[]).await?;
    let process = control_plane.process_id()?;
    let authorization = format!("Bearer {}", control_plane.edge_token()?);
    let revision = last_revision(dataset)?;
    let before_bytes = proc::resident_bytes(process)?;
    let mut polls = Vec::new();
    for index in 0..POLLS {
        let mut stream = TcpStream::connect(("127.0.0.1", control_plane.port)).await?;
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: control-plane\r\nauthorization: {authorization}\r\n\r\n",
            poll(index, &revision)
        );
        stream.write_all(request.as_bytes()).await?;
        polls.push(stream);
    }
    let metrics = format!("http://127.0.0.1:{}/metrics", control_plane.port);
    wait::until("all polls waiting", wait::LONG, async || {
        let text = http::send("GET", &metrics, &[], b"").await.ok()?.text();
        text.lines().any(|line| line == format!("{OPEN_POLLS} {POLLS}")).then_some(())
    })
    .await?;
    let after_bytes = proc::resident_bytes(process)?;
    report.note(
        format!("control plane with {POLLS} waiting polls, on as many connections"),
        format!("{} of memory, {} before", megabytes(after_bytes), megabytes(before_bytes)),
    );
    report.keep("polls", json!({"before_bytes": before_bytes, "after_bytes": after_bytes}));
    Ok(())
}

/// Returns path and query of a poll that waits because it knows the last change; the only place that
/// says what filters send.
fn poll(index: u32, revision: &str) -> String {
    format!(
        "/edge/v1/updates?profile=flotiq&instance=bench-{index}&worker=w&wait_ms=25000\
         &after={revision}"
    )
}

/// Returns the last revision as polls name it, from the store itself: no filter is there to ask.
fn last_revision(dataset: &Dataset) -> anyhow::Result<String> {
    let path = dataset.data.join("latchkey.db");
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT revision, mark FROM changes ORDER BY revision DESC LIMIT 1";
    let (number, mark): (i64, i64) =
        store.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(format!("{number}-{:016x}", mark.cast_unsigned()))
}

const POLLS: u32 = 1000;

/// Name of the control plane's metric.
const OPEN_POLLS: &str = "latchkey_open_polls";
