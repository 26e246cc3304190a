//! One call of a function and what comes of it.

use crate::function::FunctionName;
use crate::headers::Headers;
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tells one invocation from every other of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InvocationId(u64);

impl InvocationId {
    /// Takes the next number.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number, for the wire.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// The moment at which the caller is answered, even if that is a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that is `time` from now.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// The deadline at that moment.
    #[must_use]
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The moment itself.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// How much is left; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// One call of a function, as an endpoint decoded it. A clone copies no payload.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Tells it from every other.
    pub id: InvocationId,
    /// The method: `GET`, `POST`, … for HTTP and CoAP, `POST` for gRPC.
    pub method: Bytes,
    /// The path with its leading slash, as the client sent it. UTF-8.
    pub path: Bytes,
    /// What stood behind `?`, undecoded; empty where nothing did. UTF-8.
    pub query: Bytes,
    /// The header fields, metadata or what a CoAP option maps to.
    pub headers: Headers,
    /// The body.
    pub payload: Bytes,
}

impl Invocation {
    /// An invocation with the next id and nothing but a method, a path and a payload.
    #[must_use]
    pub fn new(method: &'static str, path: Bytes, payload: Bytes) -> Self {
        Self {
            id: InvocationId::next(),
            method: Bytes::from_static(method.as_bytes()),
            path,
            query: Bytes::new(),
            headers: Headers::new(),
            payload,
        }
    }
}

/// What a function answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status as in HTTP, 200 to 599.
    pub status: u16,
    /// The header fields; `content-type` among them where the function set it.
    pub headers: Headers,
    /// The body.
    pub payload: Bytes,
}

/// Whose doing it is that an invocation brought no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller's: another request can succeed.
    Caller,
    /// The function's: its code threw, exited or took too long.
    Function,
    /// The platform's: it is full, stopping or broken.
    Platform,
}

impl Fault {
    /// The word in the header `X-tinyFaaS-Error`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Function => "function",
            Self::Platform => "platform",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the text of [`InvokeError::NotFound`] begins: over CoAP nothing else tells it from a function's own
/// 4.04.
pub const NOT_FOUND_BEGIN: &str = "no function named";

/// Why an invocation brought no reply. The text is meant for the caller: it names no path of the
/// host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// No function has the name.
    #[error("{NOT_FOUND_BEGIN} {0:?} is deployed; deploy it, or check the path")]
    NotFound(String),
    /// The function threw an exception or exited with an error; the text is its own.
    #[error("{0}")]
    Function(String),
    /// The handler ended while it ran the invocation.
    #[error(
        "function \"{name}\": its handler ended during the call ({reason}); see the function's log"
    )]
    HandlerDied {
        /// The function.
        name: FunctionName,
        /// How the handler ended.
        reason: String,
    },
    /// The handler broke the handler protocol.
    #[error("function \"{name}\": its handler broke the protocol ({reason})")]
    Protocol {
        /// The function.
        name: FunctionName,
        /// What it did.
        reason: String,
    },
    /// The deadline passed.
    #[error("function \"{name}\": no reply within {} s", .deadline.as_secs_f32())]
    Deadline {
        /// The function.
        name: FunctionName,
        /// The time that the function had.
        deadline: Duration,
    },
    /// Too many invocations wait already.
    #[error("function \"{name}\": too many calls at once; try again in {} s", .retry_after.as_secs())]
    Overloaded {
        /// The function.
        name: FunctionName,
        /// When another try makes sense.
        retry_after: Duration,
        /// What the caller has left of its deadline. [`Proxy`] sets it.
        ///
        /// [`Proxy`]: crate::Proxy
        time_left: Duration,
    },
    /// The call was cut short because its function was replaced or deleted, or the node stopped.
    #[error(
        "function \"{name}\": the call was cut, since the function was replaced or deleted or this node is stopping; it may have run in part"
    )]
    Cut {
        /// The function.
        name: FunctionName,
    },
    /// The function's handlers keep dying or could not be started.
    #[error("function \"{name}\" can't be run now: {reason}; see its log, or try again in {} s", .retry_after.as_secs())]
    Unavailable {
        /// The function.
        name: FunctionName,
        /// What is wrong with it, without anything that it printed.
        reason: Box<str>,
        /// When another try makes sense.
        retry_after: Duration,
        /// As in [`InvokeError::Overloaded`].
        time_left: Duration,
    },
    /// The request's body or fields are over their bound.
    #[error("the request's {part} is larger than {bytes_max} bytes")]
    TooLarge {
        /// What of the request.
        part: RequestPart,
        /// The bound.
        bytes_max: usize,
    },
    /// The node is shutting down.
    #[error("this node is stopping; try another or again later")]
    Stopping,
    /// The handler stopped before it took the invocation, which was not run. [`Proxy`] tries
    /// again with the function's current deployment, so that no endpoint sees this.
    ///
    /// [`Proxy`]: crate::Proxy
    #[error("the handler stopped before it took the call")]
    NotTaken,
}

/// The parts of a request that have a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPart {
    /// The payload.
    Body,
    /// The header fields together.
    Headers,
    /// The query string.
    Query,
    /// All that a handler is sent of it.
    HeadAndBody,
}

impl fmt::Display for RequestPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body => "body",
            Self::Headers => "header",
            Self::Query => "query",
            Self::HeadAndBody => "head and body together",
        })
    }
}

/// What kind of error an [`InvokeError`] is. Endpoints give each kind a status of their protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvokeErrorKind {
    /// No function has the name.
    NotFound,
    /// A part of the request is over its bound.
    TooLarge(RequestPart),
    /// The function or its handler failed during the call.
    Failed,
    /// There was no reply in time.
    Deadline,
    /// Too many calls wait for the function.
    Overloaded,
    /// The function or the node can't run it now.
    Unavailable,
}

impl InvokeErrorKind {
    /// Whose doing it is.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::NotFound | Self::TooLarge(_) => Fault::Caller,
            Self::Failed | Self::Deadline => Fault::Function,
            Self::Overloaded | Self::Unavailable => Fault::Platform,
        }
    }
}

impl InvokeError {
    /// What kind of error it is: the one place that tells the variants apart for the endpoints.
    #[must_use]
    pub fn kind(&self) -> InvokeErrorKind {
        match self {
            Self::NotFound(_) => InvokeErrorKind::NotFound,
            Self::TooLarge { part, .. } => InvokeErrorKind::TooLarge(*part),
            Self::Function(_) | Self::HandlerDied { .. } | Self::Protocol { .. } => {
                InvokeErrorKind::Failed
            }
            Self::Deadline { .. } => InvokeErrorKind::Deadline,
            Self::Overloaded { .. } => InvokeErrorKind::Overloaded,
            Self::Unavailable { .. } | Self::Cut { .. } | Self::Stopping | Self::NotTaken => {
                InvokeErrorKind::Unavailable
            }
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.kind().fault()
    }

    /// Whether a handler may have begun with the invocation.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self.kind() {
            InvokeErrorKind::Failed | InvokeErrorKind::Deadline => true,
            InvokeErrorKind::NotFound
            | InvokeErrorKind::TooLarge(_)
            | InvokeErrorKind::Overloaded => false,
            InvokeErrorKind::Unavailable => matches!(self, Self::Cut { .. }),
        }
    }

    /// What the caller has left of its deadline where it was refused for want of means, so that
    /// asking again at once is of no use.
    #[must_use]
    pub fn refused_with_left(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { time_left, .. } | Self::Unavailable { time_left, .. } => {
                Some(*time_left)
            }
            Self::NotFound(_)
            | Self::Function(_)
            | Self::HandlerDied { .. }
            | Self::Protocol { .. }
            | Self::Deadline { .. }
            | Self::Cut { .. }
            | Self::TooLarge { .. }
            | Self::Stopping
            | Self::NotTaken => None,
        }
    }

    /// Notes until when the caller waits, where it was refused.
    pub(crate) fn refused_before(&mut self, expires: tokio::time::Instant) {
        if let Self::Overloaded { time_left, .. } | Self::Unavailable { time_left, .. } = self {
            *time_left = expires.saturating_duration_since(tokio::time::Instant::now());
        }
    }

    /// In how many seconds another try makes sense, for `Retry-After` and Max-Age: whole ones, at
    /// least one.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Overloaded { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                let begun = u64::from(retry_after.subsec_nanos() > 0);
                Some((retry_after.as_secs() + begun).max(1))
            }
            Self::Cut { .. } | Self::Stopping | Self::NotTaken => Some(1),
            Self::NotFound(_)
            | Self::Function(_)
            | Self::HandlerDied { .. }
            | Self::Protocol { .. }
            | Self::Deadline { .. }
            | Self::TooLarge { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_kind_its_fault_and_when_to_try_again() {
        let name: FunctionName = "sieve".parse().unwrap();
        let (name, text) = (|| name.clone(), || "why".to_owned());
        let check = |error: InvokeError, kind, fault, may_have_run, seconds| {
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(error.fault(), fault, "{error}");
            assert_eq!(error.may_have_run(), may_have_run, "{error}");
            assert_eq!(error.retry_after_seconds(), seconds, "{error}");
        };
        use Fault::{Caller, Function, Platform};
        use InvokeErrorKind as Kind;
        let part = RequestPart::Query;
        let too_large = InvokeError::TooLarge { part, bytes_max: 1 };
        let not_found = InvokeError::NotFound(text());
        check(not_found, Kind::NotFound, Caller, false, None);
        check(too_large, Kind::TooLarge(part), Caller, false, None);
        let (died, protocol) = (
            InvokeError::HandlerDied {
                name: name(),
                reason: text(),
            },
            InvokeError::Protocol {
                name: name(),
                reason: text(),
            },
        );
        for failed in [InvokeError::Function(text()), died, protocol] {
            check(failed, Kind::Failed, Function, true, None);
        }
        let late = InvokeError::Deadline {
            name: name(),
            deadline: Duration::ZERO,
        };
        check(late, Kind::Deadline, Function, true, None);
        let (retry_after, time_left) = (Duration::from_millis(1001), Duration::ZERO);
        let full = InvokeError::Overloaded {
            name: name(),
            retry_after,
            time_left,
        };
        check(full, Kind::Overloaded, Platform, false, Some(2));
        let reason = text().into();
        let (name_of, retry_after) = (name(), Duration::ZERO);
        let down = InvokeError::Unavailable {
            name: name_of,
            reason,
            retry_after,
            time_left,
        };
        check(down, Kind::Unavailable, Platform, false, Some(1));
        let cut = InvokeError::Cut { name: name() };
        check(cut, Kind::Unavailable, Platform, true, Some(1));
        for gone in [InvokeError::Stopping, InvokeError::NotTaken] {
            check(gone, Kind::Unavailable, Platform, false, Some(1));
        }
    }
}
