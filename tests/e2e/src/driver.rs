//! Python clients: one process a client, asked and answering in lines of JSON.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A client that runs for as long as this process.
#[derive(Debug)]
pub(crate) struct Driver {
    script: &'static str,
    running: OnceLock<Mutex<Running>>,
}

#[derive(Debug)]
struct Running {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Ends when its input is closed, at the latest with this process.
    _child: Child,
}

impl Driver {
    /// A client that is started with the first call; `script` lies in `clients/`.
    pub(crate) const fn new(script: &'static str) -> Self {
        Self {
            script,
            running: OnceLock::new(),
        }
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&self, question: &Value) -> Value {
        let running = self.running.get_or_init(|| Mutex::new(start(self.script)));
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = writeln!(running.input, "{question}");
        let mut line = String::new();
        let read = asked.and_then(|()| running.output.read_line(&mut line));
        let answer = read.ok().and_then(|_| serde_json::from_str(&line).ok());
        answer.unwrap_or_else(|| panic!("{} did not answer {question}", self.script))
    }
}

fn start(script: &str) -> Running {
    let python = crate::python();
    let mut child = Command::new(python)
        .arg(crate::folder().join("clients").join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let input = child.stdin.take().expect("it is piped");
    let output = child.stdout.take().expect("it is piped");
    Running {
        input,
        output: BufReader::new(output),
        _child: child,
    }
}

/// Bytes as hexadecimal digits, for JSON.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    let bytes = pairs.map(|pair| {
        let pair = std::str::from_utf8(pair).expect("digits are ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal digits")
    });
    bytes.collect()
}
