//! Messages as they are sent in a datagram, RFC 7252 section 3.

use crate::code::Code;
use bytes::Bytes;
use std::fmt;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 4;
const TOKEN_BYTES_MAX: usize = 8;
const PAYLOAD_MARKER: u8 = 0xff;

/// What a message is for, RFC 7252 section 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// CON: wants an acknowledgement.
    Confirmable,
    /// NON: wants none.
    NonConfirmable,
    /// ACK.
    Acknowledgement,
    /// RST.
    Reset,
}

impl Kind {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Confirmable,
            1 => Self::NonConfirmable,
            2 => Self::Acknowledgement,
            _ => Self::Reset,
        }
    }

    const fn to_bits(self) -> u8 {
        match self {
            Self::Confirmable => 0,
            Self::NonConfirmable => 1,
            Self::Acknowledgement => 2,
            Self::Reset => 3,
        }
    }
}

/// What matches a response to its request: 0 to 8 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Token {
    bytes: [u8; TOKEN_BYTES_MAX],
    len: u8,
}

impl Token {
    /// The token of no bytes.
    pub const EMPTY: Self = Self {
        bytes: [0; TOKEN_BYTES_MAX],
        len: 0,
    };

    /// The token of these bytes; none where they are more than 8.
    #[must_use]
    pub fn new(token: &[u8]) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES_MAX];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        let len = u8::try_from(token.len()).ok()?;
        Some(Self { bytes, len })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.as_bytes().iter();
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A message, borrowed from its datagram.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// CON, NON, ACK or RST.
    pub kind: Kind,
    /// The method, the response's code, or empty.
    pub code: Code,
    /// Matches an acknowledgement to its message, and a duplicate to its first.
    pub message_id: u16,
    /// Matches a response to its request.
    pub token: Token,
    /// The options, in the order of their numbers.
    pub options: Options<'a>,
    /// What follows the options.
    pub payload: &'a [u8],
}

/// Why a datagram is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is shorter than the four-byte header.
    #[error("a datagram of {0} bytes is no CoAP message")]
    TooShort(usize),
    /// It has another version than 1, and must be ignored (RFC 7252 section 3).
    #[error("CoAP version {0} is not known")]
    Version(u8),
    /// The header could be read, what follows could not. A confirmable message is rejected with
    /// a reset, any other is ignored (sections 4.2 and 4.3).
    #[error("malformed message: {reason}")]
    Malformed {
        /// The kind of the message.
        kind: Kind,
        /// The id of the message.
        message_id: u16,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl<'a> Message<'a> {
    /// Reads the message in a datagram. Nothing is copied.
    ///
    /// # Errors
    /// If the datagram breaks RFC 7252 section 3.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let Some((header, rest)) = datagram.split_at_checked(HEADER_BYTES) else {
            return Err(ParseError::TooShort(datagram.len()));
        };
        let version = header[0] >> 6;
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let kind = Kind::from_bits(header[0] >> 4);
        let code = Code::from_byte(header[1]);
        let message_id = u16::from_be_bytes([header[2], header[3]]);
        let malformed = |reason| ParseError::Malformed {
            kind,
            message_id,
            reason,
        };
        let token_len = usize::from(header[0] & 0xf);
        if code == Code::EMPTY && (token_len != 0 || !rest.is_empty()) {
            return Err(malformed("an empty message with something in it"));
        }
        let split = rest.split_at_checked(token_len);
        let token = split.and_then(|(token, _)| Token::new(token));
        let (Some(token), Some((_, rest))) = (token, split) else {
            return Err(malformed("a token over 8 bytes or cut short"));
        };
        let (options, payload) = split_options(rest).map_err(malformed)?;
        Ok(Self {
            kind,
            code,
            message_id,
            token,
            options: Options(options),
            payload,
        })
    }
}

/// Walks over the options and returns them apart from the payload.
fn split_options(rest: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let mut at = rest;
    let mut number = 0_u32;
    loop {
        let options = &rest[..rest.len() - at.len()];
        match at {
            [] => return Ok((options, &[])),
            [PAYLOAD_MARKER] => return Err("a payload marker without payload"),
            [PAYLOAD_MARKER, payload @ ..] => return Ok((options, payload)),
            [_, ..] => {}
        }
        let (delta, _value, after) = split_option(at).ok_or("an option is cut short")?;
        number += delta;
        if number > u32::from(u16::MAX) {
            return Err("an option number over 65535");
        }
        at = after;
    }
}

/// The delta and value of the first option, and what follows it.
fn split_option(at: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (&first, rest) = at.split_first()?;
    let (delta, rest) = extended(first >> 4, rest)?;
    let (len, rest) = extended(first & 0xf, rest)?;
    let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    Some((delta, value, rest))
}

fn extended(nibble: u8, rest: &[u8]) -> Option<(u32, &[u8])> {
    match nibble {
        13 => {
            let (&byte, rest) = rest.split_first()?;
            Some((u32::from(byte) + 13, rest))
        }
        14 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            Some((u32::from(u16::from_be_bytes(*bytes)) + 269, rest))
        }
        15 => None,
        small => Some((u32::from(small), rest)),
    }
}

/// The options of a message, known to be well-formed.
#[derive(Clone, Copy, Default)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Number and value of each option, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut rest = self.0;
        let mut number = 0_u32;
        std::iter::from_fn(move || {
            let (delta, value, after) = split_option(rest)?;
            number += delta;
            rest = after;
            Some((u16::try_from(number).ok()?, value))
        })
    }

    /// The value of the first option with that number.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<&'a [u8]> {
        let found = self.iter().find(|(n, _)| *n == number);
        found.map(|(_, value)| value)
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Writes one message.
#[derive(Debug)]
pub struct Encoder {
    buffer: Vec<u8>,
    last: u16,
}

impl Encoder {
    /// Begins a message.
    #[must_use]
    pub fn new(kind: Kind, code: Code, message_id: u16, token: Token) -> Self {
        let mut buffer = Vec::with_capacity(64);
        buffer.push((VERSION << 6) | (kind.to_bits() << 4) | token.len);
        buffer.push(code.to_byte());
        buffer.extend_from_slice(&message_id.to_be_bytes());
        buffer.extend_from_slice(token.as_bytes());
        Self { buffer, last: 0 }
    }

    /// An empty message: an acknowledgement, a reset or a ping.
    #[must_use]
    pub fn empty(kind: Kind, message_id: u16) -> Bytes {
        Self::new(kind, Code::EMPTY, message_id, Token::EMPTY).finish(&[])
    }

    /// Adds an option of at most 65,804 bytes; the rest of a longer value is cut off.
    ///
    /// # Panics
    /// If options do not come in the order of their numbers.
    pub fn option(&mut self, number: u16, value: &[u8]) -> &mut Self {
        let delta = number.checked_sub(self.last);
        let delta = delta.expect("options are added in the order of their numbers");
        self.last = number;
        let value = &value[..value.len().min(usize::from(u16::MAX) + 269)];
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let (delta, delta_bytes) = split_extension(u32::from(delta));
        let (len, len_bytes) = split_extension(len);
        self.buffer.push((delta << 4) | len);
        self.buffer.extend_from_slice(delta_bytes.as_slice());
        self.buffer.extend_from_slice(len_bytes.as_slice());
        self.buffer.extend_from_slice(value);
        self
    }

    /// Adds an option of the format uint.
    pub fn uint(&mut self, number: u16, value: u32) -> &mut Self {
        let bytes = value.to_be_bytes();
        let zeros = usize::try_from(value.leading_zeros() / 8).unwrap_or_default();
        self.option(number, &bytes[zeros..])
    }

    /// Ends the message.
    #[must_use]
    pub fn finish(mut self, payload: &[u8]) -> Bytes {
        if !payload.is_empty() {
            self.buffer.push(PAYLOAD_MARKER);
            self.buffer.extend_from_slice(payload);
        }
        self.buffer.into()
    }
}

/// The bytes that extend a delta or length.
enum Extension {
    None,
    One([u8; 1]),
    Two([u8; 2]),
}

impl Extension {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::One(bytes) => bytes,
            Self::Two(bytes) => bytes,
        }
    }
}

fn split_extension(value: u32) -> (u8, Extension) {
    if let Ok(small @ 0..13) = u8::try_from(value) {
        return (small, Extension::None);
    }
    if let Ok(byte) = u8::try_from(value - 13) {
        return (13, Extension::One([byte]));
    }
    let rest = u16::try_from(value - 269).unwrap_or(u16::MAX);
    (14, Extension::Two(rest.to_be_bytes()))
}

#[cfg(test)]
mod tests;
