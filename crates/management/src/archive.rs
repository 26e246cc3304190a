//! From what a client sent to a folder of code.

use std::borrow::Cow;

/// A file of a function's code.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The path below the function's folder, with `/` between segments.
    pub path: String,
    /// What is in it.
    pub contents: Cow<'static, [u8]>,
    /// Whether it can be run.
    pub is_executable: bool,
}

/// Why code was refused. The texts are for whoever deploys it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Nothing is in it.
    #[error("the archive has no files; put the function's files in it")]
    Empty,
}
