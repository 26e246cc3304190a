//! One datagram, read as a message: what can be read is written again as the same message.
#![no_main]

use coap::{Encoder, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::parse(data) else {
        return;
    };
    let (kind, code, id) = (message.kind, message.code, message.message_id);
    let mut again = Encoder::new(kind, code, id, message.token);
    for (number, value) in message.options.iter() {
        again.option(number, value);
        let _block = coap::Block::parse(value);
    }
    let again = again.finish(message.payload);
    let read = Message::parse(&again).expect("what was written can be read");
    assert_eq!((read.kind, read.code, read.message_id), (kind, code, id));
    assert_eq!(read.token.as_bytes(), message.token.as_bytes());
    assert!(read.options.iter().eq(message.options.iter()));
    assert_eq!(read.payload, message.payload);
});
