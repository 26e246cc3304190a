//! What holds when much happens at once.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use e2e::{Answer, Call, Client, Function, Node, Outcome, agent, request, request_with, until};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A function of which there are many versions.
#[derive(Clone, Copy)]
struct Moving {
    version: fn(usize) -> Function,
    asked: &'static str,
    /// What that version replies to it.
    said: fn(usize) -> String,
}

const PYTHON: Moving = Moving {
    version: |number| {
        let code = format!("def fn(input): return 'version {number} of ' + input\n");
        Function::python("moving", &code).set("threads", "2")
    },
    asked: "this",
    said: |number| format!("version {number} of this"),
};

const WASM: Moving = Moving {
    version: |number| {
        let code = e2e::folder().join("functions/wasm");
        let function = Function::new("moving", "wasm").folder(&code);
        function.var("VERSION", &number.to_string())
    },
    asked: "do:env VERSION",
    said: |number| number.to_string(),
};

#[test]
fn of_ten_thousand_calls_during_twenty_redeployments_none_fails() {
    no_call_fails(10_000, 20, PYTHON);
}

#[test]
fn of_ten_thousand_calls_during_twenty_redeployments_of_webassembly_none_fails() {
    no_call_fails(10_000, 20, WASM);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn of_a_hundred_thousand_calls_during_two_hundred_redeployments_none_fails() {
    no_call_fails(100_000, 200, PYTHON);
}

/// Calls a function from four connections while it is redeployed again and again.
fn no_call_fails(calls: usize, redeployments: usize, moving: Moving) {
    let node = Node::start();
    node.deploy(&(moving.version)(0));
    let (called, is_deployed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed = Mutex::new(Vec::new());
    let url = node.url("http", "moving");
    let known: Vec<String> = (0..=redeployments).map(moving.said).collect();
    let call_on = || {
        let agent = agent();
        let asked = moving.asked.as_bytes();
        while called.fetch_add(1, Ordering::Relaxed) < calls || !is_deployed.load(Ordering::Relaxed)
        {
            match request_with(&agent, "POST", &url, &[], asked) {
                Ok(answer) if answer.status == 200 && known.contains(&answer.text()) => {}
                other => failed.lock().unwrap().push(format!("{other:?}")),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(call_on);
        }
        for number in 1..=redeployments {
            node.deploy(&(moving.version)(number));
        }
        is_deployed.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        failed.first()
    );
    let reply = node.post("moving", moving.asked.as_bytes()).text();
    assert_eq!(reply, (moving.said)(redeployments));
}

#[test]
fn of_two_hundred_deployments_at_once_the_last_of_each_name_serves() {
    let node = Node::start();
    let deploy = |name: usize, version: usize| {
        let function = Function::script(&format!("name-{name}"), "env | grep -o '^VERSION_[0-9]'");
        let function = function.var(&format!("VERSION_{version}"), "1");
        // Else the variables of earlier versions stay.
        let answer = node.try_deploy(&function.set("reset", "true"));
        answer.expect_success().json()
    };
    // The answer tells what serves when it is written, so that the latest one tells the last.
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..200 {
            let (deploy, answers) = (&deploy, &answers);
            scope.spawn(move || {
                let answer = deploy(number % 50, number / 50);
                answers.lock().unwrap().push(answer);
            });
        }
    });
    let answers = answers.into_inner().unwrap();
    assert_eq!(answers.len(), 200);
    for name in 0..50 {
        let name = format!("name-{name}");
        let own = answers.iter().filter(|answer| answer["name"] == *name);
        let last = own.max_by_key(|answer| answer["deployed_at"].to_string());
        let expected = last.unwrap()["envs"][0].as_str().unwrap();
        assert_eq!(node.post(&name, b"").text().trim(), expected, "{name}");
        assert_eq!(node.describe(&name)["envs"][0], expected, "{name}");
    }
}

/// Answers when it was told to.
const BUSY: &str = "import signal, threading
CONCURRENT_CALLS = 16
told = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: told.set())
def fn(input):
    told.wait()
    return 'done'
";

#[test]
fn too_many_calls_at_once_are_told_to_come_back() {
    let node = Node::start();
    node.deploy(&Function::python("busy", BUSY).set("queue", "2"));
    let url = node.url("http", "busy");
    // The handler takes sixteen calls, and two more wait.
    let answers: Vec<Answer> = thread::scope(|scope| {
        let calls: Vec<_> = (0..18)
            .map(|_| scope.spawn(|| request("POST", &url, &[], b"")))
            .collect();
        until("the function has all that it takes", || {
            let described = node.describe("busy");
            let is_full = described["handlers"]["in_flight"] == 16 && described["waiting"] == 2;
            is_full.then_some(())
        });
        for client in [
            Client::Curl,
            Client::Aiocoap,
            Client::Libcoap,
            Client::Grpcio,
        ] {
            let reply = client.call(&node, &Call::new("busy", b""));
            assert_eq!(reply.outcome, Outcome::Unavailable, "{client:?}: {reply:?}");
            assert!(
                reply.text().contains("too many calls"),
                "{client:?}: {reply:?}"
            );
            let (fault, pause) = (reply.fault.as_deref(), reply.retry_after.as_deref());
            match client {
                Client::Curl => assert_eq!((fault, pause), (Some("platform"), Some("1"))),
                Client::Aiocoap => assert_eq!(pause, Some("1")),
                Client::Grpcio => assert_eq!(reply.status, "RESOURCE_EXHAUSTED"),
                Client::Libcoap | Client::CoapCli => {}
            }
        }
        let processes = node.processes();
        let handler = processes.iter().find(|it| it.name.starts_with("python"));
        handler.unwrap().tell();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for answer in answers {
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    }
}

#[test]
fn a_payload_over_the_bound_is_refused_over_http_and_coap() {
    let node = Node::start();
    node.deploy(&Function::script("echo", "cat"));
    let large = vec![b'x'; (8 << 20) + 1];
    for client in [Client::Curl, Client::Libcoap] {
        let reply = client.call(&node, &Call::new("echo", &large));
        assert_eq!(reply.outcome, Outcome::TooLarge, "{client:?}: {reply:?}");
        let reply = client.call(&node, &Call::new("echo", b"small"));
        assert_eq!(reply.text(), "small", "{client:?}");
    }
}
