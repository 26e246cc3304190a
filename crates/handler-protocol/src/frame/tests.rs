use super::*;
use proptest::prelude::*;

#[test]
fn a_request_comes_back_as_it_was_sent() {
    let mut sent = Invocation::new(
        "PUT",
        Bytes::from_static(b"/a/b"),
        Bytes::from_static(b"body"),
    );
    sent.query = Bytes::from_static(b"x=1&y=%20");
    sent.headers = Headers::collect([(&b"x-a"[..], &b"1"[..])]).unwrap();
    let mut buffer = BytesMut::new();
    encode_request(&mut buffer, 7, &sent, Duration::from_millis(1500)).unwrap();
    encode_cancel(&mut buffer, 7);
    encode_ping(&mut buffer, b"p");
    let FromProxy::Request {
        id,
        invocation,
        time_left,
        method,
        path,
        query,
        headers,
        payload,
    } = decode_from_proxy(&mut buffer).unwrap().unwrap()
    else {
        panic!("no request");
    };
    assert_eq!(
        (id, invocation, time_left.as_millis()),
        (7, sent.id.get(), 1500)
    );
    assert_eq!((method, path, query), (sent.method, sent.path, sent.query));
    assert_eq!((headers, payload), (sent.headers, sent.payload));
    assert!(matches!(
        decode_from_proxy(&mut buffer),
        Ok(Some(FromProxy::Cancel { id: 7 }))
    ));
    assert!(matches!(decode_from_proxy(&mut buffer), Ok(Some(FromProxy::Ping(p))) if p == "p"));
    assert!(decode_from_proxy(&mut buffer).unwrap().is_none());
}

#[test]
fn what_a_handler_sends_comes_back() {
    let headers = Headers::collect([(&b"content-type"[..], &b"a/b"[..])]).unwrap();
    let reply = faas::Reply {
        status: 404,
        headers,
        payload: Bytes::from_static(b"no"),
    };
    let mut buffer = BytesMut::new();
    encode_hello(&mut buffer, 16);
    encode_reply(&mut buffer, 3, &reply).unwrap();
    encode_failure(&mut buffer, 4, "ValueError: x");
    encode_not_begun(&mut buffer, 5);
    encode_pong(&mut buffer, b"p");
    encode_failed(&mut buffer, "Traceback");
    encode_leaving(&mut buffer);
    let failed = Outcome::Failed("ValueError: x".into());
    for expected in [
        FromHandler::Hello { at_once: 16 },
        FromHandler::Reply {
            id: 3,
            outcome: Outcome::Reply(reply),
        },
        FromHandler::Reply {
            id: 4,
            outcome: failed,
        },
        FromHandler::Reply {
            id: 5,
            outcome: Outcome::NotBegun,
        },
        FromHandler::Pong,
        FromHandler::Failed("Traceback".into()),
        FromHandler::Leaving,
    ] {
        assert_eq!(decode_from_handler(&mut buffer), Ok(Some(expected)));
    }
}

#[test]
fn frames_that_break_the_protocol_are_refused() {
    let check = |bytes: &[u8], expected: FrameError| {
        let mut buffer = BytesMut::from(bytes);
        assert_eq!(decode_from_handler(&mut buffer), Err(expected), "{bytes:?}");
    };
    check(&[0, 0, 0, 11], FrameError::Length(15));
    check(
        &[0xff, 0xff, 0xff, 0xff],
        FrameError::Length(u32::MAX as usize + 4),
    );
    check(
        &[0, 0, 0, 12, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
        FrameError::Kind(9),
    );
    check(
        &[0, 0, 0, 12, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        FrameError::Kind(2),
    );
    check(
        &[0, 0, 0, 13, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        FrameError::Part("body"),
    );
    check(
        &[0, 0, 0, 12, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1],
        FrameError::Version(2),
    );
    check(
        &[0, 0, 0, 12, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0],
        FrameError::Malformed("at once"),
    );
    check(
        &[0, 0, 0, 12, 0, 0, 0, 1, 3, 0, 0, 7, 0, 0, 0, 0],
        FrameError::Malformed("status"),
    );
    check(
        &[0, 0, 0, 12, 0, 0, 0, 1, 3, 0, 0, 200, 0, 0, 0, 1],
        FrameError::Part("header block"),
    );
}

#[test]
fn a_reply_with_capitals_in_a_name_breaks_the_protocol() {
    let reply = |name: &'static [u8]| {
        let mut block = BytesMut::new();
        block.put_slice(&[0, 14, 0, 1]);
        block.put_slice(name);
        block.put_u8(b'5');
        let mut out = BytesMut::new();
        let header = Header {
            id: 1,
            kind: kind::REPLY,
            flags: 0,
            word: 200,
        };
        put_header(&mut out, header, block.len(), block.len()).unwrap();
        out.put_slice(&block);
        decode_from_handler(&mut out)
    };
    let refused = Err(FrameError::Malformed("header block"));
    assert_eq!(reply(b"Content-Length"), refused);
    assert!(reply(b"content-length").is_ok());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode_from_handler(&mut buffer) {}
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode_from_proxy(&mut buffer) {}
    }
}
