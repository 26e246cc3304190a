//! Where our cgroups lie in the host's tree.

use super::{Controller, tree};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The controllers that handlers need, as they are enabled and disabled.
const ENABLE: &str = "+memory +pids +cpu";
const DISABLE: &str = "-memory -pids -cpu";

/// The leaf that tinyFaaS itself is in: no processes may sit beside children with controllers.
const OWN_LEAF: &str = "node";

/// Our folder in the tree of version 2.
#[derive(Debug)]
pub(super) struct Unified {
    /// `tinyfaas-…`: a child for each handler, and [`OWN_LEAF`].
    pub(super) folder: PathBuf,
    /// The cgroup that tinyFaaS was started in, where it left that for its leaf.
    left: Option<PathBuf>,
}

impl Unified {
    /// Makes our folder below the cgroup that we were started in, so that whatever bounds or ends
    /// that, such as a systemd unit, bounds and ends handlers too. Where other programs are in it,
    /// such as the shell of somebody's session, root makes the folder at the top of the tree.
    pub(super) fn set_up() -> io::Result<(Self, String)> {
        let mount = mount_points()
            .into_iter()
            .find(|(kind, _, _)| kind == "cgroup2");
        let Some((_, mount, _)) = mount else {
            return Err(io::Error::other("not mounted"));
        };
        let own = own_paths().into_iter().find(|(names, _)| names.is_empty());
        let own = own.map(|(_, path)| path).unwrap_or_default();
        let base = without_leaf(&mount.join(&own));
        let below_own = Self::below(&base, own.as_os_str().is_empty());
        match below_own {
            Ok(ours) => Ok((ours, "cgroup version 2".to_owned())),
            Err(error) if base != mount && rustix::process::geteuid().is_root() => {
                let ours = Self::below(&mount, false).map_err(|_second| error)?;
                let detail = "cgroup version 2, at the top of the tree, as other programs are in \
                              the cgroup that tinyFaaS was started in; limits of that do not \
                              hold for functions: start it in a systemd unit of its own";
                Ok((ours, detail.to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// `is_alone` says that everything in `base` is of one container.
    fn below(base: &Path, is_alone: bool) -> io::Result<Self> {
        let controllers = fs::read_to_string(base.join("cgroup.controllers"))?;
        for needed in Controller::ALL.map(Controller::as_str) {
            if !controllers.split_whitespace().any(|have| have == needed) {
                return Err(io::Error::other(format!("no {needed} controller")));
            }
        }
        remove_leftovers(base);
        let folder = base.join(own_name());
        fs::create_dir(&folder)?;
        // The top of the tree alone has no such file, and may have processes beside children.
        let is_top = !base.join("cgroup.events").exists();
        let ours = Self {
            folder,
            left: (!is_top).then(|| base.to_owned()),
        };
        let ready = ours.enter(is_alone).and_then(|()| {
            fs::write(base.join("cgroup.subtree_control"), ENABLE)?;
            fs::write(ours.folder.join("cgroup.subtree_control"), ENABLE)
        });
        match ready {
            Ok(()) => Ok(ours),
            Err(error) => {
                ours.tear_down();
                Err(error)
            }
        }
    }

    /// Moves this process into its leaf; those beside it too, where they may be.
    fn enter(&self, is_alone: bool) -> io::Result<()> {
        let Some(base) = &self.left else {
            return Ok(());
        };
        let leaf = self.folder.join(OWN_LEAF);
        fs::create_dir(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())?;
        if is_alone {
            tree::move_all(base, &leaf);
        }
        Ok(())
    }

    /// Goes back to where we came from and removes our folder.
    pub(super) fn tear_down(&self) {
        if let Some(base) = &self.left {
            drop(fs::write(
                self.folder.join("cgroup.subtree_control"),
                DISABLE,
            ));
            // Refused while another tinyFaaS has its folder there: then we stay in the leaf.
            drop(fs::write(base.join("cgroup.subtree_control"), DISABLE));
            tree::move_all(&self.folder.join(OWN_LEAF), base);
        }
        tree::remove(&self.folder);
    }
}

/// The cgroup that this process was started in, also where another backend of it has moved it into
/// its leaf.
fn without_leaf(own: &Path) -> PathBuf {
    let folder = own.parent().filter(|_| own.ends_with(OWN_LEAF));
    let is_ours = |folder: &&Path| {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.and_then(owner_of).is_some()
    };
    let base = folder.filter(is_ours).and_then(Path::parent);
    base.unwrap_or(own).to_owned()
}

/// Tells this process from every other that has had its id, and its backends from each other:
/// `tinyfaas-PID-START-NUMBER`.
fn own_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let pid = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("tinyfaas-{pid}-{}-{number}", start_time(pid).unwrap_or(0))
}

/// When a process that lives started, in clock ticks since boot (fields 3 and 22 of
/// `/proc/PID/stat`). One that has ended and was not waited for is no longer alive.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is in parentheses and may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let start = fields.nth(18)?.parse().ok()?;
    (!has_ended).then_some(start)
}

/// Ends and removes what tinyFaaS processes that are gone have left.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((pid, start)) = name.to_str().and_then(owner_of) else {
            continue;
        };
        // One in another pid namespace has another id here; its leaf tells.
        let lives =
            start_time(pid) == Some(start) || tree::is_populated(&entry.path().join(OWN_LEAF));
        if !lives {
            tree::end(&entry.path());
        }
    }
}

fn owner_of(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("tinyfaas-")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Makes a folder of ours in each controller's tree, version 1.
pub(super) fn make_split() -> io::Result<Vec<(Controller, PathBuf)>> {
    let mounts = mount_points();
    let own = own_paths();
    let own_name = own_name();
    let mut folders = Vec::new();
    for controller in Controller::ALL {
        let name = controller.as_str();
        let mounted = mounts
            .iter()
            .find(|(kind, _, options)| kind == "cgroup" && options.split(',').any(|o| o == name));
        let Some((_, mount, _)) = mounted else {
            return Err(io::Error::other(format!("no {name} controller")));
        };
        let path = own
            .iter()
            .find(|(names, _)| names.split(',').any(|n| n == name));
        let below_own = mount.join(
            path.map(|(_, path)| path.as_path())
                .unwrap_or(Path::new("")),
        );
        let parent = if below_own.is_dir() {
            below_own
        } else {
            mount.clone()
        };
        remove_leftovers(&parent);
        let folder = parent.join(&own_name);
        if let Err(error) = fs::create_dir(&folder) {
            folders
                .iter()
                .for_each(|(_, folder): &(_, PathBuf)| tree::remove(folder));
            return Err(error);
        }
        folders.push((controller, folder));
    }
    Ok(folders)
}

/// File system type, mount point and options of every mount (proc(5), mountinfo).
fn mount_points() -> Vec<(String, PathBuf, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let parse = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        let mut fields = source.split(' ');
        let kind = fields.next()?.to_owned();
        let options = fields.nth(1)?.to_owned();
        Some((kind, PathBuf::from(point), options))
    };
    text.lines().filter_map(parse).collect()
}

/// Our own cgroups: controllers (none for version 2) and path without its leading slash.
fn own_paths() -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?.to_owned();
        Some((names, PathBuf::from(fields.next()?.trim_start_matches('/'))))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_of_ours_is_left_out_and_no_other_is() {
        let check = |own: &str, expected: &str| {
            assert_eq!(without_leaf(Path::new(own)), Path::new(expected), "{own}");
        };
        check("/sys/fs/cgroup/a.service", "/sys/fs/cgroup/a.service");
        check("/c/a.service/tinyfaas-7-8-0/node", "/c/a.service");
        check("/c/a.service/node", "/c/a.service/node");
        check("/c/tinyfaas-x/node", "/c/tinyfaas-x/node");
        check("/c/tinyfaas-7-8-0/1", "/c/tinyfaas-7-8-0/1");
    }

    #[test]
    fn what_a_dead_owner_left_is_removed_and_what_a_living_one_has_stays() {
        let parent = tempfile::tempdir().unwrap();
        let own = parent.path().join(own_name());
        let dead = parent.path().join("tinyfaas-4194305-1-0");
        let foreign = parent.path().join("tinyfaas-x");
        for folder in [&own, &dead.join("1"), &foreign] {
            fs::create_dir_all(folder).unwrap();
        }
        remove_leftovers(parent.path());
        assert!(own.exists() && foreign.exists());
        assert!(!dead.exists());
    }
}
