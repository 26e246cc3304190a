//! Builds that hang: who waits is told, and they end with what they are for.

use e2e::{Function, Node, until};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A package that is installed without an index.
const PROJECT: &str = r#"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "own"
version = "1.0"
"#;

const BACKEND: &str = r#"
import base64, hashlib, os, subprocess, zipfile

def build_wheel(folder, settings=None, metadata=None):
    @RUN
    name = "own-1.0-py3-none-any.whl"
    files = {
        "own.py": "VALUE = 'built'\n",
        "own-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: own\nVersion: 1.0\n",
        "own-1.0.dist-info/WHEEL":
            "Wheel-Version: 1.0\nGenerator: own\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "own-1.0.dist-info/RECORD"
    def line(path, text):
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        return "%s,sha256=%s,%d\n" % (path, digest.decode().rstrip("="), len(text))
    files[record] = "".join(line(*file) for file in files.items()) + record + ",,\n"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
"#;

/// A function whose package runs that when it is built.
fn function(name: &str, run: &str) -> Function {
    Function::python(name, "import own\ndef fn(input): return own.VALUE\n")
        .file("requirements.txt", "./own\n")
        .file("own/pyproject.toml", PROJECT)
        .file("own/backend.py", BACKEND.replace("@RUN", run))
}

/// One whose build never ends, nor what it started.
fn hanging(name: &str) -> Function {
    let run = format!("subprocess.run(['sleep', '3600']) # {name}");
    function(name, &run)
}

/// Deploys by the command line, as a person does.
fn deploying(node: &Node, function: &Function, name: &str) -> Child {
    let packed = node.place.folder().join(format!("{name}.zip"));
    std::fs::write(&packed, function.zip()).expect("write the archive");
    let mut command = Command::new(e2e::program());
    command.args([
        "deploy",
        packed.to_str().expect("a path of text"),
        "--env",
        "python3",
    ]);
    command.args(["--node", &format!("http://{}", node.addr("management"))]);
    if let Some(token) = node.token() {
        command.env("TINYFAAS_TOKEN", token);
    }
    let told = std::fs::File::create(told_file(node, name)).expect("make a file");
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let spawned = command.stderr(told).spawn();
    spawned.expect("start tinyfaas deploy")
}

fn told_file(node: &Node, name: &str) -> PathBuf {
    node.place.folder().join(format!("{name}.told"))
}

/// What the command line has said so far of a deployment.
fn told(node: &Node, name: &str) -> String {
    std::fs::read_to_string(told_file(node, name)).expect("read what was told")
}

fn listed(node: &Node, text: &str) {
    until(text, || {
        let listed = node.cli(&["list"]).expect_code(0).stdout;
        listed.contains(text).then_some(())
    });
}

/// The processes that sleep in builds.
fn sleepers(node: &Node) -> usize {
    let processes = node.processes();
    let sleeps = processes.iter().filter(|it| it.name == "sleep");
    sleeps.count()
}

#[test]
fn builds_that_hang_are_told_of_and_end_with_their_functions_and_clients() {
    let node = Node::start();
    let mut first = deploying(&node, &hanging("first"), "first");
    listed(&node, "`first` is being built");
    let mut second = deploying(&node, &hanging("second"), "second");
    listed(&node, "`second` is being built");
    until("both to sleep", || (sleepers(&node) == 2).then_some(()));
    // All places are taken. What has nothing to build does not wait for one.
    node.deploy(&Function::python("plain", "def fn(input): return input\n"));
    assert_eq!(node.post("plain", b"hello").text(), "hello");
    let mut third = deploying(&node, &function("third", "pass"), "third");
    listed(&node, "`third` waits for a build of `first` or `second`");
    until("the command line to tell of it", || {
        let told = told(&node, "third");
        told.contains("waits for a build of `first` or `second`")
            .then_some(())
    });
    for command in [&["status"][..], &["describe", "third"]] {
        let shown = node.cli(command);
        let text = shown.stdout + &shown.stderr;
        assert!(text.contains("third"), "{text}");
    }
    // A client that is interrupted gives its place to the one that waits.
    second.kill().unwrap();
    second.wait().unwrap();
    let ended = third.wait().unwrap();
    assert!(ended.success(), "{}", told(&node, "third"));
    assert_eq!(node.post("third", b"").text(), "built");
    assert_eq!(sleepers(&node), 1);
    let _deleted = node.cli(&["delete", "first"]).expect_code(0);
    let ended = first.wait().unwrap();
    let told = told(&node, "first");
    assert!(!ended.success() && told.contains("cancelled"), "{told}");
    until("the build to be killed", || {
        (sleepers(&node) == 0).then_some(())
    });
    until("its folder to go", || {
        let staging = std::fs::read_dir(node.place.data_dir().join("builds/staging"));
        (staging.unwrap().count() == 0).then_some(())
    });
}
