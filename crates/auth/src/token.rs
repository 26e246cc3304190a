//! What a client shows to be let in.

use crate::is_same;
use faas::hex;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;

/// How many random bytes a token has; it is written in hexadecimal.
const BYTES: usize = 32;

/// A token that is expected, kept as its digest: whoever reads the memory learns nothing to show.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Expects this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Whether that was shown. The digests are compared, so that not even the length shows in the
    /// time.
    #[must_use]
    pub fn is(&self, shown: &str) -> bool {
        is_same(&Self::new(shown).0, &self.0)
    }

    /// The text of a new token: 64 hexadecimal digits that nobody can guess.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn random() -> io::Result<String> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(hex(&bytes))
    }
}

impl fmt::Debug for Token {
    /// It stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_only_its_own_text() {
        let text = Token::random().unwrap();
        assert_eq!(text.len(), 2 * BYTES);
        let token = Token::new(&text);
        assert!(token.is(&text));
        let other = Token::random().unwrap();
        for shown in [
            "",
            &text[1..],
            &other,
            &text.to_uppercase(),
            &format!("{text} "),
        ] {
            assert!(!token.is(shown) || shown == text, "{shown}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }
}
