//! From a response to a datagram, and on which message it travels.

use super::{Origin, Server};
use crate::block::Block;
use crate::code::Code;
use crate::deduplicator::Outcome;
use crate::message::{Encoder, Kind};
use crate::option;
use crate::peer::Peer;
use bytes::Bytes;
use std::time::Instant;

/// One message of a response.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) code: Code,
    pub(super) etag: Option<[u8; 8]>,
    pub(super) content_format: Option<u16>,
    pub(super) max_age: Option<u32>,
    pub(super) block2: Option<Block>,
    pub(super) block1: Option<Block>,
    pub(super) size2: Option<u32>,
    pub(super) size1: Option<u32>,
    pub(super) payload: &'a [u8],
}

impl Answer<'_> {
    pub(super) const fn new(code: Code) -> Self {
        Self {
            code,
            etag: None,
            content_format: None,
            max_age: None,
            block2: None,
            block1: None,
            size2: None,
            size1: None,
            payload: &[],
        }
    }

    /// The options in the order of their numbers, then the payload.
    fn encode<P>(&self, kind: Kind, message_id: u16, origin: &Origin<P>) -> Bytes {
        let mut encoder = Encoder::new(kind, self.code, message_id, origin.token);
        if let Some(etag) = self.etag {
            encoder.option(option::ETAG, &etag);
        }
        let uints = [
            (option::CONTENT_FORMAT, self.content_format.map(u32::from)),
            (option::MAX_AGE, self.max_age),
            (option::BLOCK2, self.block2.map(Block::to_uint)),
            (option::BLOCK1, self.block1.map(Block::to_uint)),
            (option::SIZE2, self.size2),
            (option::SIZE1, self.size1),
        ];
        for (number, value) in uints {
            if let Some(value) = value {
                encoder.uint(number, value);
            }
        }
        encoder.finish(self.payload)
    }

    /// Whether the client asked not to be answered so (RFC 7967 section 2.1). Without a Continue
    /// it could not send its next block, so that is always sent.
    fn is_unwanted(&self, no_response: u8) -> bool {
        self.code != Code::CONTINUE && no_response & (1 << (self.code.class() - 1)) != 0
    }
}

impl<P: Peer> Server<P> {
    /// Sends a message of a response: piggybacked on the acknowledgement if that was not sent,
    /// else as a message of its own.
    pub(super) fn send(&mut self, now: Instant, origin: &Origin<P>, answer: &Answer<'_>) {
        let (peer, message_id) = (origin.peer.clone(), origin.message_id);
        let is_confirmable = origin.kind == Kind::Confirmable;
        if answer.is_unwanted(origin.no_response) {
            if is_confirmable && !origin.is_acknowledged {
                self.seen.settle(&peer, message_id, Outcome::Acknowledged);
                self.empty(peer, Kind::Acknowledgement, message_id);
            }
            return;
        }
        if is_confirmable && !origin.is_acknowledged {
            let datagram = answer.encode(Kind::Acknowledgement, message_id, origin);
            let outcome = Outcome::Answered(datagram.clone());
            self.seen.settle(&peer, message_id, outcome);
            return self.outgoing.push_back((peer, datagram));
        }
        let own_id = message_id.wrapping_add(self.message_id_offset(&peer));
        if is_confirmable {
            let datagram = answer.encode(Kind::Confirmable, own_id, origin);
            let timeout = self.spread.first_timeout();
            self.separate
                .send(now, (peer.clone(), own_id), datagram.clone(), timeout);
            self.outgoing.push_back((peer, datagram));
        } else {
            self.seen.settle(&peer, message_id, Outcome::Silent);
            let datagram = answer.encode(Kind::NonConfirmable, own_id, origin);
            self.outgoing.push_back((peer, datagram));
        }
    }
}
