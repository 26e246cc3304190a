//! Accepting connections, up to a number that are open at once.

use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long to wait before accepting again after the system had no descriptor or memory for a
/// connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener that holds back while too many of its connections are open.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener {
    pub(crate) fn new(listener: TcpListener, connections_max: usize) -> Self {
        let places = Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS));
        Self {
            listener,
            places: Arc::new(places),
        }
    }

    /// Waits for a place, then for a connection. The connection keeps its place while the permit
    /// lives. Losing the future loses neither.
    pub(crate) async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.expect("nothing closes this semaphore");
            match self.listener.accept().await {
                Ok((stream, _peer)) => {
                    // Replies are written whole, so that holding back a small segment gains
                    // nothing. A connection where this fails works all the same.
                    let _nodelay = stream.set_nodelay(true).is_ok();
                    return (stream, place);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
