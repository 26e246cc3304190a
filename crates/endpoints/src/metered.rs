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
    /// Told of what waits and goes; of HTTP/1.1 that shows by what is written.
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
        client.reply_taken(piece.len());
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
        let held = self.held.take();
        self.left = match (&self.client, held) {
            (Some(client), held) => {
                let waiting = Waiting::begin(client, data.len());
                owned(data, (waiting, held))
            }
            (None, Some(held)) => owned(data, held),
            (None, None) => data,
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

/// Bytes of a reply that wait for the client until the last piece of them was sent: the connection
/// keeps pieces that it may not send yet, and with each the whole.
#[derive(Debug)]
struct Waiting {
    client: Arc<Client>,
    bytes: usize,
}

impl Waiting {
    fn begin(client: &Arc<Client>, bytes: usize) -> Self {
        client.reply_waits(bytes);
        Self {
            client: Arc::clone(client),
            bytes,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.client.reply_went(self.bytes);
    }
}
