//! What this machine has, and the bounds that follow: open files, of which clients may take some,
//! memory and cores.

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
        handler_cpu_millis_max: configured.handler_cpu_millis_max.min(cpu_millis()),
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

/// The cores of this machine, in thousandths; no bound where the system does not tell.
fn cpu_millis() -> u32 {
    let told = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    match cores(&told) {
        0 => u32::MAX,
        cores => cores.saturating_mul(1000),
    }
}

fn cores(told: &str) -> u32 {
    let is_core = |line: &&str| {
        let number = line.strip_prefix("cpu").unwrap_or_default();
        number.starts_with(|c: char| c.is_ascii_digit())
    };
    u32::try_from(told.lines().filter(is_core).count()).unwrap_or(u32::MAX)
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
    fn the_cores_of_the_machine_are_counted() {
        assert_eq!(cores("cpu  9 9 9\ncpu0 4 4 4\ncpu3 5 5 5\nintr 12\n"), 2);
        assert_eq!(cores(""), 0);
        assert!(cpu_millis() >= 1000);
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
