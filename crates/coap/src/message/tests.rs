use super::*;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet};
use proptest::collection::vec;
use proptest::prelude::*;

type OptionList = Vec<(u16, Vec<u8>)>;

fn kinds() -> impl Strategy<Value = (Kind, MessageType)> {
    prop_oneof![
        Just((Kind::Confirmable, MessageType::Confirmable)),
        Just((Kind::NonConfirmable, MessageType::NonConfirmable)),
        Just((Kind::Acknowledgement, MessageType::Acknowledgement)),
        Just((Kind::Reset, MessageType::Reset)),
    ]
}

/// Options in the order of their numbers, with every form of delta and length.
fn options() -> impl Strategy<Value = OptionList> {
    let number = prop_oneof![0..40_u16, 0..1000_u16, any::<u16>()];
    let value = prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..400)];
    vec((number, value), 0..12).prop_map(|mut options| {
        options.sort_by_key(|(number, _)| *number);
        options
    })
}

fn encode(head: (Kind, u8, u16), token: &[u8], options: &OptionList, payload: &[u8]) -> Bytes {
    let (kind, code, message_id) = head;
    let token = Token::new(token).unwrap();
    let mut encoder = Encoder::new(kind, Code::from_byte(code), message_id, token);
    for (number, value) in options {
        encoder.option(*number, value);
    }
    encoder.finish(payload)
}

proptest! {
    #[test]
    fn another_codec_reads_what_this_one_writes(
        (kind, oracle_kind) in kinds(),
        code in 1..=255_u8,
        message_id in any::<u16>(),
        token in vec(any::<u8>(), 0..=8),
        options in options(),
        payload in vec(any::<u8>(), 0..100),
    ) {
        let datagram = encode((kind, code, message_id), &token, &options, &payload);
        let oracle = Packet::from_bytes(&datagram).unwrap();
        prop_assert_eq!(oracle.header.get_type(), oracle_kind);
        prop_assert_eq!(oracle.header.message_id, message_id);
        prop_assert_eq!(oracle.get_token(), &token[..]);
        prop_assert_eq!(&oracle.payload, &payload);
        let read: OptionList = oracle
            .options()
            .flat_map(|(number, values)| values.iter().map(|v| (*number, v.clone())))
            .collect();
        prop_assert_eq!(read, options);
    }

    #[test]
    fn this_codec_reads_what_another_one_writes(
        (kind, oracle_kind) in kinds(),
        message_id in any::<u16>(),
        token in vec(any::<u8>(), 0..=8),
        options in options(),
        payload in vec(any::<u8>(), 0..100),
    ) {
        let mut oracle = Packet::new();
        oracle.header.set_type(oracle_kind);
        oracle.header.code = MessageClass::from(0x45);
        oracle.header.message_id = message_id;
        oracle.set_token(token.clone());
        for (number, value) in &options {
            oracle.add_option(CoapOption::from(*number), value.clone());
        }
        oracle.payload.clone_from(&payload);
        let datagram = oracle.to_bytes_with_limit(usize::MAX).unwrap();
        let message = Message::parse(&datagram).unwrap();
        prop_assert_eq!(message.kind, kind);
        prop_assert_eq!(message.code, Code::CONTENT);
        prop_assert_eq!(message.message_id, message_id);
        prop_assert_eq!(message.token.as_bytes(), &token[..]);
        prop_assert_eq!(message.payload, &payload[..]);
        let read: OptionList = message.options.iter().map(|(n, v)| (n, v.to_vec())).collect();
        prop_assert_eq!(read, options);
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut datagram in vec(any::<u8>(), 0..200), valid in any::<bool>()) {
        if let (true, Some(first)) = (valid, datagram.first_mut()) {
            *first = (*first & 0x3f) | 0x40;
        }
        if let Ok(message) = Message::parse(&datagram) {
            let options: OptionList = message.options.iter().map(|(n, v)| (n, v.to_vec())).collect();
            let head = (message.kind, message.code.to_byte(), message.message_id);
            let again = encode(head, message.token.as_bytes(), &options, message.payload);
            let again = Message::parse(&again).unwrap();
            let read: OptionList = again.options.iter().map(|(n, v)| (n, v.to_vec())).collect();
            prop_assert_eq!(read, options);
            prop_assert_eq!(again.payload, message.payload);
        }
    }

    #[test]
    fn no_byte_after_a_cut_is_read(options in options(), cut in any::<prop::sample::Index>()) {
        let datagram = encode((Kind::Confirmable, 1, 7), b"token", &options, b"payload");
        let part = &datagram[..cut.index(datagram.len())];
        if let Ok(message) = Message::parse(part) {
            prop_assert!(message.payload.len() <= part.len());
        }
    }
}

#[test]
fn malformed_messages_are_told_apart() {
    let malformed = |datagram: &[u8]| match Message::parse(datagram) {
        Err(ParseError::Malformed { message_id, .. }) => Some(message_id),
        Err(ParseError::TooShort(_) | ParseError::Version(_)) | Ok(_) => None,
    };
    let check = |datagram: &[u8]| assert_eq!(malformed(datagram), Some(0x1234), "{datagram:?}");
    check(&[0x49, 1, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    check(&[0x4f, 1, 0x12, 0x34]);
    check(&[0x42, 1, 0x12, 0x34, 1]);
    check(&[0x40, 0, 0x12, 0x34, 1]);
    check(&[0x41, 0, 0x12, 0x34, 1]);
    check(&[0x40, 1, 0x12, 0x34, 0xff]);
    check(&[0x40, 1, 0x12, 0x34, 0xf0]);
    check(&[0x40, 1, 0x12, 0x34, 0x0f]);
    check(&[0x40, 1, 0x12, 0x34, 0xb5, b'a']);
    check(&[0x40, 1, 0x12, 0x34, 0xe0, 0xff]);
    check(&[0x40, 1, 0x12, 0x34, 0xe0, 0xff, 0xff]);
    assert_eq!(
        Message::parse(&[0x40, 1, 0]).unwrap_err(),
        ParseError::TooShort(3)
    );
    assert_eq!(
        Message::parse(&[0x80, 1, 0, 0]).unwrap_err(),
        ParseError::Version(2)
    );
    assert!(Message::parse(&[0x40, 0, 0, 0]).is_ok());
}
