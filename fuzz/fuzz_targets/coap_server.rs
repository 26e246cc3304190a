//! A server that three peers send datagrams to while its clock runs: it holds no more than its
//! budget, keeps its promises of time, and is idle with nothing held once everything is answered.
#![no_main]

use bytes::Bytes;
use coap::exchange::Response;
use coap::{Budgets, Code, Config, Peer, Server};
use libfuzzer_sys::fuzz_target;
use net::Budget;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Begin of everything, so that runs repeat.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Longer than anything is remembered.
const LONG: Duration = Duration::from_secs(1000);
const STEPS_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sender(u8);

impl Peer for Sender {
    fn host(&self) -> net::Peer {
        net::Peer::V4([192, 0, 2, self.0 / 2].into())
    }
}

fuzz_target!(|data: &[u8]| {
    let budget = Budget::new(1 << 20, 1 << 18);
    let config = Config {
        exchanges_max: 8,
        transfer_bytes_max: 1 << 14,
        payload_bytes_max: 1 << 13,
        ..Config::default()
    };
    let mut server: Server<Sender> = Server::new(config, [1, 2], &Budgets::new(&budget));
    let mut now = *BEGIN;
    let mut open = Vec::new();
    let mut rest = data;
    while let [what, length, more @ ..] = rest {
        let length = usize::from(*length).min(more.len());
        let (part, after) = more.split_at(length);
        rest = after;
        match what % 8 {
            0..=4 => server.receive(now, Sender(what / 8 % 3), part),
            5 => {
                let millis = part.iter().fold(0u64, |sum, byte| {
                    sum.saturating_mul(2).saturating_add(u64::from(*byte))
                });
                now += Duration::from_millis(millis).min(LONG);
                server.expire(now);
            }
            6 if !open.is_empty() => {
                let id = open.remove(usize::from(*what / 8) % open.len());
                let payload = Bytes::from(part.repeat(40));
                let has_run = what & 0x80 == 0;
                let code = Code::CONTENT;
                let response = Response {
                    payload,
                    has_run,
                    ..Response::new(code)
                };
                server.respond(now, id, response);
            }
            _ => server.expire(now),
        }
        open.extend(std::iter::from_fn(|| server.poll_request()).map(|request| request.id));
        while let Some((_, datagram)) = server.poll_transmit() {
            coap::Message::parse(&datagram).expect("it sends what can be read");
        }
    }
    for id in open.drain(..) {
        server.respond(now, id, Response::new(Code::CHANGED));
    }
    let end = now + LONG;
    for _ in 0..STEPS_MAX {
        while server.poll_request().is_some() || server.poll_transmit().is_some() {}
        let Some(due) = server.deadline().filter(|due| *due < end) else {
            break;
        };
        now = now.max(due);
        server.expire(now);
    }
    server.expire(end);
    while server.poll_transmit().is_some() {}
    assert!(server.deadline().is_none_or(|due| due > now), "it spins");
    assert!(server.is_idle(), "something waits forever");
    drop(server);
    assert_eq!(budget.held_bytes(), 0, "something is held for nobody");
});
