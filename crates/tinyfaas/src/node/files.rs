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

/// The memory of this machine.
fn memory_bytes() -> u64 {
    let told = rustix::system::sysinfo();
    // Its types differ between architectures.
    #[expect(
        clippy::useless_conversion,
        reason = "a word has 32 bits on small machines"
    )]
    let words: u64 = told.totalram.into();
    words.saturating_mul(u64::from(told.mem_unit))
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
