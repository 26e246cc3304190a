//! Runs the shim on standard input, for the tests of all shims in `runtimes/tests`.

use std::os::fd::AsFd;

fn main() -> std::io::Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    runtime_binary::run(socket, std::env::vars().collect())
}
