//! A block of header fields as a handler sends it: what is taken has only names and values that may
//! go out to a caller.
#![no_main]

use bytes::Bytes;
use faas::Headers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(headers) = Headers::parse(Bytes::copy_from_slice(data)) else {
        return;
    };
    for (name, value) in headers.iter() {
        assert!(!name.is_empty());
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    let fields = headers.iter().map(|(name, value)| (name.as_bytes(), value));
    let again = Headers::collect(fields).expect("fields that were taken are taken again");
    assert!(again.iter().eq(headers.iter()));
});
