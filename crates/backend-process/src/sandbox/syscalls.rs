//! The system calls that a function may make, as an allow-list.
//!
//! Two filters: the first answers ENOSYS to calls for which programs have a fallback, the second
//! allows what interpreters need and answers EPERM to everything else. Where both answer with an
//! error, the kernel takes the later filter's, so the second lets pass what the first refuses. Calls of another
//! architecture (32-bit on a 64-bit kernel) end the process; x32 numbers are not on the list.

use super::step::{Failure, Step};
use super::{SandboxMode, Walls};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Programs try these first and have another way.
const NOT_IMPLEMENTED: [i64; 9] = [
    // Its flags are behind a pointer, which no filter can read; `clone` is checked instead.
    libc::SYS_clone3,
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_memfd_secret,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// From here on, a call that is not on the list is newer than this list.
const FIRST_UNKNOWN: i64 = 451;
const LAST_UNKNOWN: i64 = 600;

#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Files.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2,
    libc::SYS_openat, libc::SYS_close, libc::SYS_close_range, libc::SYS_lseek, libc::SYS_fstat,
    libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_getcwd,
    libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat2,
    libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown,
    libc::SYS_fchownat, libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate,
    libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_sync_file_range, libc::SYS_utimensat, libc::SYS_flock, libc::SYS_fcntl,
    libc::SYS_ioctl, libc::SYS_dup, libc::SYS_dup3, libc::SYS_pipe2, libc::SYS_umask,
    libc::SYS_copy_file_range, libc::SYS_sendfile, libc::SYS_splice, libc::SYS_tee,
    libc::SYS_vmsplice, libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr, libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch, libc::SYS_memfd_create,
    // Memory.
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect,
    libc::SYS_pkey_mprotect, libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_madvise,
    libc::SYS_msync, libc::SYS_mincore, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_munlock,
    libc::SYS_membarrier, libc::SYS_get_mempolicy, libc::SYS_shmget, libc::SYS_shmat,
    libc::SYS_shmdt, libc::SYS_shmctl,
    // Processes and threads.
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4,
    libc::SYS_waitid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid, libc::SYS_getpgid,
    libc::SYS_setpgid, libc::SYS_getsid, libc::SYS_setsid, libc::SYS_getuid, libc::SYS_geteuid,
    libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid, libc::SYS_getresgid,
    libc::SYS_getgroups, libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid,
    libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setgroups,
    libc::SYS_set_tid_address, libc::SYS_set_robust_list, libc::SYS_get_robust_list,
    libc::SYS_rseq, libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler, libc::SYS_sched_setscheduler, libc::SYS_sched_getattr,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_getpriority, libc::SYS_setpriority, libc::SYS_prctl, libc::SYS_capget,
    libc::SYS_getrlimit, libc::SYS_setrlimit, libc::SYS_prlimit64, libc::SYS_getrusage,
    libc::SYS_times, libc::SYS_getcpu, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom,
    libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal,
    // Signals.
    libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo, libc::SYS_sigaltstack, libc::SYS_signalfd4,
    libc::SYS_restart_syscall,
    // Time.
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime,
    libc::SYS_clock_getres, libc::SYS_gettimeofday, libc::SYS_getitimer, libc::SYS_setitimer,
    libc::SYS_timer_create, libc::SYS_timer_settime, libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun, libc::SYS_timer_delete, libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    // Waiting and sockets; what kinds of sockets is in `rules`.
    libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_bind,
    libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect,
    libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt,
    libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg,
    libc::SYS_sendmmsg, libc::SYS_recvmmsg, libc::SYS_shutdown,
];

/// What 64-bit x86 has beside the calls that every architecture has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access,
    libc::SYS_readlink, libc::SYS_getdents, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink,
    libc::SYS_rename, libc::SYS_renameat, libc::SYS_link, libc::SYS_symlink, libc::SYS_chmod,
    libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat,
    libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_create,
    libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_signalfd, libc::SYS_inotify_init,
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_getpgrp, libc::SYS_arch_prctl, libc::SYS_time,
    libc::SYS_alarm, libc::SYS_pause,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[libc::SYS_renameat];

/// Families of sockets that a function may make beside Unix ones. Netlink, packet, vsock, crypto and
/// every other family reach into the kernel or the host.
const INTERNET_FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Types and protocols of Internet sockets that a function may make: TCP, UDP and ping. MPTCP, SCTP,
/// DCCP and their like are large parts of the kernel that no function needs and that neither
/// Landlock nor most firewalls know. SCTP is also the kernel's choice for `SOCK_SEQPACKET`, DCCP for
/// its own type, so that the type is checked too.
const INTERNET_SOCKETS: [(i32, i32); 6] = [
    (libc::SOCK_STREAM, 0),
    (libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::SOCK_DGRAM, 0),
    (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
    (libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
];

/// The kernel's `SOCK_TYPE_MASK`: the rest of a socket's type are flags.
const SOCKET_TYPE_MASK: u64 = 0xf;

/// The flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Terminal requests that put input into another's terminal (`TIOCSTI`, `TIOCLINUX`).
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

/// The resource whose limit functions may read and not set: see `NO_CORE` in [`super::confine`].
const RLIMIT_CORE: i32 = 4;

/// Calls that change the process whose id is this argument, where 0 is the caller: within a pid namespace those are the function's own.
const ON_ANOTHER_IN_SIGHT: [(i64, u8); 3] = [
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
];

/// Shortens a file by its path, which Landlock has no rule for before its version 3.
const TRUNCATE: i64 = libc::SYS_truncate;
const LANDLOCK_WITH_TRUNCATE: u32 = 3;

/// Installs both filters on this process and all that it will start.
pub(crate) fn restrict(mode: SandboxMode, walls: Walls) -> Result<(), Failure> {
    let failed = |error: seccompiler::BackendError| io::Error::other(error.to_string());
    let programs = [not_implemented(), allowed(mode, walls)];
    for program in programs {
        let program = program.map_err(failed).step("seccomp")?;
        let applied = seccompiler::apply_filter(&program);
        applied
            .map_err(|error| io::Error::other(error.to_string()))
            .step("seccomp")?;
    }
    Ok(())
}

/// Calls that are answered as if this kernel did not have them.
fn unimplemented_calls() -> impl Iterator<Item = i64> {
    let is_allowed = |number: &i64| ALLOWED.contains(number) || ALLOWED_HERE.contains(number);
    let unknown = (FIRST_UNKNOWN..=LAST_UNKNOWN).filter(move |number| !is_allowed(number));
    NOT_IMPLEMENTED.into_iter().chain(unknown)
}

fn not_implemented() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = unimplemented_calls()
        .map(|number| (number, Vec::new()))
        .collect();
    let errno = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, errno, arch()?)?.try_into()
}

fn allowed(mode: SandboxMode, walls: Walls) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules(mode, walls)?, errno, SeccompAction::Allow, arch()?)?.try_into()
}

fn rules(mode: SandboxMode, walls: Walls) -> Result<Rules, seccompiler::BackendError> {
    let listed = ALLOWED.iter().chain(ALLOWED_HERE).copied();
    let all = listed.chain(unimplemented_calls());
    let mut rules: Rules = all.map(|number| (number, Vec::new())).collect();
    rules.insert(libc::SYS_socket, sockets()?);
    let pair = is(0, Op::Eq, libc::AF_UNIX)?;
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![pair])?]);
    let mask = u64::from(NAMESPACE_FLAGS.cast_unsigned());
    let no_namespace = SeccompCondition::new(0, Len::Qword, Op::MaskedEq(mask), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]);
    let not_input = TERMINAL_INPUT
        .into_iter()
        .map(|request| SeccompCondition::new(1, Len::Dword, Op::Ne, request));
    let not_input = SeccompRule::new(not_input.collect::<Result<_, _>>()?)?;
    rules.insert(libc::SYS_ioctl, vec![not_input]);
    rules.insert(libc::SYS_prctl, controls()?);
    let in_sight = ON_ANOTHER_IN_SIGHT
        .into_iter()
        .filter(|_| mode == SandboxMode::Reduced);
    let core = |argument| is(argument, Op::Ne, RLIMIT_CORE);
    rules.insert(libc::SYS_setrlimit, vec![SeccompRule::new(vec![core(0)?])?]);
    for (call, argument) in in_sight {
        let on_itself = is(argument, Op::Eq, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![on_itself])?]);
    }
    rules.insert(libc::SYS_prlimit64, own_limits()?);
    if mode == SandboxMode::Reduced && walls.landlock < Some(LANDLOCK_WITH_TRUNCATE) {
        rules.remove(&TRUNCATE);
    }
    Ok(rules)
}

/// A process may read its own limits and set all but that of core dumps; those of others are not its
/// business.
fn own_limits() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let reads = SeccompRule::new(vec![
        is(0, Op::Eq, 0)?,
        SeccompCondition::new(2, Len::Qword, Op::Eq, 0)?,
    ])?;
    let sets = SeccompRule::new(vec![is(0, Op::Eq, 0)?, is(1, Op::Ne, RLIMIT_CORE)?])?;
    Ok(vec![reads, sets])
}

fn sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut rules = vec![SeccompRule::new(vec![is(0, Op::Eq, libc::AF_UNIX)?])?];
    for family in INTERNET_FAMILIES {
        for (kind, protocol) in INTERNET_SOCKETS {
            rules.push(SeccompRule::new(vec![
                is(0, Op::Eq, family)?,
                is(1, Op::MaskedEq(SOCKET_TYPE_MASK), kind)?,
                is(2, Op::Eq, protocol)?,
            ])?);
        }
    }
    Ok(rules)
}

/// A process may ask to be killed with its parent, but not for less: that is how handlers end with
/// tinyFaaS.
fn controls() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let any_other = SeccompRule::new(vec![is(0, Op::Ne, libc::PR_SET_PDEATHSIG)?])?;
    let killed = SeccompRule::new(vec![
        is(0, Op::Eq, libc::PR_SET_PDEATHSIG)?,
        is(1, Op::Eq, libc::SIGKILL)?,
    ])?;
    Ok(vec![any_other, killed])
}

/// A condition on the low half of an argument, which is what the kernel reads of an `int`.
fn is(argument: u8, op: Op, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Len::Dword, op, u64::from(value.cast_unsigned()))
}

fn arch() -> Result<TargetArch, seccompiler::BackendError> {
    std::env::consts::ARCH.try_into()
}
