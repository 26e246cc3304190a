//! The harness itself: it notices what a node leaves behind.

use e2e::{Node, Place};

#[test]
#[should_panic(expected = "left behind")]
fn a_file_that_is_left_fails_the_test() {
    let node = Node::start();
    std::fs::write(node.place.data_dir().join("tmp/forgotten"), "").unwrap();
    node.stop();
}

#[test]
#[should_panic(expected = "left behind")]
fn a_cgroup_that_is_left_fails_the_test() {
    let node = Node::start();
    let name = format!("tinyfaas-{}-0", node.pid());
    let parents = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let folders = parents.map(|parent| std::path::Path::new(parent).join(&name));
    let made = folders
        .iter()
        .find(|folder| std::fs::create_dir(folder).is_ok());
    // Who may not make one has nothing to leave: the panic is this test's own.
    let made = Removed(
        made.expect("left behind: nothing, cgroups can't be made here")
            .clone(),
    );
    node.stop();
    drop(made);
}

#[test]
#[should_panic(expected = "printed no addresses")]
fn a_node_that_does_not_start_fails_the_test() {
    let _node = Node::start_at(&Place::new(), &["--http", "nowhere:0:0"]);
}

/// A folder that is removed at the end, come what may.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // A test that fails here must not hide why it failed.
        let _is_gone = std::fs::remove_dir(&self.0).is_ok();
    }
}
