//! What a `requirements.txt` names, and whether it depends on the code.

use super::{file, without_mark};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Files that a requirements file may lead to.
const FILES_MAX: usize = 64;

/// The endings of packages in a file.
const ARCHIVES: [&str; 9] = [
    ".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz",
];

/// The options that name no file.
const PLAIN_OPTIONS: [&str; 10] = [
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "--no-binary",
    "--only-binary",
    "--prefer-binary",
    "--pre",
    "--require-hashes",
    "--trusted-host",
];

/// What there is to install.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Requirements {
    /// Whether there is nothing.
    pub(super) is_empty: bool,
    /// Whether the result depends on these files alone.
    pub(super) is_plain: bool,
    /// Requirements files as pip shall read them: path and contents.
    pub(super) files: Vec<(String, Vec<u8>)>,
}

/// Reads `requirements.txt`, whose contents are given, and what it leads to.
pub(super) fn read(code: &Path, text: &[u8]) -> Requirements {
    let mut files = BTreeMap::new();
    let mut open = vec![("requirements.txt".to_owned(), text.to_vec())];
    let (mut is_empty, mut is_plain) = (true, true);
    while let Some((name, text)) = open.pop() {
        let text = without_mark(&text);
        let lines = lines(text);
        is_empty &= lines.is_empty();
        is_plain &= lines.iter().all(|line| is_plain_line(line));
        let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
        for nested in lines.iter().filter_map(|line| nested(line)) {
            let Some(path) = below(folder, nested) else {
                continue;
            };
            if files.len() + open.len() < FILES_MAX && !files.contains_key(&path) && path != name {
                open.extend(file(code, &path).map(|text| (path, text)));
            }
        }
        files.insert(name, (without_editable(text), text.to_vec()));
    }
    // Beside the code, what is as it was need not be written.
    let files = files.into_iter();
    let files = files.filter(|(_, (new, old))| is_plain || new != old);
    Requirements {
        is_empty,
        is_plain,
        files: files.map(|(name, (new, _))| (name, new)).collect(),
    }
}

/// The same for what stands in a manifest of another form.
pub(super) fn of_project(name: &str, text: &str) -> Requirements {
    let lines = lines(text.as_bytes());
    Requirements {
        is_empty: lines.is_empty(),
        is_plain: lines.iter().all(|line| is_plain_line(line)),
        files: vec![(name.to_owned(), text.as_bytes().to_vec())],
    }
}

/// The lines as pip reads them: continued ones in one, without comments.
fn lines(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let lines = text.lines().map(|line| {
        let comment = line.find(" #").or_else(|| line.find("\t#"));
        let line = comment.map_or(line, |at| &line[..at]).trim();
        line.to_owned()
    });
    let is_wanted = |line: &String| !line.is_empty() && !line.starts_with('#');
    lines.filter(is_wanted).collect()
}

/// Whether a line needs nothing of the code: a package by its name, versions, hashes, or an option
/// that is known to name no file.
fn is_plain_line(line: &str) -> bool {
    if line.starts_with('-') {
        let option = line.split(['=', ' ', '\t']).next().unwrap_or_default();
        let argument = line[option.len()..].trim_start_matches(['=', ' ', '\t']);
        let names_file = argument.starts_with(['.', '/']) || argument.starts_with("file:");
        return PLAIN_OPTIONS.contains(&option) && !names_file && !line.contains('$');
    }
    let mut words = line.split_whitespace();
    let is_archive = words.clone().any(|word| {
        let word = word.to_ascii_lowercase();
        ARCHIVES.iter().any(|ending| word.ends_with(ending))
    });
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-[],=<>!~*+;'\"() ".contains(c);
    let are_plain = words.all(|word| is_hash(word) || word.chars().all(is_plain));
    are_plain && !is_archive && !line.starts_with('.')
}

fn is_hash(word: &str) -> bool {
    let hash = word.strip_prefix("--hash=");
    hash.is_some_and(|hash| hash.chars().all(|c| c.is_ascii_alphanumeric() || c == ':'))
}

/// The requirements file that a line leads to.
fn nested(line: &str) -> Option<&str> {
    ["--requirement", "-r"].iter().find_map(|option| {
        let rest = line.strip_prefix(option)?;
        Some(rest.trim_start_matches(['=', ' ', '\t']).trim_matches('"'))
    })
}

/// A path below the code, seen from a folder of it; nothing where it leaves the code.
fn below(folder: &Path, path: &str) -> Option<String> {
    let mut parts = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !parts.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    parts.to_str().map(str::to_owned)
}

/// The same lines, but what is to be installed in place is copied: a handler does not see the
/// folder of the build.
fn without_editable(text: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(text) else {
        return text.to_vec();
    };
    let plain = |line: &str| {
        let rest = ["--editable", "-e"].iter().find_map(|option| {
            let rest = line.trim_start().strip_prefix(option)?;
            rest.starts_with(['=', ' ', '\t', '.', '/']).then_some(rest)
        });
        match rest {
            Some(rest) => rest.trim_start_matches(['=', ' ', '\t']).to_owned(),
            None => line.to_owned(),
        }
    };
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    lines.join("\n").into_bytes()
}
