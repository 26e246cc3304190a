//! How far a function is on its way to being ready, told by its backend to whoever shows it.

use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// What is being done for a function that is not ready yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its code is looked at, or its handlers start.
    Starts,
    /// What it needs has to be built, and as many builds run as may run at once.
    WaitsForBuild,
    /// Its dependencies are installed, or it is compiled.
    Builds,
}

impl Stage {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starts => "starts",
            Self::WaitsForBuild => "waits-for-build",
            Self::Builds => "builds",
        }
    }

    /// Whether it is about a build, which can be cancelled.
    #[must_use]
    pub fn is_build(self) -> bool {
        match self {
            Self::Starts => false,
            Self::WaitsForBuild | Self::Builds => true,
        }
    }
}

/// The stage of one function, and since when. A clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Progress(Arc<watch::Sender<(Stage, SystemTime)>>);

impl Default for Progress {
    fn default() -> Self {
        let now = (Stage::Starts, SystemTime::now());
        Self(Arc::new(watch::Sender::new(now)))
    }
}

impl Progress {
    /// Enters a stage, which lasts until the guard is dropped or another is entered.
    #[must_use]
    pub fn enter(&self, stage: Stage) -> InStage {
        let since = SystemTime::now();
        self.0.send_replace((stage, since));
        let progress = self.clone();
        InStage {
            progress,
            entered: (stage, since),
        }
    }

    /// The stage, and since when.
    #[must_use]
    pub fn now(&self) -> (Stage, SystemTime) {
        *self.0.borrow()
    }

    /// Returns when a build is waited for, or runs.
    pub async fn builds(&self) {
        let mut changes = self.0.subscribe();
        let reached = changes.wait_for(|(stage, _)| stage.is_build()).await;
        // The sender lives as long as this does.
        let _is_there = reached.is_ok();
    }
}

/// Keeps a function in a stage.
#[derive(Debug)]
pub struct InStage {
    progress: Progress,
    entered: (Stage, SystemTime),
}

impl Drop for InStage {
    fn drop(&mut self) {
        let entered = self.entered;
        self.progress.0.send_if_modified(|now| {
            let is_ours = *now == entered;
            if is_ours {
                *now = (Stage::Starts, SystemTime::now());
            }
            is_ours
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_ends_with_its_guard_unless_another_was_entered() {
        let progress = Progress::default();
        let stage = || progress.now().0;
        let waits = progress.enter(Stage::WaitsForBuild);
        assert_eq!(stage(), Stage::WaitsForBuild);
        let builds = progress.enter(Stage::Builds);
        drop(waits);
        assert_eq!(stage(), Stage::Builds);
        drop(builds);
        assert_eq!(stage(), Stage::Starts);
    }
}
