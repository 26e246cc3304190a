//! The one loop that accepts connections, for every listener.

use crate::clients::{Clients, Place};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Serves the connections of a listener until `shutdown`, each in a task of its own, which
/// `tasks` tracks with whatever else the connections start.
///
/// Then it accepts no more and waits until the tasks have ended, `drain` at the longest; what is
/// left is cut. Returns how many were.
pub async fn serve<F>(
    listener: TcpListener,
    clients: Arc<Clients>,
    tasks: TaskTracker,
    (shutdown, drain): (CancellationToken, Duration),
    converse: impl Fn(TcpStream, Place) -> F,
) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
    let next = async || {
        clients.settled().await;
        listener.accept().await
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = next() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                recover(&clients, &error).await;
                continue;
            }
        };
        // Where all that are open are busy, a new one is closed.
        let Some(place) = clients.admit(peer.ip()) else {
            continue;
        };
        // Replies are written whole, so that holding back a small segment gains nothing. A
        // connection where this fails works all the same.
        let _nodelay = stream.set_nodelay(true).is_ok();
        let client = Arc::clone(place.client());
        let conversation = converse(stream, place);
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = conversation => {}
                () = client.closed() => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_ok() {
        return 0;
    }
    let left = tasks.len();
    clients.cut();
    tasks.wait().await;
    left
}

/// After an accept that failed: out of descriptors or memory, an idle connection gives its own.
async fn recover(clients: &Clients, error: &io::Error) {
    // A client that left before it was accepted is none of these.
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    tracing::warn!(%error, "a connection could not be accepted");
    clients.evict();
    tokio::time::sleep(clients.bounds().accept_pause).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Bounds;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers a byte for every byte.
    async fn echo(mut stream: TcpStream, place: Place) {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            place.client().turn();
            if stream.write_all(&byte).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_crowd_that_says_nothing_keeps_nobody_out() {
        let clients = Clients::new(Bounds {
            connections_max: 20,
            peer_connections_max: 20,
            ..Bounds::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let until = (shutdown.clone(), Duration::ZERO);
        let others = TaskTracker::new();
        let served = others.spawn(serve(listener, Arc::clone(&clients), tasks, until, echo));
        let mut crowd = Vec::new();
        for _ in 0..100 {
            crowd.push(TcpStream::connect(addr).await.unwrap());
        }
        let mut next = TcpStream::connect(addr).await.unwrap();
        next.write_all(b"x").await.unwrap();
        let mut byte = [0];
        next.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"x");
        assert!(clients.connections() <= 20);
        shutdown.cancel();
        assert!(served.await.unwrap() > 0, "the crowd is cut");
        assert_eq!(
            (clients.connections(), clients.budget().held_bytes()),
            (0, 0)
        );
    }
}
