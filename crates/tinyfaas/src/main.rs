//! tinyFaaS: one program that is the node and the command line for it.

mod backends;
mod cli;
mod client;
mod config;
mod doctor;
mod examples;
mod failure;
mod node;
mod output;
mod show_config;
mod telemetry;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Handlers begin as this same program; this must run before any thread is started.
    if let Some(code) = backend_process::launcher_main() {
        return code;
    }
    #[cfg(feature = "docker")]
    if let Some(code) = backend_docker::shim_main() {
        return code;
    }
    #[cfg(feature = "wasm")]
    if let Some(code) = backend_wasm::compiler_main() {
        return code;
    }
    let words: Vec<String> = std::env::args().collect();
    let parsed = match Cli::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => return wrong_usage(&error, &words),
    };
    match run(parsed.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::progress_done();
            match failure::fix(&error) {
                Some(fix) => output::message(format_args!("error: {error:#}; {fix}")),
                None => output::message(format_args!("error: {error:#}")),
            }
            tell_hint(&words);
            failure::exit_code(&error)
        }
    }
}

/// Says what is wrong with the command line, or shows the help that was asked for.
fn wrong_usage(error: &clap::Error, words: &[String]) -> ExitCode {
    // Where nobody reads there is nobody to tell.
    drop(error.print());
    if error.use_stderr() {
        tell_hint(words);
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn tell_hint(words: &[String]) {
    if let Some(hint) = cli::equals_hint(words) {
        output::message(format_args!("hint: {hint}"));
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => node::serve(&args),
        Command::Deploy(args) => client::deploy(&args),
        Command::Set(args) => client::set(&args),
        Command::List(args) => client::list(&args),
        Command::Describe(args) => client::describe(&args),
        Command::Invoke(args) => client::invoke(&args),
        Command::Logs(args) => client::logs(&args),
        Command::Delete(args) => client::delete(&args),
        Command::Wipe(args) => client::wipe(&args),
        Command::Status(args) => client::status(&args),
        Command::Config(args) => show_config::run(&args),
        Command::Backup(args) => client::backup(&args),
        Command::Restore(args) => client::restore(&args),
        Command::Doctor(args) => doctor::run(&args),
        #[cfg(feature = "docker")]
        Command::Clean => clean(),
        #[cfg(feature = "docker")]
        Command::Mgmt(args) => node::management_service(&args),
        #[cfg(feature = "docker")]
        Command::ReverseProxy { log_format } => node::reverse_proxy(log_format),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tinyfaas", &mut script);
            output::bytes(&script)
        }
    }
}

#[cfg(feature = "docker")]
fn clean() -> anyhow::Result<()> {
    let host = std::env::var("DOCKER_HOST").ok();
    let socket = backend_docker::default_socket(host.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cleaned = runtime.block_on(backend_docker::clean(&socket))?;
    output::line(format_args!("removed {cleaned}"))
}
