//! Builds that hang: who waits is told, they end with what they are for, and leave others a place.

use e2e::{Function, Node, output, until};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// One whose build never ends, nor what it started.
fn hanging(name: &str) -> Function {
    let script = format!("import subprocess\nsubprocess.run(['sleep', '3600']) # {name}\n");
    Function::building(name, &script)
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
    let mut third = deploying(&node, &Function::building("third", ""), "third");
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

/// Deploys from another address than everybody else; returns the status.
fn deploy_from_afar(node: &Node, function: &Function) -> String {
    let packed = node.place.folder().join("afar.zip");
    std::fs::write(&packed, function.zip()).expect("write the archive");
    let url = format!(
        "{}?{}",
        node.management_url(&function.name),
        function.query()
    );
    let token = node.token().expect("there is a token");
    output(
        "curl",
        &[
            "--silent",
            // Where it waits behind the others, it waits for ever.
            "--max-time",
            "120",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--interface",
            "127.0.0.2",
            "--header",
            &format!("Authorization: Bearer {token}"),
            "--upload-file",
            packed.to_str().expect("a path of text"),
            &url,
        ],
    )
}

#[test]
fn builds_of_one_client_leave_a_place_to_others() {
    let node = Node::start();
    let mut own = ["first", "second"].map(|name| deploying(&node, &hanging(name), name));
    until("both to sleep", || (sleepers(&node) == 2).then_some(()));
    let mut third = deploying(&node, &Function::building("third", ""), "third");
    listed(&node, "`third` waits for a build of `first` or `second`");
    let theirs = Function::building("theirs", "");
    assert_eq!(deploy_from_afar(&node, &theirs), "201");
    assert_eq!(node.post("theirs", b"").text(), "built");
    listed(&node, "`third` waits for a build of `first` or `second`");
    let _deleted = node.cli(&["delete", "first"]).expect_code(0);
    assert!(third.wait().unwrap().success(), "{}", told(&node, "third"));
    let _deleted = node.cli(&["delete", "second"]).expect_code(0);
    for client in &mut own {
        assert!(!client.wait().unwrap().success());
    }
}
