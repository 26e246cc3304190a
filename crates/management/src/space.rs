//! What tells that a disk has no room.

use std::io;

/// Whether a disk is full, over its quota or read-only.
pub(crate) fn lacks_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}
