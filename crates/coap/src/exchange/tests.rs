mod bounds;
mod operations;

use super::*;
use crate::option;

/// A server, its time, and one peer to speak with it.
struct Table {
    server: Server<u8>,
    now: Instant,
}

/// What the server said, for short: kind, code, message id, token, payload length.
type Said = (Kind, Code, u16, Vec<u8>, usize);

const CON: Kind = Kind::Confirmable;
const NON: Kind = Kind::NonConfirmable;
const ACK: Kind = Kind::Acknowledgement;
const RST: Kind = Kind::Reset;

impl Table {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self::within(config, &Budget::new(1 << 30, 1 << 30))
    }

    fn within(config: Config, budget: &Arc<Budget>) -> Self {
        Self {
            server: Server::new(config, [42, 43], &Budgets::new(budget)),
            now: Instant::now(),
        }
    }

    fn hear(&mut self, datagram: &[u8]) -> Vec<Bytes> {
        self.server.receive(self.now, 1, datagram);
        self.said()
    }

    fn said(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.server.poll_transmit().map(|(_, datagram)| datagram)).collect()
    }

    fn pass(&mut self, time: Duration) -> Vec<Bytes> {
        self.now += time;
        self.server.expire(self.now);
        self.said()
    }

    fn runs(&mut self) -> Vec<Request<u8>> {
        std::iter::from_fn(|| self.server.poll_request()).collect()
    }

    /// Runs the one request that waits, with this as its reply.
    fn reply(&mut self, payload: &[u8]) -> Vec<Bytes> {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "one request waits");
        let mut response = Response::new(Code::CONTENT);
        response.payload = Bytes::copy_from_slice(payload);
        self.server.respond(self.now, runs[0].id, response);
        self.said()
    }
}

fn short(datagrams: &[Bytes]) -> Vec<Said> {
    let short = |datagram: &Bytes| {
        let m = Message::parse(datagram).unwrap();
        let token = m.token.as_bytes().to_vec();
        (m.kind, m.code, m.message_id, token, m.payload.len())
    };
    datagrams.iter().map(short).collect()
}

fn codes(datagrams: &[Bytes]) -> Vec<(Kind, Code)> {
    let short = short(datagrams).into_iter();
    short.map(|(kind, code, ..)| (kind, code)).collect()
}

fn message(head: (Kind, Code, u16), options: &[(u16, &[u8])], payload: &[u8]) -> Bytes {
    let (kind, code, message_id) = head;
    let mut encoder = Encoder::new(kind, code, message_id, Token::new(b"tok").unwrap());
    for (number, value) in options {
        encoder.option(*number, value);
    }
    encoder.finish(payload)
}

/// Sends a request with these options beside its path and returns what is said to it.
fn ask(
    table: &mut Table,
    id: u16,
    code: Code,
    options: &[(u16, &[u8])],
    payload: &[u8],
) -> Vec<Bytes> {
    let mut all: Vec<(u16, &[u8])> = vec![(option::URI_PATH, b"f")];
    all.extend_from_slice(options);
    all.sort_by_key(|(number, _)| *number);
    table.hear(&message((CON, code, id), &all, payload))
}

fn get(message_id: u16) -> Bytes {
    message(
        (CON, Code::GET, message_id),
        &[(option::URI_PATH, b"f")],
        b"",
    )
}

fn block_of(datagram: &Bytes, number: u16) -> Option<(u32, bool, usize)> {
    let message = Message::parse(datagram).unwrap();
    let block = Block::parse(message.options.get(number)?).unwrap();
    Some((block.num(), block.more, block.size()))
}

fn block(offset: usize, more: bool, szx: u8) -> Vec<u8> {
    let value = Block::at(offset, more, szx)
        .unwrap()
        .to_uint()
        .to_be_bytes();
    value[1..].to_vec()
}

#[test]
fn a_quick_response_is_piggybacked() {
    let mut table = Table::new();
    assert!(table.hear(&get(7)).is_empty());
    let said = table.reply(b"hello");
    assert_eq!(short(&said), [(ACK, Code::CONTENT, 7, b"tok".to_vec(), 5)]);
    assert!(table.server.is_idle());
    assert!(table.pass(Duration::from_secs(100)).is_empty());
}

#[test]
fn a_request_is_taken_apart() {
    let mut table = Table::new();
    let options: [(u16, &[u8]); 9] = [
        (option::IF_MATCH, b"\x01"),
        (option::URI_HOST, b"host"),
        (option::URI_PORT, &[0x16, 0x33]),
        (option::URI_PATH, b"a"),
        (option::URI_PATH, b"b/c"),
        (option::CONTENT_FORMAT, &[50]),
        (option::URI_QUERY, b"x=1"),
        (option::URI_QUERY, b"y=2"),
        (option::ACCEPT, &[]),
    ];
    table.hear(&message((CON, Code::FETCH, 1), &options, b"body"));
    let request = table.runs().remove(0);
    assert_eq!(request.method, "FETCH");
    assert_eq!(request.path, "/a/b%2Fc");
    assert_eq!(request.query, "x=1&y=2");
    assert_eq!(request.host.as_deref(), Some("host"));
    assert_eq!(
        (request.content_format, request.accept),
        (Some(50), Some(0))
    );
    assert_eq!(request.if_match, [[1]]);
    assert_eq!(request.payload, &b"body"[..]);
}

#[test]
fn a_duplicate_is_answered_from_memory() {
    let mut table = Table::new();
    table.hear(&get(7));
    let first = table.reply(b"hello");
    assert_eq!(table.hear(&get(7)), first);
    table.pass(EXCHANGE_LIFETIME - Duration::from_secs(1));
    assert_eq!(table.hear(&get(7)), first);
    assert!(table.runs().is_empty());
    table.pass(Duration::from_secs(2));
    table.hear(&get(7));
    assert_eq!(table.runs().len(), 1, "the id means another message now");
}

#[test]
fn a_duplicate_of_a_non_confirmable_request_is_ignored() {
    let mut table = Table::new();
    let request = message((NON, Code::GET, 7), &[(option::URI_PATH, b"f")], b"");
    table.hear(&request);
    let said = table.reply(b"hello");
    assert_eq!(codes(&said), [(NON, Code::CONTENT)]);
    assert!(table.hear(&request).is_empty());
    assert!(table.runs().is_empty());
}

#[test]
fn peers_do_not_share_message_ids() {
    let mut table = Table::new();
    table.server.receive(table.now, 1, &get(7));
    table.server.receive(table.now, 2, &get(7));
    assert_eq!(table.runs().len(), 2);
}

#[test]
fn a_slow_response_is_separate_and_sent_until_it_is_acknowledged() {
    let mut table = Table::new();
    table.hear(&get(7));
    assert!(table.pass(Duration::from_millis(900)).is_empty());
    let said = table.pass(Duration::from_millis(200));
    assert_eq!(short(&said), [(ACK, Code::EMPTY, 7, vec![], 0)]);
    assert_eq!(codes(&table.hear(&get(7))), [(ACK, Code::EMPTY)]);
    let response = table.reply(b"late");
    assert_eq!(codes(&response), [(CON, Code::CONTENT)]);
    let own_id = Message::parse(&response[0]).unwrap().message_id;
    assert_eq!(codes(&table.hear(&get(7))), [(ACK, Code::EMPTY)]);
    assert_eq!(table.pass(Duration::from_secs(3)), response);
    assert!(!table.server.is_idle());
    table.hear(&Encoder::empty(ACK, own_id));
    assert!(table.server.is_idle());
    assert!(table.pass(Duration::from_secs(100)).is_empty());
    assert!(table.runs().is_empty());
}

#[test]
fn a_separate_response_is_given_up_after_four_retransmissions_or_a_reset() {
    for reset in [false, true] {
        let mut table = Table::new();
        table.hear(&get(7));
        table.pass(Duration::from_secs(1));
        let response = table.reply(b"late");
        if reset {
            let own_id = Message::parse(&response[0]).unwrap().message_id;
            table.hear(&Encoder::empty(RST, own_id));
        }
        let mut sent = 0;
        while let Some(due) = table.server.deadline() {
            sent += table.pass(due - table.now).len();
        }
        assert_eq!(sent, if reset { 0 } else { 4 });
        assert!(table.server.is_idle());
    }
}

#[test]
fn a_duplicate_of_a_running_request_is_acknowledged_at_once() {
    let mut table = Table::new();
    table.hear(&get(7));
    let said = table.hear(&get(7));
    assert_eq!(short(&said), [(ACK, Code::EMPTY, 7, vec![], 0)]);
    assert!(table.pass(Duration::from_millis(1100)).is_empty());
    assert_eq!(codes(&table.reply(b"x")), [(CON, Code::CONTENT)]);
}

#[test]
fn what_is_not_understood_is_refused_as_the_rfc_says() {
    let check = |datagram: &[u8], expected: &[(Kind, Code)]| {
        let mut table = Table::new();
        assert_eq!(codes(&table.hear(datagram)), expected, "{datagram:02x?}");
        assert!(table.runs().is_empty());
    };
    let request = |kind, code, options: &[(u16, &[u8])]| message((kind, code, 1), options, b"");
    let bad_option = [(ACK, Code::BAD_OPTION)];
    let reset = [(RST, Code::EMPTY)];
    check(&Encoder::empty(CON, 1), &reset);
    check(&Encoder::empty(NON, 1), &[]);
    check(&Encoder::empty(ACK, 1), &[]);
    check(&[0x40, 1, 0, 1, 0xff], &reset);
    check(&[0x50, 1, 0, 1, 0xff], &[]);
    check(&[0x80, 1, 0, 1], &[]);
    check(&[0x40], &[]);
    check(&request(CON, Code::new(1, 1), &[]), &reset);
    check(&request(NON, Code::new(7, 1), &[]), &[]);
    check(&request(CON, Code::CONTENT, &[]), &reset);
    check(
        &request(CON, Code::new(0, 9), &[]),
        &[(ACK, Code::METHOD_NOT_ALLOWED)],
    );
    check(
        &request(NON, Code::new(0, 9), &[]),
        &[(NON, Code::METHOD_NOT_ALLOWED)],
    );
    check(&request(CON, Code::GET, &[(9, b"")]), &bad_option);
    check(&request(NON, Code::GET, &[(9, b"")]), &[]);
    check(
        &request(CON, Code::GET, &[(option::URI_PATH, b"\xff")]),
        &bad_option,
    );
    check(
        &request(CON, Code::GET, &[(option::URI_PATH, &[b'a'; 256])]),
        &bad_option,
    );
    check(
        &request(
            CON,
            Code::GET,
            &[(option::ACCEPT, &[1]), (option::ACCEPT, &[1])],
        ),
        &bad_option,
    );
    check(
        &request(CON, Code::GET, &[(option::BLOCK2, &[0, 0, 0, 1])]),
        &bad_option,
    );
    check(
        &request(CON, Code::GET, &[(option::BLOCK2, &[7])]),
        &[(ACK, Code::BAD_REQUEST)],
    );
    let proxying = [(ACK, Code::PROXYING_NOT_SUPPORTED)];
    check(
        &request(CON, Code::GET, &[(option::PROXY_URI, b"coap://a")]),
        &proxying,
    );
    check(
        &request(CON, Code::GET, &[(option::PROXY_SCHEME, b"http")]),
        &proxying,
    );
}

#[test]
fn elective_options_that_are_unknown_are_ignored() {
    let mut table = Table::new();
    table.hear(&message(
        (CON, Code::GET, 1),
        &[(10, b"x"), (12, b"abc"), (2048, b"")],
        b"",
    ));
    assert_eq!(table.runs().len(), 1);
}

#[test]
fn a_client_that_wants_no_response_gets_an_acknowledgement_alone() {
    let check = |kind, mask: u8, expected: &[(Kind, Code)]| {
        let mut table = Table::new();
        table.hear(&message(
            (kind, Code::POST, 1),
            &[(option::NO_RESPONSE, &[mask])],
            b"",
        ));
        assert_eq!(codes(&table.reply(b"x")), expected);
    };
    check(CON, 2, &[(ACK, Code::EMPTY)]);
    check(CON, 8, &[(ACK, Code::CONTENT)]);
    check(NON, 26, &[]);
    check(NON, 24, &[(NON, Code::CONTENT)]);
}

#[test]
fn a_body_is_put_together_from_its_blocks() {
    let mut table = Table::new();
    let body: Vec<u8> = (0..100).collect();
    for (at, part) in body.chunks(32).enumerate() {
        let id = u16::try_from(at).unwrap();
        let value = block(at * 32, at < 3, 1);
        let said = table.hear(&message(
            (CON, Code::POST, id),
            &[(option::BLOCK1, &value)],
            part,
        ));
        if at < 3 {
            assert_eq!(codes(&said), [(ACK, Code::CONTINUE)]);
            let echoed = Some((u32::from(id), true, 32));
            assert_eq!(block_of(&said[0], option::BLOCK1), echoed);
        }
    }
    assert_eq!(table.server.requests[0].payload, body);
    let said = table.reply(b"done");
    assert_eq!(block_of(&said[0], option::BLOCK1), Some((3, false, 32)));
}

#[test]
fn blocks_that_do_not_follow_are_refused() {
    let check = |blocks: &[(usize, bool, usize)], expected: Code| {
        let mut table = Table::new();
        let mut last = None;
        for (id, (offset, more, bytes)) in (0..).zip(blocks) {
            let value = block(*offset, *more, 1);
            let options: [(u16, &[u8]); 1] = [(option::BLOCK1, &value)];
            let said = table.hear(&message((CON, Code::POST, id), &options, &vec![1; *bytes]));
            last = codes(&said).first().copied();
        }
        assert_eq!(last, Some((ACK, expected)), "{blocks:?}");
    };
    check(&[(32, true, 32)], Code::REQUEST_ENTITY_INCOMPLETE);
    check(
        &[(0, true, 32), (64, true, 32)],
        Code::REQUEST_ENTITY_INCOMPLETE,
    );
    check(
        &[(0, true, 32), (32, true, 32), (32, true, 32)],
        Code::CONTINUE,
    );
    check(
        &[(0, true, 32), (0, true, 32), (32, true, 32)],
        Code::CONTINUE,
    );
    check(&[(0, true, 31)], Code::BAD_REQUEST);
    check(&[(0, false, 33)], Code::BAD_REQUEST);
}

#[test]
fn uploads_with_different_request_tags_do_not_mix() {
    let mut table = Table::new();
    let mut send = |id, offset, more, tag: &[u8], byte| {
        let value = block(offset, more, 0);
        let options: [(u16, &[u8]); 2] = [(option::BLOCK1, &value), (option::REQUEST_TAG, tag)];
        table.hear(&message((CON, Code::POST, id), &options, &[byte; 16]));
    };
    send(1, 0, true, b"a", b'a');
    send(2, 0, true, b"b", b'b');
    send(3, 16, false, b"a", b'a');
    send(4, 16, false, b"b", b'b');
    let payloads: Vec<_> = table.runs().into_iter().map(|r| r.payload).collect();
    assert_eq!(payloads, [&[b'a'; 32][..], &[b'b'; 32][..]]);
}

#[test]
fn a_body_over_the_bound_is_refused_with_the_bound() {
    let config = Config {
        payload_bytes_max: 40,
        ..Config::default()
    };
    let size1 = |said: &[Bytes]| {
        assert_eq!(codes(said), [(ACK, Code::REQUEST_ENTITY_TOO_LARGE)]);
        let message = Message::parse(&said[0]).unwrap();
        message.options.get(option::SIZE1).and_then(option::uint)
    };
    let mut table = Table::with(config);
    let said = table.hear(&message((CON, Code::POST, 1), &[], &[0; 41]));
    assert_eq!(size1(&said), Some(40));
    let first = block(0, true, 1);
    let announced: [(u16, &[u8]); 2] = [(option::BLOCK1, &first), (option::SIZE1, &[41])];
    let said = table.hear(&message((CON, Code::POST, 2), &announced, &[0; 32]));
    assert_eq!(size1(&said), Some(40));
    let said = table.hear(&message((CON, Code::POST, 3), &announced[..1], &[0; 32]));
    assert_eq!(codes(&said), [(ACK, Code::CONTINUE)]);
    let second = block(32, true, 1);
    let said = table.hear(&message(
        (CON, Code::POST, 4),
        &[(option::BLOCK1, &second)],
        &[0; 32],
    ));
    assert_eq!(size1(&said), Some(40));
}

#[test]
fn a_response_is_fetched_in_blocks_and_run_once() {
    let mut table = Table::new();
    let body: Vec<u8> = (0..=255).cycle().take(2500).collect();
    table.hear(&get(0));
    let first = table.reply(&body).remove(0);
    assert_eq!(block_of(&first, option::BLOCK2), Some((0, true, 1024)));
    let message_of = Message::parse(&first).unwrap();
    let size2 = message_of.options.get(option::SIZE2).and_then(option::uint);
    assert_eq!(size2, Some(2500));
    let etag = message_of.options.get(option::ETAG).unwrap();
    let mut fetched = message_of.payload.to_vec();
    // The client changes to smaller blocks on its way.
    for (id, offset) in (1..).zip((1024..2500).step_by(512)) {
        let value = block(offset, false, 5);
        let options: [(u16, &[u8]); 2] = [(option::URI_PATH, b"f"), (option::BLOCK2, &value)];
        let said = table.hear(&message((CON, Code::GET, id), &options, b""));
        let part = Message::parse(&said[0]).unwrap();
        assert_eq!(part.options.get(option::ETAG), Some(etag));
        fetched.extend_from_slice(part.payload);
    }
    assert_eq!(fetched, body);
    assert!(table.runs().is_empty());
    let behind = block(3072, false, 6);
    let options: [(u16, &[u8]); 2] = [(option::URI_PATH, b"f"), (option::BLOCK2, &behind)];
    let said = table.hear(&message((CON, Code::GET, 99), &options, b""));
    assert_eq!(codes(&said), [(ACK, Code::BAD_REQUEST)]);
}

#[test]
fn a_later_block_that_is_not_kept_is_run_again_for_get_alone() {
    let value = block(32, false, 1);
    let options: [(u16, &[u8]); 1] = [(option::BLOCK2, &value)];
    let mut table = Table::new();
    table.hear(&message((CON, Code::GET, 1), &options, b""));
    let said = table.reply(&[7; 50]);
    assert_eq!(block_of(&said[0], option::BLOCK2), Some((1, false, 32)));
    assert_eq!(short(&said)[0].4, 18);
    let said = table.hear(&message((CON, Code::POST, 2), &options, b""));
    assert_eq!(codes(&said), [(ACK, Code::REQUEST_ENTITY_INCOMPLETE)]);
    assert!(table.runs().is_empty());
}

#[test]
fn memory_is_bounded() {
    let mut table = Table::with(Config {
        exchanges_max: 10,
        transfer_bytes_max: 8192,
        ..Config::default()
    });
    for id in 0..1000_u16 {
        table.hear(&get(id));
        if let Some(request) = table.runs().pop() {
            let mut response = Response::new(Code::CONTENT);
            response.payload = Bytes::from(vec![0; 2000]);
            table.server.respond(table.now, request.id, response);
        }
        let value = block(0, true, 6);
        let tag = id.to_be_bytes();
        let options: [(u16, &[u8]); 2] = [(option::BLOCK1, &value), (option::REQUEST_TAG, &tag)];
        table.hear(&message((CON, Code::PUT, id + 1000), &options, &[0; 1024]));
    }
    assert!(table.server.seen.len() <= 10);
    assert!(table.server.transfers.bytes() <= 8192);
    assert!(table.server.running.is_empty());
}

#[test]
fn too_many_at_once_and_a_stopping_server_are_refused_for_now() {
    let mut table = Table::with(Config {
        exchanges_max: 2,
        ..Config::default()
    });
    table.hear(&get(1));
    table.hear(&get(2));
    let refused = [(ACK, Code::SERVICE_UNAVAILABLE)];
    assert_eq!(codes(&table.hear(&get(3))), refused);
    let mut table = Table::new();
    table.hear(&get(1));
    table.server.stop();
    let said = table.hear(&get(2));
    assert_eq!(codes(&said), refused);
    let max_age = Message::parse(&said[0]).unwrap();
    assert_eq!(max_age.options.get(option::MAX_AGE), Some(&[1][..]));
    assert!(!table.server.is_idle());
    assert_eq!(codes(&table.reply(b"x")), [(ACK, Code::CONTENT)]);
    assert!(table.server.is_idle());
}
