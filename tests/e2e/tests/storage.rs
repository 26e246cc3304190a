//! Disks that are full or read-only, under the whole program: it starts, serves what it has, and says
//! what to do.

use e2e::{Answer, Disk, Function, Node, Place, until};

/// A function whose dependency lies in its own folder.
fn with_dependency(name: &str) -> Function {
    Function::new(name, "nodejs")
        .file(
            "package.json",
            r#"{"name": "fn", "version": "1.0.0", "main": "index.js",
                "dependencies": {"units": "file:./units"}}"#,
        )
        .file(
            "index.js",
            "const u = require('units'); module.exports = (req, res) => res.send(u.text)",
        )
        .file(
            "units/package.json",
            r#"{"name": "units", "version": "1.0.0", "main": "i.js"}"#,
        )
        .file("units/i.js", format!("exports.text = {name:?}"))
}

fn plain(name: &str) -> Function {
    Function::python(name, &format!("def fn(input): return {name:?}\n"))
}

/// A disk with the data directory of a node that has both kinds of functions.
fn populated() -> (Place, Disk, Node) {
    let place = Place::new();
    let disk = Disk::new(&place.folder().join("medium"), &place.data_dir());
    let disk = disk.expect("this test mounts ext4: run it as root where loop devices are");
    let node = Node::start_at(&place, &[]);
    node.deploy(&plain("plain"));
    node.deploy(&with_dependency("built"));
    (place, disk, node)
}

fn assert_serves(node: &Node, names: &[&str]) {
    for name in names {
        let answer = node.post(name, b"").expect_success();
        assert_eq!(answer.text(), *name);
    }
}

/// What a request that needs the disk is told.
fn assert_refused(answer: &Answer, words: [&str; 2]) {
    let text = answer.text();
    assert_eq!(answer.status, 507, "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

fn wait_until_unready(node: &Node, word: &str) {
    until("readiness tells of the disk", || {
        let answer = node.manage("GET", "/readyz", b"");
        (answer.status == 503 && answer.text().contains(word)).then_some(())
    });
}

/// Fills it until the node has noticed: space that was given back shortly before comes late.
fn wait_until_full(node: &Node, disk: &Disk) {
    until("readiness tells of the full disk", || {
        drop(disk.fill_but(0));
        let answer = node.manage("GET", "/readyz", b"");
        (answer.status == 503 && answer.text().contains("full")).then_some(())
    });
}

fn wait_until_ready(node: &Node) {
    until("readiness", || {
        let answer = node.manage("GET", "/readyz", b"");
        (answer.status == 200).then_some(())
    });
}

fn delete(node: &Node, name: &str) -> Answer {
    node.manage("DELETE", &format!("/v1/functions/{name}"), b"")
}

#[test]
fn a_read_only_disk_starts_serves_and_says_what_to_do() {
    let (place, disk, node) = populated();
    node.kill();
    disk.set_read_only(true);
    let node = Node::start_at(&place, &[]);
    assert_serves(&node, &["plain", "built"]);
    wait_until_unready(&node, "read-only");
    for function in [plain("new"), with_dependency("new")] {
        assert_refused(
            &node.try_deploy(&function),
            ["read-only", "mount it writable"],
        );
    }
    assert_refused(&delete(&node, "plain"), ["read-only", "mount it writable"]);
    assert_serves(&node, &["plain", "built"]);
    disk.set_read_only(false);
    wait_until_ready(&node);
    node.deploy(&with_dependency("new"));
    assert_serves(&node, &["new"]);
    assert_eq!(delete(&node, "plain").status, 204);
    node.kill();
}

#[test]
fn a_full_disk_starts_serves_deletes_and_says_what_to_do() {
    let (place, disk, node) = populated();
    let filler = disk.fill_but(0);
    wait_until_full(&node, &disk);
    node.kill();
    // What was open until then gave some space back.
    drop(disk.fill_but(0));
    let node = Node::start_at(&place, &[]);
    assert_serves(&node, &["plain", "built"]);
    wait_until_full(&node, &disk);
    for function in [plain("new"), with_dependency("new")] {
        assert_refused(&node.try_deploy(&function), ["full", "delete functions"]);
    }
    assert_eq!(delete(&node, "plain").status, 204);
    node.kill();
    let node = Node::start_at(&place, &[]);
    assert_eq!(node.post("plain", b"").status, 404);
    assert_serves(&node, &["built"]);
    std::fs::remove_file(filler).expect("it is there");
    wait_until_ready(&node);
    node.deploy(&with_dependency("new"));
    assert_serves(&node, &["built", "new"]);
    node.kill();
}

#[test]
fn a_build_that_has_no_room_is_refused_and_a_function_without_one_is_not() {
    let (_place, disk, node) = populated();
    let filler = disk.fill_but(64 << 20);
    let words = ["MiB free", "delete functions"];
    assert_refused(&node.try_deploy(&with_dependency("new")), words);
    wait_until_ready(&node);
    node.deploy(&plain("new"));
    assert_serves(&node, &["plain", "built", "new"]);
    std::fs::remove_file(filler).expect("it is there");
    node.deploy(&with_dependency("new"));
    assert_serves(&node, &["new"]);
    node.kill();
}
