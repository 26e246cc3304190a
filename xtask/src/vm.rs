//! `cargo xtask test --vm`: the checks of `tests/vm` on a machine like the users'.
//!
//! Debian 12 with its own kernel (cgroup version 2, an old Landlock) and systemd, emulated without
//! acceleration, so that it runs wherever the tests do. It has no network. What it reports comes over
//! a serial port into a file of this machine, which no power cut reaches.

use crate::command::{self, cargo};
use crate::count::Count;
use crate::docker::{copy_go, mirror, program};
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The release of Debian, and what it has beside the smallest base.
const RELEASE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,\
                        linux-image-cloud-amd64,e2fsprogs,iproute2,\
                        python3,python3-pip,nodejs";
/// Debian's npm consists of more packages than all the rest; this is one for its Node.js.
const NPM: &str = "npm@10";
/// Nobody needs what is installed here after a power cut of this machine, nor reads manuals.
const DPKG_OPTIONS: &str = "force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
";
/// Changes with what is done to the base after its packages are there.
const RECIPE: &str = "1";

const IMAGE_SIZE: &str = "3000M";
const MEMORY: &str = "1536";
/// Room for what earlier boots reported, which the machine reads.
const EARLIER_BYTES: usize = 1 << 20;

/// How long one boot may take before it counts as hanging.
const BOOT: Duration = Duration::from_secs(1200);
/// How often the power is cut.
const CUTS: usize = 3;
/// The power is cut so long after the checks of a boot at most, while functions are deployed.
const CUT_MS_MAX: u64 = 15_000;

/// Installs what the machine is made with.
///
/// # Errors
/// If it can't be made here; the text tells why.
pub(crate) fn get_ready() -> Result<()> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "it is emulated on x86_64 only"
    );
    let user = command::output(Command::new("id").arg("-u"))?;
    ensure!(user.trim() == "0", "only root can make its file system");
    tools::install_for_vm()?;
    mirror(RELEASE).map(drop)
}

/// Makes the machine, runs every stage and counts the checks.
///
/// # Errors
/// If the machine can't be made or does not report its end.
pub(crate) fn test() -> Result<Count> {
    let begun = Instant::now();
    let folder = crate::target_dir()?.join("vm");
    let base = base(&folder)?;
    install(&base)?;
    let machine = Machine::make(&folder, &base)?;
    println!("the machine is made: {} s", begun.elapsed().as_secs());
    let mut count = Count::default();
    let mut boot = |stage, is_cut| -> Result<()> {
        let begun = Instant::now();
        count += machine.boot(stage, is_cut)?;
        println!("stage {stage}: {} s", begun.elapsed().as_secs());
        Ok(())
    };
    boot("first", false)?;
    boot("reboot", true)?;
    for _ in 1..CUTS {
        boot("cut", true)?;
    }
    boot("last", false)?;
    let seconds = begun.elapsed().as_secs();
    println!("the machine's checks took {seconds} s");
    Ok(count)
}

/// The base system, kept until its recipe changes.
fn base(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    let stamp = folder.join("recipe");
    let recipe = format!("{RELEASE} {PACKAGES} {NPM} {RECIPE}");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        return Ok(root);
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let options = root.join("etc/dpkg/dpkg.cfg.d");
    fs::create_dir_all(&options)?;
    fs::write(options.join("fast"), DPKG_OPTIONS)?;
    println!("debootstrap {RELEASE}");
    let mut debootstrap = program("debootstrap");
    debootstrap.args([
        "--variant=minbase",
        &format!("--include={PACKAGES}"),
        RELEASE,
    ]);
    // What it prints names the mirror.
    let made = command::output(debootstrap.arg(&root).arg(mirror(RELEASE)?));
    made.context("debootstrap")?;
    for folder in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        fs::remove_dir_all(root.join(folder))?;
        fs::create_dir_all(root.join(folder))?;
    }
    add_package_managers(&root)?;
    let mut user = program("chroot");
    user.arg(&root);
    command::output(user.args(["useradd", "--create-home", "--uid", "1000", "edge"]))?;
    fs::create_dir_all(root.join("var/lib/systemd/linger"))?;
    File::create(root.join("var/lib/systemd/linger/edge"))?;
    fs::write(root.join("etc/fstab"), "/dev/vda / ext4 rw 0 1\n")?;
    fs::write(root.join("etc/hostname"), "edge-box\n")?;
    // As small systems have it, `localhost` is not in it.
    fs::write(root.join("etc/hosts"), "127.0.1.1 edge-box\n")?;
    fs::write(stamp, recipe)?;
    Ok(root)
}

/// npm, and this machine's Go.
fn add_package_managers(root: &Path) -> Result<()> {
    let local = root.join("usr/local");
    let mut npm = program("npm");
    npm.args(["install", "--global", "--no-audit", "--no-fund", NPM]);
    command::output(npm.arg("--prefix").arg(&local)).context("install npm")?;
    copy_go(root)?;
    symlink("../go/bin/go", local.join("bin/go"))?;
    Ok(())
}

/// Builds the programs, and brings them, the checks and their units into the base.
fn install(base: &Path) -> Result<()> {
    let opt = base.join("opt/vm");
    if opt.exists() {
        fs::remove_dir_all(&opt)?;
    }
    fs::create_dir_all(&opt)?;
    let tests = crate::root()?.join("tests/vm");
    for script in ["checks.py", "container.sh"] {
        let installed = opt.join(script);
        fs::copy(tests.join(script), &installed)?;
        fs::set_permissions(installed, fs::Permissions::from_mode(0o755))?;
    }
    let units = base.join("etc/systemd/system");
    for entry in fs::read_dir(tests.join("units"))? {
        let entry = entry?;
        let is_users = entry.file_name() == "tinyfaas-user.service";
        let users = base.join("etc/systemd/user");
        let folder = if is_users { &users } else { &units };
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    let wanted = units.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    for unit in ["vm-checks.service", "tinyfaas.service"] {
        let link = wanted.join(unit);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..").join(unit), link)?;
        }
    }
    let (program, escape) = build()?;
    for (built, name) in [(program, "tinyfaas"), (escape, "escape")] {
        let mut strip = Command::new("strip");
        command::output(strip.arg("-o").arg(opt.join(name)).arg(built))?;
    }
    Ok(())
}

/// The program and the escape tests, built as for the other tests, so that it is quick after them.
fn build() -> Result<(PathBuf, PathBuf)> {
    let root = crate::root()?;
    let mut all = cargo(&root, &["build", "--workspace", "--bins", "--tests"]);
    command::run(&mut all)?;
    let words = [
        "build",
        "--workspace",
        "--bins",
        "--tests",
        "--message-format",
        "json",
    ];
    let told = command::output(&mut cargo(&root, &words))?;
    let escape = told.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "escape";
        let path = message["executable"].as_str().filter(|_| is_it)?;
        Some(PathBuf::from(path))
    });
    let program = crate::target_dir()?.join("debug/tinyfaas");
    Ok((program, escape.context("cargo names no test program")?))
}

/// The machine's disk and what it is booted with.
struct Machine {
    image: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    console: PathBuf,
    /// What every boot so far reported.
    reported: PathBuf,
    /// The same, as a disk of the next boot.
    earlier: PathBuf,
}

impl Machine {
    fn make(folder: &Path, base: &Path) -> Result<Self> {
        let image = folder.join("disk.img");
        if image.exists() {
            fs::remove_file(&image)?;
        }
        let mut mke2fs = program("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(base);
        command::output(mke2fs.arg(&image).arg(IMAGE_SIZE))?;
        let machine = Self {
            image,
            kernel: boot_file(base, "vmlinuz-")?,
            initrd: boot_file(base, "initrd.img-")?,
            console: folder.join("console.txt"),
            reported: folder.join("reported.txt"),
            earlier: folder.join("earlier.img"),
        };
        fs::write(&machine.reported, "")?;
        Ok(machine)
    }

    /// Boots into a stage. Cuts the power at some moment after its checks, or waits until the
    /// machine turns itself off.
    fn boot(&self, stage: &str, is_cut: bool) -> Result<Count> {
        let mut earlier = fs::read(&self.reported)?;
        earlier.resize(EARLIER_BYTES.max(earlier.len().next_multiple_of(512)), b' ');
        fs::write(&self.earlier, earlier)?;
        let before = fs::read_to_string(&self.reported)?.len();
        let mut running = Running(self.start(stage)?);
        let begun = Instant::now();
        let ended = format!("end {stage}");
        let mut cut_at = None;
        loop {
            let has_ended = running.0.try_wait()?.is_some();
            let text = fs::read_to_string(&self.reported)?;
            let reported = text.get(before..).unwrap_or_default();
            let is_checked = reported.lines().any(|line| line == ended);
            let has_deployed = reported.contains("\nacknowledged ");
            if is_cut && is_checked && has_deployed && cut_at.is_none() {
                let random = RandomState::new().hash_one(before) % CUT_MS_MAX;
                cut_at = Some(Instant::now() + Duration::from_millis(random));
            }
            let is_over = cut_at.map_or(has_ended, |at| Instant::now() >= at);
            if is_over && is_checked {
                return Ok(counted(reported));
            }
            if has_ended || begun.elapsed() > BOOT {
                print!("{reported}");
                let console = self.console.display();
                bail!("the machine did not report the end of {stage}; its console is in {console}");
            }
            pause(&mut running.0);
        }
    }

    fn start(&self, stage: &str) -> Result<Child> {
        let file = |path: &Path| path.display().to_string();
        let mut qemu = program("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
        qemu.args([
            "-m",
            MEMORY,
            "-display",
            "none",
            "-no-reboot",
            "-nic",
            "none",
        ]);
        qemu.arg("-kernel").arg(&self.kernel);
        qemu.arg("-initrd").arg(&self.initrd);
        // The cache of the disk is that of this machine: killing the emulator loses what the
        // machine has not written out, and keeps the rest.
        let disk = |path, more| format!("file={},format=raw,if=virtio,{more}", file(path));
        qemu.args([
            "-drive",
            &disk(&self.image, "cache=writeback,werror=report"),
        ]);
        qemu.args(["-drive", &disk(&self.earlier, "readonly=on")]);
        qemu.args(["-serial", &format!("file:{}", file(&self.console))]);
        let port = format!("file,id=host,append=on,path={}", file(&self.reported));
        qemu.args(["-chardev", &port, "-serial", "chardev:host"]);
        let line = format!("root=/dev/vda rw console=ttyS0 panic=-1 quiet stage={stage}");
        qemu.args(["-append", &line]);
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        qemu.spawn().context("start qemu-system-x86_64")
    }
}

/// The emulator, killed when this is dropped: that cuts the machine's power.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits a moment, or less where the emulator ends.
fn pause(emulator: &mut Child) {
    let _still_running = emulator.try_wait();
    let mut sleep = Command::new("sleep");
    drop(sleep.arg("0.1").status());
}

fn boot_file(base: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(base.join("boot"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("the base has no {prefix} in /boot")
}

/// Counts and shows the lines `ok NAME` and `failed NAME: WHY`.
fn counted(reported: &str) -> Count {
    let mut count = Count::default();
    for line in reported.lines().map(str::trim_end) {
        match line.split_once(' ') {
            Some(("ok", _)) => count.passed += 1,
            Some(("failed", _)) => count.failed += 1,
            Some(_) | None => continue,
        }
        println!("vm: {line}");
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_check_and_other_lines_are_none() {
        let reported = "ok a\nfailed b: why\nacknowledged x 7 .\nok c\r\nend first\n";
        let expected = Count {
            passed: 2,
            failed: 1,
        };
        assert_eq!(counted(reported), expected);
    }
}
