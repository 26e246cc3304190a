//! A secret that two ends know and neither sends.

use faas::hex;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;

/// The random bytes that each end contributes, so that no proof can be shown twice.
pub const NONCE_BYTES: usize = 32;
/// The bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// A block of SHA-256, in which HMAC (RFC 2104) has its key.
const BLOCK_BYTES: usize = 64;

/// What one instance of a handler and its caller know. Each proves to the other that it does.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Makes one that nobody knows.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// Reads what [`Secret::to_hex`] writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The secret itself, as 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// What the caller shows.
    #[must_use]
    pub fn of_caller(&self, challenge: &[u8], nonce: &[u8]) -> [u8; PROOF_BYTES] {
        self.hmac(&[b"caller", challenge, nonce])
    }

    /// What the handler shows then.
    #[must_use]
    pub fn of_handler(&self, challenge: &[u8], nonce: &[u8]) -> [u8; PROOF_BYTES] {
        self.hmac(&[b"handler", challenge, nonce])
    }

    fn hmac(&self, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        let begun = |mask: u8| {
            let mut block = [mask; BLOCK_BYTES];
            for (byte, key) in block.iter_mut().zip(self.0) {
                *byte ^= key;
            }
            Sha256::new().chain_update(block)
        };
        let inner = parts.iter().fold(begun(0x36), Digest::chain_update);
        begun(0x5c).chain_update(inner.finalize()).finalize().into()
    }
}

impl fmt::Debug for Secret {
    /// It stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::is_same;

    #[test]
    fn the_proof_is_hmac_as_others_compute_it() {
        // RFC 4231 has no key of 32 bytes; this one is by Python's hmac.
        let secret = Secret(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let proof = secret.hmac(&[b"what do ya ", b"want for nothing?"]);
        assert_eq!(
            hex(&proof),
            "099805f4ac310786968565c098db515cc50862b420ae31e20238312344bed36a"
        );
    }

    #[test]
    fn a_secret_is_read_as_it_is_written() {
        let secret = Secret::random().unwrap();
        assert_eq!(Secret::from_hex(&secret.to_hex()), Some(secret.clone()));
        assert_ne!(Secret::random().unwrap(), secret);
        for wrong in ["", "ab", &"g".repeat(64), &"a".repeat(65), &"é".repeat(32)] {
            assert_eq!(Secret::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn what_was_shown_once_is_no_proof_the_next_time() {
        let secret = Secret::random().unwrap();
        let (challenge, nonce) = ([1; NONCE_BYTES], [2; NONCE_BYTES]);
        let shown = secret.of_caller(&challenge, &nonce);
        assert!(!is_same(
            &shown,
            &secret.of_caller(&[3; NONCE_BYTES], &nonce)
        ));
        assert!(!is_same(&shown, &secret.of_handler(&challenge, &nonce)));
    }
}
