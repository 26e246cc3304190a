//! From what went wrong in an instance to what its caller and its log are told.

use bytes::Bytes;
use faas::{FunctionLog, LogStream, PrepareError};
use std::sync::Arc;
use wasmtime::Trap;

/// The longest text for the caller, as for every function.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Why a call brought no reply.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For the caller.
    pub(crate) message: String,
    /// For the log: the whole story with the function's own stack.
    pub(crate) details: String,
}

impl Failure {
    /// The function says so itself.
    pub(crate) fn said(message: &str) -> Self {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        Self {
            message: message[..end].to_owned(),
            details: String::new(),
        }
    }

    /// The engine ended the instance. `is_memory_short` tells that it had asked for more memory
    /// than it may have, which is told where it is what such programs end of: they abort.
    pub(crate) fn of(error: &wasmtime::Error, is_memory_short: bool) -> Self {
        let mut message = match error.downcast_ref::<Trap>() {
            Some(trap) => format!("the function ended with a {trap}"),
            None => format!("the function was ended: {}", error.root_cause()),
        };
        let aborted = error.downcast_ref() == Some(&Trap::UnreachableCodeReached);
        if is_memory_short && aborted {
            message.push_str(" (it had asked for more memory than its limit)");
        }
        let details = format!("{error:?}");
        Self {
            details,
            ..Self::said(&message)
        }
    }
}

/// Why a first instance could not be made, for whoever deploys: the start function trapped, or
/// there was too little memory for what the module declares.
pub(crate) fn no_instance(error: &wasmtime::Error, is_memory_short: bool) -> PrepareError {
    let (detail, fix) = if is_memory_short {
        (
            "an instance wants more memory than its limit",
            "raise the limit (--memory)",
        )
    } else if error.is::<Trap>() {
        (
            "an instance trapped while it started",
            "see the output, and mend what runs at the start",
        )
    } else {
        ("an instance could not be made", "see the output")
    };
    PrepareError::load(detail, fix).with_output(format!("{error:#}"))
}

/// The same, where what is called has another type.
pub(crate) fn wrong_type(what: &str, fix: &str) -> PrepareError {
    PrepareError::load(format!("an instance could not be made: {what}"), fix)
}

/// Where the lines of one handler go.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub(crate) log: Arc<FunctionLog>,
    pub(crate) handler: Arc<str>,
}

impl Lines {
    /// Adds every line of what was printed.
    pub(crate) fn push(&self, stream: LogStream, printed: &Bytes) {
        if printed.is_empty() {
            return;
        }
        for line in String::from_utf8_lossy(printed).lines() {
            self.log.push(&self.handler, stream, line);
        }
    }
}
