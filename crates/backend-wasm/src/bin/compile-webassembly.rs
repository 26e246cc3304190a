//! The compiler alone, for tests and benches of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    backend_wasm::compiler_main().unwrap_or_else(|| ExitCode::from(2))
}
