//! Functions that are WebAssembly, deployed and called as the proxy does it.

mod command;
mod http;
mod isolation;
mod node;
mod own;
mod refusals;
mod restart;
