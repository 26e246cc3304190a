//! A client and a server with a network between them that loses, doubles and reorders.

use super::*;
use crate::exchange::{Budgets, Config, Response, Server};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// What the network does to a datagram, in hundredths.
#[derive(Debug, Clone, Copy)]
struct Network {
    lost: u64,
    doubled: u64,
    delay_ms_max: u64,
}

const PERFECT: Network = Network {
    lost: 0,
    doubled: 0,
    delay_ms_max: 1,
};

fn budgets() -> Budgets {
    Budgets::new(&net::Budget::new(1 << 30, 1 << 30))
}

/// What came of a request, and how often each was run.
struct Outcome {
    result: Result<ClientResponse, ClientError>,
    runs: usize,
    body_seen: Bytes,
    took: Duration,
}

enum Delivery {
    ToServer(Bytes),
    ToClient(Bytes),
    Respond(crate::RequestId, Response),
}

struct World {
    now: Instant,
    network: Network,
    spread: Spread,
    deliveries: BTreeMap<(Instant, u64), Delivery>,
    sequence: u64,
}

impl World {
    fn after(&mut self, delay: Duration, delivery: Delivery) {
        self.sequence += 1;
        self.deliveries
            .insert((self.now + delay, self.sequence), delivery);
    }

    fn send(&mut self, datagram: &Bytes, wrap: fn(Bytes) -> Delivery) {
        let copies = 1 + u64::from(self.spread.next() % 100 < self.network.doubled);
        for _ in 0..copies {
            if self.spread.next() % 100 >= self.network.lost {
                let delay = self.spread.next() % self.network.delay_ms_max;
                self.after(Duration::from_millis(delay), wrap(datagram.clone()));
            }
        }
    }
}

/// Runs a request against a function that replies with `reply` after `run_time`.
fn run(
    request: ClientRequest,
    config: ClientConfig,
    (network, seed): (Network, u64),
    (run_time, reply): (Duration, &Bytes),
) -> Outcome {
    let start = Instant::now();
    let mut world = World {
        now: start,
        network,
        spread: Spread::new(seed),
        deliveries: BTreeMap::new(),
        sequence: 0,
    };
    let mut server = Server::new(Config::default(), [seed.wrapping_mul(3), 1], &budgets());
    let mut client = Client::new(start, request, config, seed.wrapping_mul(7) + 1);
    let mut runs = 0;
    let mut body_seen = Bytes::new();
    loop {
        while let Some(datagram) = client.poll_transmit() {
            world.send(&datagram, Delivery::ToServer);
        }
        while let Some(request) = server.poll_request() {
            runs += 1;
            body_seen = request.payload;
            let mut response = Response::new(Code::CONTENT);
            response.payload = reply.clone();
            world.after(run_time, Delivery::Respond(request.id, response));
        }
        while let Some((_, datagram)) = server.poll_transmit() {
            world.send(&datagram, Delivery::ToClient);
        }
        if let Some(result) = client.result() {
            return Outcome {
                result: result.clone(),
                runs,
                body_seen,
                took: world.now - start,
            };
        }
        let next = world.deliveries.first_key_value().map(|((at, _), _)| *at);
        let wake = [next, client.deadline(), server.deadline()];
        let wake = wake.into_iter().flatten().min();
        world.now = world.now.max(wake.expect("somebody waits for something"));
        let now = world.now;
        if let Some(entry) = world.deliveries.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Delivery::ToServer(datagram) => server.receive(now, 1_u8, &datagram),
                Delivery::ToClient(datagram) => client.receive(now, &datagram),
                Delivery::Respond(id, response) => server.respond(now, id, response),
            }
        }
        client.expire(now);
        server.expire(now);
    }
}

fn body(bytes: usize) -> Bytes {
    let numbers = (0..bytes).map(|n| u8::try_from(n * 31 % 251).unwrap());
    numbers.collect::<Vec<_>>().into()
}

fn post(payload: &Bytes) -> ClientRequest {
    ClientRequest {
        payload: payload.clone(),
        ..ClientRequest::new(Code::POST, "/echo")
    }
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    for szx in [0, 2, 6] {
        for bytes in [0, 1, 15, 16, 17, 1023, 1024, 1025, 5000] {
            let body = body(bytes);
            let config = ClientConfig {
                szx,
                ..ClientConfig::default()
            };
            let quick = (Duration::from_millis(1), &body);
            let outcome = run(post(&body), config, (PERFECT, 1), quick);
            assert_eq!(outcome.result.unwrap().payload, body, "{bytes} at {szx}");
            assert_eq!(outcome.body_seen, body);
            assert_eq!(outcome.runs, 1);
        }
    }
}

#[test]
fn a_slow_function_is_awaited_without_sending_again() {
    let (sent, reply) = (body(10), body(100_000));
    let slow = (Duration::from_secs(40), &reply);
    let outcome = run(post(&sent), ClientConfig::default(), (PERFECT, 5), slow);
    assert_eq!(outcome.result.unwrap().payload, reply);
    assert_eq!(outcome.runs, 1);
    assert!(outcome.took < Duration::from_secs(41));
}

#[test]
fn a_non_confirmable_request_is_answered() {
    let reply = body(3000);
    let request = ClientRequest {
        is_confirmable: false,
        ..ClientRequest::new(Code::GET, "/big")
    };
    let quick = (Duration::from_millis(5), &reply);
    let outcome = run(request, ClientConfig::default(), (PERFECT, 9), quick);
    assert_eq!(outcome.result.unwrap().payload, reply);
}

#[test]
fn silence_is_an_error_that_says_what_to_do() {
    let network = Network {
        lost: 100,
        ..PERFECT
    };
    let reply = body(1);
    let quick = (Duration::ZERO, &reply);
    let outcome = run(post(&body(1)), ClientConfig::default(), (network, 3), quick);
    assert_eq!(outcome.result.unwrap_err(), ClientError::NoAnswer(5));
    // MAX_TRANSMIT_WAIT is 93 s, RFC 7252 section 4.8.2.
    assert!((62..=93).contains(&outcome.took.as_secs()));
}

#[test]
fn a_reset_ends_the_request() {
    let now = Instant::now();
    let mut client = Client::new(now, post(&body(1)), ClientConfig::default(), 1);
    let sent = client.poll_transmit().unwrap();
    let message_id = Message::parse(&sent).unwrap().message_id;
    client.receive(
        now,
        &Encoder::empty(Kind::Reset, message_id.wrapping_add(1)),
    );
    assert_eq!(client.result(), None);
    client.receive(now, &Encoder::empty(Kind::Reset, message_id));
    assert_eq!(client.result(), Some(&Err(ClientError::Reset)));
    assert_eq!(client.deadline(), None);
}

/// Answers what the client sent last, piggybacked.
fn answer(client: &mut Client, code: Code, uints: &[(u16, Option<Block>)], payload: &[u8]) {
    let sent = client.poll_transmit().unwrap();
    let sent = Message::parse(&sent).unwrap();
    let kind = Kind::Acknowledgement;
    let mut encoder = Encoder::new(kind, code, sent.message_id, sent.token);
    for (number, block) in uints {
        encoder.uint(*number, block.unwrap().to_uint());
    }
    client.receive(Instant::now(), &encoder.finish(payload));
}

#[test]
fn a_request_begins_anew_only_where_it_was_surely_not_run() {
    const INCOMPLETE: Code = Code::REQUEST_ENTITY_INCOMPLETE;
    let block1 = |number: usize, more| (option::BLOCK1, Block::at(number * 1024, more, SZX_MAX));
    let new = |method, bytes| {
        let mut request = ClientRequest::new(method, "/echo");
        request.payload = body(bytes);
        Client::new(Instant::now(), request, ClientConfig::default(), 1)
    };
    let refused = |client: &Client| {
        let result = client.result();
        result.is_some_and(|r| r.as_ref().is_ok_and(|r| r.code == INCOMPLETE))
    };

    // The function said so itself.
    let mut client = new(Code::POST, 10);
    answer(&mut client, INCOMPLETE, &[], b"");
    assert!(refused(&client));
    let mut client = new(Code::POST, 2000);
    answer(&mut client, Code::CONTINUE, &[block1(0, true)], b"");
    answer(&mut client, INCOMPLETE, &[block1(1, false)], b"");
    assert!(refused(&client));

    // The server has forgotten the first blocks.
    let mut client = new(Code::POST, 2000);
    answer(&mut client, Code::CONTINUE, &[block1(0, true)], b"");
    answer(&mut client, INCOMPLETE, &[], b"");
    let again = client.poll_transmit().unwrap();
    let again = Message::parse(&again).unwrap();
    assert_eq!(block(&again, option::BLOCK1), Block::at(0, true, SZX_MAX));

    // The server has forgotten the response: only what is safe is asked again.
    for (method, is_asked) in [(Code::GET, true), (Code::FETCH, true), (Code::POST, false)] {
        let mut client = new(method, 0);
        let first = (option::BLOCK2, Block::at(0, true, SZX_MAX));
        answer(&mut client, Code::CONTENT, &[first], &body(1024));
        answer(&mut client, INCOMPLETE, &[], b"");
        assert_eq!(client.poll_transmit().is_some(), is_asked, "{method}");
        assert_eq!(refused(&client), !is_asked, "{method}");
    }
}

#[test]
fn a_body_over_the_bound_is_refused() {
    let reply = body(4000);
    let config = ClientConfig {
        payload_bytes_max: 3999,
        ..ClientConfig::default()
    };
    let quick = (Duration::ZERO, &reply);
    let outcome = run(post(&body(1)), config, (PERFECT, 3), quick);
    assert_eq!(outcome.result.unwrap_err(), ClientError::TooLarge(3999));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_arrives_is_whole_and_run_once_over_a_bad_network(
        seed in any::<u64>(),
        lost in 0..15_u64,
        doubled in 0..30_u64,
        delay_ms_max in 1..3000_u64,
        run_ms in prop_oneof![Just(1_u64), 500..5000_u64],
        up in 0..4000_usize,
        down in 0..4000_usize,
        szx in 3..=6_u8,
    ) {
        let network = Network { lost, doubled, delay_ms_max };
        let config = ClientConfig { szx, ..ClientConfig::default() };
        let (sent, reply) = (body(up), body(down));
        let run_time = Duration::from_millis(run_ms);
        let outcome = run(post(&sent), config, (network, seed), (run_time, &reply));
        match outcome.result {
            Ok(response) => {
                prop_assert_eq!(response.code, Code::CONTENT);
                prop_assert_eq!(response.payload, reply);
                prop_assert_eq!(outcome.body_seen, sent);
                prop_assert_eq!(outcome.runs, 1);
            }
            // Five losses in a row.
            Err(error) => prop_assert!(matches!(error, ClientError::NoAnswer(_) | ClientError::Timeout(_)), "{error}"),
        }
    }

    #[test]
    fn any_datagram_leaves_client_and_server_standing(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20),
        id_matches in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut client = Client::new(now, post(&body(2000)), ClientConfig::default(), 1);
        let mut server = Server::new(Config::default(), [1, 1], &budgets());
        let mut seen: HashMap<u16, usize> = HashMap::new();
        for mut datagram in datagrams {
            if let Some(first) = datagram.first_mut() {
                *first = (*first & 0x3f) | 0x40;
            }
            if let (true, Some(id)) = (id_matches, datagram.get_mut(2..4)) {
                id.copy_from_slice(&client.sent.message_id.to_be_bytes());
            }
            client.receive(now, &datagram);
            server.receive(now, 0_u8, &datagram);
            while let Some(request) = server.poll_request() {
                *seen.entry(0).or_default() += 1;
                server.respond(now, request.id, Response::new(Code::CONTENT));
            }
            while server.poll_transmit().is_some() {}
        }
        prop_assert!(server.is_idle());
    }
}
