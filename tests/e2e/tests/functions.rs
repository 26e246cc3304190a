//! Functions as people write them: what a runtime makes of code, and what it says of code that it
//! cannot run.

use e2e::{Function, Node, until};

/// The answer's JSON to a deployment that must fail.
fn refusal(node: &Node, function: &Function) -> String {
    let answer = node.try_deploy(function);
    assert!(answer.status >= 400, "{}", answer.text());
    answer.text()
}

#[test]
fn a_heap_that_fits_the_handler_does_not_outgrow_it() {
    let node = Node::start();
    // Keeps 100 MB of 256 MiB and makes garbage beside them.
    let code = "let keep = []
        module.exports = (req, res) => {
          const make = (n) => Array.from({ length: 16384 }, (_, j) => j + n + 0.5)
          for (let i = 0; i < 800; i++) keep.push(make(i))
          for (let round = 0; round < 100; round++) {
            const junk = []
            for (let i = 0; i < 40; i++) junk.push(make(round))
            keep[round] = junk[3]
          }
          const limit = require('v8').getHeapStatistics().heap_size_limit
          res.json([keep.length, Math.round(limit / 2 ** 20) < 256])
        }";
    node.deploy(&Function::new("heap", "nodejs").file("index.js", code));
    let answer = node.post("heap", b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "[800,true]"));
}

#[test]
fn go_knows_the_memory_of_its_handler() {
    let node = Node::start();
    let code = "package main
        import (\"fmt\"; \"runtime/debug\")
        func fn(data string, headers map[string]string) (string, int, error) {
            return fmt.Sprint(debug.SetMemoryLimit(-1)), 201, nil
        }";
    let function = Function::new("limit", "go").file("fn.go", code);
    node.deploy(&function);
    let answer = node.post("limit", b"");
    assert_eq!((answer.status, answer.text().as_str()), (201, "241591911"));
    node.deploy(&function.var("GOMEMLIMIT", "1000000B"));
    assert_eq!(node.post("limit", b"").text(), "1000000");
}

#[test]
fn a_script_is_run_by_its_first_line_whatever_its_mode() {
    let node = Node::start();
    let code = "#!/usr/bin/env python3\nimport sys, json\nprint(json.dumps({'len': len(sys.stdin.read())}))\n";
    node.deploy(&Function::script("counts", code).mode(0o644));
    assert_eq!(node.post("counts", b"abc").text(), "{\"len\": 3}\n");
}

#[test]
fn a_script_with_windows_line_endings_is_refused_at_deployment() {
    let node = Node::start();
    let refused = refusal(
        &node,
        &Function::script("crlf", "#!/bin/sh\r\necho hello\r\n"),
    );
    assert!(refused.contains("Windows line endings"), "{refused}");
    assert!(refused.contains("dos2unix"), "{refused}");
}

#[test]
fn go_without_cgo_or_with_another_shape_says_so() {
    let node = Node::start();
    let go = |code: &str| Function::new("bad", "go").file("fn.go", code);
    for (code, part) in [
        (
            "package main\n// int twice(int a) { return 2*a; }\nimport \"C\"\nimport \"fmt\"\n\
             func fn(d string, h map[string]string) (string, error) { return fmt.Sprint(C.twice(21)), nil }",
            "cgo is off",
        ),
        (
            "package main\nfunc handler(d string) string { return d }",
            "write func fn(data string, headers map[string]string) (string, error)",
        ),
        (
            "package main\nfunc fn(d string) string { return d }",
            "fn is a func(string) string: write one of",
        ),
    ] {
        let refused = refusal(&node, &go(code));
        assert!(refused.contains(part), "{part:?} is not in {refused}");
    }
}

#[test]
fn a_cgi_program_sets_status_and_header_fields() {
    let node = Node::start();
    let code = "#!/bin/sh\nprintf 'Status: 404 Not Found\\nETag: \"a\"\\n\\n%s' \"$(cat)\"\n";
    node.deploy(&Function::new("found", "binary").file("fn.cgi", code));
    let answer = node.post("found", b"nothing");
    assert_eq!((answer.status, answer.text().as_str()), (404, "nothing"));
    assert_eq!(answer.header("etag"), Some("\"a\""));
}

#[test]
fn describe_shows_why_handlers_do_not_load_once() {
    let node = Node::start();
    let code = "import os\ndef fn(input): os._exit(1)\n";
    node.deploy(&Function::python("dies", code).set("threads", "2"));
    let digest = node.describe("dies")["digest"].to_string();
    let kept = node
        .place
        .data_dir()
        .join("code")
        .join(digest.trim_matches('"'));
    std::fs::write(kept.join("fn.py"), "def inner():\n    1 / 0\ninner()\n").unwrap();
    // Each call ends one of the two handlers, the less busy one.
    until("no handler is left that was loaded", || {
        let _failed = node.post("dies", b"");
        (node.describe("dies")["handlers"]["ready"] == 0).then_some(())
    });
    let shown = until("both have been started more than once", || {
        let described = node.describe("dies");
        let each = described["handlers"]["each"].as_array()?;
        let is_tried = |handler: &serde_json::Value| {
            handler["restarts"].as_u64() >= Some(3) && handler["state"] == "pausing"
        };
        let is_ready = each.iter().all(is_tried);
        is_ready.then(|| node.cli(&["describe", "dies"]).expect_code(0).stdout)
    });
    assert_eq!(shown.matches("Traceback").count(), 1, "{shown}");
    assert_eq!(shown.matches("ZeroDivisionError").count(), 1, "{shown}");
    assert_eq!(shown.matches("in inner").count(), 1, "{shown}");
    assert!(!shown.contains("shim.py"), "{shown}");
}
