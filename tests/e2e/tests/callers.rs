//! What callers are told of functions that fail: what happened, and neither what a function or a
//! build printed nor anything of the host.

use e2e::{Function, Node, Place, until};
use std::path::{Path, PathBuf};

/// What functions print, and what no caller may see.
const PRINTED: &str = "printed-s3cret";

/// A Python function that prints and then does this.
fn python(name: &str, then: &str) -> Function {
    let code =
        format!("import os, sys\ndef fn(input):\n    print({PRINTED:?}, flush=True)\n    {then}\n");
    Function::python(name, &code)
}

fn with_package(name: &str) -> Function {
    let code = "import six\ndef fn(input): return six.__version__\n";
    Function::python(name, code).file("requirements.txt", "six==1.16.0\n")
}

/// What callers over each protocol are told of a function that fails.
fn told(node: &Node, name: &str) -> Vec<String> {
    let http = node.post(name, b"");
    assert!(http.status >= 500, "{name}: {}", http.status);
    let mut texts = vec![http.text()];
    for scheme in ["coap", "grpc"] {
        let target = format!("{scheme}://{}/{name}", node.addr(scheme));
        let ended = node.cli(&["invoke", &target]);
        assert_ne!(ended.code, 0, "{target}: {ended:?}");
        texts.push(format!("{}{}", ended.stdout, ended.stderr));
    }
    texts
}

/// Sees that callers are told so much and no more.
fn assert_told(node: &Node, name: &str, reason: &str) {
    let data_dir = node.place.data_dir();
    let secrets = [
        PRINTED,
        "Traceback",
        "/fn/",
        "/shim",
        "127.0.0.1:9/",
        "/nowhere",
        data_dir.to_str().expect("it is text"),
    ];
    for text in told(node, name) {
        assert!(text.contains(reason), "{name}: {text}");
        for secret in secrets {
            assert!(!text.contains(secret), "{name}: {text}");
        }
    }
}

fn state(node: &Node, name: &str) -> (String, String) {
    let shape = node.describe(name);
    let text = |member: &str| shape[member].as_str().unwrap_or_default().to_owned();
    (text("state"), text("failure"))
}

fn wait_until_failed(node: &Node, name: &str) -> String {
    until("the function is known to have failed", || {
        let (state, failure) = state(node, name);
        (state == "failed").then_some(failure)
    })
}

fn code_of(place: &Place, node: &Node, name: &str) -> PathBuf {
    let shape = node.describe(name);
    let digest = shape["digest"]
        .as_str()
        .expect("it has a digest")
        .to_owned();
    place.data_dir().join("code").join(digest)
}

fn forget_builds(data_dir: &Path) {
    for entry in std::fs::read_dir(data_dir.join("builds/kept")).expect("it can be read") {
        std::fs::remove_dir_all(entry.expect("it can be read").path()).expect("it can be removed");
    }
}

#[test]
fn callers_see_no_output_and_no_path_of_functions_that_fail_in_a_call() {
    let node = Node::start();
    node.deploy(&python(
        "raises",
        "raise ValueError('what the caller did wrong')",
    ));
    node.deploy(&python("exits", "sys.stdout.flush(); os._exit(3)"));
    // What a script prints to its standard output is its reply, whatever it ends with.
    let script = format!("#!/bin/sh\necho {PRINTED} >&2\necho its own words\nexit 7\n");
    node.deploy(&Function::script("script", &script));
    let code =
        format!("module.exports = (req, res) => {{ console.log('{PRINTED}'); process.exit(3) }}");
    node.deploy(
        &Function::new("node", "nodejs").file("index.js", code).file(
            "package.json",
            r#"{"name": "fn", "version": "1.0.0", "main": "index.js"}"#,
        ),
    );
    assert_told(&node, "raises", "what the caller did wrong");
    assert_told(&node, "exits", "function \"exits\"");
    assert_told(&node, "node", "function \"node\"");
    assert_told(&node, "script", "its own words");
}

#[test]
fn callers_see_no_output_and_no_path_of_functions_that_do_not_come_back() {
    let place = Place::new();
    let node = Node::start_at(&place, &[]);
    node.deploy(&with_package("unbuilt"));
    node.deploy(&python("damaged", "return input"));
    node.deploy(&python("gone", "return input + 'x'"));
    node.deploy(&python("whole", "return 'whole'"));
    let (damaged, gone) = (
        code_of(&place, &node, "damaged"),
        code_of(&place, &node, "gone"),
    );
    let script = Function::new("unrun", "nodejs")
        .file("index.js", "module.exports = (req, res) => res.send('')");
    let manifest = r#"{"name": "fn", "version": "1.0.0", "main": "index.js"}"#;
    node.deploy(&script.file("package.json", manifest));
    node.kill();
    std::fs::write(damaged.join("fn.py"), "").expect("it can be written");
    std::fs::remove_dir_all(gone).expect("it can be removed");
    // As after an update of the interpreter, where the package index is out of reach.
    forget_builds(&place.data_dir());
    let broken = place.folder().join("node");
    std::fs::write(&broken, "#!/nowhere/node\n").expect("it can be written");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&broken, executable).expect("it can be made executable");
    let broken = broken.to_str().expect("a path of text");
    let mut serve = place.serve(&["--nodejs", broken]);
    serve.env("TINYFAAS_BUILD_PIP_INDEX_URL", "http://127.0.0.1:9/");
    let node = Node::start_command(&place, &mut serve);
    assert_eq!(node.post("whole", b"").text(), "whole");
    let check = |name: &str, known: &str, told: &str| {
        let failure = wait_until_failed(&node, name);
        assert!(failure.contains(known), "{name}: {failure}");
        assert_told(&node, name, told);
    };
    check("unbuilt", "six", "could not be built");
    check("damaged", "damaged on the disk", "damaged");
    check("gone", "its code is gone", "gone");
    check("unrun", broken, "its runtime is missing");
    assert_eq!(node.post("whole", b"").text(), "whole");
    node.kill();
    // Once the index is in reach everything is there again.
    let node = Node::start_at(&place, &[]);
    until("the function is built again", || {
        (node.post("unbuilt", b"").text() == "1.16.0").then_some(())
    });
}
