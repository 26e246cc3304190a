//! Containers instead of processes: what happens when they, the node or the engine fail, and what a
//! function can reach. The engine is the one that `cargo xtask test` brings.

use e2e::{CONTAINERS, Engine, Function, Node, Place, docker, ours, request, until};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

fn echo(name: &str) -> Function {
    Function::python(name, "def fn(input): return input\n")
}

#[test]
fn a_container_that_is_killed_while_calls_run_is_replaced() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    node.deploy(&echo("mortal").set("threads", "2"));
    let containers = ours("container", "mortal");
    assert_eq!(containers.len(), 2);
    let url = node.url("http", "mortal");
    let calls = thread::spawn(move || {
        let replies = (0..2000).map(|_| request("POST", &url, &[], b"x").status);
        replies.filter(|status| *status != 200).collect::<Vec<_>>()
    });
    docker(&["kill", &containers[0]]);
    let failed = calls.join().expect("the calls end");
    // Only what it had in flight; one client has one call there.
    assert!(failed.len() <= 1, "{failed:?}");
    until("the container is replaced", || {
        let handlers = node.describe("mortal")["handlers"].clone();
        (handlers["ready"] == 2 && handlers["restarts"] == 1).then_some(())
    });
    let now = ours("container", "mortal");
    assert!(now.len() == 2 && now.contains(&containers[1]), "{now:?}");
    node.stop();
    assert!(ours("container", "mortal").is_empty());
    assert!(ours("network", "mortal").is_empty());
}

#[test]
fn what_a_killed_node_leaves_is_removed_by_the_next() {
    let place = Place::new();
    let node = Node::start_at(&place, CONTAINERS);
    node.deploy(&echo("orphan"));
    let before = ours("container", "orphan");
    assert_eq!(before.len(), 1);
    node.kill();
    assert_eq!(ours("container", "orphan"), before);
    let node = Node::start_at(&place, CONTAINERS);
    assert_eq!(node.post("orphan", b"back").text(), "back");
    let after = ours("container", "orphan");
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    assert_eq!(ours("network", "orphan").len(), 1);
    node.stop();
    assert!(ours("container", "orphan").is_empty());
    assert!(ours("network", "orphan").is_empty());
}

#[test]
fn a_container_has_no_rights() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    let script = "#!/bin/sh
id -u
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '
touch /fn/x 2>/dev/null || echo no code
touch /etc/x 2>/dev/null || echo no root
touch /shim/x 2>/dev/null || echo no shim
touch /tmp/x && echo tmp
test -e /var/run/docker.sock || echo no engine
";
    node.deploy(&Function::script("confined", script));
    let said = node.post("confined", b"").expect_success().text();
    let expected = "65534\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\n\
        Seccomp: 2\nno code\nno root\nno shim\ntmp\nno engine\n";
    assert_eq!(sorted(&said), sorted(expected));
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines
}

/// Says whether it reaches a host and port.
const NOSY: &str = "import socket
def fn(input):
    host, port = input.split()
    try:
        socket.create_connection((host, int(port)), 1)
    except OSError as error:
        return 'no: %s' % error
    return 'yes'
";

#[test]
fn functions_do_not_reach_each_others_networks() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    node.deploy(&Function::python("nosy", NOSY));
    node.deploy(&echo("neighbour"));
    let container = &ours("container", "neighbour")[0];
    let addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let addr = docker(&["inspect", "--format", addresses, container]);
    let said = node.post("nosy", format!("{addr} 7000").as_bytes()).text();
    assert!(said.starts_with("no: "), "{said}");
}

/// Another machine, as this one sees it: a network namespace with a server.
struct Outside {
    server: Child,
}

impl Outside {
    const NAME: &str = "tf-outside";

    fn start() -> Self {
        for words in [
            "netns add tf-outside",
            "link add tf-out0 type veth peer name tf-out1 netns tf-outside",
            "addr add 10.98.7.1/30 dev tf-out0",
            "link set tf-out0 up",
            "-n tf-outside addr add 10.98.7.2/30 dev tf-out1",
            "-n tf-outside link set tf-out1 up",
        ] {
            let done = Command::new("ip").args(words.split(' ')).output();
            let done = done.expect("ip is there");
            assert!(done.status.success(), "ip {words}: {done:?}");
        }
        let serve = [
            "netns",
            "exec",
            Self::NAME,
            "python3",
            "-m",
            "http.server",
            "8080",
        ];
        let mut server = Command::new("ip");
        server
            .args(serve)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            server: server.spawn().expect("ip is there"),
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // `ip netns exec` has become the server.
        drop(self.server.kill());
        drop(self.server.wait());
        drop(Command::new("ip").args(["link", "del", "tf-out0"]).status());
        drop(
            Command::new("ip")
                .args(["netns", "del", Self::NAME])
                .status(),
        );
    }
}

#[test]
fn only_a_function_with_network_gets_out() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    node.deploy(&Function::python("inside", NOSY));
    node.deploy(&Function::python("outward", NOSY).set("network", "true"));
    let _outside = Outside::start();
    until("the function with network reaches it", || {
        let said = node.post("outward", b"10.98.7.2 8080").text();
        (said == "yes").then_some(())
    });
    let said = node.post("inside", b"10.98.7.2 8080").text();
    assert!(said.starts_with("no: "), "{said}");
}

#[test]
fn a_function_that_does_not_load_leaves_nothing_and_says_why() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    let broken = Function::python("broken", "print('loading')\nimport no_such_module\n");
    let answer = node.try_deploy(&broken);
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(
        answer.text().contains("no_such_module"),
        "{}",
        answer.text()
    );
    let broken = Function::new("broken", "go").file("fn.go", "package main\nfunc nonsense( {\n");
    let answer = node.try_deploy(&broken);
    assert!(answer.text().contains("fn.go:2"), "{}", answer.text());
    until("nothing is left", || {
        let left = ours("container", "broken").len() + ours("network", "broken").len();
        (left == 0).then_some(())
    });
}

#[test]
fn trouble_with_the_engine_is_told_with_what_to_do() {
    let place = Place::new();
    let serve = |host: &str| -> Output {
        let mut serve = place.serve(CONTAINERS);
        let output = serve.env("DOCKER_HOST", host).output();
        output.expect("the program starts")
    };
    for (host, expected) in [
        ("unix:///nowhere/docker.sock", "systemctl start docker"),
        ("tcp://127.0.0.1:2375", "unix:///var/run/docker.sock"),
    ] {
        let ended = serve(host);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let absent = [
        "--backend",
        "docker",
        "--image-python3",
        "localhost:1/none:1",
    ];
    let node = Node::start_at(&place, &absent);
    let answer = node.try_deploy(&echo("imageless"));
    assert!(answer.text().contains("docker load"), "{}", answer.text());
    assert!(
        answer.text().contains("--image-python3"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_function_goes_on_while_its_engine_is_killed_and_started_again() {
    let mut engine = Engine::start();
    engine.bring("python:3-alpine");
    let place = Place::new();
    let mut serve = place.serve(CONTAINERS);
    let node = Node::start_command(&place, serve.env("DOCKER_HOST", engine.host()));
    node.deploy(&echo("steady").set("threads", "2"));
    let before = engine.docker(&["ps", "--quiet"]).expect("it answers");
    assert_eq!(before.lines().count(), 2);
    engine.kill();
    // The containers go on without it.
    for _ in 0..100 {
        assert_eq!(node.post("steady", b"x").text(), "x");
    }
    // An engine that starts ends the containers of the one before; they are replaced.
    engine.restart();
    until("both are replaced", || {
        // A call may meet the end of its handler.
        let reply = node.post("steady", b"x");
        assert!(
            reply.status == 200 || reply.status == 502,
            "{}",
            reply.text()
        );
        let now = engine.docker(&["ps", "--quiet"])?;
        let is_new = now.lines().all(|id| !before.contains(id));
        (is_new && now.lines().count() == 2).then_some(())
    });
    assert_eq!(node.post("steady", b"x").text(), "x");
    node.stop();
    let all = ["ps", "--all", "--quiet"];
    assert_eq!(engine.docker(&all).expect("it answers"), "");
}

#[test]
fn no_call_fails_while_an_engine_with_live_restore_is_restarted() {
    let mut engine = Engine::start_live_restore();
    engine.bring("python:3-alpine");
    let place = Place::new();
    let mut serve = place.serve(CONTAINERS);
    let node = Node::start_command(&place, serve.env("DOCKER_HOST", engine.host()));
    node.deploy(&echo("alive").set("threads", "2"));
    let before = engine.docker(&["ps", "--quiet"]).expect("it answers");
    let call_all = || {
        for _ in 0..100 {
            assert_eq!(node.post("alive", b"x").expect_success().text(), "x");
        }
    };
    engine.stop();
    call_all();
    engine.restart();
    call_all();
    assert_eq!(engine.docker(&["ps", "--quiet"]).as_deref(), Some(&*before));
    assert_eq!(node.describe("alive")["handlers"]["restarts"], 0);
    // What dies afterwards is replaced, and what is deployed is started there.
    let killed = before.lines().next().expect("there are two");
    drop(engine.docker(&["kill", killed]));
    until("it is replaced", || {
        let handlers = node.describe("alive")["handlers"].clone();
        (handlers["restarts"] == 1 && handlers["ready"] == 2).then_some(())
    });
    node.deploy(&echo("later"));
    assert_eq!(node.post("later", b"x").text(), "x");
    node.stop();
    let all = ["ps", "--all", "--quiet"];
    assert_eq!(engine.docker(&all).expect("it answers"), "");
}

/// Says in `probe.py`, which it installs, what could be reached while it was built.
const PROBE: &str = "import socket, sys
from setuptools import setup
reached = []
for addr in open('addresses').read().split():
    try:
        socket.create_connection((addr, 7000), 2).close()
        reached.append(addr)
    except OSError:
        pass
open('probe.py', 'w').write('reached = %r' % reached)
setup(name='probe', version='1', py_modules=['probe'])
";

#[test]
fn a_build_meets_no_other_container() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    node.deploy(&echo("neighbour"));
    let addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let neighbour = &ours("container", "neighbour")[0];
    let neighbour = docker(&["inspect", "--format", addresses, neighbour]);
    // As the management service of the original's command: on the engine's default bridge.
    let name = format!("bystander-{}", std::process::id());
    let serve = ["python3", "-m", "http.server", "7000"];
    let run = [
        "run",
        "--detach",
        "--rm",
        "--name",
        &name,
        "python:3-alpine",
    ];
    docker(&[&run[..], &serve].concat());
    let bystander = docker(&["inspect", "--format", addresses, &name]);
    let connect = format!("import socket; socket.create_connection(('{bystander}', 7000), 2)");
    let control = ["run", "--rm", "python:3-alpine", "python3", "-c", &connect];
    until("the control reaches it", || {
        let tried = Command::new("docker").args(control).output();
        tried
            .is_ok_and(|tried| tried.status.success())
            .then_some(())
    });
    let builds = Function::python(
        "builds",
        "import probe\ndef fn(input): return repr(probe.reached)\n",
    )
    .file("requirements.txt", "./probe\n")
    .file("probe/setup.py", PROBE)
    .file("probe/addresses", format!("{bystander} {neighbour}"));
    let deployed = node.try_deploy(&builds);
    docker(&["rm", "--force", &name]);
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    assert_eq!(node.post("builds", b"").text(), "[]");
    node.stop();
    assert!(ours("network", "build").is_empty());
}

#[test]
fn what_was_built_under_a_tag_that_moved_is_built_again() {
    let name = format!("moves-{}:1", std::process::id());
    docker(&["tag", "python:3-alpine", &name]);
    let images = ["--backend", "docker", "--image-python3", &name];
    let node = Node::start_at(&Place::new(), &images);
    let built = |body: &str| {
        Function::python("built", body)
            .file("requirements.txt", "./which\n")
            .file(
                "which/setup.py",
                "from setuptools import setup
open('which.py', 'w').write('image = %r\\n' % open('/etc/which').read())
setup(name='which', version='1', py_modules=['which'])
",
            )
    };
    let fixed = "import which\ndef fn(input): return which.image\n";
    for image in ["one", "two"] {
        let container = format!("which-{image}-{}", std::process::id());
        let write = format!("echo {image} > /etc/which");
        docker(&["run", "--name", &container, "alpine:3", "sh", "-c", &write]);
        docker(&["commit", &container, &name]);
        docker(&["rm", &container]);
        node.deploy(&built(fixed));
        assert_eq!(node.post("built", b"").text().trim(), image);
    }
    node.stop();
    docker(&["rmi", &name]);
}

#[test]
fn a_node_comes_back_after_clean_was_run_beside_it() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    node.deploy(&echo("cleaned").set("threads", "2"));
    let clean = Command::new(e2e::program()).arg("clean").output();
    let clean = clean.expect("the program starts");
    assert!(clean.status.success(), "{clean:?}");
    until("the function is back", || {
        let reply = node.post("cleaned", b"back");
        (reply.status == 200 && reply.text() == "back").then_some(())
    });
    node.deploy(&echo("new"));
    assert_eq!(node.post("new", b"x").text(), "x");
    node.stop();
    assert!(ours("container", "").is_empty());
    assert!(ours("network", "").is_empty());
}

#[test]
fn clean_removes_what_carries_the_label_and_nothing_else() {
    // An engine of this machine may have more than what the tests make there.
    let others = ours("container", "");
    assert!(others.is_empty(), "they would be removed, too: {others:?}");
    let tag = format!("cleaned-{}", std::process::id());
    let (mine, theirs) = (format!("tinyfaas-x-{tag}"), format!("theirs-{tag}"));
    for (name, labels) in [
        (&mine, &["--label", "tinyFaaS=x"][..]),
        (&theirs, &["--label", "other=tinyFaaS"][..]),
    ] {
        docker(
            &[
                &["create", "--name", name][..],
                labels,
                &["alpine:3", "true"],
            ]
            .concat(),
        );
        let subnet = if name == &mine {
            "10.99.1.0/24"
        } else {
            "10.99.2.0/24"
        };
        let network = ["network", "create", "--subnet", subnet];
        docker(&[&network[..], labels, &[name]].concat());
        docker(&[&["volume", "create"][..], labels, &[name]].concat());
    }
    let clean = Command::new(e2e::program()).arg("clean").output();
    let clean = clean.expect("the program starts");
    assert!(clean.status.success(), "{clean:?}");
    for list in [
        &["ps", "--all", "--format", "{{.Names}}"][..],
        &["network", "ls", "--format", "{{.Name}}"],
        &["volume", "ls", "--format", "{{.Name}}"],
    ] {
        let left = docker(list);
        assert!(!left.contains(&mine), "{list:?}: {left}");
        assert!(left.contains(&theirs), "{list:?}: {left}");
    }
    docker(&["rm", &theirs]);
    docker(&["network", "rm", &theirs]);
    docker(&["volume", "rm", &theirs]);
}
