//! `make run`: what it prints can be pasted, and it ends all that it started.

use std::path::Path;
use std::process::Command;

use latchkey_tests::process::Process;
use latchkey_tests::stack::Folder;
use latchkey_tests::{http, ports, project, wait};

struct Demo {
    process: Process,
    ports: [u16; 5],
    said: String,
}

async fn start(folder: &Path, name: &str, data: &str) -> Demo {
    let ports = std::array::from_fn(|_| ports::free().unwrap());
    let program = project::latchkey().unwrap().with_file_name("demo");
    let process = Process::start(name, program, folder, |command| {
        command.current_dir(project::folder());
        for (variable, port) in
            ["GATEWAY_PORT", "FLTR_PORT", "CONTROL_PLANE_PORT", "UPSTREAM_PORT", "ENVOY_ADMIN_PORT"]
                .iter()
                .zip(ports)
        {
            command.env(variable, port.to_string());
        }
        command.env("DATA_DIR", folder.join(data)).env("ENVOY_WORKERS", "1");
        command.env_remove("OPERATOR_TOKEN").env_remove("LATCHKEY_OPERATOR_TOKEN");
    })
    .unwrap()
    .with_children();
    let log = folder.join(format!("{name}.log"));
    let said = wait::until("the demo", wait::START, async || {
        std::fs::read_to_string(&log).ok().filter(|said| said.contains("Ctrl-C ends everything"))
    })
    .await
    .unwrap();
    Demo { process, ports, said }
}

/// Runs each printed `curl` line as it stands; returns how many there are.
fn run_printed_lines(said: &str) -> usize {
    let mut count = 0;
    for line in said.lines() {
        let Some((status, command)) = line.trim_start().split_once("  curl ") else {
            continue;
        };
        let output = Command::new("sh").args(["-c", &format!("curl {command}")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), status, "{line}");
        count += 1;
    }
    count
}

/// A copy on the data of another does not start, and takes nothing away from it.
fn refuse_the_same_data(folder: &Path) {
    let program = project::latchkey().unwrap().with_file_name("demo");
    let mut command = Command::new(program);
    for variable in
        ["GATEWAY_PORT", "FLTR_PORT", "CONTROL_PLANE_PORT", "UPSTREAM_PORT", "ENVOY_ADMIN_PORT"]
    {
        command.env(variable, ports::free().unwrap().to_string());
    }
    let output = command.env("DATA_DIR", folder.join("data-one")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("another copy uses"), "{said}");
    assert!(folder.join("data-one/logs/access.log").exists());
}

#[tokio::test]
async fn printed_lines_work_and_two_copies_run_at_once() {
    let folder = Folder::new().unwrap();
    let mut one = start(folder.path(), "one", "data-one").await;
    let mut two = start(folder.path(), "two", "data-two").await;
    assert_eq!(run_printed_lines(&one.said), 15);
    assert_eq!(run_printed_lines(&two.said), 15);
    refuse_the_same_data(folder.path());
    assert!(one.process.stop().await.unwrap().success());
    for port in one.ports {
        let url = format!("http://127.0.0.1:{port}/");
        assert!(http::send("GET", &url, &[], b"").await.is_err(), "{port} is still open");
    }
    assert_eq!(run_printed_lines(&two.said), 15, "the other copy goes on");
    assert!(two.process.stop().await.unwrap().success());

    // The second start on the same data: the accounts are there, the tokens are new.
    let again = start(folder.path(), "again", "data-one").await;
    assert_eq!(run_printed_lines(&again.said), 15);
    assert_ne!(again.said, one.said);
}
