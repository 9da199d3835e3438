//! A real browser, as people use it: without a window, driven through `WebDriver`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use thirtyfour::prelude::*;

use crate::process::Process;
use crate::{http, ports, project, wait};

/// A browser with one page open.
#[derive(Debug)]
pub struct Browser {
    driver: WebDriver,
    axe: PathBuf,
    /// Folder of the browser's own files.
    files: PathBuf,
    _process: Process,
}

/// Which parts of pages an accessibility check found wanting: rule → where and what.
pub type Findings = BTreeMap<String, Vec<String>>;

impl Browser {
    /// Starts a browser with its files and logs in a folder.
    ///
    /// # Errors
    ///
    /// If there is none and none can be installed, or it does not start.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let output = Command::new(project::folder().join("tests/browser.sh"))
            .output()
            .context("cannot run tests/browser.sh")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let paths = String::from_utf8(output.stdout)?;
        let (driver, axe) =
            paths.trim().split_once('\n').context("tests/browser.sh said little")?;
        let port = ports::free()?;
        let process = Process::start("chromedriver", driver, folder, |command| {
            command.arg(format!("--port={port}"));
        })?
        .with_children();
        let url = format!("http://127.0.0.1:{port}");
        wait::until("the browser's driver", wait::START, async || {
            http::send("GET", &format!("{url}/status"), &[], b"").await.ok()
        })
        .await?;
        let mut capabilities = DesiredCapabilities::chrome();
        for argument in ARGUMENTS {
            capabilities.add_arg(argument)?;
        }
        // One file system for all that the browser shares is not there in every container.
        capabilities.add_arg("--disable-dev-shm-usage")?;
        let files = folder.join("browser");
        capabilities.add_arg(&format!("--user-data-dir={}", files.display()))?;
        let driver = WebDriver::new(&url, capabilities).await?;
        Ok(Self { driver, axe: axe.into(), files, _process: process })
    }

    /// Ends the browser in good order.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub async fn quit(self) -> anyhow::Result<()> {
        Ok(self.driver.clone().quit().await?)
    }

    /// Opens a page.
    ///
    /// # Errors
    ///
    /// If it does not load.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        Ok(self.driver.goto(url).await?)
    }

    /// Returns the address of the page.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn url(&self) -> anyhow::Result<String> {
        Ok(self.driver.current_url().await?.to_string())
    }

    /// Returns the text that can be seen on the page.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn text(&self) -> anyhow::Result<String> {
        self.text_of("body").await
    }

    /// Returns the text that can be seen in the first element that a selector finds.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn text_of(&self, css: &str) -> anyhow::Result<String> {
        Ok(self.driver.find(By::Css(css)).await?.text().await?)
    }

    /// Fills in the field with a label, in the place of what was there.
    ///
    /// # Errors
    ///
    /// If there is no such field.
    pub async fn fill(&self, label: &str, text: &str) -> anyhow::Result<()> {
        let field = self.field(label, 0).await?;
        field.clear().await?;
        field.send_keys(text).await?;
        Ok(())
    }

    /// Chooses from the list with a label, of several the one at an index.
    ///
    /// # Errors
    ///
    /// If there is no such list, or nothing of this name in it.
    pub async fn choose(&self, label: &str, index: usize, option: &str) -> anyhow::Result<()> {
        let list = self.field(label, index).await?;
        let path = format!(".//option[normalize-space(.)={}]", quoted(option));
        let option = list.find(By::XPath(path)).await;
        option.with_context(|| format!("`{label}` has no such option"))?.click().await?;
        Ok(())
    }

    /// Ticks the box with a label, of several the one at an index.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn tick(&self, label: &str, index: usize) -> anyhow::Result<()> {
        let path = format!("//label[normalize-space(.)={}]/input", quoted(label));
        let boxes = self.driver.find_all(By::XPath(path)).await?;
        boxes.get(index).with_context(|| format!("no box `{label}`"))?.click().await?;
        Ok(())
    }

    /// Uses the button, or follows the link, of a name; the first that can be seen.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn click(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.named(name).await?.click().await?)
    }

    /// Clicks twice on what has a name, as an impatient person does: the second time before an answer can
    /// have come.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn click_twice(&self, name: &str) -> anyhow::Result<()> {
        let element = self.named(name).await?;
        let chain = self.driver.action_chain_with_delay(None, Some(BETWEEN_CLICKS));
        Ok(chain.move_to_element_center(&element).click().click().perform().await?)
    }

    /// Returns the button, the link or the summary of a name; the first that can be seen.
    async fn named(&self, name: &str) -> anyhow::Result<WebElement> {
        let name = quoted(name);
        let path = format!(
            "//*[self::button or self::a or self::summary]\
             [normalize-space(.)={name} or @aria-label={name}]"
        );
        for element in self.driver.find_all(By::XPath(path)).await? {
            if element.is_displayed().await? {
                element.scroll_into_view().await?;
                return Ok(element);
            }
        }
        bail!("nothing of the name {name} can be seen on {}", self.url().await?)
    }

    /// Presses the return key in the field at an index of those that a selector finds and that can be
    /// seen, and returns its name; none if there are not so many.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn press_return(&self, css: &str, index: usize) -> anyhow::Result<Option<String>> {
        let mut fields = Vec::new();
        for field in self.driver.find_all(By::Css(css)).await? {
            if field.is_displayed().await? {
                fields.push(field);
            }
        }
        let Some(field) = fields.into_iter().nth(index) else {
            return Ok(None);
        };
        let name = field.attr("name").await?.unwrap_or_default();
        field.scroll_into_view().await?;
        field.send_keys("\u{e007}").await?;
        Ok(Some(name))
    }

    /// Lets pages run their scripts, or not.
    ///
    /// # Errors
    ///
    /// If the browser refuses.
    pub async fn allow_scripts(&self, is_allowed: bool) -> anyhow::Result<()> {
        let setting = json!({"value": !is_allowed});
        self.driver.cdp().send_raw("Emulation.setScriptExecutionDisabled", setting).await?;
        Ok(())
    }

    /// Lets each answer take so much longer, as far away from the service.
    ///
    /// # Errors
    ///
    /// If the browser refuses.
    pub async fn delay(&self, latency_ms: u32) -> anyhow::Result<()> {
        let conditions = json!({"offline": false, "latency": latency_ms,
                                "downloadThroughput": -1, "uploadThroughput": -1});
        let cdp = self.driver.cdp();
        cdp.send_raw("Network.enable", json!({})).await?;
        cdp.send_raw("Network.emulateNetworkConditions", conditions).await?;
        Ok(())
    }

    /// Goes back to the page before.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn back(&self) -> anyhow::Result<()> {
        Ok(self.driver.back().await?)
    }

    /// Presses a key where the focus is.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn press(&self, key: &str) -> anyhow::Result<()> {
        Ok(self.driver.active_element().await?.send_keys(key).await?)
    }

    /// Uses the button, or follows the link, of a name, and waits for the page that comes of it.
    ///
    /// # Errors
    ///
    /// If there is none, or no page comes.
    pub async fn follow(&self, name: &str) -> anyhow::Result<()> {
        self.run("window.isLeft = true", Vec::new()).await?;
        self.click(name).await?;
        let script = "return window.isLeft === undefined && document.readyState === 'complete'";
        wait::until("the next page", wait::LONG, async || {
            let is_there = self.run(script, Vec::new()).await.ok()?;
            (is_there == true).then_some(())
        })
        .await
    }

    /// Waits until a text can be seen on the page.
    ///
    /// # Errors
    ///
    /// If it cannot; with what can be seen.
    pub async fn wait_for(&self, text: &str) -> anyhow::Result<()> {
        let waited = wait::until(text, wait::LONG, async || {
            self.text().await.ok().filter(|seen| seen.contains(text))
        });
        match waited.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let (url, seen) = (self.url().await?, self.text().await.unwrap_or_default());
                bail!("{error}; {url} says:\n{seen}")
            }
        }
    }

    /// Runs a script and returns what it returns.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> anyhow::Result<Value> {
        Ok(self.driver.execute(script, arguments).await?.json().clone())
    }

    /// Reports whether the page makes the browser ask before it is left. The driver itself would
    /// leave it unasked.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn would_ask(&self) -> anyhow::Result<bool> {
        let script = "return !dispatchEvent(new Event('beforeunload', {cancelable: true}))";
        Ok(self.run(script, Vec::new()).await? == true)
    }

    /// Shows pages in a width, and in a colour scheme, `light` or `dark`.
    ///
    /// # Errors
    ///
    /// If the browser refuses.
    pub async fn show_as(&self, width: u32, scheme: &str) -> anyhow::Result<()> {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1,
                             "mobile": width < 500});
        let cdp = self.driver.cdp();
        cdp.send_raw("Emulation.setDeviceMetricsOverride", metrics).await?;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        cdp.send_raw("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    /// Takes a picture of the whole page.
    ///
    /// # Errors
    ///
    /// If it cannot be taken or kept.
    pub async fn picture(&self, path: &Path) -> anyhow::Result<()> {
        let size =
            "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]";
        let size = self.run(size, Vec::new()).await?;
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let options = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let shot = self.driver.cdp().send_raw("Page.captureScreenshot", options).await?;
        let text = shot["data"].as_str().context("no picture")?;
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, bytes)?)
    }

    /// Returns what axe finds serious or critical on the page.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub async fn accessibility(&self) -> anyhow::Result<Findings> {
        // Scripts of the driver are no scripts of the page, so the page's policy lets them run.
        self.run(&std::fs::read_to_string(&self.axe)?, Vec::new()).await?;
        let script = "const done = arguments[arguments.length - 1];
            axe.run({resultTypes: ['violations']}).then((r) => done(r.violations), (e) => done(String(e)));";
        let found = self.driver.execute_async(script, Vec::new()).await?;
        let found =
            found.json().as_array().cloned().with_context(|| format!("axe: {:?}", found.json()))?;
        let serious = found
            .iter()
            .filter(|finding| matches!(finding["impact"].as_str(), Some("serious" | "critical")));
        let mut findings = Findings::new();
        for finding in serious {
            let nodes = finding["nodes"].as_array().cloned().unwrap_or_default();
            let said = nodes.iter().map(|node| {
                format!("{} {}", node["html"], node["failureSummary"]).replace('\n', " ")
            });
            findings.insert(finding["id"].to_string(), said.collect());
        }
        Ok(findings)
    }

    /// Returns how much wider than the window the page is, in pixels.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn overflow(&self) -> anyhow::Result<i64> {
        let script =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.run(script, Vec::new()).await?.as_i64().context("no number")
    }

    async fn field(&self, label: &str, index: usize) -> anyhow::Result<WebElement> {
        // What is optional says so behind the label.
        let label = quoted(label);
        let path = format!("//label[normalize-space(text()[1])={label}]");
        let mut fields = Vec::new();
        for found in self.driver.find_all(By::XPath(path)).await? {
            if let Some(id) = found.attr("for").await? {
                fields.push(self.driver.find(By::Id(id)).await?);
            }
        }
        let count = fields.len();
        let field = fields.into_iter().nth(index);
        field.with_context(|| format!("{count} fields {label}, expected more than {index}"))
    }
}

/// Where a test fails, nobody asks the browser to end: that would wait for answers.
impl Drop for Browser {
    fn drop(&mut self) {
        if self.driver.clone().leak().is_err() {
            return;
        }
        // The browser says there on which host and as which process it runs.
        let lock = std::fs::read_link(self.files.join("SingletonLock")).ok();
        let id = lock.and_then(|lock| lock.to_str()?.rsplit('-').next()?.parse().ok());
        if let Some(id) = id {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// Returns a text as `XPath` has it.
fn quoted(text: &str) -> String {
    if text.contains('\'') { format!("\"{text}\"") } else { format!("'{text}'") }
}

/// Time between parts of a double click: long enough for the first to be on its way.
const BETWEEN_CLICKS: Duration = Duration::from_millis(30);

/// Without a window, and without asking for anything outside.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
];
