//! What is built, from what, and what its key holds.

use super::npm::with_scripts;
use super::*;
use faas::{Entry, FunctionLimits, FunctionLog, FunctionSpec, Limits};
use std::sync::Arc;

/// A package without code.
pub(crate) fn package() -> Package {
    Function::nodejs(&[]).package()
}

struct Function {
    folder: tempfile::TempDir,
    runtime: Runtime,
    allow_scripts: bool,
    digest: String,
    version: String,
}

impl Function {
    fn new(runtime: Runtime, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        Self {
            folder,
            runtime,
            allow_scripts: false,
            digest: "digest".into(),
            version: "1".into(),
        }
    }

    fn nodejs(files: &[(&str, &str)]) -> Self {
        Self::new(Runtime::Nodejs, files)
    }

    fn python3(requirements: &str) -> Self {
        Self::new(Runtime::Python3, &[("requirements.txt", requirements)])
    }

    fn allowing(mut self) -> Self {
        self.allow_scripts = true;
        self
    }

    fn package(&self) -> Package {
        let limits = Limits::default();
        let spec = FunctionSpec {
            name: "fn".parse().unwrap(),
            runtime: self.runtime,
            entry: Entry::Convention,
            handlers: 1,
            envs: Vec::new(),
            network: faas::Network::None,
            allow_hosts: Vec::new(),
            allow_scripts: self.allow_scripts,
            cors: None,
            limits: FunctionLimits::default(),
        };
        Package {
            spec: Arc::new(spec),
            code: self.folder.path().to_owned(),
            digest: self.digest.clone(),
            log: Arc::new(FunctionLog::new(&limits)),
            progress: faas::Progress::default(),
            asker: faas::Asker::Node,
        }
    }

    fn recipe_with(&self, envs: &[(String, String)]) -> Result<Option<Recipe>, PrepareError> {
        let npm = Npm {
            program: "node".into(),
            args: vec!["npm".into()],
            version: "1".into(),
        };
        let toolchain = Toolchain {
            program: "program".into(),
            version: &self.version,
            npm: Some(npm),
            pip_config: Vec::new(),
            pip_fix: "install pip",
            envs,
            go_shim: "package main",
        };
        recipe(&self.package(), &toolchain)
    }

    fn recipe(&self) -> Option<Recipe> {
        self.recipe_with(&[]).unwrap()
    }

    fn refusal(&self) -> String {
        self.recipe_with(&[]).unwrap_err().text()
    }

    /// Whether the build sees the code; then its digest is in the key.
    fn sees_code(&mut self) -> bool {
        let recipe = self.recipe().unwrap();
        let before = recipe.key;
        self.digest.push_str("-changed");
        let has_digest = self.recipe().unwrap().key != before;
        assert_eq!(recipe.copies_code, has_digest);
        has_digest
    }
}

#[test]
fn a_build_of_packages_that_npm_fetches_sees_no_code() {
    let check = |manifest: &str, expected: bool| {
        let mut function = Function::nodejs(&[("package.json", manifest)]);
        assert_eq!(function.sees_code(), expected, "{manifest}");
        let place = function.recipe().unwrap().result;
        let wanted = if expected {
            Place::Code
        } else {
            Place::Modules
        };
        assert_eq!(place, wanted, "{manifest}");
    };
    for version in [
        "^1.2.3 || >=2.0.0-rc.1",
        "latest",
        "*",
        "",
        "1.x",
        "npm:@a/b@^1.0.0",
        "~1.2",
    ] {
        check(
            &format!(r#"{{"dependencies": {{"a": "{version}"}}}}"#),
            false,
        );
    }
    for version in [
        "file:./lib",
        "file:../x",
        "./lib",
        "lib/units",
        "~/x",
        "link:lib",
        "workspace:*",
        "a.tgz",
        "x.tar.gz",
        "https://example.org/a.tgz",
        "git+ssh://example.org/a.git",
        "user/repository",
    ] {
        for list in [
            "dependencies",
            "devDependencies",
            "optionalDependencies",
            "peerDependencies",
        ] {
            let manifest =
                format!(r#"{{"dependencies": {{"b": "1"}}, "{list}": {{"a": "{version}"}}}}"#);
            check(&manifest, true);
        }
    }
    check(r#"{"workspaces": ["packages/*"]}"#, true);
    check(
        r#"{"dependencies": {"a": "1"}, "overrides": {"b": {"c": "file:./c"}}}"#,
        true,
    );
    check(
        r#"{"dependencies": {"a": "1"}, "overrides": {"b": {"c": "$a"}}}"#,
        false,
    );
}

#[test]
fn a_lock_or_npmrc_that_names_files_lets_the_build_see_the_code() {
    let check = |name: &str, contents: &str, expected: bool| {
        let manifest = ("package.json", r#"{"dependencies": {"a": "1"}}"#);
        let mut function = Function::nodejs(&[manifest, (name, contents)]);
        assert_eq!(function.sees_code(), expected, "{name}: {contents}");
        // Plain or not, what it says is in the key.
        let other = Function::nodejs(&[manifest]);
        assert_ne!(function.recipe().unwrap().key, other.recipe().unwrap().key);
    };
    check("package-lock.json", r#"{"packages": {}}"#, false);
    check(
        "package-lock.json",
        r#"{"packages": {"node_modules/a": {"link": true}}}"#,
        true,
    );
    check(
        "npm-shrinkwrap.json",
        r#"{"dependencies": {"a": {"version": "file:a"}}}"#,
        true,
    );
    check(
        ".npmrc",
        "legacy-peer-deps=true\n@a:registry=https://example.org\n",
        false,
    );
    check(".npmrc", "//example.org/:_authToken=secret\n", false);
    check(".npmrc", "cafile=./ca.pem\n", true);
    check(".npmrc", "//example.org/:certfile=./cert.pem\n", true);
}

#[test]
fn a_lock_file_is_obeyed_or_refused_by_its_name() {
    let manifest = ("package.json", r#"{"dependencies": {"a": "1"}}"#);
    for foreign in [
        "yarn.lock",
        "pnpm-lock.yaml",
        "bun.lock",
        "bun.lockb",
        "deno.lock",
    ] {
        let refusal = Function::nodejs(&[manifest, (foreign, "")]).refusal();
        assert!(
            refusal.contains(foreign) && refusal.contains("package-lock.json"),
            "{refusal}"
        );
        let lock = ("package-lock.json", "{}");
        let both = Function::nodejs(&[manifest, (foreign, ""), lock])
            .recipe()
            .unwrap();
        assert!(both.args.contains(&"ci".to_owned()));
    }
    let unlocked = Function::nodejs(&[manifest]).recipe().unwrap();
    assert!(unlocked.args.contains(&"install".to_owned()));
    for foreign in [
        "poetry.lock",
        "uv.lock",
        "pdm.lock",
        "Pipfile.lock",
        "Pipfile",
    ] {
        let refusal = Function::new(Runtime::Python3, &[(foreign, "")]).refusal();
        assert!(
            refusal.contains(foreign) && refusal.contains("requirements.txt"),
            "{refusal}"
        );
    }
}

#[test]
fn scripts_run_only_where_they_are_allowed() {
    let manifest = r#"{"scripts": {"postinstall": "node x.js"}, "dependencies": {"a": "1"}}"#;
    let files = [("package.json", manifest)];
    let ignoring = "--ignore-scripts".to_owned();
    let recipe = Function::nodejs(&files).recipe().unwrap();
    assert!(recipe.args.contains(&ignoring));
    assert!(recipe.notes[0].contains("postinstall") && recipe.notes[0].contains("--allow-scripts"));
    let allowed = Function::nodejs(&files).allowing().recipe().unwrap();
    assert!(!allowed.args.contains(&ignoring) && allowed.copies_code);
    assert!(allowed.notes.is_empty());
    assert_ne!(allowed.key, recipe.key);
    let only_script = [(
        "package.json",
        r#"{"scripts": {"postinstall": "node x.js"}}"#,
    )];
    assert!(Function::nodejs(&only_script).recipe().is_none());
    assert!(Function::nodejs(&only_script).allowing().recipe().is_some());
}

#[test]
fn packages_that_wanted_to_run_a_script_are_named() {
    let list = r#"{"packages": {"node_modules/a": {"hasInstallScript": true}, "node_modules/b": {},
        "node_modules/c/node_modules/@d/e": {"hasInstallScript": true}}}"#;
    assert_eq!(with_scripts(list.as_bytes()), ["@d/e", "a"]);
    assert!(with_scripts(b"not JSON").is_empty());
}

#[test]
fn what_there_is_already_is_not_installed() {
    let manifest = ("package.json", r#"{"dependencies": {"a": "1"}}"#);
    assert!(
        Function::nodejs(&[manifest, ("node_modules/a/index.js", "")])
            .recipe()
            .is_none()
    );
    assert!(
        Function::nodejs(&[("package.json", "{}")])
            .recipe()
            .is_none()
    );
    assert!(Function::nodejs(&[("index.js", "")]).recipe().is_none());
    assert!(
        Function::python3("\u{feff}# nothing\n\n")
            .recipe()
            .is_none()
    );
}

#[test]
fn a_mark_at_the_start_is_no_error() {
    let manifest = "\u{feff}{\"dependencies\": {\"a\": \"1\"}}";
    assert!(
        Function::nodejs(&[("package.json", manifest)])
            .recipe()
            .is_some()
    );
    let error = Function::nodejs(&[("package.json", "{,}")]).refusal();
    assert!(error.contains("package.json is not valid JSON"), "{error}");
    assert!(!Function::python3("\u{feff}six\n").sees_code());
}

#[test]
fn a_build_of_packages_that_pip_fetches_sees_no_code() {
    let check = |line: &str, expected: bool| {
        let mut function = Function::python3(&format!("six==1.16.0\n{line}\n"));
        assert_eq!(function.sees_code(), expected, "{line}");
    };
    for line in [
        "six",
        "Django>=4,<5",
        "a[b,c]~=1.0 ; python_version < \"3.11\"",
        "a == 1.* # a comment",
        "a==1 --hash=sha256:abc \\\n  --hash=sha256:def",
        "--pre",
        "--no-binary :all:",
        "--index-url https://example.org/simple",
        "-i https://example.org/simple",
    ] {
        check(line, false);
    }
    for line in [
        "./lib",
        "lib/mylib",
        "libs/mylib[extra]",
        "-e lib",
        "--editable=./lib",
        "lib @ file:///fn/lib",
        "lib@ ./lib",
        "mylib-1.0-py3-none-any.whl",
        "a.tar.gz",
        "wheels/a.whl",
        "-r more.txt",
        "-c constraints.txt",
        "--find-links wheels",
        "-f .",
        "$LIB",
        "git+https://example.org/a",
        "https://example.org/a.whl",
        "--index-url ./simple",
        "--index-url=file:///fn/simple",
        "--unknown x",
        "lib \\\n @ ./lib",
        "..\\lib",
    ] {
        check(line, true);
    }
}

#[test]
fn what_is_to_be_installed_in_place_is_copied() {
    let files = [
        ("requirements.txt", "-e ./libs/a\nsix\n-r sub/more.txt\n"),
        (
            "sub/more.txt",
            "--editable=libs/b\n-r ../deep.txt\n-r ../../outside.txt\n",
        ),
        (
            "deep.txt",
            "-e git+https://example.org/c#egg=c\n-r requirements.txt\n",
        ),
    ];
    let recipe = Function::new(Runtime::Python3, &files).recipe().unwrap();
    let text = |name: &str| {
        let (_, text) = recipe.files.iter().find(|(path, _)| path == name).unwrap();
        String::from_utf8(text.clone()).unwrap()
    };
    assert_eq!(text("requirements.txt"), "./libs/a\nsix\n-r sub/more.txt\n");
    assert!(text("sub/more.txt").starts_with("libs/b\n"));
    assert!(text("deep.txt").starts_with("git+https://example.org/c#egg=c\n"));
    assert_eq!(recipe.files.len(), 3);
}

#[test]
fn a_project_file_alone_names_the_packages() {
    let project = |text: &str| Function::new(Runtime::Python3, &[("pyproject.toml", text)]);
    let recipe = project("[project]\nname = \"x\"\ndependencies = [\"six==1.16.0\"]\n").recipe();
    let recipe = recipe.unwrap();
    assert_eq!(recipe.files[0].1, b"six==1.16.0\n");
    assert!(!recipe.copies_code);
    assert!(recipe.complaint.contains("pyproject.toml"));
    assert!(
        project("[tool.ruff]\nline-length = 100\n")
            .recipe()
            .is_none()
    );
    for other in [
        "[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\n",
        "[tool.poetry.dependencies]\npython = \"^3.11\"\nsix = \"*\"\n",
    ] {
        let refusal = project(other).refusal();
        assert!(refusal.contains("requirements.txt"), "{refusal}");
    }
    assert!(project("[").refusal().contains("TOML"));
}

#[test]
fn variables_of_builds_are_in_the_key_but_for_the_proxy() {
    let function = Function::python3("six\n");
    let key = |name: &str, value: &str| {
        let envs = [(name.to_owned(), value.to_owned())];
        function.recipe_with(&envs).unwrap().unwrap().key
    };
    assert_ne!(key("PIP_INDEX_URL", "a"), key("PIP_INDEX_URL", "b"));
    assert_eq!(key("HTTPS_PROXY", "a"), key("HTTPS_PROXY", "b"));
}

#[test]
fn a_link_out_of_the_code_is_not_read() {
    let outside = tempfile::tempdir().unwrap();
    let manifest = outside.path().join("package.json");
    fs::write(&manifest, r#"{"dependencies": {"a": "1"}}"#).unwrap();
    let function = Function::nodejs(&[("index.js", "")]);
    let link = function.folder.path().join("package.json");
    std::os::unix::fs::symlink(&manifest, &link).unwrap();
    assert!(link.is_file(), "the control: it can be read by its path");
    assert!(function.recipe().is_none());
}

#[test]
fn the_standard_packages_of_go_are_told_from_others() {
    let root = tempfile::tempdir().unwrap();
    for package in ["fmt", "net/http", "internal/abi", "empty"] {
        fs::create_dir_all(root.path().join("src").join(package)).unwrap();
        if package != "empty" {
            fs::write(root.path().join("src").join(package).join("a.go"), "").unwrap();
        }
    }
    let code = tempfile::tempdir().unwrap();
    let text = "import (\n\t\"net/http\"\n\t\"internal/abi\"\n\t\"example.org/x\"\n)\nvar q = '\"'\nvar x = \"empty\"";
    fs::write(code.path().join("fn.go"), text).unwrap();
    let found = standard_packages(code.path(), "import \"fmt\"", root.path());
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["fmt", "net/http"]);
}

#[test]
fn a_go_file_of_another_package_is_told_to_be_of_main() {
    let function = Function::new(Runtime::Go, &[("fn.go", "package foo\n")]);
    let printed = "found packages foo (fn.go) and main (tinyfaas_shim.go) in /code";
    let error = failed(
        &function.package(),
        "go could not compile the function",
        printed,
    );
    assert!(error.fix.contains("write package main"), "{error:?}");
    let python = Function::python3("");
    let error = failed(&python.package(), "pip failed", printed);
    assert!(!error.fix.contains("package main"), "{error:?}");
}
