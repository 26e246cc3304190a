//! Rules on what the repository's files say.

use crate::command;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The most lines of a Rust file.
const LINES_MAX: usize = 600;

/// What no file may name, in two parts so that this file does not: registries are picked by
/// whoever builds, and a path of one machine helps no other.
const FORBIDDEN: [(&str, &str); 10] = [
    ("crates", ".io"),
    ("registry.", "npmjs"),
    ("npmjs", ".org"),
    ("npmjs", ".com"),
    ("pypi", ".org"),
    ("python", "hosted.org"),
    ("proxy.", "golang.org"),
    ("deb.", "debian.org"),
    ("/root", "/"),
    ("/work", "/"),
];

/// Cargo writes the name of the registry into these files by itself.
const EXEMPT: [&str; 2] = ["Cargo.lock", "fuzz/Cargo.lock"];

/// The rules that are broken, as texts.
///
/// # Errors
/// If the repository can't be read.
pub(crate) fn broken(root: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z"]).current_dir(root);
    let files = command::output(&mut list)?;
    let files = files.split('\0').filter(|file| !file.is_empty());
    let mut findings = Vec::new();
    for file in files.filter(|file| !EXEMPT.contains(file)) {
        // What is deleted and not yet committed is no finding, nor is a picture.
        if let Ok(text) = fs::read_to_string(root.join(file)) {
            findings.extend(broken_in(file, &text));
        }
    }
    Ok(findings)
}

fn broken_in(file: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if file.ends_with(".rs") && lines > LINES_MAX {
        findings.push(format!(
            "{file} has {lines} lines; split it by idea, the most is {LINES_MAX}"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        let found = FORBIDDEN
            .iter()
            .map(|(start, end)| format!("{start}{end}"))
            .find(|word| names(line, word));
        if let Some(word) = found {
            let number = number + 1;
            findings.push(format!("{file}:{number} names {word}; leave it out"));
        }
    }
    findings
}

/// Whether the line has the word; a path only where it starts there.
fn names(line: &str, word: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    let starts = line.match_indices(word).map(|(at, _)| before(at));
    let inner = |c: char| c.is_alphanumeric() || "._-}/".contains(c);
    let mut starts = starts.filter(|c| !word.starts_with('/') || !c.is_some_and(inner));
    starts.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found_and_one_that_only_looks_alike_is_not() {
        let (root, slash) = ("/root", "/");
        let path = format!("{root}{slash}");
        assert!(names(&format!("cd {path}x"), &path));
        assert!(names(&format!("\"{path}\""), &path));
        assert!(!names(&format!("sandbox{path}x"), &path));
        assert!(!names(&format!("dir.join{path}"), &path));
    }

    #[test]
    fn a_long_file_is_found() {
        let text = "//\n".repeat(LINES_MAX + 1);
        assert_eq!(broken_in("a.rs", &text).len(), 1);
        assert_eq!(broken_in("a.md", &text).len(), 0);
    }
}
