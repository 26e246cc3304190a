//! The program as its users run it: start, commands, exit codes, shutdown.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tinyfaas");

/// A node on free ports, with a data directory of its own.
struct Node {
    child: Child,
    bound: Value,
    _stdout: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
    data: PathBuf,
}

fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars() {
        if name.starts_with("TINYFAAS_") || name.ends_with("_PORT") {
            command.env_remove(name);
        }
    }
    command
}

impl Node {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::start_in(folder, data, options)
    }

    fn start_in(folder: tempfile::TempDir, data: PathBuf, options: &[&str]) -> Self {
        let mut child = program()
            .args(["serve", "--json", "--management", "0"])
            .args([
                "--coap",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--grpc",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(&data)
            .args(options)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let bound = serde_json::from_str(&line).expect("the node tells its addresses");
        Self {
            child,
            bound,
            _stdout: stdout,
            folder,
            data,
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        let address = self.bound["management"].as_str().unwrap();
        let mut command = program();
        command.env("TINYFAAS_NODE", address).args(args);
        // Where it finds the token, as the owner of the node does.
        command.env("TINYFAAS_DATA_DIR", &self.data);
        command.output().unwrap()
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn python_function(folder: &Path) -> String {
    let function = folder.join("hello");
    std::fs::create_dir(&function).unwrap();
    let code = "def fn(input, headers):\n    print('called')\n    return f'hello {input}'\n";
    std::fs::write(function.join("fn.py"), code).unwrap();
    function.to_str().unwrap().to_owned()
}

#[test]
fn a_function_is_deployed_called_shown_and_deleted_by_commands() {
    let node = Node::start(&[]);
    let function = python_function(node.folder.path());
    let deployed = node.run(&["deploy", &function, "--threads", "2"]);
    assert!(deployed.status.success(), "{}", stderr(&deployed));
    assert!(stdout(&deployed).contains("http://"), "{deployed:?}");
    let by_name = node.run(&["invoke", "hello", "-d", "you"]);
    assert_eq!(stdout(&by_name), "hello you", "{}", stderr(&by_name));
    let schemes = if cfg!(feature = "grpc") {
        &["coap", "http", "grpc"][..]
    } else {
        &["coap", "http"]
    };
    for scheme in schemes {
        let url = format!("{scheme}://{}/hello", node.bound[*scheme].as_str().unwrap());
        let by_url = node.run(&["invoke", &url, "-d", scheme]);
        assert_eq!(stdout(&by_url), format!("hello {scheme}"), "{by_url:?}");
    }
    let list: Value = serde_json::from_str(&stdout(&node.run(&["list", "--json"]))).unwrap();
    assert_eq!(list["functions"][0]["name"], "hello");
    assert_eq!(list["functions"][0]["handlers"]["ready"], 2);
    assert!(stdout(&node.run(&["list"])).contains("python3"));
    assert!(stdout(&node.run(&["describe", "hello"])).contains("2 of 2 ready"));
    assert!(stdout(&node.run(&["status"])).contains("1 ready"));
    assert!(node.run(&["delete", "hello"]).status.success());
    assert_eq!(node.run(&["invoke", "hello"]).status.code(), Some(4));
    assert_eq!(node.run(&["delete", "hello"]).status.code(), Some(4));
    assert!(node.stop(Signal::TERM).success());
}

#[test]
fn both_signals_end_a_node_with_success() {
    for signal in [Signal::INT, Signal::TERM] {
        assert_eq!(Node::start(&[]).stop(signal).code(), Some(0));
    }
}

#[test]
fn a_node_that_does_not_answer_is_told_by_the_exit_code() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = program()
        .args(["list", "--node", &closed])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("tinyfaas serve"), "{output:?}");
    let usage = program().arg("fly").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_port_in_use_ends_the_start_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = program()
        .args([
            "serve",
            "--management",
            "0",
            "--coap",
            "off",
            "--grpc",
            "off",
        ])
        .args(["--http", &addr, "--data-dir"])
        .arg(folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--http PORT"), "{output:?}");
}

#[test]
fn off_this_machine_the_management_service_wants_a_token() {
    let node = Node::start(&["--management", "0.0.0.0:0"]);
    let port = node.bound["management"].as_str().unwrap();
    let port = port.rsplit(':').next().unwrap();
    let address = format!("http://127.0.0.1:{port}");
    let token = node.folder.path().join("data/token");
    let mut without = program();
    without
        .args(["list", "--node", &address])
        .env("HOME", node.folder.path());
    let without = without.current_dir(node.folder.path()).output().unwrap();
    assert_eq!(without.status.code(), Some(1));
    assert!(stderr(&without).contains("--token-file"), "{without:?}");
    let token = token.to_str().unwrap();
    let with = node.run(&["list", "--node", &address, "--token-file", token]);
    assert!(with.status.success(), "{with:?}");
    assert!(node.stop(Signal::TERM).success());
}

#[test]
fn a_restart_brings_functions_back() {
    let node = Node::start(&[]);
    let function = python_function(node.folder.path());
    assert!(node.run(&["deploy", &function]).status.success());
    let data = node.folder.path().join("data");
    let kept = tempfile::tempdir().unwrap();
    let pid = Pid::from_child(&node.child);
    kill_process(pid, Signal::TERM).unwrap();
    let mut node = node;
    assert!(node.child.wait().unwrap().success());
    std::fs::rename(&data, kept.path().join("data")).unwrap();
    let data = kept.path().join("data");
    let node = Node::start_in(kept, data, &[]);
    let answer = node.run(&["invoke", "hello", "-d", "again"]);
    assert_eq!(stdout(&answer), "hello again", "{}", stderr(&answer));
    assert!(node.stop(Signal::TERM).success());
}

#[test]
fn a_backup_brings_everything_back_on_another_machine() {
    let node = Node::start(&[]);
    let function = python_function(node.folder.path());
    let deploy = ["deploy", &function, "--var", "A=1", "--threads", "2"];
    assert!(node.run(&deploy).status.success());
    let file = node.folder.path().join("backup.tar.gz");
    let file = file.to_str().unwrap();
    let made = node.run(&["backup", file]);
    assert!(made.status.success(), "{}", stderr(&made));

    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let restore = |file: &str, data: &Path| {
        let mut restore = program();
        restore.args(["restore", file, "--data-dir"]).arg(data);
        restore.output().unwrap()
    };
    // What was cut short leaves nothing.
    let whole = std::fs::read(file).unwrap();
    let cut = place.path().join("cut.tar.gz");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let refused = restore(cut.to_str().unwrap(), &data);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("not a whole backup"),
        "{refused:?}"
    );

    let restored = restore(file, &data);
    assert!(restored.status.success(), "{}", stderr(&restored));
    assert!(stdout(&restored).starts_with("1 functions"), "{restored:?}");
    let again = restore(file, &data);
    assert!(
        stderr(&again).contains("has functions already"),
        "{again:?}"
    );

    let other = Node::start_in(place, data, &[]);
    let answer = other.run(&["invoke", "hello", "-d", "there"]);
    assert_eq!(stdout(&answer), "hello there", "{}", stderr(&answer));
    let described = other.run(&["describe", "hello", "--json"]);
    let described: Value = serde_json::from_str(&stdout(&described)).unwrap();
    assert_eq!(described["envs"], serde_json::json!(["A"]), "{described}");
    assert_eq!(described["handlers"]["wanted"], 2);
    assert!(other.stop(Signal::TERM).success());
    assert!(node.stop(Signal::TERM).success());
}

#[cfg(feature = "docker")]
#[test]
fn mgmt_checks_its_settings_as_serve_does() {
    for command in [
        &["serve", "--backend", "docker"][..],
        &["mgmt", "tinyfaas-mgmt"],
    ] {
        for (variable, value, said) in [
            (
                "TINYFAAS_IMAGE_GO",
                "two words",
                "--image-go takes the name",
            ),
            (
                "TINYFAAS_HTTP_HOSTS",
                "http://a.example",
                "--http-hosts takes names",
            ),
            (
                "TINYFAAS_HANDLERS_DIR",
                "/nowhere/handlers",
                "--handlers-dir must",
            ),
            (
                "TINYFAAS_IMAGE_GOO",
                "golang",
                "TINYFAAS_IMAGE_GOO means nothing",
            ),
        ] {
            let mut started = program();
            started.args(command).env(variable, value);
            // Where the settings pass, there is no engine.
            started.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
            let ended = started.output().unwrap();
            let told = stderr(&ended);
            assert!(
                !ended.status.success() && told.contains(said),
                "{command:?}: {told}"
            );
        }
    }
}
