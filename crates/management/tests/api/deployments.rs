//! Deployments: many at once, failing, cut off, stopped.

use crate::node::{Node, Setup, wait_for};
use crate::pack;
use faas::{Invocation, InvokeError, Limits};
use futures_util::poll;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn of_200_deployments_at_once_of_50_names_the_last_one_of_each_serves() {
    let node = Node::start();
    let names: Vec<String> = (0..50).map(|n| format!("fn/{n}")).collect();
    let results = node.runtime.block_on(async {
        let mut deployments = Vec::new();
        for round in 0..4 {
            for name in &names {
                let text = format!("{name} {round}");
                let request = request(name, &text);
                deployments.push(node.management.deploy(request));
            }
        }
        futures_util::future::join_all(deployments).await
    });
    for result in results {
        result.unwrap();
    }
    for name in &names {
        assert_eq!(node.invoke(name).unwrap(), format!("{name} 3"));
    }
    wait_for("the replaced handlers to stop", || {
        node.backend.handlers_alive.load(Ordering::SeqCst) == 50
    });
    node.wait_for_codes(50);
}

fn request(name: &str, text: &str) -> management::DeployRequest {
    management::DeployRequest {
        spec: faas::FunctionSpec {
            name: name.parse().unwrap(),
            runtime: faas::Runtime::Python3,
            entry: faas::Entry::Convention,
            handlers: 1,
            envs: Vec::new(),
            network: faas::Network::None,
            allow_hosts: Vec::new(),
            allow_scripts: false,
            cors: None,
            limits: faas::FunctionLimits::default(),
        },
        source: management::Source::Files(vec![management::SourceFile {
            path: "fn.py".to_owned(),
            contents: text.as_bytes().to_vec().into(),
            is_executable: false,
        }]),
    }
}

#[test]
fn no_call_fails_during_20_redeployments() {
    let node = Node::start();
    node.put("/v1/functions/f", &pack::function("0"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    node.invoke("f").unwrap();
                }
            });
        }
        for version in 1..=20 {
            let answer = node.put("/v1/functions/f", &pack::function(&version.to_string()));
            assert_eq!(answer.status, 200);
            assert_eq!(node.invoke("f").unwrap(), version.to_string());
        }
        is_over.store(true, Ordering::SeqCst);
    });
    node.wait_for_codes(1);
}

#[test]
fn a_failed_deploy_keeps_the_old_version() {
    let node = Node::start();
    assert_eq!(
        node.put("/v1/functions/f", &pack::function("old")).status,
        201
    );
    for text in ["BUILD FAILS", "LOAD FAILS", "HOST FAILS"] {
        assert!(node.put("/v1/functions/f", &pack::function(text)).status >= 400);
        assert_eq!(node.invoke("f").unwrap(), "old");
        assert_eq!(node.get("/v1/functions/f").json()["state"], "ready");
    }
    node.wait_for_codes(1);
    assert_eq!(node.backend.handlers_alive.load(Ordering::SeqCst), 1);
}

#[test]
fn a_client_that_hangs_up_does_not_cut_its_deployment() {
    let node = Node::start();
    let archive = pack::function("WAIT");
    let mut stream = TcpStream::connect(node.addr).unwrap();
    let head = format!(
        "PUT /v1/functions/f HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        node.addr,
        archive.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&archive).unwrap();
    wait_for("the deployment", || {
        node.backend.preparing.load(Ordering::SeqCst) == 1
    });
    drop(stream);
    node.backend.gate.send_replace(true);
    wait_for("the function", || node.invoke("f").is_ok());
    node.wait_for_codes(1);
}

#[test]
fn a_client_that_hangs_up_in_its_upload_leaves_nothing() {
    let node = Node::start();
    let mut stream = TcpStream::connect(node.addr).unwrap();
    stream
        .write_all(
            b"PUT /v1/functions/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nPK",
        )
        .unwrap();
    drop(stream);
    node.wait_for_codes(0);
    assert_eq!(node.get("/list").text, "");
}

#[test]
fn more_deployments_than_may_wait_are_refused() {
    let limits = Limits {
        deployments_at_once_max: 1,
        deployments_waiting_max: 1,
        functions_max: 2,
        ..Limits::default()
    };
    let node = Node::with(Setup {
        limits,
        ..Setup::default()
    });
    node.runtime.block_on(async {
        // A call takes its place when it is first polled.
        let mut first = pin!(node.management.deploy(request("a", "WAIT")));
        assert!(poll!(&mut first).is_pending());
        let mut second = pin!(node.management.deploy(request("b", "2")));
        assert!(poll!(&mut second).is_pending());
        let third = node.management.deploy(request("c", "3")).await;
        let refusal = third.unwrap_err();
        assert_eq!(refusal.to_string(), "1 deployments wait already");
        assert!(refusal.fix().starts_with("try again"), "{refusal:?}");
        node.backend.gate.send_replace(true);
        first.await.unwrap();
        second.await.unwrap();
    });
    assert_eq!(node.get("/list").text, "a\nb\n");
    let answer = node.put("/v1/functions/c", &pack::function("3"));
    assert_eq!(answer.status, 507, "{}", answer.text);
    assert_eq!(
        node.put("/v1/functions/b", &pack::function("3")).status,
        200
    );
}

#[test]
fn a_deleted_function_is_gone_from_router_disk_and_log() {
    let node = Node::start();
    node.put("/v1/functions/f", &pack::function("1"));
    node.put("/v1/functions/same", &pack::function("1"));
    node.invoke("f").unwrap();
    assert_eq!(node.codes().len(), 1);
    assert_eq!(node.delete("/v1/functions/f").status, 204);
    assert!(matches!(node.invoke("f"), Err(InvokeError::NotFound(_))));
    assert!(node.router.find("f").is_none());
    assert_eq!(node.invoke("same").unwrap(), "1");
    node.wait_for_codes(1);
    node.put("/v1/functions/f", &pack::function("2"));
    assert!(!node.get("/logs?name=f").text.contains("called"));
    assert_eq!(node.delete("/v1/functions").status, 204);
    node.wait_for_codes(0);
}

#[test]
fn logs_are_followed_as_they_come() {
    let node = Node::start();
    node.put("/v1/functions/f", &pack::function("1"));
    let url = format!("http://{}/v1/functions/f/logs?follow&after=1", node.addr);
    let body = ureq::get(&url).call().unwrap().into_body();
    let mut lines = BufReader::new(body.into_reader()).lines();
    for number in 2..5 {
        node.invoke("f").unwrap();
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["number"], number);
        assert_eq!(line["text"], "called");
        assert_eq!(line["handler"], "f-0");
        assert_eq!(line["stream"], "stdout");
    }
    node.put("/v1/functions/f", &pack::function("2"));
    assert!(lines.next().unwrap().unwrap().contains("starting"));
    node.delete("/v1/functions/f");
    assert!(lines.next().is_none());
    let text = [("accept", "text/plain")];
    node.put("/v1/functions/g", &pack::function("2"));
    let all = node.call("GET", "/v1/logs?since=10m", &text, b"").text;
    assert!(
        all.ends_with("function=g handler=build platform starting\n"),
        "{all}"
    );
    assert_eq!(node.get("/v1/logs?since=2100-01-01T00:00:00Z").text, "");
}

#[test]
fn readers_of_logs_are_bounded() {
    let mut setup = Setup::default();
    setup.limits.log_readers_max = 4;
    let node = Node::with(setup);
    node.put("/v1/functions/f", &pack::function("1"));
    let url = format!("http://{}/v1/logs?follow", node.addr);
    let followers: Vec<_> = (0..2).map(|_| ureq::get(&url).call().unwrap()).collect();
    let refused = node.get("/v1/functions/f/logs");
    assert_eq!(refused.status, 503);
    assert!(refused.json()["fix"].is_string());
    assert_eq!(node.get("/healthz").status, 200);
    drop(followers);
    wait_for("a place", || node.get("/v1/logs").status == 200);
}

#[test]
fn stopping_ends_what_is_under_way_and_leaves_no_handler() {
    let node = Node::start();
    node.put("/v1/functions/f", &pack::function("1"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| node.put("/v1/functions/g", &pack::function("WAIT")));
        wait_for("the deployment", || {
            node.backend.preparing.load(Ordering::SeqCst) == 1
        });
        node.runtime
            .block_on(node.management.stop(Duration::from_millis(10)));
        assert_eq!(waiting.join().unwrap().status, 503);
    });
    assert_eq!(node.backend.handlers_alive.load(Ordering::SeqCst), 0);
    assert_eq!(
        node.put("/v1/functions/h", &pack::function("1")).status,
        503
    );
    assert_eq!(node.codes().len(), 1);
    node.shutdown.cancel();
    node.tasks.close();
    node.runtime.block_on(node.tasks.wait());
}

#[test]
fn calls_that_outlast_the_drain_finish_after_a_redeploy_and_a_delete() {
    let limits = Limits {
        drain: Duration::from_millis(10),
        ..Limits::default()
    };
    let node = Node::with(Setup {
        limits,
        ..Setup::default()
    });
    let deploy = |name: &str| {
        let path = format!("/v1/functions/{name}");
        assert!(node.put(&path, &pack::function("LINGERS")).status < 300);
    };
    deploy("f");
    deploy("g");
    let call = |name: &'static str| {
        let proxy = Arc::clone(&node.proxy);
        node.runtime.spawn(async move {
            let path = format!("/{name}");
            let invocation = Invocation::new("POST", path.into(), "".into());
            proxy.invoke(name, invocation).await
        })
    };
    let calls = [call("f"), call("g")];
    wait_for("the calls", || {
        node.backend.lingering.load(Ordering::SeqCst) == 2
    });
    assert!(node.put("/v1/functions/f", &pack::function("new")).status < 300);
    assert_eq!(node.delete("/v1/functions/g").status, 204);
    // Far longer than the drain, in which nothing may happen.
    std::thread::park_timeout(Duration::from_millis(300));
    assert_eq!(node.backend.cut.load(Ordering::SeqCst), 0);
    node.backend.gate.send_replace(true);
    for call in calls {
        assert!(node.runtime.block_on(call).unwrap().is_ok());
    }
    wait_for("the old handlers to end", || {
        node.backend.handlers_alive.load(Ordering::SeqCst) == 1
    });
}
