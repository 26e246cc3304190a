//! An instance of a handler that is a task of the test.

use faas::BoxFuture;
use handler_protocol::Process;
use tokio::task::JoinHandle;

/// Ends with status 7, however it ends.
#[derive(Debug)]
pub(crate) struct Task(pub(crate) JoinHandle<()>);

impl Process for Task {
    fn kill(&mut self) {
        self.0.abort();
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            // Aborted or ended: either way nothing of it is left.
            drop((&mut self.0).await);
            "exit status 7".to_owned()
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.kill();
    }
}
