//! Where tinyFaaS's own log goes: standard error, as text or JSON.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(format!("{QUIET},{wanted}"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(is_terminal).init();
        }
        LogFormat::Json => log.json().init(),
    }
}
