//! The way to the other side, which comes and goes.

use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long the other side must be away before that counts.
const AWAY: Duration = Duration::from_secs(1);

/// The way to the other side; closed while it is away.
#[derive(Debug)]
pub(crate) struct Link<Message>(watch::Sender<Option<mpsc::Sender<Message>>>);

impl<Message> Link<Message> {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn open(&self, outbox: mpsc::Sender<Message>) {
        self.0.send_replace(Some(outbox));
    }

    pub(crate) fn close(&self) {
        self.0.send_replace(None);
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Option<mpsc::Sender<Message>>> {
        self.0.subscribe()
    }

    /// Says something to the other side; whether there is one to hear it.
    pub(crate) async fn tell(&self, message: Message) -> bool {
        let outbox = self.0.borrow().clone();
        match outbox {
            Some(outbox) => outbox.send(message).await.is_ok(),
            None => false,
        }
    }

    /// Says something if the other side is here and has room for it; whether it was queued.
    pub(crate) fn try_tell(&self, message: Message) -> bool {
        let outbox = self.0.borrow();
        let outbox = outbox.as_ref();
        outbox.is_some_and(|outbox| outbox.try_send(message).is_ok())
    }

    /// The way to the other side, once it is here.
    pub(crate) async fn linked(&self) -> mpsc::Sender<Message> {
        let mut link = self.0.subscribe();
        loop {
            if let Some(outbox) = &*link.borrow_and_update() {
                return outbox.clone();
            }
            // The sender lives as long as `self`.
            drop(link.changed().await);
        }
    }

    /// Waits for what the other side brings about, as long as it is here; whether it has.
    pub(crate) async fn while_linked(&self, what: impl Future<Output = ()>) -> bool {
        let mut link = self.0.subscribe();
        tokio::select! {
            () = what => true,
            // The sender lives as long as `self`.
            _ = link.wait_for(Option::is_none) => false,
        }
    }

    /// Returns when the other side has been away for a while.
    pub(crate) async fn unlinked(&self) {
        let mut link = self.0.subscribe();
        loop {
            // The sender lives as long as `self`.
            drop(link.wait_for(Option::is_none).await);
            let back = link.wait_for(Option::is_some);
            if tokio::time::timeout(AWAY, back).await.is_err() {
                return;
            }
        }
    }
}
