//! From a folder to the zip that is sent.

use anyhow::{Context, Result, bail};
use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use walkdir::{DirEntry, WalkDir};
use zip::write::{SimpleFileOptions, ZipWriter};

/// Folders that are made again on the node, or are not part of a function.
const SKIPPED: [&str; 5] = [
    "__pycache__",
    ".git",
    ".venv",
    ".mypy_cache",
    ".pytest_cache",
];

/// Packs a folder, without what the node makes again.
///
/// # Errors
/// If it can't be read or has no file.
pub(crate) fn folder(folder: &Path) -> Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut files = 0_usize;
    let entries = WalkDir::new(folder).min_depth(1).sort_by_file_name();
    for entry in entries.into_iter().filter_entry(|entry| !is_skipped(entry)) {
        let entry = entry.with_context(|| format!("read the folder {}", folder.display()))?;
        files += usize::from(add(&mut archive, folder, &entry)?);
    }
    if files == 0 {
        bail!("the folder {} has no files to deploy", folder.display());
    }
    Ok(archive.finish()?.into_inner())
}

/// What is sent of a single file: an archive or a module as it is, a source in the file that its
/// runtime looks for.
///
/// # Errors
/// If it can't be read or is nothing of these.
pub(crate) fn file(path: &Path) -> Result<Vec<u8>> {
    let contents = std::fs::read(path).with_context(|| {
        format!(
            "read {}; name a folder, a source file, a zip, tar.gz or wasm file, or a URL",
            path.display()
        )
    })?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let name = match extension {
        Some("py") => "fn.py",
        Some("js") => "index.js",
        Some("mjs") => "index.mjs",
        Some("cjs") => "index.cjs",
        Some("go") => "fn.go",
        Some("sh") => "fn.sh",
        Some("ts") => bail!(
            "{} is TypeScript; compile it to JavaScript (tsc, esbuild) and deploy that",
            path.display()
        ),
        // A program or a script, by its first bytes.
        _ if contents.starts_with(b"\x7fELF") || contents.starts_with(b"#!") => "fn.sh",
        // An archive or a module; what it is not, the node says.
        _ => return Ok(contents),
    };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().unix_permissions(0o755);
    archive.start_file(name, options)?;
    archive.write_all(&contents)?;
    Ok(archive.finish()?.into_inner())
}

/// Adds an entry; tells whether it is something to deploy.
fn add(archive: &mut ZipWriter<Cursor<Vec<u8>>>, folder: &Path, entry: &DirEntry) -> Result<bool> {
    let path = entry.path();
    let below = path.strip_prefix(folder)?;
    let Some(name) = below.to_str() else {
        bail!("the name of {} is not UTF-8; rename it", path.display());
    };
    let kind = entry.file_type();
    let options = SimpleFileOptions::default();
    if kind.is_symlink() {
        let target = std::fs::read_link(path)?;
        let Some(target) = target.to_str() else {
            bail!("the target of {} is not UTF-8; remove it", path.display());
        };
        archive.add_symlink(name, target, options)?;
    } else if kind.is_dir() {
        archive.add_directory(name, options.unix_permissions(0o755))?;
        return Ok(false);
    } else if kind.is_file() {
        let contents = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        archive.start_file(name, options.unix_permissions(mode))?;
        archive.write_all(&contents)?;
    } else {
        // Sockets, pipes and devices are no part of a function.
        return Ok(false);
    }
    Ok(true)
}

fn is_skipped(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_str().unwrap_or_default();
    let is_folder = entry.file_type().is_dir();
    (is_folder && SKIPPED.contains(&name)) || name == ".DS_Store"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_folder_is_packed_with_modes_and_links_but_not_with_what_is_made_again() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        for folder in ["lib", "node_modules/x", ".git"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in [
            "fn.sh",
            "lib/a.txt",
            "node_modules/x/index.js",
            ".git/HEAD",
            ".env",
        ] {
            std::fs::write(root.join(file), file).unwrap();
        }
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(root.join("fn.sh"), executable).unwrap();
        std::os::unix::fs::symlink("fn.sh", root.join("link")).unwrap();
        let packed = folder(root).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(packed)).unwrap();
        let names = archive.file_names();
        let mut names: Vec<_> = names.map(|name| name.unwrap().into_owned()).collect();
        names.sort();
        assert_eq!(
            names,
            [
                ".env",
                "fn.sh",
                "lib/",
                "lib/a.txt",
                "link",
                "node_modules/",
                "node_modules/x/",
                "node_modules/x/index.js"
            ]
        );
        let mut script = archive.by_name("fn.sh").unwrap();
        assert_eq!(script.unix_mode().unwrap() & 0o777, 0o755);
        let mut text = String::new();
        script.read_to_string(&mut text).unwrap();
        assert_eq!(text, "fn.sh");
    }

    #[test]
    fn a_folder_without_files_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::create_dir(temporary.path().join("empty")).unwrap();
        assert!(folder(temporary.path()).is_err());
    }
}
