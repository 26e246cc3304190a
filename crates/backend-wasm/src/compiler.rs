//! Compiling in a process of its own, whose memory and time are bounded and go when it ends.

use crate::{confine, engine, inspect};
use faas::{Limits, PrepareError, WasmLimits};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use wasmtime::Engine;

/// The word that tells the program that it is to compile.
const WORD: &str = "compile-webassembly";
/// Threads that compile one module.
const THREADS_MAX: usize = 4;
/// The longest message of one that failed.
const MESSAGE_CHARS_MAX: usize = 2000;
/// How the compiler ends where it could not write what it compiled.
const NOT_WRITTEN: u8 = 3;

/// Why there is no compiled module.
#[derive(Debug)]
pub(crate) enum CompileError {
    /// The module, or something of the host that another place for the result does not help.
    Refused(PrepareError),
    /// The result has more bytes than it may.
    TooLarge,
    /// The result could not be written, and why.
    Output(String),
}

/// Starts the compiler.
#[derive(Debug)]
pub(crate) struct Compiler {
    program: PathBuf,
    slot_bytes_max: u64,
    memory_bytes_max: u64,
    seconds_max: u64,
    threads: usize,
}

impl Compiler {
    pub(crate) fn new(program: PathBuf, limits: &Limits) -> Self {
        Self {
            program,
            slot_bytes_max: limits.wasm.slot_bytes_max,
            memory_bytes_max: limits.builds.memory_bytes_max,
            seconds_max: limits.builds.time.as_secs(),
            threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(THREADS_MAX)),
        }
    }

    /// Compiles the module in a file into another, of so many bytes at most. Takes long: not for
    /// the event loop.
    pub(crate) fn compile(
        &self,
        module: &Path,
        into: &File,
        bytes_max: u64,
    ) -> Result<(), CompileError> {
        let host = |error: io::Error| {
            let detail = format!("the module could not be compiled: {error}");
            CompileError::Refused(PrepareError::host(
                detail,
                "deploy it again; if it fails again, see the log of tinyfaas",
            ))
        };
        let module = File::open(module).map_err(host)?;
        let into = into.try_clone().map_err(host)?;
        let output = Command::new(&self.program)
            .arg(WORD)
            .args(
                [
                    self.slot_bytes_max,
                    self.memory_bytes_max,
                    self.seconds_max,
                    bytes_max,
                ]
                .map(|n| n.to_string()),
            )
            .env_clear()
            // Each thread, and each arena of the allocator, reserves addresses, which are bounded.
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(module)
            .stdout(into)
            .stderr(Stdio::piped())
            .output()
            .map_err(host)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().chars().take(MESSAGE_CHARS_MAX).collect();
        Err(match (output.status.signal(), output.status.code()) {
            (Some(libc::SIGXFSZ), _) => CompileError::TooLarge,
            (_, Some(code)) if code == i32::from(NOT_WRITTEN) => CompileError::Output(said),
            _ => CompileError::Refused(self.why(output.status, &said)),
        })
    }

    fn why(&self, status: ExitStatus, said: &str) -> PrepareError {
        let (mib, seconds) = (self.memory_bytes_max >> 20, self.seconds_max);
        let detail = match status.signal() {
            None => {
                let fix = "build it for wasm32-wasip1 or as a component of WASI 0.2";
                return PrepareError::code(said, fix);
            }
            Some(libc::SIGXCPU | libc::SIGKILL) => {
                format!("compiling the module takes more than {seconds} s")
            }
            Some(_) => format!("compiling the module takes more than {mib} MiB of memory"),
        };
        PrepareError::code(detail, "build it with optimisation for size, or split it")
    }
}

/// Compiles, where this process was started to do that; then it is to end with the result. To be
/// called first in `main`.
#[must_use]
pub fn compiler_main() -> Option<ExitCode> {
    main_within(confine::confine)
}

/// As [`compiler_main`], but with every right that this process has. For modules that are trusted,
/// under an instrument that has no seccomp, as valgrind.
#[must_use]
pub fn compiler_main_unconfined() -> Option<ExitCode> {
    main_within(|| Ok(()))
}

fn main_within(confine: impl Fn() -> io::Result<()>) -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() != Some(OsStr::new(WORD)) {
        return None;
    }
    let numbers = words.map(|word| word.to_str().and_then(|word| word.parse().ok()));
    let numbers: Option<Vec<u64>> = numbers.collect();
    let Some(&[slot_bytes_max, memory_bytes_max, seconds_max, bytes_max]) = numbers.as_deref()
    else {
        return Some(ExitCode::from(2));
    };
    let bounded = bound(Resource::As, memory_bytes_max)
        .and(bound(Resource::Cpu, seconds_max))
        .and(bound(Resource::Fsize, bytes_max));
    // Whoever finds a hole in the compiler is in a process that can do nothing.
    let confined = bounded.and_then(|()| confine());
    let compiled = confined.map_err(|error| format!("the compiler could not be confined: {error}"));
    let compiled = compiled.and_then(|()| compile(slot_bytes_max));
    let (message, code) = match compiled.map(|code| io::stdout().lock().write_all(&code)) {
        Ok(Ok(())) => return Some(ExitCode::SUCCESS),
        Ok(Err(error)) => (error.to_string(), ExitCode::from(NOT_WRITTEN)),
        Err(message) => (message, ExitCode::FAILURE),
    };
    // Where nobody reads it there is nobody to tell.
    drop(io::stderr().write_all(message.as_bytes()));
    Some(code)
}

fn bound(resource: Resource, max: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(max),
        maximum: Some(max),
    };
    Ok(setrlimit(resource, limit)?)
}

/// Compiles what is on standard input.
fn compile(slot_bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut binary = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut binary);
    read.map_err(|error| format!("the module could not be read: {error}"))?;
    inspect::check(&binary)?;
    let limits = WasmLimits {
        slot_bytes_max,
        ..WasmLimits::default()
    };
    let engine = engine::compiler(&limits);
    let engine = engine.map_err(|error| format!("the compiler could not be started: {error:#}"))?;
    let compiled = precompile(&engine, &binary);
    compiled.map_err(|error| inspect::why_refused(&binary, &error))
}

fn precompile(engine: &Engine, binary: &[u8]) -> wasmtime::Result<Vec<u8>> {
    // The layer in the header: 0 for a core module, 1 for a component.
    match binary.get(6) {
        Some(1) => engine.precompile_component(binary),
        Some(_) | None => engine.precompile_module(binary),
    }
}
