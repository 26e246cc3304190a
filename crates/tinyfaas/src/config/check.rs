//! Settings that can't work end the start, with the flag's name and what to write instead.

use super::{BackendName, Config};
use anyhow::{Result, bail};
use faas::Limits;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

impl Config {
    /// Refuses what can't work on this machine. What was not set may be missing: an interpreter that
    /// is looked for in PATH may be installed later.
    ///
    /// # Errors
    /// With the flag and what it takes.
    pub(crate) fn check(&self, limits: &Limits) -> Result<()> {
        if self.backend == BackendName::Process {
            let interpreters = [
                ("--nodejs", &self.nodejs),
                ("--python3", &self.python3),
                ("--go", &self.go),
            ];
            for (flag, path) in interpreters {
                path.as_deref()
                    .map_or(Ok(()), |path| executable(flag, path))?;
            }
        }
        if self.is_handlers_dir_named && !self.handlers_dir.is_dir() {
            let shown = self.handlers_dir.display();
            bail!("--handlers-dir must name a folder, got {shown}; make it, or leave the flag out");
        }
        self.check_ports(limits.host_ports_max)?;
        self.check_images()?;
        for host in &self.http_hosts {
            if host.contains(['/', ' ', '@']) {
                bail!("--http-hosts takes names such as node.example.org, or *, got {host:?}");
            }
        }
        Ok(())
    }

    fn check_ports(&self, ports_max: usize) -> Result<()> {
        let ports = &self.build_host_ports;
        if ports.contains(&0) {
            bail!("--build-host-ports takes ports from 1 to 65535, got 0");
        }
        if ports.len() > ports_max {
            let count = ports.len();
            bail!("--build-host-ports takes at most {ports_max} ports, got {count}");
        }
        Ok(())
    }

    fn check_images(&self) -> Result<()> {
        let images = [
            ("--image-nodejs", &self.images.nodejs),
            ("--image-python3", &self.images.python3),
            ("--image-go", &self.images.go),
            ("--image-binary", &self.images.binary),
        ];
        for (flag, image) in images {
            let Some(image) = image else { continue };
            if image.is_empty() || image.contains(char::is_whitespace) {
                bail!("{flag} takes the name of an image such as alpine:3, got {image:?}");
            }
        }
        Ok(())
    }
}

fn executable(flag: &str, path: &Path) -> Result<()> {
    let shown = path.display();
    let fix = "name the program, or leave the flag out for the first in PATH";
    let Some(found) = found(path) else {
        bail!("{flag} must name a program of this machine, and {shown} is not there; {fix}");
    };
    let looked = std::fs::metadata(&found);
    let can_run = looked.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    if !can_run {
        bail!("{flag} must name a program, and {shown} can't be executed; {fix}");
    }
    Ok(())
}

/// Where a program is: as it is named, or in PATH where only its name is.
fn found(path: &Path) -> Option<PathBuf> {
    let is_name = path.components().count() == 1 && path.is_relative();
    if !is_name {
        return path.exists().then(|| path.to_owned());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&folders).map(|folder| folder.join(path));
    places.find(|place| place.is_file())
}
