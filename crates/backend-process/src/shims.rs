//! The shims of the runtimes, which are part of this program, as files that a sandbox can bind.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What interpreters load, by the names of the files.
const FILES: [(&str, &str); 11] = [
    ("shim.js", include_str!("../../../runtimes/nodejs/shim.js")),
    (
        "errors.js",
        include_str!("../../../runtimes/nodejs/errors.js"),
    ),
    (
        "express.js",
        include_str!("../../../runtimes/nodejs/express.js"),
    ),
    (
        "headers.js",
        include_str!("../../../runtimes/nodejs/headers.js"),
    ),
    ("load.js", include_str!("../../../runtimes/nodejs/load.js")),
    (
        "native.js",
        include_str!("../../../runtimes/nodejs/native.js"),
    ),
    (
        "request.js",
        include_str!("../../../runtimes/nodejs/request.js"),
    ),
    (
        "response.js",
        include_str!("../../../runtimes/nodejs/response.js"),
    ),
    ("shim.py", include_str!("../../../runtimes/python3/shim.py")),
    (
        "tinyfaas_headers.py",
        include_str!("../../../runtimes/python3/tinyfaas_headers.py"),
    ),
    (
        "tinyfaas_replies.py",
        include_str!("../../../runtimes/python3/tinyfaas_replies.py"),
    ),
];
const GO: &str = include_str!("../../../runtimes/go/shim.go");

/// Where the shims are.
#[derive(Debug)]
pub(crate) struct Shims {
    folder: PathBuf,
}

impl Shims {
    /// Writes the shims below `parent`, in a folder by their digest; those of other versions go.
    /// What is there already and right stays as it is, so that a full or read-only disk does not
    /// keep a node from starting, and what a power cut emptied is written again.
    pub(crate) fn write(parent: &Path) -> io::Result<Self> {
        let mut digest = Sha256::new();
        for (_, text) in FILES {
            digest.update(text);
        }
        fs::create_dir_all(parent)?;
        let folder = parent.join(faas::hex(&digest.finalize()[..8]));
        for entry in fs::read_dir(parent)?
            .flatten()
            .filter(|entry| entry.path() != folder)
        {
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(%error, "shims of another version could not be removed");
            }
        }
        make_folder(&folder)?;
        for (name, text) in FILES {
            let path = folder.join(name);
            if is_right(&path, text) {
                continue;
            }
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(0o644))?;
            file.persist(path)?;
        }
        Ok(Self { folder })
    }

    /// The folder with `shim.js` and `shim.py`, and what they load.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is compiled together with a Go function.
    pub(crate) fn go_source(&self) -> &'static str {
        GO
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if fs::metadata(folder)?.mode() & 0o777 == 0o755 {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

fn is_right(path: &Path, text: &str) -> bool {
    let has_mode = fs::metadata(path).is_ok_and(|file| file.mode() & 0o777 == 0o644);
    has_mode && fs::read(path).is_ok_and(|found| found == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shims_that_differ_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path().join("shims");
        let shims = Shims::write(&parent).unwrap();
        let number_of = |name: &str| fs::metadata(shims.folder().join(name)).unwrap().ino();
        let (js, py) = (number_of("shim.js"), number_of("shim.py"));
        fs::write(shims.folder().join("shim.py"), "").unwrap();
        let again = Shims::write(&parent).unwrap();
        assert_eq!(again.folder(), shims.folder());
        assert_eq!(number_of("shim.js"), js);
        assert_ne!(number_of("shim.py"), py);
        let text = fs::read_to_string(shims.folder().join("shim.py")).unwrap();
        assert!(FILES.contains(&("shim.py", text.as_str())));
    }
}
