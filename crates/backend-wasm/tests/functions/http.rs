//! `wasi:http` 0.2 proxies.

use super::node::{Deployed, LONG, Node, call as call_with, invocation, wasi_component};
use bytes::Bytes;
use faas::{Headers, InvokeError, Reply};
use std::time::Duration;

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

/// A proxy that replies with `hello` and then does what `after` says.
fn replies_then(after: &str) -> Vec<u8> {
    wasi_component(
        "wasi:http/proxy",
        &format!(
            r#"(module
              (import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
              (import "wasi:http/types@0.2.12" "[constructor]outgoing-response"
                (func $response (param i32) (result i32)))
              (import "wasi:http/types@0.2.12" "[method]outgoing-response.body"
                (func $body (param i32 i32)))
              (import "wasi:http/types@0.2.12" "[method]outgoing-body.write"
                (func $stream (param i32 i32)))
              (import "wasi:http/types@0.2.12" "[static]outgoing-body.finish"
                (func $finish (param i32 i32 i32 i32)))
              (import "wasi:http/types@0.2.12" "[static]response-outparam.set"
                (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
              (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
                (func $write (param i32 i32 i32 i32)))
              (import "wasi:io/streams@0.2.12" "[resource-drop]output-stream"
                (func $drop (param i32)))
              (memory (export "memory") 2)
              (data (i32.const 256) "hello")
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (i32.const 4096))
              (func (export "wasi:http/incoming-handler@0.2.12#handle")
                (param $request i32) (param $out i32)
                (local $reply i32) (local $to i32)
                (local.set $reply (call $response (call $fields)))
                (call $body (local.get $reply) (i32.const 0))
                (call $stream (i32.load (i32.const 4)) (i32.const 16))
                (local.set $to (i32.load (i32.const 20)))
                (call $set (local.get $out) (i32.const 0) (local.get $reply) (i32.const 0)
                  (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
                (call $write (local.get $to) (i32.const 256) (i32.const 5) (i32.const 32))
                (call $drop (local.get $to))
                (call $finish (i32.load (i32.const 4)) (i32.const 0) (i32.const 0) (i32.const 64))
                {after}))"#
        ),
    )
}

#[tokio::test]
async fn what_a_function_does_after_its_reply_changes_nothing_of_it() {
    let node = Node::start();
    let traps = node.deploy(&replies_then("unreachable")).await.unwrap();
    let reply = call_with(&traps, "").await.unwrap();
    assert_eq!((reply.status, &reply.payload[..]), (200, &b"hello"[..]));
    assert!(
        node.log_text().contains("after its reply"),
        "{}",
        node.log_text()
    );
}

#[tokio::test]
async fn a_reply_leaves_before_its_function_ends() {
    let node = Node::start();
    let endless = replies_then("(loop $on (br $on))");
    let endless = node.deploy_many(&endless, 2).await.unwrap();
    for _ in 0..2 {
        let reply = call_with(&endless, "").await.unwrap();
        assert_eq!((reply.status, &reply.payload[..]), (200, &b"hello"[..]));
    }
    assert_eq!(endless.in_flight(), 2, "both go on, and count");
    // A third has to wait for one of them, up to its own deadline.
    let sent = invocation("");
    let third = endless.invoke(&sent, Duration::from_millis(200)).await;
    assert!(
        matches!(third, Err(InvokeError::Deadline { .. })),
        "{third:?}"
    );
    endless.stop(Duration::ZERO).await;
    assert_eq!(endless.in_flight(), 0);
}

#[tokio::test]
async fn what_goes_on_after_a_reply_ends_at_its_deadline() {
    let node = Node::start();
    let endless = replies_then("(loop $on (br $on))");
    let endless = node.deploy(&endless).await.unwrap();
    let sent = invocation("");
    let reply = endless.invoke(&sent, Duration::from_millis(500)).await;
    assert_eq!(reply.unwrap().payload, "hello");
    while endless.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
