//! The data directory: ours alone, for as long as this process lives.

use crate::OpenError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tokio::net::UnixListener;

/// The file of the store.
pub(crate) const STORE: &str = "tinyfaas.db";

/// The file whose lock shows that a node has the directory.
const LOCK: &str = "lock";

/// The socket through which the owner reaches the API.
pub const SOCKET: &str = "management.sock";

/// The rights of anybody but the owner.
const OF_OTHERS: u32 = 0o077;

/// Those that tinyFaaS itself gives the group of functions where handlers have no root of their own: to
/// enter without listing. A run that was killed leaves them.
const OF_FUNCTIONS: u32 = 0o010;

/// Makes the directory where it is missing, takes every right on it from others, and locks it. The
/// lock is given up with the file.
///
/// # Errors
/// If another process has the directory, it cannot be used, or it holds the files of somebody
/// else and others may enter it.
pub fn claim(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::DataDir {
        path: path.to_owned(),
        error,
    };
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(failed)?;
    tighten(path)?;
    let lock = match open_private(&path.join(LOCK)) {
        // The directory itself can be locked where nothing can be written.
        Err(error) if crate::space::lacks_space(&error) => File::open(path),
        opened => opened,
    };
    let lock = lock.map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_current(path, &lock).map_err(failed)? => Ok(lock),
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked(path.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Takes the file of the lock away, which is held: a directory that has no node needs none.
pub(crate) fn leave(path: &Path) {
    // At worst an empty file stays.
    let _is_removed = fs::remove_file(path.join(LOCK)).is_ok();
}

/// Whether the file of the lock is still the one that was opened: another process may have left the
/// directory meanwhile.
fn is_current(path: &Path, lock: &File) -> io::Result<bool> {
    let held = lock.metadata()?;
    if held.is_dir() {
        return Ok(true);
    }
    let named = fs::metadata(path.join(LOCK));
    Ok(named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())))
}

/// Sees that nobody else can enter: the store has variables of functions, which are often secrets.
fn tighten(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::DataDir {
        path: path.to_owned(),
        error,
    };
    let mode = fs::metadata(path).map_err(failed)?.mode();
    if mode & OF_OTHERS == 0 {
        return Ok(());
    }
    let is_ours = path.join(STORE).exists() || path.join(LOCK).exists();
    let is_empty = || fs::read_dir(path).map(|mut entries| entries.next().is_none());
    if !is_ours && !is_empty().map_err(failed)? {
        // It may be /tmp, or somebody's home.
        return Err(OpenError::Shared(path.to_owned()));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    if is_opened_by_others(mode) {
        tracing::warn!(
            path = %path.display(),
            "other users could enter the data directory; now only its owner can"
        );
    }
    Ok(())
}

fn is_opened_by_others(mode: u32) -> bool {
    ![0, OF_FUNCTIONS].contains(&(mode & OF_OTHERS))
}

/// Listens on the socket in the directory, which this process has claimed.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = path.join(SOCKET);
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // A node that was killed left it.
        Ok(()) | Err(_) => {}
    }
    // Addresses of sockets are short, the directory's path may be long.
    let folder = File::open(path)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Opens a file for its owner only, and makes it where it is missing.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    let file = options.mode(0o600).open(path)?;
    make_private(&file)?;
    Ok(file)
}

fn make_private(file: &File) -> io::Result<()> {
    if file.metadata()?.mode() & OF_OTHERS == 0 {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_data_directory_serves_one_node_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        let lock = claim(&dir).unwrap();
        let fix = claim(&dir).unwrap_err().fix();
        assert!(fix.contains("--data-dir"), "{fix}");
        drop(lock);
        assert!(claim(&dir).is_ok());
    }

    #[test]
    fn what_a_killed_run_left_to_functions_is_no_reason_to_warn() {
        let check = |mode, expected| assert_eq!(is_opened_by_others(mode), expected, "{mode:o}");
        for mode in [0o700, 0o710, 0o40710] {
            check(mode, false);
        }
        for mode in [0o701, 0o711, 0o720, 0o740, 0o750, 0o755] {
            check(mode, true);
        }
    }

    #[test]
    fn a_data_directory_that_others_could_enter_is_closed_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str, file: Option<&str>| {
            let dir = folder.path().join(name);
            fs::create_dir(&dir).unwrap();
            if let Some(file) = file {
                fs::write(dir.join(file), "").unwrap();
            }
            fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
            let lock = claim(&dir).unwrap();
            assert_eq!(mode_of(&dir), 0o700, "{name}");
            assert_eq!(lock.metadata().unwrap().mode() & 0o777, 0o600, "{name}");
        };
        check("empty", None);
        check("with-a-store", Some(STORE));
        check("with-a-lock", Some(LOCK));
    }

    #[test]
    fn a_directory_of_somebody_else_keeps_its_mode_and_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("shared");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("theirs"), "").unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o1777)).unwrap();
        let fix = claim(&dir).unwrap_err().fix();
        assert!(fix.contains("chmod 700"), "{fix}");
        assert_eq!(mode_of(&dir), 0o777);
        // Once it is closed to others, what lies there does not matter.
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        assert!(claim(&dir).is_ok());
    }
}
