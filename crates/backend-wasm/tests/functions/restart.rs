//! What is kept over a restart.

use super::node::{Node, OWN_ECHO, call, command, own};
use faas::{Backend, Limits, PrepareErrorKind};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use tokio_util::task::TaskTracker;

/// The compiled files without their checksums, and the inode of each: a new one is a new file.
fn kept(node: &Node) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(node.data().join("wasm")).unwrap();
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.path(), entry.metadata().unwrap().ino())
    };
    let is_code = |(path, _): &(PathBuf, u64)| path.extension().is_some_and(|e| e != "sha256");
    entries.map(entry).filter(is_code).collect()
}

#[tokio::test]
async fn a_restart_compiles_nothing() {
    let mut node = Node::start();
    node.deploy(&own(OWN_ECHO)).await.unwrap();
    let before = kept(&node);
    assert_eq!(before.len(), 1);
    node.restart();
    let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
    assert_eq!(call(&echo, "again").await.unwrap().payload, "again");
    assert_eq!(kept(&node), before);
}

#[tokio::test]
async fn code_that_was_cut_short_on_disk_is_compiled_again() {
    let mut node = Node::start();
    node.deploy(&own(OWN_ECHO)).await.unwrap();
    let (path, _) = kept(&node).remove(0);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    node.restart();
    let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
    assert_eq!(call(&echo, "again").await.unwrap().payload, "again");
}

#[tokio::test]
async fn code_of_another_engine_is_dropped() {
    let mut node = Node::start();
    let stale = node.data().join("wasm/00-0123456789abcdef.module");
    fs::write(&stale, "old").unwrap();
    node.restart();
    assert!(!stale.exists());
}

#[tokio::test]
async fn code_with_a_sector_of_zeros_is_compiled_again() {
    let mut node = Node::start();
    node.deploy(&own(OWN_ECHO)).await.unwrap();
    let (path, _) = kept(&node).remove(0);
    let whole = fs::read(&path).unwrap();
    // A disk forgets a sector here and there: each of them once.
    for sector in whole.chunks(512).enumerate().map(|(number, _)| number) {
        let mut damaged = whole.clone();
        let end = whole.len().min((sector + 1) * 512);
        damaged[sector * 512..end].fill(0);
        if damaged == whole {
            continue;
        }
        fs::write(&path, &damaged).unwrap();
        node.restart();
        let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
        assert_eq!(call(&echo, "again").await.unwrap().payload, "again");
        assert_eq!(fs::read(&path).unwrap().len(), whole.len());
        if sector > 40 {
            break;
        }
    }
}

#[tokio::test]
async fn a_folder_among_the_kept_code_stops_nothing() {
    let mut node = Node::start();
    node.deploy(&own(OWN_ECHO)).await.unwrap();
    let (path, _) = kept(&node).remove(0);
    fs::remove_file(&path).unwrap();
    for folder in [path, node.data().join("wasm/lost+found")] {
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inside"), "x").unwrap();
    }
    node.restart();
    for module in [own(OWN_ECHO), command("")] {
        node.deploy(&module).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compiled_already_does_not_wait_for_another_compilation() {
    let node = std::sync::Arc::new(Node::start());
    node.deploy(&own(OWN_ECHO)).await.unwrap();
    let one = "(global.set $g (i32.mul (i32.add (global.get $g) (i32.const 7)) (global.get $g)))";
    let body = one.repeat(1 << 16);
    let heavy = wat::parse_str(format!(
        r#"(module (global $g (mut i32) (i32.const 1)) (func (export "_start") {body}))"#
    ));
    let (heavy, other) = (heavy.unwrap(), std::sync::Arc::clone(&node));
    let compiling = TaskTracker::new().spawn(async move { other.deploy(&heavy).await.map(drop) });
    // Its file is there as soon as it has its turn.
    while fs::read_dir(node.data().join("wasm")).unwrap().count() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        assert!(!compiling.is_finished(), "the control compiles for long");
    }
    let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
    assert!(!compiling.is_finished(), "it did not wait");
    assert_eq!(call(&echo, "quick").await.unwrap().payload, "quick");
    compiling.abort();
}

/// Bounds under which every disk counts as full.
fn full_disk() -> Limits {
    let mut limits = Limits::default();
    limits.wasm.free_bytes_min = u64::MAX;
    limits
}

async fn assert_served_from_memory(node: &Node) {
    let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
    assert_eq!(
        call(&echo, "all the same").await.unwrap().payload,
        "all the same"
    );
    assert!(node.log_text().contains("compiled in memory"));
    let report = node.backend.report().await;
    let detail = &report.runtimes[0].detail;
    assert!(detail.contains("compiled code are in memory"), "{detail}");
    drop(echo);
    let report = node.backend.report().await;
    let detail = &report.runtimes[0].detail;
    assert!(!detail.contains("in memory"), "it was given back: {detail}");
}

#[tokio::test]
async fn code_that_the_disk_has_no_room_for_is_compiled_into_memory() {
    let mut node = Node::with_limits(full_disk());
    assert_served_from_memory(&node).await;
    assert!(kept(&node).is_empty());
    // With room it is kept, also while a function still has it in memory.
    node.restart();
    node.deploy(&own(OWN_ECHO)).await.unwrap();
    assert_eq!(kept(&node).len(), 1);
    assert!(!node.log_text().ends_with("takes no writes\n"));
}

#[tokio::test]
async fn code_is_compiled_into_memory_where_the_folder_can_not_be_used() {
    let mut node = Node::start();
    let folder = node.data().join("wasm");
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "not a folder").unwrap();
    node.restart();
    assert_served_from_memory(&node).await;
}

#[tokio::test]
async fn compiled_code_takes_no_more_memory_than_it_may() {
    let mut limits = full_disk();
    limits.wasm.code_in_memory_bytes_max = 100 << 10;
    let node = Node::with_limits(limits);
    let mut served = Vec::new();
    let refused = loop {
        // Each is another module.
        let module = format!(
            "(module (memory 1) (func (export \"_start\")) (data (i32.const {}) \"x\"))",
            served.len()
        );
        match node.deploy(&wat::parse_str(module).unwrap()).await {
            Ok(function) => served.push(function),
            Err(error) => break error,
        }
    };
    assert!(refused.kind == PrepareErrorKind::NoRoom, "{refused}");
    assert!(!served.is_empty(), "the control");
    for function in &served {
        call(function, "").await.unwrap();
    }
    // What a function no longer uses makes room for another.
    served.clear();
    node.deploy(&own(OWN_ECHO)).await.unwrap();
}

#[test]
fn the_compiler_tells_of_a_result_that_could_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("module");
    fs::write(&module, command("")).unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let compiler = std::process::Command::new(env!("CARGO_BIN_EXE_compile-webassembly"))
        .args([
            "compile-webassembly",
            "33554432",
            "1073741824",
            "60",
            "1073741824",
        ])
        .stdin(fs::File::open(&module).unwrap())
        .stdout(full)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&compiler.stderr);
    assert_eq!(compiler.status.code(), Some(3), "{said}");
    assert!(said.contains("No space left"), "{said}");
}
