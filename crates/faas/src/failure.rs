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
        let detail = match error.output.trim_end() {
            "" => error.text(),
            output => format!("{}\n{output}", error.text()),
        };
        Self {
            reason: error.kind.reason().to_owned(),
            detail,
        }
    }
}

/// Why a function could not be made ready, and what to do about it. The texts are for whoever
/// deploys it: callers get the reason of a [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct PrepareError {
    /// What failed.
    pub kind: PrepareErrorKind,
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    pub fix: String,
    /// The last lines that a build or the function printed; empty where there are none.
    pub output: String,
}

/// What a function lacks to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrepareErrorKind {
    /// The runtime's interpreter or compiler is missing or too old on this host.
    Runtime,
    /// The code lacks what the runtime needs, such as `fn.py`.
    Code,
    /// Dependencies could not be installed or the code could not be compiled.
    Build,
    /// A handler started but did not load the function.
    Load,
    /// This host can't run the handler: no isolation, no memory.
    Host,
    /// The disk has too little room for what must be kept of it.
    NoRoom,
    /// Other builds left no place for too long.
    Busy,
}

impl PrepareErrorKind {
    /// The reason for callers.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Runtime => "its runtime is missing on this node",
            Self::Code => "its code lacks what its runtime needs",
            Self::Build => "its dependencies or code could not be built",
            Self::Load => "it could not be loaded",
            Self::Host => "this node can't start it",
            Self::NoRoom => "this node's disk has no room for it",
            Self::Busy => "this node is busy with other builds",
        }
    }
}

impl PrepareError {
    /// An error of that kind, with what is wrong and what to do about it.
    #[must_use]
    pub fn new(kind: PrepareErrorKind, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            fix: fix.into(),
            output: String::new(),
        }
    }

    /// See [`PrepareErrorKind::Runtime`].
    #[must_use]
    pub fn runtime(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Runtime, detail, fix)
    }

    /// See [`PrepareErrorKind::Code`].
    #[must_use]
    pub fn code(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Code, detail, fix)
    }

    /// See [`PrepareErrorKind::Build`].
    #[must_use]
    pub fn build(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Build, detail, fix)
    }

    /// See [`PrepareErrorKind::Load`].
    #[must_use]
    pub fn load(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Load, detail, fix)
    }

    /// See [`PrepareErrorKind::Host`].
    #[must_use]
    pub fn host(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Host, detail, fix)
    }

    /// See [`PrepareErrorKind::NoRoom`].
    #[must_use]
    pub fn no_room(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::NoRoom, detail, fix)
    }

    /// See [`PrepareErrorKind::Busy`].
    #[must_use]
    pub fn busy(detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(PrepareErrorKind::Busy, detail, fix)
    }

    /// The same, with what a build or the function printed.
    #[must_use]
    pub fn with_output(mut self, output: impl Into<String>) -> Self {
        self.output = output.into();
        self
    }

    /// What is wrong and what to do about it, on a line.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}; {}", self.detail, self.fix)
    }
}
