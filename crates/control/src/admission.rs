//! Whether the reverse proxy takes calls: its management service has that ended before it takes the
//! handlers away.

use tokio_util::sync::CancellationToken;

/// The reverse proxy's door, as its management service closes it. A clone is another handle of the
/// same.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    closing: CancellationToken,
    closed: CancellationToken,
}

impl Admission {
    /// Returns when no more calls shall be taken.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Notes that every call that was taken has finished.
    pub fn set_closed(&self) {
        self.closed.cancel();
    }

    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
