//! What the tests need beside Rust: interpreters, clients that others wrote.

use crate::command;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that the tests call and Debian's package that brings it.
const PROGRAMS: [(&str, &str); 12] = [
    ("coap-client-notls", "libcoap3-bin"),
    ("curl", "curl"),
    ("docker-compose", "docker-compose"),
    ("go", "golang-go"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("openssl", "openssl"),
    ("prlimit", "util-linux"),
    ("python3", "python3"),
    ("strace", "strace"),
    ("zip", "zip"),
    ("git", "git"),
];

/// Where the installed clients are.
#[derive(Debug)]
pub(crate) struct Tools {
    /// A Python with the packages of `tests/e2e/clients/requirements.txt`.
    pub(crate) python: PathBuf,
    /// The program of the npm package coap-cli.
    pub(crate) coap_cli: PathBuf,
}

/// Installs what is missing; quick where nothing is.
///
/// # Errors
/// If something is missing that can't be installed here; the text tells what to install.
pub(crate) fn install() -> Result<Tools> {
    install_packages(missing_packages)?;
    let clients = crate::root()?.join("tests/e2e/clients");
    let tools = crate::target_dir()?.join("test-tools");
    fs::create_dir_all(&tools)?;
    Ok(Tools {
        python: install_venv(&clients.join("requirements.txt"), &tools.join("venv"))?,
        coap_cli: install_coap_cli(&clients.join("package.json"), &tools.join("node"))?,
    })
}

/// What `cargo xtask bench` calls beside that.
const BENCH_PROGRAMS: [(&str, &str); 5] = [
    ("wrk", "wrk"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("git", "git"),
];
/// What counts instructions.
const COUNTING_PROGRAMS: [(&str, &str); 1] = [("valgrind", "valgrind")];

/// Installs what is missing for measuring.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_for_bench() -> Result<()> {
    install_programs(&BENCH_PROGRAMS)
}

/// Installs what is missing for counting instructions.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_for_counting() -> Result<()> {
    install_programs(&COUNTING_PROGRAMS)
}

/// What a Docker engine and its base images are made with.
const DOCKER_PROGRAMS: [(&str, &str); 5] = [
    ("dockerd", "docker.io"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("debootstrap", "debootstrap"),
    ("go", "golang-go"),
];

/// Installs what is missing for a Docker engine.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_for_docker() -> Result<()> {
    install_programs(&DOCKER_PROGRAMS)
}

/// What a machine is made with and emulated by.
const VM_PROGRAMS: [(&str, &str); 6] = [
    ("debootstrap", "debootstrap"),
    ("go", "golang-go"),
    ("mke2fs", "e2fsprogs"),
    ("npm", "npm"),
    ("strip", "binutils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// Installs what is missing for the emulated machine.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_for_vm() -> Result<()> {
    install_programs(&VM_PROGRAMS)
}

/// Installs what is missing for random input: its driver is C++.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_for_fuzz() -> Result<()> {
    install_programs(&[("c++", "g++")])
}

fn install_programs(programs: &[(&'static str, &'static str)]) -> Result<()> {
    install_packages(|| packages_of_missing(programs))
}

fn packages_of_missing(programs: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    let missing = programs
        .iter()
        .filter(|(program, _)| !command::is_there(program));
    missing.map(|(_, package)| *package).collect()
}

fn missing_packages() -> Vec<&'static str> {
    let mut packages = packages_of_missing(&PROGRAMS);
    let mut venv = Command::new("python3");
    venv.args(["-c", "import ensurepip, venv"]);
    if command::output(&mut venv).is_err() {
        packages.push("python3-venv");
    }
    packages
}

/// Installs what `missing` names, and asks it again whether that was enough.
fn install_packages(missing: impl Fn() -> Vec<&'static str>) -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    if !command::is_there("apt-get") {
        bail!(
            "programs are missing on this machine; install them (Debian's packages are called \
             {wanted}) and try again"
        );
    }
    let prefix: &[&str] = match command::output(Command::new("id").arg("-u"))?.trim() {
        "0" => &[],
        _ if can_sudo() => &["sudo", "-n"],
        _ => bail!(
            "the tests need packages; install them and try again: sudo apt-get install {wanted}"
        ),
    };
    let apt = |words: &[&str]| {
        let environment = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        let words = prefix.iter().chain(&environment).chain(words);
        let mut words = words.copied();
        let mut command = Command::new(words.next().unwrap_or("env"));
        command.args(words);
        command
    };
    command::run(&mut apt(&["update"]))?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&packages);
    command::run(&mut apt(&install)).with_context(|| format!("install {wanted}"))?;
    let missing = missing();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        bail!("{missing} did not bring the programs that the tests need; install them by hand");
    }
    Ok(())
}

fn can_sudo() -> bool {
    command::output(Command::new("sudo").args(["-n", "true"])).is_ok()
}

/// Makes a virtual environment with the requirements, unless it is there with the same.
fn install_venv(requirements: &Path, venv: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    let stamp = venv.join("installed-requirements.txt");
    if is_same(requirements, &stamp) && command::output(Command::new(&python).arg("-V")).is_ok() {
        return Ok(python);
    }
    let make = ["-m", "venv", "--clear"];
    command::run(Command::new("python3").args(make).arg(venv))?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    let mut pip = Command::new(&python);
    pip.args(install).arg("-r").arg(requirements);
    command::run(&mut pip).context("install the Python clients")?;
    fs::copy(requirements, stamp)?;
    Ok(python)
}

/// Installs coap-cli, unless it is there in the same version.
fn install_coap_cli(package: &Path, folder: &Path) -> Result<PathBuf> {
    let program = folder.join("node_modules/.bin/coap");
    let stamp = folder.join("installed-package.json");
    if is_same(package, &stamp) && program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(folder)?;
    fs::copy(package, folder.join("package.json"))?;
    let install = ["install", "--no-audit", "--no-fund", "--no-update-notifier"];
    let mut npm = Command::new("npm");
    npm.args(install).current_dir(folder);
    command::run(&mut npm).context("install coap-cli")?;
    fs::copy(package, stamp)?;
    Ok(program)
}

fn is_same(wanted: &Path, installed: &Path) -> bool {
    match (fs::read(wanted), fs::read(installed)) {
        (Ok(wanted), Ok(installed)) => wanted == installed,
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}
