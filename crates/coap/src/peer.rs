//! Who speaks with a server.

use std::fmt::Debug;
use std::hash::Hash;

/// The other end of an exchange: an address and a port, say.
pub trait Peer: Debug + Eq + Hash + Clone {
    /// The host that the peer is on. Peers of one host share one part of the room, so that a host
    /// does not get more by using more ports.
    fn host(&self) -> net::Peer;
}

#[cfg(test)]
impl Peer for u8 {
    fn host(&self) -> net::Peer {
        net::Peer::V4([192, 0, 2, *self].into())
    }
}
