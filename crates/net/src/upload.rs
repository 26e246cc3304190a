//! Requests whose body is still coming.

use crate::clients::Client;
use crate::recent::Recent;
use std::sync::Arc;
use std::time::Instant;

/// A request whose body is still coming. Dropping it tells that all of it came.
#[derive(Debug)]
pub struct Upload(Arc<Client>);

impl Upload {
    /// Counts how fast the body of a client's request comes, until this is dropped. Where others
    /// need its place or its memory, a slow one gives way.
    #[must_use]
    pub fn begin(client: &Arc<Client>) -> Self {
        *client.recent() = Some(Recent::new(client.slow(), Instant::now()));
        Self(Arc::clone(client))
    }

    /// Counts a piece.
    pub fn came(&self, bytes: usize) {
        if let Some(recent) = &mut *self.0.recent() {
            recent.came(bytes, Instant::now());
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        *self.0.recent() = None;
    }
}
