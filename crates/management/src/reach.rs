//! The functions that can reach this service: as long as one is there, every call needs the token.

use faas::{FunctionSpec, Network};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The networks of functions by which they may reach this machine.
#[derive(Debug, Default)]
pub(crate) struct Reaches {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    next: u64,
    /// With whether their way to other machines leads here as well.
    networks: HashMap<u64, (Network, bool)>,
}

/// Counts a function's network in, from before its handlers start until they have ended.
#[derive(Debug)]
pub(crate) struct Reach {
    reaches: Arc<Reaches>,
    number: u64,
}

impl Reaches {
    /// Counts in what the function reaches; nothing where that is nothing of this machine.
    /// `is_near` says whether the way to other machines leads to this service.
    pub(crate) fn note(self: &Arc<Self>, spec: &FunctionSpec, is_near: bool) -> Option<Reach> {
        let network = &spec.network;
        let is_near = is_near && network.is_on();
        if !network.is_host() && network.host_ports().is_empty() && !is_near {
            return None;
        }
        let mut known = self.lock();
        let number = known.next;
        known.next += 1;
        known.networks.insert(number, (network.clone(), is_near));
        drop(known);
        let reaches = Arc::clone(self);
        Some(Reach { reaches, number })
    }

    /// Whether a function reaches that port of this machine.
    pub(crate) fn any(&self, port: Option<u16>) -> bool {
        let known = self.lock();
        let mut networks = known.networks.values();
        networks.any(|(network, is_near)| {
            *is_near
                || network.is_host()
                || port.is_some_and(|port| network.host_ports().contains(&port))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        self.reaches.lock().networks.remove(&self.number);
    }
}
