//! What untrusted code leaves behind, and what must not come of it.

use super::*;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

/// A folder that a build wrote, beside one of the host with a private file and a program with
/// set-user-id.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Self { folder };
        fs::create_dir(host.built()).unwrap();
        fs::create_dir(host.home()).unwrap();
        for (name, mode) in [("private", 0o600), ("program", 0o4755)] {
            let path = host.home().join(name);
            fs::write(&path, name).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(host.home(), fs::Permissions::from_mode(0o700)).unwrap();
        host
    }

    fn built(&self) -> PathBuf {
        self.folder.path().join("built")
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn assert_untouched(&self) {
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(self.home()), 0o700);
        assert_eq!(mode(self.home().join("private")), 0o600);
        assert_eq!(mode(self.home().join("program")), 0o4755);
    }
}

const ROOMY: u64 = 1 << 30;

#[test]
fn what_a_link_points_to_stays_as_it_is() {
    let host = Host::new();
    symlink(host.home(), host.built().join("folder")).unwrap();
    symlink(host.home().join("private"), host.built().join("file")).unwrap();
    take_over(&host.built(), ROOMY).unwrap();
    give_to(&host.built(), rustix::process::geteuid().as_raw()).unwrap();
    host.assert_untouched();
    // The control: whoever follows reaches it.
    assert!(host.built().join("folder/private").exists());
}

#[test]
fn a_link_in_the_place_of_a_folder_is_refused() {
    let host = Host::new();
    let link = host.folder.path().join("link");
    symlink(host.home(), &link).unwrap();
    assert!(link.is_dir(), "the control: by its path it looks like one");
    assert!(take_over(&link, ROOMY).is_err());
    assert!(give_to(&link, 0).is_err());
    assert!(digest_of(&link).is_err());
    assert!(read(&link, &[c"private"], 100).is_none());
    assert_eq!(size_of(&link), 0);
    remove(&link).unwrap();
    host.assert_untouched();
}

#[test]
fn a_file_with_a_name_elsewhere_is_copied() {
    let host = Host::new();
    let (outside, inside) = (host.home().join("program"), host.built().join("program"));
    fs::hard_link(&outside, &inside).unwrap();
    take_over(&host.built(), ROOMY).unwrap();
    host.assert_untouched();
    let metadata = fs::metadata(&inside).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o755, 1));
    assert_eq!(fs::read(inside).unwrap(), b"program");
}

#[test]
fn pipes_go_and_modes_become_plain() {
    let host = Host::new();
    let pipe = host.built().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o666), 0).unwrap();
    let program = host.built().join("program");
    fs::write(&program, "x").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6711)).unwrap();
    take_over(&host.built(), ROOMY).unwrap();
    assert!(!pipe.exists());
    assert_eq!(fs::metadata(program).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_result_that_is_too_large_or_too_deep_is_refused() {
    let host = Host::new();
    fs::write(host.built().join("large"), vec![1; 100_000]).unwrap();
    assert!(take_over(&host.built(), ROOMY).is_ok());
    assert!(take_over(&host.built(), 50_000).is_err());
    let deep = "d/".repeat(DEPTH_MAX + 2);
    fs::create_dir_all(host.built().join(deep)).unwrap();
    assert!(take_over(&host.built(), ROOMY).is_err());
}

#[test]
fn anything_can_be_removed() {
    let host = Host::new();
    symlink(host.home(), host.built().join("link")).unwrap();
    let closed = host.built().join("closed");
    fs::create_dir_all(closed.join("in/it")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // Deeper than a path or the descriptors of a process reach.
    let mut folder = open(&host.built()).unwrap();
    for _ in 0..1000 {
        rustix::fs::mkdirat(&folder, c"d", Mode::from(0o700)).unwrap();
        folder = open_in(folder.as_fd(), c"d").unwrap();
    }
    remove(&host.built()).unwrap();
    assert!(!host.built().exists());
    host.assert_untouched();
    remove(&host.built()).unwrap();
}

#[test]
fn a_changed_file_changes_the_digest() {
    let host = Host::new();
    let module = host.built().join("module.py");
    fs::write(&module, "VALUE = 1").unwrap();
    let before = digest_of(&host.built()).unwrap();
    assert_eq!(digest_of(&host.built()).unwrap(), before);
    fs::write(&module, "VALUE = 2").unwrap();
    assert_ne!(digest_of(&host.built()).unwrap(), before);
    fs::write(&module, "").unwrap();
    assert_ne!(digest_of(&host.built()).unwrap(), before);
}

#[test]
fn nothing_is_written_through_a_link() {
    let host = Host::new();
    for name in ["private", "missing"] {
        symlink(host.home().join(name), host.built().join(name)).unwrap();
        write(&host.built(), name, b"new").unwrap();
        assert_eq!(fs::read(host.built().join(name)).unwrap(), b"new");
    }
    host.assert_untouched();
    assert_eq!(fs::read(host.home().join("private")).unwrap(), b"private");
    assert!(!host.home().join("missing").exists());
}

#[test]
fn empty_files_count_against_a_bound_of_bytes() {
    let host = Host::new();
    for number in 0..50 {
        fs::write(host.built().join(number.to_string()), "").unwrap();
    }
    assert!(size_of(&host.built()) >= 50 * ENTRY_BYTES_MIN);
    let error = take_over(&host.built(), 40 * ENTRY_BYTES_MIN).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    // The control: with room for them they are taken.
    assert!(take_over(&host.built(), 60 * ENTRY_BYTES_MIN).is_ok());
}
