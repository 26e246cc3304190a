//! Bodies in blocks: uploads are put together, downloads are kept and cut, RFC 7959.

use super::answer::Answer;
use super::{Origin, Response, Running, Server, unavailable};
use crate::block::{Block, SZX_MAX};
use crate::code::Code;
use crate::message::Message;
use crate::peer::Peer;
use crate::request::{Head, Refusal, upload_identity};
use crate::transfer::{Direction, Key, NotKept, Representation, Upload};
use bytes::Bytes;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// What one message carries at most.
const BLOCK_BYTES_MAX: usize = 16 << SZX_MAX;

impl<P: Peer> Server<P> {
    /// The body of a request that is not in blocks.
    pub(super) fn single(&self, head: &Head, payload: &[u8]) -> Result<Bytes, Refusal> {
        self.check_size(head, payload.len())?;
        Ok(Bytes::copy_from_slice(payload))
    }

    /// Takes a block of a request's body. Returns the body where it is whole now; answers for
    /// itself where it isn't.
    pub(super) fn upload(
        &mut self,
        now: Instant,
        origin: &Origin<P>,
        message: &Message<'_>,
        head: &Head,
        block: Block,
    ) -> Result<Option<Bytes>, Refusal> {
        let key = Key {
            peer: origin.peer.clone(),
            direction: Direction::Upload,
            request: upload_identity(message, &self.digests),
        };
        check_block(block, message.payload)?;
        let (offset, end) = (block.offset(), block.offset() + message.payload.len());
        if let Err(refusal) = self.check_size(head, end) {
            self.transfers.remove_key(&key);
            return Err(refusal);
        }
        let begun = self.transfers.upload(&key);
        // The message came before; what was answered to it was lost.
        let is_duplicate = begun.is_some_and(|upload| upload.first_message_id == origin.message_id);
        let have = match begun {
            Some(upload) if block.num() > 0 || is_duplicate => upload.body.len(),
            Some(_) | None => 0,
        };
        // So it was for a block that comes again under another message id.
        if (offset > 0 || is_duplicate) && end <= have && block.more {
            self.go_on(now, origin, block);
            return Ok(None);
        }
        if offset != have {
            return Err(Refusal {
                code: Code::REQUEST_ENTITY_INCOMPLETE,
                text: format!("block {} came out of order; begin again at 0", block.num()),
            });
        }
        let begun = self.transfers.take_upload(&key);
        let mut upload = begun.filter(|_| offset > 0).unwrap_or_else(|| Upload {
            body: Vec::new(),
            first_message_id: origin.message_id,
        });
        upload.body.extend_from_slice(message.payload);
        if !block.more {
            return Ok(Some(upload.body.into()));
        }
        match self.transfers.put_upload(now, key, upload) {
            Ok(()) => {}
            Err(NotKept::TooLarge) => return Err(too_large(self.config.transfer_bytes_max)),
            Err(NotKept::Spent(spent)) => return Err(unavailable(&spent)),
        }
        self.go_on(now, origin, block);
        Ok(None)
    }

    fn go_on(&mut self, now: Instant, origin: &Origin<P>, block: Block) {
        let mut answer = Answer::new(Code::CONTINUE);
        answer.block1 = Some(block);
        self.send(now, origin, &answer);
    }

    fn check_size(&self, head: &Head, len: usize) -> Result<(), Refusal> {
        let announced = head.size1.and_then(|size| usize::try_from(size).ok());
        let len = len.max(announced.unwrap_or_default());
        if len > self.config.payload_bytes_max {
            return Err(too_large(self.config.payload_bytes_max));
        }
        Ok(())
    }

    /// Answers a request that was run: with the whole response where it fits, else with the block
    /// that was asked for, keeping the response for the others.
    pub(super) fn answer_whole(&mut self, now: Instant, run: &Running<P>, response: Response) {
        let asked = run.block2.or_else(|| Block::at(0, false, SZX_MAX));
        let fits = asked.is_none_or(|block| response.payload.len() <= block.size());
        if is_sent_whole(run.block2, fits, &response) {
            let mut answer = Answer::new(response.code);
            answer.content_format = response.content_format;
            answer.max_age = response.max_age;
            answer.block1 = run.block1;
            answer.payload = &response.payload[..response.payload.len().min(BLOCK_BYTES_MAX)];
            return self.send(now, &run.origin, &answer);
        }
        let kept = Representation {
            code: response.code,
            content_format: response.content_format,
            max_age: response.max_age,
            etag: etag(&response),
            body: response.payload,
        };
        if !fits {
            let key = Key {
                peer: run.origin.peer.clone(),
                direction: Direction::Download,
                request: run.download,
            };
            let refusal = match self.transfers.put_download(now, key, kept.clone()) {
                Ok(()) => None,
                Err(NotKept::TooLarge) => Some(Refusal {
                    code: Code::INTERNAL_SERVER_ERROR,
                    text: "the response is too large to be sent in blocks".to_owned(),
                }),
                Err(NotKept::Spent(spent)) => Some(unavailable(&spent)),
            };
            if let Some(refusal) = refusal {
                return self.refuse(now, &run.origin, &refusal);
            }
        }
        if let Some(block2) = asked {
            self.answer_block(now, &run.origin, &kept, (run.block1, block2));
        }
    }

    /// Answers with one block of a response.
    pub(super) fn answer_block(
        &mut self,
        now: Instant,
        origin: &Origin<P>,
        kept: &Representation,
        (block1, block2): (Option<Block>, Block),
    ) {
        let Some((block, payload)) = block2.slice(&kept.body) else {
            let mut answer = Answer::new(Code::BAD_REQUEST);
            answer.payload = b"the response has no such block";
            return self.send(now, origin, &answer);
        };
        let is_first_of_many = block.num() == 0 && block.more;
        let size = u32::try_from(kept.body.len()).ok();
        let mut answer = Answer::new(kept.code);
        answer.etag = Some(kept.etag);
        answer.content_format = kept.content_format;
        answer.max_age = kept.max_age;
        answer.block1 = block1;
        answer.block2 = Some(block);
        answer.size2 = size.filter(|_| is_first_of_many);
        answer.payload = payload;
        self.send(now, origin, &answer);
    }
}

/// Whether a response goes out without Block2 and `ETag`: one that fits and was not asked for in
/// blocks, and an error. A later block of an error is of no use to a client that did not get the
/// first, so it gets the beginning.
fn is_sent_whole(asked: Option<Block>, fits: bool, response: &Response) -> bool {
    let is_error = response.code.class() != 2;
    let is_later = asked.is_some_and(|block| block.num() > 0);
    let is_short = response.payload.len() <= BLOCK_BYTES_MAX;
    (asked.is_none() && fits) || (is_error && (is_short || is_later))
}

/// Only the last block may be shorter than its size, and none is longer.
fn check_block(block: Block, payload: &[u8]) -> Result<(), Refusal> {
    let is_whole = payload.len() == block.size();
    let is_last = !block.more && payload.len() <= block.size();
    if is_whole || is_last {
        return Ok(());
    }
    let size = block.size();
    Err(Refusal {
        code: Code::BAD_REQUEST,
        text: format!("a block of size {size} carries {} bytes", payload.len()),
    })
}

fn too_large(bytes_max: usize) -> Refusal {
    Refusal {
        code: Code::REQUEST_ENTITY_TOO_LARGE,
        text: format!("the request's body is larger than {bytes_max} bytes"),
    }
}

/// Names the response by what is in it, so that two runs with the same result fit together.
fn etag(response: &Response) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    response.code.hash(&mut hasher);
    response.content_format.hash(&mut hasher);
    response.payload.hash(&mut hasher);
    hasher.finish().to_be_bytes()
}
