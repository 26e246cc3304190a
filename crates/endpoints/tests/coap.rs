//! The CoAP endpoint over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use bytes::Bytes;
use coap::{
    Client, ClientConfig, ClientRequest, ClientResponse, Code, Encoder, Kind, Message, Token,
};
use faas::Limits;
use fake::Seen;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Endpoint {
    addr: SocketAddr,
    seen: Arc<Seen>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

fn start_on(addr: &str, sockets: usize, limits: Limits) -> Endpoint {
    let (proxy, seen) = fake::proxy(limits);
    let listener =
        endpoints::coap::bind(addr.parse().unwrap(), sockets, &Limits::default()).unwrap();
    let addr = listener.local_addr();
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    let clients = endpoints::clients(proxy.limits());
    tasks.spawn(listener.serve(clients, proxy, shutdown.clone()));
    tasks.close();
    Endpoint {
        addr,
        seen,
        shutdown,
        tasks,
    }
}

fn start() -> Endpoint {
    start_on("127.0.0.1:0", 2, Limits::default())
}

impl Endpoint {
    async fn stopped(&self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.tasks.wait());
        ended.await.expect("the endpoint ends");
    }

    async fn peer(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.addr).await.unwrap();
        socket
    }

    async fn call(&self, request: ClientRequest) -> ClientResponse {
        call(&self.peer().await, request).await
    }
}

/// Calls with our own client over a connected socket.
async fn call(socket: &UdpSocket, request: ClientRequest) -> ClientResponse {
    static SEED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0x1234_5678);
    let seed = SEED.fetch_add(0x9e37_79b9_7f4a_7c15, std::sync::atomic::Ordering::Relaxed);
    let mut client = Client::new(Instant::now(), request, ClientConfig::default(), seed);
    let exchange = async {
        loop {
            while let Some(datagram) = client.poll_transmit() {
                socket.send(&datagram).await.unwrap();
            }
            if let Some(result) = client.result() {
                return result.clone().unwrap();
            }
            let due = client.deadline().unwrap();
            let mut buffer = [0; 2048];
            tokio::select! {
                received = socket.recv(&mut buffer) => {
                    client.receive(Instant::now(), &buffer[..received.unwrap()]);
                }
                () = tokio::time::sleep_until(due.into()) => client.expire(Instant::now()),
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, exchange);
    answered.await.expect("the call is answered in time")
}

/// A datagram that asks for a path, with a token that says its id.
fn datagram(kind: Kind, code: Code, id: u16, path: &str, payload: &[u8]) -> Bytes {
    let token = Token::new(&id.to_be_bytes()).unwrap();
    let mut encoder = Encoder::new(kind, code, id, token);
    for segment in coap::uri::segments(path) {
        encoder.option(coap::option::URI_PATH, &segment);
    }
    encoder.finish(payload)
}

async fn next(socket: &UdpSocket) -> Bytes {
    let mut buffer = vec![0; 2048];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer));
    let len = received.await.expect("a datagram comes in time").unwrap();
    buffer.truncate(len);
    buffer.into()
}

/// Kind, code and message id of a datagram.
fn head(datagram: &[u8]) -> (Kind, String, u16) {
    let message = Message::parse(datagram).unwrap();
    (message.kind, message.code.to_string(), message.message_id)
}

fn post(path: &str, payload: impl Into<Bytes>) -> ClientRequest {
    let mut request = ClientRequest::new(Code::POST, path);
    request.payload = payload.into();
    request
}

#[tokio::test]
async fn a_request_reaches_the_function_whole() {
    let endpoint = start();
    let mut request = post("/a/b", "payload");
    request.query = coap::uri::arguments("x=1&y=2");
    request.content_format = Some(50);
    request.accept = Some(60);
    request.host = Some("example.org".to_owned());
    let response = endpoint.call(request).await;
    assert_eq!(response.code, Code::CHANGED);
    assert_eq!(response.content_format, Some(0));
    assert_eq!(response.payload, "payload");
    let seen = endpoint.seen.last();
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.path, "/a/b");
    assert_eq!(seen.query, "x=1&y=2");
    assert_eq!(
        seen.headers.get("content-type"),
        Some(&b"application/json"[..])
    );
    let field = |name| seen.headers.get(name).map(<[u8]>::to_vec);
    assert_eq!(field("accept"), Some(b"application/cbor".to_vec()));
    assert_eq!(field("host"), Some(b"example.org".to_vec()));
    endpoint.stopped().await;
}

#[tokio::test]
async fn every_method_runs_and_has_its_code() {
    let endpoint = start();
    for (method, expected) in [
        (Code::GET, Code::CONTENT),
        (Code::FETCH, Code::CONTENT),
        (Code::POST, Code::CHANGED),
        (Code::PUT, Code::CHANGED),
        (Code::DELETE, Code::DELETED),
    ] {
        let response = endpoint.call(ClientRequest::new(method, "/echo")).await;
        assert_eq!(response.code, expected, "{method}");
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn callers_see_nothing_that_a_function_printed() {
    let endpoint = start();
    for path in ["/sick", "/unloaded"] {
        let response = endpoint.call(ClientRequest::new(Code::GET, path)).await;
        assert_eq!(response.code, Code::SERVICE_UNAVAILABLE);
        let text = String::from_utf8(response.payload.to_vec()).unwrap();
        assert!(text.contains("can't be run now"), "{text}");
        assert!(
            !text.contains(fake::SECRET) && !text.contains("/srv"),
            "{text}"
        );
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn what_goes_wrong_has_its_code_and_says_why() {
    let endpoint = start();
    for (path, code, text) in [
        (
            "/nobody",
            "4.04",
            "no function named \"nobody\" is deployed",
        ),
        ("/", "4.04", "call a function by its name"),
        ("/%C3%BC", "4.04", "no function named"),
        ("/fail", "5.00", "it threw"),
        ("/full", "5.03", "function \"full\": too many calls at once"),
        ("/teapot", "4.00", "short and stout"),
    ] {
        let response = endpoint.call(post(path, "x")).await;
        assert_eq!(response.code.to_string(), code, "{path}");
        let answer = String::from_utf8(response.payload.to_vec()).unwrap();
        assert!(answer.starts_with(text), "{path}: {answer}");
        let max_age = (path == "/full").then_some(2);
        assert_eq!(response.max_age, max_age, "{path}");
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn large_bodies_go_both_ways_and_run_once() {
    let endpoint = start();
    let body: Vec<u8> = (0..100_000_u32).map(|n| n.to_be_bytes()[3]).collect();
    let response = endpoint.call(post("/echo", body.clone())).await;
    assert_eq!(response.payload, body);
    assert_eq!(*endpoint.seen.begun.borrow(), 1);
    let response = endpoint.call(ClientRequest::new(Code::GET, "/large")).await;
    assert_eq!(response.payload.len(), 4 << 20);
    assert_eq!(*endpoint.seen.begun.borrow(), 2);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused() {
    let limits = Limits {
        payload_bytes_max: 5000,
        ..Limits::default()
    };
    let endpoint = start_on("127.0.0.1:0", 1, limits);
    let response = endpoint.call(post("/echo", vec![b'x'; 5000])).await;
    assert_eq!(response.code, Code::CHANGED);
    let response = endpoint.call(post("/echo", vec![b'x'; 5001])).await;
    assert_eq!(response.code, Code::REQUEST_ENTITY_TOO_LARGE);
    assert_eq!(*endpoint.seen.begun.borrow(), 1);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_duplicate_runs_once_and_is_answered_alike() {
    let endpoint = start();
    let peer = endpoint.peer().await;
    let request = datagram(Kind::Confirmable, Code::POST, 7, "/echo", b"once");
    peer.send(&request).await.unwrap();
    let first = next(&peer).await;
    assert_eq!(head(&first), (Kind::Acknowledgement, "2.04".into(), 7));
    peer.send(&request).await.unwrap();
    assert_eq!(next(&peer).await, first);
    assert_eq!(*endpoint.seen.begun.borrow(), 1);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_slow_function_is_acknowledged_then_answered() {
    let endpoint = start();
    let peer = endpoint.peer().await;
    let request = datagram(Kind::Confirmable, Code::GET, 8, "/wait", b"");
    peer.send(&request).await.unwrap();
    assert_eq!(
        head(&next(&peer).await),
        (Kind::Acknowledgement, "0.00".into(), 8)
    );
    endpoint.seen.release.notify_one();
    let response = next(&peer).await;
    let message = Message::parse(&response).unwrap();
    assert_eq!(
        (message.kind, message.code),
        (Kind::Confirmable, Code::CONTENT)
    );
    assert_eq!(message.token.as_bytes(), 8_u16.to_be_bytes());
    assert_eq!(message.payload, b"released");
    // Not acknowledged, it comes again.
    assert_eq!(next(&peer).await, response);
    let acknowledgement = Encoder::empty(Kind::Acknowledgement, message.message_id);
    peer.send(&acknowledgement).await.unwrap();
    // Idle means that the endpoint took the acknowledgement.
    endpoint.stopped().await;
    assert_eq!(*endpoint.seen.begun.borrow(), 1);
}

#[tokio::test]
async fn a_non_confirmable_request_is_answered_without_acknowledgement() {
    let endpoint = start();
    let peer = endpoint.peer().await;
    let request = datagram(Kind::NonConfirmable, Code::POST, 9, "/echo", b"non");
    peer.send(&request).await.unwrap();
    let response = next(&peer).await;
    let message = Message::parse(&response).unwrap();
    assert_eq!(
        (message.kind, message.code),
        (Kind::NonConfirmable, Code::CHANGED)
    );
    assert_eq!(message.payload, b"non");
    endpoint.stopped().await;
}

#[tokio::test]
async fn what_is_not_understood_is_reset_or_refused() {
    let endpoint = start();
    let peer = endpoint.peer().await;
    let critical = {
        let mut encoder = Encoder::new(Kind::Confirmable, Code::GET, 3, Token::EMPTY);
        encoder.option(9, b"x");
        encoder.finish(b"")
    };
    let proxied = {
        let mut encoder = Encoder::new(Kind::Confirmable, Code::GET, 4, Token::EMPTY);
        encoder.option(coap::option::PROXY_URI, b"coap://elsewhere/");
        encoder.finish(b"")
    };
    let unknown = datagram(Kind::Confirmable, Code::new(0, 30), 5, "/echo", b"");
    let check = async |request: &[u8], kind: Kind, code: &str, id: u16| {
        // None of these is answered.
        for ignored in [
            &[][..],
            &[0x40, 1, 0],
            &[0x80, 1, 0, 9],
            &[0x50, 0, 0, 9, 1],
        ] {
            peer.send(ignored).await.unwrap();
        }
        peer.send(request).await.unwrap();
        assert_eq!(head(&next(&peer).await), (kind, code.to_owned(), id));
    };
    check(&[0x40, 0, 0, 1], Kind::Reset, "0.00", 1).await;
    check(&[0x40, 1, 0, 2, 0xff], Kind::Reset, "0.00", 2).await;
    check(&critical, Kind::Acknowledgement, "4.02", 3).await;
    check(&proxied, Kind::Acknowledgement, "5.05", 4).await;
    check(&unknown, Kind::Acknowledgement, "4.05", 5).await;
    check(&[0x4f, 0, 0, 6, 0, 0], Kind::Reset, "0.00", 6).await;
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    endpoint.stopped().await;
}

#[tokio::test]
async fn many_peers_are_answered_at_once() {
    let endpoint = start_on("127.0.0.1:0", 4, Limits::default());
    let mut peers = Vec::new();
    for _ in 0..64 {
        peers.push(endpoint.peer().await);
    }
    let calls = peers.iter().enumerate().map(|(n, peer)| async move {
        let body = vec![u8::try_from(n).unwrap(); 3000];
        let response = call(peer, post("/echo", body.clone())).await;
        assert_eq!(response.payload, body);
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(*endpoint.seen.begun.borrow(), 64);
    endpoint.stopped().await;
}

#[tokio::test]
async fn stopping_answers_what_is_inside_and_refuses_what_comes() {
    let endpoint = start_on("127.0.0.1:0", 1, Limits::default());
    let peer = endpoint.peer().await;
    let waiting = datagram(Kind::NonConfirmable, Code::GET, 20, "/wait", b"");
    peer.send(&waiting).await.unwrap();
    Seen::reached(&endpoint.seen.begun, 1).await;
    endpoint.shutdown.cancel();
    let mut id = 21;
    loop {
        let request = datagram(Kind::Confirmable, Code::POST, id, "/echo", b"late");
        peer.send(&request).await.unwrap();
        let answer = next(&peer).await;
        // The thread may see the datagram before it sees the shutdown.
        if head(&answer) == (Kind::Acknowledgement, "5.03".into(), id) {
            break;
        }
        id += 1;
    }
    endpoint.seen.release.notify_one();
    let answer = next(&peer).await;
    assert_eq!(Message::parse(&answer).unwrap().payload, b"released");
    endpoint.stopped().await;
}

#[tokio::test]
async fn cutting_the_endpoint_cancels_what_runs() {
    let (proxy, seen) = fake::proxy(Limits::default());
    let clients = endpoints::clients(proxy.limits());
    let listener =
        endpoints::coap::bind("127.0.0.1:0".parse().unwrap(), 1, &Limits::default()).unwrap();
    let addr = listener.local_addr();
    let shutdown = CancellationToken::new();
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    peer.connect(addr).await.unwrap();
    let request = datagram(Kind::NonConfirmable, Code::GET, 1, "/wait", b"");
    peer.send(&request).await.unwrap();
    tokio::select! {
        () = listener.serve(clients, proxy, shutdown) => panic!("nothing has stopped it"),
        () = Seen::reached(&seen.begun, 1) => {}
    }
    Seen::reached(&seen.cancelled, 1).await;
}

#[tokio::test]
async fn the_answer_comes_from_the_address_that_was_asked() {
    let endpoint = start_on("0.0.0.0:0", 2, Limits::default());
    for last in [1, 2, 77] {
        let addr = SocketAddr::new(
            IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)),
            endpoint.addr.port(),
        );
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // A connected socket hears nobody else.
        socket.connect(addr).await.unwrap();
        let response = call(&socket, post("/echo", "x")).await;
        assert_eq!(response.code, Code::CHANGED);
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn one_address_hears_ipv6_and_ipv4() {
    let endpoint = start_on("[::]:0", 2, Limits::default());
    for (from, to) in [("127.0.0.1:0", "127.0.0.2"), ("[::1]:0", "::1")] {
        let addr = SocketAddr::new(to.parse().unwrap(), endpoint.addr.port());
        let socket = UdpSocket::bind(from).await.unwrap();
        socket.connect(addr).await.unwrap();
        let response = call(&socket, post("/echo", "x")).await;
        assert_eq!(response.code, Code::CHANGED, "{to}");
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let endpoint = start();
    let error = endpoints::coap::bind(endpoint.addr, 2, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    endpoint.stopped().await;
}
