//! The HTTP endpoint over real sockets.

mod fake;

use bytes::Bytes;
use endpoints::http::Browsers;
use faas::Limits;
use fake::Seen;
use fake::door::{Endpoint, Version, request, rest};
use http::StatusCode;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn start(limits: Limits) -> Endpoint {
    Endpoint::start(limits, Browsers::default()).await
}

#[tokio::test]
async fn payloads_go_both_ways_over_both_versions() {
    let endpoint = start(Limits::default()).await;
    let bytes = |len: usize| Bytes::from((0..=255_u8).cycle().take(len).collect::<Vec<u8>>());
    for version in [Version::Http1, Version::Http2] {
        for (method, len) in [
            ("POST", 0),
            ("PUT", 256),
            ("FETCH", 100_000),
            ("POST", 3_000_000),
        ] {
            let body = bytes(len);
            let request = request(&endpoint, method, "/echo?a=%20b", body.clone());
            let answer = endpoint.call(version, request).await;
            assert_eq!(answer.head.status, StatusCode::OK);
            assert_eq!(answer.body, body, "{version:?} {method} {len}");
            let seen = endpoint.seen.last();
            assert_eq!(seen.method, method);
            assert_eq!(seen.path, "/echo");
            assert_eq!(seen.query, "a=%20b");
            let host = endpoint.addr.to_string();
            assert_eq!(seen.headers.get("host"), Some(host.as_bytes()));
        }
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn errors_say_whose_fault_they_are() {
    let endpoint = start(Limits::default()).await;
    let check = async |path: &str, status: u16, fault: &str, text: &str| {
        for version in [Version::Http1, Version::Http2] {
            let request = request(&endpoint, "GET", path, Bytes::new());
            let answer = endpoint.call(version, request).await;
            assert_eq!(answer.head.status, status, "{path}");
            assert_eq!(answer.field("x-tinyfaas-error"), Some(fault), "{path}");
            assert_eq!(
                answer.field("content-type"),
                Some("text/plain; charset=utf-8")
            );
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            assert!(body.contains(text) && body.ends_with('\n'), "{body}");
            let pause = (status == 503).then_some("2");
            assert_eq!(answer.field("retry-after"), pause, "{path}");
        }
    };
    check("/", 404, "caller", "by its name").await;
    check("/nothing", 404, "caller", "nothing").await;
    check("/echo/", 404, "caller", "echo/").await;
    check("/fail", 500, "function", "it threw").await;
    check("/full", 503, "platform", "too many calls").await;
    check(
        &format!("/echo?{}", "q".repeat(9000)),
        414,
        "caller",
        "query",
    )
    .await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn status_and_headers_are_the_functions_own() {
    let endpoint = start(Limits::default()).await;
    let answer = endpoint
        .call(
            Version::Http1,
            request(&endpoint, "GET", "/teapot", Bytes::new()),
        )
        .await;
    assert_eq!(answer.head.status, 418);
    assert_eq!(answer.field("content-type"), Some("text/tea"));
    assert_eq!(answer.field("x-pot"), Some("1"));
    assert_eq!(answer.field("connection"), None);
    let answer = endpoint
        .call(
            Version::Http2,
            request(&endpoint, "GET", "/binary", Bytes::new()),
        )
        .await;
    assert_eq!(
        answer.field("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(answer.body.len(), 256);
    endpoint.stopped().await;
}

#[tokio::test]
async fn callers_see_nothing_that_a_function_printed() {
    let endpoint = start(Limits::default()).await;
    for path in ["/sick", "/unloaded"] {
        let request = request(&endpoint, "GET", path, Bytes::new());
        let answer = endpoint.call(Version::Http1, request).await;
        assert_eq!(answer.head.status, StatusCode::SERVICE_UNAVAILABLE);
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(body.contains("can't be run now"), "{body}");
        assert!(
            !body.contains(fake::SECRET) && !body.contains("/srv"),
            "{body}"
        );
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_function_can_not_frame_its_own_reply() {
    let endpoint = start(Limits::default()).await;
    for version in [Version::Http1, Version::Http2] {
        let request = request(&endpoint, "GET", "/smuggler", Bytes::new());
        let answer = endpoint.call(version, request).await;
        assert_eq!(answer.field("x-own"), Some("1"));
        assert_eq!(answer.field("content-length"), Some("24"));
        for name in [
            "transfer-encoding",
            "connection",
            "x-tinyfaas-error",
            "x-tinyfaas-status",
            "x-tinyfaas-anything",
        ] {
            assert_eq!(answer.field(name), None, "{version:?} {name}");
        }
        assert_eq!(answer.body.len(), 24);
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn head_has_the_fields_of_get_and_no_body() {
    let endpoint = start(Limits::default()).await;
    for version in [Version::Http1, Version::Http2] {
        let request = request(&endpoint, "HEAD", "/binary", Bytes::new());
        let answer = endpoint.call(version, request).await;
        assert_eq!(answer.field("content-length"), Some("256"));
        assert!(answer.body.is_empty());
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn an_asynchronous_call_is_accepted_before_the_function_ends() {
    let limits = Limits {
        async_invocations_max: 1,
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    let call = async || {
        let mut request = request(&endpoint, "POST", "/wait", Bytes::from_static(b"x"));
        let value = http::HeaderValue::from_static("");
        request.headers_mut().insert("X-tinyFaaS-Async", value);
        endpoint.call(Version::Http1, request).await.head.status
    };
    assert_eq!(call().await, 202);
    Seen::reached(&endpoint.seen.begun, 1).await;
    assert_eq!(call().await, 503);
    endpoint.seen.release.notify_one();
    endpoint.stopped().await;
    assert_eq!(*endpoint.seen.cancelled.borrow(), 0);
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_announced_or_not() {
    let limits = Limits {
        payload_bytes_max: 1000,
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    // The body never comes: its length alone is enough.
    let answer = endpoint
        .raw("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let answer = endpoint
        .raw(&format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = endpoint
        .raw("POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    endpoint.stopped().await;
}

#[tokio::test]
async fn headers_over_the_bound_are_refused() {
    let endpoint = start(Limits::default()).await;
    let check = async |field: String| {
        let answer = endpoint
            .raw(&format!(
                "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{field}\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    };
    check(format!("x-large: {}", "x".repeat(66_000))).await;
    check(format!("x-huge: {}", "x".repeat(200_000))).await;
    // With the two that every request here has, one too many, and just as many as there may be.
    check(["x: y"; 99].join("\r\n")).await;
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    let most = ["x: y"; 98].join("\r\n");
    let answer = endpoint
        .raw(&format!(
            "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{most}\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    endpoint.stopped().await;
}

#[tokio::test]
async fn slow_clients_are_closed() {
    let limits = Limits {
        http_head: Duration::from_millis(100),
        http_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    assert_eq!(endpoint.raw("").await, "", "says nothing");
    assert_eq!(endpoint.raw("P").await, "", "one byte that may be either");
    let half_head = endpoint.raw("GET /echo HTTP/1.1\r\nHo").await;
    assert!(!half_head.contains("200"), "{half_head}");
    let half_body = endpoint
        .raw("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nxx")
        .await;
    assert!(half_body.starts_with("HTTP/1.1 408"), "{half_body}");
    let idle = endpoint.raw("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    endpoint.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let limits = Limits {
        http_head: Duration::from_millis(200),
        http_idle: Duration::from_millis(200),
        connections_max: 1,
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    let mut deaf = endpoint.connect().await;
    for _ in 0..4 {
        let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
        deaf.write_all(request).await.unwrap();
    }
    // The only place is free again only when the deaf one was closed.
    let answer = endpoint
        .raw("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    endpoint.stopped().await;
    drop(deaf);
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_the_invocation() {
    let endpoint = start(Limits::default()).await;
    let mut client = endpoint.connect().await;
    let request = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    Seen::reached(&endpoint.seen.begun, 1).await;
    drop(client);
    Seen::reached(&endpoint.seen.cancelled, 1).await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let endpoint = start(Limits::default()).await;
    let mut idle = endpoint.connect().await;
    let request = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n";
    idle.write_all(request).await.unwrap();
    Seen::reached(&endpoint.seen.begun, 1).await;
    let mut silent = endpoint.connect().await;
    let mut busy = endpoint.connect().await;
    let request = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
    busy.write_all(request).await.unwrap();
    Seen::reached(&endpoint.seen.begun, 2).await;
    endpoint.shutdown.cancel();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    assert_eq!(rest(&mut silent).await, "");
    endpoint.seen.release.notify_one();
    let answer = rest(&mut busy).await;
    assert!(answer.ends_with("released"), "{answer}");
    endpoint.stopped().await;
    assert!(TcpStream::connect(endpoint.addr).await.is_err());
}

#[tokio::test]
async fn shutdown_cuts_what_outlasts_the_grace() {
    let limits = Limits {
        drain: Duration::from_millis(100),
        ..Limits::default()
    };
    let endpoint = start(limits).await;
    let mut busy = endpoint.connect().await;
    let request = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
    busy.write_all(request).await.unwrap();
    Seen::reached(&endpoint.seen.begun, 1).await;
    endpoint.stopped().await;
    assert_eq!(*endpoint.seen.cancelled.borrow(), 1);
}

#[tokio::test]
async fn garbage_is_answered_or_closed_and_the_next_client_served() {
    let endpoint = start(Limits::default()).await;
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /echo HTTP/9.9\r\n\r\n",
        "GET /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\0\0\0\0\0\0\0\0\0\0garbage garbage garbage",
    ] {
        let answer = endpoint.raw(garbage).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let answer = endpoint
        .raw("GET /a/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    endpoint.stopped().await;
}

#[tokio::test]
async fn those_who_ask_again_at_once_are_held_back() {
    let limits = Limits {
        refusals_free_per_second: 5,
        ..Limits::default()
    };
    let hold_back = limits.hold_back;
    let endpoint = start(limits).await;
    let begin = std::time::Instant::now();
    for _ in 0..7 {
        let request = request(&endpoint, "GET", "/full", Bytes::new());
        let answer = endpoint.call(Version::Http1, request).await;
        assert_eq!(answer.head.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(begin.elapsed() >= hold_back * 7 / 10);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_connection_that_ends_with_a_response_says_so() {
    let endpoint = start(Limits::default()).await;
    for (request, ends) in [
        (
            "POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\nx",
            true,
        ),
        (
            "POST /unknown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        ),
        // The control: nothing is left to be read.
        (
            "GET /unknown HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            false,
        ),
    ] {
        let answer = endpoint.raw(request).await;
        let first = answer.split("\r\n\r\n").next().unwrap_or_default();
        assert!(first.starts_with("HTTP/1.1 404"), "{first}");
        assert_eq!(
            first.contains("connection: close"),
            ends,
            "{request}: {first}"
        );
    }
    endpoint.stopped().await;
}
