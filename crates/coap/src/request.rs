//! What a request's options say, and how they are refused.

use crate::block::{Block, BlockError};
use crate::code::Code;
use crate::message::Message;
use crate::option::{self, uint};
use crate::transfer::Identity;
use crate::uri;
use ahash::RandomState;
use std::hash::{BuildHasher, Hasher};

/// The options of a request, understood.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) host: Option<String>,
    pub(crate) content_format: Option<u16>,
    pub(crate) accept: Option<u16>,
    pub(crate) if_match: Vec<Vec<u8>>,
    pub(crate) if_none_match: bool,
    pub(crate) block1: Option<Block>,
    pub(crate) block2: Option<Block>,
    pub(crate) size1: Option<u32>,
    pub(crate) no_response: u8,
    has_query: bool,
}

/// An answer without running anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) text: String,
}

fn refuse(code: Code, text: impl Into<String>) -> Refusal {
    Refusal {
        code,
        text: text.into(),
    }
}

impl Head {
    /// Reads the options. An option whose value or repetition breaks its definition counts as one
    /// that isn't known (RFC 7252 sections 5.4.1, 5.4.3 and 5.4.5).
    pub(crate) fn decode(message: &Message<'_>) -> Result<Self, Refusal> {
        let mut head = Self::default();
        let mut last = 0;
        for (number, value) in message.options.iter() {
            let fits = option::shape(number).is_some_and(|shape| {
                (shape.bytes_min..=shape.bytes_max).contains(&value.len())
                    && (shape.is_repeatable || number != last)
            });
            last = number;
            let is_understood = fits && head.take(number, value)?;
            if !is_understood && option::is_critical(number) {
                let text = format!("the critical option {number} is unknown or malformed");
                return Err(refuse(Code::BAD_OPTION, text));
            }
        }
        if message.code.method().is_none() {
            let text = format!("the method {} is not known", message.code);
            return Err(refuse(Code::METHOD_NOT_ALLOWED, text));
        }
        if head.path.is_empty() {
            head.path.push('/');
        }
        Ok(head)
    }

    /// What its texts take.
    pub(crate) fn len_bytes(&self) -> usize {
        let tags: usize = self
            .if_match
            .iter()
            .map(|tag| tag.len() + size_of::<Vec<u8>>())
            .sum();
        let host = self.host.as_ref().map_or(0, String::len);
        self.path.len() + self.query.len() + host + tags
    }

    /// Takes one option; false where its value is not well-formed.
    fn take(&mut self, number: u16, value: &[u8]) -> Result<bool, Refusal> {
        let text = std::str::from_utf8(value);
        let short = uint(value).and_then(|value| u16::try_from(value).ok());
        match (number, text) {
            (option::URI_PATH, Ok(segment)) => uri::push_segment(&mut self.path, segment),
            (option::URI_QUERY, Ok(argument)) => {
                uri::push_argument(&mut self.query, argument, !self.has_query);
                self.has_query = true;
            }
            (option::URI_HOST, Ok(host)) => self.host = Some(host.to_owned()),
            (option::URI_PATH | option::URI_QUERY | option::URI_HOST, Err(_)) => return Ok(false),
            (option::CONTENT_FORMAT, _) => self.content_format = short,
            (option::ACCEPT, _) => self.accept = short,
            (option::IF_MATCH, _) => self.if_match.push(value.to_vec()),
            (option::IF_NONE_MATCH, _) => self.if_none_match = true,
            (option::BLOCK1, _) => self.block1 = Some(block(value)?),
            (option::BLOCK2, _) => self.block2 = Some(block(value)?),
            (option::SIZE1, _) => self.size1 = uint(value),
            (option::NO_RESPONSE, _) => {
                self.no_response = value.first().copied().unwrap_or_default();
            }
            (option::PROXY_URI | option::PROXY_SCHEME, _) => {
                let text = "this is no forward proxy; leave out Proxy-Uri and Proxy-Scheme";
                return Err(refuse(Code::PROXYING_NOT_SUPPORTED, text));
            }
            // Understood, and without effect on a function: Uri-Port, Observe, ETag, ….
            _ => {}
        }
        Ok(true)
    }
}

fn block(value: &[u8]) -> Result<Block, Refusal> {
    Block::parse(value).map_err(|error| match error {
        BlockError::TooLong => refuse(Code::BAD_OPTION, error.to_string()),
        BlockError::Reserved => refuse(Code::BAD_REQUEST, error.to_string()),
    })
}

/// What identifies the body of an upload among those of one peer: the method and the options
/// but those of the transfer itself (RFC 7959 section 2.5), with the Request-Tag (RFC 9175).
pub(crate) fn upload_identity(message: &Message<'_>, keys: &RandomState) -> Identity {
    let resource = digest(message, keys, |number| {
        !matches!(
            number,
            option::BLOCK1 | option::BLOCK2 | option::REQUEST_TAG
        )
    });
    Identity {
        resource,
        operation: operation(message, keys, &[]),
    }
}

/// What identifies a representation among those that one peer fetches. Clients leave out the
/// fields of their payload when they ask for the second block on. The payload is part of a FETCH
/// (RFC 8132 section 2).
pub(crate) fn download_identity(message: &Message<'_>, keys: &RandomState) -> Identity {
    let resource = digest(message, keys, |number| {
        let is_of_payload = matches!(
            number,
            option::BLOCK1 | option::BLOCK2 | option::CONTENT_FORMAT | option::REQUEST_TAG
        );
        !is_of_payload && !matches!(number, option::OBSERVE | option::ETAG)
    });
    // A payload in blocks is told apart by its Request-Tag alone.
    let is_whole = message.code == Code::FETCH && message.options.get(option::BLOCK1).is_none();
    let payload = if is_whole { message.payload } else { &[] };
    Identity {
        resource,
        operation: operation(message, keys, payload),
    }
}

fn operation(message: &Message<'_>, keys: &RandomState, payload: &[u8]) -> u64 {
    let mut tags = message
        .options
        .iter()
        .filter(|(number, _)| *number == option::REQUEST_TAG);
    let first = tags.next();
    if first.is_none() && payload.is_empty() {
        return 0;
    }
    let mut hasher = keys.build_hasher();
    for (_, tag) in first.into_iter().chain(tags) {
        write(&mut hasher, option::REQUEST_TAG, tag);
    }
    hasher.write(payload);
    hasher.finish().max(1)
}

fn digest(message: &Message<'_>, keys: &RandomState, belongs: impl Fn(u16) -> bool) -> u64 {
    let mut hasher = keys.build_hasher();
    hasher.write_u8(message.code.to_byte());
    for (number, value) in message.options.iter() {
        let is_key = !option::is_no_cache_key(number) && number != option::NO_RESPONSE;
        if is_key && belongs(number) {
            write(&mut hasher, number, value);
        }
    }
    hasher.finish()
}

fn write(hasher: &mut impl Hasher, number: u16, value: &[u8]) {
    hasher.write_u16(number);
    hasher.write_usize(value.len());
    hasher.write(value);
}
