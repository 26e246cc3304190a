//! The kinds of entries that code has.

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File { is_executable: bool },
    Link { target: String },
}
