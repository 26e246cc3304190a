//! A Go function, compiled, and the part of the standard library that it needs.

use super::{Place, Recipe, Toolchain, file, key};
use faas::Package;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Packages of the standard library that one function may have compiled ahead.
const PACKAGES_MAX: usize = 200;
/// Source files larger than this are not looked at for what they import.
const SOURCE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn recipe(package: &Package, toolchain: &Toolchain<'_>) -> Recipe {
    let go_shim = toolchain.go_shim;
    let mut files = vec![("tinyfaas_shim.go".to_owned(), go_shim.as_bytes().to_vec())];
    if file(&package.code, "go.mod").is_none() {
        files.push(("go.mod".to_owned(), b"module fn\n\ngo 1.18\n".to_vec()));
    }
    let words = ["go", toolchain.version, &package.digest];
    Recipe {
        key: key(&words, toolchain.envs, [go_shim.as_bytes()]),
        copies_code: true,
        files,
        program: toolchain.program.clone(),
        args: args(&["-ldflags=-s -w", "-o", "@deps/fn", "."]),
        envs: variables(),
        result: Place::Deps,
        complaint: "go could not compile the function".into(),
        notes: Vec::new(),
    }
}

/// Compiles packages of the standard library, and nothing else, into `@build/go-cache`.
#[must_use]
pub fn library(packages: &BTreeSet<String>, toolchain: &Toolchain<'_>) -> Recipe {
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    Recipe {
        key: library_key(toolchain),
        copies_code: false,
        files: Vec::new(),
        program: toolchain.program.clone(),
        args: args(&names),
        envs: variables(),
        result: Place::Deps,
        complaint: "go could not compile its standard library".into(),
        notes: Vec::new(),
    }
}

/// What the compiled standard library depends on.
#[must_use]
pub fn library_key(toolchain: &Toolchain<'_>) -> String {
    key(&["go", toolchain.version, "library"], toolchain.envs, [])
}

fn args(what: &[&str]) -> Vec<String> {
    let flags = ["build", "-trimpath", "-buildvcs=false"];
    let args = flags.iter().chain(what);
    args.map(|arg| (*arg).to_owned()).collect()
}

fn variables() -> Vec<(&'static str, String)> {
    vec![
        ("GOCACHE", "@build/go-cache".into()),
        ("GOMODCACHE", "@build/mod".into()),
        ("GOPATH", "@build/go".into()),
        ("GOTMPDIR", "@build/tmp".into()),
        ("GOTOOLCHAIN", "local".into()),
        ("CGO_ENABLED", "0".into()),
    ]
}

/// The packages of the standard library that the code and the shim name. What is named by chance
/// is compiled for nothing; what is missed is compiled with the function.
#[must_use]
pub fn standard_packages(code: &Path, shim: &str, root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut look = |text: &str| {
        for word in text.split('"') {
            if found.len() < PACKAGES_MAX && is_standard(word, root) {
                found.insert(word.to_owned());
            }
        }
    };
    look(shim);
    for entry in walkdir::WalkDir::new(code).into_iter().flatten() {
        let is_source = entry.path().extension().is_some_and(|found| found == "go");
        let metadata = entry.metadata().ok();
        let is_small = metadata.is_some_and(|m| m.is_file() && m.len() <= SOURCE_BYTES_MAX);
        if is_source && is_small {
            look(&fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }
    found
}

fn is_standard(word: &str, root: &Path) -> bool {
    let is_path = word
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '/');
    let is_public = word
        .split('/')
        .all(|part| !matches!(part, "" | "internal" | "vendor" | "cmd" | "testdata"));
    is_path && is_public && has_source(&root.join("src").join(word))
}

fn has_source(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| name.ends_with(".go") && !name.ends_with("_test.go"))
}
