//! Where tinyFaaS's own log goes: standard error, as text or JSON.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The WebAssembly engine makes a span of every call of a function to the host, at the level
/// `info`: several microseconds for nothing. A later directive for the same part counts.
const QUIET: &str =
    "wasmtime=warn,wasmtime_wasi=warn,wasmtime_wasi_io=warn,wasmtime_wasi_http=warn";

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One object a line
    Json,
}

/// Starts logging. The variable `TINYFAAS_LOG` filters: `info` unless set, `debug` has a line for
/// every request, `endpoints=debug` for those of one part.
pub(crate) fn start(format: LogFormat) {
    let wanted = std::env::var("TINYFAAS_LOG").unwrap_or_else(|_| "info".to_owned());
    let parsed = format!("info,{QUIET},{wanted}").parse();
    let filter = match &parsed {
        Ok(filter) => Targets::clone(filter),
        Err(_) => Targets::new().with_default(LevelFilter::INFO),
    };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let log = match format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(is_terminal).boxed()
        }
        LogFormat::Json => log.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(log).init();
    if let Err(error) = parsed {
        tracing::warn!(%error, "TINYFAAS_LOG is not understood; set it to such as info,endpoints=debug");
    }
}
