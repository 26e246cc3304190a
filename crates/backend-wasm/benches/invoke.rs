//! What one call costs inside the process, from the invocation to the reply, on one thread.

#![expect(clippy::unwrap_used, reason = "a bench that can't go on ends")]

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/functions/node.rs"]
mod node;

use criterion::{Criterion, criterion_group, criterion_main};
use node::{LONG, Node, OWN_ECHO, invocation, own};
use std::path::Path;

/// What a caller sends.
const PAYLOAD: [u8; 64] = [b'x'; 64];

fn calls(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let example = |path: &str| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        std::fs::read(examples.join(path)).unwrap()
    };
    let functions = [
        ("our own world, WAT", own(OWN_ECHO)),
        ("preview 1 command, C", example("echo-wasm/fn.wasm")),
        (
            "wasi:http component, Rust",
            example("echo-http-wasm/fn.wasm"),
        ),
    ];
    let node = Node::start();
    let mut group = criterion.benchmark_group("invoke");
    for (name, binary) in functions {
        let handler = runtime.block_on(node.deploy(&binary)).unwrap();
        let sent = invocation(&PAYLOAD[..]);
        let reply = runtime.block_on(handler.invoke(&sent, LONG)).unwrap();
        assert_eq!(reply.payload, &PAYLOAD[..], "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(handler.invoke(&sent, LONG)).unwrap());
        });
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
