//! Connections that are not used, or whose client does not take its replies.

use faas::Limits;
use net::{Client, Fills, Replies};

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The client wants nothing.
    Idle,
    /// It takes its replies too slowly.
    Slow,
}

/// Returns when the client asked for nothing, has nothing under way and took nothing for a while,
/// [`Limits::http_head`] at first, [`Limits::http_idle`] afterwards; or when it asks for the next piece
/// of a reply over HTTP/2 more slowly than [`Limits::pace_bytes_min`].
///
/// While its socket is full, that is the bound of its pace, see [`net::Paced`].
pub(crate) async fn idle(client: &Client, limits: &Limits) -> Cause {
    let mut before = Look::at(client);
    let mut pause = limits.http_head;
    loop {
        tokio::time::sleep(pause).await;
        let now = Look::at(client);
        if now.turns == before.turns && !client.is_busy() && !now.fills.is_full() {
            return Cause::Idle;
        }
        let least = limits.pace_bytes_min.saturating_mul(pause.as_secs());
        if now.took_since(before).is_some_and(|taken| taken < least) {
            return Cause::Slow;
        }
        before = now;
        pause = limits.http_idle;
    }
}

/// What is seen of a client.
#[derive(Debug, Clone, Copy)]
struct Look {
    turns: u64,
    fills: Fills,
    replies: Replies,
}

impl Look {
    fn at(client: &Client) -> Self {
        Self {
            turns: client.turns(),
            fills: client.fills(),
            replies: client.replies(),
        }
    }

    /// What the client asked for of the replies that have waited for it all the time since then; none
    /// where it was not up to the client.
    fn took_since(self, before: Self) -> Option<u64> {
        let (now, then) = (self.replies, before.replies);
        let have_waited = then.waiting > 0 && now.waiting > 0 && now.cleared == then.cleared;
        let was_full = self.fills.is_full() && self.fills == before.fills;
        (have_waited && !was_full).then(|| now.taken - then.taken)
    }
}
