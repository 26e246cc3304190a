//! Option numbers and what values they can have, RFC 7252 section 5.10.

/// If-Match.
pub const IF_MATCH: u16 = 1;
/// Uri-Host.
pub const URI_HOST: u16 = 3;
/// `ETag`.
pub const ETAG: u16 = 4;
/// If-None-Match.
pub const IF_NONE_MATCH: u16 = 5;
/// Observe, RFC 7641.
pub const OBSERVE: u16 = 6;
/// Uri-Port.
pub const URI_PORT: u16 = 7;
/// Uri-Path, one for each segment.
pub const URI_PATH: u16 = 11;
/// Content-Format.
pub const CONTENT_FORMAT: u16 = 12;
/// Max-Age, in seconds.
pub const MAX_AGE: u16 = 14;
/// Uri-Query, one for each argument.
pub const URI_QUERY: u16 = 15;
/// Accept.
pub const ACCEPT: u16 = 17;
/// Block2, RFC 7959.
pub const BLOCK2: u16 = 23;
/// Block1, RFC 7959.
pub const BLOCK1: u16 = 27;
/// Size2, RFC 7959.
pub const SIZE2: u16 = 28;
/// Proxy-Uri.
pub const PROXY_URI: u16 = 35;
/// Proxy-Scheme.
pub const PROXY_SCHEME: u16 = 39;
/// Size1.
pub const SIZE1: u16 = 60;
/// No-Response, RFC 7967.
pub const NO_RESPONSE: u16 = 258;
/// Request-Tag, RFC 9175.
pub const REQUEST_TAG: u16 = 292;

/// Whether a message must be refused where the option isn't understood, section 5.4.1.
#[must_use]
pub const fn is_critical(number: u16) -> bool {
    number & 1 == 1
}

/// Whether an option does not belong to what identifies the answer, section 5.4.6.
#[must_use]
pub const fn is_no_cache_key(number: u16) -> bool {
    number & 0x1e == 0x1c
}

/// What a request's option can look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The shortest value in bytes.
    pub bytes_min: usize,
    /// The longest value in bytes.
    pub bytes_max: usize,
    /// Whether it can stand more than once.
    pub is_repeatable: bool,
}

/// The shape of an option that a request can have, where this crate understands it.
#[must_use]
pub const fn shape(number: u16) -> Option<Shape> {
    let (bytes_min, bytes_max, is_repeatable) = match number {
        IF_MATCH => (0, 8, true),
        URI_HOST => (1, 255, false),
        ETAG => (1, 8, true),
        IF_NONE_MATCH => (0, 0, false),
        OBSERVE | BLOCK1 | BLOCK2 => (0, 3, false),
        URI_PORT | CONTENT_FORMAT | ACCEPT => (0, 2, false),
        URI_PATH => (0, 255, true),
        URI_QUERY => (0, 255, true),
        MAX_AGE | SIZE1 | SIZE2 => (0, 4, false),
        PROXY_URI => (1, 1034, false),
        PROXY_SCHEME => (1, 255, false),
        NO_RESPONSE => (0, 1, false),
        REQUEST_TAG => (0, 8, true),
        _ => return None,
    };
    Some(Shape {
        bytes_min,
        bytes_max,
        is_repeatable,
    })
}

/// The number in an option of the format uint, section 3.2; none where it is longer than 4 bytes.
#[must_use]
pub fn uint(value: &[u8]) -> Option<u32> {
    if value.len() > 4 {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u32::from(*byte)),
    )
}
