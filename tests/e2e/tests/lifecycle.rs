//! What holds when a node starts, stops and is killed, and when handlers die.

use e2e::{Function, Node, Place, until};
use std::io::Write;
use std::net::TcpStream;
use std::process::Output;

#[test]
fn a_restart_brings_every_function_back_and_calls_that_come_early_wait() {
    let place = Place::new();
    let node = Node::start_at(&place, &[]);
    let names = ["a", "b/c", "d", "e/f/g"];
    for name in names {
        let code = "import os\ndef fn(input): return os.environ['NAME'] + input\n";
        let function = Function::python(name, code).set("threads", "2");
        node.deploy(&function.var("NAME", name));
    }
    node.stop();
    let node = Node::start_at(&place, &[]);
    for name in names {
        assert_eq!(node.post(name, b"!").text(), format!("{name}!"));
    }
    let ready = until("the node says that it is ready", || {
        let ready = node.manage("GET", "/readyz", b"");
        (ready.status == 200).then_some(ready)
    });
    assert_eq!(ready.text(), "ready\n");
    assert_eq!(node.manage("GET", "/list", b"").text().lines().count(), 4);
}

#[test]
fn a_killed_node_leaves_no_handler_and_the_next_start_cleans_up() {
    let place = Place::new();
    let node = Node::start_at(&place, &[]);
    node.deploy(&Function::python("a", ECHO).set("threads", "3"));
    node.deploy(&Function::script("b", "cat"));
    // This also sees that every process has ended.
    let killed = node.kill();
    let node = Node::start_at(&place, &[]);
    assert_eq!(node.post("a", b"x").text(), "x");
    let left = e2e::cgroups_of(killed);
    assert!(left.is_empty(), "{left:#?}");
    node.stop();
}

#[test]
fn a_node_that_is_asked_to_end_finishes_the_calls_in_flight() {
    let node = Node::start();
    let code =
        "import time\ndef fn(input):\n    print('begun')\n    time.sleep(1)\n    return 'done'\n";
    node.deploy(&Function::python("slow", code));
    let url = node.url("http", "slow");
    let call = std::thread::spawn(move || e2e::request("POST", &url, &[], b""));
    printed(&node, "begun");
    // This sees that nothing is left, too.
    node.stop();
    assert_eq!(call.join().unwrap().text(), "done");
}

#[test]
fn a_call_behind_one_that_hangs_is_answered_by_the_next_handler() {
    let node = Node::start();
    let code = "import time\ndef fn(input):\n    print('begun', input)\n    time.sleep(3600 if input == 'hang' else 0)\n    return input\n";
    node.deploy(&Function::python("waits", code));
    let mut hanging = TcpStream::connect(node.addr("http")).unwrap();
    hanging
        .write_all(b"POST /waits HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nhang")
        .unwrap();
    printed(&node, "begun hang");
    let url = node.url("http", "waits");
    let behind = std::thread::spawn(move || e2e::request("POST", &url, &[], b"x"));
    until("the handler has both", || {
        (node.describe("waits")["handlers"]["in_flight"] == 2).then_some(())
    });
    // Its caller goes, so that it is cancelled, and does not end.
    drop(hanging);
    let answer = behind.join().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
    assert_eq!(node.describe("waits")["handlers"]["restarts"], 1);
}

#[test]
fn a_handler_that_is_killed_is_replaced() {
    let node = Node::start();
    node.deploy(&Function::python("a", ECHO));
    let handlers = || {
        let processes = node.processes().into_iter();
        let handlers = processes.filter(|process| process.name.starts_with("python"));
        handlers.collect::<Vec<_>>()
    };
    let before = handlers();
    assert!(!before.is_empty(), "{:?}", node.processes());
    for handler in &before {
        handler.kill();
    }
    until("another handler runs", || {
        let now = handlers();
        let is_new = !now.is_empty() && now.iter().all(|handler| !before.contains(handler));
        is_new.then_some(())
    });
    until("it serves", || {
        (node.post("a", b"x").text() == "x").then_some(())
    });
    assert_eq!(node.describe("a")["handlers"]["restarts"], 1);
    assert_eq!(node.describe("a")["state"], "ready");
}

#[test]
fn a_function_whose_handler_keeps_dying_is_degraded_and_shows_its_last_output() {
    let node = Node::start();
    let code = "import os, threading
def die():
    print('my last words', flush=True)
    os._exit(7)
threading.Timer(0.1, die).start()
def fn(input): return input
";
    node.deploy(&Function::python("dying", code));
    let described = until("the function is degraded", || {
        let described = node.describe("dying");
        let handler = &described["handlers"]["each"][0];
        let is_told = described["state"] == "degraded" && handler["state"] == "pausing";
        is_told.then_some(described)
    });
    let handler = &described["handlers"]["each"][0];
    assert!(
        handler["last_output"].to_string().contains("my last words"),
        "{handler:#}"
    );
    assert!(
        handler["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains('7')),
        "{handler:#}"
    );
}

#[test]
fn a_second_node_on_one_data_directory_is_refused() {
    let place = Place::new();
    let _first = Node::start_at(&place, &[]);
    let text = refused(&place.serve(&[]).output().unwrap());
    assert!(text.contains("--data-dir"), "{text}");
}

#[test]
fn a_port_in_use_is_named() {
    let first = Node::start();
    for part in ["management", "coap", "http", "grpc"] {
        let flag = format!("--{part}");
        let output = Place::new().serve(&[&flag, first.addr(part)]).output();
        let text = refused(&output.unwrap());
        let port = first.port(part).to_string();
        assert!(
            text.contains(&port) && text.contains(&flag),
            "{part}: {text}"
        );
    }
}

#[test]
fn an_async_call_is_answered_at_once_and_the_function_runs() {
    let node = Node::start();
    let code = "def fn(input):\n    print('ran with', input)\n    return 'nobody sees this'\n";
    node.deploy(&Function::python("later", code));
    let answer = node.call("POST", "later", &[("X-tinyFaaS-Async", "yes")], b"this");
    assert_eq!((answer.status, answer.text()), (202, String::new()));
    printed(&node, "ran with this");
}

#[test]
fn a_refused_start_leaves_nothing() {
    let place = Place::new();
    let text = refused(&place.serve(&["--http", "nowhere:0:0"]).output().unwrap());
    assert!(text.contains("--http"), "{text}");
    assert!(!place.data_dir().exists());
}

/// A function that sends its input back.
const ECHO: &str = "def fn(input): return input\n";

/// Waits until the function's log has the text.
fn printed(node: &Node, text: &str) {
    until("the log has what was printed", || {
        let logs = node.manage("GET", "/logs", b"").text();
        logs.contains(text).then_some(())
    });
}

/// What a node that did not start said.
fn refused(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    stderr
}

#[test]
fn metrics_count_calls_errors_and_the_platforms_own_time() {
    let node = Node::start();
    let code = "def fn(input):\n    if input == 'x': raise ValueError\n    return input";
    node.deploy(&Function::python("counted", code));
    for payload in [&b"a"[..], b"b", b"c", b"x"] {
        drop(node.post("counted", payload));
    }
    let answer = node.manage("GET", "/metrics", b"").expect_success();
    let text = answer.text();
    for line in [
        "# TYPE function_overhead_seconds histogram",
        "function_invocations_total{function=\"counted\"} 4",
        "function_errors_total{function=\"counted\",fault=\"function\"} 1",
        "function_errors_total{function=\"counted\",fault=\"platform\"} 0",
        "function_waiting{function=\"counted\"} 0",
        "function_overhead_seconds_count{function=\"counted\"} 3",
        "function_overhead_seconds_bucket{function=\"counted\",le=\"+Inf\"} 3",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
}
