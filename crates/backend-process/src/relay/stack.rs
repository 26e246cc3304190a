//! The sandbox's side of the relay: a TCP that answers for every address.

use super::Terms;
use super::channel::Channel;
use super::datagrams::Datagrams;
use super::policy::Policy;
use crate::sandbox::network::{HOST_ADDRESSES, MTU};
use crate::sandbox::watch;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What a connection keeps of each direction until the other side has taken it.
const BUFFER_BYTES: usize = 128 << 10;
/// What is copied at once.
const COPY_BYTES: usize = 32 << 10;
/// Packets that are read before the sockets get their turn.
const PACKETS_AT_ONCE: usize = 64;

/// The relay's own address of version 6 on the interface.
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x696e, 0x7966, 0, 0, 0, 0, 1);

/// The stack, and everything that its tasks share.
pub(super) struct Stack {
    /// What the TCP works on; borrowed for a moment only, never across an await.
    pub(super) tcp: RefCell<Tcp>,
    /// Wakes the loop after a task has changed what a socket holds.
    pub(super) changed: Notify,
    interface: Rc<AsyncFd<OwnedFd>>,
    datagrams: Datagrams,
    policy: Policy,
    terms: Terms,
    places: Rc<()>,
}

/// The TCP itself.
pub(super) struct Tcp {
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    packets: Packets,
    /// Connections that are being made on the host's side.
    pending: HashSet<(SocketAddr, SocketAddr)>,
    /// Sockets whose tasks have ended, until the sandbox has seen the end too.
    closing: Vec<SocketHandle>,
}

impl Stack {
    pub(super) fn open(fd: OwnedFd, policy: Policy, terms: Terms) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let interface = Rc::new(watch(fd)?);
        let mut packets = Packets {
            received: VecDeque::new(),
            interface: Rc::clone(&interface),
        };
        Ok(Self {
            tcp: RefCell::new(Tcp {
                interface: answer_for_everyone(&mut packets),
                sockets: SocketSet::new(Vec::new()),
                packets,
                pending: HashSet::new(),
                closing: Vec::new(),
            }),
            changed: Notify::new(),
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
            let pause = self.tcp.borrow_mut().work();
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
                () = self.changed.notified() => {}
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
                    self.tcp
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
        let mut tcp = self.tcp.borrow_mut();
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
            stack.tcp.borrow_mut().pending.remove(&ends);
            match host {
                Ok(Ok(host)) => stack.carry(ends, host, syn).await,
                Ok(Err(_)) | Err(_) => {
                    stack.tcp.borrow_mut().packets.received.push_back(syn);
                    stack.changed.notify_one();
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
        let Some(handle) = self.tcp.borrow_mut().accept(ends, syn) else {
            return;
        };
        // Small writes go out at once; a socket that can't is slower, no more.
        let _is_set = host.set_nodelay(true).is_ok();
        let mut sandbox = Channel::new(Rc::clone(self), handle);
        let copied = tokio::io::copy_bidirectional_with_sizes(
            &mut sandbox,
            &mut host,
            COPY_BYTES,
            COPY_BYTES,
        );
        let is_whole = copied.await.is_ok();
        let mut tcp = self.tcp.borrow_mut();
        let socket = tcp.sockets.get_mut::<tcp::Socket<'_>>(handle);
        if is_whole {
            socket.close();
        } else {
            socket.abort();
        }
        tcp.closing.push(handle);
        self.changed.notify_one();
    }
}

/// An interface that takes packets for whatever address.
fn answer_for_everyone(packets: &mut Packets) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = std::hash::BuildHasher::hash_one(
        &std::collections::hash_map::RandomState::new(),
        std::process::id(),
    );
    let mut interface = Interface::new(config, packets, now());
    let [own_v4, ..] = HOST_ADDRESSES;
    interface.set_any_ip(true);
    interface.update_ip_addrs(|addresses| {
        for (addr, prefix) in [(IpAddress::from(own_v4), 29), (OWN_V6.into(), 64)] {
            let is_added = addresses.push(IpCidr::new(addr, prefix)).is_ok();
            debug_assert!(is_added, "there is room for two addresses");
        }
    });
    let routes = interface.routes_mut();
    let has_v4 = routes.add_default_ipv4_route(own_v4).is_ok();
    let has_v6 = routes.add_default_ipv6_route(OWN_V6).is_ok();
    debug_assert!(has_v4 && has_v6, "there is room for two routes");
    interface
}

impl Tcp {
    /// Lets the TCP work; how long it may be left alone then.
    fn work(&mut self) -> Option<Duration> {
        self.interface
            .poll(now(), &mut self.packets, &mut self.sockets);
        let sockets = &mut self.sockets;
        self.closing.retain(|&handle| {
            let state = sockets.get::<tcp::Socket<'_>>(handle).state();
            let is_over = matches!(state, tcp::State::Closed | tcp::State::TimeWait);
            if is_over {
                sockets.remove(handle);
            }
            !is_over
        });
        let pause = self.interface.poll_delay(now(), &self.sockets);
        pause.map(Duration::from)
    }

    fn has_socket(&self, (from, to): (SocketAddr, SocketAddr)) -> bool {
        self.sockets.iter().any(|(_, socket)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            socket.remote_endpoint() == Some(from.into())
                && socket.local_endpoint() == Some(to.into())
        })
    }

    /// Makes the socket that the segment opens; none where it opens none.
    fn accept(&mut self, ends: (SocketAddr, SocketAddr), syn: Vec<u8>) -> Option<SocketHandle> {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.listen(ends.1).ok()?;
        // Packets before it must not meet a socket that listens.
        self.work();
        let handle = self.sockets.add(socket);
        self.packets.received.push_back(syn);
        self.work();
        let is_opened = self.has_socket(ends);
        if !is_opened {
            self.sockets.remove(handle);
        }
        is_opened.then_some(handle)
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

fn now() -> Instant {
    Instant::now()
}

/// The interface as the TCP sees it.
struct Packets {
    received: VecDeque<Vec<u8>>,
    interface: Rc<AsyncFd<OwnedFd>>,
}

struct Received(Vec<u8>);

struct Sending(Rc<AsyncFd<OwnedFd>>);

impl Device for Packets {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(Rc::clone(&self.interface))))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending> {
        Some(Sending(Rc::clone(&self.interface)))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(MTU);
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut packet = vec![0; len];
        let result = fill(&mut packet);
        // A packet that the interface can't take is lost, as on any network.
        let _is_sent = rustix::io::write(&*self.0, &packet).is_ok();
        result
    }
}
