//! What holds when much happens at once.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use e2e::{Answer, Call, Client, Function, Node, Outcome, agent, request, request_with};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

#[test]
fn of_ten_thousand_calls_during_twenty_redeployments_none_fails() {
    no_call_fails(10_000, 20);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn of_a_million_calls_during_a_thousand_redeployments_none_fails() {
    no_call_fails(1_000_000, 1000);
}

/// Calls a function from four connections while it is deployed anew again and again.
fn no_call_fails(calls: usize, redeployments: usize) {
    let node = Node::start();
    let version = |number: usize| {
        let code = format!("def fn(input): return 'version {number} of ' + input\n");
        Function::python("moving", &code).set("threads", "2")
    };
    node.deploy(&version(0));
    let (called, is_deployed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed = Mutex::new(Vec::new());
    let url = node.url("http", "moving");
    let call_on = || {
        let agent = agent();
        while called.fetch_add(1, Ordering::Relaxed) < calls || !is_deployed.load(Ordering::Relaxed)
        {
            match request_with(&agent, "POST", &url, &[], b"this") {
                Ok(answer) if answer.status == 200 && answer.text().ends_with(" of this") => {}
                other => failed.lock().unwrap().push(format!("{other:?}")),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(call_on);
        }
        for number in 1..=redeployments {
            node.deploy(&version(number));
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
    let expected = format!("version {redeployments} of this");
    assert_eq!(node.post("moving", b"this").text(), expected);
}

#[test]
fn of_two_hundred_deployments_at_once_the_last_of_each_name_serves() {
    let node = Node::start();
    let deploy = |name: usize, version: usize| {
        let function = Function::script(&format!("name-{name}"), "env | grep -o '^VERSION_[0-9]'");
        let answer = node.try_deploy(&function.var(&format!("VERSION_{version}"), "1"));
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

#[test]
fn too_many_calls_at_once_are_told_to_come_back() {
    let node = Node::start();
    let code = "sleep 1; echo done";
    node.deploy(&Function::script("busy", code).set("queue", "2"));
    let url = node.url("http", "busy");
    let answers: Vec<Answer> = thread::scope(|scope| {
        let calls: Vec<_> = (0..300)
            .map(|_| scope.spawn(|| request("POST", &url, &[], b"")))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 200);
    assert!(served.iter().all(|answer| answer.text() == "done\n"));
    assert!(
        !served.is_empty() && !refused.is_empty(),
        "{} served",
        served.len()
    );
    for answer in refused {
        assert_eq!(answer.status, 503, "{answer:?}");
        let pause = answer
            .header("retry-after")
            .and_then(|pause| pause.parse::<u32>().ok());
        assert!(pause.is_some_and(|pause| pause >= 1), "{answer:?}");
        assert_eq!(answer.header("x-tinyfaas-error"), Some("platform"));
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
