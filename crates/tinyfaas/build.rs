//! Finds the examples and the handlers folder, which are built into the program, and tells the
//! linker what makes it smaller.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let manifest_dir =
        std::env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest_dir).join("../..");
    let mut code = String::new();
    for (name, folder) in [("EXAMPLES", "examples"), ("HANDLERS", "handlers")] {
        let folder = root.join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        writeln!(code, "pub(crate) const {name}: &[Bundled] = &[")?;
        for bundled in entries(&folder)?.iter().filter(|path| path.is_dir()) {
            write_bundled(&mut code, bundled)?;
        }
        writeln!(code, "];")?;
    }
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(PathBuf::from(out).join("bundled.rs"), code)?;
    pack_relocations();
    Ok(())
}

/// The addresses that a start has to adjust become a bitmap: 30 kB instead of 900. It wants glibc
/// 2.36 or later, as what is built beside one does anyway; an older linker ignores it.
fn pack_relocations() {
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn write_bundled(code: &mut String, folder: &Path) -> Result<(), Failure> {
    let name = folder.file_name().ok_or("an entry has a name")?;
    writeln!(code, "Bundled {{ name: {name:?}, files: &[")?;
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        println!("cargo::rerun-if-changed={}", next.display());
        for path in entries(&next)? {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            println!("cargo::rerun-if-changed={}", path.display());
            let below = path.strip_prefix(folder)?;
            let is_executable = path.metadata()?.permissions().mode() & 0o111 != 0;
            let absolute = path.canonicalize()?;
            writeln!(
                code,
                "BundledFile {{ path: {below:?}, contents: include_bytes!({absolute:?}), \
                 is_executable: {is_executable} }},"
            )?;
        }
    }
    writeln!(code, "] }},")?;
    Ok(())
}

/// What is in a folder, by name, without what tools leave there; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or("names are UTF-8")?;
        if !name.starts_with('.') && !matches!(name, "node_modules" | "__pycache__") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
