//! The control plane stays up, whatever strangers send and whatever the disk does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use latchkey_tests::stack::Folder;
use latchkey_tests::{ControlPlane, Response, http, ports, wait};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::report;

async fn start(environment: &[(&str, &str)]) -> (ControlPlane, Folder) {
    let folder = Folder::new().unwrap();
    let data = folder.path().join("data");
    let port = ports::free().unwrap();
    let control_plane = ControlPlane::start(port, &data, folder.path(), None, environment).await;
    (control_plane.unwrap(), folder)
}

async fn get(control_plane: &ControlPlane, path: &str, headers: &[(&str, &str)]) -> Response {
    let url = format!("http://127.0.0.1:{}{path}", control_plane.port);
    let headers: Vec<(&str, &[u8])> =
        headers.iter().map(|&(name, value)| (name, value.as_bytes())).collect();
    http::send("GET", &url, &headers, b"").await.unwrap()
}

/// Returns a number of megabytes of a process's memory that is in use.
fn resident_megabytes(control_plane: &ControlPlane) -> u64 {
    let file = format!("/proc/{}/status", control_plane.process_id().unwrap());
    let status = std::fs::read_to_string(file).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Attempts to sign in, however many, leave the memory as it is: each used to take 19 MiB of some thread's
/// for good.
#[tokio::test(flavor = "multi_thread")]
async fn signing_in_takes_no_memory_for_good() {
    let proxies = [("LATCHKEY_TRUSTED_PROXIES", "127.0.0.1/32")];
    let (control_plane, _folder) = start(&proxies).await;
    let before = resident_megabytes(&control_plane);
    let url = format!("http://127.0.0.1:{}/sign-in", control_plane.port);
    let mut checked = 0;
    for round in 0..25_u32 {
        let attempts = (0..40_u32).map(|index| {
            let url = url.clone();
            tokio::spawn(async move {
                let address = format!("198.51.{round}.{index}");
                let headers = [
                    ("content-type", b"application/x-www-form-urlencoded".as_slice()),
                    ("x-forwarded-for", address.as_bytes()),
                ];
                let body = format!("email=p{index}%40example.com&password=wrong{round}");
                http::send("POST", &url, &headers, body.as_bytes()).await.unwrap().status
            })
        });
        for attempt in attempts.collect::<Vec<_>>() {
            checked += u32::from(attempt.await.unwrap() == 401);
        }
    }
    let after = resident_megabytes(&control_plane);
    report(&format!("{checked} passwords checked: {before} MB before, {after} MB after"));
    assert!(checked > 900, "{checked}");
    assert!(after <= 120, "{after}");
}

/// Whoever opens connections and says nothing, half a request or half a body keeps nobody out, also where
/// there are few descriptors, and loses them.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_keep_nobody_out() {
    let (control_plane, _folder) = start(&[]).await;
    let id = i32::try_from(control_plane.process_id().unwrap()).unwrap();
    let descriptors = || std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let before = descriptors();
    let mut held = Vec::new();
    let begin = Instant::now();
    for index in 0..1_200_usize {
        // From several addresses, as far as one machine has them.
        let socket = TcpSocket::new_v4().unwrap();
        let from = format!("127.0.0.{}:0", 2 + index % 3);
        socket.bind(from.parse().unwrap()).unwrap();
        let to = format!("127.0.0.1:{}", control_plane.port);
        let mut stream = socket.connect(to.parse().unwrap()).await.unwrap();
        let said: &[u8] = match index % 4 {
            0 => b"",
            1 => b"G",
            2 => b"GET /readyz HTTP/1.1\r\nHost: x\r\nX-Long: ",
            _ => b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nemail",
        };
        let _ = stream.write_all(said).await;
        held.push(stream);
    }
    // Those that lost their places are closed as soon as it is their turn.
    let bounded = wait::until("each client's number of connections", wait::LONG, async || {
        Some(descriptors()).filter(|count| *count < 800)
    });
    let during = bounded.await.unwrap();
    report(&format!("descriptors: {before} before, {during} with 1,200 connections"));
    for path in ["/readyz", "/sign-in", "/metrics"] {
        assert_eq!(get(&control_plane, path, &[]).await.status, 200, "{path}");
    }
    let edge = format!("Bearer {}", control_plane.edge_token().unwrap());
    let poll = "/edge/v1/updates?profile=flotiq&instance=i&worker=w&wait_ms=0";
    let answer = get(&control_plane, poll, &[("authorization", &edge)]).await;
    assert_eq!(answer.status, 200);

    // All of them end by themselves, those with half a body, too.
    wait::until("the end of all that is half open", Duration::from_secs(90), async || {
        (descriptors() < before + 10).then_some(())
    })
    .await
    .unwrap();
    report(&format!("{} left after {:?}", descriptors(), begin.elapsed()));
    for stream in &mut held {
        assert!(is_over(stream).await);
    }
}

/// Reports whether the other side has closed a connection; an answer may have come before.
async fn is_over(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), read).await.is_ok()
}

/// Wrong tokens are told of in a bounded number of lines, slow nobody else down, and are slowed down.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_slowed_down_and_logged_in_bounded_number() {
    let (control_plane, folder) = start(&[]).await;
    let mut statuses = Vec::new();
    for index in 0..300 {
        let wrong = format!("Bearer wrong-{index}");
        let path = ["/api/v1/accounts", "/edge/v1/updates?profile=flotiq"][index % 2];
        statuses.push(get(&control_plane, path, &[("authorization", &wrong)]).await);
    }
    assert_eq!(statuses[0].status, 401);
    let last = statuses.last().unwrap();
    assert_eq!(last.status, 429);
    assert!(last.header("retry-after").parse::<u32>().unwrap() >= 1);
    let right = format!("Bearer {}", control_plane.operator_token);
    let answer = get(&control_plane, "/api/v1/accounts", &[("authorization", &right)]).await;
    assert_eq!(answer.status, 200, "the right one passes");
    let log = std::fs::read_to_string(folder.path().join("control-plane.log")).unwrap();
    let lines = log.lines().filter(|line| line.contains("a call was refused")).count();
    assert!((1..=15).contains(&lines), "{lines}");
    assert!(!log.contains("wrong-"), "no token is in the log");
}

/// Where a proxy in front is not believed, that is said once.
#[tokio::test]
async fn proxy_that_is_not_believed_is_told_of_once() {
    let (control_plane, folder) = start(&[]).await;
    for index in 0..5 {
        let client = format!("198.51.100.{index}");
        get(&control_plane, "/sign-in", &[("x-forwarded-for", &client)]).await;
    }
    let log = std::fs::read_to_string(folder.path().join("control-plane.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("--trusted-proxies")).count(), 1, "{log}");
}

/// A file system of its own for the data, of 8 MB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        let is_mounted = run(mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(at));
        is_mounted.then(|| Self(at.to_owned()))
    }

    fn remount(&self, option: &str) {
        assert!(run(Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0)));
    }

    /// Fills it, to the last block.
    fn fill(&self, name: &str) {
        let mut block = vec![b'x'; 1 << 20];
        let mut file = std::fs::File::create(self.0.join(name)).unwrap();
        while !block.is_empty() {
            if std::io::Write::write_all(&mut file, &block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// On a full disk the control plane is not ready, revocations pass, and after a crash it starts and serves
/// what was committed last.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_keeps_no_revocation_back() {
    let folder = Folder::new().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk")) else {
        report("only root can mount a small disk: not tried");
        return;
    };
    let (data, port) = (disk.0.join("data"), ports::free().unwrap());
    let started = ControlPlane::start(port, &data, folder.path(), None, &[]).await;
    let mut control_plane = started.unwrap();
    control_plane.create_account("acme", "fltr").await.unwrap();
    let key = json!({"name": "k", "rules": [{"resource": "*", "actions": ["*"]}]});
    let mut keys = Vec::new();
    for _ in 0..4 {
        keys.push(control_plane.create_key("acme", &key).await.unwrap());
    }
    let path = |index: usize| format!("/accounts/acme/keys/{}", keys[index].id);
    let readiness =
        async |control_plane: &ControlPlane| get(control_plane, "/readyz", &[]).await.status;
    let state = async |control_plane: &ControlPlane, index: usize| {
        control_plane.call("GET", &path(index), &Value::Null).await.unwrap()["state"].clone()
    };
    assert_eq!(readiness(&control_plane).await, 200);

    disk.fill("first");
    let edit = json!({"name": "other"});
    let answer = control_plane.api("DELETE", &path(0), &Value::Null).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text());
    wait::until("a change that is refused", wait::LONG, async || {
        let answer = control_plane.api("PATCH", "/accounts/acme", &edit).await.unwrap();
        (answer.status == 503).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(readiness(&control_plane).await, 503);
    let suspended = format!("{}/suspend", path(1));
    let answer = control_plane.api("POST", &suspended, &Value::Null).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    for _ in 0..3 {
        let answer = control_plane.api("PATCH", "/accounts/acme", &edit).await.unwrap();
        assert_eq!(answer.status, 503, "nothing else takes the room of what takes access away");
    }
    control_plane.kill().unwrap();
    disk.fill("second");

    // It is not ready, so nobody waits for that.
    control_plane.run_unready().await.unwrap();
    assert_eq!(readiness(&control_plane).await, 503);
    assert_eq!(state(&control_plane, 0).await, "revoked", "just before the crash");
    assert_eq!(state(&control_plane, 1).await, "suspended");
    assert_eq!(state(&control_plane, 2).await, "active");
    let edge = format!("Bearer {}", control_plane.edge_token().unwrap());
    let poll = "/edge/v1/updates?profile=fltr&instance=i&worker=w&wait_ms=0";
    let answer = get(&control_plane, poll, &[("authorization", &edge)]).await;
    assert_eq!(answer.status, 200);
    let told = answer.json()["tokens"]["keys"].to_string();
    for (index, is_told) in [(0, false), (1, false), (2, true), (3, true)] {
        assert_eq!(told.contains(&keys[index].id), is_told, "{index}: {told}");
    }

    for name in ["first", "second"] {
        std::fs::remove_file(disk.0.join(name)).unwrap();
    }
    wait::until("readiness, once there is room", wait::LONG, async || {
        (readiness(&control_plane).await == 200).then_some(())
    })
    .await
    .unwrap();
    control_plane.call("PATCH", "/accounts/acme", &edit).await.unwrap();
    control_plane.call("DELETE", &path(2), &Value::Null).await.unwrap();
    let reserve = std::fs::metadata(data.join("reserve")).unwrap().len();
    assert!(reserve <= 1 << 20, "{reserve}");

    // The same where nothing can be written at all; without the index of the log, too.
    let mut restarted = Some(control_plane);
    for is_index_there in [true, false] {
        let mut control_plane = restarted.take().unwrap();
        control_plane.kill().unwrap();
        if !is_index_there {
            std::fs::remove_file(data.join("latchkey.db-shm")).unwrap();
        }
        disk.remount("ro");
        control_plane.run_unready().await.unwrap();
        assert_eq!(readiness(&control_plane).await, 503);
        assert_eq!(state(&control_plane, 2).await, "revoked");
        let answer = control_plane.api("DELETE", &path(3), &Value::Null).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        // Who reads meanwhile keeps nobody from writing.
        let control_plane = Arc::new(control_plane);
        let reader = tokio::spawn({
            let control_plane = Arc::clone(&control_plane);
            async move {
                loop {
                    let _ = control_plane.api("GET", "/audit?limit=1000", &Value::Null).await;
                }
            }
        });
        disk.remount("rw");
        wait::until("readiness, once it can write", wait::LONG, async || {
            (readiness(&control_plane).await == 200).then_some(())
        })
        .await
        .unwrap();
        reader.abort();
        let _ = reader.await;
        restarted = Arc::into_inner(control_plane);
    }
    let mut control_plane = restarted.unwrap();
    control_plane.call("DELETE", &path(3), &Value::Null).await.unwrap();
    assert_eq!(state(&control_plane, 3).await, "revoked");
    // Before its disk goes.
    control_plane.kill().unwrap();
}

/// A person who has signed in from a browser or a network before is not kept out by strangers' attempts.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_keep_nobody_from_signing_in() {
    let proxies = [("LATCHKEY_TRUSTED_PROXIES", "127.0.0.1/32, ::1")];
    let (control_plane, _folder) = start(&proxies).await;
    let operator = json!({"purpose": "operator", "email": "ada@example.com"});
    let link = control_plane.link(&operator).await.unwrap();
    let post = async |url: &str, from: &str, cookie: &str, body: &str| {
        let headers = [
            ("content-type", b"application/x-www-form-urlencoded".as_slice()),
            ("x-forwarded-for", from.as_bytes()),
            ("cookie", cookie.as_bytes()),
        ];
        http::send("POST", url, &headers, body.as_bytes()).await.unwrap()
    };
    let sign_in = format!("http://127.0.0.1:{}/sign-in", control_plane.port);
    let joined =
        post(&link, "203.0.113.1", "", "name=Ada&new_password=correct-horse-battery").await;
    assert_eq!(joined.status, 303, "{}", joined.text());
    let cookies = joined.headers.get_all("set-cookie").iter();
    let browser = cookies.filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
    let browser = browser.filter(|cookie| cookie.contains("browser")).collect::<String>();
    assert!(!browser.is_empty());

    // Networks of both families, and IPv4 seen through IPv6 with a port.
    let strangers = (0..12).flat_map(|index| {
        [format!("198.51.100.{index}"), format!("[2001:db8:{index}::1]:99")]
            .into_iter()
            .chain([format!("[::ffff:192.0.2.{index}]:4711")])
    });
    for stranger in strangers {
        for _ in 0..2 {
            post(&sign_in, &stranger, "", "email=ada%40example.com&password=wrong").await;
        }
    }
    let right = "email=ada%40example.com&password=correct-horse-battery";
    let elsewhere = post(&sign_in, "192.0.2.200", "", right).await;
    assert_eq!(elsewhere.status, 429, "strangers are slowed down");
    for (from, cookie) in
        [("192.0.2.201", browser.as_str()), ("203.0.113.1", ""), ("[::ffff:203.0.113.1]:5000", "")]
    {
        let answer = post(&sign_in, from, cookie, right).await;
        assert_eq!(answer.status, 303, "{from} {cookie}: {}", answer.text());
    }
    // And nobody else's attempts from there are.
    let other = post(&sign_in, "192.0.2.7", "", "email=bob%40example.com&password=x").await;
    assert_eq!(other.status, 401);
}
