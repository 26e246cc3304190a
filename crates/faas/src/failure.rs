//! Why a function cannot be made ready, for whoever deploys it and for callers.

/// Why a function can't run, told apart by who may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For callers: nothing of the host, and nothing that the function or a build printed.
    pub reason: String,
    /// For whoever deployed the function: what failed in full, and the last lines printed. Empty
    /// if the reason says it all.
    pub detail: String,
}

impl Failure {
    /// A failure of which callers may know everything.
    #[must_use]
    pub fn plain(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            detail: String::new(),
        }
    }

    /// All of it, for whoever deployed the function.
    #[must_use]
    pub fn text(&self) -> String {
        match self.detail.trim_end() {
            "" => self.reason.clone(),
            detail => format!("{}: {detail}", self.reason),
        }
    }
}

impl From<&PrepareError> for Failure {
    fn from(error: &PrepareError) -> Self {
        let reason = match error {
            PrepareError::Runtime(_) => "its runtime is missing on this node",
            PrepareError::Code(_) => "its code lacks what its runtime needs",
            PrepareError::Build { .. } => "its dependencies or code could not be built",
            PrepareError::Load { .. } => "it could not be loaded",
            PrepareError::Host(_) => "this node can't start it",
            PrepareError::NoRoom(_) => "this node's disk has no room for it",
            PrepareError::Busy(_) => "this node is busy with other builds",
        };
        let detail = match error.output().trim_end() {
            "" => error.to_string(),
            output => format!("{error}\n{output}"),
        };
        Self {
            reason: reason.to_owned(),
            detail,
        }
    }
}

/// Why a function could not be made ready. The texts are for whoever deploys it: callers get the
/// reason of a [`Failure`].
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The runtime's interpreter or compiler is missing or too old on this host.
    #[error("{0}")]
    Runtime(String),
    /// The code lacks what the runtime needs, such as `fn.py`.
    #[error("{0}")]
    Code(String),
    /// Dependencies could not be installed or the code could not be compiled.
    #[error("{message}")]
    Build {
        /// What was tried.
        message: String,
        /// The last lines that it printed.
        output: String,
    },
    /// A handler started but did not load the function.
    #[error("{message}")]
    Load {
        /// How it ended.
        message: String,
        /// What it printed: the function's own traceback.
        output: String,
    },
    /// This host can't run the handler: no isolation, no memory.
    #[error("{0}")]
    Host(String),
    /// The disk has too little room for what must be kept of it.
    #[error("{0}")]
    NoRoom(String),
    /// Other builds left no place for too long.
    #[error("{0}")]
    Busy(String),
}

impl PrepareError {
    /// The last lines that a build or the function printed; empty where there are none.
    #[must_use]
    pub fn output(&self) -> &str {
        match self {
            Self::Build { output, .. } | Self::Load { output, .. } => output,
            Self::Runtime(_) | Self::Code(_) | Self::Host(_) | Self::NoRoom(_) | Self::Busy(_) => {
                ""
            }
        }
    }
}
