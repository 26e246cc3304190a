//! What the management service knows of the reverse proxy: the revisions and instances there, and the way to it.

use crate::link::Link;
use crate::lock::lock;
use crate::message::ToProxy;
use crate::revision::{Progress, Revision};
use faas::{Limits, PrepareError, Route, Router};
use handler_protocol::Group;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a deployment waits for a reverse proxy that is away.
const PROXY_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) limits: Arc<Limits>,
    pub(crate) tracker: TaskTracker,
    /// The way to the proxy.
    pub(crate) link: Link<ToProxy>,
    /// The number of the last table that is in force there.
    pub(crate) applied: watch::Sender<u64>,
    /// Set once the proxy takes no more calls and has none.
    pub(crate) closed: CancellationToken,
    known: Mutex<Known>,
    /// Numbers that no earlier run has given, to revisions and to instances.
    next_number: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    revisions: HashMap<u64, Arc<Revision>>,
    by_handler: HashMap<Arc<str>, Arc<Revision>>,
    /// Each with what ends it, and its revision.
    instances: HashMap<u64, (CancellationToken, u64)>,
    /// The routes that take over what the proxy counts.
    router: Option<Arc<Router>>,
}

impl Registry {
    pub(crate) fn new(limits: Arc<Limits>, tracker: TaskTracker) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let first = since.map_or(1, |since| since.as_micros());
        Self {
            limits,
            tracker,
            link: Link::new(),
            applied: watch::Sender::new(0),
            closed: CancellationToken::new(),
            known: Mutex::default(),
            next_number: AtomicU64::new(u64::try_from(first).unwrap_or(1)),
        }
    }

    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn add(&self, group: Group) -> Arc<Revision> {
        let revision = Arc::new(Revision::new(self.number(), group));
        let mut known = lock(&self.known);
        for id in &revision.ids {
            let revision = Arc::clone(&revision);
            known.by_handler.insert(Arc::clone(id), revision);
        }
        let number = revision.number;
        known.revisions.insert(number, Arc::clone(&revision));
        revision
    }

    /// Ends a revision: its instances here, and at the proxy what may be left of it.
    pub(crate) fn forget(&self, revision: &Arc<Revision>) {
        let mut known = lock(&self.known);
        if known.revisions.remove(&revision.number).is_none() {
            return;
        }
        known
            .by_handler
            .retain(|_, of| of.number != revision.number);
        for (end, of) in known.instances.values() {
            if *of == revision.number {
                end.cancel();
            }
        }
        drop(known);
        revision.let_go();
        let retire = ToProxy::Retire {
            revision: revision.number,
            grace_ms: 0,
        };
        // Where this is not heard, the next welcome tells.
        let _is_queued = self.link.try_tell(retire);
    }

    pub(crate) fn revision(&self, number: u64) -> Option<Arc<Revision>> {
        lock(&self.known).revisions.get(&number).map(Arc::clone)
    }

    /// The revision that a handler belongs to.
    pub(crate) fn of_handler(&self, id: &str) -> Option<Arc<Revision>> {
        lock(&self.known).by_handler.get(id).map(Arc::clone)
    }

    /// Takes in an instance of a revision and returns its number; none if the revision was
    /// forgotten meanwhile.
    pub(crate) fn add_instance(&self, of: &Revision, end: CancellationToken) -> Option<u64> {
        let number = self.number();
        let mut known = lock(&self.known);
        known.revisions.get(&of.number)?;
        known.instances.insert(number, (end, of.number));
        Some(number)
    }

    pub(crate) fn end_instance(&self, number: u64) {
        if let Some((end, _)) = lock(&self.known).instances.get(&number) {
            end.cancel();
        }
    }

    pub(crate) fn remove_instance(&self, number: u64) {
        lock(&self.known).instances.remove(&number);
    }

    /// From now on the routes of this router take over what the proxy counts.
    pub(crate) fn count_into(&self, router: &Arc<Router>) {
        lock(&self.known).router = Some(Arc::clone(router));
    }

    /// The route that takes over what the proxy counts of a function.
    pub(crate) fn route(&self, name: &str) -> Option<Arc<Route>> {
        let router = lock(&self.known).router.clone();
        router.and_then(|router| router.find(name))
    }

    /// What the proxy should know, after ending what it no longer has.
    pub(crate) fn welcome(&self, revisions: &[u64], instances: &[u64]) -> (ToProxy, Vec<ToProxy>) {
        let known = lock(&self.known);
        let theirs: HashSet<_> = instances.iter().collect();
        for (instance, (end, _)) in &known.instances {
            if !theirs.contains(instance) {
                end.cancel();
            }
        }
        let welcome = ToProxy::Welcome {
            revisions: known.revisions.keys().copied().collect(),
            instances: known.instances.keys().copied().collect(),
        };
        let theirs: HashSet<_> = revisions.iter().collect();
        let missing = known
            .revisions
            .values()
            .filter(|revision| !theirs.contains(&revision.number));
        (welcome, missing.map(|revision| revision.start()).collect())
    }

    /// Returns when every handler of a revision said hello to the proxy.
    pub(crate) async fn made_ready(&self, revision: &Revision) -> Result<(), PrepareError> {
        let mut progress = revision.progress.subscribe();
        let is_settled = |progress: &Progress| *progress != Progress::Starting;
        loop {
            let mut link = self.link.follow();
            let is_away = link.borrow_and_update().is_none();
            tokio::select! {
                settled = progress.wait_for(is_settled) => {
                    // The sender lives as long as the revision.
                    return match settled.as_deref() {
                        Ok(Progress::Refused(failure)) => Err(revision.error(failure.clone())),
                        Ok(Progress::Ready) => Ok(()),
                        Ok(Progress::Starting | Progress::Retired) | Err(_) => {
                            Err(PrepareError::host("the handlers were stopped", "deploy it again"))
                        }
                    };
                }
                _ = link.changed() => {}
                () = tokio::time::sleep(PROXY_PATIENCE), if is_away => {
                    return Err(PrepareError::host(
                        "the reverse proxy does not answer",
                        "see what its container says (docker logs)",
                    ));
                }
            }
        }
    }
}
