//! What a `fn.cgi` prints: header fields, an empty line, a body.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(reply) = runtime_binary::fuzzing::cgi(data) {
        assert!((200..600).contains(&reply.status));
        assert!(data.ends_with(&reply.payload));
    }
});
