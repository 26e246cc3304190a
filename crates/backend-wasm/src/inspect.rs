//! What a module is, told before it is compiled: how it is called, and what it wants in vain.

use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

/// The export of a WASI preview 1 command.
pub(crate) const START: &str = "_start";
/// What a refused module is compared with.
const EXPECTED: &str = "a function is a WASI preview 1 command (a module that exports _start), a \
                        command of WASI 0.2 (a component that exports wasi:cli/run), a wasi:http \
                        0.2 proxy (a component that exports wasi:http/incoming-handler) or a \
                        component that exports tinyfaas:function/handler@0.1.0";
/// The interfaces of WASI 0.2 that components may import.
const OFFERED: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];
/// What core modules may import from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// What modules use that the engine does not run, with what to do.
const NOT_RUN: [(WasmFeatures, &str); 5] = [
    (
        WasmFeatures::LEGACY_EXCEPTIONS,
        "uses exceptions in their legacy form; build it with the standard form (clang and \
         Emscripten: -mllvm -wasm-use-legacy-eh=false) or without exceptions",
    ),
    (
        WasmFeatures::THREADS,
        "uses threads (shared memory or atomic instructions); build it without them, for \
         wasm32-wasip1 or wasm32-wasip2",
    ),
    (
        WasmFeatures::SHARED_EVERYTHING_THREADS,
        "uses threads (shared types); build it without them, for wasm32-wasip1 or wasm32-wasip2",
    ),
    (
        WasmFeatures::STACK_SWITCHING,
        "uses stack switching; build it without that",
    ),
    (
        WasmFeatures::CM_ASYNC,
        "uses the asynchronous calls of WASI 0.3; build it for WASI 0.2 (wasm32-wasip2)",
    ),
];

/// The names at the outside of a module or component.
#[derive(Debug, Default)]
struct Outside {
    is_component: bool,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Checks that the module can be called and imports only what is offered.
///
/// # Errors
/// What it is and what to do, for whoever deploys it.
pub(crate) fn check(binary: &[u8]) -> Result<(), String> {
    let outside = outside(binary).map_err(|error| invalid(&error))?;
    let versions = outside.imports.iter().chain(&outside.exports);
    if let Some(name) = versions.into_iter().find(|name| is_of_wasi_3(name)) {
        return Err(format!(
            "the component wants {name} of WASI 0.3; build it for WASI 0.2 (wasm32-wasip2)"
        ));
    }
    let wrong = match outside.is_component {
        true => outside
            .imports
            .iter()
            .find_map(|name| wrong_interface(name)),
        false => outside.imports.iter().find_map(|name| wrong_import(name)),
    };
    match wrong {
        Some(wrong) => Err(wrong),
        None if is_called(&outside) => Ok(()),
        None => Err(not_called(&outside)),
    }
}

/// Why the compiler refused a module: what it uses, where that is known.
pub(crate) fn why_refused(binary: &[u8], error: &wasmtime::Error) -> String {
    let is_valid = |features| {
        let mut validator = Validator::new_with_features(features);
        validator.validate_all(binary).is_ok()
    };
    let all = WasmFeatures::all();
    if !is_valid(all) {
        return invalid(error);
    }
    let used = NOT_RUN
        .iter()
        .find(|(feature, _)| !is_valid(all - *feature));
    match used {
        Some((_, text)) => format!("the module {text}"),
        None => format!(
            "the module uses what this engine does not run: {error:#}; build it for WASI 0.2 \
             (wasm32-wasip2) or preview 1 (wasm32-wasip1)"
        ),
    }
}

fn invalid(error: &impl std::fmt::Display) -> String {
    format!("the module is not valid WebAssembly: {error:#}; build it again and send it whole")
}

fn outside(binary: &[u8]) -> wasmparser::Result<Outside> {
    let mut outside = Outside::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(binary) {
        match payload? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 {
                    outside.is_component = encoding == Encoding::Component;
                }
            }
            Payload::End(_) => depth -= 1,
            _ if depth != 1 => {}
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    outside
                        .imports
                        .push(format!("{}::{}", import.module, import.name));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    outside.exports.push(export?.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    outside.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    outside.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(outside)
}

fn is_of_wasi_3(name: &str) -> bool {
    name.starts_with("wasi:") && name.contains("@0.3")
}

/// What is wrong with an import of a component.
fn wrong_interface(name: &str) -> Option<String> {
    let is_wasi = name.starts_with("wasi:");
    if !is_wasi || OFFERED.iter().any(|offered| name.starts_with(offered)) {
        // Types of its own and the like are for the linker to find.
        return None;
    }
    let package = name.split(['/', '@']).next().unwrap_or(name);
    Some(format!(
        "the component imports {name}, and {package} is not offered to functions; they may import \
         wasi:cli, wasi:clocks, wasi:http, wasi:io and wasi:random of WASI 0.2"
    ))
}

/// What is wrong with an import of a core module.
fn wrong_import(import: &str) -> Option<String> {
    let (module, name) = import.split_once("::").unwrap_or((import, ""));
    if module == PREVIEW_1 {
        return None;
    }
    let fix = match (module, name) {
        ("wasi", "thread-spawn") | ("env", "memory") => {
            "it is built with threads; build it without them, for wasm32-wasip1"
        }
        ("wasi_unstable", _) => "it is built for an early draft of WASI; use a newer compiler",
        ("wbg" | "__wbindgen_placeholder__", _) => {
            "it is built for browsers (wasm-bindgen); build it for wasm32-wasip1"
        }
        ("go" | "gojs", _) => "it is built for browsers; build it with GOOS=wasip1 GOARCH=wasm",
        _ => "functions may import wasi_snapshot_preview1 and nothing else",
    };
    Some(format!(
        "the module imports {import}, which is not offered: {fix}"
    ))
}

fn is_called(outside: &Outside) -> bool {
    let exports = |start: &str| outside.exports.iter().any(|name| name.starts_with(start));
    if outside.is_component {
        exports(crate::component::own::EXPORT)
            || exports(crate::component::http::EXPORT)
            || exports(crate::component::command::EXPORT)
    } else {
        outside.exports.iter().any(|name| name == START)
    }
}

fn not_called(outside: &Outside) -> String {
    /// Names that are shown of what a refused module exports.
    const SHOWN_MAX: usize = 8;
    let what = if outside.is_component {
        "component"
    } else {
        "module"
    };
    let shown = outside.exports.iter().take(SHOWN_MAX);
    let shown: Vec<String> = shown.map(|name| name.chars().take(80).collect()).collect();
    let found = match shown[..] {
        [] => "nothing".to_owned(),
        _ => shown.join(", "),
    };
    format!("this {what} exports {found}; {EXPECTED}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let binary = wat::parse_str(text).unwrap();
        let engine = crate::engine::compiler(&faas::WasmLimits::default()).unwrap();
        match check(&binary) {
            Err(text) => text,
            Ok(()) => match engine.precompile_module(&binary) {
                Ok(_) => "it runs".to_owned(),
                Err(error) => why_refused(&binary, &error),
            },
        }
    }

    #[test]
    fn a_module_that_can_not_run_is_told_what_it_is() {
        let check = |text: &str, words: &str| {
            let told = told(text);
            assert!(told.contains(words), "{words:?} in {told:?}");
        };
        let start = r#"(func (export "_start"))"#;
        check(&format!("(module {start})"), "it runs");
        check(
            &format!(r#"(module (import "env" "memory" (memory 1 2 shared)) {start})"#),
            "threads",
        );
        check(&format!("(module (memory 1 2 shared) {start})"), "threads");
        check(
            &format!("(module (tag $t) (func try nop catch $t nop end) {start})"),
            "legacy form",
        );
        check(
            &format!(r#"(module (import "wasi_unstable" "fd_write" (func)) {start})"#),
            "newer compiler",
        );
        check(
            &format!(r#"(module (import "gojs" "runtime.wasmExit" (func)) {start})"#),
            "GOOS=wasip1",
        );
        check(
            &format!(r#"(module (import "wbg" "__wbg_log" (func)) {start})"#),
            "browsers",
        );
        check(r#"(module (func (export "add")))"#, "exports add");
    }

    #[test]
    fn a_component_that_wants_more_than_there_is_is_told_so() {
        let check = |imports: &str, words: &str| {
            let text = format!("(component {imports})");
            let told = check(&wat::parse_str(text).unwrap()).unwrap_err();
            assert!(told.contains(words), "{words:?} in {told:?}");
        };
        check(
            r#"(import "wasi:keyvalue/store@0.2.0" (instance))"#,
            "wasi:keyvalue is not offered",
        );
        check(r#"(import "wasi:cli/stdin@0.3.0" (instance))"#, "WASI 0.3");
        check("", "exports nothing");
    }

    #[test]
    fn what_stands_inside_a_component_is_not_taken_for_its_outside() {
        let text = r#"(component (core module (func (export "_start"))))"#;
        let told = check(&wat::parse_str(text).unwrap()).unwrap_err();
        assert!(told.contains("this component exports nothing"), "{told}");
    }
}
