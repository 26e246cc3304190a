//! The token of the management service.

use anyhow::{Context, Result, bail};
use auth::Token;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The shortest token that is taken from a file which the user made.
const CHARS_MIN: usize = 16;

/// Reads the token, and makes it first where the file is missing or empty: 64 hexadecimal digits that only
/// this user can read.
///
/// # Errors
/// If the file can't be read or made, has no usable token, or can be read by others.
pub(crate) fn obtain(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        // A power cut while it was made by an earlier version left an empty file.
        Ok(text) if text.trim_matches(['\0', '\n', ' ']).is_empty() => make(path),
        Ok(text) => check(path, text.trim()),
        Err(error) if error.kind() == ErrorKind::NotFound => make(path),
        Err(error) => Err(error).with_context(|| format!("read the token {}", path.display())),
    }
}

fn check(path: &Path, token: &str) -> Result<String> {
    let shown = path.display();
    if token.len() < CHARS_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        bail!(
            "the token in {shown} is shorter than {CHARS_MIN} characters or has a space in it; \
             delete the file to have a new one made"
        );
    }
    let mode = std::fs::metadata(path)
        .with_context(|| format!("look at the token {shown}"))?
        .mode();
    if mode & 0o077 != 0 {
        bail!("the token {shown} can be read by others; run chmod 600 {shown}");
    }
    Ok(token.to_owned())
}

fn make(path: &Path) -> Result<String> {
    let token = Token::random().context("get random bytes for a token")?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
    }
    let made = path.with_extension("new");
    let write = || {
        // It gets its name when all of it is on the disk, so that a power cut leaves all or nothing.
        match std::fs::remove_file(&made) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&made)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        std::fs::rename(&made, path)?;
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            Some(_) | None => Ok(()),
        }
    };
    write().with_context(|| format!("write the token {}", path.display()))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/token");
        let token = obtain(&path).unwrap();
        assert_eq!(token.len(), 64);
        assert!(token.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(obtain(&path).unwrap(), token);
        // What a power cut may leave of a token is not one.
        std::fs::write(&path, "").unwrap();
        let again = obtain(&path).unwrap();
        assert_ne!(again, token);
        assert_eq!(obtain(&path).unwrap(), again);
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_token_that_others_can_read_or_guess_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let check = |text: &str, mode: u32, expected: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let message = obtain(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check("short", 0o600, "delete the file");
        check("a token with spaces", 0o600, "delete the file");
        check("0123456789abcdef", 0o644, "chmod 600");
    }
}
