//! What floods leave of the machine's memory and files.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what it measured"
)]

use e2e::{Function, Node, Place, until, until_within};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long an answer may take before a test fails, where others have the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an HTTP/2 connection that no more comes from is waited for.
const STALL: Duration = Duration::from_secs(10);

/// What a frame of HTTP/2 carries at most.
const PIECE_BYTES: usize = 16 << 10;

/// The budget for clients, 128 MiB, and half of it for what the budget can't see.
const DURING_BYTES_MAX: usize = 192 << 20;

/// What may stay of a flood: 16 MiB, as less is not worth the time that it takes to give it back, and
/// the room that a handler's connection keeps for large replies.
const AFTER_BYTES_MAX: usize = 26 << 20;

/// What may stay of it as soon as nothing is held any more.
const SOON_BYTES_MAX: usize = 32 << 20;

/// How long the memory may take to go back.
const GOES_BACK: Duration = Duration::from_secs(60);

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
    until("most of the memory goes back", || {
        (resident_bytes(&node) < before + SOON_BYTES_MAX).then_some(())
    });
    let after = until_within(GOES_BACK, "the memory goes back", || {
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
    let mut client = sent(node, port, request);
    if reads_one {
        drop(client.read(&mut [0]));
    }
    Box::new(client)
}

fn sent(node: &Node, port: &str, request: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(node.addr(port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // One that is closed meanwhile can't be written to.
    drop(client.write_all(request));
    client
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
fn bodies_that_never_end_stay_within_the_budget() {
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        8 << 20
    );
    let body = vec![b'x'; 4 << 20];
    check("HTTP/1.1 bodies", 100, |node| {
        let mut client = sent(node, "http", head.as_bytes());
        // One that is refused meanwhile is closed.
        drop(client.write_all(&body));
        Box::new(client)
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
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
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
    // What their keys are together is more than what may be held.
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

/// One HTTP/2 connection to the gRPC endpoint, which keeps to the flow control: so much goes to the
/// server as it takes.
struct Calls {
    stream: TcpStream,
    window: usize,
    windows: BTreeMap<u32, usize>,
    /// The streams of which the head of an answer has come.
    answered: BTreeSet<u32>,
}

/// The window of a stream and of a connection before the server says otherwise (RFC 9113, section
/// 6.9.2).
const WINDOW_BYTES: usize = 65_535;

impl Calls {
    fn connect(node: &Node) -> Self {
        let stream = TcpStream::connect(node.addr("grpc")).unwrap();
        stream.set_read_timeout(Some(STALL)).unwrap();
        stream.set_write_timeout(Some(STALL)).unwrap();
        let mut calls = Self {
            stream,
            window: WINDOW_BYTES,
            windows: BTreeMap::new(),
            answered: BTreeSet::new(),
        };
        // A window for what comes back that is closed for all but the heads.
        let settings = [&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
        calls.send(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat());
        calls
    }

    /// Whether the connection is still there.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn begin(&mut self, stream: u32, fields: &[u8], flags: u8) -> bool {
        self.windows.insert(stream, WINDOW_BYTES);
        self.send(&frame(HEADERS, END_HEADERS | flags, stream, fields))
    }

    /// Reads one frame; false where none comes any more.
    fn read(&mut self) -> bool {
        let mut head = [0; 9];
        if self.stream.read_exact(&mut head).is_err() {
            return false;
        }
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let mut payload = vec![0; number(&head[..3])];
        if self.stream.read_exact(&mut payload).is_err() {
            return false;
        }
        let stream = u32::try_from(number(&head[5..])).unwrap();
        if head[3] == HEADERS {
            self.answered.insert(stream);
        }
        match head[3] {
            WINDOW_UPDATE if stream == 0 => self.window += number(&payload),
            WINDOW_UPDATE => {
                if let Some(window) = self.windows.get_mut(&stream) {
                    *window += number(&payload);
                }
            }
            SETTINGS if head[4] == 0 => {
                // Those of the server: the windows of streams grow to what it names.
                for setting in payload.chunks(6).filter(|setting| setting[..2] == [0, 4]) {
                    let more = number(&setting[2..]) - WINDOW_BYTES;
                    self.windows.values_mut().for_each(|window| *window += more);
                }
                self.send(&frame(SETTINGS, 1, 0, b""));
            }
            RST_STREAM => drop(self.windows.remove(&stream)),
            HEADERS if head[4] & END_STREAM != 0 => drop(self.windows.remove(&stream)),
            _ => {}
        }
        true
    }

    /// Sends so much on each stream, in turns, as far as the server takes it; for how much went out.
    fn fill(&mut self, bytes_max: usize) -> usize {
        let mut left: BTreeMap<_, _> = self.windows.keys().map(|s| (*s, bytes_max)).collect();
        let mut sent = 0;
        loop {
            left.retain(|stream, left| *left > 0 && self.windows.contains_key(stream));
            let window = self.window;
            let next = left.iter_mut().find_map(|(stream, left)| {
                let open = self.windows.get_mut(stream)?;
                let count = PIECE_BYTES.min(*left).min(*open).min(window);
                (count > 0).then(|| {
                    (*left, *open) = (*left - count, *open - count);
                    (*stream, count)
                })
            });
            let Some((stream, count)) = next else {
                if left.is_empty() || !self.read() {
                    return sent;
                }
                continue;
            };
            self.window -= count;
            sent += count;
            if !self.send(&frame(DATA, 0, stream, &vec![b'x'; count])) {
                return sent;
            }
        }
    }
}

/// The fields of a call, as many of 100 bytes more.
fn grpc_head(more: usize) -> Vec<u8> {
    let path = "/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request";
    let own = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .map(|(name, value)| field(name, value))
    .concat();
    [own, field("x", &"x".repeat(100)).repeat(more)].concat()
}

/// A message of gRPC before its bytes: it is not compressed, and so long.
fn prefix(bytes: usize) -> Vec<u8> {
    [&[0][..], &u32::try_from(bytes).unwrap().to_be_bytes()].concat()
}

#[test]
fn grpc_messages_that_are_never_whole_stay_within_the_budget() {
    check("gRPC messages", 1, |node| {
        let mut calls = Calls::connect(node);
        for stream in 0..200 {
            calls.begin(2 * stream + 1, &grpc_head(0), 0);
            calls.send(&frame(DATA, 0, 2 * stream + 1, &prefix(8 << 20)));
            calls.window -= 5;
            *calls.windows.get_mut(&(2 * stream + 1)).unwrap() -= 5;
        }
        let sent = calls.fill((8 << 20) - 1);
        eprintln!("sent {} MiB", sent >> 20);
        assert!(sent > 16 << 20, "the control: {sent}");
        Box::new(calls)
    });
}

#[test]
fn grpc_replies_that_nobody_reads_stay_within_the_budget() {
    check("gRPC replies", 4, |node| {
        let mut calls = Calls::connect(node);
        // `function_identifier` is the first field of the message.
        let message = [&prefix(7)[..], b"\x0a\x05large"].concat();
        for stream in 0..200 {
            calls.begin(2 * stream + 1, &grpc_head(0), 0);
            calls.send(&frame(DATA, END_STREAM, 2 * stream + 1, &message));
        }
        // They are called one after the other; the last answers are refusals.
        while calls.answered.len() < 200 && calls.read() {}
        Box::new(calls)
    });
}

#[test]
fn grpc_metadata_stays_within_the_budget() {
    let head = grpc_head(400);
    check("gRPC metadata of 60 kB", 20, |node| {
        let mut calls = Calls::connect(node);
        for stream in 0..200 {
            let stream = 2 * stream + 1;
            let mut pieces = head.chunks(PIECE_BYTES).peekable();
            let mut kind = HEADERS;
            while let Some(piece) = pieces.next() {
                let flags = if pieces.peek().is_none() {
                    END_HEADERS
                } else {
                    0
                };
                calls.send(&frame(kind, flags, stream, piece));
                kind = CONTINUATION;
            }
        }
        Box::new(calls)
    });
}

/// What an endpoint answers first, to who connects now.
fn is_served(node: &Node, port: &str) {
    let request = match port {
        "grpc" => [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat(),
        "http" => b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".to_vec(),
        _ => b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    };
    let mut client = TcpStream::connect(node.addr(port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&request).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    let is_right = if port == "grpc" {
        answer[3] == SETTINGS
    } else {
        answer == *b"HTTP/1.1 200"
    };
    assert!(is_right, "{port}: {}", answer.escape_ascii());
}

/// Connects from this address of the machine, and says nothing.
fn silent(node: &Node, port: &str, last: u8) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let from = SocketAddr::from(([127, 0, 0, last], 0));
    rustix::net::bind(&socket, &from).unwrap();
    let to: SocketAddr = node.addr(port).parse().unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

fn check_crowd(port: &str, addresses: u8) {
    raise_open_files();
    let node = Node::start_at(&Place::new(), &[]);
    node.deploy(&Function::python("echo", "def fn(input): return input\n"));
    let mut crowd = Vec::new();
    for turn in 0..10_000_u32 {
        let last = u8::try_from(turn % u32::from(addresses)).unwrap() + 1;
        crowd.push(silent(&node, port, last));
    }
    // The last of the crowd, which says nothing, still has its time when the next one is answered.
    let newest = silent(&node, port, 1);
    is_served(&node, port);
    newest.set_nonblocking(true).unwrap();
    let seen = newest.peek(&mut [0]).map_err(|error| error.kind());
    assert_eq!(seen, Err(ErrorKind::WouldBlock), "it is idle and open");
    drop(crowd);
    for other in ["http", "grpc", "management"] {
        is_served(&node, other);
    }
}

#[test]
fn a_crowd_from_one_address_makes_nobody_wait() {
    for port in ["http", "grpc", "management"] {
        check_crowd(port, 1);
    }
}

#[test]
fn a_crowd_from_many_addresses_makes_nobody_wait() {
    for port in ["http", "grpc", "management"] {
        check_crowd(port, 50);
    }
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
    let mut crowd: Vec<_> = (0..1000).map(|_| sent(&node, "http", request)).collect();
    node.deploy(&Function::python("other", "def fn(input): return input\n"));
    // As long as every open connection is busy, a new one is closed: the calls of the crowd end, its
    // connections stay.
    for client in &mut crowd {
        drop(client.read(&mut [0]));
    }
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
