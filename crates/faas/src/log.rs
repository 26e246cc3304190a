//! What a function prints, kept in memory line by line.

use crate::limits::Limits;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;

/// Where a line of a log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// The function's standard output.
    Stdout,
    /// The function's standard error output.
    Stderr,
    /// tinyFaaS itself, on this function: builds, restarts.
    Platform,
}

impl LogStream {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Platform => "platform",
        }
    }
}

/// A line that a function printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Counts the lines of this function, from 1; a follower asks for what comes after one.
    pub number: u64,
    /// When it was read.
    pub time: SystemTime,
    /// The handler that printed it.
    pub handler: Arc<str>,
    /// Where it came from.
    pub stream: LogStream,
    /// The text without its line end; what was not UTF-8 is replaced.
    pub text: String,
}

/// The log of one function: the newest lines, up to
/// [`Limits::log_bytes_max`](crate::Limits::log_bytes_max).
///
/// It lives in memory only (a log on flash wears it out) and outlives redeployments.
#[derive(Debug)]
pub struct FunctionLog {
    lines: Mutex<Lines>,
    last_number: watch::Sender<u64>,
    bytes_max: usize,
    line_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    bytes: usize,
    last_number: u64,
}

/// What a line takes besides its text, about.
const LINE_OVERHEAD_BYTES: usize = 80;

impl FunctionLog {
    /// An empty log.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            lines: Mutex::default(),
            last_number: watch::Sender::new(0),
            bytes_max: limits.log_bytes_max,
            line_bytes_max: limits.log_line_bytes_max,
        }
    }

    /// Adds a line, which is cut at [`Limits::log_line_bytes_max`]; the oldest lines go where the
    /// log is full.
    ///
    /// [`Limits::log_line_bytes_max`]: crate::Limits::log_line_bytes_max
    pub fn push(&self, handler: &Arc<str>, stream: LogStream, text: &str) {
        let text = &text[..text.floor_char_boundary(self.line_bytes_max)];
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last_number += 1;
        let number = lines.last_number;
        lines.bytes += text.len() + LINE_OVERHEAD_BYTES;
        lines.kept.push_back(LogLine {
            number,
            time: SystemTime::now(),
            handler: Arc::clone(handler),
            stream,
            text: text.to_owned(),
        });
        while lines.bytes > self.bytes_max {
            let Some(oldest) = lines.kept.pop_front() else {
                break;
            };
            lines.bytes -= oldest.text.len() + LINE_OVERHEAD_BYTES;
        }
        drop(lines);
        self.last_number.send_replace(number);
    }

    /// The kept lines with a number above `number`; 0 for all.
    #[must_use]
    pub fn after(&self, number: u64) -> Vec<LogLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let from = lines.kept.partition_point(|line| line.number <= number);
        lines.kept.range(from..).cloned().collect()
    }

    /// The newest `count` lines of one handler, oldest first.
    #[must_use]
    pub fn last_of(&self, handler: &str, count: usize) -> Vec<LogLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let of_handler = lines
            .kept
            .iter()
            .rev()
            .filter(|line| &*line.handler == handler);
        let mut newest: Vec<_> = of_handler.take(count).cloned().collect();
        newest.reverse();
        newest
    }

    /// The newest `count` lines of one handler as one text, for an error.
    #[must_use]
    pub fn last_text(&self, handler: &str, count: usize) -> String {
        let lines = self.last_of(handler, count);
        let texts: Vec<_> = lines.into_iter().map(|line| line.text).collect();
        texts.join("\n")
    }

    /// Tells of every new line by its number; [`FunctionLog::after`] then has it.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.last_number.subscribe()
    }
}

/// Makes lines of what a handler prints.
#[derive(Debug)]
pub struct Printer {
    log: Arc<FunctionLog>,
    handler: Arc<str>,
    stream: LogStream,
    line: Vec<u8>,
}

impl Printer {
    /// Lines of this handler go into `log`.
    #[must_use]
    pub fn new(log: Arc<FunctionLog>, handler: Arc<str>, stream: LogStream) -> Self {
        Self {
            log,
            handler,
            stream,
            line: Vec::new(),
        }
    }

    /// Takes what was printed. A line over [`Limits::log_line_bytes_max`] becomes several.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            self.push();
            bytes = &bytes[end + 1..];
        }
        for piece in bytes.chunks(self.log.line_bytes_max) {
            if self.line.len() + piece.len() > self.log.line_bytes_max {
                self.push();
            }
            self.line.extend_from_slice(piece);
        }
    }

    /// What was printed last had no line end.
    pub fn end(&mut self) {
        if !self.line.is_empty() {
            self.push();
        }
    }

    fn push(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let text = String::from_utf8_lossy(line);
        let mut rest = &*text;
        loop {
            let (head, tail) = rest.split_at(rest.floor_char_boundary(self.log.line_bytes_max));
            self.log.push(&self.handler, self.stream, head);
            rest = tail;
            if rest.is_empty() || head.is_empty() {
                break;
            }
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_the_newest_lines_within_the_bound() {
        let limits = Limits {
            log_bytes_max: 1000,
            log_line_bytes_max: 20,
            ..Limits::default()
        };
        let log = FunctionLog::new(&limits);
        let handler: Arc<str> = "h".into();
        for n in 0..1000 {
            log.push(
                &handler,
                LogStream::Stdout,
                &format!("{n} ü{}", "x".repeat(30)),
            );
        }
        let lines = log.after(0);
        assert_eq!(lines.len(), 10);
        assert!(lines.iter().all(|line| line.text.len() <= 20));
        assert_eq!(lines.last().unwrap().number, 1000);
        assert_eq!(log.after(998).len(), 2);
        assert_eq!(*log.follow().borrow(), 1000);
    }
}
