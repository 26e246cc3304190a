//! How an instance goes that still has invocations.

use super::stop::Stop;
use super::{Live, Shared, died};
use crate::connection::{Connection, Timing};
use faas::InvokeError;
use std::sync::Arc;
use std::time::Duration;

/// Closes the stream, which tells the handler to exit, and makes sure that it does.
pub(super) async fn finish(shared: &Shared, live: Live) {
    let Live {
        connection,
        mut process,
        ..
    } = live;
    connection.close(&InvokeError::Cut {
        name: shared.identity.name.clone(),
    });
    connection.shut_down();
    if tokio::time::timeout(shared.limits.stop_grace, process.wait())
        .await
        .is_err()
    {
        process.kill();
        process.wait().await;
    }
}

/// Lets an instance that hangs in one invocation finish its others while a new one takes over.
pub(super) fn let_leave(shared: &Arc<Shared>, live: Live, timing: Timing, stop: Stop) {
    live.connection.stop_taking();
    // Those that wait for it have deadlines of their own. Where several instances are leaving, they
    // must not pile up.
    let within = if shared.leaving.is_empty() {
        shared.limits.deadline_max
    } else {
        shared.limits.drain
    };
    let shared_with = Arc::clone(shared);
    shared.leaving.spawn(async move {
        let mut live = live;
        let error = match empty(&live.connection, within, timing, stop).await {
            Left::Stopped => InvokeError::Cut {
                name: shared_with.identity.name.clone(),
            },
            Left::Drained | Left::Ended | Left::Late => {
                died(&shared_with, "it hung in another call and was replaced")
            }
        };
        live.process.kill();
        live.process.wait().await;
        live.connection.close(&error);
    });
}

/// Lets an instance that asked to be replaced finish what it has, then exit. Returns when its
/// successor may start: at once, unless several are leaving already.
pub(super) async fn relieve(shared: &Arc<Shared>, live: Live, timing: Timing, stop: Stop) {
    let shared_with = Arc::clone(shared);
    let leaving = async move {
        let within = shared_with.limits.deadline_max;
        let left = empty(&live.connection, within, timing, stop).await;
        match left {
            Left::Stopped | Left::Drained => {}
            Left::Ended | Left::Late => {
                let reason = "it ended before it had finished what it had";
                live.connection.close(&died(&shared_with, reason));
            }
        }
        finish(&shared_with, live).await;
    };
    match Arc::clone(&shared.leaving_room).try_acquire_owned() {
        Ok(room) => {
            shared.leaving.spawn(async move {
                leaving.await;
                drop(room);
            });
        }
        Err(_full) => leaving.await,
    }
}

/// How an instance let go of its invocations.
enum Left {
    Drained,
    /// It closed its stream or broke the protocol.
    Ended,
    Late,
    /// The handler was told to stop, and its grace is over.
    Stopped,
}

/// Waits until the instance has no invocation that anybody waits for.
async fn empty(connection: &Connection, within: Duration, timing: Timing, stop: Stop) -> Left {
    // It goes anyway: no reason to end it sooner than its other invocations.
    let patient = Timing {
        cancel_grace: 2 * within,
        ..timing
    };
    let ended = connection.run(patient);
    tokio::select! {
        _end = ended => Left::Ended,
        () = connection.drained() => Left::Drained,
        () = tokio::time::sleep(within) => Left::Late,
        () = grace_over(stop) => Left::Stopped,
    }
}

async fn grace_over(mut stop: Stop) {
    let grace = stop.told().await;
    tokio::time::sleep(grace).await;
}
