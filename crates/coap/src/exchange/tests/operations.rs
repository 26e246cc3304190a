//! Block-wise operations beside each other, and how their errors are told.

use super::*;

#[test]
fn an_error_goes_out_whole_whatever_block_was_asked_for() {
    let errors = [
        Code::NOT_FOUND,
        Code::INTERNAL_SERVER_ERROR,
        Code::SERVICE_UNAVAILABLE,
        Code::GATEWAY_TIMEOUT,
    ];
    for (code, bytes, expected) in errors
        .into_iter()
        .flat_map(|c| [(c, 40, 40), (c, 5000, 1024)])
    {
        let mut table = Table::new();
        let later = block(2048, false, 4);
        ask(&mut table, 1, Code::GET, &[(option::BLOCK2, &later)], b"");
        let mut response = Response::new(code);
        response.payload = vec![b'e'; bytes].into();
        let id = table.runs().remove(0).id;
        table.server.respond(table.now, id, response);
        let said = table.said();
        assert_eq!(short(&said), [(ACK, code, 1, b"tok".to_vec(), expected)]);
        let sent = Message::parse(&said[0]).unwrap();
        assert_eq!(sent.options.get(option::BLOCK2), None);
        assert_eq!(sent.options.get(option::ETAG), None);
    }
}

#[test]
fn operations_with_different_request_tags_keep_their_own_responses() {
    let mut table = Table::new();
    let first = block(0, false, 1);
    let second = block(32, false, 1);
    for (id, tag, byte) in [(1, b"a", b'a'), (2, b"b", b'b')] {
        let options: [(u16, &[u8]); 2] = [(option::BLOCK1, &first), (option::REQUEST_TAG, tag)];
        ask(&mut table, id, Code::POST, &options, b"x");
        table.reply(&[byte; 1500]);
    }
    let mut fetch = |id, tag: Option<&[u8]>| {
        let mut options: Vec<(u16, &[u8])> = vec![(option::BLOCK2, &second)];
        options.extend(tag.map(|tag| (option::REQUEST_TAG, tag)));
        let said = ask(&mut table, id, Code::POST, &options, b"");
        let sent = Message::parse(&said[0]).unwrap();
        (sent.code, sent.payload.first().copied())
    };
    assert_eq!(fetch(3, Some(b"a")), (Code::CONTENT, Some(b'a')));
    assert_eq!(fetch(4, Some(b"b")), (Code::CONTENT, Some(b'b')));
    assert_eq!(fetch(5, None), (Code::CONTENT, Some(b'b')), "the newest");
    assert_eq!(fetch(6, Some(b"c")).0, Code::REQUEST_ENTITY_INCOMPLETE);
}

#[test]
fn fetches_with_different_payloads_keep_their_own_responses() {
    let mut table = Table::new();
    for (id, query, byte) in [(1, &b"one"[..], b'1'), (2, b"two", b'2')] {
        ask(&mut table, id, Code::FETCH, &[], query);
        table.reply(&[byte; 1500]);
    }
    let second = block(1024, false, 6);
    for (id, query, byte) in [(3, &b"one"[..], b'1'), (4, b"two", b'2')] {
        let said = ask(
            &mut table,
            id,
            Code::FETCH,
            &[(option::BLOCK2, &second)],
            query,
        );
        assert_eq!(Message::parse(&said[0]).unwrap().payload, [byte; 476]);
    }
    assert!(table.runs().is_empty());
}

#[test]
fn a_late_duplicate_of_the_first_block_does_not_begin_again() {
    let mut table = Table::new();
    let blocks = [block(0, true, 0), block(16, true, 0), block(32, false, 0)];
    let mut send = |id: u16, at: usize| {
        ask(
            &mut table,
            id,
            Code::POST,
            &[(option::BLOCK1, &blocks[at])],
            &[7; 16],
        )
    };
    send(1, 0);
    send(2, 1);
    assert_eq!(codes(&send(1, 0)), [(ACK, Code::CONTINUE)]);
    send(3, 2);
    assert_eq!(table.runs().remove(0).payload, [7; 48][..]);
    // Under another id it is a new upload.
    let mut send = |id: u16, at: usize| {
        ask(
            &mut table,
            id,
            Code::POST,
            &[(option::BLOCK1, &blocks[at])],
            &[7; 16],
        )
    };
    send(11, 0);
    send(12, 0);
    assert_eq!(
        codes(&send(13, 2)),
        [(ACK, Code::REQUEST_ENTITY_INCOMPLETE)]
    );
}

#[test]
fn a_client_that_wants_no_response_is_told_to_send_its_next_block() {
    let mut table = Table::new();
    let first = block(0, true, 0);
    let options: [(u16, &[u8]); 2] = [(option::BLOCK1, &first), (option::NO_RESPONSE, &[26])];
    let said = ask(&mut table, 1, Code::POST, &options, &[7; 16]);
    assert_eq!(codes(&said), [(ACK, Code::CONTINUE)]);
}

#[test]
fn a_body_is_run_though_a_later_block_of_its_response_is_asked_for() {
    let mut table = Table::new();
    let (whole, second) = (block(0, false, 1), block(32, false, 1));
    ask(
        &mut table,
        1,
        Code::POST,
        &[(option::BLOCK1, &whole)],
        b"old",
    );
    table.reply(&[b'o'; 1500]);
    let options: [(u16, &[u8]); 2] = [(option::BLOCK1, &whole), (option::BLOCK2, &second)];
    ask(&mut table, 2, Code::POST, &options, b"new");
    assert_eq!(table.server.requests[0].payload, &b"new"[..]);
    let said = table.reply(&[b'n'; 1500]);
    assert_eq!(Message::parse(&said[0]).unwrap().payload, [b'n'; 32]);
}
