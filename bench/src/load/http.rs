//! HTTP/1.1 calls: one after the other over one connection, or at a rate over many.

use super::{Outcome, one_by_one};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream as AsyncTcpStream};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// One call after the other: the least that a client of ours adds.
#[derive(Debug)]
pub struct OneByOne {
    stream: TcpStream,
    path: String,
    received: Vec<u8>,
    chunk: Box<[u8]>,
}

impl OneByOne {
    /// Connects; `path` is what is called, without a slash in front.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn connect(to: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(to).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self {
            stream,
            path: path.to_owned(),
            received: Vec::new(),
            chunk: vec![0; CHUNK_BYTES].into(),
        })
    }

    /// Calls and returns the body.
    ///
    /// # Errors
    /// If the connection breaks or the answer is no 200 with a length.
    pub fn call(&mut self, payload: &[u8]) -> Result<&[u8]> {
        let path = self.path.clone();
        let (status, body) = self.request("POST", &path, payload)?;
        ensure!(status == 200, "{path} answered with {status}");
        Ok(body)
    }

    /// Sends a request; returns the status and the body.
    ///
    /// # Errors
    /// If the connection breaks or the answer has no length.
    pub fn request(&mut self, method: &str, path: &str, payload: &[u8]) -> Result<(u16, &[u8])> {
        let length = payload.len();
        let mut sent = Vec::with_capacity(256 + length);
        write!(
            sent,
            "{method} /{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
        )?;
        sent.extend_from_slice(payload);
        self.stream.write_all(&sent)?;
        self.received.clear();
        loop {
            let len = self.stream.read(&mut self.chunk)?;
            ensure!(len > 0, "the server closed the connection");
            self.received.extend_from_slice(&self.chunk[..len]);
            let Some(end) = find(&self.received, b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.received[..end])?.to_ascii_lowercase();
            let status = head.get(9..12).context("a status")?.parse()?;
            let length = head.split("content-length:").nth(1).context("no length")?;
            let length: usize = length.split("\r\n").next().unwrap_or("").trim().parse()?;
            if self.received.len() >= end + 4 + length {
                return Ok((status, &self.received[end + 4..]));
            }
        }
    }

    /// Calls for that long.
    ///
    /// # Errors
    /// As [`OneByOne::call`].
    pub fn run(&mut self, payload: &[u8], time: Duration) -> Result<Outcome> {
        one_by_one(time, || Ok(self.call(payload)? == payload))
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Calls at a rate, over as many connections as are needed: latencies count from when a call was
/// due.
#[derive(Debug)]
pub struct Paced {
    /// Where calls come from, if not from what the system chooses.
    from: Option<IpAddr>,
    to: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Paced {
    /// Calls to one server.
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        Self {
            from: None,
            to,
            idle: Mutex::default(),
        }
    }

    /// Calls from an address of its own, so that it has its own share of the server.
    #[must_use]
    pub fn between(from: IpAddr, to: SocketAddr) -> Self {
        Self {
            from: Some(from),
            ..Self::new(to)
        }
    }

    /// One call; whether it was answered with 200, and the body.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn call(
        &self,
        tasks: &TaskTracker,
        path: &str,
        payload: Bytes,
    ) -> Result<(u16, Bytes)> {
        let kept = self.idle.lock().await.pop();
        let mut sender = match kept {
            Some(sender) if !sender.is_closed() => sender,
            Some(_) | None => {
                let stream = self.connect().await?;
                stream.set_nodelay(true)?;
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tasks.spawn(async move {
                    // A connection that broke is seen by the call on it.
                    drop(connection.await);
                });
                sender
            }
        };
        let request = Request::post(format!("/{path}"))
            .header("host", "bench")
            .body(Full::new(payload))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        self.idle.lock().await.push(sender);
        Ok((status, body))
    }

    async fn connect(&self) -> Result<AsyncTcpStream> {
        let Some(from) = self.from else {
            return Ok(AsyncTcpStream::connect(self.to).await?);
        };
        let socket = match from {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind(SocketAddr::new(from, 0))?;
        Ok(socket.connect(self.to).await?)
    }
}
