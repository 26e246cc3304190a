//! The HTTP endpoint with fake functions, and clients of both versions.

use super::Seen;
use bytes::Bytes;
use endpoints::http::Browsers;
use faas::Limits;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use net::Clients;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub struct Endpoint {
    pub addr: SocketAddr,
    pub seen: Arc<Seen>,
    pub shutdown: CancellationToken,
    pub tasks: TaskTracker,
    pub clients: Arc<Clients>,
}

impl Endpoint {
    /// Serves the fake functions on a free port.
    pub async fn start(limits: Limits, browsers: Browsers) -> Self {
        let (proxy, seen) = super::proxy(limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let clients = endpoints::clients(proxy.limits());
        let proxy = (proxy, browsers);
        tasks.spawn(endpoints::http::serve(
            listener,
            Arc::clone(&clients),
            proxy,
            shutdown.clone(),
        ));
        tasks.close();
        Self {
            addr,
            seen,
            shutdown,
            tasks,
            clients,
        }
    }

    pub async fn stopped(&self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.tasks.wait());
        ended.await.expect("the endpoint ends");
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends raw bytes and reads until the endpoint closes.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    pub async fn call(&self, version: Version, mut request: Request<Full<Bytes>>) -> Answer {
        let io = TokioIo::new(self.connect().await);
        let response = match version {
            Version::Http1 => {
                let host = self.addr.to_string().parse().unwrap();
                request.headers_mut().insert(http::header::HOST, host);
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(io).await.unwrap();
                self.tasks.spawn(connection);
                sender.send_request(request).await.unwrap()
            }
            Version::Http2 => {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .unwrap();
                self.tasks.spawn(connection);
                sender.send_request(request).await.unwrap()
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { head, body }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Version {
    Http1,
    Http2,
}

pub struct Answer {
    pub head: http::response::Parts,
    pub body: Bytes,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

pub async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(20), read).await;
    // A reset after the answer is an end as well.
    drop(read.expect("the endpoint closes the connection"));
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn request(endpoint: &Endpoint, method: &str, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let uri = format!("http://{}{path}", endpoint.addr);
    let request = Request::builder().method(method).uri(uri);
    request.body(Full::new(body)).unwrap()
}
