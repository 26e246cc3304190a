//! The calls that existing users make, exactly as they make them.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{Call, Client, Function, Node, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn the_original_call_deploys_the_sieve_and_libcoap_prints_the_primes() {
    let node = Node::start();
    let port = node.port("management");
    let data = r#"{"path": "sieve-of-erasthostenes", "resource": "/sieve/primes", "entry": "sieve.js", "threads": 4}"#;
    let url = format!("http://localhost:{port}");
    // Told over IPv4: the node listens there alone.
    let deployed = run("curl", &["-4", &url, "--data", data, "-v"]);
    assert!(deployed.contains("/sieve/primes"), "{deployed}");
    let printed = run(
        "coap-client-notls",
        &["-m", "get", &node.url("coap", "sieve/primes")],
    );
    assert_eq!(numbers(&printed), primes(1000), "{printed}");
}

#[test]
fn what_was_uploaded_is_listed_logged_deleted_and_wiped_by_curl() {
    let node = Node::start();
    let zip = STANDARD.encode(Function::python("x", GREETER).zip());
    for name in ["greeter", "other/greeter"] {
        let body = json!({
            "name": name, "env": "python3", "threads": 2, "zip": zip, "envs": ["GREETING=moin"],
        });
        let answer = curl(&node, "/upload", &["--data", &body.to_string()]);
        assert_eq!(answer.lines().count(), 3, "{answer}");
        for scheme in ["coap", "http", "grpc"] {
            let url = format!("{scheme}://127.0.0.1:{}/{name}", node.port(scheme));
            assert!(answer.lines().any(|line| line == url), "{url}: {answer}");
        }
        assert_eq!(node.post(name, b"you").text(), "moin you");
    }
    let mut names: Vec<_> = curl(&node, "/list", &[])
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    assert_eq!(names, ["greeter", "other/greeter"]);
    let line = until("the log has what was printed", || {
        let logs = curl(&node, "/logs?name=greeter", &[]);
        logs.lines()
            .find(|line| line.contains("greeting you"))
            .map(str::to_owned)
    });
    assert!(line.starts_with("function=greeter handler="), "{line}");
    assert!(curl(&node, "/logs", &[]).contains("function=other/greeter "));
    let gone = curl(&node, "/delete", &["--data", r#"{"name": "greeter"}"#]);
    assert_eq!(gone, "");
    assert_eq!(curl(&node, "/list", &[]), "other/greeter\n");
    assert_eq!(node.post("greeter", b"").status, 404);
    curl(&node, "/wipe", &["-X", "POST"]);
    assert_eq!(curl(&node, "/list", &[]), "");
}

#[test]
fn a_bad_old_call_is_answered_with_a_line_that_says_why() {
    let node = Node::start();
    let check = |path: &str, body: &str, status: u16, part: &str| {
        let answer = node.manage("POST", path, body.as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, status, "{path} {body}: {text}");
        assert!(text.contains(part), "{path} {body}: {text}");
    };
    check("/upload", "no JSON", 400, "JSON");
    check("/upload", "{}", 400, "zip");
    check("/delete", r#"{"name": "nobody"}"#, 404, "nobody");
    check("/delete", "{}", 400, "name");
    let folder = r#"{"path": "nowhere", "resource": "/a", "entry": "a.js", "threads": 1}"#;
    check("/", folder, 400, "nowhere");
    let zip = STANDARD.encode(Function::python("x", "raise ValueError('not today')").zip());
    let body = json!({"name": "a", "env": "python3", "threads": 1, "zip": zip}).to_string();
    check("/upload", &body, 422, "not today");
    assert_eq!(node.manage("GET", "/logs?name=nobody", b"").status, 404);
}

#[test]
fn upload_url_fetches_a_zip_and_takes_a_folder_of_it() {
    let node = Node::start();
    let zip = Function::new("x", "python3")
        .file("repo-main/functions/greeter/fn.py", GREETER)
        .file("repo-main/README.md", "nothing")
        .zip();
    std::fs::write(node.place.folder().join("code.zip"), zip).unwrap();
    let server = FileServer::start(node.place.folder());
    let body = json!({
        "name": "fetched", "env": "python3", "threads": 1,
        "url": format!("http://127.0.0.1:{}/code.zip", server.port),
        "subfolder_path": "functions/greeter", "envs": ["GREETING=hej"],
    });
    let answer = curl(&node, "/uploadURL", &["--data", &body.to_string()]);
    assert!(answer.contains("/fetched"), "{answer}");
    assert_eq!(node.post("fetched", b"du").text(), "hej du");
}

#[test]
fn the_scripts_take_the_arguments_that_they_always_took() {
    let node = Node::start();
    let folder = node.place.folder().join("greeter");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("fn.py"), GREETER).unwrap();
    let dir = folder.display().to_string();
    let uploaded = script(&node, "upload.sh", &[&dir, "greeter", "python3", "1"]);
    assert!(uploaded.contains("/greeter"), "{uploaded}");
    assert_eq!(node.post("greeter", b"you").text(), "hello you");
    assert_eq!(script(&node, "list.sh", &[]), "greeter\n");
    until("the log has what was printed", || {
        let logs = script(&node, "logs.sh", &[]);
        logs.contains("greeting you").then_some(())
    });
    let zip = Function::python("x", GREETER)
        .file("sub/fn.py", GREETER)
        .zip();
    std::fs::write(node.place.folder().join("code.zip"), zip).unwrap();
    let server = FileServer::start(node.place.folder());
    let url = format!("http://127.0.0.1:{}/code.zip", server.port);
    script(
        &node,
        "uploadURL.sh",
        &[&url, "sub", "fetched", "python3", "1"],
    );
    assert_eq!(node.post("fetched", b"you").text(), "hello you");
    script(&node, "delete.sh", &["greeter"]);
    assert_eq!(script(&node, "list.sh", &[]), "fetched\n");
    script(&node, "wipe-functions.sh", &[]);
    assert_eq!(script(&node, "list.sh", &[]), "");
}

/// A function that prints and greets.
const GREETER: &str = "import os
def fn(input, headers):
    print('greeting', input)
    return os.environ.get('GREETING', 'hello') + ' ' + (input or '')
";

#[test]
fn a_python_function_gets_a_dict_of_headers_as_http_writes_them() {
    let node = Node::start();
    let code = "import json
def fn(input, headers):
    found = headers['lab'] if 'LAB' in headers else None
    return json.dumps([type(headers).__mro__[1].__name__, {**headers}, found])
";
    node.deploy(&Function::python("show-headers", code));
    let lab = "scalable_software_systems_group";
    // Metadata has names in lower case.
    for (client, name) in [(Client::Curl, "Lab"), (Client::Grpcio, "lab")] {
        let call = Call {
            header: Some((name, lab)),
            ..Call::new("show-headers", b"x")
        };
        let reply = client.call(&node, &call).text();
        let shown: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(shown[0], "dict", "{client:?}: {shown}");
        assert_eq!(shown[1]["Lab"], lab, "{client:?}: {shown}");
        assert_eq!(shown[2], lab, "{client:?}: {shown}");
        assert!(shown[1]["User-Agent"].is_string(), "{client:?}: {shown}");
    }
    let reply = Client::Libcoap.call(&node, &Call::new("show-headers", b""));
    assert_eq!(reply.text(), r#"["dict", {}, null]"#);
}

fn curl(node: &Node, path: &str, args: &[&str]) -> String {
    let url = format!("http://127.0.0.1:{}{path}", node.port("management"));
    let all: Vec<&str> = ["-sS", "--fail-with-body", &url]
        .iter()
        .chain(args)
        .copied()
        .collect();
    run("curl", &all)
}

fn script(node: &Node, name: &str, args: &[&str]) -> String {
    let path = e2e::folder().join("../../scripts").join(name);
    let url = format!("http://127.0.0.1:{}", node.port("management"));
    let mut command = Command::new(path);
    finish(command.args(args).env("TINYFAAS_NODE", url))
}

fn run(program: &str, args: &[&str]) -> String {
    finish(Command::new(program).args(args))
}

/// Runs it to its end; returns its standard output.
fn finish(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout
}

fn numbers(text: &str) -> Vec<u32> {
    let words = text.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

fn primes(largest: u32) -> Vec<u32> {
    let is_prime = |n: &u32| (2..*n).all(|divisor| !n.is_multiple_of(divisor));
    (2..=largest).filter(is_prime).collect()
}

/// Python's server of files, for a folder.
struct FileServer {
    child: std::process::Child,
    port: u16,
}

impl FileServer {
    fn start(folder: &Path) -> Self {
        let folder = PathBuf::from(folder);
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
        command
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let port = line.split_once("port ").unwrap().1;
        let port = port.split_whitespace().next().unwrap().parse().unwrap();
        Self { child, port }
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
