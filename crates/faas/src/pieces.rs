//! What is written, sent on in pieces.

use bytes::Bytes;
use std::io::{self, Write};

/// How large a piece is.
pub const PIECE_BYTES: usize = 256 << 10;

/// Collects what is written and sends it on, piece by piece; the last one when it is flushed.
#[derive(Debug)]
pub struct Pieces<S> {
    send: S,
    piece: Vec<u8>,
}

impl<S: FnMut(Bytes) -> io::Result<()>> Pieces<S> {
    /// Sends pieces in this way, which may wait until there is room for another.
    pub fn new(send: S) -> Self {
        Self {
            send,
            piece: Vec::with_capacity(PIECE_BYTES),
        }
    }
}

impl<S: FnMut(Bytes) -> io::Result<()>> Write for Pieces<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        if piece.is_empty() {
            return Ok(());
        }
        (self.send)(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_sent_in_its_order_and_nothing_empty() {
        let mut sent = Vec::new();
        let mut pieces = Pieces::new(|piece| {
            sent.push(piece);
            Ok(())
        });
        let written: Vec<u8> = (0..=255).cycle().take(3 * PIECE_BYTES / 2).collect();
        for part in written.chunks(1000) {
            pieces.write_all(part).unwrap();
        }
        pieces.flush().unwrap();
        pieces.flush().unwrap();
        assert_eq!(sent.len(), 2);
        assert_eq!(sent.concat(), written);
    }
}
