//! Components of our own world.

use super::node::{LONG, Node, OWN_ECHO, call, invocation, own};
use faas::{Headers, InvokeError};

#[tokio::test]
async fn bytes_and_fields_come_back() {
    let node = Node::start();
    let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
    for len in [0, 1, 64, 100_000, 1 << 20] {
        let payload: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
        let mut sent = invocation(payload.clone());
        sent.headers = Headers::collect([(&b"x-a"[..], &b"b \xff"[..])]).unwrap();
        let reply = echo.invoke(&sent, LONG).await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.payload, payload);
        assert_eq!(reply.headers, sent.headers);
    }
}

#[tokio::test]
async fn an_error_is_told_in_the_functions_words() {
    let node = Node::start();
    let fails = node
        .deploy(&own("
            (i32.store8 (i32.const 1024) (i32.const 1))
            (i32.store (i32.const 1028) (local.get $path))
            (i32.store (i32.const 1032) (local.get $path_len))
            (i32.const 1024)"))
        .await
        .unwrap();
    let error = call(&fails, "").await.unwrap_err();
    assert_eq!(error, InvokeError::Function("/fn".to_owned()));
}

#[tokio::test]
async fn a_status_that_is_none_of_http_is_an_error() {
    let node = Node::start();
    let odd = node
        .deploy(&own("
            (i32.store16 (i32.const 1028) (i32.const 99))
            (i32.const 1024)"))
        .await
        .unwrap();
    let error = call(&odd, "").await.unwrap_err();
    assert!(error.to_string().contains("200 to 599"), "{error}");
}
