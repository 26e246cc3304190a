//! The folders of a build, and the sandbox around them.
//!
//! A build sees the code and what it installs under the paths that handlers have them at, so that
//! paths which a package manager writes into files hold later too. Each folder is bound alone:
//! none of them can be replaced from within.

use super::blocking;
use crate::cache::Staging;
use crate::interpreter::Interpreter;
use crate::node::Node;
use crate::sandbox::{Bind, Plan, Program, SandboxMode};
use crate::toolchain::PIP_CONFIG;
use crate::tree;
use builds::{Place, Recipe};
use faas::Package;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Variables of tinyFaaS's own environment that say whom to trust, which builds see too.
const TRUST: [&str; 4] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
];

/// The folders of one build.
pub(super) struct Layout {
    pub(super) staging: Staging,
    /// What is kept of Go's standard library.
    library: Option<PathBuf>,
}

/// The name of a folder in recipes, on the host, and in full isolation.
const FOLDERS: [(&str, &str, &str); 3] = [
    ("@code", "code", "/fn"),
    ("@deps", "deps", "/deps"),
    ("@build", "work", "/build"),
];
const LIBRARY: &str = "/library";

/// Where a Go build keeps what it compiles.
pub(super) const GO_CACHE: &str = "work/go-cache";

impl Layout {
    /// Makes the folders, with what the recipe puts into them, and gives them to the user that
    /// builds are.
    pub(super) async fn make(
        node: &Arc<Node>,
        package: &Package,
        recipe: &Recipe,
        library: Option<&Path>,
    ) -> io::Result<Self> {
        let layout = Self {
            staging: node.cache.staging()?,
            library: library.map(Path::to_owned),
        };
        let source = recipe.copies_code.then(|| package.code.clone());
        let (files, owner, mode) = (recipe.files.clone(), node.build_id(), node.mode);
        blocking(move || {
            layout.fill(source.as_deref(), &files, mode)?;
            if let Some(owner) = owner {
                tree::give_to(layout.staging.path(), owner)?;
            }
            Ok(layout)
        })
        .await
    }

    fn fill(
        &self,
        source: Option<&Path>,
        files: &[(String, Vec<u8>)],
        mode: SandboxMode,
    ) -> io::Result<()> {
        for (_, folder, _) in FOLDERS {
            fs::create_dir(self.staging.path().join(folder))?;
        }
        for folder in ["work/tmp", "work/home"] {
            fs::create_dir(self.staging.path().join(folder))?;
        }
        if let Some(source) = source {
            tree::copy(source, &self.code())?;
        }
        for (path, contents) in files {
            tree::write(&self.code(), path, contents)?;
        }
        match &self.library {
            Some(library) => self.link_library(library, mode),
            None => Ok(()),
        }
    }

    /// Lets the Go compiler find what is kept of its standard library: by links, so that it can
    /// add to what it finds but not change it.
    fn link_library(&self, library: &Path, mode: SandboxMode) -> io::Result<()> {
        let cache = self.staging.path().join(GO_CACHE);
        let seen = match mode {
            SandboxMode::Full => Path::new(LIBRARY),
            SandboxMode::Reduced => library,
        };
        fs::create_dir(&cache)?;
        for folder in fs::read_dir(library)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            let name = folder.file_name();
            fs::create_dir(cache.join(&name))?;
            for object in fs::read_dir(folder.path())? {
                let object = object?.file_name();
                symlink(
                    seen.join(&name).join(&object),
                    cache.join(&name).join(&object),
                )?;
            }
        }
        Ok(())
    }

    pub(super) fn code(&self) -> PathBuf {
        self.staging.path().join("code")
    }

    /// The folder to keep; an empty one where nothing was installed.
    pub(super) fn result(&self, place: Place) -> io::Result<PathBuf> {
        let folder = match place {
            Place::Modules => self.code().join("node_modules"),
            Place::Code => self.code(),
            Place::Deps => self.staging.path().join("deps"),
        };
        if let Err(error) = fs::symlink_metadata(&folder) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            fs::create_dir(&folder)?;
        }
        Ok(folder)
    }

    pub(super) fn plan(&self, node: &Node, interpreter: &Interpreter, recipe: &Recipe) -> Plan {
        let is_reduced = node.mode == SandboxMode::Reduced;
        let path = |folder: &str| self.staging.path().join(folder);
        let target = |source: &Path, seen: &str| {
            if is_reduced {
                source.to_owned()
            } else {
                PathBuf::from(seen)
            }
        };
        let mut places = Vec::new();
        let mut binds = Vec::new();
        for (name, folder, seen) in FOLDERS {
            let source = path(folder);
            let target = target(&source, seen);
            places.push((name, target.display().to_string()));
            binds.push(bind(source, target, true));
        }
        if let Some(library) = &self.library {
            binds.push(bind(library.clone(), target(library, LIBRARY), false));
        }
        binds.extend(of_the_host(interpreter));
        let here = |text: &str| {
            places.iter().fold(text.to_owned(), |text, (name, place)| {
                text.replace(name, place)
            })
        };
        Plan {
            mode: node.mode,
            binds,
            reach: node.build_reach(),
            tmp_bytes_max: node.limits.builds.tmp_bytes_max,
            tmp_files_max: node.limits.builds.files_max,
            open_files_max: node.limits.builds.files_max,
            data_bytes_max: None,
            processes_max: None,
            // What a build takes is looked at from time to time only.
            may_reserve: false,
            envs: envs(node, interpreter, recipe, here),
            working_dir: PathBuf::from(here("@code")),
            program: Program::Execute {
                path: recipe.program.clone(),
                args: recipe.args.iter().map(|arg| here(arg)).collect(),
            },
        }
    }
}

fn bind(source: PathBuf, target: PathBuf, is_writable: bool) -> Bind {
    Bind {
        source,
        target,
        is_writable,
        may_be_link: false,
    }
}

/// What a build sees of the host beside `/usr`.
fn of_the_host(interpreter: &Interpreter) -> impl Iterator<Item = Bind> {
    // It may hold a password of a package index, so only builds see it.
    let pip = PathBuf::from(PIP_CONFIG);
    let pip = pip.exists().then_some(pip);
    let paths = interpreter.prefixes.iter().cloned().chain(pip);
    paths.map(|path| Bind {
        may_be_link: true,
        ..bind(path.clone(), path, false)
    })
}

fn envs(
    node: &Node,
    interpreter: &Interpreter,
    recipe: &Recipe,
    here: impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    let folder = interpreter
        .executable
        .parent()
        .unwrap_or(Path::new("/usr/bin"));
    let mut envs = vec![
        (
            "PATH".into(),
            format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display()),
        ),
        ("HOME".into(), here("@build/home")),
        ("TMPDIR".into(), here("@build/tmp")),
        ("LANG".into(), "C.UTF-8".into()),
    ];
    let trust = TRUST
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    envs.extend(trust);
    envs.extend(node.build_envs.iter().cloned());
    let own = recipe.envs.iter();
    let own: Vec<_> = own
        .map(|(name, value)| ((*name).to_owned(), here(value)))
        .collect();
    envs.retain(|(name, _)| own.iter().all(|(ours, _)| ours != name));
    envs.extend(own);
    envs
}
