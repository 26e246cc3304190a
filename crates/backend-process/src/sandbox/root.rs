//! The file system that a sandboxed process sees: a small tmpfs with what it needs of the host.

use super::step::{Failure, Step};
use super::sys::set_tree_attributes;
use super::{Bind, Plan, Reach, network};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where the new root is put together: a folder that every host has. Its own tree is cloned
/// before.
const STAGE: &str = "/usr";

/// Links or folders of the host's root that belong to `/usr`.
const USR_COMPANIONS: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec"];

/// Files and folders of `/etc` that programs need to start; none holds a secret.
const ETC: [&str; 8] = [
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "ssl/certs",
    "ssl/openssl.cnf",
];

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// What `/proc` tells of the kernel beside processes, and no function needs.
const PROC_HIDDEN: [&str; 18] = [
    // Names the host's disks, and whatever was put there, secrets of installers included.
    "cmdline",
    "config.gz",
    "diskstats",
    "interrupts",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "modules",
    "partitions",
    "sched_debug",
    "swaps",
    "sysrq-trigger",
    "timer_list",
];

/// The name of every sandbox's host; the machine's own says whose it is.
const HOST_NAME: &str = "function";

const ROOT_OPTIONS: &str = "size=1m,nr_inodes=1024,mode=755";

/// A tree of the host that was cloned before the user changed, and where it goes.
#[derive(Debug)]
pub(crate) struct Tree {
    fd: OwnedFd,
    target: PathBuf,
    is_folder: bool,
}

/// What was taken of the host.
#[derive(Debug)]
pub(crate) struct Trees {
    trees: Vec<Tree>,
    links: Vec<(PathBuf, PathBuf)>,
    copies: Vec<(PathBuf, Vec<u8>)>,
}

/// Clones what the plan binds, while this process still is the user that may walk there.
pub(crate) fn open(plan: &Plan) -> Result<Trees, Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step("private mounts")?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mut taken = Trees {
        trees: Vec::new(),
        links: Vec::new(),
        copies: Vec::new(),
    };
    taken
        .trees
        .push(clone(Path::new("/usr"), Path::new("/usr"), read_only).step("/usr")?);
    for name in USR_COMPANIONS {
        let path = Path::new("/").join(name);
        if let Ok(destination) = fs::read_link(&path) {
            taken.links.push((path, destination));
        } else if path.is_dir() {
            taken
                .trees
                .push(clone(&path, &path, read_only).step("a folder beside /usr")?);
        }
    }
    for path in ETC.map(|name| Path::new("/etc").join(name)) {
        if path.exists() {
            taken
                .trees
                .push(clone(&path, &path, read_only).step("/etc")?);
        }
    }
    taken.copies = name_files(&plan.reach);
    let device = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    for path in DEVICES.map(|name| Path::new("/dev").join(name)) {
        taken.trees.push(clone(&path, &path, device).step("/dev")?);
    }
    for bind in &plan.binds {
        let writable = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let attributes = if bind.is_writable {
            writable
        } else {
            read_only
        };
        taken
            .trees
            .push(clone_bind(bind, attributes).step("a bound folder")?);
    }
    Ok(taken)
}

/// The files that names are looked up by, where there is a network: they may be links into `/run`.
fn name_files(reach: &Reach) -> Vec<(PathBuf, Vec<u8>)> {
    let [hosts, resolv_conf] = ["/etc/hosts", "/etc/resolv.conf"].map(PathBuf::from);
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let (of_hosts, of_resolv_conf) = (read(&hosts), read(&resolv_conf));
    let (of_hosts, of_resolv_conf) = match reach {
        Reach::Nothing => return Vec::new(),
        Reach::Host => (of_hosts, of_resolv_conf),
        Reach::Relay { .. } => (
            network::hosts(&of_hosts),
            network::resolv_conf(&of_resolv_conf),
        ),
    };
    vec![
        (hosts, of_hosts.into_bytes()),
        (resolv_conf, of_resolv_conf.into_bytes()),
    ]
}

fn clone(source: &Path, target: &Path, attributes: MountAttrFlags) -> io::Result<Tree> {
    clone_by(source, target, attributes, OpenTreeFlags::empty())
}

/// Clones what a plan binds; where tinyFaaS made the source, a link in its place is refused.
fn clone_bind(bind: &Bind, attributes: MountAttrFlags) -> io::Result<Tree> {
    let flags = if bind.may_be_link {
        OpenTreeFlags::empty()
    } else {
        OpenTreeFlags::AT_SYMLINK_NOFOLLOW
    };
    clone_by(&bind.source, &bind.target, attributes, flags)
}

fn clone_by(
    source: &Path,
    target: &Path,
    attributes: MountAttrFlags,
    flags: OpenTreeFlags,
) -> io::Result<Tree> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", source.display()));
    let flags = flags
        | OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let fd = open_tree(CWD, source, flags).map_err(|error| named(error.into()))?;
    let kind = FileType::from_raw_mode(fstat(&fd).map_err(|error| named(error.into()))?.st_mode);
    if kind == FileType::Symlink {
        return Err(named(io::Error::other("it is a link, which is not bound")));
    }
    let is_folder = kind == FileType::Directory;
    set_tree_attributes(fd.as_fd(), attributes).map_err(named)?;
    Ok(Tree {
        fd,
        target: target.to_owned(),
        is_folder,
    })
}

/// Puts the new root together and makes it the only one.
pub(crate) fn build(plan: &Plan, taken: &Trees) -> Result<(), Failure> {
    mount_tmpfs(ROOT_OPTIONS, STAGE).step("root folder")?;
    make_etc(plan, &taken.copies).step("/etc")?;
    for (link, destination) in &taken.links {
        symlink(destination, staged(link)).step("links into /usr")?;
    }
    for name in ["tmp", "proc", "dev"] {
        fs::create_dir(Path::new(STAGE).join(name)).step("root folder")?;
    }
    // Before the trees: an interpreter may lie below the host's /tmp.
    let tmp = format!(
        "size={},nr_inodes={},mode=1777",
        plan.tmp_bytes_max,
        plan.tmp_files_max + 1
    );
    mount_tmpfs(&tmp, &format!("{STAGE}/tmp")).step("/tmp")?;
    // What POSIX semaphores and shared memory are made of, multiprocessing's among them.
    fs::create_dir(Path::new(STAGE).join("dev/shm")).step("/dev/shm")?;
    mount_tmpfs(&tmp, &format!("{STAGE}/dev/shm")).step("/dev/shm")?;
    for tree in &taken.trees {
        attach(tree).step("binding")?;
    }
    for (link, destination) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(destination, Path::new(STAGE).join("dev").join(link)).step("/dev")?;
    }
    mount_proc().step("/proc")?;
    rustix::system::sethostname(HOST_NAME.as_bytes()).step("host name")?;
    let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::BIND;
    mount_remount(STAGE, read_only, "").step("read-only root")?;
    enter().step("new root")
}

fn staged(path: &Path) -> PathBuf {
    Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path))
}

fn mount_tmpfs(options: &str, target: &str) -> io::Result<()> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options.split(',') {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&tree, "", CWD, target, flags)?)
}

fn make_etc(plan: &Plan, copies: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
    let etc = Path::new(STAGE).join("etc");
    fs::create_dir_all(etc.join("ssl"))?;
    fs::write(
        etc.join("passwd"),
        "root:x:0:0:root:/:/bin/false\nfn:x:1000:1000:function:/tmp:/bin/sh\n",
    )?;
    fs::write(etc.join("group"), "root:x:0:\nfn:x:1000:\n")?;
    fs::write(
        etc.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nhosts: files dns\n",
    )?;
    if plan.reach.is_nothing() {
        fs::write(etc.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    }
    fs::write(etc.join("hostname"), format!("{HOST_NAME}\n"))?;
    for (path, contents) in copies {
        fs::write(staged(path), contents)?;
    }
    Ok(())
}

fn attach(tree: &Tree) -> io::Result<()> {
    let target = staged(&tree.target);
    if tree.is_folder {
        fs::create_dir_all(&target)?;
    } else {
        fs::create_dir_all(target.parent().unwrap_or(Path::new(STAGE)))?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(&target, flags, Mode::RUSR | Mode::WUSR)?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&tree.fd, "", CWD, &target, flags)?)
}

fn mount_proc() -> io::Result<()> {
    let proc = format!("{STAGE}/proc");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", &proc, "proc", flags, Some(c"hidepid=2"))?;
    for name in PROC_HIDDEN {
        let path = Path::new(&proc).join(name);
        if path.exists() {
            let null = format!("{STAGE}/dev/null");
            mount(&null, &path, "", MountFlags::BIND, None)?;
        }
    }
    Ok(())
}

fn enter() -> io::Result<()> {
    std::env::set_current_dir(STAGE)?;
    // Puts the old root on top of the new one, from where it is taken away.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
