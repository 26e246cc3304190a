//! What the proxy asks for.

use bytes::Bytes;
use faas::Headers;

/// A request that has come and not begun.
pub(crate) struct Request {
    pub(crate) id: u32,
    pub(crate) invocation: u64,
    pub(crate) method: Bytes,
    pub(crate) path: Bytes,
    pub(crate) query: Bytes,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}
