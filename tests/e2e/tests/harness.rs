//! The harness itself: it notices what a node leaves behind.

use e2e::{Node, Place};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
#[should_panic(expected = "left behind")]
fn a_file_that_is_left_fails_the_test() {
    let node = Node::start();
    fs::write(node.place.data_dir().join("tmp/forgotten"), "").unwrap();
    node.stop();
}

#[test]
#[should_panic(expected = "left behind")]
fn a_cgroup_that_is_left_fails_the_test() {
    let node = Node::start();
    // In a folder of its own: nodes that start meanwhile remove what lies beside their own.
    let parents = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let folders = parents.map(|parent| Path::new(parent).join(format!("e2e-{}", node.pid())));
    let own = folders.iter().find(|folder| fs::create_dir(folder).is_ok());
    let own = own.expect("run the tests as root: this user can't make cgroups");
    let left = own.join(format!("tinyfaas-{}-0", node.pid()));
    fs::create_dir(&left).expect("a cgroup may be made in one's own");
    let made = Removed(vec![left, own.clone()]);
    node.stop();
    drop(made);
}

#[test]
#[should_panic(expected = "printed no addresses")]
fn a_node_that_does_not_start_fails_the_test() {
    let _node = Node::start_at(&Place::new(), &["--http", "nowhere:0:0"]);
}

/// Folders that are removed at the end, even after a failure.
struct Removed(Vec<PathBuf>);

impl Drop for Removed {
    fn drop(&mut self) {
        for folder in &self.0 {
            // A test that fails here must not hide why it failed.
            let _is_gone = fs::remove_dir(folder).is_ok();
        }
    }
}
