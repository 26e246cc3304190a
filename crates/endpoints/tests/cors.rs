//! Which pages of other sites may call functions and read their replies, by the Fetch standard.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use bytes::Bytes;
use endpoints::http::Browsers;
use faas::Limits;
use fake::door::{Answer, Endpoint, Version, request};
use http::{HeaderName, HeaderValue};

const APP: &str = "https://app.example";
const OTHER: &str = "https://other.example";

/// An endpoint on loopback with this setting for functions that have none.
async fn start(cors: Option<&str>) -> Endpoint {
    let cors = cors.map(|text| text.parse().unwrap());
    let browsers = Browsers::new(true, Vec::new(), cors);
    Endpoint::start(Limits::default(), browsers).await
}

async fn call(
    endpoint: &Endpoint,
    version: Version,
    (method, path): (&str, &str),
    fields: &[(&'static str, &str)],
) -> Answer {
    let mut request = request(endpoint, method, path, Bytes::new());
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(name, value);
    }
    endpoint.call(version, request).await
}

/// The status, who may read the reply, and whether that is said to depend on the origin.
type Told = (u16, Option<&'static str>, bool);

async fn check(node: Option<&str>, cases: &[(&str, Option<&str>, Told)]) {
    let endpoint = start(node).await;
    for version in [Version::Http1, Version::Http2] {
        for (path, origin, (status, readers, varies)) in cases {
            let case = format!("{node:?} {version:?} {path} {origin:?}");
            let fields: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).collect();
            let answer = call(&endpoint, version, ("POST", path), &fields).await;
            assert_eq!(answer.head.status, *status, "{case}");
            let allowed = answer.field("access-control-allow-origin");
            assert_eq!(allowed, *readers, "{case}");
            let exposed = answer.field("access-control-expose-headers");
            assert_eq!(exposed, readers.map(|_| "*"), "{case}");
            let credentials = answer.field("access-control-allow-credentials");
            assert_eq!(credentials, None, "{case}");
            assert_eq!(varies_by_origin(&answer), *varies, "{case}");
        }
    }
    endpoint.stopped().await;
}

fn varies_by_origin(answer: &Answer) -> bool {
    let values = answer.head.headers.get_all("vary").iter();
    let mut names = values.flat_map(|value| value.to_str().unwrap().split(','));
    names.any(|name| name.trim() == "Origin")
}

#[tokio::test]
async fn a_functions_own_setting_says_who_may_call_and_read() {
    let any = "https://any.example";
    let app = Some(APP);
    check(
        None,
        &[
            // Without a setting, on loopback: nobody, and what no page sent goes its way untouched.
            ("/echo", None, (200, None, false)),
            ("/echo", Some(OTHER), (403, None, true)),
            ("/none", None, (200, None, false)),
            ("/none", Some(OTHER), (403, None, true)),
            ("/none", Some("null"), (403, None, true)),
            ("/function", None, (200, None, false)),
            ("/function", Some(OTHER), (200, None, false)),
            ("/any", None, (200, Some("*"), false)),
            ("/any", Some(any), (200, Some("*"), false)),
            ("/any", Some("null"), (200, Some("*"), false)),
            ("/app", None, (200, None, true)),
            ("/app", app, (200, app, true)),
            (
                "/app",
                Some("https://b.example:8443"),
                (200, Some("https://b.example:8443"), true),
            ),
            ("/app", Some("https://b.example"), (403, None, true)),
            ("/app", Some("http://app.example"), (403, None, true)),
            (
                "/app",
                Some("https://app.example.evil.example"),
                (403, None, true),
            ),
            ("/app", Some("https://sub.app.example"), (403, None, true)),
            ("/app", Some("null"), (403, None, true)),
            ("/app", Some(OTHER), (403, None, true)),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_nodes_setting_is_for_functions_without_one() {
    let app = Some(APP);
    check(
        Some(APP),
        &[
            ("/echo", None, (200, None, true)),
            ("/echo", app, (200, app, true)),
            ("/echo", Some(OTHER), (403, None, true)),
            ("/none", app, (403, None, true)),
            ("/any", Some(OTHER), (200, Some("*"), false)),
        ],
    )
    .await;
    check(
        Some("*"),
        &[
            ("/echo", Some(OTHER), (200, Some("*"), false)),
            ("/none", Some(OTHER), (403, None, true)),
            ("/app", Some(OTHER), (403, None, true)),
        ],
    )
    .await;
    check(
        Some("function"),
        &[
            ("/echo", Some(OTHER), (200, None, false)),
            ("/app", Some(OTHER), (403, None, true)),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_page_that_may_call_reads_errors_too() {
    let limits = Limits {
        payload_bytes_max: 1000,
        client_bytes_max: 2 << 20,
        client_share_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let browsers = Browsers::new(true, Vec::new(), Some(APP.parse().unwrap()));
    let endpoint = Endpoint::start(limits, browsers).await;
    let long = format!("/echo?{}", "q".repeat(9000));
    for version in [Version::Http1, Version::Http2] {
        for (path, body, status) in [
            ("/nothing", 0, 404),
            ("/fail", 0, 500),
            ("/full", 0, 503),
            ("/unloaded", 0, 503),
            // A reply that there is no memory for.
            ("/large", 0, 503),
            ("/echo", 1001, 413),
            (&long, 0, 414),
        ] {
            let mut request = request(&endpoint, "POST", path, Bytes::from(vec![b'x'; body]));
            let origin = HeaderValue::from_static(APP);
            request.headers_mut().insert("origin", origin);
            let answer = endpoint.call(version, request).await;
            assert_eq!(answer.head.status, status, "{version:?} {path}");
            assert!(answer.field("x-tinyfaas-error").is_some(), "{path}");
            let readers = answer.field("access-control-allow-origin");
            assert_eq!(readers, Some(APP), "{version:?} {path}");
            let exposed = answer.field("access-control-expose-headers");
            assert_eq!(exposed, Some("*"), "{path}");
        }
        let fields = [("origin", APP), ("x-tinyfaas-async", "1")];
        let answer = call(&endpoint, version, ("POST", "/echo"), &fields).await;
        assert_eq!(answer.head.status, 202);
        assert_eq!(answer.field("access-control-allow-origin"), Some(APP));
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_preflight_is_answered_without_the_function() {
    let endpoint = start(None).await;
    for version in [Version::Http1, Version::Http2] {
        for (path, readers, method, methods) in [
            ("/app", APP, "PUT", "GET, HEAD, POST, PUT, PATCH, DELETE"),
            ("/any", "*", "DELETE", "GET, HEAD, POST, PUT, PATCH, DELETE"),
            ("/app", APP, "FETCH", "FETCH"),
            ("/any", "*", "patch", "patch"),
        ] {
            let fields = [
                ("origin", APP),
                ("access-control-request-method", method),
                ("access-control-request-headers", "authorization,x-unit"),
            ];
            let answer = call(&endpoint, version, ("OPTIONS", path), &fields).await;
            assert_eq!(answer.head.status, 204, "{path}");
            assert!(answer.body.is_empty());
            let expected = [
                ("access-control-allow-origin", Some(readers)),
                ("access-control-allow-methods", Some(methods)),
                ("access-control-allow-headers", Some("authorization,x-unit")),
                ("access-control-max-age", Some("600")),
                ("access-control-allow-credentials", None),
                ("access-control-allow-private-network", None),
                ("x-tinyfaas-error", None),
            ];
            for (name, value) in expected {
                assert_eq!(answer.field(name), value, "{version:?} {path} {name}");
            }
            assert_eq!(varies_by_origin(&answer), readers != "*");
        }
        for path in ["/app", "/none", "/echo"] {
            let fields = [("origin", OTHER), ("access-control-request-method", "PUT")];
            let answer = call(&endpoint, version, ("OPTIONS", path), &fields).await;
            assert_eq!(answer.head.status, 403, "{path}");
            assert_eq!(answer.field("access-control-allow-origin"), None);
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            assert!(text.contains(OTHER) && text.contains("--cors"), "{text}");
        }
    }
    assert_eq!(*endpoint.seen.begun.borrow(), 0);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_preflight_from_another_network_is_answered_for_pages_that_may_call() {
    let endpoint = start(None).await;
    for (path, origin, allowed) in [
        ("/app", APP, Some("true")),
        ("/any", OTHER, Some("true")),
        ("/app", OTHER, None),
    ] {
        let fields = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-private-network", "true"),
        ];
        let answer = call(&endpoint, Version::Http1, ("OPTIONS", path), &fields).await;
        let answered = answer.field("access-control-allow-private-network");
        assert_eq!(answered, allowed, "{path} {origin}");
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn options_that_are_no_preflight_reach_the_function() {
    let endpoint = start(None).await;
    let method = ("access-control-request-method", "PUT");
    for (calls, (path, fields)) in [
        ("/echo", &[method][..]),
        ("/app", &[method]),
        ("/app", &[("origin", APP)]),
        ("/any", &[("origin", APP)]),
        // The function answers it itself.
        ("/function", &[("origin", OTHER), method]),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = call(&endpoint, Version::Http1, ("OPTIONS", path), fields).await;
        assert_eq!(answer.head.status, 200, "{path}");
        assert_eq!(*endpoint.seen.begun.borrow(), calls + 1, "{path}");
        assert_eq!(endpoint.seen.last().method, "OPTIONS");
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn what_a_function_says_itself_stays_unless_it_has_a_setting() {
    let own = Some("https://own.example");
    for (node, path, readers, credentials, exposed) in [
        ("function", "/answers", own, Some("true"), Some("x-own")),
        (APP, "/answers", own, Some("true"), Some("x-own")),
        ("*", "/answers", own, Some("true"), Some("x-own")),
        ("function", "/app-answers", Some(APP), None, Some("*")),
        ("*", "/any-answers", Some("*"), None, Some("*")),
    ] {
        let endpoint = start(Some(node)).await;
        let fields = [("origin", APP)];
        let answer = call(&endpoint, Version::Http1, ("GET", path), &fields).await;
        assert_eq!(answer.head.status, 200);
        for (name, value) in [
            ("access-control-allow-origin", readers),
            ("access-control-allow-credentials", credentials),
            ("access-control-expose-headers", exposed),
            ("vary", Some("Accept")),
        ] {
            assert_eq!(answer.field(name), value, "{node} {path} {name}");
        }
        endpoint.stopped().await;
    }
}

#[tokio::test]
async fn a_page_of_the_endpoint_itself_may_call() {
    let endpoint = start(None).await;
    let own = format!("http://{}", endpoint.addr);
    for path in ["/echo", "/none", "/app", "/any"] {
        let fields = [("origin", own.as_str())];
        let answer = call(&endpoint, Version::Http1, ("POST", path), &fields).await;
        assert_eq!(answer.head.status, 200, "{path}");
    }
    endpoint.stopped().await;
}
