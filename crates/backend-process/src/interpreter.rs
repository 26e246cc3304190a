//! Finds the interpreters and compilers of this host and what of the host they need to run.

use faas::{PrepareError, Runtime};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::process::Command;

/// How long an interpreter may take to tell its version.
const ASK: Duration = Duration::from_secs(60);

/// Which interpreters to use; what is not given is looked for on `PATH`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interpreters {
    /// A `node`.
    pub nodejs: Option<PathBuf>,
    /// A `python3`, which may be the one of a virtual environment.
    pub python3: Option<PathBuf>,
    /// A `go`.
    pub go: Option<PathBuf>,
}

/// An interpreter or compiler that was found and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    pub(crate) executable: PathBuf,
    pub(crate) version: String,
    /// Folders outside `/usr` that it needs.
    pub(crate) prefixes: Vec<PathBuf>,
    /// Python's folders of installed packages, with `:` between them. Looking for them at every
    /// start (`site`) can take longer than all the rest, so it is done once.
    pub(crate) site_packages: Option<String>,
}

/// Remembers what was found; what was missing is looked for again each time.
#[derive(Debug)]
pub(crate) struct Finder {
    chosen: Interpreters,
    found: Mutex<HashMap<Runtime, Interpreter>>,
}

/// How a runtime's program is asked, and what it must be.
struct Question {
    program: &'static str,
    flag: &'static str,
    /// Prints the version, the executable, then the folders that it needs, a line each.
    args: &'static [&'static str],
    oldest: (u32, u32),
    fix: &'static str,
}

const NODEJS: Question = Question {
    program: "node",
    flag: "--nodejs",
    args: &[
        "-p",
        "[process.versions.node, process.execPath].join('\\n')",
    ],
    oldest: (18, 0),
    fix: "install Node.js 18 or newer (Debian: apt install nodejs npm)",
};

const PYTHON3: Question = Question {
    program: "python3",
    flag: "--python3",
    args: &[
        "-c",
        "import sys; \
         print(sys.version.split()[0], sys.executable, sys.prefix, sys.base_prefix, sep='\\n'); \
         print(':'.join(p for p in sys.path if p.endswith('-packages')))",
    ],
    oldest: (3, 8),
    fix: "install Python 3.8 or newer (Debian: apt install python3 python3-pip)",
};

const GO: Question = Question {
    program: "go",
    flag: "--go",
    args: &["env", "GOVERSION", "GOROOT"],
    oldest: (1, 18),
    fix: "install Go 1.18 or newer (Debian: apt install golang-go)",
};

impl Finder {
    pub(crate) fn new(chosen: Interpreters) -> Self {
        Self {
            chosen,
            found: Mutex::default(),
        }
    }

    /// The interpreter of a runtime; none where the runtime needs none.
    pub(crate) async fn find(&self, runtime: Runtime) -> Result<Option<Interpreter>, PrepareError> {
        let (question, chosen) = match runtime {
            Runtime::Nodejs => (NODEJS, &self.chosen.nodejs),
            Runtime::Python3 => (PYTHON3, &self.chosen.python3),
            Runtime::Go => (GO, &self.chosen.go),
            Runtime::Binary => return Ok(None),
            Runtime::Wasm => return Err(PrepareError::runtime(NO_WASM, NO_WASM_FIX)),
        };
        if let Some(found) = self.known(runtime) {
            return Ok(Some(found));
        }
        let program = chosen
            .clone()
            .unwrap_or_else(|| PathBuf::from(question.program));
        let found = ask(runtime, &question, &program).await?;
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(runtime, found.clone());
        Ok(Some(found))
    }

    fn known(&self, runtime: Runtime) -> Option<Interpreter> {
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&runtime)
            .filter(|found| found.executable.exists())
            .cloned()
    }
}

/// WebAssembly runs in a backend of its own.
const NO_WASM: &str = "the runtime wasm is not a process of this host";
const NO_WASM_FIX: &str = "use a tinyfaas that was built with the feature wasm, on 64-bit Linux";

async fn ask(
    runtime: Runtime,
    question: &Question,
    program: &Path,
) -> Result<Interpreter, PrepareError> {
    let Question {
        flag, fix, oldest, ..
    } = question;
    let shown = program.display();
    let refused = |what: String| {
        let detail = format!("the runtime {runtime}: {shown} {what}");
        PrepareError::runtime(detail, format!("{fix}, or name another with {flag}"))
    };
    let mut command = Command::new(program);
    let asked = answer(command.args(question.args));
    let output = match tokio::time::timeout(ASK, asked).await {
        Ok(Ok(output)) if output.status.success() => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let detail =
                format!("the runtime {runtime} needs {shown}, which is not on this machine");
            let fix = format!("{fix}, or name one with {flag}");
            return Err(PrepareError::runtime(detail, fix));
        }
        Ok(Ok(_)) | Ok(Err(_)) | Err(_) => {
            return Err(refused("did not tell its version".to_owned()));
        }
    };
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = answer.lines().map(str::trim).collect();
    let parsed = match runtime {
        Runtime::Nodejs => nodejs(&lines),
        Runtime::Python3 => python3(&lines),
        Runtime::Go => go(&lines),
        Runtime::Binary | Runtime::Wasm => None,
    };
    let found = parsed.ok_or_else(|| refused(format!("answered {answer:?}")))?;
    if numbers(&found.version) < *oldest {
        let version = &found.version;
        return Err(refused(format!("is version {version}, too old")));
    }
    outside_usr(found).map_err(|prefix| {
        let prefix = prefix.display();
        refused(format!(
            "lies in {prefix}, which is too broad to be shown to functions"
        ))
    })
}

/// What the program prints. Dropping the future ends it and whatever it started: what stands in
/// PATH may be a script of a version manager.
async fn answer(command: &mut Command) -> std::io::Result<Output> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::piped()).process_group(0).spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(Pid::from_raw));
    let output = child.wait_with_output().await;
    group.0 = None;
    output
}

/// A group of processes that is killed when this is dropped, unless it was taken out.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        let killed = self.0.map(|group| kill_process_group(group, Signal::KILL));
        // Where it fails, the group has ended.
        let _was_there = killed.is_some_and(|killed| killed.is_ok());
    }
}

fn nodejs(lines: &[&str]) -> Option<Interpreter> {
    let &[version, executable, ..] = lines else {
        return None;
    };
    let executable = Path::new(executable).canonicalize().ok()?;
    let prefix = executable.parent()?.parent()?.to_owned();
    Some(Interpreter {
        executable,
        version: version.into(),
        prefixes: vec![prefix],
        site_packages: None,
    })
}

fn python3(lines: &[&str]) -> Option<Interpreter> {
    let &[version, executable, prefix, base, ref site @ ..] = lines else {
        return None;
    };
    // In a virtual environment the executable is a link; its place tells Python where it is.
    let mut prefixes = vec![PathBuf::from(prefix)];
    for more in [PathBuf::from(base), Path::new(base).canonicalize().ok()?] {
        if !prefixes.contains(&more) {
            prefixes.push(more);
        }
    }
    Some(Interpreter {
        executable: executable.into(),
        version: version.into(),
        prefixes,
        site_packages: site
            .first()
            .filter(|paths| !paths.is_empty())
            .map(|paths| (*paths).into()),
    })
}

fn go(lines: &[&str]) -> Option<Interpreter> {
    let &[version, root, ..] = lines else {
        return None;
    };
    let root = Path::new(root).canonicalize().ok()?;
    let executable = root.join("bin/go");
    let version = version.trim_start_matches("go").to_owned();
    Some(Interpreter {
        executable,
        version,
        prefixes: vec![root],
        site_packages: None,
    })
}

fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Keeps the prefixes that `/usr` does not have anyway; fails with one that would show more than
/// an interpreter: a root, a top-level folder, somebody's home.
fn outside_usr(mut found: Interpreter) -> Result<Interpreter, PathBuf> {
    found.prefixes.retain(|prefix| !prefix.starts_with("/usr"));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    for prefix in &found.prefixes {
        let is_home = Some(prefix) == home.as_ref() || prefix.parent() == Some(Path::new("/home"));
        if prefix.components().count() < 3 || is_home {
            return Err(prefix.clone());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("3.10.1") > numbers("3.9"));
        assert!(numbers("18.0.0") >= (18, 0));
        assert!(numbers("1.17.13") < (1, 18));
    }

    #[test]
    fn a_prefix_that_shows_more_than_an_interpreter_is_refused() {
        let check = |prefix: &str, expected: Result<usize, ()>| {
            let found = Interpreter {
                executable: "/x".into(),
                version: "1".into(),
                prefixes: vec![prefix.into()],
                site_packages: None,
            };
            let kept = outside_usr(found)
                .map(|found| found.prefixes.len())
                .map_err(drop);
            assert_eq!(kept, expected, "{prefix}");
        };
        check("/usr", Ok(0));
        check("/usr/local", Ok(0));
        check("/opt/python", Ok(1));
        check("/home/ada/.nvm/versions/node/v20", Ok(1));
        check("/", Err(()));
        check("/opt", Err(()));
        check("/home/ada", Err(()));
    }

    #[tokio::test]
    async fn what_is_missing_is_named_with_what_to_do() {
        let chosen = Interpreters {
            python3: Some("/nonexistent/python3".into()),
            ..Interpreters::default()
        };
        let error = Finder::new(chosen)
            .find(Runtime::Python3)
            .await
            .unwrap_err();
        let (detail, fix) = (error.detail, error.fix);
        assert!(detail.contains("/nonexistent/python3"), "{detail}");
        assert!(
            fix.contains("--python3") && fix.contains("install"),
            "{fix}"
        );
    }
}
