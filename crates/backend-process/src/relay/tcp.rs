//! The TCP of the relay: its sockets, and the packets that they send and receive.

use crate::sandbox::network::{HOST_ADDRESSES, MTU};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// What a connection keeps of each direction until the other side has taken it.
const BUFFER_BYTES: usize = 128 << 10;

/// The relay's own address of version 6 on the interface.
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x696e, 0x7966, 0, 0, 0, 0, 1);

/// The sockets of all connections, as their tasks and the loop share them.
pub(super) struct Sockets {
    /// What the TCP works on; borrowed for a moment only, never across an await.
    pub(super) tcp: RefCell<Tcp>,
    /// Wakes the loop after a task has changed what a socket holds.
    pub(super) changed: Notify,
}

impl Sockets {
    pub(super) fn new(interface: Rc<AsyncFd<OwnedFd>>) -> Self {
        let mut packets = Packets {
            received: VecDeque::new(),
            interface,
        };
        Self {
            tcp: RefCell::new(Tcp {
                interface: answer_for_everyone(&mut packets),
                sockets: SocketSet::new(Vec::new()),
                packets,
                pending: HashSet::new(),
                closing: Vec::new(),
            }),
            changed: Notify::new(),
        }
    }
}

/// The TCP itself.
pub(super) struct Tcp {
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) packets: Packets,
    /// Connections that are being made on the host's side.
    pub(super) pending: HashSet<(SocketAddr, SocketAddr)>,
    /// Sockets whose tasks have ended, until the sandbox has seen the end too.
    pub(super) closing: Vec<SocketHandle>,
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
    pub(super) fn work(&mut self) -> Option<Duration> {
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

    pub(super) fn has_socket(&self, (from, to): (SocketAddr, SocketAddr)) -> bool {
        self.sockets.iter().any(|(_, socket)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            socket.remote_endpoint() == Some(from.into())
                && socket.local_endpoint() == Some(to.into())
        })
    }

    /// Makes the socket that the segment opens; none where it opens none.
    pub(super) fn accept(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        syn: Vec<u8>,
    ) -> Option<SocketHandle> {
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

fn now() -> Instant {
    Instant::now()
}

/// The interface as the TCP sees it.
pub(super) struct Packets {
    pub(super) received: VecDeque<Vec<u8>>,
    interface: Rc<AsyncFd<OwnedFd>>,
}

pub(super) struct Received(Vec<u8>);

pub(super) struct Sending(Rc<AsyncFd<OwnedFd>>);

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
