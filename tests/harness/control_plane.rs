//! The control plane under test, and its management API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::process::Process;
use crate::{project, wait};

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Folder of the store.
    pub data: PathBuf,
    /// Credential of operators.
    pub operator_token: String,
    logs: PathBuf,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

/// A key that was just made.
#[derive(Clone, Debug)]
pub struct IssuedKey {
    /// Id of the key.
    pub id: String,
    /// Its token.
    pub token: String,
}

impl ControlPlane {
    /// Starts a control plane on a folder, with variables in its environment, and waits until it is
    /// ready.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub async fn start(
        port: u16,
        data: &Path,
        logs: &Path,
        operator_token: Option<&str>,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut control_plane = Self {
            port,
            data: data.to_owned(),
            operator_token: operator_token.unwrap_or_default().to_owned(),
            logs: logs.to_owned(),
            environment: environment
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            process: None,
        };
        control_plane.run().await?;
        if operator_token.is_none() {
            let file = data.join("operator-token");
            control_plane.operator_token = std::fs::read_to_string(file)?.trim().to_owned();
        }
        Ok(control_plane)
    }

    /// Starts the program, again if it had ended, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        self.run_until("/readyz").await
    }

    /// Starts the program and waits until it answers, ready or not.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub async fn run_unready(&mut self) -> anyhow::Result<()> {
        self.run_until("/healthz").await
    }

    async fn run_until(&mut self, path: &str) -> anyhow::Result<()> {
        let listen = format!("127.0.0.1:{}", self.port);
        let mut process =
            Process::start("control-plane", project::latchkey()?, &self.logs, |command| {
                command.args(["serve", "--listen", &listen, "--data"]).arg(&self.data);
                // It shows the operator token once, which no log may keep.
                command.stdout(Stdio::null());
                command.env_remove("LATCHKEY_EDGE_TOKEN").env_remove("LATCHKEY_OPERATOR_TOKEN");
                command.env_remove("OPERATOR_TOKEN");
                command.envs(self.environment.iter().cloned());
                if !self.operator_token.is_empty() {
                    command.env("LATCHKEY_OPERATOR_TOKEN", &self.operator_token);
                }
            })?;
        let url = format!("http://{listen}{path}");
        let log = self.logs.join("control-plane.log");
        let is_ready = wait::until("the control plane's readiness", wait::START, async || {
            if let Ok(Some(status)) = process.has_ended() {
                return Some(Err(status));
            }
            let answer = http::send("GET", &url, &[], b"").await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        });
        if let Err(status) = is_ready.await? {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("the control plane ended with {status}; it said:\n{said}");
        }
        self.process = Some(process);
        Ok(())
    }

    /// Returns the number of the process.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn process_id(&self) -> anyhow::Result<u32> {
        Ok(self.process.as_ref().context("the control plane does not run")?.id())
    }

    /// Stops the program where it is, as a machine that hangs would, or lets it go on.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn freeze(&self, is_frozen: bool) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("the control plane does not run")?;
        process.signal(if is_frozen { Signal::SIGSTOP } else { Signal::SIGCONT })
    }

    /// Ends the program at once, as a crash would.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the control plane does not run")?.kill()
    }

    /// Asks the program to end, and waits until it has.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.take().context("the control plane does not run")?.stop().await
    }

    /// Reports whether the program has ended by itself.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.has_ended()?.is_some()),
            None => Ok(true),
        }
    }

    /// Returns the filters' credential.
    ///
    /// # Errors
    ///
    /// If the control plane made none.
    pub fn edge_token(&self) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(self.data.join("edge-token"))?;
        Ok(text.trim().to_owned())
    }

    /// Calls the management API; the path starts after `/api/v1`.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn api(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Response> {
        let url = format!("http://127.0.0.1:{}/api/v1{path}", self.port);
        let authorization = format!("Bearer {}", self.operator_token);
        let headers = [
            ("authorization", authorization.as_bytes()),
            ("content-type", b"application/json".as_slice()),
        ];
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        http::send(method, &url, &headers, &body).await
    }

    /// Calls the management API and returns the answer's body.
    ///
    /// # Errors
    ///
    /// If the answer is not one of success.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.api(method, path, body).await?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path} was answered {}: {}", answer.status, answer.text());
        }
        Ok(answer.json())
    }

    /// Makes an account with a generous plan of its own.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn create_account(&self, id: &str, profile: &str) -> anyhow::Result<()> {
        let plan = json!({"name": "For tests", "limits": [], "max_user_keys": 100_000});
        self.call("PUT", "/plans/for-tests", &plan).await?;
        let account = json!({"id": id, "name": id, "plan": "for-tests", "profile": profile});
        self.call("POST", "/accounts", &account).await?;
        Ok(())
    }

    /// Makes an account of the Flotiq profile with a plan of its own that has some limits, and returns
    /// its key to everything.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn create_limited_account(
        &self,
        id: &str,
        limits: &Value,
    ) -> anyhow::Result<IssuedKey> {
        self.call("PUT", &format!("/plans/{id}"), &json!({"name": id, "limits": limits})).await?;
        let account = json!({"id": id, "name": id, "plan": id, "profile": "flotiq"});
        self.call("POST", "/accounts", &account).await?;
        self.application_key(id, "application_read_write").await
    }

    /// Returns what an account used of its limits: by their name.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn used(&self, account: &str) -> anyhow::Result<BTreeMap<String, u64>> {
        let path = format!("/accounts/{account}/usage");
        let usage = self.call("GET", &path, &Value::Null).await?;
        let limits = usage["limits"].as_array().context("no limits")?;
        let used =
            |limit: &Value| Some((limit["name"].as_str()?.to_owned(), limit["used"].as_u64()?));
        limits.iter().map(used).collect::<Option<_>>().context("no usage")
    }

    /// Waits until so much is used of a limit of an account.
    ///
    /// # Errors
    ///
    /// If that does not come true; with what is used.
    pub async fn wait_until_used(
        &self,
        account: &str,
        limit: &str,
        count: u64,
    ) -> anyhow::Result<()> {
        let mut used = None;
        let waited = wait::until("the usage", wait::LONG, async || {
            used = self.used(account).await.ok()?.get(limit).copied();
            (used == Some(count)).then_some(())
        });
        waited.await.with_context(|| format!("{used:?} used of `{limit}`, expected {count}"))
    }

    /// Makes an account of the Flotiq profile and returns its key to everything.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn create_account_with_key(&self, id: &str) -> anyhow::Result<IssuedKey> {
        self.create_account(id, "flotiq").await?;
        self.application_key(id, "application_read_write").await
    }

    /// Makes a user defined key.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn create_key(&self, account: &str, key: &Value) -> anyhow::Result<IssuedKey> {
        let answer = self.call("POST", &format!("/accounts/{account}/keys"), key).await?;
        issued(&answer)
    }

    /// Gives the Application key of a kind a token that is known.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn application_key(&self, account: &str, kind: &str) -> anyhow::Result<IssuedKey> {
        let keys = self.call("GET", &format!("/accounts/{account}/keys"), &Value::Null).await?;
        let items = keys["items"].as_array().context("no items")?;
        let key = items.iter().find(|key| key["kind"] == kind).context("no such key")?;
        let id = key["id"].as_str().context("no id")?;
        self.regenerate(account, id, 0).await
    }

    /// Gives a key another token.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn regenerate(
        &self,
        account: &str,
        key: &str,
        grace_seconds: u32,
    ) -> anyhow::Result<IssuedKey> {
        let path = format!("/accounts/{account}/keys/{key}/regenerate");
        issued(&self.call("POST", &path, &json!({"grace_seconds": grace_seconds})).await?)
    }

    /// Returns a one-time link; its purpose and for whom are as the API has them.
    ///
    /// # Errors
    ///
    /// If the API refuses.
    pub async fn link(&self, link: &Value) -> anyhow::Result<String> {
        let answer = self.call("POST", "/links", link).await?;
        Ok(answer["url"].as_str().context("no url")?.to_owned())
    }

    /// Waits until every connected worker holds the last change, and so many are connected.
    ///
    /// # Errors
    ///
    /// If that does not come true.
    pub async fn wait_until_in_force(&self, workers: u64) -> anyhow::Result<()> {
        wait::until("the last change in every proxy", wait::START, async || {
            let proxies = self.call("GET", "/proxies", &Value::Null).await.ok()?;
            let items = proxies["items"].as_array()?;
            let connected: u64 = items.iter().filter_map(|proxy| proxy["workers"].as_u64()).sum();
            let current = |proxy: &&Value| proxy["applied_revision"] == proxy["current_revision"];
            (connected >= workers && items.iter().filter(current).count() == items.len())
                .then_some(())
        })
        .await
    }
}

fn issued(answer: &Value) -> anyhow::Result<IssuedKey> {
    let id = answer["key"]["id"].as_str().context("no id")?.to_owned();
    let token = answer["token"].as_str().context("no token")?.to_owned();
    Ok(IssuedKey { id, token })
}
