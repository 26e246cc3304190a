//! The addresses of networks.

use sha2::{Digest, Sha256};
use std::sync::atomic::AtomicU32;

/// The networks' addresses: 10.208.0.0/12 in blocks of 512, so that a function may have as many
/// handlers as there can be. The engine's own pools have 31 networks in all.
const FIRST: u32 = u32::from_be_bytes([10, 208, 0, 0]);
const BLOCK_BITS: u32 = 9;
pub(crate) const BLOCKS: u32 = 1 << (20 - BLOCK_BITS);

/// Where an instance begins: another on this machine, with another engine, most likely elsewhere.
/// An engine knows only its own networks.
pub(crate) fn first_block(instance: &str) -> AtomicU32 {
    let digest = Sha256::digest(instance);
    AtomicU32::new(u32::from_be_bytes([
        digest[0], digest[1], digest[2], digest[3],
    ]))
}

pub(crate) fn subnet(block: u32) -> String {
    let addr = std::net::Ipv4Addr::from(FIRST + (block << BLOCK_BITS));
    format!("{addr}/{}", 32 - BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_within_their_range() {
        assert_eq!(subnet(0), "10.208.0.0/23");
        assert_eq!(subnet(1), "10.208.2.0/23");
        assert_eq!(subnet(BLOCKS - 1), "10.223.254.0/23");
    }
}
