//! The sandbox's side of the relay: a TCP that answers for every address.

use super::Terms;
use super::channel::Channel;
use super::datagrams::Datagrams;
use super::policy::Policy;
use super::tcp::Sockets;
use crate::sandbox::network::MTU;
use crate::sandbox::watch;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// What is copied at once.
const COPY_BYTES: usize = 32 << 10;
/// Packets that are read before the sockets get their turn.
const PACKETS_AT_ONCE: usize = 64;

/// The stack, and everything that its tasks share.
pub(super) struct Stack {
    sockets: Rc<Sockets>,
    interface: Rc<AsyncFd<OwnedFd>>,
    datagrams: Datagrams,
    policy: Policy,
    terms: Terms,
    places: Rc<()>,
}

impl Stack {
    pub(super) fn open(fd: OwnedFd, policy: Policy, terms: Terms) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let interface = Rc::new(watch(fd)?);
        Ok(Self {
            sockets: Rc::new(Sockets::new(Rc::clone(&interface))),
            datagrams: Datagrams::new(Rc::clone(&interface)),
            interface,
            policy,
            terms,
            places: Rc::new(()),
        })
    }

    /// Room for one more connection; none where all of it is taken.
    pub(super) fn place(&self) -> Option<Rc<()>> {
        let taken = Rc::strong_count(&self.places) - 1;
        (taken < self.terms.connections_max).then(|| Rc::clone(&self.places))
    }

    /// Works until the interface is gone.
    pub(super) async fn run(self: &Rc<Self>) -> io::Result<()> {
        loop {
            let pause = self.sockets.tcp.borrow_mut().work();
            let timer = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = self.interface.readable() => {
                    if self.receive()? {
                        ready?.clear_ready();
                    }
                    // Packets without end must not keep the tasks from working.
                    tokio::task::yield_now().await;
                }
                () = self.sockets.changed.notified() => {}
                () = timer => {}
            }
        }
    }

    /// Takes packets from the interface; whether there are no more for now.
    fn receive(self: &Rc<Self>) -> io::Result<bool> {
        let mut buffer = [0; MTU as usize];
        for _ in 0..PACKETS_AT_ONCE {
            match rustix::io::read(&*self.interface, &mut buffer) {
                Ok(len) => self.take(&buffer[..len]),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    fn take(self: &Rc<Self>, packet: &[u8]) {
        let Some((from, to, protocol, payload)) = addresses(packet) else {
            return;
        };
        match protocol {
            IpProtocol::Udp => {
                let terms = &self.terms;
                self.datagrams
                    .take((from, to), payload, terms, |to| self.policy.target(to));
            }
            IpProtocol::Tcp => {
                let Ok(segment) = TcpPacket::new_checked(payload) else {
                    return;
                };
                let ends = (
                    SocketAddr::new(from, segment.src_port()),
                    SocketAddr::new(to, segment.dst_port()),
                );
                if segment.syn() && !segment.ack() {
                    self.open_connection(ends, packet);
                } else {
                    self.sockets
                        .tcp
                        .borrow_mut()
                        .packets
                        .received
                        .push_back(packet.to_vec());
                }
            }
            _ => {}
        }
    }

    /// Connects on the host's side first, so that the sandbox sees what becomes of that. A segment
    /// for which there is no socket is answered with a reset.
    fn open_connection(self: &Rc<Self>, ends: (SocketAddr, SocketAddr), syn: &[u8]) {
        let mut tcp = self.sockets.tcp.borrow_mut();
        if tcp.pending.contains(&ends) {
            return;
        }
        let is_again = tcp.has_socket(ends);
        let target = || self.policy.target(ends.1).zip(self.place());
        let Some((target, place)) = (!is_again).then(target).flatten() else {
            tcp.packets.received.push_back(syn.to_vec());
            return;
        };
        tcp.pending.insert(ends);
        let (stack, syn) = (Rc::clone(self), syn.to_vec());
        tokio::task::spawn_local(async move {
            let connecting = TcpStream::connect(target);
            let host = tokio::time::timeout(stack.terms.connect, connecting).await;
            stack.sockets.tcp.borrow_mut().pending.remove(&ends);
            match host {
                Ok(Ok(host)) => stack.carry(ends, host, syn).await,
                Ok(Err(_)) | Err(_) => {
                    stack
                        .sockets
                        .tcp
                        .borrow_mut()
                        .packets
                        .received
                        .push_back(syn);
                    stack.sockets.changed.notify_one();
                }
            }
            drop(place);
        });
    }

    async fn carry(
        self: &Rc<Self>,
        ends: (SocketAddr, SocketAddr),
        mut host: TcpStream,
        syn: Vec<u8>,
    ) {
        let Some(handle) = self.sockets.tcp.borrow_mut().accept(ends, syn) else {
            return;
        };
        // Small writes go out at once; a socket that can't is slower, no more.
        let _is_set = host.set_nodelay(true).is_ok();
        let mut sandbox = Channel::new(Rc::clone(&self.sockets), handle);
        let copied = tokio::io::copy_bidirectional_with_sizes(
            &mut sandbox,
            &mut host,
            COPY_BYTES,
            COPY_BYTES,
        );
        let is_whole = copied.await.is_ok();
        let mut tcp = self.sockets.tcp.borrow_mut();
        let socket = tcp.sockets.get_mut::<tcp::Socket<'_>>(handle);
        if is_whole {
            socket.close();
        } else {
            socket.abort();
        }
        tcp.closing.push(handle);
        self.sockets.changed.notify_one();
    }
}

/// The two addresses of a packet, its protocol and what it carries; none for anything but a whole
/// packet.
fn addresses(packet: &[u8]) -> Option<(std::net::IpAddr, std::net::IpAddr, IpProtocol, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let packet = Ipv4Packet::new_checked(packet).ok()?;
            let is_whole = !packet.more_frags() && packet.frag_offset() == 0;
            let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
            is_whole.then(|| (from, to, packet.next_header(), packet.payload()))
        }
        6 => {
            let packet = Ipv6Packet::new_checked(packet).ok()?;
            let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
            Some((from, to, packet.next_header(), packet.payload()))
        }
        _ => None,
    }
}
