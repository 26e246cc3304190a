//! What floods leave of the machine's memory and files.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what it measured"
)]

use e2e::{Function, Node, Place, until};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The budget for clients, 128 MiB, and half of it for what the budget can't see.
const DURING_BYTES_MAX: usize = 192 << 20;

/// What may stay of a flood.
const AFTER_BYTES_MAX: usize = 32 << 20;

fn resident_bytes(node: &Node) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", node.pid())).unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

/// What a flood leaves open until it is dropped.
type Open = Box<dyn std::any::Any>;

/// Floods a node a number of times, and sees that it stays within its budget, serves, and gives the
/// memory back.
fn check(name: &str, times: usize, mut flood: impl FnMut(&Node) -> Open) {
    raise_open_files();
    let node = Node::start_at(&Place::new(), &[]);
    node.deploy(&Function::python("echo", "def fn(input): return input\n"));
    node.deploy(&Function::python(
        "large",
        "def fn(input): return 'x' * (8 << 20)\n",
    ));
    let before = resident_bytes(&node);
    let mut open = Vec::new();
    let mut during = before;
    for _ in 0..times {
        open.push(flood(&node));
        during = during.max(resident_bytes(&node));
    }
    assert!(during - before < DURING_BYTES_MAX, "{before} {during}");
    drop(open);
    let after = until("the memory goes back", || {
        let after = resident_bytes(&node);
        (after < before + AFTER_BYTES_MAX).then_some(after)
    });
    assert_eq!(node.post("echo", b"hello").text(), "hello");
    let mib = |bytes: usize| bytes >> 20;
    eprintln!(
        "{name}: {} MiB before, {} during, {} after",
        mib(before),
        mib(during),
        mib(after)
    );
}

/// A connection that has sent this, and has waited for the first byte of an answer where it is asked
/// to.
fn connection(node: &Node, port: &str, request: &[u8], reads_one: bool) -> Open {
    let mut client = TcpStream::connect(node.addr(port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // One that is closed meanwhile can't be written to.
    drop(client.write_all(request));
    if reads_one {
        drop(client.read(&mut [0]));
    }
    Box::new(client)
}

#[test]
fn heads_that_never_end_stay_within_the_budget() {
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nx: {}",
        "x".repeat(60_000)
    );
    check("HTTP/1.1 heads", 4000, |node| {
        connection(node, "http", head.as_bytes(), false)
    });
}

#[test]
fn replies_that_nobody_reads_stay_within_the_budget() {
    let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
    check("HTTP/1.1 replies", 60, |node| {
        connection(node, "http", request, true)
    });
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that is not indexed (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).unwrap());
        field.extend(text.bytes());
    }
    field
}

fn head(path: &str) -> Vec<u8> {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
    ]
    .map(|(name, value)| field(name, value))
    .concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[test]
fn http2_replies_that_nobody_reads_stay_within_the_budget() {
    let mut requests = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    for stream in 0..200 {
        let head = head("/large");
        requests.extend(frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            2 * stream + 1,
            &head,
        ));
    }
    check("HTTP/2 replies", 4, |node| {
        let open = connection(node, "http", &requests, true);
        // They are called one after the other; the last answers are refusals.
        let _reply = node.post("echo", b"x");
        open
    });
}

#[test]
fn http2_heads_that_never_end_stay_within_the_budget() {
    let mut begun = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    begun.extend(frame(HEADERS, END_STREAM, 1, &head("/echo")));
    for _ in 0..4 {
        let fields = field("x", &"x".repeat(100)).repeat(150);
        begun.extend(frame(CONTINUATION, 0, 1, &fields));
    }
    check("HTTP/2 heads", 2000, |node| {
        connection(node, "http", &begun, false)
    });
}

#[test]
fn unfinished_uploads_with_long_keys_stay_within_the_budget() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut id = 0_u16;
    check("CoAP keys of 60 kB", 6000, move |node| {
        id = id.wrapping_add(1);
        // A confirmable PUT without a token, 220 times Uri-Query of 255 bytes, and the first block
        // of 16 bytes with others to come.
        let mut datagram = vec![0x40, 3];
        datagram.extend(id.to_be_bytes());
        datagram.extend([0xb4, b'e', b'c', b'h', b'o']);
        for option in 0..220 {
            let delta = if option == 0 { 0x4d } else { 0x0d };
            datagram.extend([delta, 255 - 13]);
            datagram.extend([b'k'; 253]);
            datagram.extend(id.to_be_bytes());
        }
        datagram.extend([0xc1, 8, 0xff]);
        datagram.extend([0; 16]);
        socket.send_to(&datagram, node.addr("coap")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 2048];
        let count = socket.recv(&mut answer).unwrap();
        assert!(count >= 4, "{count}");
        Box::new(())
    });
}

/// As `ulimit -n 256`, a thousand clients that stay.
#[test]
fn a_crowd_leaves_files_for_the_management_service_and_handlers() {
    raise_open_files();
    let place = Place::new();
    let serve = place.serve(&[]);
    let mut limited = Command::new("prlimit");
    limited
        .arg("--nofile=256")
        .arg("--")
        .arg(serve.get_program());
    limited.args(serve.get_args()).current_dir(place.folder());
    limited.stdin(Stdio::null());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let node = Node::start_command(&place, &mut limited);
    node.deploy(&Function::python("echo", "def fn(input): return input\n"));
    let request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let crowd: Vec<_> = (0..1000)
        .map(|_| connection(&node, "http", request, false))
        .collect();
    node.deploy(&Function::python("other", "def fn(input): return input\n"));
    assert_eq!(node.post("other", b"hello").text(), "hello");
    assert_eq!(node.post("echo", b"hello").text(), "hello");
    assert_eq!(node.describe("other")["name"], "other");
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid()));
    let open = open.unwrap().count();
    assert!(open < 256, "the control: {open} files");
    drop(crowd);
}

/// The flood takes a file for each connection.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
