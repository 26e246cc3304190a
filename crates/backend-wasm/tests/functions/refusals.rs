//! What is refused at deployment, and with which words.

use super::node::{COMMAND_ECHO, Node, OWN_ECHO, command, own};
use faas::{Backend, Limits, PrepareErrorKind};
use std::time::Duration;

async fn refused(node: &Node, binary: &[u8], words: &[&str]) {
    let error = node.deploy(binary).await.expect_err("it is refused");
    let text = format!("{} {}", error.text(), error.output);
    for word in words {
        assert!(text.contains(word), "{word:?} in {text:?}");
    }
}

#[tokio::test]
async fn what_has_no_contract_is_refused_with_what_was_found() {
    let node = Node::start();
    let library =
        wat::parse_str(r#"(module (func (export "add")) (func (export "sub")))"#).unwrap();
    refused(
        &node,
        &library,
        &["exports add, sub", "_start", "wasi:http"],
    )
    .await;
    let empty = wat::parse_str("(component)").unwrap();
    refused(
        &node,
        &empty,
        &["exports nothing", "tinyfaas:function/handler"],
    )
    .await;
}

#[tokio::test]
async fn an_import_that_is_not_there_is_named() {
    let node = Node::start();
    let lacks =
        wat::parse_str(r#"(module (import "env" "secret" (func)) (func (export "_start")))"#);
    refused(&node, &lacks.unwrap(), &["env::secret"]).await;
}

#[tokio::test]
async fn a_start_of_another_type_is_refused() {
    let node = Node::start();
    let odd = wat::parse_str(r#"(module (func (export "_start") (param i32)))"#).unwrap();
    refused(&node, &odd, &["an instance could not be made"]).await;
}

#[tokio::test]
async fn what_is_cut_short_or_none_of_webassembly_is_refused() {
    let node = Node::start();
    for whole in [command(COMMAND_ECHO), own(OWN_ECHO)] {
        for len in [8, 9, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            let error = node.deploy(&whole[..len]).await.expect_err("refused");
            assert!(error.kind == PrepareErrorKind::Code, "{len}: {error:?}");
        }
    }
    refused(&node, b"", &["not WebAssembly"]).await;
    refused(&node, b"#!/bin/sh\n", &["not WebAssembly"]).await;
    refused(&node, b"\0asm\x07\0\0\0", &["version"]).await;
}

#[tokio::test]
async fn a_hundred_megabytes_of_code_are_refused() {
    let node = Node::start();
    let mut large = command(COMMAND_ECHO);
    large.resize(100 << 20, 0);
    refused(&node, &large, &["104857600 bytes", "the most is"]).await;
}

#[tokio::test]
async fn memory_that_begins_beyond_its_limit_is_refused() {
    let node = Node::start();
    let large = wat::parse_str(r#"(module (memory 8192) (func (export "_start")))"#).unwrap();
    refused(&node, &large, &["raise the limit (--memory)"]).await;
}

#[tokio::test]
async fn a_trap_at_the_start_is_not_blamed_on_memory() {
    let node = Node::start();
    let traps = r#"(module (func $f unreachable) (start $f) (func (export "_start")))"#;
    let error = node
        .deploy(&wat::parse_str(traps).unwrap())
        .await
        .unwrap_err();
    let text = format!("{} {}", error.text(), error.output);
    assert!(text.contains("trapped while it started"), "{text}");
    assert!(!text.contains("memory"), "{text}");
}

#[tokio::test]
async fn compiled_code_is_never_taken_from_a_user() {
    let node = Node::start();
    node.deploy(&command(COMMAND_ECHO)).await.unwrap();
    let kept = std::fs::read_dir(node.data().join("wasm")).unwrap();
    let mut kept = kept.map(|entry| entry.unwrap().path());
    let artifact = kept.find(|path| path.extension().is_some_and(|e| e == "module"));
    let artifact = std::fs::read(artifact.unwrap()).unwrap();
    refused(&node, &artifact, &["not WebAssembly"]).await;
}

#[tokio::test]
async fn the_report_tells_of_the_pool() {
    let node = Node::start();
    let report = node.backend.report().await;
    assert_eq!(report.backend, "wasm");
    assert!(report.isolation[0].is_on, "{report:?}");
    assert!(report.runtimes[0].version.is_some());
}

#[tokio::test]
async fn a_module_whose_compilation_takes_too_much_memory_or_time_is_refused() {
    let limits = |memory_bytes_max, seconds_max| Limits {
        builds: faas::BuildLimits {
            memory_bytes_max,
            time: Duration::from_secs(seconds_max),
            ..faas::BuildLimits::default()
        },
        ..Limits::default()
    };
    // A function of half a megabyte, which compilers keep in memory many times over.
    let one = "(global.set $g (i32.mul (i32.add (global.get $g) (i32.const 7)) (global.get $g)))";
    let body = one.repeat(1 << 15);
    let heavy = wat::parse_str(format!(
        r#"(module (global $g (mut i32) (i32.const 1)) (func (export "_start") {body}))"#
    ));
    let heavy = heavy.unwrap();
    let node = Node::with_limits(limits(96 << 20, 600));
    refused(&node, &heavy, &["96 MiB", "split it"]).await;
    let ordinary = node.deploy(&command(COMMAND_ECHO)).await;
    assert!(ordinary.is_ok(), "{ordinary:?}");
    let node = Node::with_limits(limits(4 << 30, 0));
    refused(&node, &heavy, &["more than 0 s"]).await;
}
