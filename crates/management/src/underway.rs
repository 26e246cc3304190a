//! The functions that are being made ready: how far each is, and what ends its build.

use faas::{FunctionName, Progress, Stage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// Every function that is being made ready.
#[derive(Debug, Default)]
pub(crate) struct Underway {
    works: Mutex<Works>,
}

#[derive(Debug, Default)]
struct Works {
    next: u64,
    by_number: HashMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    name: FunctionName,
    progress: Progress,
    superseded: CancellationToken,
}

/// One function that is being made ready; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Work {
    underway: Arc<Underway>,
    number: u64,
    /// Where its backend tells how far it is.
    pub(crate) progress: Progress,
    superseded: CancellationToken,
}

/// How far a function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Far {
    pub(crate) name: FunctionName,
    pub(crate) stage: Stage,
    pub(crate) since: SystemTime,
    /// The functions whose builds it waits for.
    pub(crate) waits_for: Vec<FunctionName>,
}

impl Underway {
    /// Notes that a function is made ready now. Where the new code is not built on what it had, it
    /// takes the place of all that was under way for the name.
    pub(crate) fn begin(self: &Arc<Self>, name: &FunctionName, supersedes: bool) -> Work {
        let (progress, superseded) = (Progress::default(), CancellationToken::new());
        let mut works = self.lock();
        if supersedes {
            works.supersede(name);
        }
        let number = works.next;
        works.next += 1;
        let known = Known {
            name: name.clone(),
            progress: progress.clone(),
            superseded: superseded.clone(),
        };
        works.by_number.insert(number, known);
        drop(works);
        Work {
            underway: Arc::clone(self),
            number,
            progress,
            superseded,
        }
    }

    /// Ends the builds of the name, those that run and those that wait. Says whether anything was
    /// under way for it.
    pub(crate) fn supersede(&self, name: &FunctionName) -> bool {
        self.lock().supersede(name)
    }

    /// The names that something is under way for.
    pub(crate) fn names(&self) -> Vec<FunctionName> {
        let works = self.lock();
        works
            .by_number
            .values()
            .map(|known| known.name.clone())
            .collect()
    }

    /// How far each function is, by name.
    pub(crate) fn all(&self) -> Vec<Far> {
        let works = self.lock();
        let building = works.building();
        let far = works.by_number.values().map(|known| {
            let (stage, since) = known.progress.now();
            Far {
                name: known.name.clone(),
                stage,
                since,
                waits_for: match stage {
                    Stage::WaitsForBuild => building.clone(),
                    Stage::Starts | Stage::Builds => Vec::new(),
                },
            }
        });
        let mut all: Vec<Far> = far.collect();
        drop(works);
        all.sort_by(|a, b| (&a.name, a.since).cmp(&(&b.name, b.since)));
        all
    }

    /// How far one function is; of several works for it, the one with a build.
    pub(crate) fn of(&self, name: &str) -> Option<Far> {
        let of_it = |far: &Far| far.name.as_str() == name;
        let all = self.all().into_iter().filter(of_it);
        all.max_by_key(|far| far.stage.is_build())
    }

    /// The functions that are being built.
    pub(crate) fn building(&self) -> Vec<FunctionName> {
        self.lock().building()
    }

    fn lock(&self) -> MutexGuard<'_, Works> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Works {
    fn supersede(&mut self, name: &FunctionName) -> bool {
        let mut was_there = false;
        for known in self.by_number.values().filter(|known| known.name == *name) {
            known.superseded.cancel();
            was_there = true;
        }
        was_there
    }

    fn building(&self) -> Vec<FunctionName> {
        let builds = |known: &&Known| known.progress.now().0 == Stage::Builds;
        let building = self.by_number.values().filter(builds);
        let mut names: Vec<_> = building.map(|known| known.name.clone()).collect();
        names.sort();
        names
    }
}

impl Work {
    /// Returns when a build of it, running or waiting, is of no use any more: its name was deleted
    /// or deployed again. What is not being built is left to finish.
    pub(crate) async fn superseded(&self) {
        self.superseded.cancelled().await;
        self.progress.builds().await;
    }

    /// The same where whoever asked has gone.
    pub(crate) async fn abandoned(&self, gone: &CancellationToken) {
        gone.cancelled().await;
        self.progress.builds().await;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.underway.lock().by_number.remove(&self.number);
    }
}
