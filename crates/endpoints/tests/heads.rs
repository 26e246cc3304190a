//! What the head of a request may be, over HTTP/1.1 and HTTP/2.

mod fake;

use bytes::Bytes;
use endpoints::http::Browsers;
use faas::Limits;
use fake::door::{Endpoint, Version, request};
use http::HeaderValue;
use http::header::HOST;

async fn start() -> Endpoint {
    Endpoint::start(Limits::default(), Browsers::default()).await
}

#[tokio::test]
async fn http2_has_as_many_fields_as_http1() {
    let endpoint = start().await;
    for (count, status) in [(100, 200), (101, 431), (300, 431)] {
        let mut request = request(&endpoint, "GET", "/echo", Bytes::new());
        for _ in 0..count {
            let value = HeaderValue::from_static("y");
            request.headers_mut().append("x", value);
        }
        let answer = endpoint.call(Version::Http2, request).await;
        assert_eq!(answer.head.status, status, "{count}");
        if status == 431 {
            assert_eq!(answer.field("x-tinyfaas-error"), Some("caller"));
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            assert!(text.contains("at most 100"), "{text}");
        }
    }
    assert_eq!(*endpoint.seen.begun.borrow(), 1);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused() {
    let endpoint = start().await;
    let call = async |authority: &str, host: &'static str| {
        let mut request = request(&endpoint, "GET", "/echo", Bytes::new());
        *request.uri_mut() = format!("http://{authority}/echo").parse().unwrap();
        let host = HeaderValue::from_static(host);
        request.headers_mut().insert(HOST, host);
        endpoint.call(Version::Http2, request).await
    };
    for (authority, host) in [
        ("localhost:8000", "evil.example"),
        ("localhost:8000", "localhost:8001"),
        ("localhost:8000", "localhost"),
        ("[::1]", "[::2]"),
        ("somebody@localhost", "localhost"),
    ] {
        let answer = call(authority, host).await;
        assert_eq!(answer.head.status, 400, "{authority} {host}");
        assert_eq!(answer.field("x-tinyfaas-error"), Some("caller"));
    }
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    // The same in another writing, RFC 3986 section 6.2.
    for (authority, host) in [
        ("localhost:8000", "localhost:8000"),
        ("localhost:8000", "LocalHost:8000"),
        ("localhost", "localhost:80"),
        ("localhost:", "localhost"),
        ("[::1]:80", "[::1]"),
    ] {
        let answer = call(authority, host).await;
        assert_eq!(answer.head.status, 200, "{authority} {host}");
        let seen = endpoint.seen.last();
        let hosts: Vec<_> = seen.headers.iter().filter(|(n, _)| *n == "host").collect();
        assert_eq!(hosts, [("host", authority.as_bytes())]);
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn the_host_of_an_absolute_target_is_the_functions() {
    let endpoint = start().await;
    let answer = endpoint
        .raw("GET http://a.local/echo HTTP/1.1\r\nHost: b.local\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = endpoint.seen.last();
    let hosts: Vec<_> = seen.headers.iter().filter(|(n, _)| *n == "host").collect();
    assert_eq!(hosts, [("host", &b"a.local"[..])]);
    let answer = endpoint
        .raw("GET http://a:b@c/echo HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_method_longer_than_any_is_not_implemented() {
    let endpoint = start().await;
    for (bytes, status) in [(64, 200), (65, 501), (1000, 501), (65_536, 501)] {
        let method = "M".repeat(bytes);
        let answer = endpoint
            .raw(&format!(
                "{method} /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ))
            .await;
        let begin = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&begin), "{bytes}: {answer}");
        if status == 501 {
            assert!(answer.contains("at most 64"), "{answer}");
        }
        let request = request(&endpoint, &method, "/echo", Bytes::new());
        let answer = endpoint.call(Version::Http2, request).await;
        assert_eq!(answer.head.status, status, "{bytes}");
    }
    endpoint.stopped().await;
}
