//! The errors of a function that does not load.

use faas::{FunctionName, PrepareError};

/// What to do about a function that does not load.
pub(crate) const LOAD_FIX: &str = "see what it printed, mend the function, then deploy it again";

/// The error of a handler that ended before it said hello.
#[must_use]
pub fn not_loaded(name: &FunctionName, how: &str) -> PrepareError {
    let detail = format!("function \"{name}\": its handler ended while loading ({how})");
    PrepareError::load(detail, LOAD_FIX)
}
