//! What somebody gets who is not root.

use e2e::{Function, Node, Place, until};
use std::os::unix::fs::PermissionsExt;

/// Says who it is, what processes it sees and what it can read.
const LOOK: &str = "id -u; ls -d /proc/[0-9]* | wc -l; cat /etc/shadow 2>&1; touch /usr/x 2>&1";

#[test]
fn functions_get_namespaces_of_their_own_without_root() {
    let node = Node::start_at(&Place::unprivileged(), &[]);
    node.deploy(&Function::script("look", LOOK));
    let seen = node.post("look", b"").text();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "1000", "{seen}");
    let processes: u32 = lines[1].trim().parse().unwrap();
    assert!(processes < 8, "it sees {processes} processes");
    assert!(seen.contains("/etc/shadow: No such file"), "{seen}");
    assert!(seen.contains("Read-only file system"), "{seen}");
    assert!(is_on(&node, "namespaces") && is_on(&node, "seccomp"));
}

#[test]
fn reduced_isolation_is_asked_for_logged_and_shown() {
    let node = Node::start_at(&Place::unprivileged(), &["--sandbox", "reduced"]);
    node.deploy(&Function::script("look", LOOK));
    let seen = node.post("look", b"").text();
    assert!(seen.contains("/etc/shadow: Permission denied"), "{seen}");
    assert!(seen.contains("touch: cannot touch"), "{seen}");
    assert!(!is_on(&node, "namespaces") && is_on(&node, "seccomp"));
    assert!(node.log().contains("REDUCED"), "{}", node.log());
}

#[test]
fn a_network_of_its_own_works_without_root_or_is_refused_with_what_to_do() {
    const TUN: &str = "/dev/net/tun";
    let node = Node::start_at(&Place::unprivileged(), &[]);
    let look = Function::script("look", "grep -c tinyfaas0 /proc/net/dev; id -u");
    let answer = node.try_deploy(&look.set("network", "true"));
    let mode = std::fs::metadata(TUN).map_or(0, |found| found.permissions().mode());
    if mode & 0o006 == 0o006 {
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(node.post("look", b"").text(), "1\n1000\n");
    } else {
        let text = answer.text();
        assert!(answer.status >= 400, "{text}");
        assert!(text.contains(&format!("chmod 666 {TUN}")), "{text}");
    }
}

fn is_on(node: &Node, wall: &str) -> bool {
    until("the backend has told", || {
        let status = node.manage("GET", "/v1/status", b"").json();
        let walls = status["isolation"].as_array()?.clone();
        let found = walls.iter().find(|found| found["name"] == wall)?;
        found["is_on"].as_bool()
    })
}
