//! What commands write to standard output.

use anyhow::Result;
use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{IsTerminal, Write, stderr, stdout};

/// Writes a line. A reader that has gone (`| head`) ends the program quietly, as it does others.
pub(crate) fn line(text: impl Display) -> Result<()> {
    let text = format!("{text}\n");
    if stdout().is_terminal() {
        bytes(for_terminal(&text).as_bytes())
    } else {
        bytes(text.as_bytes())
    }
}

/// Writes a piece of a log as it came, or as a terminal may be shown it.
pub(crate) fn log(piece: &[u8]) -> Result<()> {
    if stdout().is_terminal() {
        bytes(for_terminal(&String::from_utf8_lossy(piece)).as_bytes())
    } else {
        bytes(piece)
    }
}

/// Writes a message for people to standard error.
pub(crate) fn message(text: impl Display) {
    let text = format!("{text}\n");
    let mut err = stderr().lock();
    let shown = if err.is_terminal() {
        for_terminal(&text)
    } else {
        Cow::Borrowed(&text[..])
    };
    // Where standard error is closed there is nobody to tell.
    drop(err.write_all(shown.as_bytes()));
}

/// The text with everything escaped that changes what a terminal shows beside it: control
/// characters but the end of a line and tabs, and marks that turn the direction of writing.
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| (!c.is_control() || matches!(c, '\n' | '\t')) && !is_direction(c);
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_plain(c) {
            shown.push(c);
        } else {
            write!(shown, "{}", c.escape_unicode()).expect("writing to a string works");
        }
    }
    Cow::Owned(shown)
}

/// The marks of the Unicode Bidirectional Algorithm (UAX 9), and the separators of lines and
/// paragraphs.
fn is_direction(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
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
        let text = text.to_string();
        let text = for_terminal(&text);
        drop(write!(err, "\r\x1b[K{text}").and_then(|()| err.flush()));
    }
}

/// Tells what is waited for: to a person as progress, else as a line of its own.
pub(crate) fn waiting(text: &str) {
    if stderr().is_terminal() {
        progress(text);
    } else {
        message(text);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_draw_something_else_is_escaped() {
        let check = |text: &str, shown: &str| assert_eq!(for_terminal(text), shown, "{text:?}");
        check("a line\n\tand another\n", "a line\n\tand another\n");
        check("ü → ✓", "ü → ✓");
        check("ready\rfake", "ready\\u{d}fake");
        check("\x1b[2Jgone", "\\u{1b}[2Jgone");
        check("\u{9b}31m", "\\u{9b}31m");
        check("abc\u{202e}dcba", "abc\\u{202e}dcba");
        check("bell\x07 and \x7f", "bell\\u{7} and \\u{7f}");
        check("two\u{2028}lines", "two\\u{2028}lines");
    }
}
