//! Control groups: what bounds a handler's memory, processes and CPU time.

use faas::FunctionLimits;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CPU_PERIOD_US: u64 = 100_000;
/// How often and for how long removing a group whose last process has just gone is tried.
const REMOVE_TRIES: u32 = 40;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// Which cgroups this host lets us use, and our own folder in each.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchies: Hierarchies,
    next: AtomicU64,
    /// What to tell people.
    pub(crate) detail: String,
}

#[derive(Debug)]
enum Hierarchies {
    /// One tree with all controllers; our folder in it.
    Unified(PathBuf),
    /// A tree for each controller; our folder in each.
    Split(Vec<(Controller, PathBuf)>),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// The cgroup of one handler.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folders: Vec<PathBuf>,
    is_unified: bool,
}

impl Cgroups {
    /// Finds out what this host offers, makes our folders, and removes those that a killed
    /// tinyFaaS left.
    pub(crate) fn set_up() -> Self {
        let unified = unified_parent().and_then(|parent| {
            remove_leftovers(&parent);
            let ours = parent.join(own_name());
            make_unified(&parent, &ours).map(|()| ours)
        });
        let why_not_unified = match unified {
            Ok(ours) => {
                let detail = "cgroup version 2".to_owned();
                return Self::with(Hierarchies::Unified(ours), detail);
            }
            Err(error) => error,
        };
        match make_split() {
            Ok(folders) => Self::with(Hierarchies::Split(folders), "cgroup version 1".to_owned()),
            Err(error) => {
                let detail = format!(
                    "no cgroups (version 2: {why_not_unified}; version 1: {error}); run as root, \
                     or in a systemd unit with Delegate=yes"
                );
                Self::with(Hierarchies::None, detail)
            }
        }
    }

    fn with(hierarchies: Hierarchies, detail: String) -> Self {
        Self {
            hierarchies,
            next: AtomicU64::new(1),
            detail,
        }
    }

    /// Whether handlers get limits at all.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self.hierarchies, Hierarchies::None)
    }

    /// Makes a cgroup with these limits; none where the host has no cgroups for us.
    pub(crate) fn make(&self, limits: &FunctionLimits) -> io::Result<Option<Cgroup>> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let cgroup = match &self.hierarchies {
            Hierarchies::None => return Ok(None),
            Hierarchies::Unified(ours) => {
                let cgroup = Cgroup {
                    folders: vec![ours.join(name)],
                    is_unified: true,
                };
                cgroup.create(|folder| limit_unified(folder, limits))?;
                cgroup
            }
            Hierarchies::Split(ours) => {
                let folders = ours.iter().map(|(_, folder)| folder.join(&name)).collect();
                let cgroup = Cgroup {
                    folders,
                    is_unified: false,
                };
                let mut controllers = ours.iter().map(|(controller, _)| *controller);
                cgroup.create(|folder| match controllers.next() {
                    Some(controller) => limit_split(folder, controller, limits),
                    None => Ok(()),
                })?;
                cgroup
            }
        };
        Ok(Some(cgroup))
    }

    /// Removes our folders, which must be empty.
    pub(crate) fn tear_down(&self) {
        let ours: Vec<_> = match &self.hierarchies {
            Hierarchies::None => Vec::new(),
            Hierarchies::Unified(ours) => vec![ours],
            Hierarchies::Split(ours) => ours.iter().map(|(_, folder)| folder).collect(),
        };
        for folder in ours {
            remove_tree(folder);
        }
    }
}

impl Cgroup {
    fn create(&self, mut limit: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        for folder in &self.folders {
            let made = fs::create_dir(folder).and_then(|()| limit(folder));
            if let Err(error) = made {
                self.folders.iter().for_each(|folder| remove_tree(folder));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The folder to be born into, version 2.
    pub(crate) fn to_be_born_into(&self) -> io::Result<Option<OwnedFd>> {
        if !self.is_unified {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(folder) = self.folders.first() else {
            return Ok(None);
        };
        Ok(Some(rustix::fs::open(folder, flags, Mode::empty())?))
    }

    /// What puts a process in, version 1.
    pub(crate) fn enrollment(&self) -> Option<Box<dyn FnOnce(u32) -> io::Result<()> + Send>> {
        if self.is_unified {
            return None;
        }
        let folders = self.folders.clone();
        Some(Box::new(move |pid| {
            let pid = pid.to_string();
            folders
                .iter()
                .try_for_each(|folder| fs::write(folder.join("cgroup.procs"), &pid))
        }))
    }

    /// How often the kernel ended a process of it for want of memory.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let file = if self.is_unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let texts = self
            .folders
            .iter()
            .filter_map(|f| fs::read_to_string(f.join(file)).ok());
        let counts = texts.flat_map(|text| {
            let lines = text
                .lines()
                .filter_map(|line| line.strip_prefix("oom_kill "));
            lines
                .filter_map(|count| count.trim().parse::<u64>().ok())
                .collect::<Vec<_>>()
        });
        counts.sum()
    }

    /// Removes it once its last process has gone.
    pub(crate) async fn remove(&self) {
        for folder in &self.folders {
            for _ in 0..REMOVE_TRIES {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        tokio::time::sleep(REMOVE_PAUSE).await;
                    }
                    // Gone, or the next start removes it.
                    Ok(()) | Err(_) => break,
                }
            }
        }
    }
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

/// Removes the folders of processes that are gone.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((pid, start)) = name.to_str().and_then(owner_of) else {
            continue;
        };
        if start_time(pid) != Some(start) {
            remove_tree(&entry.path());
        }
    }
}

fn owner_of(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("tinyfaas-")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn remove_tree(folder: &Path) {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        {
            remove_tree(&entry.path());
        }
    }
    // What can't be removed now is found by the next start.
    drop(fs::remove_dir(folder));
}

/// The folder below which ours may be made, version 2: as root the top, where the kernel allows
/// processes beside children; otherwise our own cgroup, if it is delegated to us.
fn unified_parent() -> io::Result<PathBuf> {
    let mount = mount_points()
        .into_iter()
        .find(|(kind, _, _)| kind == "cgroup2");
    let Some((_, mount, _)) = mount else {
        return Err(io::Error::other("not mounted"));
    };
    let parent = if rustix::process::geteuid().is_root() {
        mount
    } else {
        let own = own_paths().into_iter().find(|(names, _)| names.is_empty());
        mount.join(own.map(|(_, path)| path).unwrap_or_default())
    };
    let controllers = fs::read_to_string(parent.join("cgroup.controllers"))?;
    for needed in Controller::ALL.map(Controller::as_str) {
        if !controllers.split_whitespace().any(|have| have == needed) {
            return Err(io::Error::other(format!("no {needed} controller")));
        }
    }
    Ok(parent)
}

fn make_unified(parent: &Path, ours: &Path) -> io::Result<()> {
    let enable = "+memory +pids +cpu";
    fs::create_dir(ours)?;
    let enabled = fs::write(parent.join("cgroup.subtree_control"), enable).or_else(|error| {
        if rustix::process::geteuid().is_root() {
            return Err(error);
        }
        // Processes may not sit beside children: ours moves into a leaf.
        let leaf = parent.join("tinyfaas");
        fs::create_dir_all(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())?;
        fs::write(parent.join("cgroup.subtree_control"), enable)
    });
    let ready = enabled.and_then(|()| fs::write(ours.join("cgroup.subtree_control"), enable));
    ready.inspect_err(|_| remove_tree(ours))
}

fn make_split() -> io::Result<Vec<(Controller, PathBuf)>> {
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
                .for_each(|(_, folder): &(_, PathBuf)| remove_tree(folder));
            return Err(error);
        }
        folders.push((controller, folder));
    }
    Ok(folders)
}

fn limit_unified(folder: &Path, limits: &FunctionLimits) -> io::Result<()> {
    let put = |file: &str, text: String| fs::write(folder.join(file), text);
    put("memory.max", limits.memory_bytes_max.to_string())?;
    put("memory.oom.group", "1".into())?;
    put("pids.max", limits.pids_max.to_string())?;
    put(
        "cpu.max",
        format!("{} {CPU_PERIOD_US}", cpu_quota_us(limits)),
    )?;
    optional(put("memory.swap.max", "0".into()))
}

fn limit_split(folder: &Path, controller: Controller, limits: &FunctionLimits) -> io::Result<()> {
    let put = |file: &str, text: String| fs::write(folder.join(file), text);
    match controller {
        Controller::Memory => {
            put("memory.limit_in_bytes", limits.memory_bytes_max.to_string())?;
            optional(put("memory.swappiness", "0".into()))?;
            optional(put(
                "memory.memsw.limit_in_bytes",
                limits.memory_bytes_max.to_string(),
            ))
        }
        Controller::Pids => put("pids.max", limits.pids_max.to_string()),
        Controller::Cpu => {
            put("cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
            put("cpu.cfs_quota_us", cpu_quota_us(limits).to_string())
        }
    }
}

/// A kernel without accounting of swap has no such file.
fn optional(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // `O_CREAT` on a file that the kernel doesn't offer.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

fn cpu_quota_us(limits: &FunctionLimits) -> u64 {
    u64::from(limits.cpu_millis_max) * CPU_PERIOD_US / 1000
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
