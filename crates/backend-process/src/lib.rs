//! Handlers as sandboxed processes of the host: the embedded default backend.
//!
//! [`launcher_main`] must be called first thing in `main`: handlers begin as this same program,
//! executed again, which confines itself and then executes the function's interpreter.

mod backend;
mod cache;
mod dependencies;
mod entry;
mod handler;
mod interpreter;
mod node;
mod output;
mod process;
mod relay;
mod report;
mod sandbox;
mod shims;
mod toolchain;
mod tree;
mod users;

pub use backend::{Options, ProcessBackend, StartError};
pub use entry::launcher_main;
pub use interpreter::Interpreters;
pub use sandbox::SandboxMode;
