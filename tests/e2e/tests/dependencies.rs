//! Dependencies are installed at deployment, once.

use e2e::{Function, Node};

#[test]
fn npm_dependencies_are_installed_once_and_kept() {
    let manifest = r#"{"name": "fn", "version": "1.0.0", "main": "index.js",
        "dependencies": {"is-number": "7.0.0"}}"#;
    let code = "const is = require('is-number')
        module.exports = (req, res) => res.send(String(is(req.body)))";
    let function = |name: &str| {
        let function = Function::new(name, "nodejs").file("package.json", manifest);
        function.file("index.js", code)
    };
    installed_once(&function("first"), &function("second"), "12", "true");
}

#[test]
fn pypi_dependencies_are_installed_once_and_kept() {
    let code = "import six\ndef fn(input): return six.ensure_str(input + six.__version__)\n";
    let function =
        |name: &str| Function::python(name, code).file("requirements.txt", "six==1.16.0\n");
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
