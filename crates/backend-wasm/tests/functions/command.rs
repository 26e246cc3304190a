//! WASI preview 1 commands.

use super::node::{COMMAND_ECHO, LONG, Node, call, command, invocation};
use faas::Headers;

#[tokio::test]
async fn standard_input_comes_back_on_standard_output() {
    let node = Node::start();
    let echo = node.deploy(&command(COMMAND_ECHO)).await.unwrap();
    for len in [0, 1, 64, 100_000, 1 << 20] {
        let payload: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
        let reply = call(&echo, payload.clone()).await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.payload, payload);
    }
}

#[tokio::test]
async fn variables_have_the_request_and_the_settings() {
    let node = Node::start();
    let environment = command(
        "(drop (call $environ (i32.const 1024) (i32.const 8192)))
         (i32.store (i32.const 0) (i32.const 8192))
         (i32.store (i32.const 4) (i32.const 1024))
         (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))",
    );
    let environment = node.deploy(&environment).await.unwrap();
    let mut sent = invocation("four");
    sent.headers = Headers::collect([
        (&b"x-custom"[..], &b"one"[..]),
        (b"x-custom", b"two"),
        (b"proxy", b"evil"),
        (b"x_custom", b"evil"),
        (b"content-type", b"text/plain"),
    ])
    .unwrap();
    sent.query = "a=b".into();
    let reply = environment.invoke(&sent, LONG).await.unwrap();
    let text = String::from_utf8(reply.payload.to_vec()).unwrap();
    for variable in [
        "GREETING=hello\0",
        "TINYFAAS_FUNCTION=fn\0",
        "REQUEST_METHOD=POST\0",
        "PATH_INFO=/fn\0",
        "QUERY_STRING=a=b\0",
        "CONTENT_LENGTH=4\0",
        "CONTENT_TYPE=text/plain\0",
        "HTTP_X_CUSTOM=one, two\0",
    ] {
        assert!(text.contains(variable), "{variable:?} in {text:?}");
    }
    assert!(!text.contains("evil"));
}

#[tokio::test]
async fn a_status_other_than_zero_is_the_functions_error() {
    let node = Node::start();
    let code = COMMAND_ECHO.to_owned() + "(call $exit (i32.const 3))";
    let fails = node.deploy(&command(&code)).await.unwrap();
    let error = call(&fails, "what went wrong\n").await.unwrap_err();
    assert_eq!(error.to_string(), "what went wrong");
    let error = call(&fails, "").await.unwrap_err();
    assert_eq!(error.to_string(), "the function exited with status 3");
    let zero = command("(call $exit (i32.const 0))");
    let leaves = node.deploy(&zero).await.unwrap();
    assert_eq!(call(&leaves, "").await.unwrap().payload, "");
}

#[tokio::test]
async fn standard_error_goes_to_the_log() {
    let node = Node::start();
    let prints = command(
        "(i32.store (i32.const 0) (i32.const 256))
         (i32.store (i32.const 4) (i32.const 19))
         (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 20)))",
    );
    let prints = node.deploy(&prints).await.unwrap();
    assert_eq!(call(&prints, "").await.unwrap().payload, "");
    assert!(node.log_text().contains("this is for the log"));
}
