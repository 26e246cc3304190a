//! What functions are kept from, and what they are given, on this host and on older kernels.

use e2e::{Function, Node};
use serde_json::Value;
use std::process::{Command, Output};

/// What `python3` does outside, once for every way to start processes and to share something.
const MULTIPROCESSING: &str = r#"
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from multiprocessing.dummy import Pool as ThreadPool

def square(x): return x * x

def child(pipe):
    pipe.send("hello")
    pipe.close()

def talk(method):
    context = mp.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    said = ours.recv() if ours.poll(60) else "no answer"
    process.join(60)
    return "%s %s %s" % (method, said, process.exitcode)

def shared():
    memory = shared_memory.SharedMemory(create=True, size=1000)
    memory.buf[0] = 7
    memory.close()
    memory.unlink()
    return mp.Value("i", 1).value

def pooled(pool):
    with pool as workers: return list(workers.map(square, range(4)))

def fn(input):
    queue = mp.Queue()
    queue.put("queued")
    said = [queue.get(timeout=60), str(shared()), str(mp.Lock().acquire())]
    said += [talk(method) for method in ("fork", "spawn", "forkserver")]
    said += [str(pooled(pool)) for pool in (mp.Pool(2), ThreadPool(2), ProcessPoolExecutor(2))]
    return "\n".join(said)
"#;

#[test]
fn multiprocessing_works_in_a_python_function() {
    let node = Node::start();
    node.deploy(&Function::python("processes", MULTIPROCESSING));
    let said = node.post("processes", b"").text();
    let expected = "queued\n1\nTrue\nfork hello 0\nspawn hello 0\nforkserver hello 0\n\
                    [0, 1, 4, 9]\n[0, 1, 4, 9]\n[0, 1, 4, 9]";
    assert_eq!(said, expected);
    // What works on the first call works on every later one.
    assert_eq!(node.post("processes", b"").text(), expected);
}

#[test]
fn a_script_finds_the_settings_of_the_machines_programs_and_no_others() {
    let node = Node::start();
    let look = "ls /etc/python3* | head -n 1; ls /etc/shadow 2>&1; ls -d /etc/apt 2>&1";
    node.deploy(&Function::script("look", look));
    let seen = node.post("look", b"").text();
    assert!(seen.starts_with("/etc/python3"), "{seen}");
    assert!(seen.contains("'/etc/shadow': No such file"), "{seen}");
    assert!(seen.contains("'/etc/apt': No such file"), "{seen}");
}

#[test]
fn reduced_isolation_uses_the_landlock_that_the_kernel_has_and_tells_it() {
    // The control: the kernel's own answer.
    let own = landlock(&doctor(&[], "reduced", false));
    assert_eq!(own["is_on"], true, "{own}");
    for version in 1..=6 {
        let answered = format!("retval={version}:when=1");
        let told = landlock(&doctor(&[&answered], "reduced", false));
        let detail = told["detail"].as_str().unwrap_or_default();
        assert_eq!(told["is_on"], true, "{version}: {told}");
        assert!(detail.starts_with(&format!("version {version}")), "{told}");
        assert_eq!(detail.contains("TCP ports"), version < 4, "{told}");
        assert_eq!(detail.contains("signals"), version < 6, "{told}");
    }
}

#[test]
fn reduced_isolation_without_landlock_is_refused_until_that_is_accepted() {
    let refused = doctor(&["error=ENOSYS"], "reduced", false);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(text.contains("--accept-no-landlock"), "{text}");
    let told = landlock(&doctor(&["error=ENOSYS"], "reduced", true));
    assert_eq!(told["is_on"], false, "{told}");
    // With namespaces it is a second wall, and may be missing.
    let told = landlock(&doctor(&["error=EOPNOTSUPP"], "full", false));
    assert_eq!(told["is_on"], false, "{told}");
}

/// What `tinyfaas doctor` says where the kernel answers about Landlock as `injected` has it.
fn doctor(injected: &[&str], sandbox: &str, accepts: bool) -> Output {
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-o", "/dev/null"]);
    strace.args(["-e", "trace=landlock_create_ruleset"]);
    for what in injected {
        strace.args(["-e", &format!("inject=landlock_create_ruleset:{what}")]);
    }
    strace.arg(e2e::program()).args(["doctor", "--json"]);
    strace.env("TINYFAAS_SANDBOX", sandbox);
    strace.env("TINYFAAS_ACCEPT_NO_LANDLOCK", accepts.to_string());
    strace.output().expect("cargo xtask tools installs strace")
}

fn landlock(doctor: &Output) -> Value {
    let text = String::from_utf8_lossy(&doctor.stdout);
    let told: Value = serde_json::from_str(&text).unwrap_or_default();
    let walls = told["machine"]["isolation"].as_array();
    let wall = walls.and_then(|walls| walls.iter().find(|wall| wall["name"] == "landlock"));
    assert!(wall.is_some(), "{doctor:?}");
    wall.cloned().unwrap_or_default()
}
