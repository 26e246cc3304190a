//! What a function can use up: memory, processes, disk, time of the CPU, its log, its protocol.

use crate::attacks::{self, Attack};
use crate::host::{Node, outside};
use crate::outlive;
use anyhow::{Context, Result, ensure};
use faas::{FunctionLimits, InvokeError, Limits};
use std::fs;
use std::path::{Path, PathBuf};

type Test = fn() -> Result<()>;

/// What Landlock, from a version on, and seccomp refuse on their own, without namespaces.
const REDUCED: &[(&str, u32)] = &[
    ("etc_shadow_is_not_there", 1),
    ("another_functions_code_is_not_there", 1),
    ("files_of_the_host_are_not_there", 1),
    ("processes_of_the_host_cannot_be_signalled", 6),
    ("loopback_of_the_host_is_not_reached", 4),
    ("abstract_sockets_of_the_host_are_not_reached", 6),
    ("mount_is_refused", 0),
    ("unshare_is_refused", 0),
    ("ptrace_is_refused", 0),
    ("netlink_is_refused", 0),
    ("limits_of_another_process_cannot_be_read_or_set", 0),
    ("usr_cannot_be_written", 1),
];

pub(crate) const ALL: &[(&str, Test)] = &[
    (
        "reduced_isolation_refuses_what_it_can",
        reduced_isolation_refuses_what_it_can,
    ),
    (
        "reduced_isolation_as_root_gives_each_function_a_user",
        reduced_isolation_as_root_gives_each_function_a_user,
    ),
    (
        "a_handler_ends_with_a_killed_node_whatever_it_executes",
        outlive::a_handler_ends_with_a_killed_node_whatever_it_executes,
    ),
    (
        "what_a_killed_node_and_its_warden_left_is_ended_by_the_next_start",
        outlive::what_a_killed_node_and_its_warden_left_is_ended_by_the_next_start,
    ),
    ("tmp_is_bounded_by_bytes", tmp_is_bounded_by_bytes),
    ("shm_is_bounded_by_bytes", shm_is_bounded_by_bytes),
    ("tmp_is_bounded_by_files", tmp_is_bounded_by_files),
    (
        "a_fork_bomb_stops_at_its_limit",
        a_fork_bomb_stops_at_its_limit,
    ),
    (
        "a_memory_hog_ends_and_says_why",
        a_memory_hog_ends_and_says_why,
    ),
    ("a_cpu_hog_is_throttled", a_cpu_hog_is_throttled),
    (
        "handlers_of_one_function_do_not_see_each_other",
        handlers_do_not_see_each_other,
    ),
    (
        "system_calls_of_32_bits_end_the_process",
        system_calls_of_32_bits_end_the_process,
    ),
    (
        "a_log_flood_keeps_its_bound_and_the_call_returns",
        a_log_flood_keeps_its_bound,
    ),
    (
        "malformed_frames_end_the_handler_and_it_is_replaced",
        malformed_frames,
    ),
    (
        "oversized_frames_end_the_handler_and_it_is_replaced",
        oversized_frames,
    ),
];

fn reduced_isolation_refuses_what_it_can() -> Result<()> {
    let node = Node::reduced()?;
    let landlock = node.landlock()?;
    let is_refused = |attack: &&Attack| {
        let mut refused = REDUCED.iter();
        refused.any(|&(name, since)| name == attack.name && since <= landlock)
    };
    for attack in attacks::all().filter(is_refused) {
        let code = node.aim(attack.code);
        let control = outside(&code)?;
        ensure!(
            control.starts_with(attack.outside),
            "{}: the control said {control:?}",
            attack.name
        );
        let answer = node.call(&code)?;
        ensure!(
            answer.contains("PermissionError("),
            "{}: got {answer:?}",
            attack.name
        );
    }
    Ok(())
}

/// Without a user of its own, it could change limits of any process of root, tinyFaaS's included,
/// and read files of root wherever Landlock has no rule.
fn reduced_isolation_as_root_gives_each_function_a_user() -> Result<()> {
    let look =
        "import os; result = sorted({os.getuid(), os.geteuid(), *os.getresgid(), *os.getgroups()})";
    let own = outside("import os; result = os.getuid()")?;
    let node = Node::reduced()?;
    let ids = node.call(look)?;
    let limits =
        node.aim("import resource; result = resource.prlimit(@PID, resource.RLIMIT_NOFILE)");
    let refused = node.call(&limits)?;
    ensure!(
        refused.contains("PermissionError("),
        "limits of another: {refused}"
    );
    if own != "0" {
        // Only root can become somebody else.
        ensure!(ids.contains(&own), "{ids}");
        return Ok(());
    }
    ensure!(
        ids.starts_with("[1900000000, 1900") && !ids.contains("[0"),
        "{ids}"
    );
    let alive = node.call(
        "open(__import__('os').environ['TMPDIR'] + '/x', 'w').write('x'); result = 'own tmp'",
    )?;
    ensure!(alive == "own tmp", "{alive}");
    Ok(())
}

fn tmp_is_bounded_by_bytes() -> Result<()> {
    is_bounded_by_bytes("/tmp")
}

fn shm_is_bounded_by_bytes() -> Result<()> {
    is_bounded_by_bytes("/dev/shm")
}

fn is_bounded_by_bytes(folder: &str) -> Result<()> {
    let code = format!(
        r"
import os, tempfile
with tempfile.TemporaryFile(dir='{folder}') as file:
    for _ in range(40): file.write(bytes(1 << 20))
    file.flush()
result = 'filled'"
    );
    let limits = FunctionLimits {
        tmp_bytes_max: 16 << 20,
        ..FunctionLimits::default()
    };
    differs(&limits, &code, "filled", "OSError(28,")
}

fn tmp_is_bounded_by_files() -> Result<()> {
    let code = r"
import tempfile
with tempfile.TemporaryDirectory() as folder:
    for n in range(500): open('%s/%d' % (folder, n), 'w').close()
result = 'filled'";
    let limits = FunctionLimits {
        tmp_files_max: 100,
        ..FunctionLimits::default()
    };
    differs(&limits, code, "filled", "OSError(28,")
}

fn a_fork_bomb_stops_at_its_limit() -> Result<()> {
    let code = r"
import os, signal, time
children = []
try:
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
except OSError:
    # Long enough for the handler to want a thread more, which it can't have either.
    time.sleep(0.2)
    raise
finally:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
result = 'forked'";
    let limits = FunctionLimits {
        pids_max: 32,
        ..FunctionLimits::default()
    };
    differs(&limits, code, "forked", "BlockingIOError(11,")
}

fn a_memory_hog_ends_and_says_why() -> Result<()> {
    let code = "hog = bytearray(200 << 20); result = 'hogged'";
    ensure!(
        outside(code)? == "hogged",
        "the control did not get its memory"
    );
    let limits = FunctionLimits {
        memory_bytes_max: 64 << 20,
        ..FunctionLimits::default()
    };
    let node = Node::with(&limits, 1)?;
    let refused = node
        .try_call(0, code)
        .err()
        .context("the hog got its memory")?;
    let text = refused.to_string();
    ensure!(
        text.contains("out of memory, its limit is 64 MiB"),
        "{text}"
    );
    ensure!(
        node.call("result = 'alive'")? == "alive",
        "the handler was not replaced"
    );
    Ok(())
}

fn a_cpu_hog_is_throttled() -> Result<()> {
    let code = r"
import time
until = time.monotonic() + 1
while time.monotonic() < until: pass
result = 'spun'";
    let spin = |cpu_millis_max| -> Result<u64> {
        let node = Node::with(
            &FunctionLimits {
                cpu_millis_max,
                ..FunctionLimits::default()
            },
            1,
        )?;
        ensure!(node.call(code)? == "spun", "the function did not end");
        throttled()
    };
    // The control is the same function with two cores to itself.
    let (bounded, control) = (spin(200)?, spin(4000)?);
    ensure!(
        bounded > control,
        "throttled {bounded} times, with more room {control} times"
    );
    Ok(())
}

/// How often the kernel held back the processes in our cgroups.
fn throttled() -> Result<u64> {
    let own = format!("tinyfaas-{}-", std::process::id());
    let mut count = 0;
    for stat in stats_below(Path::new("/sys/fs/cgroup"), &own) {
        let text = fs::read_to_string(stat)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        count += line
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(count)
}

fn stats_below(folder: &Path, own: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), false)];
    while let Some((folder, is_ours)) = open.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push((entry.path(), is_ours || name.starts_with(own)));
            } else if is_ours && name == "cpu.stat" {
                found.push(entry.path());
            }
        }
    }
    found
}

fn handlers_do_not_see_each_other() -> Result<()> {
    let path = format!("/tmp/tinyfaas-escape-{}", std::process::id());
    let write = format!("import os; open('{path}', 'w').write('of A'); result = os.getpid()");
    let read = format!("result = open('{path}').read()");
    outside(&write)?;
    let control = outside(&read)?;
    fs::remove_file(&path)?;
    ensure!(
        control == "of A",
        "plain processes share /tmp, but the control said {control:?}"
    );
    let node = Node::with(&FunctionLimits::default(), 2)?;
    node.try_call(0, &write)?;
    ensure!(
        node.try_call(0, &read)? == "of A",
        "a handler sees its own file"
    );
    let other = node.try_call(1, &read)?;
    ensure!(
        other.contains("FileNotFoundError"),
        "handler B saw handler A's file: {other}"
    );
    let processes =
        "import os; result = sorted(int(n) for n in os.listdir('/proc') if n.isdigit())";
    ensure!(
        node.try_call(1, processes)? == "[1]",
        "handler B sees other processes"
    );
    Ok(())
}

/// `mov eax, 20; int 0x80; ret`: getpid by the 32-bit door.
#[cfg(target_arch = "x86_64")]
fn system_calls_of_32_bits_end_the_process() -> Result<()> {
    let code = r"
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
result = 'pid' if function() > 0 else 'refused'";
    ensure!(
        outside(code)? == "pid",
        "this kernel has no 32-bit system calls"
    );
    let node = Node::start()?;
    let died = node
        .try_call(0, code)
        .err()
        .context("the call went through")?;
    ensure!(matches!(died, InvokeError::HandlerDied { .. }), "{died}");
    ensure!(
        died.to_string().contains("signal 31"),
        "not ended by seccomp: {died}"
    );
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn system_calls_of_32_bits_end_the_process() -> Result<()> {
    // Only x86 has a door that a 64-bit program can knock at.
    Ok(())
}

fn a_log_flood_keeps_its_bound() -> Result<()> {
    let code = r"
import sys
for n in range(5_500): print('flood', n, '.' * 100)
result = 'printed'";
    let bound = Limits::default().log_bytes_max;
    ensure!(
        outside(code)?.len() > 2 * bound,
        "the control printed less than a flood"
    );
    let node = Node::start()?;
    ensure!(node.call(code)? == "printed", "the call did not return");
    let text: usize = node.log.after(0).iter().map(|line| line.text.len()).sum();
    ensure!(text <= bound, "the log holds {text} bytes");
    Ok(())
}

fn malformed_frames() -> Result<()> {
    breaks_the_protocol(r"bytes([0, 0, 0, 12, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0])")
}

fn oversized_frames() -> Result<()> {
    breaks_the_protocol(r"bytes([255] * 16)")
}

fn breaks_the_protocol(frame: &str) -> Result<()> {
    let code = format!(
        r"
import os, time
for fd in os.listdir('/proc/self/fd'):
    try:
        if os.readlink('/proc/self/fd/' + fd).startswith('socket:'): os.write(int(fd), {frame})
    except OSError: pass
time.sleep(20)
result = 'went unnoticed'"
    );
    let node = Node::start()?;
    ensure!(
        node.call("result = 'control'")? == "control",
        "a call without the frame succeeds"
    );
    let failed = node
        .try_call(0, &code)
        .err()
        .context("the frame went unnoticed")?;
    ensure!(matches!(failed, InvokeError::Protocol { .. }), "{failed}");
    ensure!(
        node.call("result = 'alive'")? == "alive",
        "the handler was not replaced"
    );
    Ok(())
}

/// The code says one thing outside and fails with another inside.
fn differs(limits: &FunctionLimits, code: &str, control: &str, refusal: &str) -> Result<()> {
    let said = outside(code)?;
    ensure!(said == control, "the control outside said {said:?}");
    let node = Node::with(limits, 1)?;
    let said = node.call(code)?;
    ensure!(said.contains(refusal), "inside, the function got {said:?}");
    ensure!(
        node.call("result = 'alive'")? == "alive",
        "the handler is of no use any more"
    );
    Ok(())
}
