//! How a command failed, as its exit code.

use management::{OpenError, RestoreError};
use std::borrow::Cow;
use std::process::ExitCode;

/// A failure that has an exit code of its own; every other failure is 1, wrong usage 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No node answers.
    #[error("no node answers at {node} ({reason})")]
    Unreachable {
        /// The address that was tried.
        node: String,
        /// What the system said.
        reason: String,
    },
    /// An endpoint of a node does not answer.
    #[error("nothing answers at {0}")]
    EndpointUnreachable(String),
    /// The function is not there.
    #[error("{0}")]
    NotFound(String),
}

impl Failure {
    fn fix(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "start it with: tinyfaas serve",
            Self::EndpointUnreachable(_) => "check the address with: tinyfaas status",
            Self::NotFound(_) => "see the functions with: tinyfaas list",
        }
    }
}

/// What to do about the error that a command ended with, where it says that by itself.
pub(crate) fn fix(error: &anyhow::Error) -> Option<Cow<'static, str>> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return Some(failure.fix().into());
    }
    if let Some(error) = error.downcast_ref::<RestoreError>() {
        return Some(error.fix().into());
    }
    let error = error.downcast_ref::<OpenError>()?;
    Some(error.fix().into())
}

/// The exit code for the error that a command ended with.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Unreachable { .. } | Failure::EndpointUnreachable(_)) => ExitCode::from(3),
        Some(Failure::NotFound(_)) => ExitCode::from(4),
        None => ExitCode::FAILURE,
    }
}
