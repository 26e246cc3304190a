//! Runs functions that are WebAssembly inside this process: compiled once, a new instance for
//! every call.
//!
//! What a function exports says how it is called: a command of WASI preview 1 or 0.2, a
//! `wasi:http/proxy` component or our own world in `wit/`.

mod artifact;
mod backend;
mod command;
mod compiler;
mod component;
mod confine;
mod contract;
mod engine;
mod failure;
mod handler;
mod inspect;
mod outbound;
mod output;
mod pace;
mod resolver;
mod shared;
mod ticker;

pub use backend::{Options, StartError, WasmBackend};
pub use compiler::{compiler_main, compiler_main_unconfined};
