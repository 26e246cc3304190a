//! Requests that components send to other hosts.

use super::http::{FUNCTION, call};
use super::node::Node;
use bytes::Bytes;
use faas::Limits;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// A server on this machine, until it is dropped.
struct Server {
    port: u16,
    tasks: TaskTracker,
    stop: tokio_util::sync::CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tasks = TaskTracker::new();
        let stop = tokio_util::sync::CancellationToken::new();
        let (inner, stopped) = (tasks.clone(), stop.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(serve));
                inner.spawn(stopped.clone().run_until_cancelled_owned(serving));
            }
        }));
        Self { port, tasks, stop }
    }

    fn url(&self, path: &str) -> String {
        format!("fetch=http://127.0.0.1:{}{path}", self.port)
    }
}

async fn serve(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let whole = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).boxed_unsync();
    Ok(match request.uri().path() {
        "/large" => Response::new(whole(vec![b'x'; 1 << 20])),
        // Its head and a first piece, and then nothing.
        "/stalls" => {
            let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from("some")))]);
            let rest = futures_util::stream::pending();
            let body = futures_util::StreamExt::chain(first, rest);
            Response::new(StreamBody::new(body).boxed_unsync())
        }
        "/silent" => std::future::pending().await,
        "/moved" => Response::builder()
            .status(302)
            .header("location", "http://127.0.0.2/")
            .body(whole(Vec::new()))
            .unwrap(),
        path => {
            let host = request.headers()["host"].to_str().unwrap();
            Response::new(whole(format!("{path} of {host}").into_bytes()))
        }
    })
}

async fn fetched(node: &Node, query: String) -> String {
    let function = node.deploy(FUNCTION).await.unwrap();
    let reply = call(&function, query).await.unwrap();
    String::from_utf8_lossy(&reply.payload).into_owned()
}

#[tokio::test]
async fn a_host_on_the_list_is_reached_and_no_other() {
    let server = Server::start().await;
    let mut node = Node::start();
    node.allow_hosts = vec![format!("127.0.0.1:{}", server.port).parse().unwrap()];
    let port = server.port;
    let text = fetched(&node, server.url("/a?b=c")).await;
    assert_eq!(text, format!("200 /a of 127.0.0.1:{port}"));
    let text = fetched(&node, server.url("/moved")).await;
    assert_eq!(text, "302 ", "redirects are the component's to follow");
    for other in [
        "http://127.0.0.1:1/",
        "http://localhost/",
        "https://127.0.0.1/",
    ] {
        let text = fetched(&node, format!("fetch={other}")).await;
        assert!(text.contains("HttpRequestDenied"), "{other}: {text}");
    }
    node.allow_hosts = Vec::new();
    let text = fetched(&node, server.url("/")).await;
    assert!(text.contains("HttpRequestDenied"), "{text}");
}

#[tokio::test]
async fn what_goes_wrong_has_its_own_code() {
    let server = Server::start().await;
    let limits = Limits {
        payload_bytes_max: 100 << 10,
        outbound_idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut node = Node::with_limits(limits);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    node.allow_hosts = vec![
        format!("127.0.0.1:{}", server.port).parse().unwrap(),
        format!("127.0.0.1:{closed_port}").parse().unwrap(),
        "no-such-host.invalid".parse().unwrap(),
    ];
    let check = async |query: String, code: &str| {
        let text = fetched(&node, query).await;
        assert!(text.contains(code), "{text}");
    };
    check(server.url("/large"), "body size").await;
    check(server.url("/stalls"), "read timeout").await;
    let refused = format!("fetch=http://127.0.0.1:{closed_port}/");
    check(refused, "ConnectionRefused").await;
    let unknown = "fetch=http://no-such-host.invalid/".to_owned();
    check(unknown, "Destination").await;
    // A server that speaks no TLS.
    let plain = format!("fetch=https://127.0.0.1:{}/", server.port);
    check(plain, "Tls").await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = Server::start().await;
    let limits = Limits {
        outbound_connect: Duration::from_millis(50),
        outbound_idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut node = Node::with_limits(limits);
    node.allow_hosts = vec![format!("127.0.0.1:{}", server.port).parse().unwrap()];
    let text = fetched(&node, server.url("/silent")).await;
    assert!(text.contains("HttpResponseTimeout"), "{text}");
}
