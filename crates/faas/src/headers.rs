//! The header fields of an invocation or a reply, in one flat buffer.

use bytes::{BufMut, Bytes, BytesMut};

/// The fields of a request or reply, in order, names in lower case.
///
/// They are kept as one buffer in the form that the handler protocol sends (for each field
/// `u16 name length, u16 value length, name, value`, network byte order), so that passing them on
/// is one copy and reading a reply's is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    block: Bytes,
}

/// Why a block of fields was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The block ends inside a field.
    #[error("a header block ends inside a field")]
    Truncated,
    /// A name is empty or has a byte that RFC 9110 (section 5.1) does not allow.
    #[error("a header name is empty or not a token")]
    BadName,
    /// A name has capitals where lower case is demanded.
    #[error("a header name has capital letters; send it in lower case")]
    Capitals,
    /// A value has a control character that RFC 9110 (section 5.5) does not allow.
    #[error("a header value has a control character")]
    BadValue,
    /// A name or value is longer than 65,535 bytes.
    #[error("a header field is longer than 65535 bytes")]
    TooLong,
}

/// `u16 name length, u16 value length`.
const PREFIX_BYTES: usize = 4;

impl Headers {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            block: Bytes::new(),
        }
    }

    /// Takes a block as it came over the wire.
    ///
    /// # Errors
    /// If the block is cut short, a field breaks RFC 9110's grammar, or a name has capitals:
    /// every filter of names compares with lower case.
    pub fn parse(block: Bytes) -> Result<Self, HeaderError> {
        let mut rest = &block[..];
        while !rest.is_empty() {
            let (name, value, after) = split_field(rest).ok_or(HeaderError::Truncated)?;
            check_field(name, value)?;
            if name.iter().any(u8::is_ascii_uppercase) {
                return Err(HeaderError::Capitals);
            }
            rest = after;
        }
        Ok(Self { block })
    }

    /// Collects fields; names are made lower case.
    ///
    /// # Errors
    /// If a name or value breaks RFC 9110's grammar or is too long.
    pub fn collect<'a>(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, HeaderError> {
        let mut block = BytesMut::new();
        for (name, value) in fields {
            check_field(name, value)?;
            let name_len = u16::try_from(name.len()).map_err(too_long)?;
            let value_len = u16::try_from(value.len()).map_err(too_long)?;
            block.put_u16(name_len);
            block.put_u16(value_len);
            let start = block.len();
            block.put_slice(name);
            block[start..].make_ascii_lowercase();
            block.put_slice(value);
        }
        Ok(Self {
            block: block.freeze(),
        })
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = &self.block[..];
        std::iter::from_fn(move || {
            let (name, value, after) = split_field(rest)?;
            rest = after;
            // Names were checked to be tokens, which are ASCII.
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// The first value of a field; `name` in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// The fields in the form of the wire.
    #[must_use]
    pub fn as_block(&self) -> &Bytes {
        &self.block
    }

    /// How many bytes the fields take on the wire.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.block.len()
    }

    /// Whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = self
            .iter()
            .map(|(n, v)| (n, String::from_utf8_lossy(v).into_owned()));
        f.debug_map().entries(fields).finish()
    }
}

fn too_long(_: std::num::TryFromIntError) -> HeaderError {
    HeaderError::TooLong
}

fn split_field(block: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (prefix, rest) = block.split_first_chunk::<PREFIX_BYTES>()?;
    let name_len = usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
    let value_len = usize::from(u16::from_be_bytes([prefix[2], prefix[3]]));
    let (name, rest) = rest.split_at_checked(name_len)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some((name, value, rest))
}

fn check_field(name: &[u8], value: &[u8]) -> Result<(), HeaderError> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.iter().all(|&b| token(b)) {
        return Err(HeaderError::BadName);
    }
    if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Err(HeaderError::BadValue);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_with_names_in_lower_case() {
        let headers =
            Headers::collect([(&b"Content-Type"[..], &b"text/plain"[..]), (b"x-a", b"")]).unwrap();
        let again = Headers::parse(headers.as_block().clone()).unwrap();
        let fields: Vec<_> = again.iter().collect();
        assert_eq!(fields, [("content-type", &b"text/plain"[..]), ("x-a", b"")]);
        assert_eq!(again.get("content-type"), Some(&b"text/plain"[..]));
        assert_eq!(again.get("x-b"), None);
    }

    #[test]
    fn blocks_that_break_the_grammar_are_refused() {
        let check = |block: &'static [u8], error| {
            assert_eq!(Headers::parse(Bytes::from_static(block)), Err(error));
        };
        check(b"\0", HeaderError::Truncated);
        check(b"\0\x01\0\x02a1", HeaderError::Truncated);
        check(b"\0\0\0\x01v", HeaderError::BadName);
        check(b"\0\x01\0\0 ", HeaderError::BadName);
        check(b"\0\x01\0\x01a\n", HeaderError::BadValue);
        check(b"\0\x02\0\x01aB1", HeaderError::Capitals);
    }
}
