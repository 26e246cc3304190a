//! The steps that a launcher takes, each of which may fail.

use std::io;

/// The step that failed, for the parent, which knows what to advise.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct Failure {
    step: &'static str,
    source: io::Error,
}

/// Names the step that an error belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure {
            step,
            source: source.into(),
        })
    }
}
