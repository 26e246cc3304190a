//! Disks that are full or read-only, under the whole program: it starts, serves what it has, and says
//! what to do.

use e2e::{Answer, Disk, Function, Node, Place, folder, until};

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

/// Flips a bit of every file of that name below a folder, at the same size and time; tells of how
/// many.
fn flip_a_bit(folder: &std::path::Path, name: &str) -> usize {
    let entries = std::fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let flipped = paths.map(|path| {
        if path.is_symlink() {
            return 0;
        }
        if path.is_dir() {
            return flip_a_bit(&path, name);
        }
        if path.file_name() != Some(name.as_ref()) {
            return 0;
        }
        let modified = path.metadata().and_then(|metadata| metadata.modified());
        let mut contents = std::fs::read(&path).expect("it can be read");
        let last = contents.len() - 2;
        contents[last] ^= 1;
        std::fs::write(&path, contents).expect("it can be written");
        let file = std::fs::File::options().write(true).open(&path);
        let file = file.expect("it can be opened");
        file.set_modified(modified.expect("it has a time"))
            .expect("it can be set");
        1
    });
    flipped.sum()
}

#[test]
fn a_build_that_changed_on_the_disk_at_the_same_size_is_built_again() {
    let place = Place::new();
    let node = Node::start_at(&place, &[]);
    node.deploy(&with_dependency("built"));
    node.stop();
    let kept = place.data_dir().join("builds/kept");
    assert!(
        flip_a_bit(&kept, "i.js") > 0,
        "the build has the dependency"
    );
    let node = Node::start_at(&place, &[]);
    assert_serves(&node, &["built"]);
    assert!(
        node.log().contains("a kept build is damaged"),
        "{}",
        node.log()
    );
    node.stop();
}

/// Takes away what was compiled, as an update of the engine or a damaged file does.
fn forget_compiled(place: &Place) {
    let compiled = place.data_dir().join("wasm");
    std::fs::remove_dir_all(compiled).expect("it was compiled");
}

/// The function serves, and the node says that its compiled code is lost with it.
fn assert_serves_from_memory(node: &Node) {
    assert_eq!(node.post("echo", b"still here").text(), "still here");
    let status = node.manage("GET", "/v1/status", b"").expect_success();
    assert!(
        status.text().contains("compiled code are in memory"),
        "{}",
        status.text()
    );
}

#[test]
fn a_module_is_compiled_into_memory_where_the_disk_is_full_or_read_only() {
    let (place, disk, node) = populated();
    let module = std::fs::read(folder().join("../../examples/echo-wasm/fn.wasm"));
    let module = module.expect("the example is there");
    let echo = Function::new("echo", "wasm").file("fn.wasm", module);
    node.deploy(&echo);
    node.kill();
    forget_compiled(&place);
    disk.set_read_only(true);
    let node = Node::start_at(&place, &[]);
    assert_serves_from_memory(&node);
    wait_until_unready(&node, "read-only");
    node.kill();
    disk.set_read_only(false);
    let filler = disk.fill_but(0);
    let node = Node::start_at(&place, &[]);
    wait_until_full(&node, &disk);
    assert_serves_from_memory(&node);
    std::fs::remove_file(filler).expect("it is there");
    wait_until_ready(&node);
    // With room it is kept, and the next start compiles nothing.
    node.deploy(&echo);
    node.kill();
    let node = Node::start_at(&place, &[]);
    assert_eq!(node.post("echo", b"kept").text(), "kept");
    let status = node.manage("GET", "/v1/status", b"").expect_success();
    assert!(!status.text().contains("in memory"), "{}", status.text());
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

/// Writes until the disk is full, into a file that nobody finds: it has no name.
const HIDDEN: &str = "
import os
file = os.open('hidden', os.O_CREAT | os.O_WRONLY)
os.unlink('hidden')
while True:
    os.write(file, bytes(1 << 20))
";

#[test]
fn a_build_that_hides_what_it_writes_is_ended_by_the_disks_space() {
    let (_place, disk, node) = populated();
    // More than a build needs to begin, and less than its bound.
    let filler = disk.fill_but(512 << 20);
    let words = ["nearly full", "delete functions"];
    let hiding = Function::building("hiding", HIDDEN);
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| node.try_deploy(&hiding));
        while !deploying.is_finished() {
            assert_serves(&node, &["plain", "built"]);
        }
        assert_refused(&deploying.join().expect("it is answered"), words);
    });
    until("what it wrote is gone", || {
        (disk.free_bytes() > 500 << 20).then_some(())
    });
    std::fs::remove_file(filler).expect("it is there");
    node.deploy(&with_dependency("new"));
    assert_serves(&node, &["plain", "built", "new"]);
    node.kill();
}
