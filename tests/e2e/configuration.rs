//! Bad configuration is refused at load, with a message that names the field.

use std::process::Command;

use latchkey_tests::stack::Folder;
use latchkey_tests::{Envoy, EnvoyOptions, Stack, ports, project, wait};

fn options() -> EnvoyOptions {
    EnvoyOptions {
        gateway_host: "127.0.0.1".to_owned(),
        gateways: vec![("flotiq".to_owned(), ports::free().unwrap())],
        upstream_port: ports::free().unwrap(),
        control_plane_port: ports::free().unwrap(),
        admin_port: ports::free().unwrap(),
        workers: 1,
        edge_token: Some("some-edge-token".to_owned()),
        edits: Vec::new(),
        config_options: Vec::new(),
        listeners_file: None,
    }
}

#[tokio::test]
async fn envoy_refuses_to_start_and_the_log_names_the_field() {
    for (from, to, field) in [
        (r#"{"cluster": "control_plane"}"#, r#"{"cluster": ""}"#, "control_plane.cluster"),
        (r#"{"cluster": "control_plane"}"#, r#"{"klaster": "x"}"#, "klaster"),
        (r#""startup_wait_ms": 2000"#, r#""startup_wait_ms": -1"#, "startup_wait_ms"),
        (r#""startup_wait_ms": 2000,"#, r#""wait": 1,"#, "wait"),
        (r#"{"query": "auth_token"}"#, r#"{"cookie": "auth"}"#, "profile.carriers[1]"),
        (r#"["{type}:create"]"#, r#"["{typo}:create"]"#, "routes[1].needs[0]"),
        (r#""status": 401"#, r#""status": 200"#, "unauthenticated.status"),
    ] {
        let folder = Folder::new().unwrap();
        let mut options = options();
        options.edits = vec![(from.to_owned(), to.to_owned())];
        let error = Envoy::start(options, folder.path()).await.unwrap_err().to_string();
        assert!(error.contains("the plugin configuration is refused"), "{error}");
        let refusal = error.lines().find(|line| line.contains("is refused")).unwrap();
        assert!(refusal.contains(field), "{field}: {refusal}");
    }
}

/// With and without the credential in the environment: a configuration can be checked where there
/// is no secret.
#[tokio::test]
async fn printed_configuration_is_valid() {
    for edge_token in [None, Some("some-edge-token")] {
        let mut command = Command::new(project::envoy().unwrap());
        command.args(["--mode", "validate", "--config-path", "envoy/envoy.yaml"]);
        command.current_dir(project::folder()).env_remove("LATCHKEY_EDGE_TOKEN");
        if let Some(token) = edge_token {
            command.env("LATCHKEY_EDGE_TOKEN", token);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("is refused"), "{said}");
    }
}

#[test]
fn command_line_errors_say_what_was_expected() {
    let latchkey = project::latchkey().unwrap();
    let config = ["envoy-config", "--wasm", "w", "--upstream", "u:1", "--control-plane", "c:1"];
    for (arguments, expected) in [
        (&["serve"][..], "--data"),
        (&["serve", "--data", "/dev/null/x"], "/dev/null/x"),
        (&["serve", "--data", "/tmp", "--listen", "nowhere"], "--listen"),
        (&[&config[..], &["--listen", "l:1", "--profile", "nobody"]].concat(), "`flotiq`"),
        (&[&config[..], &["--listen", "l", "--profile", "fltr"]].concat(), "host:port"),
    ] {
        let output = Command::new(&latchkey).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
    }
}

/// Envoy replaces the filter's root context with each change of its configuration; what it knows
/// stays, so that a change during an outage of the control plane takes no key away.
#[tokio::test]
async fn changed_configuration_keeps_the_keys_and_a_bad_one_is_refused() {
    let watched = Folder::new().unwrap();
    let file = watched.path().join("listeners.yaml");
    let mut stack = Stack::start_with(&["flotiq"], |options| {
        options.listeners_file = Some(file.clone());
    })
    .await
    .unwrap();
    let key = stack.control_plane.create_account_with_key("acme").await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    stack.control_plane.kill().unwrap();

    let headers = [("x-auth-token", key.token.as_str())];
    let wait_ms = "\"startup_wait_ms\": 2000";
    let vm = "runtime: envoy.wasm.runtime.v8";
    let other_vm =
        format!("{vm}\n                  configuration: {{ \"@type\": {STRING}, value: other }}");
    let modified = "listener_manager.listener_modified";
    for (from, to, statistic, times) in [
        (wait_ms, "\"startup_wait_ms\": 1000", modified, 1),
        // VMs that know nothing yet, and have nobody to ask: what VMs share outlives them.
        (vm, &other_vm, modified, 2),
        (wait_ms, "\"startup_wait_ms\": \"soon\"", "listener_manager.lds.update_rejected", 1),
    ] {
        let mut options = stack.envoy.options.clone();
        options.edits = vec![(from.to_owned(), to.to_owned())];
        options.config(stack.folder.path()).unwrap();
        wait::until("the change of the listener", wait::LONG, async || {
            let count = stack.envoy.statistic(statistic).await.ok()?;
            (count == times).then_some(())
        })
        .await
        .unwrap();
        for _ in 0..20 {
            let answer = stack.send("flotiq", "GET", "/x", &headers).await.unwrap();
            assert_eq!(answer.status, 200, "{to}: {}", stack.envoy.log());
        }
    }

    // The filter's new root context asks for changes as the one before did.
    stack.control_plane.run().await.unwrap();
    let path = format!("/accounts/acme/keys/{}/suspend", key.id);
    stack.control_plane.call("POST", &path, &serde_json::Value::Null).await.unwrap();
    wait::until("the suspension", wait::LONG, async || {
        let answer = stack.send("flotiq", "GET", "/x", &headers).await.ok()?;
        (answer.status == 401).then_some(())
    })
    .await
    .unwrap();
}

/// Another API is another file, not another release.
#[tokio::test]
async fn third_profile_needs_no_new_code() {
    let folder = Folder::new().unwrap();
    let profiles = folder.path().join("profiles");
    std::fs::create_dir(&profiles).unwrap();
    let file = profiles.join("notes.json");
    let (_, fltr) = latchkey_filter::profile::SHIPPED[1];
    let notes = fltr
        .replacen(r#""name": "fltr""#, r#""name": "notes""#, 1)
        .replacen("fltr_sk_", "notes_", 1)
        .replacen(r#"{"bearer": "authorization"}"#, r#"{"header": "x-notes-key"}"#, 1)
        .replace("/v1/datasets", "/notes");
    std::fs::write(&file, notes).unwrap();

    let control_plane = latchkey_tests::ControlPlane::start(
        ports::free().unwrap(),
        &folder.path().join("data"),
        folder.path(),
        None,
        &[("LATCHKEY_PROFILES", profiles.to_str().unwrap())],
    )
    .await
    .unwrap();
    let upstream = latchkey_tests::Upstream::start(ports::free().unwrap()).await.unwrap();
    let port = ports::free().unwrap();
    let mut options = options();
    options.gateways = vec![(file.to_str().unwrap().to_owned(), port)];
    options.upstream_port = upstream.port;
    options.control_plane_port = control_plane.port;
    options.edge_token = Some(control_plane.edge_token().unwrap());
    let _envoy = Envoy::start(options, folder.path()).await.unwrap();
    control_plane.create_account("pad", "notes").await.unwrap();
    let key = serde_json::json!({"name": "n", "rules": [
        {"resource": "datasets", "actions": ["read"]}]});
    let key = control_plane.create_key("pad", &key).await.unwrap();
    control_plane.wait_until_in_force(2).await.unwrap();
    assert!(key.token.starts_with("notes_"));
    for (method, token, status) in
        [("GET", key.token.as_str(), 200), ("POST", key.token.as_str(), 403), ("GET", "x", 401)]
    {
        let url = format!("http://127.0.0.1:{port}/notes");
        let headers = [("x-notes-key", token.as_bytes())];
        let answer = latchkey_tests::http::send(method, &url, &headers, b"").await.unwrap();
        assert_eq!(answer.status, status, "{method}");
    }
}

/// Type of the configuration of a VM.
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
