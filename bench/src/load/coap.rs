//! CoAP calls from many ports of one thread.
//!
//! A server remembers the message ids of each peer for 247 s (`EXCHANGE_LIFETIME`, RFC 7252, section
//! 4.8.2); a port that sent more than 65,536 messages in that time would be told old replies.
//! Thousands of ports keep each far below that, and each load comes from another address of the
//! loopback network, so that no port is met again.

use super::Outcome;
use anyhow::{Context, Result, ensure};
use coap::{Code, Encoder, Kind, Message, Token};
use rustix::event::epoll;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The option Uri-Path (RFC 7252, section 5.10).
const URI_PATH: u16 = 11;
/// After this a call counts as lost, unless something else is wanted.
pub const LOST_AFTER: Duration = Duration::from_secs(2);
/// Datagrams that are read from one port before the next has its turn.
const READS_MAX: usize = 8;

/// What to send, and how.
#[derive(Debug, Clone)]
pub struct Coap {
    /// The server.
    pub to: SocketAddr,
    /// The resource, without a slash in front.
    pub path: String,
    /// What is sent, and what is to come back.
    pub payload: Vec<u8>,
    /// Ports that are sent from.
    pub ports: usize,
    /// When the next call is sent.
    pub pace: Pace,
    /// How long.
    pub time: Duration,
    /// After this a call counts as lost.
    pub patience: Duration,
}

/// When calls are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many are always under way: the next is sent when one is answered.
    Closed(usize),
    /// So many in a second whether others are answered or not; latencies count from when a call
    /// was due, so that a queue shows.
    Open(f64),
}

struct Run<'a> {
    load: &'a Coap,
    sockets: Vec<(UdpSocket, u16)>,
    next_socket: usize,
    next_token: u64,
    /// When each call that is under way was due, by its token.
    under_way: HashMap<u64, Instant>,
    outcome: Outcome,
}

impl Coap {
    /// Sends, and tells what came of it.
    ///
    /// # Errors
    /// If sockets cannot be opened.
    pub fn run(&self) -> Result<Outcome> {
        let [a, b, c]: [u8; 3] = rand::random();
        // Neither 127.0.x.x, which others use, nor a broadcast address.
        let from = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        let bound = (0..self.ports.max(1)).map(|_| {
            let socket = UdpSocket::bind((from, 0))?;
            socket.connect(self.to)?;
            socket.set_nonblocking(true)?;
            Ok((socket, 0))
        });
        let sockets: Vec<(UdpSocket, u16)> = bound
            .collect::<std::io::Result<_>>()
            .context("bind the ports; raise the number of open files (ulimit -n)")?;
        let run = Run {
            load: self,
            sockets,
            next_socket: 0,
            next_token: 0,
            under_way: HashMap::new(),
            outcome: Outcome::default(),
        };
        run.go()
    }
}

impl Run<'_> {
    fn go(mut self) -> Result<Outcome> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, (socket, _)) in self.sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&poll, socket, data, epoll::EventFlags::IN)?;
        }
        let begin = Instant::now();
        let end = begin + self.load.time;
        let mut looked = begin;
        let mut events = Vec::with_capacity(256);
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            let pause = self.send_due(begin, now)?;
            events.clear();
            let pause = pause.min(end - now).min(Duration::from_millis(100));
            let pause = rustix::event::Timespec::try_from(pause)?;
            epoll::wait(
                &poll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&pause),
            )?;
            for event in &events {
                self.read(usize::try_from(event.data.u64())?)?;
            }
            if now - looked > self.load.patience / 4 {
                looked = now;
                self.give_up_old(now);
            }
        }
        self.outcome.time = begin.elapsed();
        if let Some(oldest) = self.under_way.values().min() {
            self.outcome.longest = self.outcome.longest.max(oldest.elapsed());
        }
        Ok(self.outcome)
    }

    /// Sends what is due and returns how long nothing more will be.
    fn send_due(&mut self, begin: Instant, now: Instant) -> Result<Duration> {
        match self.load.pace {
            Pace::Closed(open) => {
                while self.under_way.len() < open {
                    self.send(now)?;
                }
                Ok(self.load.patience)
            }
            Pace::Open(rate) => loop {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                let offset = Duration::from_secs_f64(self.next_token as f64 / rate);
                let due = begin + offset;
                if due > now {
                    return Ok(due - now);
                }
                self.send(due)?;
            },
        }
    }

    fn send(&mut self, due: Instant) -> Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        let index = self.next_socket;
        self.next_socket = (index + 1) % self.sockets.len();
        let (socket, message_id) = &mut self.sockets[index];
        *message_id = message_id.wrapping_add(1);
        let wire = Token::new(&token.to_be_bytes()).context("eight bytes are a token")?;
        let mut message = Encoder::new(Kind::Confirmable, Code::POST, *message_id, wire);
        for segment in self.load.path.split('/') {
            message.option(URI_PATH, segment.as_bytes());
        }
        // Where the socket's buffer is full the datagram is lost, as on a network.
        drop(socket.send(&message.finish(&self.load.payload)));
        self.under_way.insert(token, due);
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let mut buffer = [0; 2048];
        for _ in 0..READS_MAX {
            let Ok(len) = self.sockets[index].0.recv(&mut buffer) else {
                return Ok(());
            };
            let now = Instant::now();
            let Ok(message) = Message::parse(&buffer[..len]) else {
                self.outcome.wrong += 1;
                continue;
            };
            if message.kind == Kind::Confirmable {
                let ack = Encoder::empty(Kind::Acknowledgement, message.message_id);
                self.sockets[index].0.send(&ack)?;
            }
            if message.code == Code::EMPTY {
                continue;
            }
            let token = <[u8; 8]>::try_from(message.token.as_bytes());
            let due = token.ok().and_then(|token| {
                let token = u64::from_be_bytes(token);
                self.under_way.remove(&token)
            });
            match due {
                Some(due) => {
                    let is_right = message.code == Code::CHANGED || message.code == Code::CONTENT;
                    let is_right = is_right && message.payload == self.load.payload;
                    self.outcome.reply(now - due, is_right);
                }
                // A reply that nobody asked for, or a second one.
                None => self.outcome.wrong += 1,
            }
        }
        Ok(())
    }

    fn give_up_old(&mut self, now: Instant) {
        let before = self.under_way.len();
        self.under_way
            .retain(|_, due| now.saturating_duration_since(*due) < self.load.patience);
        self.outcome.lost += (before - self.under_way.len()) as u64;
    }
}

/// Waits until a server answers.
///
/// # Errors
/// If it does not.
pub fn wait_for(to: SocketAddr, path: &str) -> Result<()> {
    let probe = Coap {
        to,
        path: path.to_owned(),
        payload: b"x".to_vec(),
        ports: 1,
        pace: Pace::Closed(1),
        time: Duration::from_millis(100),
        patience: LOST_AFTER,
    };
    for _ in 0..100 {
        if !probe.run()?.latencies.is_empty() {
            return Ok(());
        }
    }
    ensure!(false, "{to} does not answer for {path}");
    Ok(())
}
