//! The rows of the table: what is asked of which Envoy.

use anyhow::{Context, bail};
use latchkey_tests::{ControlPlane, ports};

use crate::configs::Filters;
use crate::gateways::{Gateway, Site, until_answered};
use crate::keys::{Dataset, Scale};
use crate::load::{Client, Requests};
use crate::report::{Report, megabytes, number, say};
use crate::{proc, requests};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// What it is.
    pub(crate) name: &'static str,
    /// Number of keys, where there are any.
    pub(crate) keys: Option<u32>,
    /// Number of accounts, where there are any.
    pub(crate) accounts: Option<u32>,
    /// Place of its Envoy among all; or why there is none.
    pub(crate) gateway: Result<usize, String>,
    /// What is sent.
    pub(crate) requests: Requests,
    /// Status of every answer.
    pub(crate) status: u16,
    /// Place of the row with which it is compared: the same requests with no filter.
    pub(crate) base: usize,
}

/// All that runs for the table.
#[derive(Debug, Default)]
pub(crate) struct Scenarios {
    /// The rows, in the order of the table.
    pub(crate) rows: Vec<Row>,
    /// The Envoys.
    pub(crate) gateways: Vec<Gateway>,
    control_planes: Vec<ControlPlane>,
}

impl Scenarios {
    /// Starts everything.
    ///
    /// # Errors
    ///
    /// If something does not start; for an `api_key_auth` that does not, its rows say so.
    pub(crate) async fn start(site: &Site<'_>, datasets: &[Dataset]) -> anyhow::Result<Self> {
        let mut scenarios = Self::default();
        let first = datasets.first().context("no data")?.scale;
        let bare = site.start("bare", Filters::None, None).await?;
        let bare = scenarios.add_gateway(bare);
        scenarios.add("bare Envoy", None, Ok(bare), requests::authorized(first));
        // Without anything that waits for the body, Envoy answers before it and closes the connection.
        let buffer = site.start("buffer", Filters::Buffer, None).await?;
        let buffer = scenarios.add_gateway(buffer);
        let post = requests::graphql(first);
        scenarios.add("bare Envoy, POST of 1 KiB (`buffer`)", None, Ok(buffer), post);
        let nothing = site.start("nothing", Filters::Nothing, None).await?;
        let nothing = scenarios.add_gateway(nothing);
        scenarios.add(
            "Wasm filter that does nothing",
            None,
            Ok(nothing),
            requests::authorized(first),
        );
        let mut counts: Vec<u32> = datasets.iter().map(|dataset| dataset.scale.keys).collect();
        counts.dedup();
        for keys in counts {
            scenarios.add_others(site, Scale { keys, accounts: 1 }).await?;
        }
        for (index, dataset) in datasets.iter().enumerate() {
            // What is refused depends little on the number of keys: once with few, once with many.
            let is_whole = index == 0 || index + 1 == datasets.len();
            scenarios.add_ours(site, dataset, is_whole).await?;
        }
        Ok(scenarios)
    }

    /// Adds what Envoy itself has for so many keys.
    async fn add_others(&mut self, site: &Site<'_>, scale: Scale) -> anyhow::Result<()> {
        let keys = scale.keys;
        let requests = requests::authorized(scale);
        for (name, filters) in [
            ("api_key_auth", Filters::ApiKeyAuth { keys }),
            ("api_key_auth + local_ratelimit", Filters::ApiKeyAuthAndLimit { keys }),
        ] {
            let started = site.start(&format!("{name} {keys}"), filters, None).await;
            let gateway = match started {
                Ok(gateway) => Ok(self.add_gateway(gateway)),
                Err(error) => Err(format!("{error:#}").chars().take(200).collect()),
            };
            self.add(name, Some(scale), gateway, requests.clone());
        }
        let gateway = site.start_with_server(&format!("ext_authz {keys}"), keys).await?;
        let gateway = self.add_gateway(gateway);
        self.add("ext_authz (HTTP)", Some(scale), Ok(gateway), requests);
        Ok(())
    }

    /// Adds Latchkey with a dataset; whole, with all that it may answer.
    async fn add_ours(
        &mut self,
        site: &Site<'_>,
        dataset: &Dataset,
        is_whole: bool,
    ) -> anyhow::Result<()> {
        let scale = dataset.scale;
        let name = format!("latchkey {} {}", scale.keys, scale.accounts);
        let logs = site.folder(&name)?;
        let control_plane =
            ControlPlane::start(ports::free()?, &dataset.data, &logs, None, &[]).await?;
        let gateway = site.start(&name, Filters::Ours, Some(&control_plane)).await?;
        self.control_planes.push(control_plane);
        // One after the other: all that read their keys at the same time would be slow together.
        let any = requests::over_limit(dataset);
        let any = any.first().context("no requests")?;
        until_answered(gateway.port, any, 429).await?;
        let gateway = Ok(self.add_gateway(gateway));
        let same = || gateway.clone();
        self.add(OURS, Some(scale), same(), requests::authorized(scale));
        if is_whole {
            let unknown = self.add("Latchkey, 401", Some(scale), same(), requests::unknown(scale));
            unknown.status = 401;
            let forbidden =
                self.add("Latchkey, 403", Some(scale), same(), requests::forbidden(scale));
            forbidden.status = 403;
            let over =
                self.add("Latchkey, 429", Some(scale), same(), requests::over_limit(dataset));
            over.status = 429;
            let graphql = self.add(
                "Latchkey, GraphQL of 1 KiB",
                Some(scale),
                same(),
                requests::graphql(scale),
            );
            graphql.base = 1;
        }
        Ok(())
    }

    fn add_gateway(&mut self, gateway: Gateway) -> usize {
        self.gateways.push(gateway);
        self.gateways.len() - 1
    }

    fn add(
        &mut self,
        name: &'static str,
        scale: Option<Scale>,
        gateway: Result<usize, String>,
        requests: Requests,
    ) -> &mut Row {
        let is_ours = name.starts_with("Latchkey");
        let base = if self.rows.len() == 1 { 1 } else { 0 };
        let row = Row {
            name,
            keys: scale.map(|scale| scale.keys),
            accounts: scale.filter(|_| is_ours).map(|scale| scale.accounts),
            gateway,
            requests,
            status: 200,
            base,
        };
        self.rows.push_mut(row)
    }

    /// Waits until every row is answered as it must be, and a charged call tells what is left.
    ///
    /// # Errors
    ///
    /// If one is not.
    pub(crate) async fn until_ready(&self) -> anyhow::Result<()> {
        for row in &self.rows {
            let Some((gateway, request)) = self.gateway(row).zip(row.requests.first()) else {
                continue;
            };
            let answered = until_answered(gateway.port, request, row.status).await;
            if let Err(error) = answered {
                bail!("{}: no answer with {}: {error:#}", row.name, row.status);
            }
            if row.name == OURS {
                let mut client = Client::connect(gateway.port).await?;
                let answer = client.exchange(request).await?;
                let text = client.last_answer(&answer);
                if !text.contains("\r\nratelimit:") {
                    bail!("{}: nothing was charged: {text}", row.name);
                }
            }
        }
        say("all Envoys answer as expected");
        Ok(())
    }

    /// Notes how long Envoys with the most keys took to start, and their memory.
    ///
    /// # Errors
    ///
    /// If an Envoy has ended.
    pub(crate) fn note_starts(&self, report: &mut Report) -> anyhow::Result<()> {
        for gateway in &self.gateways {
            if let Filters::ApiKeyAuth { keys } = gateway.filters {
                report.note(
                    format!("Envoy with api_key_auth and {} keys", number(Some(keys))),
                    format!(
                        "ready after {:.1} s, {} of memory",
                        gateway.start_time.as_secs_f64(),
                        megabytes(proc::resident_bytes(gateway.envoy.process_id())?)
                    ),
                );
            }
        }
        Ok(())
    }

    /// Returns a row's Envoy, if there is one.
    pub(crate) fn gateway(&self, row: &Row) -> Option<&Gateway> {
        self.gateways.get(*row.gateway.as_ref().ok()?)
    }
}

/// Name of the row that all others are there for.
pub(crate) const OURS: &str = "Latchkey, authorized and charged";
