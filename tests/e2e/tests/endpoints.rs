//! What each endpoint keeps of its protocol, beyond the contract that all of them share.

use e2e::{Call, Client, Function, Node, Outcome, PATIENCE, Place, until};
use std::net::UdpSocket;
use std::process::Command;

/// Tells what it was called with.
const MIRROR: &str = "module.exports = (req, res) =>
    res.send([req.method, req.path, req.query.a, req.query.b].join(' '))";

#[test]
fn every_method_and_the_query_reach_the_function() {
    let node = Node::start();
    node.deploy(&Function::new("mirror/it", "nodejs").file("index.js", MIRROR));
    let check = |client: Client, method: &str| {
        let call = Call {
            method,
            query: "a=1&b=two",
            ..Call::new("mirror/it", b"")
        };
        let reply = client.call(&node, &call);
        let expected = format!("{method} /mirror/it 1 two");
        assert_eq!(reply.text(), expected, "{client:?}: {reply:?}");
    };
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        check(Client::Curl, method);
    }
    for client in [Client::Libcoap, Client::Aiocoap] {
        for method in ["GET", "POST", "PUT", "DELETE", "FETCH"] {
            check(client, method);
        }
    }
}

#[test]
fn a_functions_status_and_content_type_reach_http_and_coap() {
    let node = Node::start();
    let code = "module.exports = (req, res) =>
        res.status(Number(req.body)).type('json').send('{}')";
    node.deploy(&Function::new("status", "nodejs").file("index.js", code));
    for (status, code) in [
        ("200", "2.04"),
        ("403", "4.03"),
        ("404", "4.04"),
        ("503", "5.03"),
    ] {
        let call = Call::new("status", status.as_bytes());
        let reply = Client::Curl.call(&node, &call);
        assert_eq!(
            (reply.status.as_str(), reply.text().as_str()),
            (status, "{}")
        );
        assert_eq!(reply.fault, None, "the function meant it");
        let media = reply.format.unwrap_or_default();
        assert!(media.starts_with("application/json"), "{media}");
        let reply = Client::Aiocoap.call(&node, &call);
        assert_eq!((reply.status.as_str(), reply.text().as_str()), (code, "{}"));
        assert_eq!(reply.format.as_deref(), Some("50"));
    }
}

#[test]
fn http_2_is_spoken_without_an_upgrade() {
    let node = Node::start();
    node.deploy(&Function::script("echo", "cat"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2-prior-knowledge", "-w", " %{http_version}"]);
    let output = curl
        .args(["-d", "hello", &node.url("http", "echo")])
        .output();
    let output = output.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello 2",
        "{output:?}"
    );
}

#[test]
fn a_slow_function_answers_over_coap_and_runs_once() {
    let node = Node::start();
    let code = "import time\ndef fn(input):\n    print('ran for', input)\n    time.sleep(4)\n    return 'done'\n";
    node.deploy(&Function::python("slow", code));
    for client in [Client::Libcoap, Client::Aiocoap, Client::CoapCli] {
        let who = format!("{client:?}");
        let reply = client.call(&node, &Call::new("slow", who.as_bytes()));
        assert_eq!(reply.text(), "done", "{who}: {reply:?}");
        assert_eq!(lines_with(&node, &format!("ran for {who}")), 1, "{who}");
    }
}

#[test]
fn messages_that_are_not_confirmed_are_answered() {
    let node = Node::start();
    node.deploy(&Function::script("echo", "cat"));
    for client in [Client::Libcoap, Client::Aiocoap] {
        let call = Call {
            is_confirmable: false,
            ..Call::new("echo", b"hello")
        };
        let reply = client.call(&node, &call);
        assert_eq!(
            (reply.outcome, reply.text().as_str()),
            (Outcome::Success, "hello")
        );
    }
}

#[test]
fn a_hundred_kilobytes_come_through_when_datagrams_are_lost() {
    let node = Node::start();
    node.deploy(&Function::script("echo", "cat"));
    let payload = "0123456789".repeat(10_000);
    let folder = node.place.folder();
    std::fs::write(folder.join("payload"), &payload).unwrap();
    let mut client = Command::new("coap-client-notls");
    // The second, fifth and sixtieth datagram that it sends never leave it.
    client.args([
        "-m", "put", "-l", "2,5,60", "-f", "payload", "-o", "reply", "-B", "60",
    ]);
    let output = client
        .arg(node.url("coap", "echo"))
        .current_dir(folder)
        .output()
        .unwrap();
    let reply = std::fs::read_to_string(folder.join("reply")).unwrap();
    assert!(reply == payload, "{} bytes: {output:?}", reply.len());
}

#[test]
fn a_datagram_that_comes_again_is_answered_again_and_runs_once() {
    let node = Node::start();
    let code = "def fn(input):\n    print('ran with', input)\n    return input\n";
    node.deploy(&Function::python("once", code));
    let socket = socket(&node);
    // Confirmable, POST, message id 0x1234, token 0x07, Uri-Path "once", payload "x".
    let request = b"\x41\x02\x12\x34\x07\xb4once\xffx";
    for _ in 0..5 {
        socket.send(request).unwrap();
        let reply = receive(&socket);
        assert_eq!(&reply[2..5], b"\x12\x34\x07", "{reply:02x?}");
        assert!(reply.ends_with(b"\xffx"), "{reply:02x?}");
    }
    assert_eq!(lines_with(&node, "ran with x"), 1);
}

#[test]
fn what_coap_does_not_know_is_answered_as_its_rfc_says() {
    let node = Node::start();
    node.deploy(&Function::script("echo", "cat"));
    let check = |sent: &[u8], expected: &[u8]| {
        let socket = socket(&node);
        socket.send(sent).unwrap();
        let reply = receive(&socket);
        assert!(reply.starts_with(expected), "{sent:02x?}: {reply:02x?}");
    };
    // A ping is answered with a reset.
    check(b"\x40\x00\x12\x34", b"\x70\x00\x12\x34");
    // A critical option that nobody knows (number 9): 4.02.
    check(b"\x41\x01\x12\x35\x07\x91x", b"\x61\x82\x12\x35\x07");
    // A method that nobody knows (0.31): 4.05.
    check(b"\x41\x1f\x12\x36\x07\xb4echo", b"\x61\x85\x12\x36\x07");
    // A response that nobody asked for: reset.
    check(b"\x41\x45\x12\x37\x07", b"\x70\x00\x12\x37");
    // A format error in a confirmable message: reset.
    check(b"\x41\x01\x12\x38\x07\xff", b"\x70\x00\x12\x38");
}

#[test]
fn rubbish_does_not_stop_the_coap_endpoint() {
    let node = Node::start();
    node.deploy(&Function::script("echo", "cat"));
    let socket = socket(&node);
    let mut state: u32 = 1;
    for length in (0..64).cycle().take(20_000) {
        let datagram: Vec<u8> = (0..length)
            .map(|_| {
                // Numerical Recipes' generator: the same rubbish in every run.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        socket.send(&datagram).unwrap();
    }
    let reply = Client::Libcoap.call(&node, &Call::new("echo", b"still here"));
    assert_eq!(reply.text(), "still here", "{reply:?}");
}

/// How many lines of the log have the text, once there is one.
fn lines_with(node: &Node, text: &str) -> usize {
    until("the log has what was printed", || {
        let logs = node.manage("GET", "/logs", b"").text();
        let count = logs.lines().filter(|line| line.ends_with(text)).count();
        (count > 0).then_some(count)
    })
}

/// A socket that talks to the node's CoAP endpoint alone.
fn socket(node: &Node) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let connected = socket.connect(node.addr("coap"));
    connected
        .and_then(|()| socket.set_read_timeout(Some(PATIENCE)))
        .expect("loopback connects");
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut datagram = [0; 2048];
    let length = socket.recv(&mut datagram).expect("the endpoint answers");
    datagram[..length].to_owned()
}

/// What curl gets of a request that a browser would send.
fn browse(node: &Node, args: &[&str]) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-i", "--max-time", "20"]).args(args);
    let output = curl.arg(node.url("http", "greeter")).output();
    let output = output.expect("curl starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, text.to_ascii_lowercase())
}

#[test]
fn pages_of_other_sites_call_what_a_function_lets_them() {
    const PAGE: &str = "Origin: https://app.example.com";
    const ALLOWED: &str = "access-control-allow-origin: https://app.example.com\r\n";
    let place = Place::new();
    let node = Node::start_at(&place, &["--http", "127.0.0.1:0"]);
    node.deploy(&Function::python(
        "greeter",
        "def fn(input): return 'hello'\n",
    ));
    let preflight = [
        "-X",
        "OPTIONS",
        "-H",
        PAGE,
        "-H",
        "Access-Control-Request-Method: PUT",
        "-H",
        "Access-Control-Request-Headers: x-unit",
    ];
    let refused = |status: &str| {
        for args in [&preflight[..], &["-H", PAGE]] {
            let (got, text) = browse(&node, args);
            assert_eq!(got, status, "{text}");
            assert!(!text.contains("access-control-allow-origin"), "{text}");
        }
    };
    refused("403");
    let set = |cors: &str| node.cli(&["set", "greeter", "--cors", cors]);
    drop(set("https://App.example.com").expect_code(0));
    let (status, text) = browse(&node, &preflight);
    assert_eq!(status, "204", "{text}");
    assert!(text.contains(ALLOWED) && text.contains("access-control-allow-headers: x-unit"));
    let (status, text) = browse(&node, &["-H", PAGE, "-X", "PUT", "-d", "x"]);
    assert_eq!(status, "200", "{text}");
    assert!(text.contains(ALLOWED) && text.ends_with("hello"), "{text}");
    let described = node.cli(&["describe", "greeter"]).expect_code(0).stdout;
    assert!(described.contains("https://app.example.com"), "{described}");
    assert_eq!(node.describe("greeter")["cors"], "https://app.example.com");
    drop(set("none").expect_code(0));
    refused("403");
    let wrong = set("app.example.com").expect_code(1).stderr;
    assert!(
        wrong.contains("--cors") && wrong.contains("is no origin"),
        "{wrong}"
    );
    node.stop();
}
