//! The command line, as people and programs use it.

use e2e::{Function, Node, Place, program, request};
use serde_json::Value;

/// A function that prints and greets.
const GREETER: &str = "import os
def fn(input, headers):
    if input == 'fail': raise ValueError('not today')
    print('greeting', input)
    return os.environ.get('GREETING', 'hello') + ' ' + (input or 'nobody')
";

#[test]
fn a_folder_is_deployed_called_over_every_endpoint_and_deleted() {
    let node = node_with_folder();
    let deploy = [
        "deploy",
        "greeter",
        "--threads",
        "2",
        "--var",
        "GREETING=hej",
    ];
    let deployed = node.cli(&deploy).expect_code(0);
    assert!(deployed.stdout.contains("greeter"), "{deployed:#?}");
    let listed = node.cli(&["list"]).expect_code(0).stdout;
    assert!(
        listed.contains("greeter") && listed.contains("python3"),
        "{listed}"
    );
    assert!(listed.contains("2/2"), "{listed}");
    for target in [
        "greeter",
        &node.url("coap", "greeter"),
        &node.url("http", "greeter"),
        &node.url("grpc", "greeter"),
        &node.url("http", "greeter").replace("http", "HTTP"),
    ] {
        let called = node.cli(&["invoke", target, "-d", "du"]).expect_code(0);
        assert_eq!(called.stdout.trim_end(), "hej du", "{target}");
        let failed = node.cli(&["invoke", target, "-d", "fail"]).expect_code(1);
        assert!(failed.stderr.contains("not today"), "{target}: {failed:#?}");
        let unknown = target.replace("greeter", "nobody");
        let _told = node.cli(&["invoke", &unknown]).expect_code(4);
    }
    let logs = node.cli(&["logs", "greeter"]).expect_code(0).stdout;
    assert!(logs.contains("greeting du"), "{logs}");
    let described = node.cli(&["describe", "greeter"]).expect_code(0).stdout;
    assert!(described.contains("2 of 2 ready"), "{described}");
    let _deleted = node.cli(&["delete", "greeter"]).expect_code(0);
    assert_eq!(node.post("greeter", b"").status, 404);
}

#[test]
fn an_archive_is_deployed_and_everything_is_wiped() {
    let node = Node::start();
    let zip = Function::python("x", GREETER).zip();
    std::fs::write(node.place.folder().join("packed.zip"), zip).unwrap();
    let _deployed = node
        .cli(&["deploy", "packed.zip", "--name", "a/b"])
        .expect_code(0);
    assert_eq!(node.post("a/b", b"you").text(), "hello you");
    let _wiped = node.cli(&["wipe", "--yes"]).expect_code(0);
    assert_eq!(node.manage("GET", "/list", b"").text(), "");
}

#[test]
fn programs_get_json() {
    let node = node_with_folder();
    let json = |args: &[&str]| -> Value {
        let ended = node.cli(args).expect_code(0);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{args:?}: {ended:#?}"))
    };
    assert_eq!(json(&["deploy", "greeter", "--json"])["name"], "greeter");
    assert_eq!(json(&["list", "--json"])["functions"][0]["name"], "greeter");
    assert_eq!(
        json(&["describe", "greeter", "--json"])["runtime"],
        "python3"
    );
    let status = json(&["status", "--json"]);
    assert_eq!(status["functions"]["ready"], 1);
    let addrs: Vec<_> = status["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(addrs.len(), 3, "{status:#}");
    let doctor = json(&["doctor", "--json"]);
    assert!(doctor.to_string().contains("python3"), "{doctor:#}");
}

#[test]
fn each_way_to_fail_has_its_exit_code_and_says_what_to_do() {
    let node = node_with_folder();
    let check = |args: &[&str], code: i32, part: &str| {
        let ended = node.cli(args).expect_code(code);
        assert!(ended.stderr.contains(part), "{args:?}: {ended:#?}");
    };
    check(&["nonsense"], 2, "nonsense");
    check(&["deploy"], 2, "SOURCE");
    check(&["deploy", "greeter", "--threads", "many"], 2, "many");
    check(&["deploy", "nowhere"], 1, "nowhere");
    check(&["deploy", "greeter", "--env", "cobol"], 1, "cobol");
    check(&["describe", "nobody"], 4, "nobody");
    check(&["delete", "nobody"], 4, "nobody");
    check(&["logs", "nobody"], 4, "nobody");
    check(&["invoke", "nobody"], 4, "nobody");
    check(
        &["list", "--node", "http://127.0.0.1:1"],
        3,
        "tinyfaas serve",
    );
    check(&["invoke", "http://127.0.0.1:1/a"], 3, "127.0.0.1:1");
}

#[test]
fn status_doctor_and_completions_are_for_people() {
    let node = Node::start();
    let status = node.cli(&["status"]).expect_code(0).stdout;
    for part in ["coap", "http", "grpc"] {
        assert!(status.contains(node.addr(part)), "{status}");
    }
    let doctor = node.cli(&["doctor"]).expect_code(0).stdout;
    for runtime in ["nodejs", "python3", "go", "binary"] {
        assert!(doctor.contains(runtime), "{doctor}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = node.cli(&["completions", shell]).expect_code(0).stdout;
        assert!(script.contains("deploy"), "{shell}");
    }
}

/// A node whose working directory has the folder `greeter`.
fn node_with_folder() -> Node {
    let node = Node::start();
    let folder = node.place.folder().join("greeter");
    let made = std::fs::create_dir(&folder);
    made.and_then(|()| std::fs::write(folder.join("fn.py"), GREETER))
        .expect("the place takes files");
    node
}

#[test]
fn the_owner_is_let_in_by_the_socket_and_by_the_token_where_every_call_needs_it() {
    let node = Node::start_at(&Place::new(), &["--token", "always"]);
    let url = format!("http://{}/list", node.addr("management"));
    assert_eq!(request("GET", &url, &[], b"").status, 401);
    assert_eq!(node.manage("GET", "/list", b"").status, 200);
    for ended in [node.cli(&["list"]), node.cli_by_data_dir(&["list"])] {
        drop(ended.expect_code(0));
    }
    // Without the data directory it has neither.
    let node_url = url.trim_end_matches("/list");
    let elsewhere = node.place.folder().join("elsewhere");
    let mut command = std::process::Command::new(program());
    command.args(["list", "--node", node_url]);
    let ended = command
        .env("TINYFAAS_DATA_DIR", elsewhere)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("--token-file"), "{said}");
}

/// The library of gRPC takes 16 KiB unless told otherwise.
#[test]
fn all_the_metadata_that_a_function_may_send_is_taken_over_grpc() {
    let node = Node::start();
    let text = "def fn(input, headers):
    return 'here', 200, [(f'x-{n}', 'y' * 90) for n in range(int(input))]
";
    node.deploy(&Function::python("talker", text));
    // Clients of HTTP take no more than about a hundred fields.
    for (scheme, fields) in [("http", "100"), ("grpc", "600")] {
        let url = node.url(scheme, "talker");
        let called = node.cli(&["invoke", &url, "-d", fields]).expect_code(0);
        assert_eq!(called.stdout.trim_end(), "here", "{scheme}");
    }
}
