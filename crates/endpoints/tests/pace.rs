//! How fast a client has to take its replies, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use endpoints::http::Browsers;
use faas::Limits;
use fake::door::Endpoint;
use socket2::{Domain, Protocol, Socket, Type};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How long a condition may take to hold.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a client may take nothing.
const IDLE: Duration = Duration::from_secs(2);

/// How often a slow client reads.
const STEP: Duration = Duration::from_millis(100);

const LARGE: &[u8] = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
const LARGE_BYTES: usize = 4 << 20;

/// At least 64 KiB a second.
async fn start() -> Endpoint {
    let limits = Limits {
        http_head: IDLE,
        http_idle: IDLE,
        pace_bytes_min: 64 << 10,
        ..Limits::default()
    };
    Endpoint::start(limits, Browsers::default()).await
}

/// A client as far away as the internet: the systems keep some kilobytes of the connection, not
/// megabytes.
async fn far(endpoint: &Endpoint) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_tcp_mss(1460).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(endpoint.addr).await.unwrap()
}

/// Reads so much at each step until there was so much in all, or the endpoint closed; for how much
/// there was.
async fn take(client: &mut TcpStream, step_bytes: usize, bytes_max: usize) -> usize {
    let (mut steps, mut sum) = (tokio::time::interval(STEP), 0);
    let mut piece = vec![0; step_bytes];
    while sum < bytes_max {
        steps.tick().await;
        let mut of_step = 0;
        while of_step < step_bytes && sum + of_step < bytes_max {
            let wanted = (step_bytes - of_step).min(bytes_max - sum - of_step);
            match client.read(&mut piece[..wanted]).await {
                Ok(0) | Err(_) => return sum + of_step,
                Ok(count) => of_step += count,
            }
        }
        sum += of_step;
    }
    sum
}

/// Waits until nothing is held for any client, while one takes a little at each step.
async fn is_cut(endpoint: &Endpoint, mut client: TcpStream, step_bytes: usize) {
    client.read_exact(&mut [0]).await.unwrap();
    assert_eq!(endpoint.clients.connections(), 1);
    let cut = async {
        while endpoint.clients.connections() > 0 {
            tokio::time::sleep(STEP / 10).await;
        }
    };
    let cut = tokio::time::timeout(PATIENCE, cut);
    tokio::select! {
        cut = cut => cut.expect("the connection is cut"),
        count = take(&mut client, step_bytes, usize::MAX) => assert!(count < LARGE_BYTES),
    }
    endpoint.stopped().await;
    assert_eq!(endpoint.clients.budget().held_bytes(), 0);
}

#[tokio::test]
async fn a_reply_that_is_taken_in_rare_steps_is_not_kept_over_http1() {
    let endpoint = start().await;
    let mut client = far(&endpoint).await;
    client.write_all(LARGE).await.unwrap();
    is_cut(&endpoint, client, 1 << 10).await;
}

#[tokio::test]
async fn a_reply_that_is_taken_in_rare_steps_is_not_kept_over_http2() {
    let endpoint = start().await;
    let mut client = far(&endpoint).await;
    client.write_all(&asked(u32::MAX >> 1)).await.unwrap();
    is_cut(&endpoint, client, 1 << 10).await;
}

#[tokio::test]
async fn a_far_client_above_the_least_pace_has_its_reply_over_http1() {
    let endpoint = start().await;
    let mut client = far(&endpoint).await;
    client.write_all(LARGE).await.unwrap();
    // 640 KiB a second.
    let taken = take(&mut client, 64 << 10, LARGE_BYTES).await;
    assert_eq!(taken, LARGE_BYTES);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_far_client_above_the_least_pace_has_its_reply_over_http2() {
    let endpoint = start().await;
    let mut client = far(&endpoint).await;
    client.write_all(&asked(u32::MAX >> 1)).await.unwrap();
    let taken = take(&mut client, 64 << 10, LARGE_BYTES).await;
    assert_eq!(taken, LARGE_BYTES);
    endpoint.stopped().await;
}

/// The system keeps megabytes of a connection on one machine, and lets go of a third at a time.
#[tokio::test]
async fn a_near_client_above_the_least_pace_has_its_reply() {
    for request in [LARGE, &asked(u32::MAX >> 1)] {
        let endpoint = start().await;
        let mut client = endpoint.connect().await;
        client.write_all(request).await.unwrap();
        // 400 KiB a second.
        let taken = take(&mut client, 40 << 10, LARGE_BYTES).await;
        assert_eq!(taken, LARGE_BYTES);
        endpoint.stopped().await;
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [len[1], len[2], len[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_OF_HEAD_AND_STREAM: u8 = 5;

/// What a client of HTTP/2 sends that asks for the large reply, and takes so much of it.
fn asked(window: u32) -> Vec<u8> {
    let window = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    let of_all = (1_u32 << 30).to_be_bytes();
    // Fields that are not indexed (RFC 7541, section 6.2.2).
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/large"),
        (":authority", "localhost"),
    ]
    .map(|(name, value)| {
        let len = |text: &str| u8::try_from(text.len()).unwrap();
        let (name_len, value_len) = (len(name), len(value));
        [
            &[0, name_len][..],
            name.as_bytes(),
            &[value_len],
            value.as_bytes(),
        ]
        .concat()
    });
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &window),
        frame(WINDOW_UPDATE, 0, 0, &of_all),
        frame(HEADERS, END_OF_HEAD_AND_STREAM, 1, &fields.concat()),
    ]
    .concat()
}

/// Reads a frame: its kind, its flags and how long it is; none where the endpoint closed.
async fn read_frame(client: &mut TcpStream) -> Option<(u8, u8, usize)> {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.ok()?;
    let len = head[..3]
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    client.read_exact(&mut vec![0; len]).await.ok()?;
    Some((head[3], head[4], len))
}

/// Pings, and reads until the answer has come; for what came of replies meanwhile, none where the
/// endpoint closed.
async fn ping(client: &mut TcpStream) -> Option<usize> {
    client.write_all(&frame(PING, 0, 0, &[0; 8])).await.ok()?;
    let mut sum = 0;
    loop {
        match read_frame(client).await? {
            (PING, ACK, _) => return Some(sum),
            (0, _, len) => sum += len,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_reply_whose_end_is_never_taken_is_not_kept_for_pings() {
    let endpoint = start().await;
    let mut client = endpoint.connect().await;
    let all_but_its_end = u32::try_from(LARGE_BYTES - 10).unwrap();
    client.write_all(&asked(all_but_its_end)).await.unwrap();
    let pinging = async {
        let (mut steps, mut sum) = (tokio::time::interval(STEP), 0);
        while let Some(count) = ping(&mut client).await {
            sum += count;
            steps.tick().await;
        }
        sum
    };
    let taken = tokio::time::timeout(PATIENCE, pinging).await;
    assert_eq!(taken.expect("the connection is cut"), LARGE_BYTES - 10);
    endpoint.stopped().await;
    assert_eq!(endpoint.clients.budget().held_bytes(), 0);
}

#[tokio::test]
async fn a_client_that_has_all_of_its_reply_may_stay_and_ping() {
    let endpoint = start().await;
    let mut client = endpoint.connect().await;
    client.write_all(&asked(u32::MAX >> 1)).await.unwrap();
    let mut taken = 0;
    while taken < LARGE_BYTES {
        taken += ping(&mut client).await.expect("the reply comes");
    }
    let begin = tokio::time::Instant::now();
    let mut steps = tokio::time::interval(STEP);
    while begin.elapsed() < 3 * IDLE {
        ping(&mut client).await.expect("it stays");
        steps.tick().await;
    }
    endpoint.stopped().await;
}
