//! Dependencies of functions whose handlers are containers: the same as for processes. The engine
//! is the one that `cargo xtask test` brings.

use e2e::{CONTAINERS, Function, Node, Place, ours, output, until};
use std::path::Path;
use std::process::Command;

/// A python3 function with a library in its folder.
fn with_library(name: &str) -> Function {
    let project =
        "from setuptools import setup\nsetup(name='mylib', version='1.0', packages=['mylib'])\n";
    Function::python(name, "import mylib\ndef fn(input): return mylib.VALUE\n")
        .file("libs/mylib/setup.py", project)
        .file("libs/mylib/mylib/__init__.py", "VALUE = 'installed'\n")
}

#[test]
fn every_form_of_python_packages_is_installed_or_refused_by_name() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    let project =
        "[project]\nname = 'fn'\nversion = '1'\ndependencies = ['mylib @ file:///fn/libs/mylib']\n";
    for (name, manifest, contents) in [
        ("in-place", "requirements.txt", "-e ./libs/mylib\n"),
        ("marked", "requirements.txt", "\u{feff}libs/mylib\n"),
        ("project", "pyproject.toml", project),
    ] {
        node.deploy(&with_library(name).file(manifest, contents));
        assert_eq!(node.post(name, b"").text(), "installed", "{name}");
    }
    for lock in ["poetry.lock", "uv.lock", "Pipfile"] {
        let text = node
            .try_deploy(&with_library("locked").file(lock, ""))
            .text();
        assert!(
            text.contains(lock) && text.contains("requirements.txt"),
            "{text}"
        );
    }
    node.stop();
}

/// An image with npm: the usual one, or one that is made of this machine's npm.
struct NpmImage {
    name: String,
    is_made: bool,
}

impl NpmImage {
    fn find() -> Self {
        let usual = "node:20-alpine";
        let words = ["run", "--rm", usual, "npm", "--version"];
        let asked = Command::new("docker").args(words).output();
        let asked = asked.expect("the docker client is there");
        if asked.status.success() {
            return Self {
                name: usual.to_owned(),
                is_made: false,
            };
        }
        let name = format!("with-npm-{}", std::process::id());
        let node = output("node", &["-p", "process.execPath"]);
        let npm = output("sh", &["-c", "realpath \"$(command -v npm)\""]);
        let packages = Path::new(&npm).ancestors().nth(3).expect("npm's folder");
        let packages = packages.display().to_string();
        let write = format!(
            "mkdir -p {packages} && rmdir {packages} && \
             printf '#!/bin/sh\\nexec node {npm} \"$@\"\\n' > /usr/local/bin/npm && \
             chmod 755 /usr/local/bin/npm"
        );
        output(
            "docker",
            &["run", "--name", &name, usual, "sh", "-c", &write],
        );
        let into = |path: &str| format!("{name}:{path}");
        output("docker", &["cp", &packages, &into(&packages)]);
        output("docker", &["cp", &node, &into("/usr/local/bin/node")]);
        output("docker", &["commit", &name, &name]);
        output("docker", &["rm", &name]);
        Self {
            name,
            is_made: true,
        }
    }
}

impl Drop for NpmImage {
    fn drop(&mut self) {
        if self.is_made {
            drop(Command::new("docker").args(["rmi", &self.name]).output());
        }
    }
}

#[test]
fn npm_obeys_what_is_in_the_folder_and_runs_scripts_where_they_are_allowed() {
    let image = NpmImage::find();
    let args = ["--backend", "docker", "--image-nodejs", &image.name];
    let node = Node::start_at(&Place::new(), &args);
    let manifest = "\u{feff}{\"name\": \"fn\", \"version\": \"1.0.0\", \"main\": \"index.js\",
        \"scripts\": {\"postinstall\": \"node gen.js\"}, \"dependencies\": {\"units\": \"file:./units\"}}";
    let function = Function::new("script", "nodejs")
        .file("package.json", manifest)
        .file(
            "index.js",
            "const made = require('./made.json'), units = require('units');
             module.exports = (q, r) => r.send(String(made + units))",
        )
        .file("gen.js", "require('fs').writeFileSync('made.json', '1')")
        .file(
            "units/package.json",
            r#"{"name": "units", "version": "1.0.0"}"#,
        )
        .file("units/index.js", "module.exports = 10");
    let answer = node.try_deploy(&function);
    let text = answer.text();
    assert!(answer.status >= 400, "{text}");
    assert!(
        text.contains("postinstall") && text.contains("--allow-scripts"),
        "{text}"
    );
    // The same code: what was built without scripts is another result.
    let allowing = function.set("allow_scripts", "true");
    node.deploy(&allowing);
    assert_eq!(node.post("script", b"").text(), "11");
    let foreign = allowing.file("pnpm-lock.yaml", "");
    let text = node.try_deploy(&foreign).text();
    assert!(
        text.contains("pnpm-lock.yaml") && text.contains("package-lock.json"),
        "{text}"
    );
    node.stop();
}

/// Never ends.
const WAITING: &str = "
import time
while True:
    time.sleep(1)
";

#[test]
fn a_build_that_hangs_keeps_no_other_function_from_being_deployed() {
    let node = Node::start_at(&Place::new(), CONTAINERS);
    let hanging = Function::building("hanging", WAITING);
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| node.try_deploy(&hanging));
        until("it is being built", || {
            let listed = node.cli(&["list"]).expect_code(0).stdout;
            listed.contains("`hanging` is being built").then_some(())
        });
        node.deploy(&Function::python("plain", "def fn(input): return input\n"));
        assert_eq!(node.post("plain", b"hello").text(), "hello");
        node.deploy(&Function::building("built", ""));
        assert_eq!(node.post("built", b"").text(), "built");
        let _deleted = node.cli(&["delete", "hanging"]).expect_code(0);
        let answer = deploying.join().expect("it is answered");
        assert!(answer.text().contains("cancelled"), "{}", answer.text());
    });
    node.deploy(&Function::building("hanging", ""));
    until("nothing is left of what was cut", || {
        let left = ["build", "watch", "copy"].map(|what| ours("container", what));
        left.concat().is_empty().then_some(())
    });
    node.stop();
}
