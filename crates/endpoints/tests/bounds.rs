//! What one client can't do to the others, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use bytes::Bytes;
use endpoints::http::Browsers;
use faas::Limits;
use fake::Seen;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use net::Clients;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a condition may take to hold.
const PATIENCE: Duration = Duration::from_secs(20);

const KEPT: &str = "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n";
const SHORT: &str =
    "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";

struct Endpoint {
    addr: SocketAddr,
    seen: Arc<Seen>,
    clients: Arc<Clients>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

async fn start(limits: Limits, browsers: Browsers) -> Endpoint {
    let (proxy, seen) = fake::proxy(limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let clients = endpoints::clients(proxy.limits());
    let serving = endpoints::http::serve(
        listener,
        Arc::clone(&clients),
        (proxy, browsers),
        shutdown.clone(),
    );
    tasks.spawn(serving);
    tasks.close();
    Endpoint {
        addr,
        seen,
        clients,
        shutdown,
        tasks,
    }
}

impl Endpoint {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Connects from another address of this machine, which is another peer.
    async fn connect_from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::from(([127, 0, 0, last], 0)))
            .unwrap();
        socket.connect(self.addr).await.unwrap()
    }

    async fn raw(&self, request: &str) -> String {
        ask(self.connect().await, request).await
    }

    /// Ends, and sees that everything was given back.
    async fn stopped(&self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.tasks.wait());
        ended.await.expect("the endpoint ends");
        until(|| self.clients.budget().held_bytes() == 0).await;
        assert_eq!(self.clients.budget().peers(), 0);
    }
}

/// Sends raw bytes and reads until the endpoint closes.
async fn ask(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(PATIENCE, read).await;
    // A reset after the answer is an end as well.
    drop(read.expect("the endpoint closes the connection"));
    String::from_utf8_lossy(&answer).into_owned()
}

async fn until(condition: impl Fn() -> bool) {
    let held = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let within = tokio::time::timeout(PATIENCE, held).await;
    within.expect("the condition holds in time");
}

/// A budget for eight bodies of 64 KiB and some connections, four of them one peer's.
fn tight() -> Limits {
    Limits {
        payload_bytes_max: 64 << 10,
        client_bytes_max: 8 * (80 << 10),
        client_share_bytes_max: 4 * (80 << 10),
        ..Limits::default()
    }
}

#[tokio::test]
async fn who_has_spent_its_share_is_refused_and_others_are_served() {
    let endpoint = start(tight(), Browsers::default()).await;
    let body = "x".repeat(65_536);
    let mut kept = Vec::new();
    for count in 1..=4 {
        let mut client = endpoint.connect().await;
        client.write_all(KEPT.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
        Seen::reached(&endpoint.seen.begun, count).await;
        kept.push(client);
    }
    let answer = endpoint.raw(&format!("{KEPT}{body}")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 5"), "{answer}");
    assert!(answer.contains("one client"), "{answer}");
    let mut other = endpoint.connect_from(2).await;
    other
        .write_all(format!("{KEPT}{body}").as_bytes())
        .await
        .unwrap();
    Seen::reached(&endpoint.seen.begun, 5).await;
    let answer = endpoint.raw(SHORT).await;
    assert!(answer.ends_with("\r\n\r\nx"), "{answer}");
    endpoint.seen.release.notify_waiters();
    endpoint.stopped().await;
}

#[tokio::test]
async fn memory_is_taken_as_bodies_come_not_as_they_are_announced() {
    let endpoint = start(tight(), Browsers::default()).await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut client = endpoint.connect().await;
        client
            .write_all(format!("{KEPT}x").as_bytes())
            .await
            .unwrap();
        slow.push(client);
    }
    until(|| endpoint.clients.connections() == 16).await;
    let whole = format!("{}{}", KEPT.replace("wait", "echo"), "x".repeat(65_536));
    let whole = whole.replace("Host", "Connection: close\r\nHost");
    let answer = endpoint.raw(&whole).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(slow);
    endpoint.stopped().await;
}

/// Sends the beginning of a body, then up to so many bytes with a pause before the next, and expects
/// to be told that it is too slow.
async fn refused_for_trickling(endpoint: &Endpoint, begun: &str, bytes: usize, pause: Duration) {
    let (mut reader, mut writer) = endpoint.connect().await.into_split();
    writer.write_all(begun.as_bytes()).await.unwrap();
    let trickling = async {
        for _ in 0..bytes {
            tokio::time::sleep(pause).await;
            if writer.write_all(b"x").await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 12];
    let answered = reader.read_exact(&mut answer);
    tokio::select! {
        answered = tokio::time::timeout(PATIENCE, answered) => drop(answered.unwrap().unwrap()),
        () = trickling => {}
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_body_that_trickles_is_refused_however_often_it_moves() {
    let limits = Limits {
        http_idle: Duration::from_millis(300),
        pace_bytes_min: 1 << 20,
        ..Limits::default()
    };
    let endpoint = start(limits, Browsers::default()).await;
    let pause = Duration::from_millis(20);
    refused_for_trickling(&endpoint, KEPT, usize::MAX, pause).await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_body_that_stops_short_of_its_end_is_not_kept_for_its_size() {
    let limits = Limits {
        http_idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let endpoint = start(limits, Browsers::default()).await;
    // All but ten bytes, which earn a minute at the least rate of a whole body.
    let begun = format!("{KEPT}{}", "x".repeat(65_526));
    refused_for_trickling(&endpoint, &begun, 9, Duration::from_millis(100)).await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn heads_that_never_end_spend_the_share_of_their_sender_alone() {
    let endpoint = start(tight(), Browsers::default()).await;
    let half = format!("GET /echo HTTP/1.1\r\nHost: a\r\nx: {}", "x".repeat(60_000));
    let mut senders = Vec::new();
    for _ in 0..16 {
        let mut client = endpoint.connect().await;
        // One that is closed meanwhile can't be written to.
        drop(client.write_all(half.as_bytes()).await);
        senders.push(client);
    }
    until(|| endpoint.clients.budget().held_bytes() > 128 << 10).await;
    assert!(endpoint.clients.budget().held_bytes() <= tight().client_share_bytes_max);
    let answer = ask(endpoint.connect_from(2).await, SHORT).await;
    assert!(answer.ends_with("\r\n\r\nx"), "{answer}");
    drop(senders);
    endpoint.stopped().await;
}

#[tokio::test]
async fn streams_of_one_connection_share_its_budget() {
    let endpoint = start(tight(), Browsers::default()).await;
    let io = TokioIo::new(endpoint.connect().await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    endpoint.tasks.spawn(connection);
    let calls = TaskTracker::new();
    let (tell, mut told) = tokio::sync::mpsc::channel(16);
    for _ in 0..16 {
        let (mut sender, tell) = (sender.clone(), tell.clone());
        let request = http::Request::post(format!("http://{}/wait", endpoint.addr))
            .body(Full::new(Bytes::from(vec![b'x'; 60_000])))
            .unwrap();
        calls.spawn(async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            drop(response.into_body().collect().await);
            tell.send(status).await.unwrap();
        });
    }
    let refused = tokio::time::timeout(PATIENCE, told.recv()).await.unwrap();
    assert_eq!(refused.unwrap(), 503);
    assert!(endpoint.clients.budget().held_bytes() <= tight().client_share_bytes_max);
    drop(sender);
    endpoint.seen.release.notify_waiters();
    endpoint.stopped().await;
}

#[tokio::test]
async fn replies_that_nobody_reads_are_charged_to_who_asked() {
    let limits = Limits {
        client_share_bytes_max: 20 << 20,
        client_bytes_max: 64 << 20,
        ..Limits::default()
    };
    let endpoint = start(limits, Browsers::default()).await;
    let io = TokioIo::new(endpoint.connect().await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder
        .initial_stream_window_size(1)
        .handshake(io)
        .await
        .unwrap();
    endpoint.tasks.spawn(connection);
    let mut refused = 0;
    let mut unread = Vec::new();
    for _ in 0..16 {
        let request = http::Request::get(format!("http://{}/large", endpoint.addr))
            .body(Full::new(Bytes::new()))
            .unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        refused += usize::from(response.status() == 503);
        unread.push(response);
    }
    assert!(
        refused > 0,
        "its share is spent by replies that it does not read"
    );
    assert!(endpoint.clients.budget().held_bytes() <= 20 << 20);
    let answer = ask(endpoint.connect_from(2).await, SHORT).await;
    assert!(answer.ends_with("\r\n\r\nx"), "{answer}");
    drop((unread, sender));
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_crowd_of_idle_connections_makes_nobody_wait() {
    let limits = Limits {
        connections_max: 50,
        client_connections_max: 50,
        ..Limits::default()
    };
    let endpoint = start(limits, Browsers::default()).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(endpoint.connect().await);
    }
    let answer = endpoint.raw(SHORT).await;
    assert!(answer.ends_with("\r\n\r\nx"), "{answer}");
    assert!(endpoint.clients.connections() <= 50);
    endpoint.stopped().await;
    drop(crowd);
}

#[tokio::test]
async fn a_request_names_its_host_once_and_well() {
    let endpoint = start(Limits::default(), Browsers::default()).await;
    let check = async |fields: &str, version: &str, status: &str| {
        let request = format!("GET /echo HTTP/{version}\r\nConnection: close\r\n{fields}\r\n");
        let answer = endpoint.raw(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/{version} {status}")),
            "{fields:?}: {answer}"
        );
    };
    check("", "1.1", "400").await;
    check("Host: a\r\nHost: a\r\n", "1.1", "400").await;
    check("Host: a\r\nhost: b\r\n", "1.1", "400").await;
    for bad in [
        "a b", "a/b", "a@b", "a:b", "[::1", "[g]", "[::1]x", "a:1:2", "http://a",
    ] {
        check(&format!("Host: {bad}\r\n"), "1.1", "400").await;
    }
    for good in ["a", "a.example:80", "[::1]:8000", "127.0.0.1", "a_b", ""] {
        check(&format!("Host: {good}\r\n"), "1.1", "200").await;
    }
    check("", "1.0", "200").await;
    check("Host: a\r\nHost: b\r\n", "1.0", "400").await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn tunnels_and_foreign_transfer_codings_are_not_implemented() {
    let endpoint = start(Limits::default(), Browsers::default()).await;
    let check = async |line: &str, fields: &str, status: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}");
        let answer = endpoint.raw(&request).await;
        let begin = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&begin), "{line} {fields:?}: {answer}");
    };
    check("CONNECT a:80", "\r\n", "501").await;
    let body = "\r\n1\r\nx\r\n0\r\n\r\n";
    for coding in ["gzip, chunked", "x, chunked"] {
        let fields = format!("Transfer-Encoding: {coding}\r\n{body}");
        check("POST /echo", &fields, "501").await;
    }
    let fields = format!("Transfer-Encoding: chunked\r\n{body}");
    check("POST /echo", &fields, "200").await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn what_a_browser_sends_for_another_site_reaches_no_function() {
    let closed = Browsers::new(true, Vec::new(), None);
    let endpoint = start(Limits::default(), closed).await;
    let check = async |fields: &str, status: &str| {
        let request = format!("GET /echo HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
        let answer = endpoint.raw(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{fields:?}: {answer}"
        );
    };
    check("Host: localhost\r\nOrigin: https://evil.example\r\n", "403").await;
    check("Host: evil.example\r\n", "403").await;
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    check("Host: localhost\r\nOrigin: http://localhost\r\n", "200").await;
    check("Host: localhost\r\n", "200").await;
    endpoint.stopped().await;
}
