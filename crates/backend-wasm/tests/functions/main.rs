//! Functions that are WebAssembly, deployed and called as the proxy does it.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod cli;
mod command;
mod http;
mod isolation;
mod node;
mod outbound;
mod own;
mod refusals;
mod restart;
