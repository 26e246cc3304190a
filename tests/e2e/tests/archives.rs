//! Bad archives and bad requests: each is refused with its own message and leaves nothing.

use e2e::crafted::{ZipEntry, tar, tar_gz, zip};
use e2e::{Answer, Function, Node};
use serde_json::json;
use tar::EntryType;

/// A good file of a `python3` function.
const GOOD: (&str, &str) = ("fn.py", "def fn(input): return input\n");

/// An archive and a part of the message that refuses it.
type Bad = (&'static str, Vec<u8>, &'static str);

#[test]
fn a_bad_archive_is_refused_with_its_own_message_and_leaves_nothing() {
    let node = Node::start();
    let mut bad = bad_names();
    bad.extend(bad_contents());
    bad.extend(bad_tars());
    assert!(bad.len() >= 20);
    let mut wrong = Vec::new();
    for (what, archive, part) in bad {
        let answer = node.deploy_archive("bad", "env=python3", &archive);
        wrong.extend(told(what, &answer, 400, part));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    leaves_nothing(&node);
}

#[test]
fn code_that_can_not_run_is_refused_with_what_it_said_and_leaves_nothing() {
    let node = Node::start();
    let python = |code: &str| Function::python("bad", code);
    let cases = [
        (
            "no fn.py",
            Function::new("bad", "python3").file("main.py", ""),
            "fn.py",
        ),
        (
            "no fn.sh",
            Function::new("bad", "binary").file("main.sh", ""),
            "fn.sh",
        ),
        (
            "no fn.go",
            Function::new("bad", "go").file("README", ""),
            "go",
        ),
        ("a syntax error", python("def fn(:\n"), "SyntaxError"),
        (
            "an error while loading",
            python("raise ValueError('not today')"),
            "not today",
        ),
        ("no function fn", python("x = 1\n"), "fn(input"),
        (
            "a missing module",
            python("import no_such_module\n"),
            "no_such_module",
        ),
        (
            "bad requirements",
            python(GOOD.1).file("requirements.txt", "not a requirement !!\n"),
            "requirement",
        ),
        (
            "a bad package.json",
            Function::new("bad", "nodejs")
                .file("package.json", "{")
                .file("index.js", ""),
            "package.json",
        ),
        (
            "a module that throws",
            Function::new("bad", "nodejs").file("index.js", "throw new Error('not today')"),
            "not today",
        ),
        (
            "Go that does not compile",
            Function::new("bad", "go").file("fn.go", "package main\nfunc fn() {"),
            "fn.go",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, function, part) in cases {
        let answer = node.try_deploy(&function);
        wrong.extend(told(what, &answer, 422, part));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    leaves_nothing(&node);
}

#[test]
fn a_bad_setting_is_refused_with_its_name_and_leaves_nothing() {
    let node = Node::start();
    let good = zip(&[ZipEntry::file(GOOD.0, GOOD.1)]);
    let mut wrong = Vec::new();
    for (query, field) in [
        ("env=cobol", "env"),
        ("threads=0", "threads"),
        ("threads=many", "threads"),
        ("threads=60000", "threads"),
        ("memory=1", "memory"),
        ("memory=much", "memory"),
        ("deadline=soon", "deadline"),
        ("cpu=-1", "cpu"),
        ("network=perhaps", "network"),
        ("queue=-1", "queue"),
        ("var=novalue", "var"),
        ("color=red", "color"),
    ] {
        let query = if query.starts_with("env") {
            query.to_owned()
        } else {
            format!("env=python3&{query}")
        };
        let answer = node.deploy_archive("bad", &query, &good);
        let named = answer.json()["field"].as_str().map(str::to_owned);
        wrong.extend(told(&query, &answer, 400, ""));
        if named
            .as_deref()
            .is_none_or(|named| !named.starts_with(field))
        {
            wrong.push(format!("{query}: the field is {named:?}"));
        }
    }
    for name in ["..", "a b", "a//b", "ü", &"n".repeat(256)] {
        let answer = node.deploy_archive(name, "env=python3", &good);
        wrong.extend(told(name, &answer, 400, ""));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    leaves_nothing(&node);
}

#[test]
fn a_bad_old_upload_is_refused_and_leaves_nothing() {
    let node = Node::start();
    let body = |field: &str, value: serde_json::Value| {
        let mut body = json!({"name": "bad", "env": "python3", "threads": 1, "zip": "UEsFBg=="});
        body[field] = value;
        body.to_string()
    };
    for (path, body, part) in [
        ("/upload", body("zip", json!("???")), "base64"),
        ("/upload", body("zip", json!("aGVsbG8=")), "zip"),
        ("/upload", body("name", json!("../bad")), "name"),
        ("/upload", body("env", json!("cobol")), "env"),
        ("/upload", body("threads", json!(0)), "threads"),
        ("/upload", body("envs", json!(["novalue"])), "envs"),
        ("/upload", "[]".to_owned(), "JSON"),
        (
            "/uploadURL",
            body("url", json!("ftp://127.0.0.1/a.zip")),
            "url",
        ),
        (
            "/uploadURL",
            body("url", json!("http://127.0.0.1:1/a.zip")),
            "url",
        ),
        (
            "/",
            json!({"path": "../..", "resource": "/bad", "entry": "a.js"}).to_string(),
            "path",
        ),
        (
            "/",
            json!({"path": "/etc", "resource": "/bad", "entry": "passwd"}).to_string(),
            "path",
        ),
    ] {
        let answer = node.manage("POST", path, body.as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, 400, "{path} {body}: {text}");
        assert!(
            text.contains(part) && text.lines().count() == 1,
            "{path} {body}: {text}"
        );
    }
    leaves_nothing(&node);
}

#[test]
fn archives_as_macos_and_windows_make_them_are_taken() {
    let node = Node::start();
    let taken = |entries: &[ZipEntry]| {
        let answer = node.deploy_archive("good", "env=python3", &zip(entries));
        assert!(answer.status < 300, "{answer:?}");
        assert_eq!(node.post("good", b"x").text(), "x");
    };
    let file = |name: &str| ZipEntry::file(name, GOOD.1).method(8);
    taken(&[file("fn.py")]);
    taken(&[file("folder/fn.py"), file("folder/sub/other.py")]);
    taken(&[file("folder\\fn.py"), file("folder\\sub\\other.py")]);
    let litter = ZipEntry::file("__MACOSX/folder/._fn.py", "\0\x05\x16\x07");
    taken(&[
        file("folder/fn.py"),
        litter,
        ZipEntry::file("folder/.DS_Store", "\0"),
    ]);
    taken(&[file("code/fn.py"), ZipEntry::link("code/link.py", "fn.py")]);
    let packed = tar_gz(EntryType::Symlink, "link.py", "fn.py");
    let answer = node.deploy_archive("good", "env=python3", &packed);
    assert!(answer.status < 300, "{answer:?}");
}

fn bad_names() -> Vec<Bad> {
    let named = |name: &str| zip(&[ZipEntry::file(GOOD.0, GOOD.1), ZipEntry::file(name, "x")]);
    let twice = ZipEntry::file("a.py", "x");
    vec![
        ("a parent", named("../evil"), ".."),
        ("a parent inside", named("a/../../evil"), ".."),
        ("a parent as Windows writes it", named("..\\evil"), ".."),
        ("an absolute name", named("/etc/evil"), "absolute"),
        ("a drive", named("C:\\evil"), "drive"),
        ("a line end in a name", named("a\nb"), "control"),
        ("a zero byte in a name", named("a\0b"), "control"),
        (
            "a name that is not text",
            tar_gz(EntryType::Regular, b"\xff\xfe", ""),
            "UTF-8",
        ),
        ("a long name", named(&"n".repeat(2000)), "longer than"),
        ("a long segment", named(&"n".repeat(300)), "longer than"),
        ("a deep path", named(&"d/".repeat(40)), "deep"),
        ("a name twice", zip(&[twice.clone(), twice]), "twice"),
        (
            "a file and a folder",
            zip(&[ZipEntry::file("a", ""), ZipEntry::file("a/b", "")]),
            "folder",
        ),
        (
            "a link out",
            zip(&[ZipEntry::link("a", "../../etc/passwd")]),
            "points out",
        ),
        (
            "an absolute link",
            zip(&[ZipEntry::link("a", "/etc/passwd")]),
            "points out",
        ),
        (
            "a broken link",
            zip(&[ZipEntry::link("a", "nothing")]),
            "not in the archive",
        ),
    ]
}

fn bad_contents() -> Vec<Bad> {
    let file = || ZipEntry::file(GOOD.0, GOOD.1);
    let good = zip(&[file()]);
    let bomb = ZipEntry::file("zeros", vec![0; 4 << 20]).method(8);
    let many = (0..20_001).map(|number| ZipEntry::file(format!("f{number}"), ""));
    vec![
        ("nothing", Vec::new(), "no files"),
        ("a text", b"hello".to_vec(), "expected a zip"),
        ("no files", zip(&[]), "no files"),
        ("half a zip", good[..good.len() / 2].to_vec(), "damaged"),
        ("a wrong checksum", zip(&[file().damaged()]), "damaged"),
        ("an encrypted file", zip(&[file().encrypted()]), "encrypted"),
        (
            "a compression that is not known",
            zip(&[file().method(99)]),
            "compressed",
        ),
        ("a bomb", zip(&[bomb]), "times its own size"),
        (
            "too many files",
            zip(&many.collect::<Vec<_>>()),
            "more than 20000 files",
        ),
    ]
}

fn bad_tars() -> Vec<Bad> {
    let good = tar_gz(EntryType::Regular, "a", "");
    vec![
        ("a plain tar", tar(EntryType::Regular, "a", ""), "gzip"),
        ("half a tar.gz", good[..good.len() / 2].to_vec(), "damaged"),
        (
            "a parent in a tar",
            tar_gz(EntryType::Regular, "../evil", ""),
            "..",
        ),
        ("a device", tar_gz(EntryType::Char, "null", ""), "device"),
        (
            "a block device",
            tar_gz(EntryType::Block, "disk", ""),
            "device",
        ),
        ("a pipe", tar_gz(EntryType::Fifo, "pipe", ""), "pipe"),
        (
            "a hard link out",
            tar_gz(EntryType::Link, "a", "/etc/passwd"),
            "",
        ),
        (
            "a link out of a tar",
            tar_gz(EntryType::Symlink, "a", "../b"),
            "points out",
        ),
    ]
}

/// What is wrong with a refusal: it has the status, the part of a message, and says what to do.
fn told(what: &str, answer: &Answer, status: u16, part: &str) -> Option<String> {
    let text = answer.text();
    let media = answer.header("content-type");
    let is_told = answer.status == status
        && text.contains(part)
        && media == Some("application/problem+json")
        && !text.contains("/data/");
    (!is_told).then(|| format!("{what}: {} {text}", answer.status))
}

/// Sees that no function, code or file for a moment is there.
fn leaves_nothing(node: &Node) {
    assert_eq!(node.manage("GET", "/list", b"").text(), "");
    let code = std::fs::read_dir(node.place.data_dir().join("code"));
    let code: Vec<_> = code.into_iter().flatten().collect();
    assert!(code.is_empty(), "{code:?}");
    let left = node.temporary_files();
    assert!(left.is_empty(), "{left:?}");
}
