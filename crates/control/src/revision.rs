//! A revision: the handlers of one deployment, as the management service sees them.

use crate::lock::lock;
use crate::message::{Failure, Function, HandlerRow, ToProxy};
use faas::{CallTerms, FunctionLog, HandlerState, HandlerStatus, LogStream, PrepareError};
use handler_protocol::{Group, Launch};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The lines of a handler that did not load which its error shows.
const LAST_LINES: usize = 20;

/// How far the reverse proxy is with a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    Starting,
    Ready,
    Refused(Failure),
    /// Nothing of it is left there.
    Retired,
}

/// The handlers of one deployment.
#[derive(Debug)]
pub(crate) struct Revision {
    pub(crate) number: u64,
    terms: CallTerms,
    pub(crate) ids: Vec<Arc<str>>,
    log: Arc<FunctionLog>,
    /// None once it is forgotten, though its handlers may still be looked at.
    launch: Mutex<Option<Arc<dyn Launch>>>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Has a task for each of its instances.
    pub(crate) instances: TaskTracker,
    statuses: Mutex<HashMap<Arc<str>, HandlerStatus>>,
    /// How the last instance of a handler ended.
    ends: Mutex<HashMap<Arc<str>, String>>,
}

impl Revision {
    pub(crate) fn new(number: u64, group: Group) -> Self {
        let status = |id: &Arc<str>| HandlerStatus {
            id: Arc::clone(id),
            state: HandlerState::Starting,
            restarts: 0,
            in_flight: 0,
        };
        let statuses = group.ids.iter().map(|id| (Arc::clone(id), status(id)));
        Self {
            number,
            progress: watch::Sender::new(Progress::Starting),
            instances: TaskTracker::new(),
            statuses: Mutex::new(statuses.collect()),
            ends: Mutex::default(),
            terms: group.terms,
            ids: group.ids,
            log: group.log,
            launch: Mutex::new(Some(group.launch)),
        }
    }

    /// What starts its instances; none where it was forgotten.
    pub(crate) fn launch(&self) -> Option<Arc<dyn Launch>> {
        lock(&self.launch).clone()
    }

    /// Lets go of what belongs to it: its network.
    pub(crate) fn let_go(&self) {
        *lock(&self.launch) = None;
    }

    /// The message that has the proxy start it.
    pub(crate) fn start(&self) -> ToProxy {
        ToProxy::Start {
            revision: self.number,
            function: Function::from(&self.terms),
            handlers: self.ids.iter().map(|id| id.to_string()).collect(),
            is_live: *self.progress.borrow() == Progress::Ready,
        }
    }

    /// Every handler said hello.
    pub(crate) fn made_ready(&self) {
        for status in lock(&self.statuses).values_mut() {
            status.state = HandlerState::Ready;
        }
        self.progress.send_replace(Progress::Ready);
    }

    /// Takes what the proxy tells of one of its handlers.
    pub(crate) fn report(&self, row: HandlerRow) {
        let status = HandlerStatus::from(row);
        if let Some(known) = lock(&self.statuses).get_mut(&status.id) {
            *known = status;
        }
    }

    /// Notes how an instance ended, for the log when the next one is asked for.
    pub(crate) fn note_end(&self, handler: &Arc<str>, how: &str) {
        lock(&self.ends).insert(Arc::clone(handler), how.to_owned());
    }

    /// Tells the function's log why a handler is started again, where it is.
    pub(crate) fn tell_restart(&self, handler: &Arc<str>) {
        if let Some(how) = lock(&self.ends).remove(handler) {
            let note = format!("handler ended ({how}); it is restarted");
            self.log.push(handler, LogStream::Platform, &note);
        }
    }

    /// The error of a revision that was refused, with what its handlers printed.
    pub(crate) fn error(&self, mut failure: Failure) -> PrepareError {
        let printed = || {
            let last = |id: &Arc<str>| self.log.last_text(id, LAST_LINES);
            let mut texts = self.ids.iter().map(last);
            texts.find(|text| !text.is_empty()).unwrap_or_default()
        };
        if failure.output.is_empty() {
            failure.output = printed();
        }
        failure.into()
    }

    pub(crate) fn status(&self, id: &Arc<str>) -> Option<HandlerStatus> {
        lock(&self.statuses).get(id).cloned()
    }
}
