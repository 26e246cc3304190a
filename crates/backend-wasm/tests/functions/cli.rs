//! `wasi:cli/command` components of WASI 0.2, as `wasm32-wasip2` makes them.

use super::node::{Node, call, wasi_component};

/// A command with what `body` needs to read and write.
fn command(body: &str) -> Vec<u8> {
    wasi_component(
        "wasi:cli/command",
        &format!(
            r#"(module
              (import "wasi:cli/stdin@0.2.12" "get-stdin" (func $stdin (result i32)))
              (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
              (import "wasi:cli/stderr@0.2.12" "get-stderr" (func $stderr (result i32)))
              (import "wasi:cli/exit@0.2.12" "exit" (func $exit (param i32)))
              (import "wasi:io/streams@0.2.12" "[method]input-stream.blocking-read"
                (func $read (param i32 i64 i32)))
              (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
                (func $write (param i32 i32 i32 i32)))
              (memory (export "memory") 2)
              (data (i32.const 256) "this is for the log")
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (i32.const 4096))
              (func (export "wasi:cli/run@0.2.12#run") (result i32) {body}))"#
        ),
    )
}

/// Copies what one read brings from standard input to standard output.
const ECHO: &str = "
    (call $read (call $stdin) (i64.const 4096) (i32.const 0))
    (if (i32.eqz (i32.load8_u (i32.const 0)))
      (then (call $write (call $stdout) (i32.load (i32.const 4)) (i32.load (i32.const 8))
        (i32.const 16))))";

#[tokio::test]
async fn a_command_of_wasi_0_2_runs_as_one_of_preview_1() {
    let node = Node::start();
    let echo = node
        .deploy(&command(&format!("{ECHO} (i32.const 0)")))
        .await
        .unwrap();
    for payload in ["hello", ""] {
        let reply = call(&echo, payload).await.unwrap();
        assert_eq!(
            (reply.status, &reply.payload[..]),
            (200, payload.as_bytes())
        );
    }
    assert!(node.log_text().contains("wasi:cli command component"));
}

#[tokio::test]
async fn its_failure_is_the_functions_error_with_what_it_printed() {
    let node = Node::start();
    for end in ["(i32.const 1)", "(call $exit (i32.const 1)) (i32.const 0)"] {
        let code = command(&format!("{ECHO} {end}"));
        let fails = node.deploy(&code).await.unwrap();
        let error = call(&fails, "what went wrong").await.unwrap_err();
        assert_eq!(error.to_string(), "what went wrong");
        let error = call(&fails, "").await.unwrap_err();
        assert_eq!(error.to_string(), "the function exited with status 1");
    }
}

#[tokio::test]
async fn its_standard_error_goes_to_the_log() {
    let node = Node::start();
    let prints = command(
        "(call $write (call $stderr) (i32.const 256) (i32.const 19) (i32.const 16)) (i32.const 0)",
    );
    let prints = node.deploy(&prints).await.unwrap();
    assert_eq!(call(&prints, "").await.unwrap().payload, "");
    assert!(node.log_text().contains("this is for the log"));
}
