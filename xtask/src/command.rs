//! Running other programs.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// What a program wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Both outputs, line by line as they came.
    pub(crate) text: String,
    /// Whether its exit code was 0.
    pub(crate) is_success: bool,
}

/// A cargo command in the repository.
pub(crate) fn cargo(root: &Path, words: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(words).current_dir(root);
    command
}

/// Runs a program to its end; what it prints is seen.
///
/// # Errors
/// If it can't be started or ends with another code than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a program to its end; what it prints is seen and returned.
///
/// # Errors
/// If it can't be started or read.
pub(crate) fn watch(command: &mut Command) -> Result<Ended> {
    announce(command);
    let piped = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped
        .spawn()
        .with_context(|| format!("start {}", shown(command)))?;
    let text = Arc::new(Mutex::new(String::new()));
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as _),
        child.stderr.take().map(|err| Box::new(err) as _),
    ];
    let readers = outputs.into_iter().flatten().map(|output| {
        let text = Arc::clone(&text);
        std::thread::spawn(move || pass_on(output, &text))
    });
    let readers: Vec<_> = readers.collect();
    for reader in readers {
        let passed = reader.join();
        passed.map_err(|_panicked| anyhow::anyhow!("reading the output of a program failed"))??;
    }
    let is_success = child.wait()?.success();
    let text = text.lock().map(|text| text.clone()).unwrap_or_default();
    Ok(Ended { text, is_success })
}

/// What a program prints on standard output; nothing else of it is seen.
///
/// # Errors
/// If it can't be started or ends with another code than 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {errors}", shown(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether the program is in PATH, or where only root's has it.
pub(crate) fn is_there(program: &str) -> bool {
    std::env::split_paths(&path()).any(|folder| folder.join(program).is_file())
}

/// PATH with the folders for programs of the system, which not every shell gives to root.
pub(crate) fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn pass_on(output: impl Read, text: &Mutex<String>) -> Result<()> {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        // A closed terminal is no reason to lose the count.
        drop(std::io::stdout().lock().write_all(&line));
        if let Ok(mut text) = text.lock() {
            text.push_str(&String::from_utf8_lossy(&line));
        }
        line.clear();
    }
    Ok(())
}

fn announce(command: &Command) {
    println!("$ {}", shown(command));
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
