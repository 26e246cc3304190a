//! How a function is called: told by what it exports.

use crate::artifact::Code;
use crate::command::{self, Command};
use crate::component::http::Http;
use crate::component::own::Own;
use crate::component::{self, Shared};
use crate::failure::Failure;
use faas::{Invocation, PrepareError, Reply};
use wasmtime::component::types::ComponentItem;

/// What a refused module is compared with.
const EXPECTED: &str = "a function is a WASI preview 1 command (a module that exports _start), a \
                        wasi:http 0.2 proxy (a component that exports wasi:http/incoming-handler) \
                        or a component that exports tinyfaas:function/handler@0.1.0";

/// A function that is linked and can be called.
pub(crate) enum Contract {
    Command(Command),
    Http(Http),
    Own(Own),
}

impl Contract {
    /// Links the code to what it imports.
    pub(crate) fn link(code: &Code, shared: Shared) -> Result<Self, PrepareError> {
        match code {
            Code::Module(module) => {
                if module.get_export("_start").is_none() {
                    let names = module.exports().map(|export| export.name());
                    return Err(refuse("module", names));
                }
                let linked = Command::link(module, shared);
                linked.map(Self::Command).map_err(|error| unlinked(&error))
            }
            Code::Component(code) => {
                let engine = code.engine();
                let ty = code.component_type();
                let is_instance =
                    |item: &ComponentItem| matches!(item, ComponentItem::ComponentInstance(_));
                let exports: Vec<&str> = ty
                    .exports(engine)
                    .filter(|(_, export)| is_instance(&export.ty))
                    .map(|(name, _)| name)
                    .collect();
                if exports.contains(&component::own::EXPORT) {
                    let linked = Own::link(code, shared);
                    return linked.map(Self::Own).map_err(|error| unlinked(&error));
                }
                if exports
                    .iter()
                    .any(|name| name.starts_with(component::http::EXPORT))
                {
                    let linked = Http::link(code, shared);
                    return linked.map(Self::Http).map_err(|error| unlinked(&error));
                }
                Err(refuse(
                    "component",
                    ty.exports(engine).map(|(name, _)| name),
                ))
            }
        }
    }

    /// What it is, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => command::NAME,
            Self::Http(_) => component::http::NAME,
            Self::Own(_) => component::own::NAME,
        }
    }

    /// Makes an instance and drops it: what is wrong with it is better known now.
    pub(crate) async fn try_instance(&self) -> wasmtime::Result<()> {
        match self {
            Self::Command(command) => command.try_instance().await,
            Self::Http(http) => http.try_instance().await,
            Self::Own(own) => own.try_instance().await,
        }
    }

    /// Runs a call in a new instance.
    pub(crate) async fn call(&self, invocation: &Invocation) -> Result<Reply, Failure> {
        match self {
            Self::Command(command) => command.call(invocation).await,
            // Boxed: its state is large, and others should not carry it.
            Self::Http(http) => Box::pin(http.call(invocation)).await,
            Self::Own(own) => own.call(invocation).await,
        }
    }
}

fn refuse<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> PrepareError {
    /// Names that are shown of what a refused module exports.
    const SHOWN_MAX: usize = 8;
    let shown: Vec<String> = names
        .take(SHOWN_MAX)
        .map(|name| name.chars().take(80).collect())
        .collect();
    let found = match shown[..] {
        [] => "nothing".to_owned(),
        _ => shown.join(", "),
    };
    PrepareError::Code(format!("this {what} exports {found}; {EXPECTED}"))
}

fn unlinked(error: &wasmtime::Error) -> PrepareError {
    let text: String = format!("{error:#}").chars().take(1000).collect();
    PrepareError::Code(format!(
        "the module asks for something that is not there: {text}; functions may import what WASI \
         offers and nothing else"
    ))
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Contract").field(&self.name()).finish()
    }
}
