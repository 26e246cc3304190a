//! The gRPC endpoint over real sockets.
#![cfg(feature = "grpc")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use endpoints::grpc::proto::Data;
use endpoints::grpc::proto::tiny_faa_s_client::TinyFaaSClient;
use faas::Limits;
use fake::Seen;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

struct Endpoint {
    addr: SocketAddr,
    seen: Arc<Seen>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

async fn start(limits: Limits) -> Endpoint {
    let (proxy, seen) = fake::proxy(limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    let token = shutdown.clone();
    tasks.spawn(async move {
        let clients = endpoints::clients(proxy.limits());
        endpoints::grpc::serve(listener, clients, (proxy, Arc::default()), token).await;
    });
    tasks.close();
    Endpoint {
        addr,
        seen,
        shutdown,
        tasks,
    }
}

impl Endpoint {
    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addr)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn call(&self, name: &str, data: &str) -> Result<String, Status> {
        let request = Request::new(Data {
            function_identifier: name.to_owned(),
            data: data.to_owned(),
        });
        let mut client = TinyFaaSClient::new(self.channel().await)
            .max_decoding_message_size(16 << 20)
            .max_encoding_message_size(16 << 20);
        let response = client.request(request).await?;
        Ok(response.into_inner().response)
    }

    async fn stopped(&self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.tasks.wait());
        ended.await.expect("the endpoint ends");
    }
}

fn field<'a>(status: &'a Status, key: &str) -> Option<&'a str> {
    status.metadata().get(key).map(|v| v.to_str().unwrap())
}

#[tokio::test]
async fn text_goes_both_ways() {
    let endpoint = start(Limits::default()).await;
    for text in ["", "hello", "ünïcödé", &"x".repeat(5 << 20)] {
        assert_eq!(endpoint.call("echo", text).await.unwrap(), text);
        assert_eq!(endpoint.call("/echo", text).await.unwrap(), text);
    }
    assert_eq!(endpoint.call("a/b", "deep").await.unwrap(), "deep");
    assert_eq!(endpoint.seen.last().method, "POST");
    assert_eq!(endpoint.seen.last().path, "/a/b");
    endpoint.stopped().await;
}

#[tokio::test]
async fn metadata_reaches_the_function_as_headers() {
    let endpoint = start(Limits::default()).await;
    let mut request = Request::new(Data {
        function_identifier: "echo".to_owned(),
        data: String::new(),
    });
    let metadata = request.metadata_mut();
    metadata.insert("x-a", "1".parse().unwrap());
    let value = tonic::metadata::MetadataValue::from_bytes(b"\0\xff");
    metadata.insert_bin("x-b-bin", value);
    let mut client = TinyFaaSClient::new(endpoint.channel().await);
    client.request(request).await.unwrap();
    let headers = endpoint.seen.last().headers;
    assert_eq!(headers.get("x-a"), Some(&b"1"[..]));
    assert_eq!(headers.get("x-b-bin"), Some(&b"AP8"[..]));
    assert_eq!(headers.get("te"), None);
    assert_eq!(headers.get("content-type"), None);
    endpoint.stopped().await;
}

#[tokio::test]
async fn callers_see_nothing_that_a_function_printed() {
    let endpoint = start(Limits::default()).await;
    for name in ["sick", "unloaded"] {
        let status = endpoint.call(name, "").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let text = format!("{status:?}");
        assert!(text.contains("can't be run now"), "{text}");
        assert!(
            !text.contains(fake::SECRET) && !text.contains("/srv"),
            "{text}"
        );
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_function_sets_no_field_that_is_tinyfaas_own() {
    let endpoint = start(Limits::default()).await;
    let mut client = TinyFaaSClient::new(endpoint.channel().await);
    let request = Request::new(Data {
        function_identifier: "smuggler".to_owned(),
        data: String::new(),
    });
    let response = client.request(request).await.unwrap();
    let metadata = response.metadata();
    assert!(metadata.contains_key("x-own"));
    for name in ["x-tinyfaas-error", "x-tinyfaas-status", "connection"] {
        assert!(!metadata.contains_key(name), "{name}");
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn errors_have_a_code_and_say_whose_fault_they_are() {
    let endpoint = start(Limits::default()).await;
    let check = async |name: &str, code: Code, fault: Option<&str>, text: &str| {
        let status = endpoint.call(name, "").await.unwrap_err();
        assert_eq!(status.code(), code, "{name}");
        assert_eq!(field(&status, "x-tinyfaas-error"), fault, "{name}");
        assert!(status.message().contains(text), "{status}");
        status
    };
    check("nothing", Code::NotFound, Some("caller"), "nothing").await;
    check("", Code::NotFound, Some("caller"), "no function").await;
    check("fail", Code::Internal, Some("function"), "it threw").await;
    let full = check(
        "full",
        Code::ResourceExhausted,
        Some("platform"),
        "too many",
    )
    .await;
    assert_eq!(field(&full, "retry-after"), Some("2"));
    check("binary", Code::Internal, Some("function"), "HTTP or CoAP").await;
    let teapot = check("teapot", Code::InvalidArgument, None, "short and stout").await;
    assert_eq!(field(&teapot, "x-tinyfaas-status"), Some("418"));
    assert_eq!(field(&teapot, "x-pot"), Some("1"));
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_payload_over_the_bound_is_refused() {
    let limits = Limits {
        payload_bytes_max: 1000,
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    let over = endpoint.call("echo", &"x".repeat(1001)).await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted);
    let far_over = endpoint.call("echo", &"x".repeat(9000)).await.unwrap_err();
    assert_eq!(far_over.code(), Code::ResourceExhausted);
    assert_eq!(field(&far_over, "x-tinyfaas-error"), Some("caller"));
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    endpoint.stopped().await;
}

/// Sends this as the body of a call, for the status and whose fault it is.
async fn raw(endpoint: &Endpoint, body: &[u8], encoding: Option<&str>) -> (Code, String) {
    let io = TokioIo::new(TcpStream::connect(endpoint.addr).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = TaskTracker::new().spawn(connection);
    let path = "openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request";
    let mut request = http::Request::post(format!("http://{}/{path}", endpoint.addr))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let body = Full::new(bytes::Bytes::copy_from_slice(body));
    let response = sender.send_request(request.body(body).unwrap()).await;
    let response = response.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    let fault = field(&status, "x-tinyfaas-error").unwrap_or_default();
    let told = (status.code(), fault.to_owned());
    connection.abort();
    told
}

#[tokio::test]
async fn a_message_that_can_not_be_read_is_the_callers_fault() {
    let endpoint = start(Limits::default()).await;
    let check = async |body: &[u8], encoding: Option<&str>, code: Code| {
        let told = raw(&endpoint, body, encoding).await;
        assert_eq!(told, (code, "caller".to_owned()), "{body:?} {encoding:?}");
    };
    let broken = Code::InvalidArgument;
    check(b"", None, broken).await;
    check(b"\0\0", None, broken).await;
    check(b"\0\0\0\0\x09ab", None, broken).await;
    check(b"\x01\0\0\0\x02ab", None, broken).await;
    check(b"\x07\0\0\0\x02ab", None, broken).await;
    check(b"\0\0\0\0\x02\xff\xff", None, broken).await;
    check(b"\0\0\0\0\x03\x0a\x01\xff", None, broken).await;
    check(b"\0\xff\xff\xff\xffab", None, Code::ResourceExhausted).await;
    check(b"\x01\0\0\0\x02ab", Some("gzip"), Code::Unimplemented).await;
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_message_that_stops_short_of_its_end_is_not_kept_for_hours() {
    let limits = Limits {
        http_idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    let io = TokioIo::new(TcpStream::connect(endpoint.addr).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = TaskTracker::new().spawn(connection);
    // All but the last byte of 200 kB, which earn 195 s at the least rate of a whole message.
    let mut begun = b"\0\0\x03\x0d\x40".to_vec();
    begun.resize(200_004, b'x');
    let pieces = [Ok::<_, Status>(http_body::Frame::data(bytes::Bytes::from(
        begun,
    )))];
    let stream =
        tokio_stream::StreamExt::chain(tokio_stream::iter(pieces), tokio_stream::pending());
    let path = "openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request";
    let request = http::Request::post(format!("http://{}/{path}", endpoint.addr))
        .header("content-type", "application/grpc")
        .body(http_body_util::StreamBody::new(stream));
    let response = sender.send_request(request.unwrap());
    let response = tokio::time::timeout(Duration::from_secs(20), response).await;
    let response = response.expect("it is refused in time").unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(field(&status, "x-tinyfaas-error"), Some("caller"));
    connection.abort();
    endpoint.stopped().await;
}

#[tokio::test]
async fn the_clients_timeout_ends_the_wait_and_cancels_the_invocation() {
    let endpoint = start(Limits::default()).await;
    // Without the library's client, which would end the wait by itself.
    let stream = TcpStream::connect(endpoint.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    endpoint.tasks.spawn(connection);
    let message = Data {
        function_identifier: "wait".to_owned(),
        data: String::new(),
    };
    let mut body = vec![0, 0, 0, 0, u8::try_from(message.encoded_len()).unwrap()];
    message.encode(&mut body).unwrap();
    let request = http::Request::post(format!(
        "http://{}/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request",
        endpoint.addr
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("grpc-timeout", "100m")
    .body(Full::new(bytes::Bytes::from(body)))
    .unwrap();
    let response = client.send_request(request).await.unwrap();
    // 4 is DEADLINE_EXCEEDED.
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(response.headers()["x-tinyfaas-error"], "function");
    drop(client);
    Seen::reached(&endpoint.seen.cancelled, 1).await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_the_invocation() {
    let endpoint = start(Limits::default()).await;
    {
        let call = endpoint.call("wait", "");
        tokio::pin!(call);
        tokio::select! {
            _ = &mut call => panic!("the function waits"),
            () = Seen::reached(&endpoint.seen.begun, 1) => {}
        }
    }
    Seen::reached(&endpoint.seen.cancelled, 1).await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn health_says_serving_until_the_shutdown_which_lets_calls_finish() {
    let endpoint = start(Limits::default()).await;
    let mut health = HealthClient::new(endpoint.channel().await);
    for service in ["", "openfogstack.tinyfaas.tinyfaas.TinyFaaS"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let request = HealthCheckRequest::default();
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let finish = async {
        Seen::reached(&endpoint.seen.begun, 1).await;
        endpoint.shutdown.cancel();
        let next = watch.message().await.unwrap().unwrap();
        assert_eq!(next.status(), ServingStatus::NotServing);
        endpoint.seen.release.notify_one();
    };
    let (answer, ()) = tokio::join!(endpoint.call("wait", ""), finish);
    assert_eq!(answer.unwrap(), "released");
    drop(watch);
    endpoint.stopped().await;
}

#[tokio::test]
async fn both_versions_of_reflection_describe_the_service() {
    let endpoint = start(Limits::default()).await;
    let channel = endpoint.channel().await;
    let name = "openfogstack.tinyfaas.tinyfaas.TinyFaaS";
    macro_rules! check {
        ($version:ident) => {{
            use tonic_reflection::pb::$version as pb;
            let mut client =
                pb::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let request = pb::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(
                    pb::server_reflection_request::MessageRequest::FileContainingSymbol(
                        name.to_owned(),
                    ),
                ),
            };
            let answers = client
                .server_reflection_info(tokio_stream::once(request))
                .await;
            let answer = answers.unwrap().into_inner().message().await.unwrap();
            let described = format!("{:?}", answer.unwrap().message_response);
            assert!(described.contains("FileDescriptorResponse"), "{described}");
        }};
    }
    check!(v1);
    check!(v1alpha);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let limits = Limits {
        http_head: Duration::from_millis(100),
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    let mut silent = TcpStream::connect(endpoint.addr).await.unwrap();
    let mut rest = Vec::new();
    let read = silent.read_to_end(&mut rest);
    let read = tokio::time::timeout(Duration::from_secs(20), read).await;
    drop(read.expect("the endpoint closes the connection"));
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_message_counts_twice_while_it_is_decoded() {
    let check = async |share: usize, is_taken: bool| {
        let limits = Limits {
            client_share_bytes_max: share,
            ..Limits::default()
        };
        let endpoint = start(limits).await;
        let answer = endpoint.call("teapot", &"x".repeat(6 << 20)).await;
        let code = answer.err().map(|status| status.code());
        let is_spent = code == Some(Code::ResourceExhausted);
        assert_eq!(!is_spent, is_taken, "{share} {code:?}");
        endpoint.stopped().await;
    };
    check(11 << 20, false).await;
    check(13 << 20, true).await;
}

#[tokio::test]
async fn a_client_of_http_1_is_told_where_to_go() {
    let endpoint = start(Limits::default()).await;
    let mut client = TcpStream::connect(endpoint.addr).await.unwrap();
    let request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(head.contains("Upgrade: h2c"), "{answer}");
    assert!(
        head.contains(&format!("Content-Length: {}", body.len())),
        "{answer}"
    );
    assert!(body.contains("8000"), "{answer}");
    drop(client);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_call_has_as_many_fields_as_a_request_over_http() {
    let endpoint = start(Limits::default()).await;
    for (count, code) in [(80, None), (101, Some(Code::ResourceExhausted))] {
        let mut request = Request::new(Data {
            function_identifier: "echo".to_owned(),
            data: "hello".to_owned(),
        });
        for _ in 0..count {
            let value = tonic::metadata::AsciiMetadataValue::from_static("y");
            request.metadata_mut().append("x", value);
        }
        let mut client = TinyFaaSClient::new(endpoint.channel().await);
        let refusal = client.request(request).await.err();
        assert_eq!(refusal.as_ref().map(Status::code), code, "{count}");
        if let Some(refusal) = refusal {
            assert!(refusal.message().contains("at most 100"), "{refusal}");
            let fault = refusal.metadata().get("x-tinyfaas-error").unwrap();
            assert_eq!(fault, "caller");
        }
    }
    endpoint.stopped().await;
}
