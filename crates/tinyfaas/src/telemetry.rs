//! Where tinyFaaS's own log goes: standard error, as text or JSON.

use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::try_from_env("TINYFAAS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
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
