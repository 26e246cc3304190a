//! Archives as somebody may upload them: whatever they are, nothing is written outside of the folder
//! that they are unpacked into, and no more than the bounds allow.
#![no_main]

use faas::Limits;
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    archive_packed_bytes_max: 1 << 16,
    archive_unpacked_bytes_max: 1 << 17,
    archive_files_max: 64,
    ..Limits::default()
});

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let tmp = folder.path().join("tmp");
    fs::create_dir(&tmp).expect("a folder in it");
    // Whether it is taken is not the question.
    let _taken = management::fuzzing::unpack(data, &tmp, &LIMITS, |root| {
        assert!(root.starts_with(&tmp));
        assert!(written(root, root) <= LIMITS.archive_unpacked_bytes_max);
    });
    let outside = fs::read_dir(folder.path()).expect("it is there").count();
    assert_eq!(outside, 1, "something lies outside");
    let left = fs::read_dir(&tmp).expect("it is there").count();
    assert_eq!(left, 0, "something is left");
});

/// The bytes of all files, once every link is seen to stay inside.
fn written(folder: &Path, root: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its kind");
        if kind.is_symlink() {
            // One that leads nowhere leads to nothing of others.
            if let Ok(end) = fs::canonicalize(entry.path()) {
                let root = fs::canonicalize(root).expect("the root");
                assert!(end.starts_with(root), "a link leads out");
            }
        } else if kind.is_dir() {
            sum += written(&entry.path(), root);
        } else {
            sum += entry.metadata().expect("its size").len();
        }
    }
    sum
}
