//! The modules of a crate and what each of them names of the others, read from its source.

use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// How many imports a path may lead through before the search gives up.
const IMPORTS_MAX: usize = 16;

/// Where a module stands in its crate: the names that lead to it, none for the root.
pub(crate) type Place = Vec<String>;

/// The modules of one crate by their place, those that only tests have left out.
#[derive(Debug, Default)]
pub(crate) struct Modules(BTreeMap<Place, Module>);

#[derive(Debug, Default)]
struct Module {
    /// The paths that it names, as they are written.
    named: Vec<Vec<String>>,
    /// What it calls the things that it imports.
    imports: BTreeMap<String, Vec<String>>,
}

/// A module that names something of another.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) from: Place,
    pub(crate) to: Place,
    /// The path as it is written there.
    pub(crate) written: String,
}

impl Modules {
    /// Reads the crate whose first file is this.
    ///
    /// # Errors
    /// If a file cannot be read, is not Rust, or a module has no file.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut modules = Self::default();
        let folder = root.parent().context("a file without a folder")?;
        modules.read_file(root, folder, &Vec::new())?;
        Ok(modules)
    }

    fn read_file(&mut self, file: &Path, children: &Path, place: &Place) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let tokens = tokens(&text).with_context(|| format!("read {}", file.display()))?;
        self.0.entry(place.clone()).or_default();
        for child in self.scan(&tokens, place) {
            let (file, children) = file_of(children, &child)?;
            let place = [place.clone(), child].concat();
            self.read_file(&file, &children, &place)?;
        }
        Ok(())
    }

    /// Takes in what the tokens name, and returns the modules below this one that have files of their own.
    fn scan(&mut self, tokens: &[TokenTree], place: &Place) -> Vec<Place> {
        let mut files = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            at += match &tokens[at..] {
                [hash, TokenTree::Group(attribute), ..]
                    if is(hash, "#") && attribute.to_string() == "[cfg (test)]" =>
                {
                    2 + item(&tokens[at + 2..])
                }
                [word, TokenTree::Ident(name), end, ..] if is(word, "mod") && is(end, ";") => {
                    files.push(vec![name.to_string()]);
                    3
                }
                [word, TokenTree::Ident(name), TokenTree::Group(body), ..] if is(word, "mod") => {
                    let inner = [name.to_string()];
                    let place = [place.as_slice(), &inner].concat();
                    self.0.entry(place.clone()).or_default();
                    let below = self.scan(&list(body.stream()), &place);
                    files.extend(below.into_iter().map(|below| [&inner[..], &below].concat()));
                    3
                }
                [word, rest @ ..] if is(word, "use") => {
                    let end = rest.iter().position(|token| is(token, ";"));
                    let tree = &rest[..end.unwrap_or(rest.len())];
                    self.import(tree, &[], place);
                    1 + tree.len()
                }
                [TokenTree::Group(group), ..] => {
                    files.extend(self.scan(&list(group.stream()), place));
                    1
                }
                rest => self.path(rest, place),
            };
        }
        files
    }

    /// Takes in a path that stands alone, and returns how many tokens it has; at least one.
    fn path(&mut self, tokens: &[TokenTree], place: &Place) -> usize {
        let (path, length) = written(tokens);
        let relative = path.first().map(String::as_str);
        if matches!(relative, Some("crate" | "super" | "self")) && path.len() > 1 {
            self.0.entry(place.clone()).or_default().named.push(path);
        }
        length.max(1)
    }

    /// Takes in one tree of a `use`.
    fn import(&mut self, tree: &[TokenTree], before: &[String], place: &Place) {
        let (path, length) = written(tree);
        let path = [before, &path].concat();
        let rest = &tree[length..];
        if let Some(TokenTree::Group(group)) = rest.iter().find(|token| is_braces(token)) {
            let inner = list(group.stream());
            for tree in inner.split(|token| is(token, ",")) {
                self.import(tree, &path, place);
            }
            return;
        }
        let path = match path.split_last() {
            Some((last, above)) if last == "self" && !above.is_empty() => above.to_vec(),
            _ => path,
        };
        let renamed = match rest {
            [word, TokenTree::Ident(name), ..] if is(word, "as") => Some(name.to_string()),
            _ => path.last().cloned(),
        };
        let module = self.0.entry(place.clone()).or_default();
        module.named.push(path.clone());
        let glob = rest.iter().any(|token| is(token, "*"));
        if let (Some(name), false) = (renamed, glob) {
            module.imports.insert(name, path);
        }
    }

    /// Which module names what of which other of this crate.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for (from, module) in &self.0 {
            for path in &module.named {
                uses.extend(self.homes(path, from).into_iter().map(|to| Use {
                    from: from.clone(),
                    to,
                    written: path.join("::"),
                }));
            }
        }
        uses
    }

    /// The modules that a path leads through: the one that it names, and those whose imports it follows to the end.
    fn homes(&self, path: &[String], from: &Place) -> Vec<Place> {
        let mut homes = Vec::new();
        let mut next = Some((path.to_vec(), from.clone()));
        while let Some((path, from)) = next.take().filter(|_| homes.len() < IMPORTS_MAX) {
            let Some((home, rest)) = self.walk(&path, &from) else {
                break;
            };
            let imported = rest.split_first().and_then(|(name, rest)| {
                let import = self.0.get(&home)?.imports.get(name)?;
                // An import is no home of its own name.
                let followed = [import, rest].concat();
                (followed != path).then(|| (followed, home.clone()))
            });
            homes.push(home);
            next = imported;
        }
        homes
    }

    /// The innermost module that a path reaches by modules alone, and what of the path is left.
    fn walk<'path>(&self, path: &'path [String], from: &Place) -> Option<(Place, &'path [String])> {
        let (mut home, mut rest) = (from.clone(), path);
        match path.first()?.as_str() {
            "crate" => {
                home.clear();
                rest = &path[1..];
            }
            "self" | "super" => {}
            first => {
                let child = [from.as_slice(), &[first.to_owned()]].concat();
                let known = self.0.contains_key(&child)
                    || self
                        .0
                        .get(from)?
                        .imports
                        .get(first)
                        .is_some_and(|import| import.as_slice() != path);
                known.then_some(())?;
            }
        }
        while let Some((name, after)) = rest.split_first() {
            match name.as_str() {
                "self" => {}
                "super" => drop(home.pop()?),
                name => {
                    let child = [home.as_slice(), &[name.to_owned()]].concat();
                    if !self.0.contains_key(&child) {
                        break;
                    }
                    home = child;
                }
            }
            rest = after;
        }
        Some((home, rest))
    }
}

/// The file of a module, and the folder that has the files of those below it.
fn file_of(folder: &Path, child: &[String]) -> Result<(PathBuf, PathBuf)> {
    let below = folder.join(child.join("/"));
    let files = [below.with_extension("rs"), below.join("mod.rs")];
    match files.into_iter().find(|file| file.is_file()) {
        Some(file) => Ok((file, below)),
        None => bail!("no file of the module {}", below.display()),
    }
}

/// How many tokens the item has that begins here: to its semicolon or its braces.
fn item(tokens: &[TokenTree]) -> usize {
    let end = |token: &TokenTree| is(token, ";") || is_braces(token);
    tokens
        .iter()
        .position(end)
        .map_or(tokens.len(), |end| end + 1)
}

/// The path that begins here, and how many tokens it has, a colon at its end counted in.
fn written(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let (mut path, mut at) = (Vec::new(), 0);
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        path.push(name.to_string());
        at += 1;
        match &tokens[at..] {
            [first, second, ..] if is(first, ":") && is(second, ":") => at += 2,
            _ => break,
        }
    }
    (path, at)
}

fn is(token: &TokenTree, text: &str) -> bool {
    match token {
        TokenTree::Ident(ident) => ident == text,
        TokenTree::Punct(punct) => text.chars().eq([punct.as_char()]),
        TokenTree::Group(_) | TokenTree::Literal(_) => false,
    }
}

fn is_braces(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn tokens(text: &str) -> Result<Vec<TokenTree>> {
    let stream: TokenStream = text.parse().ok().context("it is not Rust")?;
    Ok(list(stream))
}

fn list(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}
