//! How many lease calls the control plane sustains.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use latchkey_protocol::Subject;
use latchkey_protocol::lease::{
    Grant, LeaseAnswer, LeaseCall, LeaseOutcome, LeaseReport, LeaseRequest, PATH,
};
use latchkey_tests::{ControlPlane, ports, wait};
use serde_json::json;
use tokio::task::JoinSet;

use crate::gateways::Site;
use crate::keys::{Dataset, Scale};
use crate::load::Client;
use crate::proc;
use crate::report::{Report, megabytes, number};

/// Lets many holders lease and report as fast as they can, with one account a call and with many.
///
/// # Errors
///
/// If a lease is refused.
pub(crate) async fn measure(
    site: &Site<'_>,
    dataset: &Dataset,
    report: &mut Report,
) -> anyhow::Result<()> {
    let folder = site.folder("leases")?;
    // It has a core of its own: no Envoy runs meanwhile.
    site.cores.use_proxy_core()?;
    let control_plane =
        ControlPlane::start(ports::free()?, &dataset.data, &folder, None, &[]).await;
    site.cores.use_load_core()?;
    let control_plane = control_plane?;
    for accounts_per_call in [1, 50] {
        measure_with(&control_plane, dataset.scale, accounts_per_call, report).await?;
    }
    Ok(())
}

async fn measure_with(
    control_plane: &ControlPlane,
    scale: Scale,
    accounts_per_call: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let process = control_plane.process_id()?;
    let is_over = Rc::new(Cell::new(false));
    let mut holders = JoinSet::new();
    for number in 0..HOLDERS {
        let holder = Holder {
            client: Client::connect(control_plane.port).await?,
            authorization: format!("Bearer {}", control_plane.edge_token()?),
            name: format!("{accounts_per_call}-{number}"),
            next_account: number * (scale.accounts / HOLDERS).max(1),
            accounts_per_call,
            scale,
        };
        holders.spawn_local(holder.lease(Rc::clone(&is_over)));
    }
    let (before, start) = (proc::cpu_ns(process)?, Instant::now());
    wait::pause(DURATION).await;
    is_over.set(true);
    let mut times_us = Vec::new();
    while let Some(ended) = holders.join_next().await {
        times_us.extend(ended??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu_us = (proc::cpu_ns(process)? - before) as f64 / 1e3 / times_us.len() as f64;
    let bytes = proc::resident_bytes(process)?;
    times_us.sort_by(f64::total_cmp);
    let at = |per_cent: usize| times_us.get(times_us.len() * per_cent / 100).copied();
    let (p50, p99) = (at(50).unwrap_or_default() / 1e3, at(99).unwrap_or_default() / 1e3);
    let rate = times_us.len() as f64 / seconds;
    report.note(
        format!(
            "lease calls that the control plane sustains, {HOLDERS} holders, {} accounts, \
             leases per call: {accounts_per_call}",
            number(Some(scale.accounts))
        ),
        format!(
            "{rate:.0} a second, p50 {p50:.1} ms, p99 {p99:.1} ms, {cpu_us:.0} µs of CPU each, {} \
             of memory",
            megabytes(bytes)
        ),
    );
    report.keep(
        &format!("lease_calls_of_{accounts_per_call}"),
        json!({"per_second": rate, "p50_ms": p50, "p99_ms": p99, "cpu_us": cpu_us, "bytes": bytes}),
    );
    Ok(())
}

/// One that leases, spends and reports.
struct Holder {
    client: Client,
    authorization: String,
    name: String,
    next_account: u32,
    accounts_per_call: u32,
    scale: Scale,
}

impl Holder {
    /// Calls until it is over, and returns how long each call took, in microseconds.
    async fn lease(mut self, is_over: Rc<Cell<bool>>) -> anyhow::Result<Vec<f64>> {
        let mut times_us = Vec::new();
        let mut reports = Vec::new();
        for sequence in 1.. {
            if is_over.get() {
                break;
            }
            let accounts = self.next_account..self.next_account + self.accounts_per_call;
            self.next_account = accounts.end;
            let requests = accounts.map(|account| LeaseRequest {
                subject: Subject::Account {
                    account: self.scale.account(account).into(),
                    identity: None,
                },
                amount: AMOUNT,
                waiting: 1,
                at_ms: None,
            });
            let call = LeaseCall {
                instance: "bench".to_owned(),
                worker: self.name.clone(),
                sequence,
                reports,
                requests: requests.collect(),
                ..LeaseCall::default()
            };
            let request = self.request(&call)?;
            let sent = Instant::now();
            let answer = self.client.exchange(&request).await?;
            times_us.push(sent.elapsed().as_secs_f64() * 1e6);
            if answer.status != 200 {
                bail!("a lease call was answered: {}", self.client.last_answer(&answer));
            }
            reports = spent(self.client.last_body(&answer))?;
        }
        Ok(times_us)
    }

    fn request(&self, call: &LeaseCall) -> anyhow::Result<Vec<u8>> {
        let body = serde_json::to_vec(call)?;
        let mut request = format!(
            "POST {PATH} HTTP/1.1\r\nhost: control-plane\r\nauthorization: {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.authorization,
            body.len()
        )
        .into_bytes();
        request.extend(body);
        Ok(request)
    }
}

/// Returns the reports of leases that are spent whole as soon as they are there.
fn spent(answer: &[u8]) -> anyhow::Result<Vec<LeaseReport>> {
    let answer: LeaseAnswer =
        serde_json::from_slice(answer).context("no answer to a lease call")?;
    let reports = answer.outcomes.into_iter().map(|outcome| match outcome {
        LeaseOutcome::Granted(Grant { lease, amount, .. }) => {
            Ok(LeaseReport { lease, spent: amount, is_closed: true })
        }
        LeaseOutcome::Refused(refusal) => bail!("a lease was refused: {refusal:?}"),
    });
    reports.collect()
}

const HOLDERS: u32 = 32;

const DURATION: Duration = Duration::from_secs(5);

/// Calls that a holder asks for.
const AMOUNT: u64 = 100;
