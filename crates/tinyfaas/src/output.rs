//! What commands write to standard output.

use anyhow::Result;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};

/// Writes a line. A reader that has gone (`| head`) ends the program quietly, as it does others.
pub(crate) fn line(text: impl Display) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a line for whoever still reads: a node goes on without a reader.
pub(crate) fn notice(text: impl Display) {
    if let Err(error) = write(format!("{text}\n").as_bytes()) {
        tracing::debug!(%error, "nobody reads standard output");
    }
}

/// Writes bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    match write(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

fn write(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Shows what is going on, where a person looks on.
pub(crate) fn progress(text: impl Display) {
    let mut err = stderr().lock();
    if err.is_terminal() {
        // Nothing hangs on a progress line.
        drop(write!(err, "\r\x1b[K{text}").and_then(|()| err.flush()));
    }
}

/// Takes the progress line away.
pub(crate) fn progress_done() {
    progress("");
}

/// Writes rows in columns that are as wide as their widest cell.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let cells = row.iter().zip(&widths);
        let text: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        line(text.trim_end())?;
    }
    Ok(())
}
