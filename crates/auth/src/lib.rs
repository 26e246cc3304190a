//! Who is at the other end: secrets that two parts of tinyFaaS share, tokens that clients show, and
//! the one comparison of both.

mod secret;
mod token;

pub use secret::{NONCE_BYTES, PROOF_BYTES, Secret};
pub use token::Token;

use subtle::ConstantTimeEq;

/// Compares in a time that does not tell where they differ.
#[must_use]
pub fn is_same(shown: &[u8], expected: &[u8]) -> bool {
    shown.ct_eq(expected).into()
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn only_the_whole_is_the_same() {
        assert!(is_same(b"secret", b"secret"));
        for shown in ["", "secre", "secrets", "Secret", "secreT"] {
            assert!(!is_same(shown.as_bytes(), b"secret"), "{shown}");
        }
    }
}
