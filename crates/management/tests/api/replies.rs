//! Answers that nobody reads.

use crate::node::{Node, Setup, wait_for};
use crate::pack;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tar::EntryType;

const DOCUMENT: &[u8] = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Answers of 40 kB, more of them than the system keeps of a connection.
const ANSWERS: usize = 400;

fn impatient() -> Setup {
    let mut setup = Setup::default();
    setup.limits.http_idle = Duration::from_secs(1);
    setup
}

#[test]
fn who_reads_no_answers_is_cut() {
    let node = Node::with(impatient());
    let mut client = TcpStream::connect(node.addr).unwrap();
    client.set_nonblocking(true).unwrap();
    for _ in 0..ANSWERS {
        // What there is no room for is not asked.
        drop(client.write(DOCUMENT));
    }
    // An empty line may stand before a request.
    wait_for("the end of the connection", || {
        let written = client.write(b"\r\n");
        written.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    });
}

#[test]
fn who_reads_its_answers_has_them_all() {
    let node = Node::with(impatient());
    let mut client = TcpStream::connect(node.addr).unwrap();
    let mut asking = client.try_clone().unwrap();
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 1..ANSWERS {
                asking.write_all(DOCUMENT).unwrap();
            }
            let last = b"GET /v1/openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            asking.write_all(last).unwrap();
        });
        client.read_to_end(&mut answers).unwrap();
    });
    let text = String::from_utf8(answers).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), ANSWERS);
}

#[test]
fn a_backup_that_nobody_reads_leaves_no_turn_until_it_ends() {
    let mut setup = Setup::default();
    setup.limits.backups_at_once_max = 1;
    let node = Node::with(setup);
    // What can't be compressed.
    let mut noise = vec![0; 24 << 20];
    let mut state = 1_u64;
    for bytes in noise.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.copy_from_slice(&state.to_le_bytes());
    }
    let files: [(EntryType, &str, &str, &[u8]); 2] = [
        (EntryType::Regular, "fn.py", "", b"1"),
        (EntryType::Regular, "noise", "", &noise),
    ];
    let deployed = node.put("/v1/functions/f", &pack::tar_gz(&files));
    assert_eq!(deployed.status, 201, "{}", deployed.text);
    let mut unread = TcpStream::connect(node.addr).unwrap();
    let request = b"GET /v1/backup HTTP/1.1\r\nHost: localhost\r\n\r\n";
    unread.write_all(request).unwrap();
    unread.read_exact(&mut [0; 12]).unwrap();
    let refused = node.get("/v1/backup");
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("backup"), "{}", refused.text);
    let head = |node: &Node| {
        let mut client = TcpStream::connect(node.addr).unwrap();
        client.write_all(request).unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        status
    };
    drop(unread);
    wait_for("a turn", || head(&node) == *b"HTTP/1.1 200");
}
