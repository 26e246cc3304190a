//! The names of entries: parsed once, trusted inside.

use super::ArchiveError;
use faas::Limits;

/// The longest segment that Linux file systems take, in bytes.
const SEGMENT_BYTES_MAX: usize = 255;

/// How much of a bad name is told back.
const SHOWN_CHARS_MAX: usize = 80;

/// What an entry's name says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A path of plain segments with `/` between.
    Entry(String),
    /// The function's folder itself, or what macOS and Windows leave in archives.
    Nothing,
}

/// Parses the name of an entry. Separators of Windows are understood.
pub(crate) fn parse(name: &str, limits: &Limits) -> Result<Named, ArchiveError> {
    let shown = || name.chars().take(SHOWN_CHARS_MAX).collect::<String>();
    let too_long = |bytes_max| ArchiveError::NameTooLong {
        path: shown(),
        bytes_max,
    };
    if name.len() > limits.archive_name_bytes_max {
        return Err(too_long(limits.archive_name_bytes_max));
    }
    if name.chars().any(char::is_control) {
        return Err(ArchiveError::ControlCharacter(shown()));
    }
    if name.starts_with(['/', '\\']) {
        return Err(ArchiveError::Absolute(shown()));
    }
    if matches!(name.as_bytes(), [drive, b':', ..] if drive.is_ascii_alphabetic()) {
        return Err(ArchiveError::Drive(shown()));
    }
    let segments = name.split(['/', '\\']).filter(|s| !matches!(*s, "" | "."));
    let segments: Vec<&str> = segments.collect();
    if segments.contains(&"..") {
        return Err(ArchiveError::Parent(shown()));
    }
    if segments.len() > limits.archive_depth_max {
        let depth_max = limits.archive_depth_max;
        let path = shown();
        return Err(ArchiveError::TooDeep { path, depth_max });
    }
    if segments.iter().any(|s| s.len() > SEGMENT_BYTES_MAX) {
        return Err(too_long(SEGMENT_BYTES_MAX));
    }
    if segments.is_empty() || segments.iter().any(|s| is_litter(s)) {
        return Ok(Named::Nothing);
    }
    Ok(Named::Entry(segments.join("/")))
}

/// Whether it is what macOS and Windows put beside the files of a folder.
fn is_litter(segment: &str) -> bool {
    matches!(
        segment,
        "__MACOSX" | ".DS_Store" | "Thumbs.db" | "desktop.ini"
    ) || segment.starts_with("._")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_plain_relative_paths() {
        let limits = Limits::default();
        let check = |name: &str, path: &str| {
            let expected = if path.is_empty() {
                Named::Nothing
            } else {
                Named::Entry(path.to_owned())
            };
            assert_eq!(parse(name, &limits).unwrap(), expected, "{name:?}");
        };
        check("fn.py", "fn.py");
        check("./a//b/./c.js", "a/b/c.js");
        check("a\\b.js", "a/b.js");
        check("a/..b/...", "a/..b/...");
        check("ü ñ.txt", "ü ñ.txt");
        check("./", "");
        check("__MACOSX/a/._fn.py", "");
        check("a/.DS_Store", "");
        check("a/._fn.py", "");
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let limits = Limits::default();
        let check = |name: &str, part: &str| {
            let error = parse(name, &limits).unwrap_err().to_string();
            assert!(error.contains(part), "{name:?}: {error}");
        };
        check("../a", "\"..\"");
        check("a/../../b", "\"..\"");
        check("a\\..\\b", "\"..\"");
        check("/etc/passwd", "absolute");
        check("\\\\host\\share", "absolute");
        check("C:\\a", "drive");
        check("c:a", "drive");
        check("a\0b", "control");
        check("a\nb", "control");
        check(&"a/".repeat(40), "deep");
        check(&"n".repeat(300), "longer than 255");
        check(&"n".repeat(2000), "longer than 1024");
    }
}
