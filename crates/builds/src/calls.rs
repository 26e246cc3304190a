//! The system calls that untrusted code may make, written once for both backends: a sandboxed
//! process has them as filters, by number; a build in a container as the engine's profile, by name.
//! A profile replaces the engine's own, so it has to be an allow-list, too.
//!
//! It is here as both backends see this crate, and as most of it is what package managers and
//! compilers need.

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// As the kernel's headers and libseccomp have it.
    pub name: &'static str,
    /// On this architecture.
    pub number: i64,
}

/// What the kernel reads of an argument that is an `int` must be, in these bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The argument, from 0 on.
    pub argument: u8,
    /// The bits that are looked at.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

/// What a call's arguments may be: each set is enough, and all of a set must hold.
pub type AnyOf = Vec<Vec<Condition>>;

/// Calls by the names of their numbers, so that a name and its number stand in one place.
macro_rules! calls {
    ($($number:ident)*) => {
        &[$(Call { name: without_prefix(stringify!($number)), number: libc::$number },)*]
    };
}

const PREFIX: &str = "SYS_";

const fn without_prefix(number: &'static str) -> &'static str {
    number.split_at(PREFIX.len()).1
}

/// Programs try these first and have another way, on ENOSYS only.
pub const NOT_IMPLEMENTED: &[Call] = calls![
    // Its flags are behind a pointer, which no filter can read; `clone` is checked instead.
    SYS_clone3
    SYS_openat2 SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_memfd_secret
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
];

/// From here on, a call that is not on the list is newer than this list.
pub const FIRST_UNKNOWN: i64 = 451;
/// Later calls will come; this many are foreseen.
pub const LAST_UNKNOWN: i64 = 600;

/// Newer calls that have names already, of which some libraries take nothing but ENOSYS.
pub const UNKNOWN: &[&str] = &[
    "cachestat",
    "fchmodat2",
    "map_shadow_stack",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
    "statmount",
    "listmount",
    "lsm_get_self_attr",
    "lsm_set_self_attr",
    "lsm_list_modules",
    "mseal",
    "setxattrat",
    "getxattrat",
    "listxattrat",
    "removexattrat",
    "open_tree_attr",
    "file_getattr",
    "file_setattr",
];

/// Every call that may be made, those of [`conditions`] included.
pub fn allowed() -> impl Iterator<Item = Call> {
    ALLOWED.iter().chain(ALLOWED_HERE).copied()
}

#[rustfmt::skip]
const ALLOWED: &[Call] = calls![
    // Files.
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev
    SYS_preadv2 SYS_pwritev2 SYS_openat SYS_close SYS_close_range SYS_lseek SYS_fstat
    SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_readlinkat
    SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_mkdirat SYS_unlinkat SYS_renameat2
    SYS_linkat SYS_symlinkat SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_truncate
    SYS_ftruncate SYS_fallocate SYS_fadvise64 SYS_readahead SYS_fsync SYS_fdatasync
    SYS_sync_file_range SYS_utimensat SYS_flock SYS_fcntl SYS_ioctl SYS_dup SYS_dup3 SYS_pipe2
    SYS_umask SYS_copy_file_range SYS_sendfile SYS_splice SYS_tee SYS_vmsplice SYS_getxattr
    SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_inotify_init1
    SYS_inotify_add_watch SYS_inotify_rm_watch SYS_memfd_create
    // Memory.
    SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_pkey_mprotect SYS_pkey_alloc
    SYS_pkey_free SYS_madvise SYS_msync SYS_mincore SYS_mlock SYS_mlock2 SYS_munlock
    SYS_membarrier SYS_get_mempolicy SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl
    // Processes and threads.
    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_getpid SYS_getppid
    SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid SYS_getuid SYS_geteuid SYS_getgid
    SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid SYS_setgid SYS_setreuid
    SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_set_tid_address
    SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_futex SYS_futex_waitv SYS_sched_yield
    SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam SYS_sched_getscheduler
    SYS_sched_setscheduler SYS_sched_getattr SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_getpriority SYS_setpriority SYS_prctl SYS_capget
    SYS_getrlimit SYS_setrlimit SYS_prlimit64 SYS_getrusage SYS_times SYS_getcpu SYS_uname
    SYS_sysinfo SYS_getrandom SYS_pidfd_open SYS_pidfd_send_signal SYS_clone
    // Signals.
    SYS_kill SYS_tkill SYS_tgkill SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn
    SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigsuspend SYS_rt_sigqueueinfo
    SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_signalfd4 SYS_restart_syscall
    // Time.
    SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres SYS_gettimeofday
    SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime
    SYS_timer_getoverrun SYS_timer_delete SYS_timerfd_create SYS_timerfd_settime
    SYS_timerfd_gettime
    // Waiting and sockets; what kinds of sockets is in `conditions`.
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
    SYS_eventfd2 SYS_socket SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4
    SYS_connect SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_sendto
    SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown
];

/// What 64-bit x86 has beside the calls that every architecture has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[Call] = calls![
    SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_mkdir SYS_rmdir
    SYS_unlink SYS_rename SYS_renameat SYS_link SYS_symlink SYS_chmod SYS_chown SYS_lchown
    SYS_utime SYS_utimes SYS_futimesat SYS_dup2 SYS_pipe SYS_poll SYS_select SYS_epoll_create
    SYS_epoll_wait SYS_eventfd SYS_signalfd SYS_inotify_init SYS_fork SYS_vfork SYS_getpgrp
    SYS_arch_prctl SYS_time SYS_alarm SYS_pause
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[Call] = calls![SYS_renameat];

/// Families of sockets that may be made beside Unix ones. Netlink, packet, vsock, crypto and every
/// other family reach into the kernel or the host.
const INTERNET_FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Types and protocols of Internet sockets that may be made: TCP, UDP and ping. MPTCP, SCTP, DCCP and
/// their like are large parts of the kernel that no function needs and that neither Landlock nor most
/// firewalls know. SCTP is also the kernel's choice for `SOCK_SEQPACKET`, DCCP for its own type, so
/// that the type is checked too.
const INTERNET_SOCKETS: [(i32, i32); 6] = [
    (libc::SOCK_STREAM, 0),
    (libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::SOCK_DGRAM, 0),
    (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
    (libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
];

/// The kernel's `SOCK_TYPE_MASK`: the rest of a socket's type are flags.
const SOCKET_TYPE_MASK: u32 = 0xf;

/// The flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Calls that may be made with these arguments only.
#[must_use]
pub fn conditions() -> Vec<(Call, AnyOf)> {
    const CALLS: &[Call] = calls![SYS_socket SYS_socketpair SYS_clone];
    let no_namespace = Condition {
        argument: 0,
        mask: NAMESPACE_FLAGS.cast_unsigned(),
        value: 0,
    };
    let of = [
        sockets(),
        vec![vec![is(0, libc::AF_UNIX)]],
        vec![vec![no_namespace]],
    ];
    CALLS.iter().copied().zip(of).collect()
}

fn sockets() -> AnyOf {
    let mut any = vec![vec![is(0, libc::AF_UNIX)]];
    for family in INTERNET_FAMILIES {
        for (kind, protocol) in INTERNET_SOCKETS {
            let kind = Condition {
                argument: 1,
                mask: SOCKET_TYPE_MASK,
                value: kind.cast_unsigned(),
            };
            any.push(vec![is(0, family), kind, is(2, protocol)]);
        }
    }
    any
}

fn is(argument: u8, value: i32) -> Condition {
    Condition::is(argument, value.cast_unsigned())
}

impl Condition {
    /// All of an argument that is an `int`.
    #[must_use]
    pub const fn is(argument: u8, value: u32) -> Self {
        Self {
            argument,
            mask: u32::MAX,
            value,
        }
    }
}

/// The argument of `ioctl` that says what is requested.
pub const REQUEST: u8 = 1;

/// What builds are told is not supported, as by a file system that lacks it: it takes space without
/// writing, as much as there is, before anybody looks. glibc then writes where a program asks for
/// space (`posix_fallocate`), so that programs go on working.
pub const RESERVING: &[Call] = calls![SYS_fallocate];

/// The same by requests of `ioctl`, for any file system or those that have their own; and sharing of
/// blocks (`FICLONE`), for which programs have another way on that answer only.
pub const RESERVING_REQUESTS: &[u32] = &[
    0x4030_5828, // FS_IOC_RESVSP
    0x4030_582a, // FS_IOC_RESVSP64
    0x4030_5829, // FS_IOC_UNRESVSP
    0x4030_582b, // FS_IOC_UNRESVSP64
    0x4030_5839, // FS_IOC_ZERO_RANGE
    0x4030_580a, // XFS_IOC_ALLOCSP
    0x4030_5824, // XFS_IOC_ALLOCSP64
    0x4030_580b, // XFS_IOC_FREESP
    0x4030_5825, // XFS_IOC_FREESP64
    0x401c_5820, // FS_IOC_FSSETXATTR: with XFS a size that each write takes at least
    0x4004_9409, // FICLONE
    0x4020_940d, // FICLONERANGE
    0xc018_9436, // FIDEDUPERANGE
];

/// Requests of `ioctl` that builds may make: of terminals, pipes, sockets and descriptors. None puts
/// input into another's terminal (`TIOCSTI`, `TIOCLINUX`), none is of a file system: those have many,
/// and some take space.
pub const REQUESTS: &[u32] = &[
    0x5401,      // TCGETS
    0x5402,      // TCSETS
    0x5403,      // TCSETSW
    0x5404,      // TCSETSF
    0x802c_542a, // TCGETS2
    0x402c_542b, // TCSETS2
    0x402c_542c, // TCSETSW2
    0x402c_542d, // TCSETSF2
    0x5409,      // TCSBRK
    0x540a,      // TCXONC
    0x540b,      // TCFLSH
    0x540e,      // TIOCSCTTY
    0x540f,      // TIOCGPGRP
    0x5410,      // TIOCSPGRP
    0x5411,      // TIOCOUTQ
    0x5413,      // TIOCGWINSZ
    0x5414,      // TIOCSWINSZ
    0x5422,      // TIOCNOTTY
    0x5429,      // TIOCGSID
    0x8004_5430, // TIOCGPTN
    0x4004_5431, // TIOCSPTLCK
    0x5441,      // TIOCGPTPEER
    0x541b,      // FIONREAD
    0x5421,      // FIONBIO
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
    0x5452,      // FIOASYNC
    0x8905,      // SIOCATMARK
    0x8910,      // SIOCGIFNAME
    0x8933,      // SIOCGIFINDEX
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_call_is_named_as_its_number_is() {
        let openat = allowed().find(|call| call.number == libc::SYS_openat);
        assert_eq!(openat.map(|call| call.name), Some("openat"));
        assert!(allowed().all(|call| !call.name.starts_with(PREFIX)));
    }

    #[test]
    fn what_has_conditions_is_allowed_and_what_is_not_there_is_not() {
        let all: BTreeSet<Call> = allowed().collect();
        assert_eq!(all.len(), allowed().count(), "a call stands there twice");
        for (call, any) in conditions() {
            assert!(all.contains(&call) && !any.is_empty(), "{call:?}");
        }
        assert!(NOT_IMPLEMENTED.iter().all(|call| !all.contains(call)));
        assert!(allowed().all(|call| !UNKNOWN.contains(&call.name)));
        // Else a filter that answers otherwise would have no say.
        assert!(RESERVING.iter().all(|call| all.contains(call)));
        let requests: BTreeSet<_> = REQUESTS.iter().chain(RESERVING_REQUESTS).collect();
        assert_eq!(requests.len(), REQUESTS.len() + RESERVING_REQUESTS.len());
    }
}
