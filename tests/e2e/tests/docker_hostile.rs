//! Hostile functions in containers, against a real engine: what they try with each other, with their
//! bounds, and with tinyFaaS.

use e2e::{CONTAINERS, Function, Node, Place, RESERVE, docker, ours, request, until};
use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The ids of the containers of a function.
fn containers(function: &str) -> Vec<String> {
    ours("container", function)
}

/// A python3 image whose interpreter takes a while to start, as on a machine that is busy: whoever
/// waits for a handler to listen is there as soon as it does.
struct SlowImage(String);

impl SlowImage {
    fn make() -> Self {
        let name = format!("slow-{}", std::process::id());
        let write = "printf '#!/bin/sh\\nsleep 3\\nexec /usr/bin/python3 \"$@\"\\n' \
                     > /usr/local/bin/python3 && chmod 755 /usr/local/bin/python3";
        docker(&["run", "--name", &name, "python:3-alpine", "sh", "-c", write]);
        docker(&["commit", &name, &name]);
        docker(&["rm", &name]);
        Self(name)
    }
}

impl Drop for SlowImage {
    fn drop(&mut self) {
        let words = ["rmi", "--force", &self.0];
        drop(Command::new("docker").args(words).output());
    }
}

/// `attack` makes one handler call the ports of all others, over and over, say what a proxy would and
/// stay. Then every call of it tells who it is, and what it was answered.
const IMPOSTOR: &str = r#"
import ipaddress, socket, struct, threading
own = socket.gethostbyname(socket.gethostname())
hosts = list(ipaddress.ip_network(own + "/23", strict=False).hosts())[1:16]
request = struct.pack("!IIBBHIQIHH", 41, 1, 2, 0, 4, 0, 1, 60000, 1, 0) + b"POST/" + b"stolen.."
met, kept, attacking = [], [], []

def hear(sock):
    sock.settimeout(60)
    said = b""
    try:
        # As a proxy of old, and as one that guesses the proof.
        sock.sendall(request if len(met) % 2 else bytes(64))
        while len(said) < 4096:
            more = sock.recv(4096)
            if not more:
                break
            said += more
    except OSError:
        pass
    met.append(len(said))
    if b"stolen" in said:
        attacking.append("stolen")

def attack(host):
    while True:
        try:
            sock = socket.create_connection((host, 7000), 0.2)
        except OSError:
            continue
        kept.append(sock)
        threading.Thread(target=hear, args=(sock,), daemon=True).start()

def fn(input):
    if input.startswith("stolen"):
        return input
    if input == "attack" and not attacking:
        attacking.append("attacks")
        for host in hosts:
            if str(host) != own:
                threading.Thread(target=attack, args=(str(host),), daemon=True).start()
    return "%s %s %d %s" % (socket.gethostname(), "+".join(attacking), len(kept), sorted(set(met)))
"#;

#[test]
fn a_handler_that_plays_the_proxy_keeps_no_sibling_from_starting() {
    let image = SlowImage::make();
    let args = ["--backend", "docker", "--image-python3", &image.0];
    let node = Node::start_at(&Place::new(), &args);
    node.deploy(&Function::python("siblings", IMPOSTOR).set("threads", "2"));
    let said = node.post("siblings", b"attack").expect_success().text();
    let hostile = said.split(' ').next().expect("its name").to_owned();
    let mut met = 0;
    // Until it was there while a sibling started, and once more.
    for round in 1.. {
        let before = containers("siblings");
        let sibling = before.iter().find(|id| **id != hostile);
        docker(&["kill", sibling.expect("there are two")]);
        until("the sibling is replaced", || {
            let handlers = node.describe("siblings")["handlers"].clone();
            let restarts = handlers["restarts"].as_u64().unwrap_or_default();
            // At the first try: none took its connection.
            assert!(restarts <= round, "{handlers}");
            (restarts == round && handlers["ready"] == 2).then_some(())
        });
        let report = until("the hostile handler answers", || {
            let said = node.post("siblings", b"report").expect_success().text();
            said.starts_with(&hostile).then_some(said)
        });
        assert!(!report.contains("stolen"), "{report}");
        let words: Vec<_> = report.split(' ').collect();
        let kept: u32 = words[2].parse().expect("a number");
        if kept > met && round > 1 {
            break;
        }
        met = kept;
        assert!(round < 10, "it never came first: {report}");
    }
    let names: HashSet<_> = containers("siblings").into_iter().collect();
    assert!(names.len() == 2 && names.contains(&hostile), "{names:?}");
    node.stop();
}

/// Writes until somebody ends it.
const MANY_BYTES: &str = "
import os
number = 0
while True:
    with open('/fn/%d' % number, 'wb') as file:
        # Writes zeros, as reserving is refused.
        os.posix_fallocate(file.fileno(), 0, 64 << 20)
    number += 1
";

/// The same, in files that are empty and a folder that its own user may not look into.
const MANY_FILES: &str = "
import os
os.makedirs('/fn/hidden')
number = 0
while True:
    os.chmod('/fn/hidden', 0o700)
    for _ in range(1000):
        os.close(os.open('/fn/hidden/%d' % number, os.O_CREAT | os.O_WRONLY))
        number += 1
    os.chmod('/fn/hidden', 0)
";

/// Too much at once.
const ONE_FILE: &str = "
import os
with open('/fn/large', 'wb') as file:
    file.truncate((1 << 30) + 1)
";

#[test]
fn a_build_writes_no_more_than_it_may_and_leaves_nothing() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    // The control: the bound is in nobody's way.
    let little = "open('/fn/some', 'wb').write(bytes(1 << 20))";
    node.deploy(&Function::building("little", little));
    assert_eq!(node.post("little", b"").text(), "built");
    let volumes = || docker(&["volume", "ls", "--quiet", "--filter", "label=tinyFaaS"]);
    let before = volumes();
    for (name, script, expected) in [
        ("bytes", MANY_BYTES, "wrote more than 1024 MiB"),
        ("files", MANY_FILES, "wrote more than 1024 MiB"),
        ("one", ONE_FILE, "pip could not install"),
    ] {
        let answer = node.try_deploy(&Function::building(name, script));
        assert_eq!(answer.status, 422, "{name}: {}", answer.text());
        assert!(answer.text().contains(expected), "{}", answer.text());
        until("nothing is left of it", || {
            let left = docker(&[
                "ps",
                "--all",
                "--quiet",
                "--filter",
                "name=build|watch|copy",
            ]);
            (volumes() == before && left.is_empty()).then_some(())
        });
    }
    assert_eq!(node.post("little", b"").text(), "built");
    node.stop();
}

#[test]
fn a_build_in_a_container_leaves_the_engines_disk_some_space() {
    // More than any disk has.
    let reserve = "builds.free-bytes-min=1000000GiB";
    let args = [CONTAINERS, &["--limit", reserve]].concat();
    let node = Node::start_at(&Place::new(), &args);
    let hanging = "import time\nwhile True:\n    time.sleep(1)\n";
    let answer = node.try_deploy(&Function::building("hanging", hanging));
    let text = answer.text();
    assert_eq!(answer.status, 507, "{text}");
    assert!(text.contains("engine's disk is nearly full"), "{text}");
    assert!(text.contains("docker system prune"), "{text}");
    node.deploy(&Function::python("plain", "def fn(input): return input\n"));
    assert_eq!(node.post("plain", b"hello").text(), "hello");
    node.stop();
}

/// Puts a key into the kernel's keyring, which no container may, by the kernel's number of that.
const KEYS: &str = "
import ctypes, os
LIBC = ctypes.CDLL(None, use_errno=True)
number = {'x86_64': 248}.get(os.uname().machine, 217)
made = LIBC.syscall(number, b'user', b'tinyfaas', b'x', 1, -2)
VALUE = 'made' if made > 0 else os.strerror(ctypes.get_errno())
";

#[test]
fn a_build_in_a_container_takes_no_space_without_writing_it_and_calls_no_more_than_others() {
    // The control: a container of no profile does both.
    let run = |options: &[&str], script: &str| {
        let script = format!("{script}\nprint(VALUE)");
        let words = [&["run", "--rm"][..], options];
        let python = ["python:3-alpine", "python3", "-c", &script];
        docker(&[&words.concat()[..], &python].concat())
    };
    let on_a_volume = ["--volume", "/data", "--env", "FOLDER=/data"];
    let outside = run(&on_a_volume, RESERVE);
    for way in ["fallocate", "resvsp", "zero", "posix"] {
        assert!(
            outside.contains(&format!("\"{way}\": [\"done\", 8]")),
            "{outside}"
        );
    }
    let unconfined = run(&["--security-opt", "seccomp=unconfined"], KEYS);
    assert_eq!(unconfined, "made");
    let node = Node::start_at(&Place::new(), CONTAINERS);
    node.deploy(&Function::building("reserving", RESERVE));
    let said = node.post("reserving", b"").text();
    for way in ["fallocate", "resvsp", "zero", "hint"] {
        let refused = format!("\"{way}\": [\"EOPNOTSUPP\", 0]");
        assert!(said.contains(&refused), "{said}");
    }
    // The C library of the image writes instead.
    assert!(said.contains("\"posix\": [\"done\", 8]"), "{said}");
    node.deploy(&Function::building("keys", KEYS));
    let said = node.post("keys", b"").text();
    assert_eq!(said, "Operation not permitted");
    node.stop();
}

/// Does what its input says.
const HOSTILE: &str = r#"
import os, time
def fill(folder):
    number = 0
    try:
        while True:
            with open("%s/%d" % (folder, number), "wb") as file:
                file.write(bytes(1 << 20))
            number += 1
    except OSError as error:
        return error.strerror
def fn(input):
    if input == "fork":
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
    if input == "memory":
        taken = []
        while True:
            taken.append(b"x" * (1 << 20))
    if input == "log":
        while True:
            print("x" * 1000)
    if input == "silent":
        time.sleep(3600)
    if input == "frames":
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"\xff" * 64)
            except OSError:
                pass
    if input == "end":
        os._exit(3)
    if input == "disk":
        said = " ".join(fill(folder) for folder in ("/tmp", "/dev/shm", "/fn", "/"))
        for number in os.listdir("/tmp"):
            os.unlink("/tmp/" + number)
        return said
    return input
"#;

#[test]
fn a_hostile_function_in_containers_harms_nobody_but_itself() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    let hostile = Function::python("hostile", HOSTILE);
    node.deploy(&hostile.set("threads", "1").set("deadline", "2s"));
    let echo = "def fn(input): return input\n";
    node.deploy(&Function::python("neighbour", echo));
    for attack in [
        "fork", "memory", "log", "silent", "frames", "end", "disk", "fork",
    ] {
        let url = node.url("http", "hostile");
        let attacking = std::thread::spawn(move || request("POST", &url, &[], attack.as_bytes()));
        while !attacking.is_finished() {
            let reply = node.post("neighbour", b"unharmed");
            assert_eq!(reply.expect_success().text(), "unharmed", "{attack}");
        }
        let reply = attacking.join().expect("the call ends");
        match attack {
            "disk" => {
                let said = reply.expect_success().text();
                assert_eq!(said.matches("No space left").count(), 2, "{said}");
                assert_eq!(said.matches("Read-only").count(), 2, "{said}");
            }
            _ => assert!(reply.status >= 500, "{attack}: {}", reply.text()),
        }
        until("it serves again", || {
            let reply = node.post("hostile", b"again");
            (reply.status == 200 && reply.text() == "again").then_some(())
        });
        assert_eq!(node.post("neighbour", b"unharmed").text(), "unharmed");
    }
    until("what it replaced is gone", || {
        (containers("hostile").len() == 1).then_some(())
    });
    node.stop();
    assert!(containers("hostile").is_empty());
}

#[test]
fn of_calls_during_redeployments_in_containers_none_fails() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    let version = |number: u32| {
        let code = format!("def fn(input): return 'version {number}'\n");
        Function::python("moving", &code).set("threads", "2")
    };
    node.deploy(&version(0));
    let (is_deployed, called) = (AtomicBool::new(false), AtomicUsize::new(0));
    let url = node.url("http", "moving");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_deployed.load(Ordering::Relaxed) {
                    let reply = request("POST", &url, &[], b"x").expect_success().text();
                    assert!(reply.starts_with("version "), "{reply}");
                    called.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=5 {
            node.deploy(&version(number));
        }
        is_deployed.store(true, Ordering::Relaxed);
    });
    assert!(called.load(Ordering::Relaxed) > 100, "the control");
    assert_eq!(node.post("moving", b"x").text(), "version 5");
    node.stop();
    assert!(containers("moving").is_empty());
}
