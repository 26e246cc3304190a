//! Builds that take long: they are told of, and end with what they are for.

use crate::node::{Answer, Node, Setup, wait_for};
use crate::pack;
use faas::Limits;
use serde_json::Value;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread::{ScopedJoinHandle, scope};
use std::time::Duration;

fn path(name: &str) -> String {
    format!("/v1/functions/{name}?runtime=python3")
}

fn deploy(node: &Node, name: &str, text: &str) -> Answer {
    node.put(&path(name), &pack::zip(&[("fn.py", text)]))
}

/// The function among what is being made ready.
fn underway(node: &Node, name: &str) -> Value {
    let all = node.get("/v1/deployments").json();
    let all = all["deployments"].as_array().unwrap().clone();
    let found = all.into_iter().find(|one| one["name"] == name);
    found.unwrap_or_default()
}

fn wait_for_stage(node: &Node, name: &str, stage: &str) {
    wait_for("the stage", || underway(node, name)["stage"] == stage);
}

fn wait_for_end(node: &Node) {
    wait_for("every build to end", || {
        node.backend.preparing.load(Ordering::SeqCst) == 0
    });
    let all = node.get("/v1/deployments").json();
    assert_eq!(all["deployments"].as_array().unwrap().len(), 0, "{all}");
}

fn cancelled(deploying: ScopedJoinHandle<'_, Answer>) {
    let answer = deploying.join().unwrap();
    assert_eq!(answer.status, 409, "{}", answer.text);
    assert!(answer.text.contains("cancelled"), "{}", answer.text);
}

#[test]
fn a_build_is_told_of_and_ends_when_its_function_is_deleted() {
    let node = Node::start();
    scope(|scope| {
        let first = scope.spawn(|| deploy(&node, "first", "BUILDS"));
        wait_for_stage(&node, "first", "builds");
        let second = scope.spawn(|| deploy(&node, "second", "QUEUES"));
        wait_for_stage(&node, "second", "waits-for-build");
        let told = underway(&node, "second");
        assert_eq!(told["waits_for"][0], "first", "{told}");
        assert!(told["since"].is_string(), "{told}");
        for place in ["/v1/functions", "/v1/status"] {
            let shown = node.get(place).json();
            assert_eq!(shown["deployments"].as_array().unwrap().len(), 2, "{shown}");
        }
        let not_yet = node.get("/v1/functions/first");
        assert_eq!(not_yet.status, 404);
        assert!(not_yet.text.contains("being built"), "{}", not_yet.text);
        assert_eq!(node.delete("/v1/functions/first").status, 204);
        cancelled(first);
        let deleted = node.post("/delete", r#"{"name": "second"}"#);
        assert_eq!(deleted.status, 200, "{}", deleted.text);
        cancelled(second);
    });
    wait_for_end(&node);
    assert_eq!(node.delete("/v1/functions/first").status, 404);
}

#[test]
fn a_new_deployment_ends_the_build_before_it_and_other_settings_do_not() {
    let node = Node::start();
    assert_eq!(deploy(&node, "f", "1").status, 201);
    scope(|scope| {
        let building = scope.spawn(|| deploy(&node, "f", "BUILDS"));
        wait_for_stage(&node, "f", "builds");
        let described = node.get("/v1/functions/f").json();
        assert_eq!(described["state"], "ready", "{described}");
        assert_eq!(described["deployment"]["stage"], "builds", "{described}");
        let set = scope.spawn(|| node.call("PATCH", "/v1/functions/f?memory=64MiB", &[], b""));
        wait_for("the setting to wait", || {
            let all = node.get("/v1/deployments").json();
            all["deployments"].as_array().unwrap().len() == 2
        });
        assert_eq!(underway(&node, "f")["stage"], "builds");
        assert!(!building.is_finished());
        let replaced = deploy(&node, "f", "2");
        assert_eq!(replaced.status, 200, "{}", replaced.text);
        cancelled(building);
        assert_eq!(set.join().unwrap().status, 200);
    });
    assert_eq!(node.invoke("f").unwrap(), "2");
    wait_for_end(&node);
}

#[test]
fn a_wipe_ends_builds_of_functions_that_are_not_known_yet() {
    let node = Node::start();
    scope(|scope| {
        let building = scope.spawn(|| deploy(&node, "f", "BUILDS"));
        wait_for_stage(&node, "f", "builds");
        assert_eq!(node.post("/wipe", "").status, 200);
        cancelled(building);
    });
    wait_for_end(&node);
}

#[test]
fn a_client_that_hangs_up_ends_its_build() {
    let node = Node::start();
    let archive = pack::zip(&[("fn.py", "BUILDS")]);
    let mut client = TcpStream::connect(node.addr).unwrap();
    let (path, bytes) = (path("f"), archive.len());
    let head = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&archive).unwrap();
    wait_for_stage(&node, "f", "builds");
    drop(client);
    wait_for_end(&node);
}

#[test]
fn what_needs_no_build_does_not_wait_for_builds() {
    let node = Node::with(Setup {
        limits: Limits {
            deployments_at_once_max: 1,
            slow_starts_max: 1,
            start_slot: Duration::from_millis(10),
            ..Limits::default()
        },
        ..Setup::default()
    });
    scope(|scope| {
        let names = ["a", "b", "c"];
        let node = &node;
        let building = names.map(|name| {
            let text = if name == "a" { "BUILDS" } else { "QUEUES" };
            scope.spawn(move || deploy(node, name, text))
        });
        for name in names {
            wait_for("it to come to its build", || {
                underway(node, name)["stage"]
                    .as_str()
                    .is_some_and(|stage| stage != "starts")
            });
        }
        assert_eq!(deploy(node, "plain", "1").status, 201);
        assert_eq!(node.post("/wipe", "").status, 200);
        for build in building {
            cancelled(build);
        }
    });
}

#[test]
fn a_build_that_waited_too_long_is_refused_with_the_names_of_those_that_run() {
    let node = Node::start();
    scope(|scope| {
        let building = scope.spawn(|| deploy(&node, "slow", "BUILDS"));
        wait_for_stage(&node, "slow", "builds");
        let refused = deploy(&node, "late", "BUSY");
        assert_eq!(refused.status, 503, "{}", refused.text);
        let told = refused.json();
        assert!(told["detail"].as_str().unwrap().contains("slow"), "{told}");
        assert!(told["fix"].as_str().unwrap().contains("delete"), "{told}");
        assert_eq!(node.delete("/v1/functions/slow").status, 204);
        cancelled(building);
    });
}
