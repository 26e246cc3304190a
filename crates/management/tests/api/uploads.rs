//! Uploads that stop, trickle and are only announced, and what is deployed beside them.

use crate::node::{Node, Setup, wait_for};
use crate::pack;
use faas::Limits;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What an upload has sent of the body that it announced.
const SENT_BYTES: usize = 700 << 10;

/// Memory for one upload of the largest size, 1 MiB and a little.
fn tight() -> Setup {
    let limits = Limits {
        archive_packed_bytes_max: 4 << 10,
        uploads_at_once_max: 1,
        // Nobody is too slow before the test is over.
        http_idle: Duration::from_secs(300),
        ..Limits::default()
    };
    Setup {
        limits,
        ..Setup::default()
    }
}

fn announced(node: &Node, bytes: usize, sent: usize) -> TcpStream {
    let mut upload = TcpStream::connect(node.addr).unwrap();
    let head = format!(
        "PUT /v1/functions/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n"
    );
    // One that is closed at once can't be written to.
    drop(upload.write_all(&[head.as_bytes(), &vec![b'x'; sent]].concat()));
    upload
}

/// What a deployment is answered; none where the connection is closed, or refused while it still sends.
fn status(node: &Node, body: &[u8]) -> Option<u16> {
    let mut upload = TcpStream::connect(node.addr).unwrap();
    let head = format!(
        "PUT /v1/functions/f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    upload.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut answer = String::new();
    upload.read_to_string(&mut answer).ok()?;
    answer.get(9..12)?.parse().ok()
}

/// Tells the one that trickles that the test is over, also where it failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends a byte on each, again and again, while `during` runs.
fn trickling(uploads: &[TcpStream], during: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        let _trickle = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                for mut upload in uploads {
                    // One that gave way is closed.
                    drop(upload.write_all(b"x"));
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        during();
    });
}

#[test]
fn two_uploads_that_are_announced_and_stop_take_no_memory_that_others_need() {
    let node = Node::with(tight());
    let slow = [announced(&node, 1 << 20, 1), announced(&node, 1 << 20, 1)];
    trickling(&slow, || {
        let deployed = node.put("/v1/functions/f", &pack::function("1"));
        assert_eq!(deployed.status, 201, "{}", deployed.text);
    });
}

#[test]
fn an_upload_that_fills_the_memory_and_trickles_gives_way() {
    let node = Node::with(tight());
    let large = (1 << 20) + 4096;
    let filling = [announced(&node, large, large - 4000)];
    trickling(&filling, || {
        // It is no archive; but all of it was read.
        let body = vec![b'x'; SENT_BYTES];
        wait_for("the deployment", || status(&node, &body) == Some(400));
    });
    // The deployment had its memory; the one that trickled is closed.
    let mut rest = Vec::new();
    let [mut filling] = filling;
    drop(filling.read_to_end(&mut rest));
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", rest.escape_ascii());
}

#[test]
fn uploads_that_trickle_on_every_connection_give_way_to_a_deployment() {
    let mut setup = Setup::default();
    setup.limits.management_connections_max = 16;
    setup.limits.http_idle = Duration::from_secs(300);
    let node = Node::with(setup);
    let crowd: Vec<_> = (0..40).map(|_| announced(&node, 1 << 20, 1)).collect();
    trickling(&crowd, || {
        let archive = pack::function("1");
        wait_for("the deployment", || status(&node, &archive) == Some(201));
    });
}
