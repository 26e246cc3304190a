//! The frames of the handler protocol, in pieces: both decoders end, take no frame twice, and see the
//! same in pieces as in one.
#![no_main]

use bytes::BytesMut;
use handler_protocol::frame::{FrameError, decode_from_handler, decode_from_proxy};
use libfuzzer_sys::fuzz_target;
use std::fmt::Debug;

fuzz_target!(|data: &[u8]| {
    let [piece, frames @ ..] = data else { return };
    let piece = usize::from(*piece).max(1);
    check(frames, piece, decode_from_handler);
    check(frames, piece, decode_from_proxy);
});

type Decode<T> = fn(&mut BytesMut) -> Result<Option<T>, FrameError>;

fn check<T: Debug>(frames: &[u8], piece: usize, decode: Decode<T>) {
    let whole = decoded(std::iter::once(frames), decode);
    let pieces = decoded(frames.chunks(piece), decode);
    assert_eq!(whole, pieces);
}

/// What is decoded, as text, and how it ends.
fn decoded<'a, T: Debug>(pieces: impl Iterator<Item = &'a [u8]>, decode: Decode<T>) -> Vec<String> {
    let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => seen.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
    }
    seen
}
