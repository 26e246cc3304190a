//! One socket, its task, and the exchanges of the peers that the kernel gives it.

use super::{reply, request};
use bytes::Bytes;
use coap::{Budgets, Config, Request, RequestId, Response, Server};
use faas::{InvokeError, Limits, Proxy};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// Datagrams that are read by one system call.
const BATCH: usize = 16;

/// The longest datagram; one of the kernel's coalesced runs is no longer.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// How long to wait before reading again after the system refused for want of something.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// How long the timer sleeps where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Who sent a request, and the address of this host that it was sent to, from which the answer
/// must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Peer {
    addr: SocketAddr,
    local: Option<IpAddr>,
}

impl coap::Peer for Peer {
    fn host(&self) -> net::Peer {
        self.addr.ip().into()
    }
}

/// Serves a socket until `shutdown` and until all is answered.
///
/// # Errors
/// If the socket can't join the event loop.
pub(super) async fn run(
    socket: std::net::UdpSocket,
    (proxy, budgets): (Arc<Proxy>, Budgets),
    shutdown: CancellationToken,
) -> io::Result<()> {
    let limits = proxy.limits();
    let io = Io::new(socket, limits.coap_unsent_max)?;
    let server = Server::new(config(limits), [random(), random()], &budgets);
    let proxy = &*proxy;
    let mut worker = Worker { io, server, proxy };
    worker.serve(&shutdown).await;
    Ok(())
}

/// A number that nobody outside can know.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn config(limits: &Limits) -> Config {
    Config {
        exchanges_max: limits.coap_exchanges_max,
        transfer_bytes_max: limits.coap_transfer_bytes_max,
        transfer_idle: limits.coap_transfer_idle,
        payload_bytes_max: limits.payload_bytes_max,
        ..Config::default()
    }
}

struct Worker<'a> {
    io: Io,
    server: Server<Peer>,
    proxy: &'a Proxy,
}

impl Worker<'_> {
    async fn serve(&mut self, shutdown: &CancellationToken) {
        let proxy = self.proxy;
        let mut running = FuturesUnordered::new();
        let mut timer = std::pin::pin!(tokio::time::sleep(IDLE));
        let mut is_stopping = false;
        loop {
            while let Some(request) = self.server.poll_request() {
                running.push(invoke(proxy, request));
            }
            while let Some((peer, datagram)) = self.server.poll_transmit() {
                self.io.send(peer, datagram);
            }
            if is_stopping && self.server.is_idle() && self.io.unsent.is_empty() {
                return;
            }
            set(timer.as_mut(), self.server.deadline());
            tokio::select! {
                Some((id, response)) = running.next() => {
                    self.server.respond(Instant::now(), id, response);
                    // What else has ended by now is answered without another look around.
                    while let Some(Some((id, response))) = running.next().now_or_never() {
                        self.server.respond(Instant::now(), id, response);
                    }
                }
                () = self.io.readable() => self.receive(),
                () = self.io.writable() => self.io.flush(),
                () = timer.as_mut() => self.server.expire(Instant::now()),
                () = shutdown.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    self.server.stop();
                }
            }
        }
    }

    /// Takes a batch of datagrams.
    fn receive(&mut self) {
        self.io.receive();
        let now = Instant::now();
        for (peer, datagram) in self.io.datagrams() {
            self.server.receive(now, peer, datagram);
        }
    }
}

/// Sets the timer where it would fire too late. One that fires early costs a look; setting it for
/// every request would cost more.
fn set(timer: Pin<&mut Sleep>, deadline: Option<Instant>) {
    let idle = || Instant::now() + IDLE;
    let is_late = |deadline: Instant| deadline < timer.deadline().into_std();
    if timer.is_elapsed() || deadline.is_some_and(is_late) {
        timer.reset(deadline.unwrap_or_else(idle).into());
    }
}

/// Decode, invoke, encode.
async fn invoke(proxy: &Proxy, asked: Request<Peer>) -> (RequestId, Response) {
    let (id, method) = (asked.id, asked.method);
    let path = &asked.path;
    let name = path.strip_prefix('/').unwrap_or(path).to_owned();
    let invocation = match request::invocation(asked) {
        Ok(invocation) => invocation,
        Err(error) => return (id, reply::bad_option(error)),
    };
    let response = match proxy.invoke(&name, invocation).await {
        Ok(reply) => reply::encode(method, reply),
        Err(InvokeError::NotFound(name)) => reply::not_found(&name),
        Err(error) => {
            proxy.hold_back(&error).await;
            reply::failed(&error)
        }
    };
    (id, response)
}

/// A socket with the buffers of one batch.
struct Io {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    buffers: Vec<u8>,
    received: [RecvMeta; BATCH],
    count: usize,
    /// What the socket had no room for.
    unsent: VecDeque<(Peer, Bytes)>,
    unsent_max: usize,
}

impl Io {
    fn new(socket: std::net::UdpSocket, unsent_max: usize) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            state,
            buffers: vec![0; BATCH * DATAGRAM_BYTES_MAX],
            received: [RecvMeta::default(); BATCH],
            count: 0,
            unsent: VecDeque::new(),
            unsent_max,
        })
    }

    /// Returns when there may be something to read.
    async fn readable(&self) {
        if self.socket.readable().await.is_err() {
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }

    /// Returns when there is something to send and may be room for it.
    async fn writable(&self) {
        if self.unsent.is_empty() {
            std::future::pending().await
        } else if self.socket.writable().await.is_err() {
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }

    /// Reads a batch, to be found in [`Self::datagrams`].
    fn receive(&mut self) {
        let mut buffers = self.buffers.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let mut buffers: [_; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let mut count = 0;
        let received = self.socket.try_io(Interest::READABLE, || {
            let socket = (&self.socket).into();
            count = self.state.recv(socket, &mut buffers, &mut self.received)?;
            if count < BATCH {
                // That was all there is: said now, it saves a look that would find nothing.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        self.count = count;
        if let Err(error) = received
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!(%error, "a CoAP socket could not be read");
        }
    }

    /// The datagrams of the last batch.
    fn datagrams(&self) -> impl Iterator<Item = (Peer, &[u8])> {
        let runs = self.buffers.chunks_exact(DATAGRAM_BYTES_MAX);
        let runs = self.received.iter().zip(runs).take(self.count);
        runs.flat_map(|(meta, run)| {
            let peer = Peer {
                addr: meta.addr,
                // An answer can't come from a group's address.
                local: meta.dst_ip.filter(|ip| !ip.is_multicast()),
            };
            // The kernel may have put datagrams of one length together.
            let datagrams = run[..meta.len].chunks(meta.stride.max(1));
            datagrams.map(move |datagram| (peer, datagram))
        })
    }

    /// Sends a datagram, or keeps it until there is room. One that can't be sent is lost, as one
    /// on the way can be: what matters is sent again.
    fn send(&mut self, peer: Peer, datagram: Bytes) {
        let is_sent = self.unsent.is_empty() && self.try_send(peer, &datagram);
        if !is_sent && self.unsent.len() < self.unsent_max {
            self.unsent.push_back((peer, datagram));
        }
    }

    /// Sends what was kept, as far as there is room.
    fn flush(&mut self) {
        while let Some((peer, datagram)) = self.unsent.pop_front() {
            if !self.try_send(peer, &datagram) {
                self.unsent.push_front((peer, datagram));
                return;
            }
        }
    }

    /// False where there is no room now.
    fn try_send(&self, peer: Peer, datagram: &[u8]) -> bool {
        let transmit = Transmit {
            destination: peer.addr,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: peer.local,
        };
        let sent = self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.socket).into(), &transmit)
        });
        match sent {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::debug!(%error, "a CoAP datagram could not be sent");
                true
            }
        }
    }
}
