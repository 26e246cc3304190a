//! Disks that are full, read-only or damaged, and what is made of them.

use crate::node::{Answer, Node, Setup, wait_for};
use crate::pack;
use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Set in a process that has mounts of its own.
const INSIDE: &str = "MANAGEMENT_TEST_OWN_MOUNTS";

/// Runs the test of that name again where it may mount; says whether it is there already.
fn has_own_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success() && text(&output.stdout).contains(" 1 passed"),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    false
}

/// A folder whose `data` is a disk of 8 MiB.
fn small_disk() -> Arc<TempDir> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    mount(&["-t", "tmpfs", "-o", "size=8m,mode=700", "none"], &data);
    Arc::new(dir)
}

fn mount(words: &[&str], place: &Path) {
    let status = Command::new("mount").args(words).arg(place).status();
    assert!(status.unwrap().success(), "mount {words:?}");
}

/// Takes what is free.
fn fill(data_dir: &Path) -> PathBuf {
    let path = data_dir.join("filler");
    let written = fs::write(&path, vec![1; 16 << 20]);
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    path
}

fn reopen(dir: Arc<TempDir>) -> Node {
    Node::try_with(Setup::default(), dir).unwrap()
}

/// Text that does not shrink when it is packed.
fn noise(bytes: usize) -> String {
    let words = (0..).map(|n: u32| format!("{:08x}", n.wrapping_mul(2_654_435_761)));
    words.take(bytes / 8).collect()
}

fn wait_until_ready(node: &Node) {
    wait_for("readiness", || node.get("/readyz").status == 200);
}

#[test]
fn a_full_disk_starts_serves_and_deletes_and_says_what_to_do() {
    if !has_own_mounts("storage::a_full_disk_starts_serves_and_deletes_and_says_what_to_do") {
        return;
    }
    let node = Node::try_with(Setup::default(), small_disk()).unwrap();
    for name in ["stays", "goes"] {
        node.put(&format!("/v1/functions/{name}"), &pack::function(name));
    }
    let data_dir = node.data_dir();
    let mut filler = fill(&data_dir);
    let refused = |answer: &Answer| {
        assert_eq!(answer.status, 507, "{}", answer.text);
        assert!(answer.text.contains("is full"), "{}", answer.text);
        assert!(answer.text.contains("free space"), "{}", answer.text);
    };
    refused(&node.put("/v1/functions/new", &pack::function(&noise(1 << 20))));
    refused(&node.put("/v1/functions/small", &pack::function("small")));
    wait_for("the disk to be known as full", || {
        let answer = node.get("/readyz");
        answer.status == 503 && answer.text.contains("is full")
    });
    assert_eq!(node.invoke("stays").unwrap(), "stays");
    let node = reopen(node.kill());
    assert_eq!(node.invoke("stays").unwrap(), "stays");
    assert_eq!(node.invoke("goes").unwrap(), "goes");
    refused(&node.put("/v1/functions/new", &pack::function(&noise(1 << 20))));
    // Whatever else gave some space back.
    fs::remove_file(&filler).unwrap();
    filler = fill(&data_dir);
    let answer = node.delete("/v1/functions/goes");
    assert_eq!(answer.status, 204, "{}", answer.text);
    let node = reopen(node.kill());
    assert_eq!(node.get("/list").text, "stays\n");
    assert_eq!(node.invoke("stays").unwrap(), "stays");
    fs::remove_file(filler).unwrap();
    wait_until_ready(&node);
    let answer = node.put("/v1/functions/new", &pack::function("new"));
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(node.invoke("new").unwrap(), "new");
}

#[test]
fn a_read_only_disk_starts_and_serves_and_says_what_to_do() {
    if !has_own_mounts("storage::a_read_only_disk_starts_and_serves_and_says_what_to_do") {
        return;
    }
    let node = Node::try_with(Setup::default(), small_disk()).unwrap();
    node.put("/v1/functions/f", &pack::function("served"));
    let data_dir = node.data_dir();
    let dir = node.kill();
    // The file is closed a moment after.
    wait_for("the disk to be unused", || {
        let remount = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&data_dir)
            .output();
        remount.unwrap().status.success()
    });
    let node = reopen(dir);
    assert_eq!(node.invoke("f").unwrap(), "served");
    let refused = |answer: &Answer| {
        assert_eq!(answer.status, 507, "{}", answer.text);
        assert!(answer.text.contains("read-only"), "{}", answer.text);
    };
    refused(&node.put("/v1/functions/new", &pack::function("new")));
    refused(&node.delete("/v1/functions/f"));
    assert_eq!(node.get("/readyz").status, 503);
    assert_eq!(node.invoke("f").unwrap(), "served");
    mount(&["-o", "remount,rw"], &data_dir);
    wait_until_ready(&node);
    let answer = node.put("/v1/functions/new", &pack::function("new"));
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(node.delete("/v1/functions/f").status, 204);
    let node = reopen(node.kill());
    assert_eq!(node.get("/list").text, "new\n");
}

/// A node with a few functions, killed.
fn killed(names: &[&str]) -> Arc<TempDir> {
    let node = Node::start();
    for name in names {
        let path = format!("/v1/functions/{}?var=OF={name}", name.replace('/', "%2F"));
        assert_eq!(node.put(&path, &pack::function(name)).status, 201);
    }
    node.kill()
}

fn database(dir: &TempDir) -> Connection {
    let database = Connection::open(dir.path().join("data/tinyfaas.db")).unwrap();
    // The node that was killed closes it a moment after.
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    database
}

fn files_of_the_store(dir: &TempDir) -> Vec<PathBuf> {
    drop(database(dir).query_row("SELECT count(*) FROM functions", [], |_| Ok(())));
    let entries = fs::read_dir(dir.path().join("data")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_of_store = |path: &PathBuf| path.display().to_string().contains("tinyfaas.db");
    paths.filter(is_of_store).collect()
}

#[test]
fn a_lost_store_is_rebuilt_with_every_setting_from_what_lies_beside_the_code() {
    let check = |lose: &dyn Fn(&Path)| {
        let dir = killed(&["a", "b/c"]);
        for path in files_of_the_store(&dir) {
            lose(&path);
        }
        for _start in 0..2 {
            let node = reopen(Arc::clone(&dir));
            for name in ["a", "b/c"] {
                assert_eq!(node.invoke(name).unwrap(), name);
            }
            let shape = node.get("/v1/functions/b%2Fc").json();
            assert_eq!(shape["envs"], serde_json::json!(["OF"]));
            node.wait_for_codes(2);
            drop(node.kill());
        }
    };
    check(&|path| fs::remove_file(path).unwrap());
    check(&|path| fs::write(path, "").unwrap());
    check(&|path| fs::write(path, "no database".repeat(1000)).unwrap());
}

#[test]
fn a_damaged_store_is_set_aside_and_loses_no_function() {
    let dir = killed(&["a", "b"]);
    let database = files_of_the_store(&dir);
    let database = database.iter().find(|path| path.ends_with("tinyfaas.db"));
    // A page of the disk that was never written.
    let mut bytes = fs::read(database.unwrap()).unwrap();
    let last = bytes.len() - 4096;
    bytes[last..].fill(0);
    fs::write(database.unwrap(), bytes).unwrap();
    let node = reopen(dir);
    assert_eq!(node.invoke("a").unwrap(), "a");
    assert_eq!(node.invoke("b").unwrap(), "b");
    let entries = fs::read_dir(node.data_dir()).unwrap();
    let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.starts_with("tinyfaas.db.damaged-")));
}

#[test]
fn code_that_a_lost_store_told_of_is_kept_where_there_is_no_manifest() {
    let dir = killed(&["a"]);
    for path in files_of_the_store(&dir) {
        fs::remove_file(path).unwrap();
    }
    fs::remove_dir_all(dir.path().join("data/manifests")).unwrap();
    let node = reopen(dir);
    assert_eq!(node.get("/list").text, "");
    let mut kept = fs::read_dir(node.data_dir().join("lost-code")).unwrap();
    let kept = kept.next().unwrap().unwrap().path();
    assert_eq!(fs::read(kept.join("fn.py")).unwrap(), b"a");
}

/// Changes the stored settings of a function, in the store and its manifest.
fn store_settings(dir: &TempDir, name: &str, settings: &str) {
    let update = "UPDATE functions SET settings = ?2 WHERE name = ?1";
    let changed = database(dir).execute(update, [name, settings]).unwrap();
    assert_eq!(changed, 1);
    for entry in fs::read_dir(dir.path().join("data/manifests")).unwrap() {
        let path = entry.unwrap().path();
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if manifest["name"] == name {
            manifest["settings"] = settings.into();
            fs::write(path, manifest.to_string()).unwrap();
        }
    }
}

#[test]
fn folders_in_the_place_of_files_are_set_aside() {
    let replace = |path: &Path| {
        drop(fs::remove_file(path));
        fs::create_dir_all(path.join("something")).unwrap();
    };
    let mut dir = killed(&["a"]);
    for place in ["manifests", "reserve", "store"] {
        let places = match place {
            "manifests" => fs::read_dir(dir.path().join("data/manifests"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect(),
            "store" => files_of_the_store(&dir),
            file => vec![dir.path().join("data").join(file)],
        };
        places.iter().for_each(|path| replace(path));
        let node = reopen(dir);
        wait_until_ready(&node);
        assert_eq!(node.invoke("a").unwrap(), "a", "{place}");
        let redeployed = node.put("/v1/functions/a", &pack::function("a"));
        assert_eq!(redeployed.status, 200, "{place}");
        dir = node.kill();
    }
    // A file in the place of their folder is set aside too.
    let manifests = dir.path().join("data/manifests");
    fs::remove_dir_all(&manifests).unwrap();
    fs::write(&manifests, "x").unwrap();
    let node = reopen(dir);
    assert_eq!(node.invoke("a").unwrap(), "a");
}

#[test]
fn one_unreadable_record_stops_neither_the_node_nor_other_functions() {
    let dir = killed(&["broken", "newer", "whole"]);
    // What stands in an error's text of what is stored, as variables may be secrets.
    let secret = r#"{"version":1,"runtime":"python3","handlers":"s3cret"}"#;
    store_settings(&dir, "broken", secret);
    let newer = r#"{"version":4711,"languages":["wasm"]}"#;
    store_settings(&dir, "newer", newer);
    let node = reopen(dir);
    wait_until_ready(&node);
    assert_eq!(node.invoke("whole").unwrap(), "whole");
    let check = |name: &str, words: &str| {
        let shape = node.get(&format!("/v1/functions/{name}")).json();
        assert_eq!(shape["state"], "failed");
        assert_eq!(shape["runtime"], "unknown");
        let failure = shape["failure"].as_str().unwrap();
        assert!(failure.contains(words), "{failure}");
        let told = node.invoke(name).unwrap_err().to_string();
        assert!(told.contains("can't be used"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    };
    check("broken", "can't be read");
    check("broken", "s3cret");
    check("newer", "a newer tinyfaas stored it");
    node.wait_for_codes(3);
    assert_eq!(
        node.put("/v1/functions/broken", &pack::function("mended"))
            .status,
        200
    );
    assert_eq!(node.invoke("broken").unwrap(), "mended");
    let dir = node.kill();
    let select = "SELECT settings FROM functions WHERE name = 'newer'";
    let kept: String = database(&dir)
        .query_row(select, [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, newer);
    let node = reopen(dir);
    assert_eq!(node.delete("/v1/functions/newer").status, 204);
    assert_eq!(node.get("/list").text, "broken\nwhole\n");
}

#[test]
fn a_record_of_the_store_alone_gets_its_manifest() {
    let dir = killed(&["a"]);
    fs::remove_dir_all(dir.path().join("data/manifests")).unwrap();
    let node = reopen(dir);
    assert_eq!(node.invoke("a").unwrap(), "a");
    assert_eq!(
        fs::read_dir(node.data_dir().join("manifests"))
            .unwrap()
            .count(),
        1
    );
    node.delete("/v1/functions/a");
    assert_eq!(
        fs::read_dir(node.data_dir().join("manifests"))
            .unwrap()
            .count(),
        0
    );
    let node = reopen(node.kill());
    assert_eq!(node.get("/list").text, "");
}

/// What a backup of the node brings back elsewhere, and the names that it says are not in it.
fn backed_up_and_restored(node: &Node) -> (Node, Vec<String>) {
    let url = format!("http://{}/v1/backup", node.addr);
    let mut response = ureq::get(&url).call().unwrap();
    let left_out = response.headers().get_all("x-tinyfaas-left-out").iter();
    let left_out = left_out.map(|name| name.to_str().unwrap().to_owned());
    let left_out = left_out.collect();
    let backup = response.body_mut().read_to_vec().unwrap();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    management::restore(&backup[..], &dir.path().join("data")).unwrap();
    let lock = dir.path().join("data/lock");
    assert!(!lock.exists(), "the restore left a file of its own");
    (reopen(dir), left_out)
}

#[test]
fn a_backup_leaves_out_damaged_functions_says_which_and_has_all_others() {
    let node = Node::start();
    for name in ["a/changed", "gone", "unreadable", "whole"] {
        let path = format!("/v1/functions/{}", name.replace('/', "%2F"));
        assert_eq!(node.put(&path, &pack::function(name)).status, 201);
    }
    let (_, left_out) = backed_up_and_restored(&node);
    assert!(left_out.is_empty(), "{left_out:?}");
    let code_of = |name: &str| {
        let shape = node.get(&format!("/v1/functions/{name}")).json();
        node.data_dir()
            .join("code")
            .join(shape["digest"].as_str().unwrap())
    };
    let (changed, gone) = (code_of("a%2Fchanged"), code_of("gone"));
    let dir = node.kill();
    store_settings(&dir, "unreadable", "{\"runtime\":");
    fs::write(changed.join("fn.py"), "wrong").unwrap();
    fs::remove_dir_all(gone).unwrap();
    let (other, left_out) = backed_up_and_restored(&reopen(dir));
    assert_eq!(left_out, ["a/changed", "gone", "unreadable"]);
    wait_until_ready(&other);
    assert_eq!(other.get("/list").text, "whole\n");
    assert_eq!(other.invoke("whole").unwrap(), "whole");
}
