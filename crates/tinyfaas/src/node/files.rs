//! Open files: as many as the system grants, and what of them clients may take.

use faas::Limits;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many open files as the system grants: each connection needs one, and so do handlers,
/// the store and what is deployed.
pub(super) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}

/// The bounds of a node on this machine.
pub(super) fn limits(configured: &Limits) -> Limits {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    let limits = Limits {
        handler_memory_bytes_max: configured.handler_memory_bytes_max.min(memory_bytes()),
        ..configured.clone()
    };
    within(files, &limits)
}

/// The memory of this machine; no bound where the system does not tell.
fn memory_bytes() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_bytes(&told).unwrap_or(u64::MAX)
}

fn total_bytes(told: &str) -> Option<u64> {
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Bounds with connections for half of these files at the most, so that the other half is left for
/// handlers to be started and for the management service to answer.
fn within(files: usize, limits: &Limits) -> Limits {
    let connections_max = limits.connections_max.min(files / 2);
    Limits {
        connections_max,
        client_connections_max: limits.client_connections_max.min(connections_max),
        management_connections_max: limits.management_connections_max.min(files / 8),
        ..limits.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let told = "MemTotal:         947732 kB\nMemFree:  1 kB\n";
        assert_eq!(total_bytes(told), Some(947_732 << 10));
        assert_eq!(total_bytes(""), None);
        assert!(memory_bytes() > 64 << 20);
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        let few = within(256, &Limits::default());
        assert_eq!(
            (few.connections_max, few.client_connections_max),
            (128, 128)
        );
        assert_eq!(few.management_connections_max, 32);
        assert_eq!(within(usize::MAX, &Limits::default()), Limits::default());
    }
}
