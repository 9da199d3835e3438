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
