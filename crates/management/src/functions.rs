//! The functions that are known now.

use crate::codes::Code;
use crate::reach::Reach;
use crate::store::Record;
use faas::{FunctionLog, FunctionName};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// A function that was deployed, or brought back from the store.
#[derive(Debug)]
pub(crate) struct Function {
    /// What is stored of it.
    pub(crate) record: Record,
    /// Its code.
    pub(crate) code: Code,
    /// Its log, the same for every version.
    pub(crate) log: Arc<FunctionLog>,
    /// Counts in what it reaches until this version has ended, and nobody looks at it any more.
    pub(crate) _reach: Option<Reach>,
}

/// The functions that are known now, by name.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    known: Mutex<BTreeMap<FunctionName, Arc<Function>>>,
    changes: watch::Sender<u64>,
}

impl Functions {
    /// The function of that name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Function>> {
        self.lock().get(name).map(Arc::clone)
    }

    /// Every function, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Function>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Makes the function the one of its name. Returns the one before.
    pub(crate) fn put(&self, function: Arc<Function>) -> Option<Arc<Function>> {
        let name = function.record.spec.name.clone();
        let before = self.lock().insert(name, function);
        self.changes.send_modify(|count| *count += 1);
        before
    }

    /// Forgets the function of that name and returns it.
    pub(crate) fn remove(&self, name: &FunctionName) -> Option<Arc<Function>> {
        let removed = self.lock().remove(name);
        self.changes.send_modify(|count| *count += 1);
        removed
    }

    /// Tells of every function that comes or goes.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<FunctionName, Arc<Function>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
