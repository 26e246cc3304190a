//! The body of a response as the client takes it.

use crate::connection::{Connection, owned};
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use net::{Client, Held};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// What an HTTP/2 stream is given at once: a frame. The next one is asked for when the client has
/// taken it, so that its pace shows.
const PIECE_BYTES: usize = 16 << 10;

/// A body that counts what waits and what was taken.
#[derive(Debug)]
pub(crate) struct Metered<B> {
    inner: B,
    left: Bytes,
    held: Option<Held>,
    /// Told of what waits and goes; an HTTP/1.1 client's pace shows by what is written.
    client: Option<Arc<Client>>,
}

impl<B> Metered<B> {
    pub(crate) fn new(inner: B, held: Option<Held>, connection: &Connection) -> Self {
        Self {
            inner,
            left: Bytes::new(),
            held,
            client: connection.is_http2.then(|| Arc::clone(connection.client())),
        }
    }

    fn next_piece(&mut self) -> Bytes {
        let Some(client) = &self.client else {
            return std::mem::take(&mut self.left);
        };
        let piece = self.left.split_to(self.left.len().min(PIECE_BYTES));
        client.reply_went(piece.len(), true);
        piece
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.left.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.next_piece()))));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) if data.has_remaining() => data,
            Some(Ok(Ok(empty))) => return Poll::Ready(Some(Ok(Frame::data(empty)))),
            Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        if let Some(client) = &self.client {
            client.reply_waits(data.len());
        }
        self.left = match self.held.take() {
            Some(held) => owned(data, held),
            None => data,
        };
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, inner) = (self.left.len() as u64, self.inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + left);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + left);
        }
        hint
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            client.reply_went(self.left.len(), false);
        }
    }
}
