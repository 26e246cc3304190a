//! The system calls that no crate wraps.
#![expect(
    unsafe_code,
    reason = "clone3 with namespaces and a cgroup, mount_setattr, and taking over or watching descriptors have no safe wrapper"
)]

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The descriptors of a launcher beside standard input (`/dev/null`), output and error: the handler
/// protocol, which its program finds there too, the control channel, this program.
pub(crate) const PROTOCOL_FD: RawFd = 3;
pub(crate) const CONTROL_FD: RawFd = 4;
const EXECUTABLE_FD: RawFd = 5;
/// What the interface of a sandbox with a network of its own is handed to the relay through.
pub(crate) const NETWORK_FD: RawFd = 6;
const FIRST_FREE_FD: RawFd = 7;

/// `CLONE_INTO_CGROUP`, which libc still declares too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `argv[0]` of a launcher.
pub(crate) const LAUNCHER_ARG0: &std::ffi::CStr = c"tinyfaas-launcher";

/// `argv[0]` of the warden.
pub(crate) const WARDEN_ARG0: &std::ffi::CStr = c"tinyfaas-warden";

/// What a launcher inherits. All descriptors are above [`FIRST_FREE_FD`].
pub(crate) struct Inherited<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    pub(crate) protocol: BorrowedFd<'a>,
    pub(crate) control: BorrowedFd<'a>,
    pub(crate) executable: BorrowedFd<'a>,
    pub(crate) network: Option<BorrowedFd<'a>>,
}

/// A process that was cloned.
pub(crate) struct Cloned {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// Clones this process into new namespaces (and a cgroup, version 2) and executes this program
/// again as a launcher.
///
/// No crate offers a clone with namespace flags, a cgroup and a pidfd in one call, and splitting
/// it needs a second process for the process-id namespace.
pub(crate) fn clone_launcher(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    inherited: &Inherited<'_>,
) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let into_cgroup = if cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let args = libc::clone_args {
        flags: namespaces | into_cgroup | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: `args` is valid for its whole size. Without CLONE_VM the child has a copy of this
    // memory; it calls nothing but `execute_launcher`, which makes only system calls.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match pid {
        0 => execute_launcher(inherited),
        -1 => Err(io::Error::last_os_error()),
        pid => {
            // SAFETY: the kernel has just made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.expect("a process id is positive and fits 31 bits");
            Ok(Cloned { pid, pidfd })
        }
    }
}

/// Runs in the clone: nothing here may allocate or take a lock, as another thread may have held
/// it when the memory was copied.
fn execute_launcher(inherited: &Inherited<'_>) -> ! {
    let argv = [LAUNCHER_ARG0.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    let moves = [
        (inherited.stdin.as_raw_fd(), 0, 0),
        (inherited.stdout.as_raw_fd(), 1, 0),
        (inherited.stderr.as_raw_fd(), 2, 0),
        (inherited.protocol.as_raw_fd(), PROTOCOL_FD, 0),
        (inherited.control.as_raw_fd(), CONTROL_FD, 0),
        (
            inherited.executable.as_raw_fd(),
            EXECUTABLE_FD,
            libc::O_CLOEXEC,
        ),
    ];
    let network = inherited.network.map(|fd| (fd.as_raw_fd(), NETWORK_FD, 0));
    let first_free = FIRST_FREE_FD - RawFd::from(network.is_none());
    for (from, to, flags) in moves.into_iter().chain(network) {
        // SAFETY: plain system call on numbers.
        if unsafe { libc::dup3(from, to, flags) } == -1 {
            exit_now();
        }
    }
    keep_capabilities();
    // SAFETY: a plain system call; it closes only the copies of this clone.
    unsafe { libc::syscall(libc::SYS_close_range, first_free, u32::MAX, 0) };
    // SAFETY: the strings and arrays live until the call replaces this memory.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            EXECUTABLE_FD,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    exit_now()
}

/// Makes the capabilities that a new user namespace gives outlast the execution of the launcher,
/// which is not root in it: they become inheritable, then ambient. In a clone without a new user
/// namespace and without rights, this changes nothing.
fn keep_capabilities() {
    #[repr(C)]
    struct CapHeader {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapHeader {
        version: VERSION_3,
        pid: 0,
    };
    // Effective, permitted, inheritable; low and high half.
    let mut sets = [0u32; 6];
    // SAFETY: both structures have the layout that version 3 asks for.
    unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    sets[2] = sets[1];
    sets[5] = sets[4];
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    for capability in 0..64 {
        let (ambient, raise) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE);
        // SAFETY: plain system call on numbers; fails harmlessly for what is not permitted.
        unsafe { libc::prctl(ambient, raise, capability, 0, 0) };
    }
}

fn exit_now() -> ! {
    // SAFETY: ends the clone at once, without handlers of the memory that it copied.
    unsafe { libc::_exit(127) }
}

/// Takes over a descriptor that this process was started with.
pub(crate) fn take_inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: the launcher's descriptors are set by `clone_launcher`, and each is taken once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes this process outlive the signals that ask programs to end.
pub(crate) fn ignore_stop_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: no handler is installed that could run.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Enters a cgroup namespace whose root is the cgroup that this process is in.
pub(crate) fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: only `CLONE_FILES` could take descriptors from other threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?;
    Ok(())
}

/// Sets attributes of a whole mount tree (`mount_setattr(2)`), which rustix does not wrap.
pub(crate) fn set_tree_attributes(tree: BorrowedFd<'_>, set: MountAttrFlags) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: `attributes` is valid for its whole size, the path is an empty string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes an interface whose packets this descriptor of `/dev/net/tun` carries, and returns its
/// index.
pub(crate) fn make_interface(tun: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    // SAFETY: the structure is plain numbers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the request reads a whole `ifreq` and writes its name and flags back.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the name ends with a zero byte, as it is shorter than its field.
    match unsafe { libc::if_nametoindex(request.ifr_name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Lets the event loop tell when the process of a pidfd ends.
pub(crate) fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it stays open and the same for as long as it is watched.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}
