//! What is said about a build that failed.

use faas::{Package, PrepareError, PrepareErrorKind};

/// How many of a failed build's last lines its deployer sees.
pub const LAST_LINES: usize = 40;

/// What stands in lines in which a package manager speaks of itself: the cause stands before.
const SMALL_TALK: [&str; 7] = [
    "npm notice",
    "A complete log of this run",
    "For a full report see",
    "/npm/_logs/",
    "Note that you can also install from a",
    "This is related to npm not being able to find a file",
    "[notice]",
];

/// Why a build failed or was ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Why {
    /// For this reason.
    Failed(String),
    /// The disk has less space left than builds have to leave.
    DiskFull,
}

/// The error of a build, from why it failed and the last lines that it printed, of which there
/// should be more than [`LAST_LINES`]: some are left out.
#[must_use]
pub fn failed(package: &Package, why: &str, lines: &str) -> PrepareError {
    PrepareError::build(why, package.build_fix(lines)).with_output(cause(lines))
}

/// What whoever deploys the function should know of its build, where it failed to load.
#[must_use]
pub fn with_notes(mut error: PrepareError, notes: &[String]) -> PrepareError {
    if error.kind == PrepareErrorKind::Load {
        for note in notes {
            error.detail.push_str(". ");
            error.detail.push_str(note);
        }
    }
    error
}

/// The last lines of a failed build, without those in which a package manager speaks of itself.
fn cause(lines: &str) -> String {
    // Such as `npm error 404`, with nothing behind it.
    let is_bare = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(
            words[..],
            [] | ["npm", "error" | "ERR!"] | ["npm", "error" | "ERR!", _]
        )
    };
    let is_said =
        |line: &&str| !is_bare(line) && !SMALL_TALK.iter().any(|talk| line.contains(talk));
    let lines: Vec<&str> = lines.lines().filter(is_said).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_stands_last() {
        let check = |said: &str, expected: &str| assert_eq!(cause(said), expected);
        check(
            "npm error code E404\nnpm error 404 'nope' is not in this registry.\nnpm error 404\n\
             npm error 404 Note that you can also install from a\n\
             npm notice New major version of npm available!\nnpm notice\n\
             npm error A complete log of this run can be found in: /build/npm/_logs/x.log\n",
            "npm error code E404\nnpm error 404 'nope' is not in this registry.",
        );
        check(
            "npm ERR! code 1\nnpm ERR! it broke\n\nnpm ERR! A complete log of this run can be found in:\n\
             npm ERR!     /build/npm/_logs/x.log",
            "npm ERR! code 1\nnpm ERR! it broke",
        );
        check(
            "ERROR: No matching distribution found for nope\n\n[notice] A new release of pip is available",
            "ERROR: No matching distribution found for nope",
        );
        let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let last = cause(&many.join("\n"));
        assert!(last.starts_with("60\n") && last.ends_with("\n99"), "{last}");
    }
}
