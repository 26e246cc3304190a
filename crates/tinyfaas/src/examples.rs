//! The functions that are built into the program.

use management::SourceFile;
use std::path::Path;

/// A folder of files that are built in.
#[derive(Debug)]
pub(crate) struct Bundled {
    /// The folder's name.
    pub(crate) name: &'static str,
    /// Its files, by path.
    pub(crate) files: &'static [BundledFile],
}

/// A file that is built in.
#[derive(Debug)]
pub(crate) struct BundledFile {
    /// The path below the folder.
    pub(crate) path: &'static str,
    /// What is in it.
    pub(crate) contents: &'static [u8],
    /// Whether it can be run.
    pub(crate) is_executable: bool,
}

// EXAMPLES and HANDLERS: what the build found in examples/ and handlers/.
include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

impl Bundled {
    /// The runtime, told by the files.
    pub(crate) fn runtime(&self) -> Option<faas::Runtime> {
        let has = |path: &str| self.files.iter().any(|file| file.path == path);
        let signs = [
            ("fn.py", faas::Runtime::Python3),
            ("fn.go", faas::Runtime::Go),
            ("fn.sh", faas::Runtime::Binary),
            ("fn.wasm", faas::Runtime::Wasm),
            ("package.json", faas::Runtime::Nodejs),
            ("index.js", faas::Runtime::Nodejs),
        ];
        let found = signs.into_iter().find(|(path, _)| has(path));
        found.map(|(_, runtime)| runtime)
    }

    /// The files as a deployment takes them.
    pub(crate) fn sources(&self) -> Vec<SourceFile> {
        let source = |file: &BundledFile| SourceFile {
            path: file.path.to_owned(),
            contents: file.contents.into(),
            is_executable: file.is_executable,
        };
        self.files.iter().map(source).collect()
    }
}

/// Writes the folders of the original call `POST /` below `dir`, over what differs.
pub(crate) fn write_handlers(dir: &Path) -> std::io::Result<()> {
    for bundled in HANDLERS {
        for file in bundled.files {
            let path = dir.join(bundled.name).join(file.path);
            if std::fs::read(&path).is_ok_and(|found| found == file.contents) {
                continue;
            }
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(path, file.contents)?;
        }
    }
    Ok(())
}
