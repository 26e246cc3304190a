//! What survives: restarts, kills, damage.

use crate::backend::InProcess;
use crate::node::{Node, Setup, wait_for};
use crate::pack;
use faas::Limits;
use management::OpenError;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

fn reopen(dir: Arc<TempDir>) -> Node {
    Node::try_with(Setup::default(), dir).unwrap()
}

#[test]
fn functions_come_back_with_their_settings_after_a_kill() {
    let node = Node::start();
    let query = "threads=2&var=A%3D1&deadline=5s";
    node.put(
        &format!("/v1/functions/a%2Fb?{query}"),
        &pack::function("1"),
    );
    node.put("/v1/functions/gone", &pack::function("2"));
    node.delete("/v1/functions/gone");
    let before = node.get("/v1/functions/a%2Fb").json();
    let node = reopen(node.kill());
    // An early call waits for its function.
    assert_eq!(node.invoke("a/b").unwrap(), "1");
    wait_for("readiness", || node.get("/readyz").status == 200);
    let after = node.get("/v1/functions/a%2Fb").json();
    for member in [
        "digest",
        "deployed_at",
        "envs",
        "limits",
        "files",
        "packed_bytes",
        "runtime",
    ] {
        assert_eq!(before[member], after[member], "{member}");
    }
    assert_eq!(after["handlers"]["wanted"], 2);
    assert_eq!(node.get("/list").text, "a/b\n");
    node.wait_for_codes(1);
}

#[test]
fn an_acknowledged_deployment_survives_a_kill_right_after() {
    let node = Node::start();
    for version in 0..5 {
        let text = format!("version {version}");
        node.put("/v1/functions/f", &pack::function(&text));
        // What a kill would leave: the files as they are now, nothing closed.
        let image = Arc::new(tempfile::tempdir().unwrap());
        copy(&node.data_dir(), image.path());
        let other = reopen(image);
        assert_eq!(other.invoke("f").unwrap(), text);
        other.wait_for_codes(1);
    }
}

/// The folder of the node that is to be killed, told to the process that is that node.
const VICTIM_DIR: &str = "MANAGEMENT_TEST_VICTIM_DIR";

/// How many deployments are acknowledged before the kill.
const ACKNOWLEDGED_MIN: usize = 60;

#[test]
fn acknowledged_deployments_survive_sigkill_in_the_midst_of_others() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["durability::victim", "--exact", "--nocapture"])
        .env(VICTIM_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut addrs = lines.filter_map(|line| line.unwrap().strip_prefix("addr=").map(str::to_owned));
    let addr = addrs.next().unwrap();
    let acknowledged: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for (number, count) in acknowledged.iter().enumerate() {
            let url = format!("http://{addr}/v1/functions/f{number}");
            scope.spawn(move || {
                // Until the kill: then no answer comes any more.
                for version in 1.. {
                    let archive = pack::function(&format!("{number} {version}"));
                    let Ok(_answer) = ureq::put(&url).send(&archive) else {
                        return;
                    };
                    count.store(version, Ordering::SeqCst);
                }
            });
        }
        let total = || {
            acknowledged
                .iter()
                .map(|count| count.load(Ordering::SeqCst))
                .sum()
        };
        wait_for("deployments", || ACKNOWLEDGED_MIN <= total());
        victim.kill().unwrap();
    });
    victim.wait().unwrap();
    let node = reopen(dir);
    for (number, count) in acknowledged.iter().enumerate() {
        let served = node.invoke(&format!("f{number}")).unwrap();
        let version: usize = served.split(' ').nth(1).unwrap().parse().unwrap();
        let count = count.load(Ordering::SeqCst);
        // The one that was under way may have become durable without an answer.
        assert!(
            version == count || version == count + 1,
            "{version} after {count}"
        );
    }
    node.wait_for_codes(4);
}

/// The node that the test above kills; as a test of its own it does nothing.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else {
        return;
    };
    let own = Arc::new(tempfile::tempdir_in(&dir).unwrap());
    let setup = Setup {
        data_dir: Some(Path::new(&dir).join("data")),
        ..Setup::default()
    };
    let node = Node::try_with(setup, own).unwrap();
    println!("\naddr={}", node.addr);
    node.runtime.block_on(std::future::pending::<()>());
}

#[test]
fn what_a_crash_left_is_removed_at_the_next_start() {
    let node = Node::start();
    node.put("/v1/functions/f", &pack::function("1"));
    let data_dir = node.data_dir();
    let dir = node.kill();
    std::fs::create_dir(data_dir.join("code/left-over")).unwrap();
    std::fs::create_dir_all(data_dir.join("tmp/code-x/unpacked")).unwrap();
    let node = reopen(dir);
    assert_eq!(node.invoke("f").unwrap(), "1");
    node.wait_for_codes(1);
}

#[test]
fn a_function_that_can_not_be_brought_back_says_why_and_is_tried_again() {
    let node = Node::start();
    node.backend.host_fails.store(false, Ordering::SeqCst);
    node.put("/v1/functions/f", &pack::function("HOST FAILS"));
    node.put("/v1/functions/lost", &pack::function("2"));
    let lost = node.get("/v1/functions/lost").json();
    let lost = node
        .data_dir()
        .join("code")
        .join(lost["digest"].as_str().unwrap());
    let dir = node.kill();
    std::fs::remove_dir_all(lost).unwrap();
    let node = reopen(dir);
    wait_for("readiness", || node.get("/readyz").status == 200);
    let shape = node.get("/v1/functions/f").json();
    assert_eq!(shape["state"], "failed");
    assert_eq!(
        shape["failure"],
        "this node can't start it: no memory is left; wait"
    );
    assert!(
        node.get("/v1/functions/lost")
            .text
            .contains("its code is gone")
    );
    assert!(node.invoke("f").is_err());
    node.backend.host_fails.store(false, Ordering::SeqCst);
    wait_for("another try", || node.invoke("f").is_ok());
    assert_eq!(
        node.put("/v1/functions/f", &pack::function("new")).status,
        200
    );
    assert_eq!(node.invoke("f").unwrap(), "new");
    assert_eq!(node.get("/v1/functions/f").json()["state"], "ready");
}

#[test]
fn damaged_code_is_not_served_after_a_start_and_a_redeploy_repairs_it() {
    let node = Node::start();
    let code_of = |node: &Node, name: &str| {
        let digest = node.get(&format!("/v1/functions/{name}")).json()["digest"].clone();
        node.data_dir().join("code").join(digest.as_str().unwrap())
    };
    let archive = pack::zip(&[("fn.py", "right"), ("lib.py", "lib")]);
    node.put("/v1/functions/f", &archive);
    node.put("/v1/functions/whole", &pack::function("whole"));
    let code = code_of(&node, "f");
    let dir = node.kill();
    // What a power cut makes of a file that was never synced.
    std::fs::write(code.join("lib.py"), "").unwrap();
    let node = reopen(dir);
    wait_for("readiness", || node.get("/readyz").status == 200);
    let shape = node.get("/v1/functions/f").json();
    assert_eq!(shape["state"], "failed");
    assert!(shape["failure"].as_str().unwrap().contains("damaged"));
    assert!(node.invoke("f").is_err());
    assert_eq!(node.invoke("whole").unwrap(), "whole");
    assert_eq!(node.put("/v1/functions/f", &archive).status, 200);
    assert_eq!(node.invoke("f").unwrap(), "right");
    assert_eq!(std::fs::read(code.join("lib.py")).unwrap(), b"lib");
    // The same while it serves.
    std::fs::remove_file(code.join("lib.py")).unwrap();
    assert_eq!(node.put("/v1/functions/f", &archive).status, 200);
    assert_eq!(std::fs::read(code.join("lib.py")).unwrap(), b"lib");
    node.wait_for_codes(2);
}

#[test]
fn readiness_waits_for_every_stored_function() {
    let node = Node::start();
    node.backend.gate.send_replace(true);
    node.put("/v1/functions/f", &pack::function("WAIT"));
    let backend = InProcess::new();
    let setup = Setup {
        backend: Arc::clone(&backend),
        ..Setup::default()
    };
    let node = Node::try_with(setup, node.kill()).unwrap();
    let answer = node.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.text.contains('f'), "{}", answer.text);
    assert_eq!(node.get("/v1/functions/f").json()["state"], "starting");
    backend.gate.send_replace(true);
    wait_for("readiness", || node.get("/readyz").status == 200);
    assert_eq!(node.invoke("f").unwrap(), "WAIT");
}

#[test]
fn a_second_instance_is_told_who_has_the_data_directory() {
    let node = Node::start();
    let Err(error) = Node::try_with(Setup::default(), node.dir()) else {
        panic!("the lock was not held");
    };
    assert!(matches!(error, OpenError::Locked(_)));
    assert!(error.fix().contains("--data-dir"), "{error}");
}

#[test]
fn the_data_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let node = Node::start();
    let mode = node.data_dir().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-r")
        .arg(from)
        .arg(to.join("data"))
        .status();
    assert!(status.unwrap().success());
}

/// A node whose functions were brought back after the last one was killed.
fn reopened_with(dir: Arc<TempDir>, limits: Limits, backend: Arc<InProcess>) -> Node {
    let setup = Setup {
        limits,
        backend,
        ..Setup::default()
    };
    Node::try_with(setup, dir).unwrap()
}

/// Nodes with twelve functions that load without end and a healthy one, started again.
fn after_a_boot(limits: Limits) -> Node {
    let node = Node::start();
    node.backend.gate.send_replace(true);
    for number in 0..12 {
        let path = format!("/v1/functions/hung-{number}");
        assert_eq!(node.put(&path, &pack::function("WAIT")).status, 201);
    }
    let healthy = pack::function("healthy");
    assert_eq!(node.put("/v1/functions/zzz", &healthy).status, 201);
    reopened_with(node.kill(), limits, InProcess::new())
}

#[test]
fn functions_that_hang_while_they_load_hold_up_no_other() {
    let node = after_a_boot(Limits {
        start_slot: Duration::from_millis(20),
        ..Limits::default()
    });
    wait_for("the healthy function", || {
        let route = node.router.find("zzz").unwrap();
        route.deployment().is_some()
    });
    wait_for("those that hang", || {
        node.backend.preparing.load(Ordering::SeqCst) == 12
    });
    // Deployments of other names, of which there are more than may be worked on at once.
    for number in 0..6 {
        let path = format!("/v1/functions/new-{number}");
        assert_eq!(node.put(&path, &pack::function("new")).status, 201);
    }
}

#[test]
fn a_delete_and_a_deployment_end_the_restore_of_their_name() {
    let node = after_a_boot(Limits {
        start_slot: Duration::from_millis(20),
        ..Limits::default()
    });
    wait_for("those that hang", || {
        node.backend.preparing.load(Ordering::SeqCst) == 12
    });
    assert_eq!(node.delete("/v1/functions/hung-3").status, 204);
    let mended = pack::function("mended");
    assert_eq!(node.put("/v1/functions/hung-4", &mended).status, 200);
    assert_eq!(node.invoke("hung-4").unwrap(), "mended");
    assert_eq!(node.backend.preparing.load(Ordering::SeqCst), 10);
    // One that fails leaves the stored function to be brought back.
    let broken = pack::function("LOAD FAILS");
    assert!(node.put("/v1/functions/hung-5", &broken).status >= 400);
    wait_for("the restore that gave way", || {
        node.backend.preparing.load(Ordering::SeqCst) == 10
    });
    node.backend.gate.send_replace(true);
    wait_for("the stored function", || node.invoke("hung-5").is_ok());
}

#[test]
fn a_function_that_is_called_is_brought_back_before_others() {
    // All places are taken for good.
    let node = after_a_boot(Limits {
        start_slot: Duration::from_secs(3600),
        deployments_at_once_max: 1,
        ..Limits::default()
    });
    assert_eq!(node.invoke("zzz").unwrap(), "healthy");
}
