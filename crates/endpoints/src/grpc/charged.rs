//! What a call holds while its message comes.

use super::reply;
use crate::connection::{Charge, Connection};
use bytes::Bytes;
use faas::Limits;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use net::{Held, Pace, Spent};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::time::Sleep;
use tonic::Status;

/// The library has a message twice while it decodes it: as it came, and the text in it.
const COPIES: usize = 2;

/// What a call holds: the library reads its body, the function's call answers it.
#[derive(Debug)]
pub(crate) struct Ticket {
    connection: Arc<Connection>,
    charge: Mutex<Option<Charge>>,
    /// Whether the whole message came and could be read.
    is_read: AtomicBool,
}

impl Ticket {
    /// Takes what a call with these fields holds as it begins.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn take(connection: &Arc<Connection>, fields: &HeaderMap) -> Result<Self, Spent> {
        Ok(Self {
            charge: Mutex::new(Some(connection.charge(fields)?)),
            connection: Arc::clone(connection),
            is_read: AtomicBool::new(false),
        })
    }

    /// Tells that the message could be read: what fails from now on is no fault of it.
    pub(crate) fn read(&self) {
        self.is_read.store(true, Ordering::Relaxed);
    }

    /// Whether it could.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Holds so many bytes beside the call's head.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn resize(&self, bytes: usize) -> Result<(), Spent> {
        self.with(|charge| charge.resize(bytes))
    }

    /// Gives what is held to the response.
    pub(crate) fn give(&self) -> Option<Held> {
        let charge = self.charge.lock();
        let charge = charge.unwrap_or_else(PoisonError::into_inner).take();
        charge.and_then(Charge::into_held)
    }

    fn grow(&self, bytes: usize) -> Result<(), Spent> {
        self.connection.understood();
        self.with(|charge| charge.grow(&self.connection, bytes))
    }

    fn with(&self, change: impl FnOnce(&mut Charge) -> Result<(), Spent>) -> Result<(), Spent> {
        let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
        charge.as_mut().map_or(Ok(()), change)
    }
}

/// The body of a call, charged as it comes.
pub(crate) struct ChargedBody {
    inner: Incoming,
    ticket: Arc<Ticket>,
    paced: Option<Paced>,
}

/// How fast a message has to come.
struct Paced {
    pace: Pace,
    bytes_min: u64,
    /// Set where the body had to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ChargedBody {
    pub(crate) fn new(inner: Incoming, ticket: Arc<Ticket>, pace: Option<&Limits>) -> Self {
        Self {
            inner,
            ticket,
            paced: pace.map(|limits| Paced {
                pace: Pace::new(limits.http_idle, limits.pace_bytes_min),
                bytes_min: limits.pace_bytes_min,
                timer: None,
            }),
        }
    }
}

impl Paced {
    /// Ready when the body is too slow.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.pace.deadline();
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl Body for ChargedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let (Poll::Pending, Some(paced)) = (&polled, &mut this.paced) {
            ready!(paced.poll_elapsed(cx));
            return Poll::Ready(Some(Err(reply::slow(paced.bytes_min))));
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if let Some(paced) = &mut this.paced {
            paced.pace.came(bytes);
        }
        let charged = this.ticket.grow(COPIES * bytes).map_err(reply::spent);
        Poll::Ready(Some(charged.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
