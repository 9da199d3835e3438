//! Which core runs what: the proxies on one, all that talks to them on the other.

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of this process, and which of them it uses for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    all: CpuSet,
    /// Number of the proxies' core and of the other one; none if there is one core only.
    split: Option<(usize, usize)>,
}

impl Cores {
    /// Returns the cores that this process may use; the first two are told apart.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let all = sched_getaffinity(Pid::from_raw(0)).context("cannot read the affinity")?;
        let mut usable = (0..CpuSet::count()).filter(|&core| all.is_set(core).unwrap_or(false));
        let split = usable.next().zip(usable.next());
        Ok(Self { all, split })
    }

    /// Returns how the cores are used, for people.
    pub(crate) fn description(&self) -> String {
        match self.split {
            Some((proxy, load)) => format!("Envoy on core {proxy}, everything else on core {load}"),
            None => "one core only, so Envoy shares it with everything else".to_owned(),
        }
    }

    /// From now on, this thread and what it starts runs beside the proxies.
    pub(crate) fn use_load_core(&self) -> anyhow::Result<()> {
        self.use_core(self.split.map(|(_, load)| load))
    }

    /// From now on, what this thread starts runs where proxies do. A process inherits the cores of the
    /// thread that starts it.
    pub(crate) fn use_proxy_core(&self) -> anyhow::Result<()> {
        self.use_core(self.split.map(|(proxy, _)| proxy))
    }

    /// From now on, what this thread starts runs on any core.
    pub(crate) fn use_all(&self) -> anyhow::Result<()> {
        self.use_core(None)
    }

    fn use_core(&self, core: Option<usize>) -> anyhow::Result<()> {
        let cores = match core {
            None => self.all,
            Some(core) => {
                let mut cores = CpuSet::new();
                cores.set(core)?;
                cores
            }
        };
        sched_setaffinity(Pid::from_raw(0), &cores).context("cannot choose a core")
    }
}
