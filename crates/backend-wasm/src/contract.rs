//! How a function is called: told by what it exports.

use crate::artifact::Code;
use crate::command::{self, Command};
use crate::component;
use crate::component::command::CliCommand;
use crate::component::http::{Called, Http};
use crate::component::own::Own;
use crate::shared::Shared;
use faas::{Invocation, PrepareError};
use wasmtime::component::types::ComponentItem;

/// A function that is linked and can be called.
pub(crate) enum Contract {
    Command(Command),
    CliCommand(CliCommand),
    Http(Http),
    Own(Own),
}

impl Contract {
    /// Links the code to what it imports. That it can be called was seen before it was compiled.
    pub(crate) fn link(code: &Code, shared: Shared) -> Result<Self, PrepareError> {
        let linked = match code {
            Code::Module(module) => Command::link(module, shared).map(Self::Command),
            Code::Component(code) => {
                let engine = code.engine();
                let ty = code.component_type();
                let has = |start: &str| {
                    ty.exports(engine).any(|(name, export)| {
                        matches!(export.ty, ComponentItem::ComponentInstance(_))
                            && name.starts_with(start)
                    })
                };
                if has(component::own::EXPORT) {
                    Own::link(code, shared).map(Self::Own)
                } else if has(component::http::EXPORT) {
                    Http::link(code, shared).map(Self::Http)
                } else {
                    CliCommand::link(code, shared).map(Self::CliCommand)
                }
            }
        };
        linked.map_err(|error| unlinked(&error))
    }

    /// Whether a call may go on after its reply.
    pub(crate) fn may_linger(&self) -> bool {
        matches!(self, Self::Http(_))
    }

    /// What it is, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => command::NAME,
            Self::CliCommand(_) => component::command::NAME,
            Self::Http(_) => component::http::NAME,
            Self::Own(_) => component::own::NAME,
        }
    }

    /// Makes an instance and drops it: what is wrong with it is better known now.
    pub(crate) async fn try_instance(&self) -> Result<(), PrepareError> {
        match self {
            Self::Command(command) => command.try_instance().await,
            Self::CliCommand(command) => command.try_instance().await,
            Self::Http(http) => http.try_instance().await,
            Self::Own(own) => own.try_instance().await,
        }
    }

    /// Runs a call in a new instance.
    pub(crate) async fn call(&self, invocation: &Invocation) -> Called {
        match self {
            Self::Command(command) => command.call(invocation).await.into(),
            // Boxed: their state is large, and others should not carry it.
            Self::CliCommand(command) => Box::pin(command.call(invocation)).await.into(),
            Self::Http(http) => Box::pin(http.call(invocation)).await,
            Self::Own(own) => own.call(invocation).await.into(),
        }
    }
}

fn unlinked(error: &wasmtime::Error) -> PrepareError {
    let text: String = format!("{error:#}").chars().take(1000).collect();
    PrepareError::code(
        format!("the module asks for something that is not there: {text}"),
        "import what WASI offers and nothing else",
    )
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Contract").field(&self.name()).finish()
    }
}
