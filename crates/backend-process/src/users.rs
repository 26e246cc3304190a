//! The users of this host that functions are, where tinyFaaS is root.

use rustix::fs::{AtFlags, CWD, Gid, chownat};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The first of the host's user ids that functions get, one each. It is above every range that
/// Linux distributions and systemd hand out. It is the user of builds itself, and the group of
/// whoever may enter the folders of code.
pub(crate) const HOST_ID_FIRST: u32 = 1_900_000_000;
const HOST_ID_COUNT: u32 = 1_000_000;

const OTHERS_MAY_ENTER: u32 = 0o001;
const GROUP_MAY_ENTER: u32 = 0o010;

/// Hands out user ids.
#[derive(Debug)]
pub(crate) struct HostIds {
    next: AtomicU32,
}

impl HostIds {
    /// Begins anywhere: a process that an earlier tinyFaaS left, or one beside this, is unlikely to
    /// have the same ids.
    pub(crate) fn new() -> Self {
        let anywhere = RandomState::new().hash_one(0) % u64::from(HOST_ID_COUNT);
        Self {
            next: AtomicU32::new(u32::try_from(anywhere).unwrap_or(0)),
        }
    }

    /// An id that none of the next million functions gets.
    pub(crate) fn next(&self) -> u32 {
        HOST_ID_FIRST + 1 + self.next.fetch_add(1, Ordering::Relaxed) % HOST_ID_COUNT
    }
}

/// The folder above `data_dir` that others than its owner may not enter; none where all are open.
pub(crate) fn closed_above(data_dir: &Path) -> Option<PathBuf> {
    let closed = data_dir.ancestors().skip(1).filter(|folder| {
        let found = fs::metadata(folder);
        found.is_ok_and(|found| found.permissions().mode() & OTHERS_MAY_ENTER == 0)
    });
    // The outermost is what stands in the way first.
    closed.last().map(Path::to_owned)
}

/// Lets the group of functions enter `data_dir` and every folder from there to the one that holds
/// `path`, without letting it list them.
pub(crate) fn let_in(data_dir: &Path, path: &Path) -> io::Result<()> {
    let between = path.ancestors().skip(1);
    let below = between.take_while(|folder| folder.starts_with(data_dir));
    let below = below.filter(|folder| folder.is_dir());
    for folder in below {
        let mode = fs::metadata(folder)?.permissions().mode();
        let group = Some(Gid::from_raw(HOST_ID_FIRST));
        chownat(CWD, folder, None, group, AtFlags::SYMLINK_NOFOLLOW)?;
        let group_enters = mode & !0o070 | GROUP_MAY_ENTER;
        fs::set_permissions(folder, fs::Permissions::from_mode(group_enters))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_their_range_and_no_two_are_the_same() {
        let ids = HostIds {
            next: AtomicU32::new(u32::MAX - 1),
        };
        let given: Vec<_> = (0..4).map(|_| ids.next()).collect();
        let range = HOST_ID_FIRST + 1..=HOST_ID_FIRST + HOST_ID_COUNT;
        assert!(given.iter().all(|id| range.contains(id)), "{given:?}");
        let mut distinct = given.clone();
        distinct.dedup();
        assert_eq!(given, distinct);
    }

    #[test]
    fn a_closed_folder_above_the_data_directory_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("a/data");
        fs::create_dir_all(&data_dir).unwrap();
        let set = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            closed_above(&data_dir)
        };
        assert_eq!(set(0o700).as_deref(), Some(folder.path()));
        assert_eq!(set(0o711), None);
        // What the data directory itself allows is ours to set.
        fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(closed_above(&data_dir), None);
    }
}
