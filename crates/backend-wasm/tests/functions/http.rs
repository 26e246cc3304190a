//! `wasi:http` 0.2 proxies.

use super::node::{Deployed, LONG, Node, invocation};
use bytes::Bytes;
use faas::{Headers, InvokeError, Reply};

/// Built from `tests/http-function`, which says how.
pub(super) const FUNCTION: &[u8] = include_bytes!("../http-function/fn.wasm");

pub(super) async fn call(
    function: &Deployed,
    query: impl Into<Bytes>,
) -> Result<Reply, InvokeError> {
    let mut sent = invocation(vec![7; 100_000]);
    sent.query = query.into();
    sent.headers = Headers::collect([(&b"x-a"[..], &b"b"[..])]).unwrap();
    function.invoke(&sent, LONG).await
}

#[tokio::test]
async fn the_request_and_the_response_are_passed_on() {
    let node = Node::start();
    let function = node.deploy(FUNCTION).await.unwrap();
    for _ in 0..3 {
        let reply = call(&function, "a=b").await.unwrap();
        assert_eq!(reply.status, 201);
        assert_eq!(reply.payload, vec![7; 100_000]);
        assert_eq!(reply.headers.get("x-a"), Some(&b"b"[..]));
        assert_eq!(reply.headers.get("x-target"), Some(&b"/fn?a=b"[..]));
    }
    assert!(node.log_text().contains("replying to /fn?a=b"));
}

#[tokio::test]
async fn a_panic_is_the_functions_error_and_its_text_is_in_the_log() {
    let node = Node::start();
    let function = node.deploy(FUNCTION).await.unwrap();
    let error = call(&function, "trap").await.unwrap_err();
    assert!(matches!(error, InvokeError::Function(_)), "{error:?}");
    assert!(node.log_text().contains("asked to"), "{}", node.log_text());
    assert!(node.log_text().contains("wasm backtrace"));
    assert!(call(&function, "").await.is_ok());
}

#[tokio::test]
async fn no_response_is_an_error_that_says_what_to_do() {
    let node = Node::start();
    let function = node.deploy(FUNCTION).await.unwrap();
    let error = call(&function, "silent").await.unwrap_err();
    assert!(error.to_string().contains("response-outparam"), "{error}");
}

#[tokio::test]
async fn a_response_that_is_too_large_is_refused() {
    let node = Node::start();
    let function = node.deploy(FUNCTION).await.unwrap();
    let error = call(&function, "large").await.unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}
