//! Who speaks with a server.

use std::fmt::Debug;
use std::hash::Hash;

/// The other end of an exchange: an address and a port, say.
pub trait Peer: Debug + Eq + Hash + Clone {
    /// What tells hosts apart. Peers of one host share one part of the room, so that a host does
    /// not get more by using more ports.
    type Host: Debug + Eq + Hash + Clone;

    /// The host that the peer is on.
    fn host(&self) -> Self::Host;
}

#[cfg(test)]
impl Peer for u8 {
    type Host = u8;

    fn host(&self) -> u8 {
        *self
    }
}
