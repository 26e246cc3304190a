//! What one host, or many requests that run nothing, can take of a server.

use super::*;

#[test]
fn what_ran_nothing_is_not_remembered() {
    let mut table = Table::new();
    for id in 0..100 {
        ask(&mut table, id, Code::GET, &[], b"");
        let mut response = Response::new(Code::NOT_FOUND);
        response.has_run = false;
        let id = table.runs().remove(0).id;
        table.server.respond(table.now, id, response);
    }
    ask(&mut table, 200, Code::GET, &[(9, b"")], b"");
    let first = block(0, true, 1);
    ask(
        &mut table,
        201,
        Code::POST,
        &[(option::BLOCK1, &first)],
        &[0; 32],
    );
    assert_eq!(table.server.seen.len(), 0);
    ask(&mut table, 202, Code::GET, &[], b"");
    table.reply(b"ran");
    assert_eq!(table.server.seen.len(), 1, "the control");
}

#[test]
fn message_ids_of_one_peer_tell_nothing_of_those_of_another() {
    let mut table = Table::new();
    let mut offset = |peer: u8, id: u16| {
        table.server.receive(table.now, peer, &get(id));
        table.pass(Duration::from_secs(1));
        let said = table.reply(b"late");
        Message::parse(&said[0])
            .unwrap()
            .message_id
            .wrapping_sub(id)
    };
    let mut offsets: Vec<_> = (1..=50).map(|peer| offset(peer, 7)).collect();
    assert_eq!(offset(1, 8), offsets[0], "as unique as the ids of the peer");
    offsets.sort_unstable();
    offsets.dedup();
    assert!(offsets.len() > 45, "{} of 50 differ", offsets.len());
}

#[test]
fn unfinished_uploads_count_with_all_they_hold() {
    let mut table = Table::with(Config {
        transfer_bytes_max: 1 << 20,
        ..Config::default()
    });
    let first = block(0, true, 0);
    let long = [b'k'; 255];
    for id in 0..2500_u16 {
        let tag = id.to_be_bytes();
        let mut options: Vec<(u16, &[u8])> = vec![(option::URI_QUERY, &long); 200];
        options.push((option::BLOCK1, &first));
        options.push((option::REQUEST_TAG, &tag));
        ask(&mut table, id, Code::PUT, &options, &[0; 16]);
    }
    // A key has one length however long the options are, and each entry counts its overhead.
    assert!(table.server.transfers.len() <= (1 << 20) / 512);
    assert!(table.server.transfers.bytes() <= 1 << 20);
}

#[test]
fn one_host_can_not_take_all_room_of_requests_that_run() {
    let mut table = Table::with(Config {
        transfer_bytes_max: 1 << 20,
        ..Config::default()
    });
    let post = |id: u16| message((CON, Code::POST, id), &[], &[0; 1000]);
    let mut refused = 0;
    for id in 0..1000 {
        refused += table.hear(&post(id)).len();
    }
    assert!(refused > 800, "{refused}");
    table.server.receive(table.now, 2, &post(1));
    assert!(table.said().is_empty(), "another host has room");
    for request in table.runs() {
        table
            .server
            .respond(table.now, request.id, Response::new(Code::CHANGED));
    }
    assert_eq!(table.server.running_bytes, 0);
    assert!(table.server.accounts.is_empty());
}

#[test]
fn one_host_does_not_push_out_the_uploads_of_another() {
    let mut table = Table::with(Config {
        transfer_bytes_max: 64 << 10,
        ..Config::default()
    });
    let first = block(0, true, 6);
    let honest = message((CON, Code::PUT, 1), &[(option::BLOCK1, &first)], &[1; 1024]);
    table.server.receive(table.now, 2, &honest);
    for id in 0..1000_u16 {
        let tag = id.to_be_bytes();
        let options: [(u16, &[u8]); 2] = [(option::BLOCK1, &first), (option::REQUEST_TAG, &tag)];
        table.hear(&message((CON, Code::PUT, id), &options, &[0; 1024]));
    }
    let last = block(1024, false, 6);
    let rest = message((CON, Code::PUT, 2), &[(option::BLOCK1, &last)], &[2; 10]);
    table.server.receive(table.now, 2, &rest);
    assert_eq!(table.runs().remove(0).payload.len(), 1034);
}

#[test]
fn a_flood_leaves_no_room_taken() {
    let mut table = Table::new();
    for id in 0..20_000 {
        table.hear(&get(id));
        table.reply(b"x");
    }
    assert!(table.server.seen.capacity() > 20_000, "the control");
    table.pass(EXCHANGE_LIFETIME + Duration::from_secs(20));
    assert!(table.server.seen.capacity() < 100);
    assert_eq!(table.server.deadline(), None);
}

/// A server whose clients may hold 1 MiB, half of it each, and half of both between messages.
fn tight() -> (Table, Arc<Budget>) {
    let budget = Budget::new(1 << 20, 512 << 10);
    (Table::within(Config::default(), &budget), budget)
}

fn upload(from: u8, id: u16) -> (u8, Bytes) {
    let (first, tag) = (block(0, true, 6), id.to_be_bytes());
    let options: [(u16, &[u8]); 2] = [(option::BLOCK1, &first), (option::REQUEST_TAG, &tag)];
    (from, message((CON, Code::PUT, id), &options, &[0; 1024]))
}

#[test]
fn what_is_held_for_clients_is_taken_from_the_budget_and_given_back() {
    let (mut table, budget) = tight();
    let kept = |budget: &Arc<Budget>| budget.held_bytes();
    let (_, begun) = upload(1, 1);
    table.hear(&begun);
    let with_upload = kept(&budget);
    assert!(with_upload >= 1024, "{with_upload}");
    let body = vec![7; 2000];
    ask(&mut table, 2, Code::GET, &[], b"");
    assert!(kept(&budget) >= with_upload + RUNNING_OVERHEAD_BYTES);
    table.reply(&body);
    assert!(kept(&budget) >= with_upload + body.len());
    table.hear(&get(3));
    table.pass(Duration::from_secs(1));
    let waits = kept(&budget);
    table.reply(b"late");
    assert!(!table.server.separate.is_empty() && kept(&budget) < waits + 1024);
    for _ in 0..8 {
        table.pass(EXCHANGE_LIFETIME);
    }
    assert_eq!((budget.held_bytes(), budget.peers()), (0, 0));
}

#[test]
fn a_flood_of_any_kind_stays_within_the_share_and_leaves_room_for_others() {
    let (mut table, budget) = tight();
    let mut refused = 0;
    for id in 0..5000_u16 {
        let (from, begun) = upload(1, id);
        table.server.receive(table.now, from, &begun);
        table.hear(&get(id.wrapping_add(20_000)));
        for request in table.runs() {
            let mut response = Response::new(Code::CONTENT);
            response.payload = Bytes::from(vec![0; 5000]);
            table.server.respond(table.now, request.id, response);
        }
        refused += usize::from(codes(&table.said()).contains(&(ACK, Code::SERVICE_UNAVAILABLE)));
        assert!(budget.held_bytes() <= 512 << 10);
    }
    assert_eq!(refused, 0, "what is kept between messages makes room");
    assert!(budget.held_bytes() > 200 << 10, "the control");
    table.server.receive(table.now, 2, &get(1));
    assert_eq!(table.runs().len(), 1);
}

#[test]
fn what_others_hold_of_the_budget_is_refused_with_5_03() {
    let (mut table, budget) = tight();
    let others: Vec<_> = [3, 4]
        .map(|host: u8| budget.share(host.host()).hold(512 << 10).unwrap())
        .into();
    let told = table.hear(&get(1));
    assert_eq!(codes(&told), [(ACK, Code::SERVICE_UNAVAILABLE)]);
    let (_, begun) = upload(1, 2);
    let told = table.hear(&begun);
    assert_eq!(codes(&told), [(ACK, Code::SERVICE_UNAVAILABLE)]);
    assert!(table.runs().is_empty());
    drop(others);
    table.hear(&get(1));
    assert_eq!(table.runs().len(), 1, "it was not remembered, so it runs");
}

#[test]
fn requests_that_run_take_a_share_and_others_get_theirs() {
    let (mut table, budget) = tight();
    let post = |id: u16| message((CON, Code::POST, id), &[], &[0; 1000]);
    let mut refused = 0;
    for id in 0..1000 {
        refused += table.hear(&post(id)).len();
    }
    assert!(refused > 400, "{refused}");
    assert!(budget.held_bytes() <= 512 << 10);
    table.server.receive(table.now, 2, &post(1));
    assert!(table.said().is_empty(), "another host has room");
}

#[test]
fn an_answer_for_which_there_is_no_memory_is_not_remembered() {
    let (mut table, budget) = tight();
    table.hear(&get(1));
    let rest: Vec<_> = (3..=4)
        .filter_map(|host: u8| {
            let share = budget.share(host.host());
            let free = (1 << 20) - budget.held_bytes();
            share.hold(free.min(512 << 10)).ok()
        })
        .collect();
    assert_eq!(budget.held_bytes(), 1 << 20);
    let answer = table.reply(&[1; 1000]);
    assert_eq!(codes(&answer), [(ACK, Code::CONTENT)]);
    drop(rest);
    assert!(budget.held_bytes() < 4096);
}

#[test]
fn a_client_that_uses_each_message_id_once_is_remembered_whole() {
    // What a node gives to all clients, and to one host: half of that between messages.
    let budget = Budget::new(128 << 20, 64 << 20);
    let mut table = Table::within(Config::default(), &budget);
    // A host may use an id once in that time (RFC 7252 section 4.4), so this is its fastest pace.
    let pause = EXCHANGE_LIFETIME / (1 << 16);
    let post = |id: u16| message((CON, Code::POST, id), &[], b"");
    for id in 0..=u16::MAX {
        table.hear(&post(id));
        table.reply(&[b'r'; 64]);
        table.now += pause;
    }
    // The oldest is due to be forgotten in a moment; every other is answered again, not run again.
    for id in [1, 1000, 30_000, u16::MAX] {
        let said = table.hear(&post(id));
        assert_eq!(said.len(), 1, "{id}");
        assert!(table.runs().is_empty(), "{id} is run once");
    }
    table.now += EXCHANGE_LIFETIME;
    table.hear(&post(1000));
    assert_eq!(table.runs().len(), 1, "by then it is another message");
}

#[test]
fn a_host_past_its_room_forgets_its_oldest_and_is_not_refused() {
    let (mut table, _budget) = tight();
    let post = |id: u16| message((CON, Code::POST, id), &[], b"");
    for id in 0..5000 {
        table.hear(&post(id));
        let said = table.reply(b"ran");
        assert_eq!(short(&said)[0].1, Code::CONTENT, "{id} is served");
    }
    table.hear(&post(4999));
    assert!(table.runs().is_empty(), "the newest is remembered");
    table.hear(&post(0));
    assert_eq!(table.runs().len(), 1, "the oldest is not");
}
