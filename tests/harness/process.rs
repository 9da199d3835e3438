//! Programs that are started and ended.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// A program that ends with its owner.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    is_parent: bool,
}

impl Process {
    /// Starts a program with its output in `NAME.log`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(
        name: &str,
        program: impl AsRef<OsStr>,
        logs: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let log =
            File::options().create(true).append(true).open(logs.join(format!("{name}.log")))?;
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        prepare(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, is_parent: false })
    }

    /// Says that the program has started others, which only it can end: it is asked to, always.
    #[must_use]
    pub fn with_children(mut self) -> Self {
        self.is_parent = true;
        self
    }

    /// Returns the number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reports whether the program has ended.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends the program at once, as a crash would.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the program to end, and waits until it has.
    ///
    /// # Errors
    ///
    /// If it does not end in time; then it is killed.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let what = format!("the end of {}", self.name);
        let ended =
            wait::until(&what, STOP_TIME, async || self.child.try_wait().ok().flatten()).await;
        if ended.is_err() {
            self.kill()?;
        }
        ended
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(id, signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let is_asked = self.is_parent && self.signal(Signal::SIGTERM).is_ok();
            if !is_asked {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
    }
}

/// How long a program may take to end in good order.
const STOP_TIME: Duration = Duration::from_secs(15);
