//! The messages, as lines of JSON.

use faas::{
    CallTerms, Cors, FunctionName, HandlerState, HandlerStatus, NameError, PrepareError,
    PrepareErrorKind, Tally,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What the reverse proxy says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToManagement {
    /// The first line: who it is and what it has.
    Hello {
        secret: String,
        /// Those that are ready here.
        revisions: Vec<u64>,
        /// Those that are in use here.
        instances: Vec<u64>,
    },
    /// Asks for an instance of a handler.
    Launch { call: u64, handler: String },
    /// Asks for the end of an instance.
    Kill { instance: u64 },
    /// Every handler of a revision said hello.
    Ready { revision: u64 },
    /// A revision can't be made ready, and nothing is left of it.
    Refused { revision: u64, failure: Failure },
    /// Nothing is left of a revision.
    Retired { revision: u64 },
    /// The table of that number is in force.
    Applied { table: u64 },
    /// Answers `Close`: every call that was taken has finished.
    Closed,
    /// How handlers and functions do; comes now and then.
    Report {
        handlers: Vec<HandlerRow>,
        functions: Vec<TallyRow>,
    },
}

/// What the management service says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToProxy {
    /// The first line: what of the proxy's things is known here.
    Welcome {
        revisions: Vec<u64>,
        instances: Vec<u64>,
    },
    /// Asks to make a revision ready.
    Start {
        revision: u64,
        function: Function,
        handlers: Vec<String>,
        /// Whether it was ready before: then the proxy tries until it is again.
        is_live: bool,
    },
    /// Asks to let a revision finish and end.
    Retire { revision: u64, grace_ms: u64 },
    /// The whole table; what is not in it is no function any more.
    Table { number: u64, rows: Vec<Row> },
    /// Answers `Launch`.
    Launched {
        call: u64,
        instance: u64,
        addr: SocketAddr,
        /// What the proxy and the instance know each other by, in hexadecimal digits.
        secret: String,
    },
    /// Answers `Launch`.
    NotLaunched { call: u64, failure: Failure },
    /// Nothing of an instance is left.
    Ended { instance: u64, how: String },
    /// Asks to take no more calls and to finish those that were taken, asynchronous ones too.
    Close,
    /// Comes now and then, so that silence tells.
    Alive,
}

/// What the proxy has to know of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) deadline_ms: u64,
    pub(crate) queue_max: usize,
    /// Which pages may call it; none where that is the node's to say.
    #[serde(default)]
    pub(crate) cors: Option<String>,
}

/// A name of the table and what serves it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) function: Function,
    /// None while it is being prepared.
    pub(crate) revision: Option<u64>,
    /// Why it has none, as callers may read it.
    pub(crate) failure: Option<String>,
}

/// A [`PrepareError`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: FailureKind,
    detail: String,
    fix: String,
    pub(crate) output: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FailureKind {
    Runtime,
    Code,
    Build,
    Load,
    Host,
    NoRoom,
    Busy,
}

/// A [`HandlerStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandlerRow {
    pub(crate) id: String,
    state: State,
    restarts: u64,
    in_flight: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Starting,
    Ready,
    Pausing {
        reason: String,
        detail: String,
        retry_after_ms: u64,
    },
    Stopped,
}

/// A [`Tally`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TallyRow {
    pub(crate) name: String,
    invocations: u64,
    function_errors: u64,
    platform_errors: u64,
    waiting: usize,
    overhead: Vec<u64>,
}

impl From<&CallTerms> for Function {
    fn from(terms: &CallTerms) -> Self {
        Self {
            name: terms.name.to_string(),
            deadline_ms: millis(terms.deadline),
            queue_max: terms.queue_max,
            cors: terms.cors.as_deref().map(ToString::to_string),
        }
    }
}

impl Function {
    pub(crate) fn terms(&self) -> Result<CallTerms, NameError> {
        Ok(CallTerms {
            name: self.name.parse()?,
            deadline: Duration::from_millis(self.deadline_ms),
            queue_max: self.queue_max,
            cors: self.cors().map(Arc::new),
        })
    }

    /// No page may call where the text means nothing here.
    fn cors(&self) -> Option<Cors> {
        let text = self.cors.as_deref()?;
        Some(text.parse().unwrap_or(Cors::None))
    }
}

impl From<&PrepareError> for Failure {
    fn from(error: &PrepareError) -> Self {
        Self {
            kind: match error.kind {
                PrepareErrorKind::Runtime => FailureKind::Runtime,
                PrepareErrorKind::Code => FailureKind::Code,
                PrepareErrorKind::Build => FailureKind::Build,
                PrepareErrorKind::Load => FailureKind::Load,
                PrepareErrorKind::Host => FailureKind::Host,
                PrepareErrorKind::NoRoom => FailureKind::NoRoom,
                PrepareErrorKind::Busy => FailureKind::Busy,
            },
            detail: error.detail.clone(),
            fix: error.fix.clone(),
            output: error.output.clone(),
        }
    }
}

impl From<Failure> for PrepareError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::Runtime => PrepareErrorKind::Runtime,
            FailureKind::Code => PrepareErrorKind::Code,
            FailureKind::Build => PrepareErrorKind::Build,
            FailureKind::Load => PrepareErrorKind::Load,
            FailureKind::Host => PrepareErrorKind::Host,
            FailureKind::NoRoom => PrepareErrorKind::NoRoom,
            FailureKind::Busy => PrepareErrorKind::Busy,
        };
        Self::new(kind, failure.detail, failure.fix).with_output(failure.output)
    }
}

impl From<HandlerStatus> for HandlerRow {
    fn from(status: HandlerStatus) -> Self {
        let state = match status.state {
            HandlerState::Starting => State::Starting,
            HandlerState::Ready => State::Ready,
            HandlerState::Pausing {
                failure,
                retry_after,
            } => State::Pausing {
                reason: failure.reason,
                detail: failure.detail,
                retry_after_ms: millis(retry_after),
            },
            HandlerState::Stopped => State::Stopped,
        };
        Self {
            id: status.id.to_string(),
            state,
            restarts: status.restarts,
            in_flight: status.in_flight,
        }
    }
}

impl From<HandlerRow> for HandlerStatus {
    fn from(row: HandlerRow) -> Self {
        let state = match row.state {
            State::Starting => HandlerState::Starting,
            State::Ready => HandlerState::Ready,
            State::Pausing {
                reason,
                detail,
                retry_after_ms,
            } => HandlerState::Pausing {
                failure: faas::Failure { reason, detail },
                retry_after: Duration::from_millis(retry_after_ms),
            },
            State::Stopped => HandlerState::Stopped,
        };
        Self {
            id: row.id.into(),
            state,
            restarts: row.restarts,
            in_flight: row.in_flight,
        }
    }
}

impl TallyRow {
    pub(crate) fn new(name: &FunctionName, tally: Tally) -> Self {
        Self {
            name: name.to_string(),
            invocations: tally.invocations,
            function_errors: tally.function_errors,
            platform_errors: tally.platform_errors,
            waiting: tally.waiting,
            overhead: tally.overhead,
        }
    }

    pub(crate) fn tally(self) -> Tally {
        Tally {
            invocations: self.invocations,
            function_errors: self.function_errors,
            platform_errors: self.platform_errors,
            waiting: self.waiting,
            overhead: self.overhead,
        }
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
