//! Power cuts: what was acknowledged is there afterwards, and answers rightly.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows why"
)]

use e2e::{Disk, Function, Node, Place, agent, request_with, until};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use zip::write::SimpleFileOptions;

/// How long functions may take to come back, where they are built again too.
const BACK: Duration = Duration::from_secs(300);

/// The cut comes within this time after the last function of a round was acknowledged.
const SUSPENSE_MS: u32 = 1500;

/// What is deployed: code whose answer is its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Npm,
    Pip,
    Go,
    Wasm,
}

impl Kind {
    /// Those of the short test, which every run has: all.
    const QUICK: [Self; 5] = [Self::Plain, Self::Npm, Self::Pip, Self::Go, Self::Wasm];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Npm => "npm",
            Self::Pip => "pip",
            Self::Go => "go",
            Self::Wasm => "wasm",
        }
    }

    /// The function of that version. Its dependency, which has the version too, comes with it.
    fn function(self, version: usize) -> Function {
        let text = format!("version {version}");
        match self {
            Self::Plain => {
                let code = "import lib\ndef fn(input): return lib.TEXT\n";
                let lib = format!("TEXT = {text:?}\n");
                Function::python(self.name(), code).file("lib.py", lib)
            }
            Self::Npm => Function::new(self.name(), "nodejs")
                .file(
                    "package.json",
                    r#"{"name": "fn", "version": "1.0.0", "main": "index.js",
                        "dependencies": {"dep": "file:./dep.tgz"}}"#,
                )
                .file(
                    "index.js",
                    "const dep = require('dep'); module.exports = (req, res) => res.send(dep.text)",
                )
                .file("dep.tgz", npm_package(version, &text)),
            Self::Pip => Function::python(
                self.name(),
                "import dep, dep.more\ndef fn(input): return dep.more.TEXT\n",
            )
            .file("requirements.txt", "./dep-1.0-py3-none-any.whl\n")
            .file("dep-1.0-py3-none-any.whl", wheel(&text)),
            Self::Go => {
                let code = format!(
                    "package main\n\nfunc fn(data string, headers map[string]string) (string, error) {{\n\
                     \treturn {text:?}, nil\n}}\n"
                );
                Function::new(self.name(), "go").file("fn.go", code)
            }
            Self::Wasm => Function::new(self.name(), "wasm").file("fn.wasm", module(&text)),
        }
    }
}

/// A package as `npm pack` makes it.
fn npm_package(version: usize, text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let manifest =
        format!(r#"{{"name": "dep", "version": "1.0.{version}", "main": "lib/index.js"}}"#);
    let code = format!("exports.text = {text:?}");
    for (path, contents) in [
        ("package/package.json", manifest),
        ("package/lib/index.js", code),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, path, contents.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A wheel as `pip wheel` makes it (PEP 427).
fn wheel(text: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let about = "Metadata-Version: 2.1\nName: dep\nVersion: 1.0\n";
    let wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let record = "dep/__init__.py,,\ndep/more.py,,\ndep-1.0.dist-info/METADATA,,\n\
                  dep-1.0.dist-info/WHEEL,,\ndep-1.0.dist-info/RECORD,,\n";
    for (path, contents) in [
        ("dep/__init__.py", ""),
        ("dep/more.py", &format!("TEXT = {text:?}\n")),
        ("dep-1.0.dist-info/METADATA", about),
        ("dep-1.0.dist-info/WHEEL", wheel),
        ("dep-1.0.dist-info/RECORD", record),
    ] {
        zip.start_file(path, SimpleFileOptions::default()).unwrap();
        zip.write_all(contents.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A WASI command that writes the text: `fd_write(1, 0, 1, 100)`, with what it writes at 0.
fn module(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let mut data = vec![0, 0x41, 0, 0x0b, 16 + length];
    data.extend([16, 0, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    data.extend(text.as_bytes());
    let mut import = Vec::new();
    for name in ["wasi_snapshot_preview1", "fd_write"] {
        import.push(u8::try_from(name.len()).unwrap());
        import.extend(name.as_bytes());
    }
    import.extend([0, 0]);
    let exports = [&[6][..], b"memory", &[2, 0], &[6], b"_start", &[0, 1]].concat();
    let body = [
        0, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 0xe4, 0, 0x10, 0, 0x1a, 0x0b,
    ];
    let code = [&[u8::try_from(body.len()).unwrap()][..], &body].concat();
    let types = [0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0];
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, count, contents) in [
        (1, 2, &types[..]),
        (2, 1, &import),
        (3, 1, &[1]),
        (5, 1, &[0, 1]),
        (7, 2, &exports),
        (10, 1, &code),
        (11, 1, &data),
    ] {
        module.extend([id, u8::try_from(contents.len() + 1).unwrap(), count]);
        module.extend(contents);
    }
    module
}

/// How far a function came: the version that was tried last, and the one acknowledged last.
#[derive(Debug, Default)]
struct Progress {
    tried: AtomicUsize,
    acknowledged: AtomicUsize,
}

/// Deploys version after version until the power is cut.
fn deploy_on(node: &Node, kind: Kind, progress: &Progress, is_cut: &AtomicBool) {
    let agent = agent();
    while !is_cut.load(Ordering::SeqCst) {
        let version = progress.tried.fetch_add(1, Ordering::SeqCst) + 1;
        let function = kind.function(version);
        let url = format!("{}?{}", node.management_url(kind.name()), function.query());
        let token = node.token().map(|token| format!("Bearer {token}"));
        let headers = token.as_deref().map(|token| ("authorization", token));
        let answer = request_with(&agent, "PUT", &url, headers.as_slice(), &function.zip());
        if is_cut.load(Ordering::SeqCst) {
            return;
        }
        let answer = answer.unwrap();
        // Whoever waits for this thread sees that it has ended too early.
        if !(200..300).contains(&answer.status) {
            eprintln!("{kind:?}: {}", answer.text());
            return;
        }
        progress.acknowledged.store(version, Ordering::SeqCst);
    }
}

/// Deploys until each function was acknowledged once more and a moment passed, then cuts the power.
fn one_round(disk: &Disk, place: &Place, functions: &[(Kind, Progress)]) {
    let node = Node::start_at(place, &[]);
    let is_cut = AtomicBool::new(false);
    let acknowledged = || {
        let counts = functions.iter();
        let counts = counts.map(|(_, progress)| progress.acknowledged.load(Ordering::SeqCst));
        counts.collect::<Vec<_>>()
    };
    let before = acknowledged();
    std::thread::scope(|scope| {
        let deploying: Vec<_> = functions
            .iter()
            .map(|(kind, progress)| {
                let (node, is_cut) = (&node, &is_cut);
                scope.spawn(move || deploy_on(node, *kind, progress, is_cut))
            })
            .collect();
        let since = Instant::now();
        while before
            .iter()
            .zip(acknowledged())
            .any(|(before, now)| now == *before)
        {
            let has_failed = deploying.iter().any(|thread| thread.is_finished());
            if has_failed || since.elapsed() > BACK {
                // The others end too, then the test.
                is_cut.store(true, Ordering::SeqCst);
                panic!("a deployment failed");
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let random = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        std::thread::park_timeout(Duration::from_millis(u64::from(random % SUSPENSE_MS)));
        is_cut.store(true, Ordering::SeqCst);
        disk.cut_power();
        // It goes with the power. On a disk that fails it would go on, and so would its builds: pip
        // alone waits a quarter of a minute for such a disk.
        node.kill_now();
    });
    node.kill();
    disk.start_again();
}

/// Sees that every function answers as it was acknowledged, or as it was tried after that.
fn check(place: &Place, functions: &[(Kind, Progress)]) {
    let node = Node::start_at(place, &[]);
    for (kind, progress) in functions {
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let (from, to) = (count(&progress.acknowledged), count(&progress.tried));
        let since = Instant::now();
        let answer = loop {
            let answer = node.post(kind.name(), b"");
            if answer.status == 200 || since.elapsed() > BACK {
                break answer;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        };
        let text = answer.text();
        let version = text.strip_prefix("version ").and_then(|v| v.parse().ok());
        assert!(
            version.is_some_and(|version: usize| (from..=to).contains(&version)),
            "{kind:?}: acknowledged {from}, tried {to}, but answered {}: {text}\n{}",
            answer.status,
            node.describe(kind.name())
        );
    }
    // A node that is stopped in order may leave no mount, and the disk is one.
    node.kill();
}

fn survives(kinds: &[Kind], cuts: usize) {
    let place = Place::new();
    let medium = place.folder().join("medium");
    let disk = Disk::new(&medium, &place.data_dir());
    let disk =
        disk.expect("a test of power cuts mounts ext4: run it as root where loop devices are");
    let functions: Vec<_> = kinds
        .iter()
        .map(|kind| (*kind, Progress::default()))
        .collect();
    for _ in 0..cuts {
        one_round(&disk, &place, &functions);
        check(&place, &functions);
    }
    for (kind, progress) in &functions {
        let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
        eprintln!("{kind:?}: {cuts} cuts, {acknowledged} deployments acknowledged");
    }
    until("the disk is free", || std::fs::remove_file(&medium).ok());
}

#[test]
fn acknowledged_functions_survive_power_cuts() {
    survives(&Kind::QUICK, 3);
}

#[test]
fn without_a_sync_a_file_does_not_survive_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("disk");
    let disk = Disk::new(&folder.path().join("medium"), &mounted).unwrap();
    std::fs::write(mounted.join("lost"), "text").unwrap();
    let kept = std::fs::File::create(mounted.join("kept")).unwrap();
    kept.sync_all().unwrap();
    std::fs::write(mounted.join("lost-too"), "text").unwrap();
    drop(kept);
    disk.cut_power();
    disk.start_again();
    assert!(mounted.join("kept").exists());
    let is_whole = |name| std::fs::read(mounted.join(name)).is_ok_and(|text| text == b"text");
    assert!(!is_whole("lost-too"));
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn plain_functions_survive_twenty_power_cuts() {
    survives(&[Kind::Plain], 20);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn functions_with_npm_packages_survive_twenty_power_cuts() {
    survives(&[Kind::Npm], 20);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn functions_with_pip_packages_survive_twenty_power_cuts() {
    survives(&[Kind::Pip], 20);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn go_functions_survive_twenty_power_cuts() {
    survives(&[Kind::Go], 20);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn wasm_functions_survive_twenty_power_cuts() {
    survives(&[Kind::Wasm], 20);
}
