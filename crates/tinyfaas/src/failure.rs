//! How a command failed, as its exit code.

use std::process::ExitCode;

/// A failure that has an exit code of its own; every other failure is 1, wrong usage 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No node answers.
    #[error("no node answers at {node} ({reason}); start it with: tinyfaas serve")]
    Unreachable {
        /// The address that was tried.
        node: String,
        /// What the system said.
        reason: String,
    },
    /// An endpoint of a node does not answer.
    #[error("nothing answers at {0}; check the address with: tinyfaas status")]
    EndpointUnreachable(String),
    /// The function is not there.
    #[error("{0} (tinyfaas list shows the functions)")]
    NotFound(String),
}

/// The exit code for the error that a command ended with.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Unreachable { .. } | Failure::EndpointUnreachable(_)) => ExitCode::from(3),
        Some(Failure::NotFound(_)) => ExitCode::from(4),
        None => ExitCode::FAILURE,
    }
}
