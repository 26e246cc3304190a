//! Flows of datagrams: each has a socket of the host, until no reply has come for a while.

use super::Terms;
use crate::sandbox::network::MTU;
use rustix::net::{SendFlags, send};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, UdpPacket, UdpRepr};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

/// The sandbox's end and the other one.
type Ends = (SocketAddr, SocketAddr);

const HOP_LIMIT: u8 = 64;

/// All flows.
pub(super) struct Datagrams {
    flows: Rc<RefCell<HashMap<Ends, Rc<UdpSocket>>>>,
    interface: Rc<AsyncFd<OwnedFd>>,
}

impl Datagrams {
    pub(super) fn new(interface: Rc<AsyncFd<OwnedFd>>) -> Self {
        Self {
            flows: Rc::default(),
            interface,
        }
    }

    /// Sends a datagram on; one that can't be sent is lost, as on any network.
    pub(super) fn take(
        &self,
        (from, to): (IpAddr, IpAddr),
        datagram: &[u8],
        terms: &Terms,
        target: impl FnOnce(SocketAddr) -> Option<SocketAddr>,
    ) {
        let Ok(datagram) = UdpPacket::new_checked(datagram) else {
            return;
        };
        let ends = (
            SocketAddr::new(from, datagram.src_port()),
            SocketAddr::new(to, datagram.dst_port()),
        );
        let known = self.flows.borrow().get(&ends).cloned();
        let has_room = || self.flows.borrow().len() < terms.connections_max;
        let socket = known.or_else(|| {
            let target = has_room().then(|| target(ends.1)).flatten()?;
            self.open(ends, target, terms).ok()
        });
        if let Some(socket) = socket {
            // Not by the event loop, which does not know yet that a new socket can be written to.
            let sent = send(&*socket, datagram.payload(), SendFlags::NOSIGNAL);
            let _is_sent = sent.is_ok();
        }
    }

    fn open(&self, ends: Ends, target: SocketAddr, terms: &Terms) -> io::Result<Rc<UdpSocket>> {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        self.flows.borrow_mut().insert(ends, Rc::clone(&socket));
        let (flows, interface) = (Rc::clone(&self.flows), Rc::clone(&self.interface));
        let (replies, idle) = (Rc::clone(&socket), terms.datagrams_idle);
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; usize::from(MTU)];
            // An error is such as a port that nobody listens on.
            while let Ok(Ok(len)) = tokio::time::timeout(idle, replies.recv(&mut buffer)).await {
                let packet = packet(ends, &buffer[..len]);
                let _is_sent = rustix::io::write(&*interface, &packet).is_ok();
            }
            flows.borrow_mut().remove(&ends);
        });
        Ok(socket)
    }
}

/// A reply to the sandbox as a packet.
fn packet((to, from): Ends, payload: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let len = udp.header_len() + payload.len();
    let ip = IpRepr::new(source, destination, IpProtocol::Udp, len, HOP_LIMIT);
    let mut packet = vec![0; ip.header_len() + len];
    let (head, body) = packet.split_at_mut(ip.header_len());
    ip.emit(head, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(body),
        &source,
        &destination,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums,
    );
    packet
}
