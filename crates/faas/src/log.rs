//! What a function prints, kept in memory line by line.

use crate::core_share::CoreShare;
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
    core_share: CoreShare,
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
            core_share: CoreShare::new(limits.log_core_percent_max),
        }
    }

    /// The share of a core that reading this function's output may take, all its handlers together.
    #[must_use]
    pub fn core_share(&self) -> &CoreShare {
        &self.core_share
    }

    /// Adds a line, which is cut at [`Limits::log_line_bytes_max`]; the oldest lines go where the
    /// log is full.
    ///
    /// [`Limits::log_line_bytes_max`]: crate::Limits::log_line_bytes_max
    pub fn push(&self, handler: &Arc<str>, stream: LogStream, text: &str) {
        let text = &text[..text.floor_char_boundary(self.line_bytes_max)];
        self.push_all(handler, stream, 0, vec![text.to_owned()]);
    }

    /// Adds lines, after `skipped` ones that would not be kept.
    fn push_all(&self, handler: &Arc<str>, stream: LogStream, skipped: u64, texts: Vec<String>) {
        let time = SystemTime::now();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last_number += skipped;
        for text in texts {
            lines.last_number += 1;
            lines.bytes += text.len() + LINE_OVERHEAD_BYTES;
            let number = lines.last_number;
            lines.kept.push_back(LogLine {
                number,
                time,
                handler: Arc::clone(handler),
                stream,
                text,
            });
        }
        while lines.bytes > self.bytes_max {
            let Some(oldest) = lines.kept.pop_front() else {
                break;
            };
            lines.bytes -= oldest.text.len() + LINE_OVERHEAD_BYTES;
        }
        let number = lines.last_number;
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
    ///
    /// It is one step for the log, and lines that would not stay are only counted: a function that
    /// floods blank lines takes no more time than one that prints as many bytes of text.
    pub fn take(&mut self, bytes: &[u8]) {
        let (skipped, mut bytes) = newest(bytes, self.log.bytes_max);
        if skipped > 0 {
            self.line.clear();
        }
        let mut texts = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            self.finish(&mut texts);
            bytes = &bytes[end + 1..];
        }
        for piece in bytes.chunks(self.log.line_bytes_max) {
            if self.line.len() + piece.len() > self.log.line_bytes_max {
                self.finish(&mut texts);
            }
            self.line.extend_from_slice(piece);
        }
        self.push(skipped, texts);
    }

    /// What was printed last had no line end.
    pub fn end(&mut self) {
        let mut texts = Vec::new();
        if !self.line.is_empty() {
            self.finish(&mut texts);
        }
        self.push(0, texts);
    }

    fn push(&self, skipped: u64, texts: Vec<String>) {
        if !texts.is_empty() {
            let log = &self.log;
            log.push_all(&self.handler, self.stream, skipped, texts);
        }
    }

    fn finish(&mut self, texts: &mut Vec<String>) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let text = String::from_utf8_lossy(line);
        let mut rest = &*text;
        loop {
            let (head, tail) = rest.split_at(rest.floor_char_boundary(self.log.line_bytes_max));
            texts.push(head.to_owned());
            rest = tail;
            if rest.is_empty() || head.is_empty() {
                break;
            }
        }
        self.line.clear();
    }
}

/// The lines with their ends, the last first.
fn lines_from_the_end(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (_, before) = bytes.split_last()?;
        let start = before.iter().rposition(|&byte| byte == b'\n');
        let (rest, line) = bytes.split_at(start.map_or(0, |at| at + 1));
        bytes = rest;
        Some(line)
    })
}

/// How many whole lines at the front would not stay in a log of that size, and what follows them.
fn newest(bytes: &[u8], bytes_max: usize) -> (u64, &[u8]) {
    let mut room = bytes_max;
    let mut from = bytes.len();
    for line in lines_from_the_end(bytes) {
        let Some(left) = room.checked_sub(line.len() + LINE_OVERHEAD_BYTES) else {
            break;
        };
        room = left;
        from -= line.len();
    }
    let (old, new) = bytes.split_at(from);
    let skipped = old.iter().filter(|&&byte| byte == b'\n').count();
    if skipped == 0 {
        return (0, bytes);
    }
    (skipped as u64, new)
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

    #[test]
    fn a_flood_of_blank_lines_is_counted_and_the_newest_are_kept() {
        let limits = Limits {
            log_bytes_max: 1000,
            ..Limits::default()
        };
        let log = Arc::new(FunctionLog::new(&limits));
        let mut printer = Printer::new(Arc::clone(&log), "h".into(), LogStream::Stdout);
        printer.take(b"begun");
        for _ in 0..1000 {
            printer.take(&[b'\n'; 4096]);
        }
        printer.take(b"last");
        printer.end();
        let lines = log.after(0);
        assert!(lines.len() <= 1000 / LINE_OVERHEAD_BYTES, "{}", lines.len());
        assert_eq!(lines.last().unwrap().number, 1000 * 4096 + 1);
        assert_eq!(lines.last().unwrap().text, "last");
    }

    #[test]
    fn only_whole_lines_that_would_not_stay_are_skipped() {
        let check = |bytes: &str, max, skipped: u64, rest: &str| {
            let (count, new) = newest(bytes.as_bytes(), max);
            assert_eq!((count, new), (skipped, rest.as_bytes()), "{bytes:?}");
        };
        let one = LINE_OVERHEAD_BYTES + 2;
        check("a\nb\nc", 10 * one, 0, "a\nb\nc");
        check("a\nb\nc\n", 2 * one, 1, "b\nc\n");
        check("a\nb\nc", 2 * one, 1, "b\nc");
        // One that is larger than the log is cut elsewhere.
        check(&"x".repeat(1000), one, 0, &"x".repeat(1000));
        check("", 0, 0, "");
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = "one\r\n\ntwo ü\nthree".as_bytes();
        let printed = |size: usize| {
            let log = Arc::new(FunctionLog::new(&Limits::default()));
            let mut printer = Printer::new(Arc::clone(&log), "h".into(), LogStream::Stdout);
            text.chunks(size).for_each(|piece| printer.take(piece));
            printer.end();
            let lines = log.after(0).into_iter();
            lines.map(|line| line.text).collect::<Vec<_>>()
        };
        for size in 1..=text.len() {
            assert_eq!(printed(size), ["one", "", "two ü", "three"], "{size}");
        }
    }
}
