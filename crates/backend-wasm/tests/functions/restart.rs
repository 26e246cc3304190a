//! What is kept over a restart.

use super::node::{Node, OWN_ECHO, call, own};
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

fn kept(node: &Node) -> Vec<(PathBuf, SystemTime)> {
    let entries = fs::read_dir(node.data().join("wasm")).unwrap();
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.path(), entry.metadata().unwrap().modified().unwrap())
    };
    entries.map(entry).collect()
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
async fn code_that_was_cut_short_on_disk_is_compiled_anew() {
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
