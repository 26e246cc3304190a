//! Dependencies are installed at deployment, once, from the whole of what was deployed.

use e2e::{Function, Node, Place};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn npm_dependencies_are_installed_once_and_kept() {
    let manifest = r#"{"name": "fn", "version": "1.0.0", "main": "index.js",
        "dependencies": {"is-number": "7.0.0"}}"#;
    // They differ in their code, which the packages do not depend on.
    let function = |name: &str| {
        let code = format!(
            "const is = require('is-number') // {name}
            module.exports = (req, res) => res.send(String(is(req.body)))"
        );
        let function = Function::new(name, "nodejs").file("package.json", manifest);
        function.file("index.js", code)
    };
    installed_once(&function("first"), &function("second"), "12", "true");
}

#[test]
fn pypi_dependencies_are_installed_once_and_kept() {
    let function = |name: &str| {
        let code = format!(
            "import six # {name}\ndef fn(input): return six.ensure_str(input + six.__version__)\n"
        );
        Function::python(name, &code).file("requirements.txt", "six==1.16.0\n")
    };
    installed_once(
        &function("first"),
        &function("second"),
        "six ",
        "six 1.16.0",
    );
}

fn installed_once(first: &Function, second: &Function, input: &str, output: &str) {
    let node = Node::start();
    for function in [first, second] {
        node.deploy(function);
        assert_eq!(node.post(&function.name, input.as_bytes()).text(), output);
    }
    let log = node.log();
    let builds = log.lines().filter(|line| line.contains(" built "));
    assert_eq!(builds.count(), 1, "{log}");
}

/// A nodejs function whose code is given, beside its manifest without the name.
fn nodejs(name: &str, manifest: &str, code: &str) -> Function {
    let manifest =
        format!(r#"{{"name": "fn", "version": "1.0.0", "main": "index.js", {manifest}}}"#);
    let function = Function::new(name, "nodejs").file("package.json", manifest);
    function.file("index.js", code)
}

#[test]
fn npm_sees_the_whole_folder_of_the_function() {
    let units = r#"{"name": "units", "version": "1.0.0", "main": "i.js"}"#;
    let of_file = nodejs(
        "file",
        r#""dependencies": {"units": "file:./lib/units"}"#,
        "const u = require('units'); module.exports = (q, r) => r.send(String(u(Number(q.body))))",
    )
    .file("lib/units/package.json", units)
    .file("lib/units/i.js", "module.exports = (c) => c * 9 / 5 + 32");
    // The registry has a package of that name too.
    let greet = r#"{"name": "greet", "version": "1.0.0", "main": "i.js"}"#;
    let of_workspace = nodejs(
        "workspace",
        r#""workspaces": ["packages/*"], "dependencies": {"greet": "1.0.0"}"#,
        "const g = require('greet'); module.exports = (q, r) => r.send(g(q.body))",
    )
    .file("packages/greet/package.json", greet)
    .file("packages/greet/i.js", "module.exports = (n) => 'hi ' + n");
    let with_script = nodejs(
        "script",
        r#""scripts": {"postinstall": "node gen.js"}, "dependencies": {"units": "file:./lib/units"}"#,
        "const made = require('units/made.json'); module.exports = (q, r) => r.send(String(made))",
    )
    .file("gen.js", "require('fs').writeFileSync('node_modules/units/made.json', '1')")
    .file("lib/units/package.json", units)
    .set("allow_scripts", "true");
    let with_settings = nodejs(
        "settings",
        r#""dependencies": {"react": "18.2.0", "react-test-renderer": "17.0.2"}"#,
        "module.exports = (q, r) => r.send(require('react').version)",
    )
    .file(".npmrc", "legacy-peer-deps=true\n");
    let marked = Function::new("marked", "nodejs")
        .file("package.json", "\u{feff}{\"name\": \"fn\", \"main\": \"index.js\", \"dependencies\": {\"ms\": \"2.1.3\"}}")
        .file("index.js", "const ms = require('ms'); module.exports = (q, r) => r.send(String(ms('2h')))");
    let node = Node::start();
    for (function, input, output) in [
        (of_file, "100", "212"),
        (of_workspace, "Ada", "hi Ada"),
        (with_script, "", "1"),
        (with_settings, "", "18.2.0"),
        (marked, "", "7200000"),
    ] {
        node.deploy(&function);
        let answer = node.post(&function.name, input.as_bytes()).text();
        assert_eq!(answer, output, "{}", function.name);
    }
}

/// A python3 function with a library in its folder.
fn with_library(name: &str, requirement: &str, value: &str) -> Function {
    let project =
        "from setuptools import setup\nsetup(name='mylib', version='1.0', packages=['mylib'])\n";
    Function::python(name, "import mylib\ndef fn(input): return mylib.VALUE\n")
        .file("requirements.txt", requirement)
        .file("libs/mylib/setup.py", project)
        .file(
            "libs/mylib/mylib/__init__.py",
            format!("VALUE = {value:?}\n"),
        )
}

#[test]
fn a_library_in_the_folder_is_the_functions_own_and_new_with_each_deployment() {
    let node = Node::start();
    for (name, requirement, value) in [
        ("first", "libs/mylib\n", "of the first"),
        ("first", "libs/mylib\n", "edited"),
        ("second", "libs/mylib\n", "of another function"),
        ("in-place", "-e ./libs/mylib\n", "in place"),
    ] {
        node.deploy(&with_library(name, requirement, value));
        assert_eq!(node.post(name, b"").text(), value, "{name}");
    }
    assert_eq!(node.post("first", b"").text(), "edited");
}

#[test]
fn scripts_that_were_not_run_are_named_where_the_function_fails() {
    let node = Node::start();
    let function = nodejs(
        "script",
        r#""scripts": {"postinstall": "node gen.js"}, "dependencies": {"units": "file:./units"}"#,
        "const made = require('./made.json'); module.exports = (q, r) => r.send(String(made))",
    )
    .file("gen.js", "require('fs').writeFileSync('made.json', '1')")
    .file(
        "units/package.json",
        r#"{"name": "units", "version": "1.0.0"}"#,
    );
    let answer = node.try_deploy(&function);
    let text = answer.text();
    assert!(
        answer.status >= 400 && text.contains("--allow-scripts"),
        "{text}"
    );
    assert!(text.contains("postinstall"), "{text}");
    node.deploy(&function.set("allow_scripts", "true"));
    assert_eq!(node.post("script", b"").text(), "1");
}

#[test]
fn no_variable_of_the_host_enters_a_build_unless_it_is_set_for_builds() {
    let place = Place::new();
    let mut command = place.serve(&[]);
    let secret = "http://user:password@127.0.0.1:9/";
    let of_the_host = [
        "HTTPS_PROXY",
        "npm_config_marker",
        "PIP_INDEX_URL",
        "GOPROXY",
        "ANY_SECRET",
    ];
    for name in of_the_host {
        command.env(name, secret);
    }
    command.env("TINYFAAS_BUILD_npm_config_marker_of_builds", "set");
    let node = Node::start_command(&place, &mut command);
    let script =
        "node -e \\\"require('fs').writeFileSync('env.json', JSON.stringify(process.env))\\\"";
    let function = nodejs(
        "variables",
        &format!(r#""scripts": {{"postinstall": "{script}"}}"#),
        "module.exports = (q, r) => r.json(require('./env.json'))",
    );
    node.deploy(&function.set("allow_scripts", "true"));
    let seen: Value = node.post("variables", b"").json();
    assert!(!seen.to_string().contains("password"), "{seen}");
    assert_eq!(seen["npm_config_marker_of_builds"], "set");
}

#[test]
fn the_cause_of_a_failed_build_stands_last_and_nothing_is_left() {
    let node = Node::start();
    let failing = nodejs(
        "failing",
        r#""dependencies": {"units": "file:./missing.tgz"}"#,
        "module.exports = (q, r) => r.send('')",
    );
    let answer = node.try_deploy(&failing).json();
    let detail = answer["output"].as_str().or(answer["detail"].as_str());
    let last = detail
        .and_then(|text| text.trim_end().lines().last())
        .unwrap_or_default();
    assert!(last.contains("missing.tgz"), "{answer:#}");
    let builds = node.place.data_dir().join("builds");
    for folder in ["staging", "kept"] {
        let left: Vec<_> = fs::read_dir(builds.join(folder)).unwrap().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

#[test]
fn a_lock_file_that_is_not_obeyed_is_refused_by_its_name() {
    let node = Node::start();
    let function = nodejs(
        "locked",
        r#""dependencies": {"is-number": "7.0.0"}"#,
        "module.exports = (q, r) => r.send('')",
    );
    let text = node.try_deploy(&function.file("yarn.lock", "")).text();
    assert!(
        text.contains("yarn.lock") && text.contains("package-lock.json"),
        "{text}"
    );
}

#[test]
fn a_kept_result_that_lost_its_contents_or_fails_to_load_is_built_again() {
    let place = Place::new();
    let function = nodejs(
        "kept",
        r#""dependencies": {"units": "file:./lib/units"}"#,
        "const u = require('units'); module.exports = (q, r) => r.send(u.name)",
    )
    .file(
        "lib/units/package.json",
        r#"{"name": "units", "version": "1.0.0", "main": "i.js"}"#,
    )
    .file("lib/units/i.js", "exports.name = 'whole'");
    let node = Node::start_at(&place, &[]);
    node.deploy(&function);
    drop(node);
    let module = find(&place.data_dir().join("builds/kept"), "i.js");
    let whole = fs::read_to_string(&module).unwrap();
    // As a power cut leaves it, and as a failing disk may: of the same size.
    for damaged in [String::new(), "(".repeat(whole.len())] {
        fs::write(&module, damaged).unwrap();
        let node = Node::start_at(&place, &[]);
        e2e::until("the function answers", || {
            (node.post("kept", b"").text() == "whole").then_some(())
        });
        drop(node);
        assert_eq!(fs::read_to_string(&module).unwrap(), whole);
    }
}

/// The first file of that name below a folder.
fn find(folder: &Path, name: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("it can be read").flatten();
    let mut found = entries.filter_map(|entry| {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let below = find(&entry.path(), name);
            below.starts_with(folder).then_some(below)
        } else {
            (entry.file_name() == name).then(|| entry.path())
        }
    });
    found.next().unwrap_or_default()
}
