//! Starts the instances of one function's handlers.

use crate::dependencies::Built;
use crate::interpreter::Interpreter;
use crate::node::Node;
use crate::output::Target;
use crate::process::Order;
use crate::sandbox::{Bind, Plan, Program, SandboxMode};
use faas::{BoxFuture, Entry, Package, PrepareError, Runtime};
use handler_protocol::{Spawn, Spawned, Stream};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that the instances of a function have in common.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) node: Arc<Node>,
    pub(crate) package: Package,
    /// The user of the host that the function is.
    pub(crate) host_id: Option<u32>,
    pub(crate) interpreter: Option<Interpreter>,
    pub(crate) built: Option<Built>,
}

/// Where things are in an instance's file system.
struct Places {
    code: PathBuf,
    shim: PathBuf,
    built: PathBuf,
    tmp: PathBuf,
}

impl Spawn for Template {
    fn spawn<'a>(&'a self, id: &'a Arc<str>) -> BoxFuture<'a, Result<Spawned, PrepareError>> {
        Box::pin(async move {
            let spawned = self.spawn_instance(id).await;
            spawned.map_err(|error| self.node.explain(&self.package, &error))
        })
    }
}

impl Template {
    async fn spawn_instance(&self, id: &Arc<str>) -> io::Result<Spawned> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = Stream::Unix(tokio::net::UnixStream::from_std(ours)?);
        let order = Order {
            plan: self.plan(id)?,
            limits: &self.package.spec.limits,
            host_id: self.host_id,
            scratch: self.scratch(id),
            protocol: theirs.into(),
            output: Target {
                log: Arc::clone(&self.package.log),
                handler: Arc::clone(id),
            },
        };
        let process = self.node.sandbox.start(order).await?;
        Ok(Spawned {
            stream,
            process: Box::new(process),
        })
    }

    fn plan(&self, id: &Arc<str>) -> io::Result<Plan> {
        let spec = &self.package.spec;
        let limits = &spec.limits;
        let places = self.places(id)?;
        let is_bounded = self.node.sandbox.cgroups.is_on();
        Ok(Plan {
            mode: self.node.mode,
            binds: self.binds(&places),
            reach: self.node.reach(&spec.network),
            tmp_bytes_max: limits.tmp_bytes_max,
            tmp_files_max: limits.tmp_files_max,
            open_files_max: limits.open_files_max,
            data_bytes_max: (!is_bounded).then_some(limits.memory_bytes_max),
            processes_max: (!is_bounded).then_some(u64::from(limits.pids_max)),
            // Its files are in memory, where they count when they are made.
            may_reserve: true,
            envs: self.envs(id, &places),
            working_dir: places.code.clone(),
            program: self.program(&places),
        })
    }

    /// The code: as it was sent, or as a build left it.
    fn code(&self) -> &Path {
        let built = self.built.as_ref().filter(|built| built.is_code());
        built.map_or(&self.package.code, |built| &built.kept.folder)
    }

    /// The folder of the host that is the instance's `/tmp`, in reduced isolation.
    fn scratch(&self, id: &str) -> Option<PathBuf> {
        let is_reduced = self.node.mode == SandboxMode::Reduced;
        is_reduced.then(|| self.node.scratch.join(id))
    }

    fn places(&self, id: &Arc<str>) -> io::Result<Places> {
        let built = self.built.as_ref().map(|built| built.kept.folder.as_path());
        match self.node.mode {
            SandboxMode::Full => Ok(Places {
                code: "/fn".into(),
                shim: "/shim".into(),
                built: match self.package.spec.runtime {
                    // Node looks for modules in every folder above the code's.
                    Runtime::Nodejs => "/node_modules".into(),
                    Runtime::Python3 | Runtime::Go | Runtime::Binary | Runtime::Wasm => {
                        "/deps".into()
                    }
                },
                tmp: "/tmp".into(),
            }),
            SandboxMode::Reduced => {
                let tmp = self.scratch(id).unwrap_or_default();
                std::fs::create_dir_all(&tmp)?;
                std::os::unix::fs::chown(&tmp, self.host_id, self.host_id)?;
                Ok(Places {
                    code: self.code().to_owned(),
                    shim: self.node.shims.folder().to_owned(),
                    built: built.map(Path::to_owned).unwrap_or_default(),
                    tmp,
                })
            }
        }
    }

    fn binds(&self, places: &Places) -> Vec<Bind> {
        let read_only = |source: &Path, target: &Path| Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            is_writable: false,
            may_be_link: false,
        };
        let mut binds = vec![
            read_only(self.code(), &places.code),
            read_only(self.node.shims.folder(), &places.shim),
        ];
        if let Some(built) = self.built.as_ref().filter(|built| !built.is_code()) {
            binds.push(read_only(&built.kept.folder, &places.built));
        }
        if let Some(interpreter) = &self.interpreter {
            binds.extend(interpreter.prefixes.iter().map(|prefix| Bind {
                may_be_link: true,
                ..read_only(prefix, prefix)
            }));
        }
        if self.package.spec.runtime == Runtime::Binary {
            let settings = settings_of_programs().into_iter();
            binds.extend(settings.map(|path| read_only(&path, &path)));
        }
        if self.node.mode == SandboxMode::Reduced {
            binds.push(Bind {
                source: places.tmp.clone(),
                target: places.tmp.clone(),
                is_writable: true,
                may_be_link: false,
            });
        }
        binds
    }

    fn envs(&self, id: &Arc<str>, places: &Places) -> Vec<(String, String)> {
        let spec = &self.package.spec;
        let shown = |path: &Path| path.display().to_string();
        let bin = self
            .interpreter
            .as_ref()
            .and_then(|found| found.executable.parent());
        let path = match bin {
            Some(bin) if !bin.starts_with("/usr/bin") => {
                format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())
            }
            Some(_) | None => "/usr/local/bin:/usr/bin:/bin".into(),
        };
        let mut envs: Vec<(String, String)> = vec![
            ("PATH".into(), path),
            ("HOME".into(), shown(&places.tmp)),
            ("TMPDIR".into(), shown(&places.tmp)),
            ("LANG".into(), "C.UTF-8".into()),
            ("TINYFAAS_FUNCTION".into(), spec.name.to_string()),
            ("TINYFAAS_HANDLER".into(), id.to_string()),
            ("TINYFAAS_CODE".into(), shown(&places.code)),
        ];
        if self.built.as_ref().is_some_and(|built| !built.is_code()) {
            envs.push(("TINYFAAS_DEPS".into(), shown(&places.built)));
        }
        let site = self
            .interpreter
            .as_ref()
            .and_then(|found| found.site_packages.clone());
        envs.extend(site.map(|paths| ("TINYFAAS_SITE".into(), paths)));
        if let Entry::EventHandler(entry) = &spec.entry {
            envs.push(("TINYFAAS_ENTRY".into(), entry.clone()));
        }
        envs.extend(spec.process_envs());
        envs
    }

    fn program(&self, places: &Places) -> Program {
        let executable = || {
            let found = self
                .interpreter
                .as_ref()
                .map(|found| found.executable.clone());
            found.unwrap_or_default()
        };
        let args = |flags: &[&str], shim: &str| {
            let shim = places.shim.join(shim).display().to_string();
            flags
                .iter()
                .map(|flag| (*flag).to_owned())
                .chain([shim])
                .collect()
        };
        match self.package.spec.runtime {
            Runtime::Nodejs => Program::Execute {
                path: executable(),
                args: args(NODEJS_FLAGS, "shim.js"),
            },
            Runtime::Python3 => Program::Execute {
                path: executable(),
                args: args(PYTHON3_FLAGS, "shim.py"),
            },
            Runtime::Go => Program::Execute {
                path: places.built.join("fn"),
                args: Vec::new(),
            },
            // No interpreter is found for WebAssembly, so that none of it comes here.
            Runtime::Binary | Runtime::Wasm => Program::BinaryShim,
        }
    }
}

/// What a script may call finds its settings or its parts in `/etc`: PHP its extensions, Java its
/// security policy. None is known to hold secrets, and what others may not read, functions can't.
const SETTINGS: [&str; 14] = [
    "R",
    "fonts",
    "ghostscript",
    "groovy",
    "imagemagick",
    "java",
    "lua",
    "magic",
    "maven",
    "mono",
    "perl",
    "php",
    "python3",
    "ruby",
];

/// The folders and files of `/etc` with these names, or with a version after them: `java-17-openjdk`,
/// `python3.11`, `ImageMagick-6`.
fn settings_of_programs() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/etc").into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_setting))
        .map(|entry| entry.path())
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
}

fn is_setting(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SETTINGS.iter().any(|known| {
        let known = known.to_ascii_lowercase();
        let version = name.strip_prefix(&known);
        version.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
    })
}

/// A small young generation and one helper thread: a handler is one of many on a small machine.
const NODEJS_FLAGS: &[&str] = &["--max-semi-space-size=2", "--v8-pool-size=1"];
/// No bytecode is written, as the code is read-only; no `site`, whose work is done once for all
/// (`TINYFAAS_SITE`); the same text encoding everywhere.
const PYTHON3_FLAGS: &[&str] = &["-B", "-S", "-X", "utf8"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_known_by_name_with_any_version() {
        for name in [
            "php",
            "java-17-openjdk",
            "python3.11",
            "ImageMagick-6",
            "perl",
            "R",
        ] {
            assert!(is_setting(name), "{name}");
        }
        for name in [
            "shadow",
            "ssh",
            "phpmyadmin",
            "rsyslog.d",
            "ssl",
            "javascript",
            "",
        ] {
            assert!(!is_setting(name), "{name}");
        }
    }
}
