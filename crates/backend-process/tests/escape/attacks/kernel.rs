//! Attacks by system calls that no function needs, and on what lies in `/dev` and `/sys`.

use super::{Attack, NOT_PERMITTED, NOT_THERE};

pub(super) const LISTED: &[Attack] = &[
    Attack {
        name: "memory_of_processes_cannot_be_read",
        code: r"
secret = ctypes.create_string_buffer(b'secret'); copy = ctypes.create_string_buffer(7)
theirs = (ctypes.c_size_t * 2)(ctypes.addressof(secret), 7)
ours = (ctypes.c_size_t * 2)(ctypes.addressof(copy), 7)
call(310, os.getpid(), ours, 1, theirs, 1, ctypes.c_long(0)); result = 'read %r' % copy.value",
        outside: "read b'secret'",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "memory_of_processes_cannot_be_written",
        code: r"
target = ctypes.create_string_buffer(7); source = ctypes.create_string_buffer(b'planted', 7)
theirs = (ctypes.c_size_t * 2)(ctypes.addressof(target), 7)
ours = (ctypes.c_size_t * 2)(ctypes.addressof(source), 7)
call(311, os.getpid(), ours, 1, theirs, 1, ctypes.c_long(0)); result = 'wrote %r' % target.raw",
        outside: "wrote b'planted'",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "descriptors_of_processes_cannot_be_taken",
        code: "call(438, os.pidfd_open(os.getpid()), 1, 0); result = 'taken'",
        outside: "taken",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "the_mount_interface_of_descriptors_is_refused",
        code: "call(430, b'tmpfs', 1); result = 'opened'",
        outside: "opened",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "trees_of_mounts_cannot_be_cloned",
        code: "call(428, -100, b'/', 1); result = 'cloned'",
        outside: "cloned",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "chroot_is_refused",
        code: "call(161, b'/'); result = 'changed'",
        outside: "changed",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "keys_cannot_be_added",
        code: "call(248, b'user', b'tinyfaas-escape', b'x', 1, -2); result = 'added'",
        outside: "added",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "the_kernels_log_is_not_read",
        code: "call(103, 10, 0, 0); result = 'told'",
        outside: "told",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "pages_cannot_be_moved",
        code: "call(279, 0, 0, 0, 0, 0, ctypes.c_long(0)); result = 'asked the kernel'",
        outside: "asked the kernel",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "the_personality_cannot_be_changed",
        code: "call(135, 0xffffffff); result = 'told'",
        outside: "told",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "devices_cannot_be_made",
        code: r"
import stat
path = '/tmp/tinyfaas-escape-%d' % os.getpid()
os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 1)); os.unlink(path); result = 'made'",
        outside: "made",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "there_are_no_devices_but_five",
        code: r"
known = {'null', 'zero', 'full', 'random', 'urandom', 'fd', 'stdin', 'stdout', 'stderr', 'shm'}
result = 'devices' if set(os.listdir('/dev')) - known else 'hidden'",
        outside: "devices",
        inside: &["hidden"],
    },
    Attack {
        name: "cgroups_are_not_there",
        code: "result = 'groups' if os.listdir('/sys/fs/cgroup') else 'hidden'",
        outside: "groups",
        inside: NOT_THERE,
    },
    Attack {
        name: "no_program_gains_privileges",
        code: "result = 'kept' if call(157, 39, 0, 0, 0, 0) == 1 else 'gains'",
        outside: "gains",
        inside: &["kept"],
    },
    Attack {
        name: "a_crash_leaves_no_core",
        code: r"
import resource
try: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, resource.getrlimit(resource.RLIMIT_CORE)[1]))
except ValueError as error: raise PermissionError(1, str(error))
result = 'dumps'",
        outside: "dumps",
        inside: NOT_PERMITTED,
    },
    Attack {
        // At a limit of 0 the kernel would still start the host's program for core dumps.
        name: "a_crash_starts_no_program_of_the_host",
        code: r"
import resource
try: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ValueError as error: raise PermissionError(1, str(error))
result = 'starts'",
        outside: "starts",
        inside: NOT_PERMITTED,
    },
    Attack {
        name: "the_limit_of_core_dumps_is_the_one_that_stops_programs_too",
        code: r"
import resource
result = 'none' if resource.getrlimit(resource.RLIMIT_CORE)[0] == 1 else 'starts'",
        outside: "starts",
        inside: &["none"],
    },
    Attack {
        name: "watches_of_whole_file_systems_are_refused",
        code: "call(300, 0, 0); result = 'watches'",
        outside: "watches",
        inside: NOT_PERMITTED,
    },
];
