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
    assert!(table.server.host_bytes.is_empty());
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
