//! Where a symbolic link of an archive leads, told from the archive alone.
//!
//! The folder is moved after it was unpacked, and seen at yet another place by the function. A link
//! that leaves the folder and comes back by the name of its place would be right in one of them
//! only, so no step of any link may leave it.

use super::kind::Kind;
use std::collections::BTreeMap;

/// How many links one path may lead through; Linux has the same bound.
const LINKS_MAX: usize = 40;

/// Why a link can't be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Astray {
    /// A step leaves the function's folder.
    Out,
    /// It leads to nothing, or in a circle.
    Nowhere,
}

/// Follows the link at `path` through the entries, and every link on its way. `inside` is the
/// function's folder with a slash at its end, or empty.
pub(super) fn follow(
    entries: &BTreeMap<String, Kind>,
    inside: &str,
    path: &str,
) -> Result<(), Astray> {
    let below = path.strip_prefix(inside).unwrap_or(path);
    let mut steps: Vec<&str> = below.split('/').rev().collect();
    let mut place: Vec<&str> = Vec::new();
    let mut links = 0;
    while let Some(step) = steps.pop() {
        match step {
            "" | "." => continue,
            ".." => {
                place.pop().ok_or(Astray::Out)?;
                continue;
            }
            name => place.push(name),
        }
        let reached = format!("{inside}{}", place.join("/"));
        match entries.get(&reached) {
            Some(Kind::Folder) => {}
            Some(Kind::File { .. }) if steps.is_empty() => {}
            Some(Kind::File { .. }) | None => return Err(out_or_nowhere(&place, &steps)),
            Some(Kind::Link { target }) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Astray::Nowhere);
                }
                place.pop();
                steps.extend(target.split('/').rev());
            }
        }
    }
    Ok(())
}

/// What is wrong with a path whose place is not there: more so where its rest leaves the folder.
fn out_or_nowhere(place: &[&str], rest: &[&str]) -> Astray {
    let mut depth = place.len();
    for step in rest.iter().rev() {
        match *step {
            "" | "." => {}
            ".." if depth == 0 => return Astray::Out,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    Astray::Nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_of_a_link_leaves_the_folder() {
        let link = |target: &str| Kind::Link {
            target: target.to_owned(),
        };
        let file = Kind::File {
            is_executable: false,
        };
        let check = |target: &str, expected: Result<(), Astray>| {
            let entries = [
                ("top", Kind::Folder),
                ("other", file.clone()),
                ("top/fn.py", file.clone()),
                ("top/lib", Kind::Folder),
                ("top/lib/a.py", file.clone()),
                ("top/up", link("..")),
                ("top/to-lib", link("lib")),
                ("top/circle", link("circle")),
                ("top/lib/link", link(target)),
            ];
            let entries = entries.map(|(path, kind)| (path.to_owned(), kind)).into();
            let followed = follow(&entries, "top/", "top/lib/link");
            assert_eq!(followed, expected, "{target}");
        };
        check("a.py", Ok(()));
        check("../fn.py", Ok(()));
        check("..", Ok(()));
        check("./../lib/../to-lib/a.py", Ok(()));
        // There now, but only under the name that the folder has while it is unpacked.
        check("../../top/fn.py", Err(Astray::Out));
        check("../../unpacked/top/fn.py", Err(Astray::Out));
        check("../up/top/fn.py", Err(Astray::Out));
        check("../../other", Err(Astray::Out));
        check("missing/../../../other", Err(Astray::Out));
        check("missing", Err(Astray::Nowhere));
        check("a.py/b", Err(Astray::Nowhere));
        check("../circle", Err(Astray::Nowhere));
    }
}
