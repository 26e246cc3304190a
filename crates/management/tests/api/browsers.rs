//! Who may call: tokens, and pages of other sites.

use crate::node::{Node, Setup, wait_for};
use crate::pack;
use faas::Invocation;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The status without a token.
fn status(node: &Node, path: &str) -> u16 {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.build().new_agent();
    let answer = agent.get(format!("http://{}{path}", node.addr)).call();
    answer.unwrap().status().as_u16()
}

fn with_token() -> Node {
    Node::with(Setup {
        token: Some("secret".to_owned()),
        ..Setup::default()
    })
}

const VERSIONED: [&str; 5] = [
    "/v1/functions",
    "/v1/functions/f",
    "/v1/functions/f/logs",
    "/v1/logs",
    "/v1/status",
];

const OLD: [&str; 6] = ["/", "/list", "/logs", "/metrics", "/healthz", "/readyz"];

#[test]
fn the_originals_calls_need_no_token_and_those_of_v1_do() {
    let node = with_token();
    for path in VERSIONED {
        assert_eq!(status(&node, path), 401, "{path}");
    }
    for path in OLD {
        assert_eq!(status(&node, path), 200, "{path}");
    }
    assert_eq!(node.get("/v1/functions").status, 200);
    // A name that somebody else's DNS pointed here does not pass without a token all the same.
    let rebound = [("host", "rebound.evil.example:8080")];
    assert_eq!(node.call("GET", "/list", &rebound, b"").status, 403);
}

#[test]
fn a_function_that_reaches_this_service_turns_the_token_on_for_every_call() {
    let port = |node: &Node| format!("host_port={}", node.addr.port());
    let check = |query: &dyn Fn(&Node) -> String, expected: u16| {
        let node = with_token();
        let path = format!("/v1/functions/f?runtime=python3&{}", query(&node));
        let answer = node.put(&path, &pack::zip(&[("fn.py", "1")]));
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(status(&node, "/list"), expected, "{path}");
        assert_eq!(node.get("/list").status, 200);
        assert_eq!(status(&node, "/healthz"), 200);
    };
    check(&|_| "network=true".to_owned(), 200);
    check(&|_| "host_port=1".to_owned(), 200);
    check(&|_| "host_network=true".to_owned(), 401);
    check(&port, 401);
}

/// Deployed with another network, or deleted.
#[test]
fn the_token_is_needed_only_as_long_as_a_function_reaches_this_service() {
    let node = with_token();
    let code = pack::zip(&[("fn.py", "LINGERS")]);
    let deploy = |query: &str| {
        let path = format!("/v1/functions/f?runtime=python3&{query}");
        let answer = node.put(&path, &code);
        assert!(answer.status < 300, "{}", answer.text);
    };
    deploy("host_network=true");
    let refused = node.bare("/list");
    assert_eq!(refused.status, 401);
    for told in ["--network=host", "delete it", "Bearer"] {
        assert!(refused.text.contains(told), "{told}: {}", refused.text);
    }
    // One that has been kept its setting by a change of another.
    deploy("memory=64MiB");
    assert_eq!(status(&node, "/list"), 401);
    deploy("network=false&host_network=false");
    wait_for("the token to be of no need", || {
        status(&node, "/list") == 200
    });
    deploy("host_network=true");
    assert_eq!(status(&node, "/list"), 401);
    // As long as a call of it runs, its handler is there.
    let (proxy, invocation) = (
        node.proxy.clone(),
        Invocation::new("POST", "/f".into(), "".into()),
    );
    let call = node
        .runtime
        .spawn(async move { proxy.invoke("f", invocation).await });
    wait_for("the call", || {
        node.backend.lingering.load(Ordering::SeqCst) == 1
    });
    assert_eq!(node.delete("/v1/functions/f").status, 204);
    assert_eq!(status(&node, "/list"), 401);
    node.backend.gate.send_replace(true);
    node.runtime.block_on(call).unwrap().unwrap();
    wait_for("the token to be of no need", || {
        status(&node, "/list") == 200
    });
}

#[test]
fn where_functions_and_builds_reach_this_service_they_do_not_use_it() {
    let node = with_token();
    let exposure = Arc::new(faas::Exposure::default());
    node.backend.exposure.set(Arc::clone(&exposure)).unwrap();
    assert_eq!(status(&node, "/list"), 200);
    let build = exposure.begin();
    for path in ["/", "/list", "/logs", "/metrics"] {
        assert_eq!(status(&node, path), 503, "{path}");
    }
    assert_eq!(status(&node, "/v1/functions"), 401);
    assert_eq!(node.get("/list").status, 200);
    assert_eq!(status(&node, "/healthz"), 200);
    drop(build);
    assert_eq!(status(&node, "/list"), 200);
    for (query, expected) in [("", 200), ("&network=true", 401)] {
        let path = format!("/v1/functions/f?runtime=python3{query}");
        let answer = node.put(&path, &pack::zip(&[("fn.py", "1")]));
        assert!(answer.status < 300, "{}", answer.text);
        assert_eq!(status(&node, "/list"), expected, "{query}");
    }
}

#[test]
fn the_owner_of_the_data_directory_needs_no_token() {
    let node = Node::with(Setup {
        token: Some("secret".to_owned()),
        is_token_always: true,
        ..Setup::default()
    });
    let management = node.management.clone();
    let until = node.shutdown.clone();
    let serve = async move { management.serve_owner(until).await.unwrap() };
    node.tasks.spawn_on(serve, node.runtime.handle());
    let path = node.data_dir().join(management::SOCKET);
    wait_for("the socket", || UnixStream::connect(&path).is_ok());
    let mode = std::fs::metadata(&path).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    let request = "GET /v1/functions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn every_call_but_health_needs_the_token_where_it_is_always_asked_for() {
    let open = Node::with(Setup {
        token: Some("secret".to_owned()),
        is_token_always: true,
        ..Setup::default()
    });
    assert_eq!(open.get("/list").status, 200);
    for path in [
        "/list",
        "/logs",
        "/v1/functions",
        "/v1/status",
        "/nothing",
        "/",
    ] {
        let sent = [("authorization", "Bearer wrong")];
        let url = format!("http://{}{path}", open.addr);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .new_agent();
        let answer = agent.get(&url).header(sent[0].0, sent[0].1).call().unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let answer = agent.get(&url).call().unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let challenge = answer.headers().get("www-authenticate").unwrap();
        assert!(challenge.to_str().unwrap().starts_with("Bearer"));
    }
    for path in ["/healthz", "/readyz"] {
        let url = format!("http://{}{path}", open.addr);
        assert_eq!(ureq::get(&url).call().unwrap().status(), 200, "{path}");
    }
}

#[test]
fn pages_of_other_sites_can_not_deploy() {
    let node = Node::start();
    let host = node.addr.to_string();
    let own = format!("http://{host}");
    let body = pack::upload("f", "1");
    let check = |headers: &[(&str, &str)], status: u16| {
        let answer = node.call("POST", "/upload", headers, body.as_bytes());
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
    };
    check(&[("origin", "https://evil.example")], 403);
    check(&[("origin", "null")], 403);
    check(&[("host", "rebound.evil.example:8080")], 403);
    check(
        &[("host", "evil.example"), ("origin", "http://evil.example")],
        403,
    );
    assert_eq!(node.get("/list").text, "");
    check(&[("origin", &own)], 200);
    check(&[("host", "localhost:8080")], 200);
    check(&[("host", "tinyfaas-mgmt:8080")], 200);
    check(&[("host", "[::1]:8080")], 200);
}
