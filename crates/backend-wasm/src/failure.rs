//! From what went wrong in an instance to what its caller and its log are told.

use bytes::Bytes;
use faas::{FunctionLog, LogStream};
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
    /// than it may have.
    pub(crate) fn of(error: &wasmtime::Error, is_memory_short: bool) -> Self {
        let mut message = match error.downcast_ref::<Trap>() {
            Some(trap) => format!("the function ended with a {trap}"),
            None => format!("the function was ended: {}", error.root_cause()),
        };
        if is_memory_short {
            message.push_str(" (it had asked for more memory than its limit)");
        }
        let details = format!("{error:?}");
        Self {
            details,
            ..Self::said(&message)
        }
    }
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
