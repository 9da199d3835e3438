//! How many instructions the decision on a request takes, and that it does not take more than its
//! budget.
//!
//! Callgrind counts the instructions of this same program, which decides one kind of request over and
//! over: once so often and once more often, so that the difference is of the requests alone. Counts
//! are the native code's; the module's go with them. They are kept for x86-64, and only shown elsewhere.
//!
//! `make instructions` measures all cases and fails if one is over its budget.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod gateway;

use std::process::{Command, ExitCode};

use gateway::Gateway;

/// A kind of request.
struct Case {
    name: &'static str,
    /// Instructions that a request took when its budget was set.
    measured: u64,
    /// Most that it may take: a tenth more, for what another compiler makes of the same code.
    budget: u64,
    gateway: fn() -> Result<Gateway, String>,
}

/// The budgets; measured on 25 November 2026 with Rust 1.95 on x86-64.
const CASES: [Case; 6] = [
    Case { name: "permitted", measured: 20_615, budget: 22_700, gateway: Gateway::permitted },
    Case {
        name: "permitted_with_query",
        measured: 32_768,
        budget: 34_100,
        gateway: Gateway::permitted_with_query,
    },
    Case {
        name: "unknown_token",
        measured: 17_394,
        budget: 19_100,
        gateway: Gateway::unknown_token,
    },
    Case {
        name: "missing_right",
        measured: 32_724,
        budget: 35_800,
        gateway: Gateway::missing_right,
    },
    Case {
        name: "limit_reached",
        measured: 28_541,
        budget: 31_300,
        gateway: Gateway::limit_reached,
    },
    Case { name: "graphql", measured: 146_590, budget: 160_000, gateway: Gateway::graphql },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--decide", name, requests] => decide(name, requests),
        // Cargo says `--bench`.
        _ => measure_all(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Decides a number of requests of a case: what Callgrind looks at.
fn decide(name: &str, requests: &str) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    let requests: u32 = requests.parse().map_err(|_| "expected a number of requests")?;
    let mut gateway = (case.gateway)()?;
    for _ in 0..requests {
        gateway.decide()?;
    }
    Ok(())
}

fn measure_all() -> Result<(), String> {
    let mut over = Vec::new();
    for Case { name, measured, budget, .. } in CASES {
        let more = instructions(name, FEW_REQUESTS + MEASURED_REQUESTS)?;
        let each = more.saturating_sub(instructions(name, FEW_REQUESTS)?) / MEASURED_REQUESTS;
        println!("  {name:22} {each:>7}, was {measured:>7}, may be {budget:>7}");
        if each > budget && cfg!(target_arch = "x86_64") {
            over.push(name);
        }
    }
    if over.is_empty() {
        return Ok(());
    }
    Err(format!("over budget: {}", over.join(", ")))
}

/// Returns how many instructions this program takes for a number of requests of a case.
fn instructions(name: &str, requests: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--decide", name, &requests.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not run ({error}); install it, then try again"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected.and_then(|(_, count)| count.trim().parse().ok()) {
        Some(count) if output.status.success() => Ok(count),
        Some(_) | None => {
            Err(format!("{name}: {}\n{said}", String::from_utf8_lossy(&output.stdout).trim()))
        }
    }
}

/// Requests of the shorter run: enough for what only the first ones do.
const FEW_REQUESTS: u64 = 100;

/// Requests by which the longer run is longer.
const MEASURED_REQUESTS: u64 = 1_000;
