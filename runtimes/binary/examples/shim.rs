//! Runs the shim, for the tests of all shims in `runtimes/tests`.

use std::os::fd::AsFd;

fn main() -> std::io::Result<()> {
    let socket = match std::env::var("TINYFAAS_LISTEN") {
        Ok(port) => runtime_binary::accept(&port)?,
        Err(_) => std::io::stdin().as_fd().try_clone_to_owned()?,
    };
    runtime_binary::run(socket, std::env::vars().collect())
}
