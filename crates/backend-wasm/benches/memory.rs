//! What a function that is deployed and was called takes, over a thousand of them.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench that tells what it measured, and ends where it can not go on"
)]

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/functions/node.rs"]
mod node;

use node::{LONG, Node, OWN_ECHO, invocation, own};
use std::path::Path;

const FUNCTIONS: usize = 1000;

#[tokio::main]
async fn main() {
    let example = |path: &str| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        std::fs::read(examples.join(path)).unwrap()
    };
    println!("kB that one of {FUNCTIONS} functions adds, deployed and called once");
    println!("{:28} {:>10} {:>10}", "", "resident", "of it ours");
    for (name, binary) in [
        ("our own world, WAT", own(OWN_ECHO)),
        ("preview 1 command, C", example("echo-wasm/fn.wasm")),
        (
            "wasi:http component, Rust",
            example("echo-http-wasm/fn.wasm"),
        ),
    ] {
        let node = Node::start();
        // What the first function brings along is not the others'.
        let mut functions = vec![node.deploy(&numbered(&binary, 0)).await.unwrap()];
        call(&functions[0]).await;
        let before = Resident::now();
        for number in 1..=FUNCTIONS {
            let function = node.deploy(&numbered(&binary, number)).await.unwrap();
            call(&function).await;
            functions.push(function);
        }
        let after = Resident::now();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let each = |after: usize, before: usize| (after as f64 - before as f64) / FUNCTIONS as f64;
        println!(
            "{name:28} {:>10.1} {:>10.1}",
            each(after.all, before.all),
            each(after.anonymous, before.anonymous)
        );
    }
}

async fn call(function: &node::Deployed) {
    let sent = invocation(&[b'x'; 64][..]);
    let reply = function.invoke(&sent, LONG).await.unwrap();
    assert_eq!(reply.payload, sent.payload);
}

/// The same code with another digest: a custom section that has the number.
fn numbered(binary: &[u8], number: usize) -> Vec<u8> {
    let mut numbered = binary.to_vec();
    numbered.extend([0, 9, 4]);
    numbered.extend(b"numb");
    numbered.extend(u32::try_from(number).unwrap().to_le_bytes());
    numbered
}

/// Memory of this process in kB.
struct Resident {
    all: usize,
    /// Without what is mapped from files, which the system can drop at any time.
    anonymous: usize,
}

impl Resident {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let kilobytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            all: kilobytes("VmRSS:"),
            anonymous: kilobytes("RssAnon:"),
        }
    }
}
