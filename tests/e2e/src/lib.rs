//! End-to-end tests: the real program, called by clients that others wrote.
//!
//! [`Node`] runs the program on free ports and a data directory of its own, and sees when it is
//! stopped that nothing is left of it. [`Function`] is what gets deployed, [`Client`] a foreign
//! client. Everything here panics with what went wrong: it serves tests alone.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "the harness fails the test that uses it and shows why"
)]

mod answer;
mod cli;
mod client;
pub mod crafted;
mod disk;
mod docker;
mod driver;
mod engine;
mod function;
mod leftovers;
mod node;
mod wait;

pub use answer::{Answer, agent, request, request_with};
pub use cli::Ended;
pub use client::{Call, Client, Outcome, Reply};
pub use disk::Disk;
pub use docker::{CONTAINERS, docker, ours, output};
pub use engine::Engine;
pub use function::{Function, RESERVE};
pub use leftovers::{Process, cgroups_of, descendants};
pub use node::{Node, Place};
pub use wait::{PATIENCE, until, until_within};

use std::path::{Path, PathBuf};

/// The folder of this crate, where functions and drivers of clients lie.
#[must_use]
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program under test: `TINYFAAS_BIN`, or what `cargo build` made.
#[must_use]
pub fn program() -> PathBuf {
    let built = target_dir().join("debug/tinyfaas");
    let program = std::env::var_os("TINYFAAS_BIN").map_or(built, PathBuf::from);
    assert!(
        program.is_file(),
        "{} is not there; run the tests with: cargo xtask test",
        program.display()
    );
    program
}

/// The Python that has the packages of `clients/requirements.txt`; their programs lie beside it.
#[must_use]
pub fn python() -> PathBuf {
    tool("E2E_PYTHON", "venv/bin/python")
}

/// A tool that `cargo xtask test` installs: the variable that names it, or where it is put.
fn tool(variable: &str, path: &str) -> PathBuf {
    let installed = target_dir().join("test-tools").join(path);
    let tool = std::env::var_os(variable).map_or(installed, PathBuf::from);
    assert!(
        tool.exists(),
        "{} is not there; install it with: cargo xtask tools",
        tool.display()
    );
    tool
}

fn target_dir() -> PathBuf {
    let root = folder().join("../..");
    let given = std::env::var_os("CARGO_TARGET_DIR");
    given.map_or_else(|| root.join("target"), |dir| root.join(dir))
}
