//! Calls of the management service.

use super::localhost;
use super::socket::SocketConnector;
use super::url::split_scheme;
use crate::cli::Node;
use crate::config::{Config, Flags, default_data_dir};
use crate::failure::Failure;
use anyhow::{Context, Result, anyhow, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Request, Response, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body, SendBody};

/// What stays as it is in a path segment or a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The largest answer that is taken into memory.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where the management service listens unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// What a node is asked under through its socket.
const SOCKET_URL: &str = "http://127.0.0.1";

/// The management service of a node.
#[derive(Debug)]
pub(crate) struct Api {
    agent: Agent,
    /// How people know it.
    shown: String,
    url: String,
    token: Option<String>,
}

impl Api {
    /// The service that the options name: else the one of the data directory, through its socket,
    /// or where that does not answer, on this machine's port 8080.
    ///
    /// # Errors
    /// If the token can't be read.
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let home = Home::find();
        let socket = match &node.node {
            Some(named) => named.strip_prefix("unix:").map(PathBuf::from),
            None => home.answering_socket(),
        };
        if let Some(socket) = socket {
            return Ok(Self::through(socket));
        }
        let address = node.node.as_deref().unwrap_or(DEFAULT_URL);
        let address = address.trim_end_matches('/');
        let url = url_of(address);
        let mut api = Self {
            agent: localhost::agent(config()),
            shown: url.clone(),
            url,
            token: token(node.token_file.as_deref())?,
        };
        if api.token.is_none() && is_loopback(api.host()) {
            api.token = home.token();
        }
        Ok(api)
    }

    fn through(socket: PathBuf) -> Self {
        let shown = format!("unix:{}", socket.display());
        let resolver = DefaultResolver::default();
        Self {
            agent: Agent::with_parts(config(), SocketConnector(socket), resolver),
            shown,
            url: SOCKET_URL.to_owned(),
            token: None,
        }
    }

    /// The node as people know it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The host of the node, as it stands in its URL.
    pub(crate) fn host(&self) -> &str {
        let authority = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            Some(_) | None => authority,
        }
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// See [`Api::send`].
    pub(crate) fn json(&self, path: &str) -> Result<Value> {
        let bytes = self.send("GET", path, None)?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} does not answer as a tinyFaaS does; check --node",
                self.shown
            )
        })
    }

    /// Sends a request and returns the body of the answer.
    ///
    /// # Errors
    /// If the node can't be reached, or refuses; what it said is the message.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut response = match body {
            Some(mut body) => self.open(method, path, None, SendBody::from_reader(&mut body))?,
            None => self.open(method, path, None, SendBody::none())?,
        };
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        Ok(body.read_to_vec()?)
    }

    /// Sends a body of a known length as it is read.
    ///
    /// # Errors
    /// See [`Api::send`].
    pub(crate) fn upload(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        (body, len): (&mut dyn Read, u64),
    ) -> Result<Vec<u8>> {
        let request = self
            .request(method, path)
            .header("content-type", media_type)
            .header("content-length", len)
            // A refusal is read before the body is sent: it would be lost with the connection.
            .header("expect", "100-continue");
        let request = request.body(SendBody::from_reader(body))?;
        let mut response = self.checked(self.agent.run(request))?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        Ok(body.read_to_vec()?)
    }

    /// Sends a request and returns the answer with its body still to be read.
    ///
    /// # Errors
    /// See [`Api::send`].
    pub(crate) fn open(
        &self,
        method: &str,
        path: &str,
        accept: Option<&str>,
        body: SendBody<'_>,
    ) -> Result<Response<Body>> {
        let request = self
            .request(method, path)
            .header("accept", accept.unwrap_or("*/*"));
        self.checked(self.agent.run(request.body(body)?))
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn checked(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
        let mut response = answer.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if response.headers().contains_key("x-tinyfaas-error") {
            bail!(
                "{} is the HTTP endpoint, where functions are called; name the management \
                 service, such as --node http://{}:8080",
                self.shown,
                self.host()
            );
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let message = refusal(status, &text);
        match status {
            StatusCode::NOT_FOUND => Err(Failure::NotFound(message).into()),
            StatusCode::UNAUTHORIZED => bail!(
                "the node wants its token; run this as the user who runs the node, or give the token's \
                 file with --token-file or the token itself in TINYFAAS_TOKEN (the node names the \
                 file when it starts)"
            ),
            _ => Err(anyhow!(message)),
        }
    }

    fn unreachable(&self, error: ureq::Error) -> anyhow::Error {
        match error {
            ureq::Error::Io(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(_) => Failure::Unreachable {
                node: self.shown.clone(),
                reason: error.to_string(),
            }
            .into(),
            other => anyhow!("call {}: {other}", self.shown),
        }
    }
}

/// The URL of a node, of which the scheme may be left out, and of one of this machine the host too.
fn url_of(address: &str) -> String {
    let port = address.strip_prefix(':').unwrap_or(address);
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if is_port {
        return format!("http://127.0.0.1:{port}");
    }
    match split_scheme(address) {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => format!("http://{address}"),
    }
}

/// The path of a function in the API: its name is one segment.
pub(crate) fn function_path(name: &str) -> String {
    let name = name.strip_prefix('/').unwrap_or(name);
    format!("/v1/functions/{}", encoded(name))
}

/// A text as a path segment or a query value.
pub(crate) fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, PLAIN)
}

/// What a refusal says: the parts of a problem (RFC 9457), or the first line of another body.
fn refusal(status: StatusCode, text: &str) -> String {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let part = |name: &str| problem.get(name).and_then(Value::as_str);
    let Some(detail) = part("detail").or(part("title")) else {
        let line = text.lines().next().unwrap_or_default().trim();
        return match line {
            "" => format!("the node answers {status}"),
            line => line.to_owned(),
        };
    };
    let mut message = match part("field") {
        Some(field) => match flag(field) {
            Some(flag) => format!("{flag}: {detail}"),
            None if detail.contains(field) => detail.to_owned(),
            None => format!("{field}: {detail}"),
        },
        None => detail.to_owned(),
    };
    // What to do about an unknown name is told in this program's own words.
    let is_unknown = status == StatusCode::NOT_FOUND;
    if let Some(fix) = part("fix").filter(|_| !is_unknown) {
        message.push_str("; ");
        message.push_str(fix);
    }
    if let Some(output) = part("output").filter(|output| !output.trim().is_empty()) {
        message.push('\n');
        message.push_str(output.trim_end());
    }
    if let Some(hint) = network_hint(&message) {
        message.push('\n');
        message.push_str(hint);
    }
    message
}

fn config() -> ureq::config::Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_connect(Some(CONNECT))
        .build()
}

/// Whether only this machine can be there, so that the token does not leave it.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<IpAddr>();
    bare == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// What a node of this machine leaves for its owner: its socket and its token.
struct Home {
    data_dir: PathBuf,
    token_file: PathBuf,
}

impl Home {
    /// Where a node that this user starts here would keep them.
    fn find() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        match Config::load(&Flags::default(), None, &variable) {
            Ok(config) => Self {
                data_dir: config.data_dir,
                token_file: config.token_file,
            },
            // A file with a mistake is for `serve` to tell of.
            Err(_) => {
                let data_dir = default_data_dir(&variable);
                let token_file = data_dir.join("token");
                Self {
                    data_dir,
                    token_file,
                }
            }
        }
    }

    fn answering_socket(&self) -> Option<PathBuf> {
        let socket = self.data_dir.join(management::SOCKET);
        UnixStream::connect(&socket).is_ok().then_some(socket)
    }

    fn token(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.token_file).ok()?;
        Some(text.trim().to_owned()).filter(|token| !token.is_empty())
    }
}

/// The flag of this program that sets a field of the API.
fn flag(field: &str) -> Option<&'static str> {
    Some(match field {
        "name" => "--name",
        "runtime" | "env" => "--env",
        "threads" | "handlers" => "--threads",
        "var" | "envs" => "--var",
        "memory" => "--memory",
        "cpu" => "--cpu",
        "deadline" => "--deadline",
        "tmp" => "--tmp-size",
        "tmp_files" => "--tmp-files",
        "network" => "--network",
        "host_network" => "--network=host",
        "host_port" | "host_ports" => "--host-port",
        "allow_host" | "allow_hosts" => "--allow-host",
        "allow_scripts" => "--allow-scripts",
        "cors" => "--cors",
        "subfolder_path" => "--subfolder",
        _ => return None,
    })
}

/// What to do about a text that tells of a network that is not there, in the words of the languages
/// that functions are written in.
pub(crate) fn network_hint(text: &str) -> Option<&'static str> {
    const SIGNS: [&str; 7] = [
        "Network is unreachable",
        "network is unreachable",
        "ENETUNREACH",
        "EAI_AGAIN",
        "Temporary failure in name resolution",
        "Could not resolve host",
        "failed to lookup address information",
    ];
    let has_sign = SIGNS.iter().any(|sign| text.contains(sign));
    has_sign.then_some(
        "functions have no network unless they ask for it: deploy this one with --network",
    )
}

fn token(file: Option<&Path>) -> Result<Option<String>> {
    if let Some(token) = std::env::var("TINYFAAS_TOKEN")
        .ok()
        .filter(|token| !token.is_empty())
    {
        return Ok(Some(token));
    }
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("read the token {}", file.display()))?;
    Ok(Some(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_to_do() {
        let check = |text: &str, expected: &str| {
            assert_eq!(refusal(StatusCode::BAD_REQUEST, text), expected);
        };
        check(
            r#"{"title":"t","field":"threads","detail":"too many","fix":"choose 1","output":"a\nb\n"}"#,
            "--threads: too many; choose 1\na\nb",
        );
        check(r#"{"title":"t"}"#, "t");
        check("one line\nmore", "one line");
        check("", "the node answers 400 Bad Request");
    }

    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(function_path("/a/b"), "/v1/functions/a%2Fb");
    }

    #[test]
    fn the_host_of_a_node_is_told_from_its_port() {
        let check = |url: &str, host: &str| {
            let node = Node {
                node: Some(url.to_owned()),
                token_file: None,
                json: false,
            };
            assert_eq!(Api::new(&node).unwrap().host(), host);
        };
        check("http://h:8080", "h");
        check("10.0.0.1:8080/", "10.0.0.1");
        check("HTTP://h:8080", "h");
        check("http://[::1]:1", "[::1]");
        check("http://[::1]", "[::1]");
        check("21080", "127.0.0.1");
        check(":21080", "127.0.0.1");
        check("node:21080", "node");
    }

    #[test]
    fn a_bare_port_is_one_of_this_machine() {
        assert_eq!(url_of("21080"), "http://127.0.0.1:21080");
        assert_eq!(url_of(":21080"), "http://127.0.0.1:21080");
        assert_eq!(url_of("node"), "http://node");
        assert_eq!(url_of("https://node"), "https://node");
    }
}
