//! The system calls that a sandboxed process may make: [`builds::calls`] as filters.
//!
//! The first filter answers ENOSYS to calls for which programs have a fallback, the last allows what
//! interpreters need and answers EPERM to everything else. In builds another one stands between them,
//! which answers EOPNOTSUPP to what takes space without writing it. Where several answer with an
//! error, the kernel takes the later filter's, so the last lets pass what the others refuse. Calls of
//! another architecture (32-bit on a 64-bit kernel) end the process; x32 numbers are not on the list.

use super::step::{Failure, Step};
use super::{SandboxMode, Walls};
use builds::calls::{self, Condition};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

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

/// Installs the filters on this process and all that it will start.
pub(crate) fn restrict(mode: SandboxMode, walls: Walls, may_reserve: bool) -> Result<(), Failure> {
    let failed = |error: seccompiler::BackendError| io::Error::other(error.to_string());
    let reserving = (!may_reserve).then(not_supported);
    let last = allowed(mode, walls, may_reserve);
    let programs = std::iter::once(not_implemented()).chain(reserving);
    for program in programs.chain([last]) {
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
    let is_allowed = |number: &i64| calls::allowed().any(|call| call.number == *number);
    let unknown = calls::FIRST_UNKNOWN..=calls::LAST_UNKNOWN;
    let unknown = unknown.filter(move |number| !is_allowed(number));
    let known = calls::NOT_IMPLEMENTED.iter().map(|call| call.number);
    known.chain(unknown)
}

fn not_implemented() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = unimplemented_calls()
        .map(|number| (number, Vec::new()))
        .collect();
    refuse(rules, libc::ENOSYS)
}

/// Refuses what takes space on a disk without writing it.
fn not_supported() -> Result<BpfProgram, seccompiler::BackendError> {
    let whole = calls::RESERVING.iter();
    let mut rules: Rules = whole.map(|call| (call.number, Vec::new())).collect();
    rules.insert(libc::SYS_ioctl, requests(calls::RESERVING_REQUESTS)?);
    refuse(rules, libc::EOPNOTSUPP)
}

/// Answers these calls with an error and lets all others pass.
fn refuse(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, errno, arch()?)?.try_into()
}

fn allowed(
    mode: SandboxMode,
    walls: Walls,
    may_reserve: bool,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let rules = rules(mode, walls, may_reserve)?;
    SeccompFilter::new(rules, errno, SeccompAction::Allow, arch()?)?.try_into()
}

fn rules(
    mode: SandboxMode,
    walls: Walls,
    may_reserve: bool,
) -> Result<Rules, seccompiler::BackendError> {
    let listed = calls::allowed().map(|call| call.number);
    let all = listed.chain(unimplemented_calls());
    let mut rules: Rules = all.map(|number| (number, Vec::new())).collect();
    for (call, any) in calls::conditions() {
        let any = any.iter().map(|all| rule(all)).collect::<Result<_, _>>()?;
        rules.insert(call.number, any);
    }
    rules.insert(libc::SYS_ioctl, may_request(may_reserve)?);
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

/// What `ioctl` may request: of files nothing where space must not be reserved, as file systems have
/// many ways of that.
fn may_request(may_reserve: bool) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    if !may_reserve {
        // The last filter lets pass what the one before it answers.
        let listed = [calls::REQUESTS, calls::RESERVING_REQUESTS].concat();
        return requests(&listed);
    }
    let not_input = TERMINAL_INPUT.into_iter().map(|request| {
        let argument = calls::REQUEST;
        SeccompCondition::new(argument, Len::Dword, Op::Ne, request)
    });
    let not_input = SeccompRule::new(not_input.collect::<Result<_, _>>()?)?;
    Ok(vec![not_input])
}

fn requests(listed: &[u32]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let each = listed.iter();
    each.map(|request| rule(&[Condition::is(calls::REQUEST, *request)]))
        .collect()
}

/// All of these conditions.
fn rule(all: &[Condition]) -> Result<SeccompRule, seccompiler::BackendError> {
    let each = all.iter().map(|condition| {
        let masked = Op::MaskedEq(condition.mask.into());
        let value = condition.value.into();
        SeccompCondition::new(condition.argument, Len::Dword, masked, value)
    });
    SeccompRule::new(each.collect::<Result<_, _>>()?)
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
