//! What the system says of a process and of the machine.

use anyhow::Context;

/// Returns the CPU time that all threads of a process have used, in nanoseconds.
///
/// Of the scheduler's own books: the clock ticks of `/proc/PID/stat` are too coarse for a round. A
/// thread that ends takes its time with it; those that are measured here end none.
///
/// # Errors
///
/// If there is no such process.
pub(crate) fn cpu_ns(process: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = text.split_whitespace().next().context("empty schedstat")?;
        sum += on_cpu.parse::<u64>()?;
    }
    Ok(sum)
}

/// Returns the resident memory of a process, in bytes.
///
/// # Errors
///
/// If there is no such process.
pub(crate) fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// Returns the CPU time that everything on the machine has used, in nanoseconds.
///
/// # Errors
///
/// If the system does not say.
pub(crate) fn machine_cpu_ns() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().and_then(|line| line.strip_prefix("cpu"));
    let fields: Vec<u64> = fields
        .context("no line on all cores")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // User, nice, system, idle, waiting for disks, interrupts (2): all that is not idle.
    let busy = fields.iter().take(7).enumerate().filter(|(index, _)| !matches!(index, 3 | 4));
    let ticks: u64 = busy.map(|(_, ticks)| ticks).sum();
    Ok(ticks * NS_PER_TICK)
}

/// Returns the processor's name and the number of its cores.
///
/// # Errors
///
/// If the system does not say.
pub(crate) fn machine() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!("{}, {cores} cores", model.as_deref().unwrap_or("unknown processor")))
}

/// A tick of `/proc/stat` is a hundredth of a second wherever Envoy runs.
const NS_PER_TICK: u64 = 10_000_000;
