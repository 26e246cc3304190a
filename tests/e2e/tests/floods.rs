//! What floods leave of the machine's memory.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use e2e::{Function, Node, Place, until};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The budget for clients, 128 MiB, and half of it for what the budget can't see.
const DURING_BYTES_MAX: usize = 192 << 20;

/// What may stay of a flood.
const AFTER_BYTES_MAX: usize = 32 << 20;

fn resident_bytes(node: &Node) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", node.pid())).unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

/// Floods a node from many connections, and sees that it stays within its budget, serves, and
/// gives the memory back.
fn check(connections: usize, request: &[u8], reads_one: bool) {
    raise_open_files();
    let node = Node::start_at(&Place::new(), &[]);
    node.deploy(&Function::python(
        "echo",
        "def fn(input): return 'x' * (8 << 20) if input == 'large' else input\n",
    ));
    let before = resident_bytes(&node);
    let mut flood = Vec::new();
    let mut peak = before;
    for _ in 0..connections {
        let mut client = TcpStream::connect(node.addr("http")).unwrap();
        // One that is closed meanwhile can't be written to.
        drop(client.write_all(request));
        if reads_one {
            drop(client.read(&mut [0]));
        }
        flood.push(client);
        peak = peak.max(resident_bytes(&node));
    }
    assert!(peak - before < DURING_BYTES_MAX, "{before} {peak}");
    drop(flood);
    assert_eq!(node.post("echo", b"hello").text(), "hello");
    until("the memory goes back", || {
        (resident_bytes(&node) < before + AFTER_BYTES_MAX).then_some(())
    });
}

#[test]
fn heads_that_never_end_stay_within_the_budget() {
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nx: {}",
        "x".repeat(60_000)
    );
    check(4000, head.as_bytes(), false);
}

#[test]
fn replies_that_nobody_reads_stay_within_the_budget() {
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nlarge";
    check(60, request.as_bytes(), true);
}

/// The flood takes a file for each connection.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
