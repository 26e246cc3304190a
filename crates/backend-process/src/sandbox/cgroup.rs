//! Control groups: what bounds a handler's memory, processes and CPU time.

mod place;
pub(crate) mod tree;

use faas::FunctionLimits;
use place::Unified;
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
    Unified(Unified),
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
    /// Finds out what this host offers, makes our folders, and ends and removes what a killed
    /// tinyFaaS left. Blocks.
    pub(crate) fn set_up() -> Self {
        let why_not_unified = match Unified::set_up() {
            Ok((ours, detail)) => return Self::with(Hierarchies::Unified(ours), detail),
            Err(error) => error,
        };
        match place::make_split() {
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
                    folders: vec![ours.folder.join(name)],
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

    /// The folders that hold handlers' cgroups and nothing else but a leaf for tinyFaaS itself.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        match &self.hierarchies {
            Hierarchies::None => Vec::new(),
            Hierarchies::Unified(ours) => vec![ours.folder.clone()],
            Hierarchies::Split(ours) => ours.iter().map(|(_, folder)| folder.clone()).collect(),
        }
    }

    /// Removes our folders, in which no handler may be left.
    pub(crate) fn tear_down(&self) {
        match &self.hierarchies {
            Hierarchies::None => {}
            Hierarchies::Unified(ours) => ours.tear_down(),
            Hierarchies::Split(ours) => {
                ours.iter().for_each(|(_, folder)| tree::remove(folder));
            }
        }
    }
}

impl Cgroup {
    fn create(&self, mut limit: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        for folder in &self.folders {
            let made = fs::create_dir(folder).and_then(|()| limit(folder));
            if let Err(error) = made {
                self.folders.iter().for_each(|folder| tree::remove(folder));
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

    /// Puts a process in that was not born there.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        let put = |folder: &PathBuf| fs::write(folder.join("cgroup.procs"), pid.to_string());
        self.folders.iter().try_for_each(put)
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

    /// Kills everything in it.
    pub(crate) fn kill(&self) {
        self.folders.iter().for_each(|folder| tree::kill(folder));
    }

    /// Removes it once its last process has gone. What outlived its handler, as a process that
    /// left the handler's group can where no pid namespace holds it, is killed.
    pub(crate) async fn remove(&self) {
        for folder in &self.folders {
            for _ in 0..REMOVE_TRIES {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        tree::kill(folder);
                        tokio::time::sleep(REMOVE_PAUSE).await;
                    }
                    // Gone, or the next start removes it.
                    Ok(()) | Err(_) => break,
                }
            }
        }
    }
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
