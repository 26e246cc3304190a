//! Where this program begins when it was executed again as a part of a sandbox.

use crate::relay::relay_main;
use crate::sandbox::{LAUNCHER_ARG0, WARDEN_ARG0, launcher, warden};
use std::process::ExitCode;

/// Runs the launcher, the warden or a sandbox's relay where this process was started as one, and
/// does not return then unless it fails, the binary shim has ended, or the warden has nothing to
/// wait for any more.
///
/// It must be called first thing in `main`: the process may have only one thread.
#[must_use]
pub fn launcher_main() -> Option<ExitCode> {
    if let Some(code) = relay_main() {
        return Some(code);
    }
    let mut args = std::env::args_os();
    let arg0 = args.next()?;
    if arg0.as_encoded_bytes() == WARDEN_ARG0.to_bytes() {
        let ended = warden::run(args.map(Into::into));
        return Some(ended.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS));
    }
    (arg0.as_encoded_bytes() == LAUNCHER_ARG0.to_bytes()).then(launcher::run)
}
