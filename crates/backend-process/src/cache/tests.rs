//! What is kept, what goes, and what is never believed.

use super::*;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::Duration;

fn limits(change: impl FnOnce(&mut Limits)) -> Arc<Limits> {
    let mut limits = Limits::default();
    limits.builds.free_bytes_min = 0;
    change(&mut limits);
    Arc::new(limits)
}

fn open(folder: &Path) -> Cache {
    Cache::open(folder, &limits(|_| ())).unwrap()
}

/// Builds and keeps a result with one module of that many bytes.
fn keep(cache: &Cache, key: &str, bytes: usize) -> Arc<Kept> {
    let staging = cache.staging().unwrap();
    let folder = staging.path().join("built");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("module"), vec![1; bytes]).unwrap();
    let notes = vec!["a note".to_owned()];
    let finished = Finished {
        key,
        folder: &folder,
        notes,
    };
    cache.keep(&staging, finished).unwrap()
}

#[test]
fn a_result_is_kept_with_its_notes_and_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    assert!(cache.get("key").is_none());
    drop(keep(&cache, "key", 10));
    assert!(cache.is_proven("key"));
    let cache = open(folder.path());
    let kept = cache.get("key").unwrap();
    assert_eq!(kept.notes, ["a note"]);
    assert_eq!(fs::read(kept.folder.join("module")).unwrap(), [1; 10]);
    assert!(!cache.is_proven("key"), "it was not loaded since the start");
}

#[test]
fn a_result_that_lost_its_contents_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let kept = keep(&open(folder.path()), "key", 10);
    // The control: untouched, it is found.
    assert!(open(folder.path()).get("key").is_some());
    fs::write(kept.folder.join("module"), "").unwrap();
    let cache = open(folder.path());
    assert!(cache.get("key").is_none());
    assert!(!folder.path().join("kept/key").exists());
}

#[test]
fn a_byte_that_changed_at_the_same_size_and_time_is_seen_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let kept = keep(&open(folder.path()), "key", 200_000);
    let module = kept.folder.join("module");
    let modified = fs::metadata(&module).unwrap().modified().unwrap();
    for at in [0, 100_000, 199_999] {
        assert!(open(folder.path()).get("key").is_some(), "the control");
        let whole = fs::read(&module).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&module, &damaged).unwrap();
        let file = File::options().write(true).open(&module).unwrap();
        file.set_modified(modified).unwrap();
        assert!(open(folder.path()).get("key").is_none(), "byte {at}");
        assert!(!folder.path().join("kept/key").exists());
        drop(keep(&open(folder.path()), "key", 200_000));
    }
}

#[test]
fn a_result_is_read_once_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    drop(keep(&open(folder.path()), "key", 10));
    let cache = open(folder.path());
    let first = cache.get("key").unwrap();
    let module = first.folder.join("module");
    drop(first);
    // It is as large, but no longer the same: nobody looks again before the next start.
    fs::write(module, [2; 10]).unwrap();
    assert!(cache.get("key").is_some());
    assert!(open(folder.path()).get("key").is_none());
}

#[test]
fn what_an_earlier_version_kept_and_what_is_no_folder_goes_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("private"), "x").unwrap();
    for poisoned in ["results", "kept", "kept/entry"] {
        fs::create_dir_all(folder.path().join(poisoned)).unwrap();
    }
    let links = ["results/old", "kept/link", "kept/entry/tree"];
    for link in links {
        symlink(home.path(), folder.path().join(link)).unwrap();
    }
    let cache = open(folder.path());
    for (link, key) in [
        ("results", ""),
        ("kept/link", "link"),
        ("kept/entry", "entry"),
    ] {
        assert!(
            fs::symlink_metadata(folder.path().join(link)).is_err(),
            "{link}"
        );
        assert!(cache.get(key).is_none() || key.is_empty());
    }
    assert!(home.path().join("private").exists());
}

#[test]
fn a_link_in_the_place_of_a_result_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let staging = cache.staging().unwrap();
    let link = staging.path().join("built");
    symlink(home.path(), &link).unwrap();
    let finished = Finished {
        key: "key",
        folder: &link,
        notes: Vec::new(),
    };
    assert!(cache.keep(&staging, finished).is_err());
    assert!(cache.get("key").is_none());
}

#[test]
fn the_least_recently_used_go_first_and_what_is_held_stays() {
    let folder = tempfile::tempdir().unwrap();
    let small = limits(|limits| limits.builds.cache_bytes_max = 140 << 10);
    let cache = Cache::open(folder.path(), &small).unwrap();
    let held = keep(&cache, "held", 60 << 10);
    for key in ["old", "new"] {
        drop(keep(&cache, key, 60 << 10));
    }
    let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    for (key, seconds) in [("held", 1), ("old", 2), ("new", 3)] {
        let folder = File::open(folder.path().join("kept").join(key)).unwrap();
        folder.set_modified(at(seconds)).unwrap();
    }
    cache.make_room().unwrap();
    assert!(held.folder.exists());
    let is_kept = |key: &str| folder.path().join("kept").join(key).exists();
    assert!(!is_kept("old") && is_kept("new"));
    drop(held);
    drop(keep(&cache, "newest", 60 << 10));
    cache.make_room().unwrap();
    assert!(!is_kept("held") && is_kept("new") && is_kept("newest"));
}

#[test]
fn everything_that_nothing_holds_goes_when_the_disk_is_full() {
    let folder = tempfile::tempdir().unwrap();
    drop(keep(&open(folder.path()), "key", 10));
    let go = folder.path().join("go/version/00");
    fs::create_dir_all(&go).unwrap();
    fs::write(go.join("object"), vec![1; 10_000]).unwrap();
    // The control: with room, all stays.
    assert!(open(folder.path()).make_room().unwrap());
    assert!(open(folder.path()).get("key").is_some() && go.exists());
    let full = limits(|limits| {
        limits.builds.free_bytes_min = u64::MAX;
        limits.builds.spared_after_start = Duration::ZERO;
    });
    let cache = Cache::open(folder.path(), &full).unwrap();
    let held = keep(&cache, "held", 10);
    assert!(!cache.make_room().unwrap());
    assert!(cache.get("key").is_none() && !go.exists());
    assert!(held.folder.exists());
}

#[test]
fn a_full_disk_does_not_take_what_functions_need_that_are_not_yet_back() {
    let folder = tempfile::tempdir().unwrap();
    drop(keep(&open(folder.path()), "key", 10));
    let full = limits(|limits| limits.builds.free_bytes_min = u64::MAX);
    let cache = Cache::open(folder.path(), &full).unwrap();
    assert!(!cache.make_room().unwrap());
    let kept = cache.get("key").unwrap();
    assert!(!cache.make_room().unwrap());
    assert!(kept.folder.exists());
    // The control: what its function has let go of.
    drop(kept);
    assert!(!cache.make_room().unwrap());
    assert!(cache.get("key").is_none());
}

#[test]
fn what_a_build_left_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let staging = cache.staging().unwrap();
    let left = folder.path().join("staging/build-99");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("large"), vec![1; 1000]).unwrap();
    cache.make_room().unwrap();
    assert!(!left.exists() && staging.path().exists());
    let path = staging.path().to_owned();
    drop(staging);
    assert!(!path.exists());
}

#[test]
fn what_an_earlier_run_left_is_out_of_the_way_at_once_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let left = ["build-1", "old-2"].map(|name| folder.path().join("staging").join(name));
    for path in &left {
        fs::create_dir_all(path.join("deep")).unwrap();
        fs::write(path.join("deep/file"), "x").unwrap();
    }
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = inode(&folder.path().join("staging"));
    let cache = open(folder.path());
    let staging = cache.staging().unwrap();
    assert_eq!(fs::read_dir(staging.path()).unwrap().count(), 0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while left
        .iter()
        .any(|path| path.exists() && *path != staging.path())
    {
        assert!(std::time::Instant::now() < deadline, "still there");
        std::thread::yield_now();
    }
    assert!(staging.path().exists());
    // On a full disk there is no room for another folder.
    assert_eq!(inode(&folder.path().join("staging")), before);
}
