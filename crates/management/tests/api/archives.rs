//! Archives: what is refused, with which words, and what is understood.

use crate::node::{Node, Setup};
use crate::pack;
use faas::Limits;
use std::os::unix::fs::PermissionsExt;
use tar::EntryType;

fn small() -> Limits {
    Limits {
        archive_packed_bytes_max: 1 << 20,
        archive_unpacked_bytes_max: 3 << 20,
        archive_files_max: 50,
        archive_depth_max: 8,
        archive_name_bytes_max: 90,
        ..Limits::default()
    }
}

fn node() -> Node {
    Node::with(Setup {
        limits: small(),
        ..Setup::default()
    })
}

#[test]
fn every_kind_of_bad_zip_is_refused_with_its_own_words_and_leaves_nothing() {
    let good = pack::function("1");
    let long = "n".repeat(100);
    let deep = format!("{}fn.py", "d/".repeat(9));
    let many: Vec<String> = (0..60).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
    let noise: String = (0..150_000_u32)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    let two = pack::zip(&[("fn.aa", "1"), ("fn.ab", "2")]);
    let node = node();
    let check = |archive: &[u8], words: &str| check(&node, archive, words);
    check(b"", "no files");
    check(b"hello, this is no archive", "expected a zip or tar.gz");
    check(&pack::zip(&[]), "no files");
    check(&good[..good.len() - 10], "damaged or cut short");
    check(&pack::zip(&[("../fn.py", "1")]), "\"..\"");
    check(&pack::zip(&[("a/../../fn.py", "1")]), "\"..\"");
    check(&pack::zip(&[("..\\fn.py", "1")]), "\"..\"");
    check(&pack::zip(&[("/etc/fn.py", "1")]), "absolute name");
    check(&pack::zip(&[("C:\\fn.py", "1")]), "Windows drive");
    check(&pack::zip(&[("a\nb", "1")]), "control character");
    check(&pack::zip(&[(&long, "1")]), "longer than 90 bytes");
    check(&pack::zip(&[(&deep, "1")]), "8 folders deep");
    check(&pack::zip(&many), "more than 50 files");
    check(&pack::zip(&[("fn.py", &"0".repeat(2 << 20))]), "200 times");
    check(
        &pack::zip(&[("fn.py", &noise), ("b", &noise)]),
        "larger than 1048576 bytes",
    );
    check(&pack::patch(two, b"fn.ab", b"fn.aa"), "twice");
    check(
        &pack::zip(&[("fn.py", "1"), ("fn.py/x", "2")]),
        "folder and something else",
    );
    check(&pack::patch_headers(good.clone(), 6, 8, 1), "encrypted");
    check(
        &pack::patch_headers(good.clone(), 8, 10, 97),
        "compressed in an unusual way",
    );
    check(
        &pack::patch_headers(good.clone(), 14, 16, 0x1234),
        "damaged or cut short",
    );
    check(
        &pack::zip_links(&[("fn.py", "1")], &[("l", "/etc/passwd")]),
        "out of the function's folder",
    );
    check(
        &pack::zip_links(&[("fn.py", "1")], &[("l", "../../lock")]),
        "out of the function's folder",
    );
    // It is there while it is unpacked, but not where the folder is moved to.
    check(
        &pack::zip_links(&[("fn.py", "1")], &[("l", "../unpacked/fn.py")]),
        "out of the function's folder",
    );
    check(
        &pack::zip_links(&[("fn.py", "1")], &[("l", "nothing")]),
        "not in the archive",
    );
    let chain = [("d/x", ".."), ("y", "d/x/..")];
    check(
        &pack::zip_links(&[("fn.py", "1"), ("d/f", "")], &chain),
        "out of the function's folder",
    );
    check(
        &pack::zip(&[("__MACOSX/._fn.py", "1"), (".DS_Store", "2")]),
        "no files",
    );
    node.wait_for_codes(0);
    assert_eq!(node.get("/list").text, "");
}

#[test]
fn every_kind_of_bad_tar_is_refused_with_its_own_words_and_leaves_nothing() {
    let node = node();
    let check = |archive: &[u8], words: &str| check(&node, archive, words);
    let file = |name| (EntryType::Regular, name, "", &b"1"[..]);
    let link = |name, target| (EntryType::Symlink, name, target, &b""[..]);
    let good = pack::tar_gz(&[file("fn.py")]);
    check(&pack::tar(&[file("fn.py")]), "plain tar");
    check(&good[..good.len() - 6], "damaged or cut short");
    check(&pack::gzip(b"no tar"), "damaged or cut short");
    check(&pack::tar_gz(&[]), "no files");
    check(&pack::tar_gz(&[file("../fn.py")]), "\"..\"");
    check(&pack::tar_gz(&[file("/fn.py")]), "absolute name");
    check(&pack::tar_gz(&[file("fn.py"), file("fn.py")]), "twice");
    check(
        &pack::tar_gz(&[link("d", "/tmp"), file("d/fn.py")]),
        "out of the function's folder",
    );
    check(
        &pack::tar_gz(&[file("e/f"), link("d", "e"), file("d/fn.py")]),
        "folder and something else",
    );
    check(
        &pack::tar_gz(&[file("fn.py"), link("d", "..")]),
        "out of the function's folder",
    );
    let hard = |target| (EntryType::Link, "h", target, &b""[..]);
    check(
        &pack::tar_gz(&[file("fn.py"), hard("/etc/passwd")]),
        "absolute name",
    );
    check(
        &pack::tar_gz(&[file("fn.py"), hard("later")]),
        "not in the archive",
    );
    let device = (EntryType::Char, "null", "", &b""[..]);
    check(
        &pack::tar_gz(&[file("fn.py"), device]),
        "device, pipe or socket",
    );
    let pipe = (EntryType::Fifo, "pipe", "", &b""[..]);
    check(
        &pack::tar_gz(&[file("fn.py"), pipe]),
        "device, pipe or socket",
    );
    // Varied, or its ratio would be refused first.
    let long_name: String = (0..200_000).map(|n| format!("{n}/")).collect();
    let long_name = (EntryType::GNULongName, "x", "", long_name.as_bytes());
    check(
        &pack::tar_gz(&[long_name, file("fn.py")]),
        "a header is too large",
    );
    let zeros = vec![0; 2 << 20];
    check(
        &pack::tar_gz(&[(EntryType::Regular, "fn.py", "", &zeros)]),
        "200 times",
    );
    let noise: Vec<u8> = (0..500_000_u32)
        .flat_map(|n| (n / 16).to_le_bytes())
        .collect();
    let (a, b) = (
        (EntryType::Regular, "a", "", &noise[..]),
        (EntryType::Regular, "b", "", &noise[..]),
    );
    check(&pack::tar_gz(&[a, b]), "more than 3145728 bytes");
    node.wait_for_codes(0);
}

fn check(node: &Node, archive: &[u8], words: &str) {
    let answer = node.put("/v1/functions/bad?runtime=python3", archive);
    assert_eq!(answer.status, 400, "{words}: {}", answer.text);
    assert_eq!(answer.media, "application/problem+json");
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(words), "{words:?} is not in {detail:?}");
    assert_eq!(problem["field"], "archive", "{}", answer.text);
    assert!(!problem["fix"].as_str().unwrap().is_empty());
    assert_eq!(problem["status"], 400);
}

#[test]
fn zips_of_every_system_are_understood() {
    let node = node();
    let check = |archive: &[u8]| {
        let answer = node.put("/v1/functions/good", archive);
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
        assert_eq!(answer.json()["runtime"], "python3");
        assert_eq!(node.invoke("good").unwrap(), "1");
    };
    check(&pack::zip(&[("fn.py", "1")]));
    check(&pack::zip(&[
        ("folder/fn.py", "1"),
        ("folder/lib/a.py", ""),
    ]));
    check(&pack::zip(&[
        ("f/fn.py", "1"),
        ("__MACOSX/f/._fn.py", "x"),
        ("f/.DS_Store", "x"),
    ]));
    let windows = pack::zip(&[("folder\\fn.py", "1"), ("folder\\lib\\a.py", "")]);
    check(&pack::patch_headers(windows, 4, 4, 20));
    check(&pack::zip_links(
        &[("fn.py", "1"), ("lib/a.py", "2")],
        &[("b.py", "lib/a.py")],
    ));
    check(&pack::tar_gz(&[(EntryType::Regular, "./fn.py", "", b"1")]));
    node.wait_for_codes(1);
}

#[test]
fn modes_are_kept_without_setuid_and_links_stay_inside() {
    let node = node();
    let archive = pack::tar_gz(&[
        (EntryType::Directory, "fn", "", b""),
        (EntryType::Regular, "fn/fn.py", "", b"1"),
        (EntryType::Regular, "fn/run", "", b"#!/bin/sh\n"),
        (EntryType::Symlink, "fn/again", "run", b""),
        (EntryType::Link, "fn/copy", "fn/run", b""),
    ]);
    let answer = node.put("/v1/functions/modes", &archive);
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json()["files"], 4);
    let code = node.data_dir().join("code").join(&node.codes()[0]);
    let mode = |name: &str| {
        code.join(name)
            .symlink_metadata()
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("run") & 0o7777, 0o755);
    assert_eq!(mode("copy") & 0o7777, 0o755);
    assert_eq!(mode("fn.py") & 0o7777, 0o644);
    assert_eq!(mode(".") & 0o7777, 0o755);
    assert_eq!(
        code.join("again").read_link().unwrap().to_str(),
        Some("run")
    );
    assert_eq!(node.codes()[0], answer.json()["digest"].as_str().unwrap());
}

#[test]
fn a_program_without_a_mode_can_be_executed() {
    let node = node();
    let files = [
        ("fn.py", "1"),
        ("script", "#!/bin/sh\n"),
        ("program", "\u{7f}ELF\u{2}"),
        ("short", "#!"),
        ("empty", ""),
        ("text", "# no program"),
    ];
    // Each of these files has the mode 0644.
    let answer = node.put("/v1/functions/modes", &pack::zip(&files));
    assert_eq!(answer.status, 201, "{}", answer.text);
    let code = node.data_dir().join("code").join(&node.codes()[0]);
    let modes = files.map(|(name, _)| {
        let metadata = code.join(name).symlink_metadata().unwrap();
        metadata.permissions().mode() & 0o7777
    });
    assert_eq!(modes, [0o644, 0o755, 0o755, 0o755, 0o644, 0o644]);
}
