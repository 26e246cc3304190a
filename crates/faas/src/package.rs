//! A function's code, unpacked, and what its runtime wants to find there.

use crate::asker::Asker;
use crate::failure::PrepareError;
#[cfg(doc)]
use crate::failure::PrepareErrorKind;
use crate::function::{Entry, FunctionSpec, Runtime};
use crate::log::FunctionLog;
use crate::progress::Progress;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Everything that a backend needs to run a function.
#[derive(Debug, Clone)]
pub struct Package {
    /// What the user asked for.
    pub spec: Arc<FunctionSpec>,
    /// The folder with the function's unpacked code. The backend only reads it; it stays until
    /// every handler that was prepared from it has stopped.
    pub code: PathBuf,
    /// The digest of the code, in hexadecimal.
    pub digest: String,
    /// Where builds and handlers print to.
    pub log: Arc<FunctionLog>,
    /// Where the backend tells how far it is.
    pub progress: Progress,
    /// Whose share of what deployments use this is.
    pub asker: Asker,
}

impl Package {
    /// Refuses code that lacks the file which its runtime starts from.
    ///
    /// # Errors
    /// Of the kind [`PrepareErrorKind::Code`], with what was expected.
    pub fn check_code(&self) -> Result<(), PrepareError> {
        let name = &self.spec.name;
        let has = |file: &str| self.code.join(file).is_file();
        let missing = |file: &str, fix: &str| {
            let detail = format!("function \"{name}\": no file {file} in the archive");
            Err(PrepareError::code(detail, fix))
        };
        match (self.spec.runtime, &self.spec.entry) {
            (Runtime::Nodejs, Entry::EventHandler(entry)) if !is_inside(entry) => {
                let detail = format!("function \"{name}\": the entry {entry:?} leaves its folder");
                Err(PrepareError::code(detail, "name a file of the archive"))
            }
            (Runtime::Nodejs, Entry::EventHandler(entry)) if !has(entry) => {
                missing(entry, "name the file that exports eventhandler()")
            }
            (Runtime::Nodejs, Entry::Convention)
                if !["package.json", "index.js", "index.mjs", "index.cjs"]
                    .into_iter()
                    .any(has) =>
            {
                missing(
                    "package.json",
                    "a nodejs function is an npm module (package.json or index.js)",
                )
            }
            (Runtime::Python3, _) if !has("fn.py") => {
                missing("fn.py", "a python3 function is fn(input, headers) in fn.py")
            }
            (Runtime::Go, _) if !has("fn.go") => missing(
                "fn.go",
                "a go function is func fn(data string, headers map[string]string) (string, error) in fn.go",
            ),
            (Runtime::Binary, _) if !["fn.sh", "fn.cgi"].into_iter().any(has) => missing(
                "fn.sh",
                "a binary function is a program or script fn.sh, or fn.cgi to print header fields",
            ),
            (
                Runtime::Nodejs | Runtime::Python3 | Runtime::Go | Runtime::Binary | Runtime::Wasm,
                _,
            ) => Ok(()),
        }
    }
}

impl Package {
    /// What to do about a build that failed and printed this.
    #[must_use]
    pub fn build_fix(&self, output: &str) -> &'static str {
        const NO_C: &str = "files that use C are left out, as builds have no C compiler (cgo is off): \
                            write it in Go, or deploy the compiled program as a binary function";
        const NOT_MAIN: &str = "every .go file beside fn.go belongs to one package: write package main as its \
                                first line, and keep other packages in folders of their own";
        const NO_FN: &str =
            "write func fn(data string, headers map[string]string) (string, error) in package main";
        const SEE_OUTPUT: &str = "mend what the output names, then deploy again";
        if self.spec.runtime != Runtime::Go {
            return SEE_OUTPUT;
        }
        if output.contains("found packages") {
            return NOT_MAIN;
        }
        if output.contains("not using cgo") {
            return NO_C;
        }
        if !output.contains("undefined: fn") {
            return SEE_OUTPUT;
        }
        if uses_c(&self.code) { NO_C } else { NO_FN }
    }
}

/// Whether a Go file of the folder imports C.
fn uses_c(code: &Path) -> bool {
    let entries = std::fs::read_dir(code).into_iter().flatten().flatten();
    let sources = entries.map(|entry| entry.path());
    let mut sources = sources.filter(|path| path.extension().is_some_and(|it| it == "go"));
    sources.any(|path| {
        let source = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = source.lines().map(str::trim);
        lines.any(|line| matches!(line, "import \"C\"" | "\"C\""))
    })
}

fn is_inside(entry: &str) -> bool {
    Path::new(entry)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
