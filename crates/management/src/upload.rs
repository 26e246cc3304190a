//! How large uploads may be, one and all together.

use faas::Limits;
use net::{Budget, Peer, Share};

/// What a request may have besides its archive: settings and the frame around both.
const SLACK_BYTES: u64 = 1 << 20;

/// The largest body: an archive in base64, and settings.
pub(crate) fn bytes_max(limits: &Limits) -> u64 {
    let base64 = limits
        .archive_packed_bytes_max
        .div_ceil(3)
        .saturating_mul(4);
    base64.saturating_add(SLACK_BYTES)
}

/// The memory that bodies may take together. It is the management service's own: what clients of
/// the endpoints take leaves it alone.
pub(crate) fn budget(limits: &Limits) -> Share {
    let bytes = bytes_max(limits).saturating_mul(limits.uploads_at_once_max);
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Budget::new(bytes, bytes).share(Peer::Local)
}
