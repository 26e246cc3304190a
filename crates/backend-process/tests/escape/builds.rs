//! Tries to get out of a build: what npm and pip run there is as untrusted as a function.

use crate::attacks;
use crate::host::{Node, outside};
use anyhow::{Context, Result, ensure};
use faas::Runtime;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

type Test = fn() -> Result<()>;

pub(crate) const ALL: &[(&str, Test)] = &[
    ("builds_of_pip_are_walled_in", pip_is_walled_in),
    ("builds_of_npm_are_walled_in", npm_is_walled_in),
    ("npm_leaves_links_that_nothing_follows", npm_leaves_links),
    ("pip_cannot_replace_its_result", pip_replaces_its_result),
    ("go_builds_write_through_no_link", go_follows_links),
    ("go_builds_use_no_other_functions_code", go_replaces),
    (
        "builds_take_no_space_without_writing_it",
        pip_reserves_nothing,
    ),
];

/// What a build has where a handler has not: a copy of the code that it may write to, and the pipes
/// of the package manager.
const NOT_IN_BUILDS: [&str; 2] = [
    "its_own_code_cannot_be_written",
    "nothing_is_inherited_but_the_three_standard_descriptors",
];

/// Runs every attack in a process of its own and writes the answers down.
const RUNNER: &str = r#"
import json, os

def run(code):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        scope = {}
        try:
            exec(code, scope)
            answer = str(scope["result"])
        except BaseException as error:
            answer = "denied: %r" % error
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer

def run_all(source, target):
    with open(source) as file:
        codes = json.load(file)
    with open(target, "w") as file:
        json.dump({name: run(code) for name, code in codes.items()}, file)
"#;

/// A package whose build runs `script.py`, without anything from an index.
const BACKEND: &str = include_str!("../../../../tests/package/backend.py");
pub(crate) const PROJECT: &str = include_str!("../../../../tests/package/pyproject.toml");

/// A script that tries to take space of a disk without writing it.
const RESERVE: &str = include_str!("../../../../tests/package/reserve.py");

fn pip_is_walled_in() -> Result<()> {
    let node = Node::start()?;
    let codes = codes(&node);
    let answers = node.deployed(
        Runtime::Python3,
        &python_function(
            "import os, runner\n\
         folder = os.path.dirname(__file__)\n\
         runner.run_all(os.path.join(folder, 'codes.json'), '/deps/answers.json')",
            &serde_json::to_string(&codes)?,
        ),
    )?;
    all_are_refused(&codes, &answers)
}

/// A function whose package runs the script when it is built, and which returns what was written down.
fn python_function(script: &str, codes: &str) -> Vec<(&'static str, String)> {
    let code = "import os\ndef fn(input):\n    folder = os.environ['TINYFAAS_DEPS']\n    \
                return open(folder + '/answers.json').read()\n";
    vec![
        ("fn.py", code.to_owned()),
        ("requirements.txt", "./own\n".to_owned()),
        ("own/pyproject.toml", PROJECT.to_owned()),
        ("own/backend.py", BACKEND.to_owned()),
        ("own/script.py", script.to_owned()),
        ("own/runner.py", RUNNER.to_owned()),
        ("own/codes.json", codes.to_owned()),
    ]
}

fn npm_is_walled_in() -> Result<()> {
    let node = Node::start()?;
    let codes = codes(&node);
    let run =
        "python3 -c 'import runner; runner.run_all(\\\"codes.json\\\", \\\"answers.json\\\")'";
    let code = "module.exports = (req, res) => \
                res.send(require('fs').readFileSync(`${__dirname}/answers.json`))";
    let answers = node.deployed(
        Runtime::Nodejs,
        &[
            ("package.json", manifest(run)),
            ("index.js", code.to_owned()),
            ("runner.py", RUNNER.to_owned()),
            ("codes.json", serde_json::to_string(&codes)?),
        ],
    )?;
    all_are_refused(&codes, &answers)
}

fn manifest(postinstall: &str) -> String {
    format!(
        r#"{{"name": "evil", "version": "1.0.0", "scripts": {{"postinstall": "{postinstall}"}}}}"#
    )
}

/// The attacks that builds must withstand, aimed at this node.
fn codes(node: &Node) -> BTreeMap<&'static str, String> {
    let attacks = attacks::all().filter(|attack| !NOT_IN_BUILDS.contains(&attack.name));
    attacks
        .map(|attack| (attack.name, node.aim(attack.code)))
        .collect()
}

/// Each of them succeeds outside and was refused in the build.
fn all_are_refused(codes: &BTreeMap<&str, String>, answers: &str) -> Result<()> {
    let answers: BTreeMap<String, String> =
        serde_json::from_str(answers).with_context(|| format!("the answers: {answers}"))?;
    for attack in attacks::all() {
        let Some(code) = codes.get(attack.name) else {
            continue;
        };
        let (name, answer) = (attack.name, &answers[attack.name]);
        let control = outside(code)?;
        ensure!(
            control.starts_with(attack.outside),
            "{name}: the control outside said {control:?}, not {:?}",
            attack.outside
        );
        ensure!(
            attack.inside.iter().any(|refusal| answer.contains(refusal)),
            "{name}: the build got {answer:?}, expected one of {:?}",
            attack.inside
        );
    }
    Ok(())
}

/// Somebody's home, with a private file and a program with set-user-id.
struct Home {
    folder: PathBuf,
}

impl Home {
    fn make(folder: &Path) -> Result<Self> {
        let folder = folder.join("home");
        fs::create_dir(&folder)?;
        for (name, mode) in [("private", 0o600), ("program", 0o4755)] {
            fs::write(folder.join(name), name)?;
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode))?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        Ok(Self { folder })
    }

    fn ensure_untouched(&self) -> Result<()> {
        for (name, mode) in [("", 0o700), ("private", 0o600), ("program", 0o4755)] {
            let metadata = fs::metadata(self.folder.join(name))?;
            let found = metadata.mode() & 0o7777;
            ensure!(found == mode, "{name:?} has the mode {found:o}");
            let owner = rustix::process::geteuid().as_raw();
            ensure!(metadata.uid() == owner, "{name:?} has another owner");
        }
        Ok(())
    }
}

fn npm_leaves_links() -> Result<()> {
    let node = Node::start()?;
    let home = Home::make(node.folder())?;
    let script = format!(
        "rm -rf node_modules; ln -s {0} node_modules; ln -s {0}/private private",
        home.folder.display()
    );
    // The control: outside, the same script makes links that lead there.
    let control = tempfile::tempdir()?;
    let ended = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&control)
        .status()?;
    ensure!(ended.success(), "the control ended with {ended}");
    for link in ["node_modules/private", "private"] {
        let read = fs::read_to_string(control.path().join(link))?;
        ensure!(read == "private", "the control read {read:?}");
    }
    let code = "const read = (path) => { try { return require('fs').readFileSync(path, 'utf8') } \
                catch (error) { return error.code } }\n\
                module.exports = (req, res) => res.send(['node_modules/private', 'private']\
                .map((name) => read(`${__dirname}/${name}`)).join())";
    let files = [
        ("package.json", manifest(&script)),
        ("index.js", code.to_owned()),
    ];
    let answer = node.deployed(Runtime::Nodejs, &files)?;
    ensure!(answer == "ENOENT,ENOENT", "the function read {answer:?}");
    home.ensure_untouched()
}

fn pip_replaces_its_result() -> Result<()> {
    let node = Node::start()?;
    let home = Home::make(node.folder())?;
    let attempt = format!(
        "\
import json, os
answers = []
for folder in FOLDERS:
    try:
        os.rename(folder, folder + '-away')
        os.symlink({:?}, folder)
        answers.append('replaced')
    except OSError as error:
        answers.append(error.strerror)
result = json.dumps(answers)",
        home.folder
    );
    let control = tempfile::tempdir()?;
    fs::create_dir(control.path().join("deps"))?;
    let folders = format!("FOLDERS = ['{}/deps']\n", control.path().display());
    let said = outside(&(folders + &attempt))?;
    ensure!(said == "[\"replaced\"]", "the control said {said:?}");
    let inside = format!("FOLDERS = ['/deps', '/fn', '/build']\n{attempt}");
    let script = "import os, runner\n\
                  codes = open(os.path.join(os.path.dirname(__file__), 'codes.json')).read()\n\
                  open('/deps/answers.json', 'w').write(runner.run(codes))";
    let answer = node.deployed(Runtime::Python3, &python_function(script, &inside))?;
    ensure!(!answer.contains("replaced"), "the build said {answer:?}");
    ensure!(
        answer.matches("Read-only").count() + answer.matches("busy").count() == 3,
        "{answer:?}"
    );
    home.ensure_untouched()
}

fn go_follows_links() -> Result<()> {
    let node = Node::start()?;
    let home = Home::make(node.folder())?;
    let (planted, private) = (home.folder.join("planted"), home.folder.join("private"));
    let code = "package main\nimport _ \"embed\"\n//go:embed leak\nvar leak string\n\
                func fn(data string, headers map[string]string) (string, error) { return leak, nil }\n";
    // The control: what writes and reads by the path follows the links.
    let control = tempfile::tempdir()?;
    symlink(home.folder.join("control"), control.path().join("go.mod"))?;
    fs::write(control.path().join("go.mod"), "written")?;
    ensure!(
        fs::read_to_string(home.folder.join("control"))? == "written",
        "the control"
    );
    let folder = node.code(&[("fn.go", code.to_owned())])?;
    for (name, target) in [
        ("go.mod", &planted),
        ("tinyfaas_shim.go", &private),
        ("leak", &private),
    ] {
        symlink(target, folder.join(name))?;
    }
    let error = node
        .prepare(Runtime::Go, folder)
        .err()
        .context("it was built")?;
    ensure!(
        error.output.contains("irregular file"),
        "{error}: {}",
        error.output
    );
    ensure!(!planted.exists(), "a file was written through a link");
    ensure!(
        fs::read_to_string(&private)? == "private",
        "a file was overwritten through a link"
    );
    home.ensure_untouched()
}

fn go_replaces() -> Result<()> {
    let node = Node::start()?;
    let other = node.folder().join("other");
    fs::write(other.join("go.mod"), "module other\n\ngo 1.18\n")?;
    fs::write(
        other.join("other.go"),
        "package other\n\nconst KEY = \"kept\"\n",
    )?;
    let module = format!(
        "module fn\n\ngo 1.18\n\nrequire other v0.0.0\n\nreplace other => {}\n",
        other.display()
    );
    let code = "package main\nimport \"other\"\n\
                func fn(data string, headers map[string]string) (string, error) { return other.KEY, nil }\n";
    // The control: outside, Go finds the package there.
    let control = tempfile::tempdir()?;
    fs::write(control.path().join("go.mod"), &module)?;
    let listed = Command::new("go")
        .args(["list", "other"])
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off")
        .env("GOCACHE", control.path().join("cache"))
        .current_dir(&control)
        .output()
        .context("go (Debian: apt install golang-go) is needed")?;
    ensure!(listed.stdout == b"other\n", "the control said {listed:?}");
    let files = [("fn.go", code.to_owned()), ("go.mod", module)];
    let error = node.prepare(Runtime::Go, node.code(&files)?).err();
    let error = error.context("it was built with another function's code")?;
    ensure!(
        error.output.contains("does not exist"),
        "{error}: {}",
        error.output
    );
    Ok(())
}

fn pip_reserves_nothing() -> Result<()> {
    let node = Node::start()?;
    // The control: on the same disk all of them are done, and those that take space take it.
    let folder = node.folder().display().to_string();
    let control =
        format!("import os\nos.environ['FOLDER'] = {folder:?}\n{RESERVE}\nresult = VALUE");
    let check = |said: &str, expected: [(&str, &str, u64); 5]| {
        let answers: BTreeMap<String, (String, u64)> =
            serde_json::from_str(said).with_context(|| said.to_owned())?;
        for (way, answer, mib) in expected {
            ensure!(answers[way] == (answer.to_owned(), mib), "{way}: {said}");
        }
        Ok(())
    };
    let outside = outside(&control)?;
    check(
        &outside,
        [
            ("fallocate", "done", 8),
            ("resvsp", "done", 8),
            ("zero", "done", 8),
            ("hint", "done", 0),
            ("posix", "done", 8),
        ],
    )?;
    let script = format!("{RESERVE}\nopen('/deps/answers.json', 'w').write(VALUE)\n");
    let inside = node.deployed(Runtime::Python3, &python_function(&script, ""))?;
    check(
        &inside,
        [
            ("fallocate", "EOPNOTSUPP", 0),
            ("resvsp", "EOPNOTSUPP", 0),
            ("zero", "EOPNOTSUPP", 0),
            ("hint", "EOPNOTSUPP", 0),
            // The C library writes instead.
            ("posix", "done", 8),
        ],
    )
}
