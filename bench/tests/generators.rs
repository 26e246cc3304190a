//! The generators count right, and see what is lost and what is wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bench::load::coap::{Coap, LOST_AFTER, Pace};
use bench::load::grpc;
use bench::load::http::OneByOne;
use bench::reference::{Kind, Reference};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

const TIME: Duration = Duration::from_millis(500);

fn start(kind: Kind) -> Reference {
    let program = Path::new(env!("CARGO_BIN_EXE_bench"));
    Reference::start_by(program, kind, Path::new(".")).unwrap()
}

fn coap(to: SocketAddr, pace: Pace) -> Coap {
    Coap {
        to,
        path: "a/b".to_owned(),
        payload: b"payload".to_vec(),
        ports: 16,
        pace,
        time: TIME,
        patience: LOST_AFTER,
    }
}

/// A responder that does to each datagram what it is told; its number counts from 0.
fn responder(answer: impl Fn(usize, &[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        for number in 0.. {
            let (len, peer) = socket.recv_from(&mut buffer).unwrap();
            if let Some(reply) = answer(number, &buffer[..len]) {
                socket.send_to(&reply, peer).unwrap();
            }
        }
    });
    addr
}

/// An acknowledgement with what came; the token has eight bytes, the path two options of two bytes each.
fn echo(request: &[u8]) -> Vec<u8> {
    let mut reply = vec![0x68, 0x44];
    reply.extend_from_slice(&request[2..12]);
    reply.push(0xff);
    reply.extend_from_slice(&request[17..]);
    reply
}

#[test]
fn coap_calls_are_counted_closed_and_open() {
    let reference = start(Kind::BareCoap);
    let closed = coap(reference.addr, Pace::Closed(8))
        .run()
        .unwrap()
        .numbers();
    assert!(closed.replies > 8, "{closed:?}");
    assert_eq!((closed.wrong, closed.lost), (0, 0), "{closed:?}");
    let open = coap(reference.addr, Pace::Open(200.0))
        .run()
        .unwrap()
        .numbers();
    assert!((90..=101).contains(&open.replies), "{open:?}");
    assert_eq!((open.wrong, open.lost), (0, 0), "{open:?}");
}

#[test]
fn coap_replies_that_are_wrong_are_counted() {
    let to = responder(|number, request| {
        let mut reply = echo(request);
        if number % 4 == 0 {
            *reply.last_mut().unwrap() ^= 1;
        }
        Some(reply)
    });
    let seen = coap(to, Pace::Closed(4)).run().unwrap().numbers();
    let sent = seen.replies + seen.wrong;
    assert!(seen.replies > 0, "{seen:?}");
    assert!(seen.wrong.abs_diff(sent / 4) <= 2, "{seen:?}");
}

#[test]
fn coap_calls_that_are_lost_are_counted() {
    let to = responder(|number, request| (number >= 3).then(|| echo(request)));
    let mut load = coap(to, Pace::Closed(4));
    load.time = Duration::from_secs(4);
    let seen = load.run().unwrap().numbers();
    assert_eq!((seen.lost, seen.wrong), (3, 0), "{seen:?}");
    assert!(seen.replies > 0, "{seen:?}");
}

#[test]
fn a_second_reply_to_the_same_call_is_wrong() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let (len, peer) = socket.recv_from(&mut buffer).unwrap();
            for _ in 0..2 {
                socket.send_to(&echo(&buffer[..len]), peer).unwrap();
            }
        }
    });
    let seen = coap(to, Pace::Closed(1)).run().unwrap().numbers();
    assert!(seen.replies > 0, "{seen:?}");
    assert!(seen.wrong.abs_diff(seen.replies) <= 1, "{seen:?}");
}

#[test]
fn http_and_grpc_calls_are_counted() {
    let reference = start(Kind::BareHyper);
    let mut http = OneByOne::connect(reference.addr, "").unwrap();
    let seen = http.run(&vec![7; 100_000], TIME).unwrap().numbers();
    assert!(seen.replies > 0 && seen.wrong == 0, "{seen:?}");
    let reference = start(Kind::BareTonic);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = runtime.block_on(grpc::run(reference.addr, "f", "text", 4, TIME));
    let seen = seen.unwrap().numbers();
    assert!(seen.replies > 0 && seen.wrong == 0, "{seen:?}");
}
