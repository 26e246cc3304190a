//! The client's side of one request: sent until it is answered, block by block where it or its
//! response is large.

use crate::block::{Block, SZX_MAX};
use crate::code::Code;
use crate::message::{Encoder, Kind, Message, Token};
use crate::option::{self, uint};
use crate::transmission::{Backoff, Spread};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a transfer begins again where the server has forgotten it or its body has changed.
const RESTARTS_MAX: u32 = 3;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRequest {
    /// The method.
    pub method: Code,
    /// The Uri-Path options; see [`uri::segments`](crate::uri::segments).
    pub path: Vec<Vec<u8>>,
    /// The Uri-Query options; see [`uri::arguments`](crate::uri::arguments).
    pub query: Vec<Vec<u8>>,
    /// The Uri-Host option, where the name says more than the address.
    pub host: Option<String>,
    /// The Content-Format option.
    pub content_format: Option<u16>,
    /// The Accept option.
    pub accept: Option<u16>,
    /// The body, of any length.
    pub payload: Bytes,
    /// Whether messages are confirmable, and sent again until they are acknowledged.
    pub is_confirmable: bool,
}

impl ClientRequest {
    /// A confirmable request of a method and a path.
    #[must_use]
    pub fn new(method: Code, path: &str) -> Self {
        Self {
            method,
            path: crate::uri::segments(path),
            query: Vec::new(),
            host: None,
            content_format: None,
            accept: None,
            payload: Bytes::new(),
            is_confirmable: true,
        }
    }
}

/// How a client goes about its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// How long to wait for each response once its request was sent.
    pub response_timeout: Duration,
    /// The largest body of a response.
    pub payload_bytes_max: usize,
    /// The size exponent of the blocks, 0 to 6: 16 to 1024 bytes.
    pub szx: u8,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            response_timeout: Duration::from_secs(93),
            payload_bytes_max: 8 << 20,
            szx: SZX_MAX,
        }
    }
}

/// What a client was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientResponse {
    /// The response's code.
    pub code: Code,
    /// The Content-Format option.
    pub content_format: Option<u16>,
    /// The Max-Age option, in seconds.
    pub max_age: Option<u32>,
    /// The body, put together from its blocks.
    pub payload: Bytes,
}

/// Why a client was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody acknowledged the request, however often it was sent.
    #[error("no answer to {0} messages; check host, port and firewall")]
    NoAnswer(u32),
    /// The request was acknowledged or sent, and no response came.
    #[error("no response within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The server rejected the message.
    #[error("the server rejected the message with a reset")]
    Reset,
    /// The response can't be put together.
    #[error("the response's blocks don't fit together: {0}")]
    Blocks(&'static str),
    /// The response is larger than the client takes.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
}

/// The request that is under way: one message out of possibly many.
#[derive(Debug)]
struct Sent {
    message_id: u16,
    token: Token,
    datagram: Bytes,
    /// None when it was acknowledged or needs no acknowledgement.
    retransmit: Option<(Instant, Backoff)>,
    gives_up: Instant,
}

/// One request to one server.
///
/// After any call, send what [`Client::poll_transmit`] gives, look at [`Client::result`], and call
/// [`Client::expire`] at [`Client::deadline`].
#[derive(Debug)]
pub struct Client {
    request: ClientRequest,
    config: ClientConfig,
    spread: Spread,
    next_message_id: u16,
    sent: Sent,
    outgoing: VecDeque<Bytes>,
    /// The size of blocks that the server agreed to.
    szx: u8,
    /// How much of the request's body the server has.
    uploaded: usize,
    body: Vec<u8>,
    etag: Option<Vec<u8>>,
    restarts: u32,
    result: Option<Result<ClientResponse, ClientError>>,
}

impl Client {
    /// Begins the request. `seed` makes tokens and message ids: take one that nobody can guess.
    #[must_use]
    pub fn new(now: Instant, request: ClientRequest, config: ClientConfig, seed: u64) -> Self {
        let mut spread = Spread::new(seed);
        let next_message_id = u16::try_from(spread.next() >> 48).unwrap_or_default();
        let szx = config.szx.min(SZX_MAX);
        let sent = Sent {
            message_id: 0,
            token: Token::EMPTY,
            datagram: Bytes::new(),
            retransmit: None,
            gives_up: now,
        };
        let mut client = Self {
            request,
            config,
            spread,
            next_message_id,
            sent,
            outgoing: VecDeque::new(),
            szx,
            uploaded: 0,
            body: Vec::new(),
            etag: None,
            restarts: 0,
            result: None,
        };
        client.send(now);
        client
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.outgoing.pop_front()
    }

    /// What came of the request, once it is known.
    #[must_use]
    pub fn result(&self) -> Option<&Result<ClientResponse, ClientError>> {
        self.result.as_ref()
    }

    /// When [`Client::expire`] is to be called next; none once there is a result.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.result.is_some() {
            return None;
        }
        let retransmit = self.sent.retransmit.as_ref().map(|(due, _)| *due);
        Some(retransmit.map_or(self.sent.gives_up, |due| due.min(self.sent.gives_up)))
    }

    /// Sends again or gives up, where that is due.
    pub fn expire(&mut self, now: Instant) {
        if self.result.is_some() {
            return;
        }
        if let Some((due, backoff)) = &mut self.sent.retransmit
            && *due <= now
        {
            if !backoff.advance() {
                let messages = crate::transmission::MAX_RETRANSMIT + 1;
                return self.fail(ClientError::NoAnswer(messages));
            }
            *due = now + backoff.timeout();
            self.outgoing.push_back(self.sent.datagram.clone());
        }
        if self.sent.gives_up <= now {
            self.fail(ClientError::Timeout(self.config.response_timeout));
        }
    }

    /// Takes a datagram from the server.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(message) = Message::parse(datagram) else {
            return;
        };
        let is_ours = message.message_id == self.sent.message_id;
        match message.kind {
            Kind::Reset if is_ours => return self.fail(ClientError::Reset),
            Kind::Acknowledgement if is_ours => self.sent.retransmit = None,
            Kind::Reset | Kind::Acknowledgement => return,
            Kind::Confirmable | Kind::NonConfirmable => {}
        }
        let is_answer = message.code.is_response() && message.token == self.sent.token;
        if message.kind == Kind::Confirmable {
            // A duplicate of what was answered is acknowledged as well; what was never asked
            // for is rejected (RFC 7252 section 4.2).
            let is_known = message.code.is_response() && (is_answer || self.result.is_some());
            let kind = if is_known {
                Kind::Acknowledgement
            } else {
                Kind::Reset
            };
            self.outgoing
                .push_back(Encoder::empty(kind, message.message_id));
        }
        if is_answer && self.result.is_none() {
            self.answer(now, &message);
        }
    }

    fn answer(&mut self, now: Instant, message: &Message<'_>) {
        self.sent.retransmit = None;
        let block1 = block(message, option::BLOCK1);
        if message.code == Code::CONTINUE {
            return self.upload_next(now, block1);
        }
        let is_uploading = self.uploaded < self.request.payload.len();
        let is_smaller = block1.is_some_and(|b| b.szx() < self.szx) && self.uploaded == 0;
        if message.code == Code::REQUEST_ENTITY_TOO_LARGE && is_uploading && is_smaller {
            self.szx = block1.map_or(self.szx, Block::szx);
            return self.send(now);
        }
        let is_forgotten = message.code == Code::REQUEST_ENTITY_INCOMPLETE;
        if is_forgotten && self.may_restart(block1) {
            return self.restart(now);
        }
        self.uploaded = self.request.payload.len();
        match block(message, option::BLOCK2) {
            Some(block2) => self.download(now, message, block2),
            None => self.finish(message, Bytes::copy_from_slice(message.payload)),
        }
    }

    fn upload_next(&mut self, now: Instant, acknowledged: Option<Block>) {
        let sent = (16 << self.szx).min(self.request.payload.len() - self.uploaded);
        let is_this = acknowledged.is_some_and(|b| b.offset() == self.uploaded);
        if !is_this || sent == 0 {
            return self.fail(ClientError::Blocks(
                "it acknowledges a block that was not sent",
            ));
        }
        self.uploaded += sent;
        // The server may want smaller blocks from now on, section 2.3 of RFC 7959.
        self.szx = acknowledged.map_or(self.szx, |b| b.szx().min(self.szx));
        if self.uploaded >= self.request.payload.len() {
            return self.fail(ClientError::Blocks("it wants more than the request has"));
        }
        self.send(now);
    }

    fn download(&mut self, now: Instant, message: &Message<'_>, block2: Block) {
        let etag = message.options.get(option::ETAG).map(<[u8]>::to_vec);
        if block2.offset() == 0 {
            self.body.clear();
            self.etag = etag;
        } else if etag != self.etag {
            return self.restart_or_fail(now, "it changed while it was fetched");
        }
        if block2.offset() != self.body.len() {
            return self.restart_or_fail(now, "a block is missing");
        }
        if block2.more && message.payload.len() != block2.size() {
            return self.fail(ClientError::Blocks("a block is shorter than its size"));
        }
        self.body.extend_from_slice(message.payload);
        if self.body.len() > self.config.payload_bytes_max {
            return self.fail(ClientError::TooLarge(self.config.payload_bytes_max));
        }
        if block2.more {
            self.szx = self.szx.min(block2.szx());
            return self.send(now);
        }
        let body = std::mem::take(&mut self.body);
        self.finish(message, body.into());
    }

    /// Whether the request may start over after a 4.08 with this Block1: where a body was not
    /// whole when the server refused a block, so that nothing was run, or where the method may
    /// run again. A 4.08 that has the last block's Block1, or none was sent, is what the request
    /// brought.
    fn may_restart(&self, refused: Option<Block>) -> bool {
        let len = self.request.payload.len();
        let block_bytes = 16 << self.szx;
        let is_upload = len > block_bytes && self.body.is_empty();
        let is_last = self.uploaded + block_bytes >= len;
        let is_unfinished = is_upload && (refused.is_none() || !is_last);
        self.restarts < RESTARTS_MAX && (is_unfinished || self.may_fetch_again())
    }

    /// Whether a response that is being fetched may be asked for again.
    fn may_fetch_again(&self) -> bool {
        !self.body.is_empty() && matches!(self.request.method, Code::GET | Code::FETCH)
    }

    fn restart_or_fail(&mut self, now: Instant, reason: &'static str) {
        if self.restarts < RESTARTS_MAX && self.may_fetch_again() {
            return self.restart(now);
        }
        self.fail(ClientError::Blocks(reason));
    }

    fn restart(&mut self, now: Instant) {
        self.restarts += 1;
        self.uploaded = 0;
        self.body.clear();
        self.send(now);
    }

    fn finish(&mut self, message: &Message<'_>, payload: Bytes) {
        let number = |number| message.options.get(number).and_then(uint);
        let format = number(option::CONTENT_FORMAT);
        self.result = Some(Ok(ClientResponse {
            code: message.code,
            content_format: format.and_then(|format| u16::try_from(format).ok()),
            max_age: number(option::MAX_AGE),
            payload,
        }));
    }

    fn fail(&mut self, error: ClientError) {
        if self.result.is_none() {
            self.result = Some(Err(error));
        }
    }

    /// Sends the next message of the request, under an id and a token of its own.
    fn send(&mut self, now: Instant) {
        self.next_message_id = self.next_message_id.wrapping_add(1);
        let message_id = self.next_message_id;
        let token = Token::new(&self.spread.next().to_be_bytes()).unwrap_or(Token::EMPTY);
        let datagram = self.encode(message_id, token);
        let timeout = self.spread.first_timeout();
        self.sent = Sent {
            message_id,
            token,
            datagram: datagram.clone(),
            retransmit: self
                .request
                .is_confirmable
                .then(|| (now + timeout, Backoff::new(timeout))),
            gives_up: now + self.config.response_timeout,
        };
        self.outgoing.push_back(datagram);
    }

    fn encode(&self, message_id: u16, token: Token) -> Bytes {
        let request = &self.request;
        let kind = if request.is_confirmable {
            Kind::Confirmable
        } else {
            Kind::NonConfirmable
        };
        let payload = &request.payload;
        let is_downloading = !self.body.is_empty();
        let is_large = payload.len() > (16 << self.szx);
        let (block1, part) = match Block::at(self.uploaded, false, self.szx) {
            Some(block) if is_large && !is_downloading => {
                let slice = block.slice(payload);
                slice.map_or((None, &[][..]), |(block, part)| (Some(block), part))
            }
            _ if is_downloading => (None, &[][..]),
            _ => (None, &payload[..]),
        };
        let asks_small = (self.szx < SZX_MAX).then_some(0);
        let from = is_downloading.then_some(self.body.len()).or(asks_small);
        let block2 = from.and_then(|offset| Block::at(offset, false, self.szx));
        let size1 = block1.filter(|block| block.num() == 0);
        let size1 = size1.and_then(|_| u32::try_from(payload.len()).ok());

        let mut encoder = Encoder::new(kind, request.method, message_id, token);
        if let Some(host) = &request.host {
            encoder.option(option::URI_HOST, host.as_bytes());
        }
        for segment in &request.path {
            encoder.option(option::URI_PATH, segment);
        }
        if let Some(format) = request.content_format {
            encoder.uint(option::CONTENT_FORMAT, format.into());
        }
        for argument in &request.query {
            encoder.option(option::URI_QUERY, argument);
        }
        let uints = [
            (option::ACCEPT, request.accept.map(u32::from)),
            (option::BLOCK2, block2.map(Block::to_uint)),
            (option::BLOCK1, block1.map(Block::to_uint)),
            (option::SIZE1, size1),
        ];
        for (number, value) in uints {
            if let Some(value) = value {
                encoder.uint(number, value);
            }
        }
        encoder.finish(part)
    }
}

fn block(message: &Message<'_>, number: u16) -> Option<Block> {
    Block::parse(message.options.get(number)?).ok()
}

#[cfg(test)]
mod tests;
