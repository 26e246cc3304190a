//! One after the other for each name, in the order of the asking.

use faas::FunctionName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The turns that are taken, by name.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    last: Mutex<HashMap<FunctionName, Last>>,
}

#[derive(Debug)]
struct Last {
    number: u64,
    over: CancellationToken,
    wanted: CancellationToken,
}

/// A place in the line of one name; dropping it ends the turn. It is kept by a task that always
/// waits for its beginning, so that nobody passes those before.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    name: FunctionName,
    number: u64,
    before: Option<CancellationToken>,
    over: CancellationToken,
    wanted: CancellationToken,
}

impl Turns {
    /// Takes the next turn. Whoever calls first comes first.
    pub(crate) fn take(self: &Arc<Self>, name: &FunctionName) -> Turn {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (over, wanted) = (CancellationToken::new(), CancellationToken::new());
        let number = last.get(name).map_or(0, |last| last.number + 1);
        let own = Last {
            number,
            over: over.clone(),
            wanted: wanted.clone(),
        };
        let before = last.insert(name.clone(), own);
        let before = before.map(|last| {
            last.wanted.cancel();
            last.over
        });
        Turn {
            turns: Arc::clone(self),
            name: name.clone(),
            number,
            before,
            over,
            wanted,
        }
    }
}

impl Turn {
    /// Returns when every turn before is over.
    pub(crate) async fn begin(&self) {
        if let Some(before) = &self.before {
            before.cancelled().await;
        }
    }
}

impl Turn {
    /// Returns when somebody waits for the turn to end.
    pub(crate) async fn wanted(&self) {
        self.wanted.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut last = self
            .turns
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last
            .get(&self.name)
            .is_some_and(|l| l.number == self.number)
        {
            last.remove(&self.name);
        }
        self.over.cancel();
    }
}
