//! Compiled code: made once for a module, kept on disk, mapped into memory.

use crate::compiler::Compiler;
use crate::engine::{Engines, Needs};
use faas::{Limits, PrepareError};
use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;
use tempfile::NamedTempFile;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, ResourcesRequired};

/// The kept results of compiling.
#[derive(Debug)]
pub(crate) struct Artifacts {
    folder: PathBuf,
    bytes_max: u64,
    free_bytes_min: u64,
    module_bytes_max: u64,
    compiler: Compiler,
    /// What tells this engine's code from that of another version or processor.
    compatibility: String,
    /// Modules are compiled one at a time: each takes every core and much memory. What is kept is
    /// used without a turn.
    turn: Mutex<()>,
}

/// Code that is ready to be linked.
#[derive(Debug)]
pub(crate) enum Code {
    Module(Module),
    Component(Component),
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Module,
    Component,
}

impl Kind {
    fn of(binary: &[u8]) -> Result<Self, PrepareError> {
        let refuse = |what: &str| {
            let fix = "build for wasm32-wasip1 or as a component of WASI 0.2";
            Err(PrepareError::code(format!("the file {what}"), fix))
        };
        match binary {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Self::Module),
            [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(Self::Component),
            [0, b'a', b's', b'm', ..] => refuse("is of a WebAssembly version that is not known"),
            _ => refuse("is not WebAssembly in its binary form"),
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Module => "module",
            Self::Component => "component",
        }
    }
}

impl Artifacts {
    /// Opens the folder and drops what another version of the engine left there.
    pub(crate) fn open(
        folder: PathBuf,
        engines: &Engines,
        compiler: Compiler,
        limits: &Limits,
    ) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;

        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder)?;
        let mut hasher = DefaultHasher::new();
        let engine = &engines.on_demand;
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let artifacts = Self {
            folder,
            bytes_max: limits.builds.cache_bytes_max,
            free_bytes_min: limits.wasm.free_bytes_min,
            module_bytes_max: limits.wasm.module_bytes_max,
            compiler,
            compatibility: format!("{:016x}", hasher.finish()),
            turn: Mutex::default(),
        };
        for entry in fs::read_dir(&artifacts.folder)? {
            let path = entry?.path();
            if !artifacts.is_ours(&path) {
                remove(&path);
            }
        }
        Ok(artifacts)
    }

    /// The code of a module, compiled where it is not kept. Takes long: not for the event loop.
    pub(crate) fn load(
        &self,
        engines: &Engines,
        file: &Path,
        memory_bytes_max: u64,
    ) -> Result<Code, PrepareError> {
        let host = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PrepareError::no_room(
                "the disk of the data directory has no room for the compiled module",
                "delete functions that are not needed, or free space on it",
            ),
            _ => PrepareError::host(
                format!("the module could not be read or kept: {error}"),
                "look at the disk of the data directory, then deploy again",
            ),
        };
        let bytes = fs::metadata(file).map_err(host)?.len();
        if bytes > self.module_bytes_max {
            let bytes_max = self.module_bytes_max;
            return Err(PrepareError::code(
                format!("the module has {bytes} bytes, and the most is {bytes_max}"),
                "build it with optimisation for size and without debug information",
            ));
        }
        let binary = fs::read(file).map_err(host)?;
        let kind = Kind::of(&binary)?;
        let path = self.path(&binary, kind);
        if let Some(code) = kept(engines, &path, kind, memory_bytes_max) {
            return Ok(code);
        }
        let _turn = self.turn.lock();
        // It may have been compiled while this waited.
        if let Some(code) = kept(engines, &path, kind, memory_bytes_max) {
            return Ok(code);
        }
        self.make_room(Some(&path)).map_err(host)?;
        let compiled = NamedTempFile::new_in(&self.folder).map_err(host)?;
        self.compiler.compile(file, compiled.as_file())?;
        self.keep(&path, compiled).map_err(host)?;
        map(engines, &path, kind, memory_bytes_max).map_err(|error| {
            let detail = format!("the module can't be run here: {error:#}");
            PrepareError::code(
                detail,
                "build it for wasm32-wasip1 or as a component of WASI 0.2",
            )
        })
    }

    fn path(&self, binary: &[u8], kind: Kind) -> PathBuf {
        let name = hex(&Sha256::digest(binary));
        let name = format!("{name}-{}.{}", self.compatibility, kind.extension());
        self.folder.join(name)
    }

    /// Whether it is a file that this engine compiled, or the checksum of one.
    fn is_ours(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.split('.').next());
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        is_file && stem.is_some_and(|stem| stem.ends_with(&self.compatibility))
    }

    /// Keeps a compiled file and its checksum, both whole and on the disk before they have their
    /// names.
    fn keep(&self, path: &Path, compiled: NamedTempFile) -> io::Result<()> {
        let sum = checksum(compiled.path())?;
        compiled.as_file().sync_all()?;
        let sum_file = NamedTempFile::new_in(&self.folder)?;
        fs::write(sum_file.path(), sum)?;
        sum_file.as_file().sync_all()?;
        // What stands there now differs from its checksum, or is no file at all.
        remove(&sum_path(path));
        remove(path);
        compiled.persist(path)?;
        sum_file.persist(sum_path(path))?;
        fs::File::open(&self.folder)?.sync_all()?;
        self.make_room(Some(path))
    }

    /// Drops the oldest files where there are too many bytes, or too few are left on the disk.
    /// What runs from a file that is dropped goes on.
    fn make_room(&self, spared: Option<&Path>) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort_by_key(|(_, metadata)| metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
        let mut bytes: u64 = files.iter().map(|(_, metadata)| metadata.len()).sum();
        for (old, metadata) in files {
            if bytes <= self.bytes_max && free_bytes(&self.folder)? >= self.free_bytes_min {
                break;
            }
            if Some(old.as_path()) != spared {
                remove(&sum_path(&old));
                remove(&old);
                bytes = bytes.saturating_sub(metadata.len());
            }
        }
        Ok(())
    }

    /// The compiled files, without their checksums.
    fn files(&self) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let path = entry.path();
            let is_sum = path.extension().is_some_and(|extension| extension == SUM);
            if metadata.is_file() && !is_sum {
                files.push((path, metadata));
            }
        }
        Ok(files)
    }
}

/// The extension of the file beside compiled code that has its SHA-256.
const SUM: &str = "sha256";

fn sum_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SUM);
    name.into()
}

fn checksum(path: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut file = fs::File::open(path)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        match io::Read::read(&mut file, &mut chunk)? {
            0 => return Ok(hex(&digest.finalize())),
            len => digest.update(&chunk[..len]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Removes what is in the way, whatever it is. Where that fails, it stays and is passed over.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_gone) => return,
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "could not be removed from the folder of compiled WebAssembly");
    }
}

/// Kept code whose content is what was compiled. Damaged code would end this process at its first
/// call, so it is compiled again.
fn kept(engines: &Engines, path: &Path, kind: Kind, memory_bytes_max: u64) -> Option<Code> {
    let expected = fs::read_to_string(sum_path(path)).ok()?;
    let found = checksum(path).ok()?;
    if found != expected {
        tracing::warn!(path = %path.display(), "kept code is damaged; it is compiled again");
        return None;
    }
    match map(engines, path, kind, memory_bytes_max) {
        Ok(code) => {
            // The time of the file says when it was last used; failing to set it costs order only.
            drop(fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now())));
            Some(code)
        }
        Err(error) => {
            tracing::warn!(%error, "kept code can't be mapped; it is compiled again");
            None
        }
    }
}

/// Maps kept code into the engine that can run it.
fn map(
    engines: &Engines,
    path: &Path,
    kind: Kind,
    memory_bytes_max: u64,
) -> wasmtime::Result<Code> {
    let code = open(&engines.on_demand, path, kind)?;
    let required = match &code {
        Code::Module(module) => Some(module.resources_required()),
        Code::Component(component) => component.resources_required(),
    };
    let Some(ResourcesRequired {
        num_memories,
        num_tables,
        ..
    }) = required
    else {
        return Ok(code);
    };
    let engine = engines.pick(Needs {
        memory_bytes_max,
        memories: num_memories,
        tables: num_tables,
    });
    if Engine::same(engine, &engines.on_demand) {
        return Ok(code);
    }
    // What is too large for a slot in another respect still runs, without one.
    Ok(open(engine, path, kind).unwrap_or(code))
}

#[expect(
    unsafe_code,
    reason = "compiled code is trusted by whoever maps it; no crate can check it"
)]
fn open(engine: &Engine, path: &Path, kind: Kind) -> wasmtime::Result<Code> {
    Ok(match kind {
        Kind::Module => {
            // SAFETY: the file is in a folder that only this user can write, was written whole by
            // `Artifacts::keep` from what the same engine compiled, and has its checksum; users
            // send modules, never code. Nothing changes a file there once it has its name.
            let module = unsafe { Module::deserialize_file(engine, path) };
            Code::Module(module?)
        }
        Kind::Component => {
            // SAFETY: as above.
            let component = unsafe { Component::deserialize_file(engine, path) };
            Code::Component(component?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas::WasmLimits;

    const SLOTS: WasmLimits = WasmLimits {
        instances_max: 16,
        slot_bytes_max: 32 << 20,
        module_bytes_max: 1 << 20,
        waiting_max: 1,
        stack_bytes_max: 512 << 10,
        memories_max: 4,
        tables_max: 8,
        table_entries_max: 64 << 10,
        core_instances_max: 16,
        free_bytes_min: 0,
    };

    #[test]
    fn what_fits_a_slot_is_run_in_the_pool_and_the_rest_outside() {
        let folder = tempfile::tempdir().unwrap();
        let engines = Engines::start(&SLOTS).unwrap();
        let pooled = engines.pooled.clone().unwrap();
        let check = |text: &str, memory_bytes_max: u64, is_pooled: bool| {
            let binary = wat::parse_str(text).unwrap();
            let kind = Kind::of(&binary).unwrap();
            let compiled = match kind {
                Kind::Module => engines.on_demand.precompile_module(&binary),
                Kind::Component => engines.on_demand.precompile_component(&binary),
            };
            let path = folder.path().join("compiled");
            fs::write(&path, compiled.unwrap()).unwrap();
            let code = map(&engines, &path, kind, memory_bytes_max).unwrap();
            let engine = match &code {
                Code::Module(module) => module.engine(),
                Code::Component(component) => component.engine(),
            };
            assert_eq!(Engine::same(engine, &pooled), is_pooled, "{text}");
            fs::remove_file(path).unwrap();
        };
        check("(module (memory 1))", 32 << 20, true);
        check("(module (memory 1))", 33 << 20, false);
        check("(module (memory 1) (memory 1))", 32 << 20, false);
        check("(component (core module (memory 1)))", 32 << 20, true);
    }

    #[test]
    fn the_oldest_code_goes_where_there_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let engines = Engines::start(&SLOTS).unwrap();
        let mut limits = Limits {
            wasm: SLOTS,
            ..Limits::default()
        };
        limits.builds.cache_bytes_max = 10;
        let compiler = Compiler::new("none".into(), &limits);
        let path = folder.path().to_owned();
        let artifacts = Artifacts::open(path, &engines, compiler, &limits).unwrap();
        for name in ["a", "b", "c"] {
            let compiled = NamedTempFile::new_in(folder.path()).unwrap();
            fs::write(compiled.path(), b"12345").unwrap();
            let path = folder.path().join(name);
            artifacts.keep(&path, compiled).unwrap();
        }
        assert_eq!(artifacts.files().unwrap().len(), 2);
        assert!(folder.path().join("c").exists());
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            4,
            "a checksum each"
        );
    }
}
