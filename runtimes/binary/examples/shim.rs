//! Runs the shim, for the tests of all shims in `runtimes/tests`.
#![expect(
    unsafe_code,
    reason = "a descriptor that the process was started with has no other way into Rust"
)]

use std::os::fd::{FromRawFd, OwnedFd};

const PROTOCOL_FD: i32 = 3;

fn main() -> std::io::Result<()> {
    let socket = match std::env::var("TINYFAAS_LISTEN") {
        Ok(port) => {
            let secret = std::env::var("TINYFAAS_SECRET").unwrap_or_default();
            runtime_binary::accept(&port, &secret)?
        }
        // SAFETY: the test opened it for this process, and nothing else takes it.
        Err(_) => unsafe { OwnedFd::from_raw_fd(PROTOCOL_FD) },
    };
    runtime_binary::run(socket, std::env::vars().collect())
}
