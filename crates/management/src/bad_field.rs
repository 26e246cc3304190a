//! Why a field of a request is refused.

/// A field of a request that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadField {
    /// Its name in the API.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to send instead.
    pub fix: String,
}

impl BadField {
    pub(crate) fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            fix: fix.into(),
        }
    }
}
