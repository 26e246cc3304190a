//! Compiled code: made once for a module, kept on disk, mapped into memory.
//!
//! Where the disk has no room, or takes no writes, it is kept in memory for as long as a function
//! uses it.

mod folder;
mod memory;

use crate::compiler::{CompileError, Compiler};
use crate::engine::{Engines, Needs};
use faas::{Limits, PrepareError};
use folder::{Bounds, Folder, Kept};
use memory::{InMemory, Room};
use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, ResourcesRequired};

/// The results of compiling.
#[derive(Debug)]
pub(crate) struct Artifacts {
    folder: Folder,
    room: Room,
    in_memory: Mutex<HashMap<String, Weak<InMemory>>>,
    module_bytes_max: u64,
    compiled_bytes_max: u64,
    compiler: Compiler,
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

/// Where the code of a function lies; it stays there while something holds this.
#[derive(Debug, Clone)]
pub(crate) struct Place(Lies);

#[derive(Debug, Clone)]
enum Lies {
    OnDisk(Arc<Kept>),
    InMemory(Arc<InMemory>),
}

/// What code lies in memory, and what may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
}

/// What is to be loaded.
struct Wanted<'a> {
    engines: &'a Engines,
    file: &'a Path,
    kind: Kind,
    /// The name of what is compiled from it.
    name: String,
    memory_bytes_max: u64,
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

impl Place {
    fn path(&self) -> PathBuf {
        match &self.0 {
            Lies::OnDisk(kept) => kept.path.clone(),
            Lies::InMemory(held) => held.path(),
        }
    }

    /// Whether the code is lost with this process.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.0, Lies::InMemory(_))
    }
}

impl Artifacts {
    /// Opens the folder. Where it can't be used, code is kept in memory.
    pub(crate) fn open(
        folder: PathBuf,
        engines: &Engines,
        compiler: Compiler,
        limits: &Limits,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        let engine = &engines.on_demand;
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let bounds = Bounds {
            bytes_max: limits.builds.cache_bytes_max,
            free_bytes_min: limits.wasm.free_bytes_min,
            spared_after_start: limits.builds.spared_after_start,
        };
        Self {
            folder: Folder::open(folder, format!("{:016x}", hasher.finish()), bounds),
            room: Room::new(limits.wasm.code_in_memory_bytes_max),
            in_memory: Mutex::default(),
            module_bytes_max: limits.wasm.module_bytes_max,
            compiled_bytes_max: limits.builds.bytes_max,
            compiler,
            turn: Mutex::default(),
        }
    }

    pub(crate) fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            bytes: self.room.bytes_taken(),
            bytes_max: self.room.bytes_max(),
        }
    }

    /// The code of a module, compiled where it is not kept. Takes long: not for the event loop.
    pub(crate) fn load(
        &self,
        engines: &Engines,
        file: &Path,
        memory_bytes_max: u64,
    ) -> Result<(Code, Place), PrepareError> {
        let (name, kind) = self.identify(file)?;
        let wanted = Wanted {
            engines,
            file,
            kind,
            name,
            memory_bytes_max,
        };
        // It is claimed before it is looked at: what makes room for others passes over it.
        let kept = self.folder.claim(&wanted.name);
        if let Some(code) = wanted.kept(&kept) {
            return Ok((code, Place(Lies::OnDisk(kept))));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been compiled while this waited.
        if let Some(code) = wanted.kept(&kept) {
            return Ok((code, Place(Lies::OnDisk(kept))));
        }
        let place = match self.held(&wanted.name) {
            Some(held) => self.move_to_disk(kept, held),
            None => self.compile(&wanted, kept)?,
        };
        let code = wanted.map(&place.path());
        let code = code.map_err(|error| {
            PrepareError::code(
                format!("the module can't be run here: {error:#}"),
                "build it for wasm32-wasip1 or as a component of WASI 0.2",
            )
        })?;
        Ok((code, place))
    }

    /// The name of what is compiled from a file, and what the file is.
    fn identify(&self, file: &Path) -> Result<(String, Kind), PrepareError> {
        let unread = |error: io::Error| {
            PrepareError::host(
                format!("the module could not be read: {error}"),
                "look at the disk of the data directory, then deploy again",
            )
        };
        let bytes = fs::metadata(file).map_err(unread)?.len();
        if bytes > self.module_bytes_max {
            let bytes_max = self.module_bytes_max;
            return Err(PrepareError::code(
                format!("the module has {bytes} bytes, and the most is {bytes_max}"),
                "build it with optimisation for size and without debug information",
            ));
        }
        let binary = fs::read(file).map_err(unread)?;
        let kind = Kind::of(&binary)?;
        Ok((self.folder.name(&binary, kind.extension()), kind))
    }

    /// Compiles to the disk; where that has no room, into memory.
    fn compile(&self, wanted: &Wanted<'_>, kept: Arc<Kept>) -> Result<Place, PrepareError> {
        match self.compile_to_disk(wanted, &kept) {
            Ok(()) => Ok(Place(Lies::OnDisk(kept))),
            Err(CompileError::Refused(error)) => Err(error),
            Err(CompileError::TooLarge) => Err(too_large(self.compiled_bytes_max)),
            Err(CompileError::Output(reason)) => {
                tracing::warn!(
                    %reason,
                    fix = "free space on the disk of the data directory, and see that it is writable",
                    "compiled WebAssembly is kept in memory only, and compiled again at every start"
                );
                let held = self.compile_to_memory(wanted)?;
                Ok(Place(Lies::InMemory(held)))
            }
        }
    }

    fn compile_to_disk(&self, wanted: &Wanted<'_>, kept: &Kept) -> Result<(), CompileError> {
        let output = |error: io::Error| CompileError::Output(error.to_string());
        if !self.folder.make_room().map_err(output)? {
            return Err(CompileError::Output("the disk is nearly full".to_owned()));
        }
        let compiled = self.folder.temporary().map_err(output)?;
        let bytes_max = self.compiled_bytes_max;
        let into = compiled.as_file();
        self.compiler.compile(wanted.file, into, bytes_max)?;
        self.folder.keep(&kept.path, compiled).map_err(output)?;
        // It is kept; what more there is to drop goes with the next.
        drop(self.folder.make_room());
        Ok(())
    }

    fn compile_to_memory(&self, wanted: &Wanted<'_>) -> Result<Arc<InMemory>, PrepareError> {
        let output = |reason: String| {
            PrepareError::host(
                format!("the compiled module could not be kept: {reason}"),
                "look at the disk and the memory of this machine, then deploy again",
            )
        };
        let file = memory::file().map_err(|error| output(error.to_string()))?;
        let compiled = self
            .compiler
            .compile(wanted.file, &file, self.room.bytes_left());
        compiled.map_err(|error| match error {
            CompileError::Refused(error) => error,
            CompileError::TooLarge => self.no_room(),
            CompileError::Output(reason) => output(reason),
        })?;
        let held = self.room.hold(file);
        let held = Arc::new(held.map_err(|error| output(error.to_string()))?);
        let mut in_memory = self.in_memory();
        in_memory.retain(|_, held| held.strong_count() > 0);
        in_memory.insert(wanted.name.clone(), Arc::downgrade(&held));
        Ok(held)
    }

    fn no_room(&self) -> PrepareError {
        let mib = self.room.bytes_max() >> 20;
        PrepareError::no_room(
            format!(
                "the disk of the data directory has no room for the compiled module, and all that \
                 is compiled in memory may take {mib} MiB"
            ),
            "delete functions that are not needed, or free space on the disk",
        )
    }

    fn in_memory(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<InMemory>>> {
        self.in_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What was compiled into memory for a function that still uses it.
    fn held(&self, name: &str) -> Option<Arc<InMemory>> {
        self.in_memory().get(name).and_then(Weak::upgrade)
    }

    /// Where the disk has room by now, it has the code from now on.
    fn move_to_disk(&self, kept: Arc<Kept>, held: Arc<InMemory>) -> Place {
        let copy = || -> io::Result<bool> {
            if !self.folder.make_room()? {
                return Ok(false);
            }
            let file = self.folder.temporary()?;
            held.copy_to(file.as_file())?;
            self.folder.keep(&kept.path, file)?;
            Ok(true)
        };
        match copy() {
            Ok(true) => Place(Lies::OnDisk(kept)),
            Ok(false) | Err(_) => Place(Lies::InMemory(held)),
        }
    }
}

fn too_large(bytes_max: u64) -> PrepareError {
    PrepareError::code(
        format!(
            "the compiled module takes more than {} MiB",
            bytes_max >> 20
        ),
        "build it with optimisation for size, or split it",
    )
}

impl Wanted<'_> {
    /// Kept code whose content is what was compiled. Damaged code would end this process at its
    /// first call, so it is compiled again.
    fn kept(&self, kept: &Kept) -> Option<Code> {
        if !folder::is_whole(&kept.path) {
            return None;
        }
        match self.map(&kept.path) {
            Ok(code) => {
                folder::touch(&kept.path);
                Some(code)
            }
            Err(error) => {
                tracing::warn!(%error, "kept code can't be mapped; it is compiled again");
                None
            }
        }
    }

    /// Maps compiled code into the engine that can run it.
    fn map(&self, path: &Path) -> wasmtime::Result<Code> {
        let engines = self.engines;
        let code = open(&engines.on_demand, path, self.kind)?;
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
            memory_bytes_max: self.memory_bytes_max,
            memories: num_memories,
            tables: num_tables,
        });
        if Engine::same(engine, &engines.on_demand) {
            return Ok(code);
        }
        // What is too large for a slot in another respect still runs, without one.
        Ok(open(engine, path, self.kind).unwrap_or(code))
    }
}

#[expect(
    unsafe_code,
    reason = "compiled code is trusted by whoever maps it; no crate can check it"
)]
fn open(engine: &Engine, path: &Path, kind: Kind) -> wasmtime::Result<Code> {
    Ok(match kind {
        Kind::Module => {
            // SAFETY: the file is in a folder that only this user can write, was written whole by
            // `Folder::keep` from what the same engine compiled, and has its checksum; or it lies
            // in memory, sealed after the same engine wrote it. Users send modules, never code.
            // Nothing changes a file there once it has its name.
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
        code_in_memory_bytes_max: 1 << 20,
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
            let wanted = Wanted {
                engines: &engines,
                file: &path,
                kind,
                name: String::new(),
                memory_bytes_max,
            };
            let code = wanted.map(&path).unwrap();
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
}
