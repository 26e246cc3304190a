//! The attacks, as data.

mod kernel;

/// Code that tries to get out: what it says outside, and what it may say inside.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) code: &'static str,
    pub(crate) outside: &'static str,
    pub(crate) inside: &'static [&'static str],
}

const NOT_THERE: &[&str] = &["FileNotFoundError", "ProcessLookupError"];
const NOT_PERMITTED: &[&str] = &["PermissionError(1,"];
const NOT_IMPLEMENTED: &[&str] = &["OSError(38,"];
const READ_ONLY: &[&str] = &["OSError(30,", "PermissionError(13,"];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Attack> {
    LISTED.iter().chain(kernel::LISTED)
}

const LISTED: &[Attack] = &[
    Attack {
        name: "etc_shadow_is_not_there",
        code: "result = 'read %d' % len(open('/etc/shadow').read(1))",
        outside: "read 1",
        inside: NOT_THERE,
    },
    Attack {
        name: "another_functions_code_is_not_there",
        code: "result = open('@OTHER').read()",
        outside: "KEY",
        inside: NOT_THERE,
    },
    Attack {
        name: "files_of_the_host_are_not_there",
        code: "result = open('@SECRET').read()",
        outside: "of the host",
        inside: NOT_THERE,
    },
    Attack {
        name: "processes_of_the_host_are_not_in_proc",
        code: "result = open('/proc/@PID/cmdline').read().split(chr(0))[0]",
        outside: "sleep",
        inside: NOT_THERE,
    },
    Attack {
        name: "processes_of_the_host_cannot_be_signalled",
        code: "os.kill(@PID, 0); result = 'signalled'",
        outside: "signalled",
        inside: NOT_THERE,
    },
    Attack {
        name: "processes_of_the_host_cannot_be_traced",
        code: "call(101, 16, @PID, 0, 0); os.waitpid(@PID, 0); call(101, 17, @PID, 0, 0); result = 'attached'",
        outside: "attached",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "loopback_of_the_host_is_not_reached",
        code: "socket.create_connection(('127.0.0.1', @PORT), 2); result = 'connected'",
        outside: "connected",
        inside: &[
            "OSError(101,",
            "PermissionError(13,",
            "ConnectionRefusedError",
        ],
    },
    Attack {
        name: "abstract_sockets_of_the_host_are_not_reached",
        code: "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + '@ABSTRACT'); result = 'connected'",
        outside: "connected",
        inside: &["ConnectionRefusedError", "PermissionError(1,"],
    },
    Attack {
        name: "sockets_of_the_host_such_as_dockers_are_not_there",
        code: "s = socket.socket(socket.AF_UNIX); s.connect('@SOCKET'); result = 'connected'",
        outside: "connected",
        inside: NOT_THERE,
    },
    Attack {
        name: "nothing_is_inherited_but_the_three_standard_descriptors",
        code: r"
links = []
for fd in os.listdir('/proc/self/fd'):
    try: links.append(os.readlink('/proc/self/fd/' + fd))
    except OSError: pass
result = 'inherited' if any(link.startswith('@FOLDER') for link in links) else 'nothing of %s' % links",
        outside: "inherited",
        inside: &["nothing of"],
    },
    Attack {
        name: "mount_is_refused",
        code: r"
if os.path.exists('@FOLDER'):
    # The control has mounts of its own; with systemd they would show in the machine's otherwise.
    libc.unshare(0x20000)
    libc.syscall(165, None, b'/', None, 0x44000, None)
call(165, b'none', b'/tmp', b'tmpfs', 0, None)
result = 'mounted'",
        outside: "mounted",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "unshare_is_refused",
        code: "call(272, 0x10000000); result = 'unshared'",
        outside: "unshared",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "clone_with_a_namespace_is_refused",
        code: r"
pid = call(56, 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
result = 'cloned'",
        outside: "cloned",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "clone3_is_not_implemented",
        code: r"
args = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, 17)
pid = call(435, ctypes.byref(args), 88)
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
result = 'cloned'",
        outside: "cloned",
        inside: NOT_IMPLEMENTED,
    },
    Attack {
        name: "setns_is_refused",
        code: "call(308, os.open('/proc/self/ns/net', os.O_RDONLY), 0); result = 'entered'",
        outside: "entered",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "ptrace_is_refused",
        code: "call(101, 0, 0, 0, 0); result = 'traced'",
        outside: "traced",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "keyctl_is_refused",
        code: "call(250, 0, -3, 0); result = 'keyring'",
        outside: "keyring",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "bpf_is_refused",
        code: "call(321, 0, (ctypes.c_uint32 * 16)(2, 4, 4, 1), 64); result = 'map'",
        outside: "map",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "perf_is_refused",
        code: "call(298, (ctypes.c_uint32 * 32)(1, 112), 0, -1, -1, 0); result = 'counter'",
        outside: "counter",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "io_uring_is_not_implemented",
        code: "call(425, 4, ctypes.create_string_buffer(200)); result = 'ring'",
        outside: "ring",
        inside: NOT_IMPLEMENTED,
    },
    Attack {
        name: "userfaultfd_is_refused",
        code: "call(323, 0); result = 'fault'",
        outside: "fault",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "netlink_is_refused",
        code: "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); result = 'socket'",
        outside: "socket",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "packet_sockets_are_refused",
        code: "socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM); result = 'socket'",
        outside: "socket",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "vsock_is_refused",
        code: "socket.socket(40, socket.SOCK_STREAM); result = 'socket'",
        outside: "socket",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "alg_sockets_are_refused",
        // Many kernels have none: then the control is that the kernel, not a filter, says so.
        code: r"
try: socket.socket(38, socket.SOCK_SEQPACKET); result = 'asked the kernel'
except OSError as error:
    if error.errno != 97: raise
    result = 'asked the kernel'",
        outside: "asked the kernel",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "x32_system_calls_are_refused",
        // Likewise: a kernel without x32 says so itself.
        code: r"
try: call(0x40000000 + 39); result = 'asked the kernel'
except OSError as error:
    if error.errno != 38: raise
    result = 'asked the kernel'",
        outside: "asked the kernel",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "multipath_tcp_is_refused",
        // A kernel that does not have it says so itself.
        code: r"
try: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); result = 'asked the kernel'
except OSError as error:
    if error.errno not in (92, 93): raise
    result = 'asked the kernel'",
        outside: "asked the kernel",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "sctp_is_refused_by_number_and_by_type",
        code: r"
refused = 0
for kind, protocol in [(socket.SOCK_STREAM, 132), (socket.SOCK_SEQPACKET, 0), (socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC, 132)]:
    try: socket.socket(socket.AF_INET6, kind, protocol)
    except PermissionError as error: refused += 1; last = error
    except OSError as error:
        if error.errno not in (93, 94): raise
if refused == 3: raise last
result = 'asked the kernel %d' % refused",
        outside: "asked the kernel 0",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "dccp_is_refused",
        code: r"
try: socket.socket(socket.AF_INET, 6, 33); result = 'asked the kernel'
except OSError as error:
    if error.errno not in (93, 94): raise
    result = 'asked the kernel'",
        outside: "asked the kernel",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "the_signal_of_the_parents_death_cannot_be_cleared",
        code: "call(157, 1, 0, 0, 0, 0); result = 'cleared'",
        outside: "cleared",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "the_signal_of_the_parents_death_cannot_be_one_that_it_ignores",
        code: "call(157, 1, 23, 0, 0, 0); result = 'weakened'",
        outside: "weakened",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "limits_of_another_process_cannot_be_read_or_set",
        code: r"
import resource
pid = @PID if os.path.exists('@FOLDER') else 1
result = 'limits %r' % (resource.prlimit(pid, resource.RLIMIT_NOFILE),)",
        outside: "limits",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "the_name_of_the_host_is_not_told",
        code: r"
names = {os.uname().nodename, socket.gethostname(), open('/proc/sys/kernel/hostname').read().strip()}
result = 'names %r' % names if names != {'function'} else 'hidden'",
        outside: "names",
        inside: &["hidden"],
    },
    Attack {
        name: "the_kernels_command_line_is_not_told",
        code: "text = open('/proc/cmdline').read(); result = 'told' if text else 'hidden'",
        outside: "told",
        inside: &["hidden"],
    },
    Attack {
        name: "the_nodes_pid_is_not_in_the_names_of_cgroups",
        // The cgroup of the handler is the root of what it sees, in every hierarchy.
        code: r"
paths = {line.split(':', 2)[2] for line in open('/proc/self/cgroup').read().split()}
if os.path.exists('@FOLDER'): paths.add('/of-the-host')
result = 'hidden' if paths == {'/'} else 'told %r' % paths",
        outside: "told",
        inside: &["hidden"],
    },
    Attack {
        name: "usr_cannot_be_written",
        code: r"
path = '/usr/local/tinyfaas-escape'
open(path, 'w').close(); os.unlink(path); result = 'written'",
        outside: "written",
        inside: READ_ONLY,
    },
    Attack {
        name: "the_root_cannot_be_written",
        code: "path = '/tinyfaas-escape'; open(path, 'w').close(); os.unlink(path); result = 'written'",
        outside: "written",
        inside: READ_ONLY,
    },
    Attack {
        name: "its_own_code_cannot_be_written",
        code: r"
folder = '/fn' if os.path.exists('/fn') else '@FOLDER/code'
open(folder + '/fn.py', 'a').close(); result = 'written'",
        outside: "written",
        inside: READ_ONLY,
    },
    Attack {
        name: "kernel_settings_cannot_be_written",
        code: r"
path = '/proc/sys/kernel/domainname'
value = open(path).read(); open(path, 'w').write(value); result = 'written'",
        outside: "written",
        inside: READ_ONLY,
    },
];
