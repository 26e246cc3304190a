//! The frames between the reverse proxy and a handler, the connection that carries them, and the
//! supervisor that keeps a handler alive. See `docs/reference/handler-protocol.md`.

mod calls;
pub mod connection;
pub mod frame;
pub mod launch;
mod not_loaded;
mod proof;
mod stream;
pub mod supervisor;

pub use connection::{Connection, Stream};
pub use launch::{Caller, Direct, Group, Launch, Launched};
pub use not_loaded::not_loaded;
pub use supervisor::{Process, Spawn, Spawned, Supervised};
