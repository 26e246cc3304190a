//! Takes every right away from the process that compiles: it reads one descriptor, writes two, and
//! computes.

use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid, getpid};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op,
    SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::io;

/// The host's user that compiles where tinyFaaS is root. It is none that a system hands out, and
/// owns nothing.
const HOST_ID: u32 = 1_899_999_999;

/// The system calls of a program that computes on several threads. Every other fails.
const ALLOWED: [libc::c_long; 39] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrlimit,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_getuid,
];

/// `PR_SET_NAME` and `PR_SET_VMA`: names of threads and of memory.
const PRCTL: [u64; 2] = [15, 0x5356_4d41];

/// Confines this process, which has one thread, for good.
///
/// # Errors
/// If the kernel refuses one of the steps; then nothing is to be compiled.
pub(crate) fn confine() -> io::Result<()> {
    set_no_new_privs(true)?;
    if geteuid().is_root() {
        match become_nobody() {
            // A container may lack the capability or the id; the filter holds all the same.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let filter = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter(&filter).map_err(io::Error::other)
}

fn become_nobody() -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(HOST_ID), Gid::from_raw(HOST_ID));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// What is not listed is answered as if this kernel did not have it, `clone3` included, whose
/// arguments a filter can't see: the C library takes `clone` then.
fn filter() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let is = |argument, value| SeccompCondition::new(argument, Len::Dword, Op::Eq, value);
    let own = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![is(0, own)?])?]);
    let names = PRCTL.map(|what| SeccompRule::new(vec![is(0, what)?]));
    rules.insert(
        libc::SYS_prctl,
        names.into_iter().collect::<Result<_, _>>()?,
    );
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let is_thread = SeccompCondition::new(0, Len::Qword, Op::MaskedEq(thread), thread)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
    let denied = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, getppid, test_kill_process};
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    const INSIDE: &str = "BACKEND_WASM_TEST_CONFINED";

    /// What hostile code in the compiler would try; each says whether it worked.
    fn attempts(parent: Pid) -> Vec<(&'static str, bool)> {
        let listener = TcpListener::bind("127.0.0.1:0");
        let port = listener.as_ref().ok().and_then(|l| l.local_addr().ok());
        let port = port.map_or(9, |addr| addr.port());
        vec![
            ("read a file", File::open("/etc/passwd").is_ok()),
            (
                "write a file",
                File::create(std::env::temp_dir().join("confined")).is_ok(),
            ),
            ("listen", listener.is_ok()),
            ("connect", TcpStream::connect(("127.0.0.1", port)).is_ok()),
            ("run a program", Command::new("/bin/true").status().is_ok()),
            ("signal its parent", test_kill_process(parent).is_ok()),
        ]
    }

    #[test]
    fn what_compiles_reaches_nothing() {
        let parent = getppid().unwrap();
        if std::env::var_os(INSIDE).is_some() {
            super::confine().unwrap();
            let worked: Vec<_> = attempts(parent)
                .into_iter()
                .filter(|(_, worked)| *worked)
                .collect();
            assert!(worked.is_empty(), "{worked:?}");
            // What it is for still works.
            let sum = std::thread::spawn(|| (0..1000_u64).sum::<u64>())
                .join()
                .unwrap();
            assert_eq!(sum, 499_500);
            // The harness itself needs more rights to end in peace.
            std::process::exit(0);
        }
        assert!(
            attempts(parent).iter().all(|(_, worked)| *worked),
            "the control"
        );
        let name = "confine::tests::what_compiles_reaches_nothing";
        let mut inside = Command::new(std::env::current_exe().unwrap());
        let inside = inside.args(["--exact", name, "--test-threads=1", "--nocapture"]);
        let status = inside.env(INSIDE, "1").status().unwrap();
        assert!(status.success(), "{status}");
    }
}
