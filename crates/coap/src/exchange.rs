//! The server's side of exchanges: each request is run once and answered surely, RFC 7252
//! section 4 and 5, and block by block, RFC 7959.

mod answer;
mod blockwise;
mod separate;

use crate::block::Block;
use crate::code::Code;
use crate::deduplicator::{Class, Deduplicator, Outcome};
use crate::message::{Encoder, Kind, Message, ParseError, Token};
use crate::peer::Peer;
use crate::request::{Head, Refusal, download_identity};
use crate::transfer::{Direction, Identity, Key, Transfers};
use crate::transmission::{EXCHANGE_LIFETIME, NON_LIFETIME, Spread};
use ahash::{AHashMap, RandomState};
use answer::Answer;
use bytes::Bytes;
use net::{Account, Budget, Spent};
use separate::Separate;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bounds of a server and how long it waits before it acknowledges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Messages that are remembered for their duplicates, requests that run at once, and separate
    /// responses that wait for their acknowledgement: as many of each.
    pub exchanges_max: usize,
    /// What block-wise transfers may hold in memory, what remembered messages may, and what
    /// requests that run may: as many bytes each, a quarter of it for one host while others want
    /// room too; of what runs, a quarter in any case. [`Budgets`] bound what all servers hold.
    pub transfer_bytes_max: usize,
    /// How long a block-wise transfer is kept after its last block.
    pub transfer_idle: Duration,
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
            transfer_idle: Duration::from_secs(120),
            payload_bytes_max: 8 << 20,
            ack_delay: Duration::from_secs(1),
        }
    }
}

/// What servers may hold for clients, together with whatever else takes from the same budget.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// Requests that run, and separate responses that wait for their acknowledgement.
    clients: Arc<Budget>,
    /// What is kept between messages and makes room for what is newer, as senders may be made up:
    /// remembered messages and transfers. It can never fill the whole.
    kept: Arc<Budget>,
}

impl Budgets {
    /// Lets servers take all of `clients`, half of it for what is kept between messages.
    #[must_use]
    pub fn new(clients: &Arc<Budget>) -> Self {
        Self {
            clients: Arc::clone(clients),
            kept: clients.fraction(2),
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
    /// Whether something was run for it. Where nothing was, a duplicate of the request is taken
    /// as a new one, and takes no room until then.
    pub has_run: bool,
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
            has_run: true,
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
    download: Identity,
    /// What it holds in memory.
    bytes: usize,
}

/// What a request that runs takes beside its text and body, here and at whoever runs it.
const RUNNING_OVERHEAD_BYTES: usize = 1024;
/// How long after a request the messages that are remembered are swept: all of them have expired
/// by then unless more came.
const SWEEP_INTERVAL: Duration = EXCHANGE_LIFETIME.saturating_add(Duration::from_secs(13));
/// The part of all room that the running requests of one host may take.
const HOST_SHARE: usize = 4;

/// The server's side of the exchanges with every peer that shares a socket.
///
/// After any call, take what it has to say with [`Server::poll_request`] and
/// [`Server::poll_transmit`], and call [`Server::expire`] at [`Server::deadline`].
#[derive(Debug)]
pub struct Server<P: Peer> {
    config: Config,
    seen: Deduplicator<P>,
    /// When the messages that are remembered are swept next; none while there are none.
    sweep: Option<Instant>,
    running: AHashMap<u64, Running<P>>,
    running_bytes: usize,
    accounts: AHashMap<net::Peer, Account>,
    clients: Arc<Budget>,
    /// When each running request is acknowledged; those that ended earlier are skipped.
    acknowledge: VecDeque<(Instant, u64)>,
    separate: Separate<P>,
    transfers: Transfers<P>,
    requests: VecDeque<Request<P>>,
    outgoing: VecDeque<(P, Bytes)>,
    last_id: u64,
    /// Makes digests of requests that nobody outside can foresee.
    digests: RandomState,
    /// Makes message ids that only their peer knows.
    message_id_secret: [u64; 2],
    spread: Spread,
    is_stopping: bool,
}

impl<P: Peer> Server<P> {
    /// A server. `seed` spreads its retransmissions and makes its message ids: numbers that nobody
    /// outside can know. What it holds for clients is taken from `budgets`.
    #[must_use]
    pub fn new(config: Config, seed: [u64; 2], budgets: &Budgets) -> Self {
        let kept = || Arc::clone(&budgets.kept);
        Self {
            seen: Deduplicator::new(config.exchanges_max, config.transfer_bytes_max, kept()),
            sweep: None,
            running: AHashMap::new(),
            running_bytes: 0,
            accounts: AHashMap::new(),
            clients: Arc::clone(&budgets.clients),
            acknowledge: VecDeque::new(),
            separate: Separate::new(config.exchanges_max, Arc::clone(&budgets.clients)),
            transfers: Transfers::new(config.transfer_bytes_max, config.transfer_idle, kept()),
            requests: VecDeque::new(),
            outgoing: VecDeque::new(),
            last_id: 0,
            digests: RandomState::new(),
            message_id_secret: seed,
            spread: Spread::new(seed[0].rotate_left(32) ^ seed[1]),
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
        self.give_back(running.origin.peer.host(), running.bytes);
        let has_run = response.has_run;
        self.answer_whole(now, &running, response);
        if !has_run {
            let origin = &running.origin;
            self.seen.forget(&origin.peer, origin.message_id);
        }
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
        if self.sweep.is_some_and(|due| due <= now) {
            self.seen.sweep(now);
            let running = self.running.len();
            self.running.shrink_to(2 * running);
            self.sweep = (!self.seen.is_empty()).then(|| now + SWEEP_INTERVAL);
        }
    }

    /// When [`Server::expire`] is to be called next.
    pub fn deadline(&mut self) -> Option<Instant> {
        let acknowledge = self.next_acknowledgement().map(|(due, _)| due);
        let rest = [
            self.separate.next_due(),
            self.transfers.next_expiry(),
            self.sweep,
        ];
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
        if let Some(outcome) = self.seen.recall(now, &peer, message_id) {
            let outcome = outcome.clone();
            return self.duplicate(peer, message, outcome);
        }
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
            request: download_identity(message, &self.digests),
        };
        // A block of a body that comes with it belongs to a new request, whatever is kept.
        let later = head
            .block2
            .filter(|block| block.num() > 0 && head.block1.is_none());
        if let Some(block2) = later {
            if let Some(kept) = self.transfers.download(now, &download) {
                return self.answer_block(now, &origin, &kept, (head.block1, block2));
            }
            let can_run_again = message.code == Code::GET
                || (message.code == Code::FETCH && !message.payload.is_empty());
            if !can_run_again {
                let mut answer = Answer::new(Code::REQUEST_ENTITY_INCOMPLETE);
                answer.payload =
                    b"the rest of this response is no longer kept; send the whole request again";
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
        (payload, download): (Bytes, Identity),
    ) {
        let bytes = RUNNING_OVERHEAD_BYTES + head.len_bytes() + payload.len();
        let id = self.last_id + 1;
        let (class, lifetime) = class(origin.kind, code);
        let what = (class, Outcome::Running(id));
        if self.is_stopping || !self.has_room(&origin.peer, bytes) {
            let text = "this node takes no more requests now; try again later";
            return self.refuse(now, &origin, &unavailable(text));
        }
        if let Err(spent) = self.charge(origin.peer.host(), bytes) {
            return self.refuse(now, &origin, &unavailable(&spent));
        }
        let message = (&origin.peer, origin.message_id);
        let remembered = self.seen.remember(now, message, what, now + lifetime);
        if let Err(spent) = remembered {
            self.give_back(origin.peer.host(), bytes);
            return self.refuse(now, &origin, &unavailable(&spent));
        }
        self.last_id = id;
        self.sweep.get_or_insert(now + SWEEP_INTERVAL);
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
            bytes,
        };
        self.running.insert(id, running);
    }

    fn has_room(&self, peer: &P, bytes: usize) -> bool {
        let bytes_max = self.config.transfer_bytes_max;
        let of_host = self.accounts.get(&peer.host()).map(Account::bytes);
        self.running.len() < self.config.exchanges_max
            && self.running_bytes + bytes <= bytes_max
            && of_host.is_none_or(|held| held + bytes <= bytes_max / HOST_SHARE)
    }

    /// Takes what a request that runs holds from the budget of all clients.
    fn charge(&mut self, host: net::Peer, bytes: usize) -> Result<(), Spent> {
        if let Some(account) = self.accounts.get_mut(&host) {
            account.take(bytes)?;
        } else {
            let mut account = Account::open(&self.clients, host)?;
            account.take(bytes)?;
            self.accounts.insert(host, account);
        }
        self.running_bytes += bytes;
        Ok(())
    }

    fn give_back(&mut self, host: net::Peer, bytes: usize) {
        self.running_bytes -= bytes;
        if let Some(account) = self.accounts.get_mut(&host) {
            account.give(bytes);
            if account.bytes() == 0 {
                self.accounts.remove(&host);
            }
        }
    }

    /// Added to a request's message id to make that of its separate response, which is therefore
    /// as unique among this server's messages to the peer as the request's is among the peer's,
    /// and tells nobody the ids that other peers get.
    fn message_id_offset(&self, peer: &P) -> u16 {
        let mut hasher = DefaultHasher::new();
        (self.message_id_secret, peer).hash(&mut hasher);
        u16::try_from(hasher.finish() >> 48).unwrap_or_default()
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
        self.seen.settle(&peer, message_id, Outcome::Acknowledged);
        self.empty(peer, Kind::Acknowledgement, message_id);
    }

    fn refuse(&mut self, now: Instant, origin: &Origin<P>, refusal: &Refusal) {
        let mut answer = Answer::new(refusal.code);
        answer.payload = refusal.text.as_bytes();
        if refusal.code == Code::REQUEST_ENTITY_TOO_LARGE {
            answer.size1 = Some(u32::try_from(self.config.payload_bytes_max).unwrap_or(u32::MAX));
        }
        if refusal.code == Code::SERVICE_UNAVAILABLE {
            answer.max_age = Some(1);
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

/// The refusal where there is no room now.
fn unavailable(why: &(impl ToString + ?Sized)) -> Refusal {
    Refusal {
        code: Code::SERVICE_UNAVAILABLE,
        text: why.to_string(),
    }
}

/// How a message is remembered, and for how long (RFC 7252 section 4.8.2).
fn class(kind: Kind, code: Code) -> (Class, Duration) {
    match kind {
        Kind::Confirmable if matches!(code, Code::GET | Code::FETCH) => {
            (Class::Safe, EXCHANGE_LIFETIME)
        }
        Kind::Confirmable => (Class::Unsafe, EXCHANGE_LIFETIME),
        Kind::NonConfirmable | Kind::Acknowledgement | Kind::Reset => {
            (Class::NonConfirmable, NON_LIFETIME)
        }
    }
}

#[cfg(test)]
mod tests;
