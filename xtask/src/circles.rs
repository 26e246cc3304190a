//! Circles of modules within a crate: two that lie beside each other, each of which needs the other.
//!
//! A module is taken together with those below it. That a parent and a child know each other is no
//! circle: the parent puts its children together, and they take their words from it.

use crate::modules::{Modules, Use};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// The circles that are known and to be taken apart. The list only shrinks.
const KNOWN: [&str; 0] = [];

/// Modules that all need each other, directly or through each other.
#[derive(Debug)]
struct Circle {
    /// The crate, and the modules that lead to the common parent.
    parent: Vec<String>,
    members: BTreeSet<String>,
    /// One reason for each arrow of the circle.
    uses: Vec<Use>,
}

/// The circles that are not known, and the known ones that are gone, as texts; `metadata` is what
/// `cargo metadata --no-deps` prints.
///
/// # Errors
/// If the metadata or a source file cannot be read.
pub(crate) fn broken(metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let targets = packages.iter().filter_map(|one| one["targets"].as_array());
    let mut circles = Vec::new();
    // A benchmark takes modules of the tests over by their path; they are looked at there.
    for target in targets.flatten().filter(|one| one["kind"][0] != "bench") {
        let name = target["name"].as_str().context("a target without a name")?;
        let root = target["src_path"]
            .as_str()
            .context("a target without a file")?;
        circles.extend(within(name, &Modules::read(Path::new(root))?));
    }
    Ok(against(&circles, &KNOWN))
}

fn against(circles: &[Circle], known: &[&str]) -> Vec<String> {
    let found: Vec<String> = circles.iter().map(Circle::to_string).collect();
    let new = circles
        .iter()
        .zip(&found)
        .filter(|(_, name)| !known.contains(&name.as_str()));
    let new = new.map(|(circle, name)| {
        let reasons: String = circle.uses.iter().map(|one| format!("\n  {one}")).collect();
        format!(
            "{name} is a circle of modules: move what they share to a module of its own{reasons}"
        )
    });
    let gone = known
        .iter()
        .filter(|name| !found.iter().any(|found| found == *name));
    let gone = gone.map(|name| {
        format!("{name} is no circle any more: take it off KNOWN in xtask/src/circles.rs")
    });
    new.chain(gone).collect()
}

/// The circles among the modules of a crate.
fn within(name: &str, modules: &Modules) -> Vec<Circle> {
    let mut siblings: BTreeMap<Vec<String>, Arrows> = BTreeMap::new();
    for one in modules.uses() {
        let shared = one
            .from
            .iter()
            .zip(&one.to)
            .take_while(|(from, to)| from == to)
            .count();
        let (Some(from), Some(to)) = (one.from.get(shared), one.to.get(shared)) else {
            continue;
        };
        let arrow = (from.clone(), to.clone());
        let parent = [&[name.to_owned()], &one.from[..shared]].concat();
        siblings
            .entry(parent)
            .or_default()
            .entry(arrow)
            .or_insert(one);
    }
    siblings
        .into_iter()
        .flat_map(|(parent, arrows)| circles(&parent, &arrows))
        .collect()
}

/// One use for each pair of neighbours of which the first needs the second.
type Arrows = BTreeMap<(String, String), Use>;

fn circles(parent: &[String], arrows: &Arrows) -> Vec<Circle> {
    let mut circles: Vec<Circle> = Vec::new();
    for start in arrows.keys().map(|(from, _)| from) {
        if circles.iter().any(|circle| circle.members.contains(start)) {
            continue;
        }
        let reached = reached(start, arrows);
        let back = |one: &&String| self::reached(one, arrows).contains(start);
        let members: BTreeSet<String> = reached.iter().filter(back).cloned().collect();
        if members.is_empty() {
            continue;
        }
        let inner = arrows
            .iter()
            .filter(|((from, to), _)| members.contains(from) && members.contains(to));
        let uses = inner.map(|(_, one)| one.clone()).collect();
        circles.push(Circle {
            parent: parent.to_vec(),
            members,
            uses,
        });
    }
    circles
}

/// What a module needs, directly or through others; itself only if it stands in a circle.
fn reached(start: &str, arrows: &Arrows) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(from) = open.pop() {
        let next = arrows.keys().filter(|(one, _)| one == from);
        for (_, to) in next {
            if reached.insert(to.clone()) {
                open.push(to);
            }
        }
    }
    reached
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(String::as_str).collect();
        write!(f, "{}::{{{}}}", self.parent.join("::"), members.join(", "))
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.join("::"), self.to.join("::"));
        write!(f, "{from} needs {to}: it names {}", self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The circles of a crate of these files.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let modules = Modules::read(&folder.path().join("lib.rs")).unwrap();
        within("house", &modules)
            .iter()
            .map(Circle::to_string)
            .collect()
    }

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(found(files), expected, "{files:?}");
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a;\nmod b;\nmod c;\npub use c::Cup;");
    const EMPTY: &str = "pub(crate) struct Cup;";

    #[test]
    fn a_circle_of_two_is_found_and_an_arrow_is_not() {
        let (a, b) = ("use crate::b::Bowl;", "fn f(_ash: super::a::Ash) {}");
        check(
            &[ROOT, ("a.rs", a), ("b.rs", b), ("c.rs", EMPTY)],
            &["house::{a, b}"],
        );
        check(&[ROOT, ("a.rs", a), ("b.rs", EMPTY), ("c.rs", EMPTY)], &[]);
    }

    #[test]
    fn a_circle_of_three_is_one_circle() {
        let files = [
            ROOT,
            ("a.rs", "use crate::{b::{self as bowl, Bowl}, x::Y};"),
            ("b.rs", "fn f() { assert!(crate::c::cup()) }"),
            ("c.rs", "impl super::a::Ash for u8 {}"),
        ];
        check(&files, &["house::{a, b, c}"]);
    }

    #[test]
    fn a_name_is_followed_to_where_it_is_from() {
        let (a, c) = ("use crate::Cup;", "use crate::a;\npub struct Cup(a::Ash);");
        check(
            &[ROOT, ("a.rs", a), ("b.rs", EMPTY), ("c.rs", c)],
            &["house::{a, c}"],
        );
    }

    #[test]
    fn a_module_counts_with_those_below_it() {
        let files = [
            ROOT,
            ("a.rs", "mod in_a;"),
            ("a/in_a.rs", "use crate::b::Bowl;"),
            ("b.rs", "mod in_b;"),
            ("b/in_b/mod.rs", "use crate::a::Ash;"),
            ("c.rs", EMPTY),
        ];
        check(&files, &["house::{a, b}"]);
    }

    #[test]
    fn parent_and_child_may_know_each_other_and_neighbours_below_a_parent_may_not() {
        let (one, two) = ("use super::{Ash, two};", "use crate::a::one;");
        let a = "mod one; mod two; use one::One; pub struct Ash;";
        let files = [ROOT, ("a.rs", a), ("b.rs", EMPTY), ("c.rs", EMPTY)];
        let below = |two| [files.as_slice(), &[("a/one.rs", one), ("a/two.rs", two)]].concat();
        check(&below(two), &["house::a::{one, two}"]);
        check(&below("use super::Ash; use crate::Cup;"), &[]);
    }

    #[test]
    fn what_only_tests_and_texts_name_is_no_arrow() {
        let b = r#"
            //! See `crate::a`.
            // crate::a::Ash
            const TEXT: &str = "crate::a::Ash";
            #[cfg(test)]
            mod tests { use crate::a::Ash; }
            #[cfg(test)]
            mod in_a_file;
        "#;
        check(
            &[
                ROOT,
                ("a.rs", "use crate::b::Bowl;"),
                ("b.rs", b),
                ("c.rs", EMPTY),
            ],
            &[],
        );
    }

    #[test]
    fn a_circle_that_is_not_known_fails_and_a_known_one_that_is_gone_fails() {
        let circle = Circle {
            parent: vec!["house".into()],
            members: ["a".into(), "b".into()].into(),
            uses: Vec::new(),
        };
        let circles = [circle];
        assert_eq!(against(&circles, &["house::{a, b}"]).len(), 0);
        let unknown = against(&circles, &[]);
        assert!(
            unknown[0].starts_with("house::{a, b} is a circle"),
            "{unknown:?}"
        );
        let gone = against(&[], &["house::{a, b}"]);
        assert!(gone[0].contains("take it off KNOWN"), "{gone:?}");
    }
}
