//! Clients that others wrote, each asked in the same words.

use crate::driver::{Driver, from_hex, to_hex};
use crate::node::Node;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use tempfile::NamedTempFile;

static AIOCOAP: Driver = Driver::new("aiocoap_driver.py");
static GRPCIO: Driver = Driver::new("grpcio_driver.py");

/// Seconds after which a client gives up.
const SECONDS_MAX: &str = "20";

/// A client that others wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// curl, over HTTP.
    Curl,
    /// libcoap's coap-client, over CoAP.
    Libcoap,
    /// Python's aiocoap, over CoAP.
    Aiocoap,
    /// npm's coap-cli, over CoAP. It tells no status and sends text alone.
    CoapCli,
    /// Python's grpcio, over gRPC, with messages from reflection.
    Grpcio,
}

/// A call of a function.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The function.
    pub name: &'a str,
    /// The method, in capitals; gRPC has none.
    pub method: &'a str,
    /// What stands behind `?`; gRPC has none.
    pub query: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// Whether CoAP sends it as a confirmable message.
    pub is_confirmable: bool,
    /// A header for HTTP, metadata for gRPC; CoAP has no such thing.
    pub header: Option<(&'a str, &'a str)>,
    /// The Content-Format for CoAP.
    pub content_format: Option<u16>,
}

impl<'a> Call<'a> {
    /// A POST with a payload and nothing else.
    #[must_use]
    pub fn new(name: &'a str, payload: &'a [u8]) -> Self {
        Self {
            name,
            method: "POST",
            query: "",
            payload,
            is_confirmable: true,
            header: None,
            content_format: None,
        }
    }

    fn url(&self, node: &Node, scheme: &str) -> String {
        let url = node.url(scheme, self.name);
        match self.query {
            "" => url,
            query => format!("{url}?{query}"),
        }
    }
}

/// What came of a call, in the same words for each protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx, 2.xx, OK.
    Success,
    /// 404, 4.04, `NOT_FOUND`.
    UnknownName,
    /// 413, 4.13.
    TooLarge,
    /// 500, 5.00, `INTERNAL`.
    FunctionError,
    /// 503, 5.03, `RESOURCE_EXHAUSTED`, `UNAVAILABLE`.
    Unavailable,
    /// 504, 5.04, `DEADLINE_EXCEEDED`.
    Deadline,
    /// Something else.
    Other,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// What it means.
    pub outcome: Outcome,
    /// The status as the protocol writes it.
    pub status: String,
    /// The payload, or the message of a failure.
    pub payload: Vec<u8>,
    /// The header `X-tinyFaaS-Error`, where the protocol has headers.
    pub fault: Option<String>,
    /// The header `Content-Type`, or CoAP's Content-Format as a number, where it is told.
    pub format: Option<String>,
    /// The seconds of the header `Retry-After` or of CoAP's Max-Age, where they are told.
    pub retry_after: Option<String>,
}

impl Reply {
    fn new(status: &str, payload: Vec<u8>) -> Self {
        let outcome = match status {
            "200" | "201" | "202" | "204" | "OK" => Outcome::Success,
            code if code.starts_with("2.") => Outcome::Success,
            "404" | "4.04" | "NOT_FOUND" => Outcome::UnknownName,
            "413" | "4.13" => Outcome::TooLarge,
            "500" | "5.00" | "INTERNAL" => Outcome::FunctionError,
            "503" | "5.03" | "RESOURCE_EXHAUSTED" | "UNAVAILABLE" => Outcome::Unavailable,
            "504" | "5.04" | "DEADLINE_EXCEEDED" => Outcome::Deadline,
            _ => Outcome::Other,
        };
        Self {
            outcome,
            status: status.to_owned(),
            payload,
            fault: None,
            format: None,
            retry_after: None,
        }
    }

    /// The payload as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

impl Client {
    /// Whether it can send and show this payload: gRPC's data is text, and coap-cli adds a line
    /// end to each block of what it prints.
    #[must_use]
    pub fn takes(self, payload: &[u8]) -> bool {
        let is_text = std::str::from_utf8(payload).is_ok();
        match self {
            Self::Curl | Self::Libcoap | Self::Aiocoap => true,
            Self::Grpcio => is_text,
            Self::CoapCli => is_text && !payload.is_empty() && payload.len() < 1024,
        }
    }

    /// Calls a function and waits for what comes of it.
    ///
    /// # Panics
    /// If the client itself fails.
    #[must_use]
    pub fn call(self, node: &Node, call: &Call<'_>) -> Reply {
        match self {
            Self::Curl => curl(node, call),
            Self::Libcoap => libcoap(node, call),
            Self::Aiocoap => aiocoap(node, call),
            Self::CoapCli => coap_cli(node, call),
            Self::Grpcio => grpcio(node, call),
        }
    }
}

fn curl(node: &Node, call: &Call<'_>) -> Reply {
    let (payload, head) = (file(call.payload), file(b""));
    let mut command = Command::new("curl");
    command.args(["-sS", "-X", call.method, "--max-time", SECONDS_MAX]);
    command.arg("--data-binary").arg(at(&payload));
    command.arg("-D").arg(head.path());
    if let Some((name, value)) = call.header {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    let output = run(command.arg(call.url(node, "http")));
    assert!(output.status.success(), "curl failed: {output:?}");
    let head = std::fs::read_to_string(head.path()).expect("curl wrote the head");
    // After a "100 Continue" stands the head that counts.
    let last = head
        .trim_end()
        .rsplit("\r\n\r\n")
        .next()
        .unwrap_or_default();
    let status = last.split_whitespace().nth(1).unwrap_or_default();
    let mut reply = Reply::new(status, output.stdout);
    let field = |wanted: &str| {
        let mut fields = last.lines().filter_map(|line| line.split_once(": "));
        let field = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        field.map(|(_, value)| value.trim().to_owned())
    };
    reply.fault = field("x-tinyfaas-error");
    reply.format = field("content-type");
    reply.retry_after = field("retry-after");
    reply
}

fn libcoap(node: &Node, call: &Call<'_>) -> Reply {
    let (payload, received) = (file(call.payload), file(b""));
    let mut command = Command::new("coap-client-notls");
    let method = call.method.to_lowercase();
    command.args(["-m", &method, "-B", SECONDS_MAX]);
    if !call.is_confirmable {
        command.arg("-N");
    }
    command.arg("-o").arg(received.path());
    if !call.payload.is_empty() {
        command.arg("-f").arg(payload.path());
    }
    if let Some(format) = call.content_format {
        command.arg("-t").arg(format.to_string());
    }
    let output = run(command.arg(call.url(node, "coap")));
    // It prints the code of a refusal with its message, and of a success nothing.
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_code = |word: &&str| word.len() == 4 && word.as_bytes().get(1) == Some(&b'.');
    match complaint.split_whitespace().next().filter(is_code) {
        Some(code) => {
            let message = complaint[code.len()..].trim().as_bytes();
            Reply::new(code, message.to_owned())
        }
        None if complaint.trim().is_empty() => {
            let payload = std::fs::read(received.path()).expect("coap-client wrote the payload");
            Reply::new("2.xx", payload)
        }
        None => Reply::new("no answer", complaint.into_bytes()),
    }
}

fn aiocoap(node: &Node, call: &Call<'_>) -> Reply {
    let answer = AIOCOAP.ask(&json!({
        "url": call.url(node, "coap"),
        "method": call.method,
        "payload": to_hex(call.payload),
        "confirmable": call.is_confirmable,
        "content_format": call.content_format,
    }));
    let mut reply = reply_of(&answer);
    reply.format = answer["content_format"].as_u64().map(|n| n.to_string());
    reply.retry_after = answer["max_age"].as_u64().map(|n| n.to_string());
    reply
}

fn coap_cli(node: &Node, call: &Call<'_>) -> Reply {
    let mut command = Command::new("node");
    command.arg(crate::tool("E2E_COAP_CLI", "node/node_modules/.bin/coap"));
    let payload = std::str::from_utf8(call.payload).expect("coap-cli sends text");
    command.args(["post", "-p", payload]);
    let output = run(command.arg(node.url("coap", call.name)));
    // The code stands between "(" and ")", in bold, on standard error.
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = complaint
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'));
    let code = code.map_or("no answer", |(code, _)| code);
    let mut payload = output.stdout;
    // It ends what it prints with a line of its own.
    payload.pop_if(|last| *last == b'\n');
    Reply::new(code, payload)
}

fn grpcio(node: &Node, call: &Call<'_>) -> Reply {
    let metadata: Vec<_> = call.header.into_iter().collect();
    let answer = GRPCIO.ask(&json!({
        "target": node.addr("grpc"),
        "function": call.name,
        "payload": to_hex(call.payload),
        "metadata": metadata,
    }));
    let mut reply = reply_of(&answer);
    let fault = answer["metadata"]["x-tinyfaas-error"].as_str();
    reply.fault = fault.map(str::to_owned);
    reply
}

fn reply_of(answer: &Value) -> Reply {
    if let Some(error) = answer["error"].as_str() {
        return Reply::new("no answer", error.as_bytes().to_owned());
    }
    let code = answer["code"].as_str().unwrap_or_default();
    let payload = answer["payload"].as_str().unwrap_or_default();
    Reply::new(code, from_hex(payload))
}

fn file(contents: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(contents).expect("the disk has room");
    file
}

fn at(file: &NamedTempFile) -> String {
    format!("@{}", file.path().display())
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}; run cargo xtask tools"))
}
