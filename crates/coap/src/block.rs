//! The value of a Block1 or Block2 option, RFC 7959 section 2.2.

use crate::option::uint;

const NUM_MAX: u32 = (1 << 20) - 1;

/// The largest size exponent over UDP: blocks of 1024 bytes.
pub const SZX_MAX: u8 = 6;

/// Which block of a body a message carries or asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    num: u32,
    /// Whether more blocks follow.
    pub more: bool,
    szx: u8,
}

/// Why a block option is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It has more than 3 bytes.
    #[error("a block option is longer than 3 bytes")]
    TooLong,
    /// Its size exponent is 7, which is reserved.
    #[error("the block size exponent 7 is reserved; use 0 to 6")]
    Reserved,
}

impl Block {
    /// The block that begins at a byte; none where its number is over 20 bits or `szx` over 6.
    #[must_use]
    pub fn at(offset: usize, more: bool, szx: u8) -> Option<Self> {
        if szx > SZX_MAX {
            return None;
        }
        let num = u32::try_from(offset >> (szx + 4)).ok()?;
        (num <= NUM_MAX).then_some(Self { num, more, szx })
    }

    /// Reads an option's value.
    ///
    /// # Errors
    /// If it is too long or has the reserved size.
    pub fn parse(value: &[u8]) -> Result<Self, BlockError> {
        let bits = uint(value).filter(|_| value.len() <= 3);
        let bits = bits.ok_or(BlockError::TooLong)?;
        let szx = value.last().map_or(0, |byte| byte & 7);
        if szx > SZX_MAX {
            return Err(BlockError::Reserved);
        }
        Ok(Self {
            num: bits >> 4,
            more: bits & 8 != 0,
            szx,
        })
    }

    /// The option's value as a uint.
    #[must_use]
    pub fn to_uint(self) -> u32 {
        (self.num << 4) | (u32::from(self.more) << 3) | u32::from(self.szx)
    }

    /// The block's number.
    #[must_use]
    pub fn num(self) -> u32 {
        self.num
    }

    /// The size exponent, 0 to 6.
    #[must_use]
    pub fn szx(self) -> u8 {
        self.szx
    }

    /// The size of a whole block in bytes, 16 to 1024.
    #[must_use]
    pub fn size(self) -> usize {
        16 << self.szx
    }

    /// Where the block begins in the body.
    #[must_use]
    pub fn offset(self) -> usize {
        // 20 bits of number and at most 10 of size.
        usize::try_from(self.num).map_or(usize::MAX, |num| num * self.size())
    }

    /// The block of this number and size out of a body, and what it is; none behind its end. A
    /// body of no bytes has one block.
    #[must_use]
    pub fn slice(self, body: &[u8]) -> Option<(Self, &[u8])> {
        let offset = self.offset();
        if offset >= body.len() && offset > 0 {
            return None;
        }
        let end = body.len().min(offset + self.size());
        let more = end < body.len();
        Some((Self { more, ..self }, &body[offset..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_the_layout_of_the_rfc() {
        let check = |value: &[u8], expected: Result<(u32, bool, usize), BlockError>| {
            let block = Block::parse(value).map(|b| (b.num(), b.more, b.size()));
            assert_eq!(block, expected, "{value:?}");
        };
        check(&[], Ok((0, false, 16)));
        check(&[0x06], Ok((0, false, 1024)));
        check(&[0x0e], Ok((0, true, 1024)));
        check(&[0x01, 0x1a], Ok((17, true, 64)));
        check(&[0xff, 0xff, 0xf6], Ok((NUM_MAX, false, 1024)));
        check(&[0x07], Err(BlockError::Reserved));
        check(&[0, 0, 0, 6], Err(BlockError::TooLong));
    }

    #[test]
    fn slices_cover_a_body_and_nothing_behind_it() {
        let body: Vec<u8> = (0..100).collect();
        let slice = |num: u32| {
            let block = Block {
                num,
                more: false,
                szx: 1,
            };
            block.slice(&body).map(|(b, s)| (b.more, s.len()))
        };
        assert_eq!(slice(0), Some((true, 32)));
        assert_eq!(slice(3), Some((false, 4)));
        assert_eq!(slice(4), None);
        let first = Block::at(0, false, 6).unwrap();
        assert_eq!(first.slice(&[]), Some((first, &[][..])));
    }
}
