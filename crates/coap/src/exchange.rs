//! The server's side of exchanges: each request is run once and answered surely, RFC 7252
//! section 4 and 5, and block by block, RFC 7959.

mod answer;
mod blockwise;
mod separate;

use crate::block::Block;
use crate::code::Code;
use crate::memory::{Memory, Outcome};
use crate::message::{Encoder, Kind, Message, ParseError, Token};
use crate::request::{Head, Refusal, download_key};
use crate::transfer::{Direction, Key, Transfers};
use crate::transmission::{EXCHANGE_LIFETIME, NON_LIFETIME, Spread};
use ahash::AHashMap;
use answer::Answer;
use bytes::Bytes;
use separate::Separate;
use std::collections::VecDeque;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The bounds of a server and how long it waits before it acknowledges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Messages that are remembered for their duplicates, requests that run at once, and separate
    /// responses that wait for their acknowledgement: as many of each.
    pub exchanges_max: usize,
    /// What block-wise transfers may hold in memory, and what remembered answers may.
    pub transfer_bytes_max: usize,
    /// The largest body of a request.
    pub payload_bytes_max: usize,
    /// How long a request may run before an empty acknowledgement tells the client that its
    /// response comes later. Well below `ACK_TIMEOUT`, which is 2 s.
    pub ack_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            exchanges_max: 65_536,
            transfer_bytes_max: 64 << 20,
            payload_bytes_max: 8 << 20,
            ack_delay: Duration::from_secs(1),
        }
    }
}

/// Tells a request that runs from every other of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

/// A request to run, whole. It is answered with [`Server::respond`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<P> {
    /// What the response is to be given with.
    pub id: RequestId,
    /// Who asks.
    pub peer: P,
    /// Such as `GET`.
    pub method: &'static str,
    /// The Uri-Path options as a path, escaped where a URI needs it; `/` where there is none.
    pub path: String,
    /// The Uri-Query options, escaped where a URI needs it, with `&` between them.
    pub query: String,
    /// The Uri-Host option.
    pub host: Option<String>,
    /// The Content-Format option.
    pub content_format: Option<u16>,
    /// The Accept option.
    pub accept: Option<u16>,
    /// The If-Match options: entity tags, an empty one means any.
    pub if_match: Vec<Vec<u8>>,
    /// Whether the If-None-Match option is there.
    pub if_none_match: bool,
    /// The body, put together from its blocks.
    pub payload: Bytes,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The response's code.
    pub code: Code,
    /// The Content-Format option.
    pub content_format: Option<u16>,
    /// The Max-Age option, in seconds.
    pub max_age: Option<u32>,
    /// The body, of any length.
    pub payload: Bytes,
}

impl Response {
    /// A response of a code and nothing else.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            content_format: None,
            max_age: None,
            payload: Bytes::new(),
        }
    }
}

/// Where a response goes.
#[derive(Debug, Clone)]
struct Origin<P> {
    peer: P,
    kind: Kind,
    message_id: u16,
    token: Token,
    no_response: u8,
    /// An empty acknowledgement was sent.
    is_acknowledged: bool,
}

#[derive(Debug)]
struct Running<P> {
    origin: Origin<P>,
    block1: Option<Block>,
    block2: Option<Block>,
    download: Bytes,
}

/// The server's side of the exchanges with every peer that shares a socket.
///
/// After any call, take what it has to say with [`Server::poll_request`] and
/// [`Server::poll_transmit`], and call [`Server::expire`] at [`Server::deadline`].
#[derive(Debug)]
pub struct Server<P> {
    config: Config,
    memory: Memory<P>,
    running: AHashMap<u64, Running<P>>,
    /// When each running request is acknowledged; those that ended earlier are skipped.
    acknowledge: VecDeque<(Instant, u64)>,
    separate: Separate<P>,
    transfers: Transfers<P>,
    requests: VecDeque<Request<P>>,
    outgoing: VecDeque<(P, Bytes)>,
    last_id: u64,
    /// Added to a request's message id to make that of its separate response, which is therefore
    /// as unique among this server's messages to the peer as the request's is among the peer's.
    message_id_salt: u16,
    spread: Spread,
    is_stopping: bool,
}

impl<P: Eq + Hash + Clone> Server<P> {
    /// A server. `seed` spreads its retransmissions and message ids: any number.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        let mut spread = Spread::new(seed);
        let message_id_salt = u16::try_from(spread.next() >> 48).unwrap_or_default();
        Self {
            memory: Memory::new(config.exchanges_max, config.transfer_bytes_max),
            running: AHashMap::new(),
            acknowledge: VecDeque::new(),
            separate: Separate::new(config.exchanges_max),
            transfers: Transfers::new(config.transfer_bytes_max),
            requests: VecDeque::new(),
            outgoing: VecDeque::new(),
            last_id: 0,
            message_id_salt,
            spread,
            is_stopping: false,
            config,
        }
    }

    /// Takes a datagram that came from a peer.
    pub fn receive(&mut self, now: Instant, peer: P, datagram: &[u8]) {
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(ParseError::Malformed {
                kind: Kind::Confirmable,
                message_id,
                ..
            }) => return self.reset(peer, message_id),
            Err(
                ParseError::Malformed { .. } | ParseError::TooShort(_) | ParseError::Version(_),
            ) => {
                return;
            }
        };
        match message.kind {
            Kind::Acknowledgement | Kind::Reset => self.separate.settle(&peer, message.message_id),
            Kind::Confirmable | Kind::NonConfirmable if message.code.is_request() => {
                self.request(now, peer, &message);
            }
            // A ping, a response that nobody asked for, or a reserved code (sections 4.2, 4.3).
            Kind::Confirmable => self.reset(peer, message.message_id),
            Kind::NonConfirmable => {}
        }
    }

    /// Takes the response to a request that was given out.
    pub fn respond(&mut self, now: Instant, id: RequestId, response: Response) {
        let Some(running) = self.running.remove(&id.0) else {
            return;
        };
        self.answer_whole(now, &running, response);
    }

    /// Does what is due: acknowledges, sends again, forgets.
    pub fn expire(&mut self, now: Instant) {
        while let Some((due, id)) = self.next_acknowledgement()
            && due <= now
        {
            self.acknowledge_running(id);
        }
        self.separate.expire(now, &mut self.outgoing);
        self.transfers.expire(now);
    }

    /// When [`Server::expire`] is to be called next.
    pub fn deadline(&mut self) -> Option<Instant> {
        let acknowledge = self.next_acknowledgement().map(|(due, _)| due);
        let rest = [self.separate.next_due(), self.transfers.next_expiry()];
        rest.into_iter().chain([acknowledge]).flatten().min()
    }

    /// The next request to run.
    pub fn poll_request(&mut self) -> Option<Request<P>> {
        self.requests.pop_front()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(P, Bytes)> {
        self.outgoing.pop_front()
    }

    /// Refuses new requests from now on, with 5.03.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Whether no request runs and no response waits for its acknowledgement.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.separate.is_empty() && self.outgoing.is_empty()
    }

    fn request(&mut self, now: Instant, peer: P, message: &Message<'_>) {
        let message_id = message.message_id;
        if let Some(outcome) = self.memory.recall(now, &peer, message_id) {
            let outcome = outcome.clone();
            return self.duplicate(peer, message, outcome);
        }
        let lifetime = match message.kind {
            Kind::Confirmable => EXCHANGE_LIFETIME,
            Kind::NonConfirmable | Kind::Acknowledgement | Kind::Reset => NON_LIFETIME,
        };
        let key = (peer.clone(), message_id);
        self.memory
            .remember(now, key, Outcome::Silent, now + lifetime);
        let mut origin = Origin {
            peer,
            kind: message.kind,
            message_id,
            token: message.token,
            no_response: 0,
            is_acknowledged: false,
        };
        match Head::decode(message) {
            Ok(head) => {
                origin.no_response = head.no_response;
                self.admit(now, origin, message, head);
            }
            // A message that is not confirmable is rejected silently (section 5.4.1).
            Err(refusal)
                if refusal.code == Code::BAD_OPTION && origin.kind != Kind::Confirmable => {}
            Err(refusal) => self.refuse(now, &origin, &refusal),
        }
    }

    fn duplicate(&mut self, peer: P, message: &Message<'_>, outcome: Outcome) {
        if message.kind != Kind::Confirmable {
            return;
        }
        match outcome {
            Outcome::Running(id) => self.acknowledge_running(id),
            Outcome::Acknowledged => self.empty(peer, Kind::Acknowledgement, message.message_id),
            Outcome::Answered(datagram) => self.outgoing.push_back((peer, datagram)),
            Outcome::Silent => {}
        }
    }

    /// Puts a body together, answers from what is kept, or gives the request out to be run.
    fn admit(&mut self, now: Instant, origin: Origin<P>, message: &Message<'_>, head: Head) {
        let download = Key {
            peer: origin.peer.clone(),
            direction: Direction::Download,
            request: download_key(message),
        };
        if let Some(block2) = head.block2.filter(|block| block.num() > 0) {
            if let Some(kept) = self.transfers.download(now, &download) {
                return self.answer_block(now, &origin, &kept, (head.block1, block2));
            }
            let can_run_again = message.code == Code::GET
                || (message.code == Code::FETCH && !message.payload.is_empty());
            if !can_run_again {
                let mut answer = Answer::new(Code::REQUEST_ENTITY_INCOMPLETE);
                answer.payload =
                    b"the rest of this response is no longer kept; send the request anew";
                return self.send(now, &origin, &answer);
            }
        }
        let payload = match head.block1 {
            None => self.single(&head, message.payload),
            Some(block) => match self.upload(now, &origin, message, &head, block) {
                Ok(Some(body)) => Ok(body),
                Ok(None) => return,
                Err(refusal) => Err(refusal),
            },
        };
        match payload {
            Ok(payload) => self.run(
                now,
                origin,
                (head, message.code),
                (payload, download.request),
            ),
            Err(refusal) => self.refuse(now, &origin, &refusal),
        }
    }

    fn run(
        &mut self,
        now: Instant,
        origin: Origin<P>,
        (head, code): (Head, Code),
        (payload, download): (Bytes, Bytes),
    ) {
        if self.is_stopping || self.running.len() >= self.config.exchanges_max {
            let mut answer = Answer::new(Code::SERVICE_UNAVAILABLE);
            answer.max_age = Some(1);
            answer.payload = b"this node takes no more requests now; try again later";
            return self.send(now, &origin, &answer);
        }
        self.last_id += 1;
        let id = self.last_id;
        let outcome = Outcome::Running(id);
        self.memory.settle(&origin.peer, origin.message_id, outcome);
        if origin.kind == Kind::Confirmable {
            self.acknowledge
                .push_back((now + self.config.ack_delay, id));
        }
        self.requests.push_back(Request {
            id: RequestId(id),
            peer: origin.peer.clone(),
            method: code.method().unwrap_or_default(),
            path: head.path,
            query: head.query,
            host: head.host,
            content_format: head.content_format,
            accept: head.accept,
            if_match: head.if_match,
            if_none_match: head.if_none_match,
            payload,
        });
        let running = Running {
            origin,
            block1: head.block1,
            block2: head.block2,
            download,
        };
        self.running.insert(id, running);
    }

    /// The running request that is acknowledged next, and when.
    fn next_acknowledgement(&mut self) -> Option<(Instant, u64)> {
        loop {
            let next = self.acknowledge.front().copied()?;
            let running = self.running.get(&next.1);
            if running.is_some_and(|running| !running.origin.is_acknowledged) {
                return Some(next);
            }
            self.acknowledge.pop_front();
        }
    }

    fn acknowledge_running(&mut self, id: u64) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        running.origin.is_acknowledged = true;
        let (peer, message_id) = (running.origin.peer.clone(), running.origin.message_id);
        self.memory.settle(&peer, message_id, Outcome::Acknowledged);
        self.empty(peer, Kind::Acknowledgement, message_id);
    }

    fn refuse(&mut self, now: Instant, origin: &Origin<P>, refusal: &Refusal) {
        let mut answer = Answer::new(refusal.code);
        answer.payload = refusal.text.as_bytes();
        if refusal.code == Code::REQUEST_ENTITY_TOO_LARGE {
            answer.size1 = Some(u32::try_from(self.config.payload_bytes_max).unwrap_or(u32::MAX));
        }
        self.send(now, origin, &answer);
    }

    fn reset(&mut self, peer: P, message_id: u16) {
        self.empty(peer, Kind::Reset, message_id);
    }

    fn empty(&mut self, peer: P, kind: Kind, message_id: u16) {
        self.outgoing
            .push_back((peer, Encoder::empty(kind, message_id)));
    }
}

#[cfg(test)]
mod tests;
