//! The command line.

use crate::config::Flags;
use crate::telemetry::LogFormat;
use clap::{Args, Parser, Subcommand};
use faas::quantity;
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the operation failed, 2 wrong usage, \
                          3 the node does not answer, 4 there is no such function";

/// Functions-as-a-Service for edge machines: deploy a function, call it over CoAP, HTTP and gRPC.
#[derive(Debug, Parser)]
#[command(name = "tinyfaas", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a node: the management service, the reverse proxy and the functions' handlers
    #[command(args_override_self = true)]
    Serve(Box<Serve>),
    /// Deploys a function from a folder, a zip or tar.gz, or a URL
    Deploy(Box<Deploy>),
    /// Changes settings of a function, such as its memory, without sending its code
    Set(Box<Set>),
    /// Lists the functions
    List(Node),
    /// Shows everything about a function
    Describe(Named),
    /// Calls a function, by its URL (coap, http, grpc) or its name
    Invoke(Invoke),
    /// Shows what functions print
    Logs(Logs),
    /// Deletes functions
    Delete(Delete),
    /// Deletes every function
    Wipe(Wipe),
    /// Shows how a node does
    Status(Node),
    /// Shows the settings that `serve` would run with, and where each is from
    #[command(args_override_self = true)]
    Config(Box<ConfigArgs>),
    /// Copies everything that is deployed into a file
    Backup(Backup),
    /// Brings a backup back into an empty data directory, before its node starts
    Restore(Restore),
    /// Finds out what this machine can run and isolate, and what to do about the rest
    Doctor(Doctor),
    /// Removes every container, network, volume and image of tinyFaaS from the Docker engine
    #[cfg(feature = "docker")]
    Clean,
    /// Runs the management service in a container, with the reverse proxy in another one
    #[cfg(feature = "docker")]
    Mgmt(Mgmt),
    /// Runs the reverse proxy that `mgmt` starts in its container
    #[cfg(feature = "docker")]
    ReverseProxy {
        /// How the log on standard error looks
        #[arg(long, value_enum, default_value_t, env = "TINYFAAS_LOG_FORMAT")]
        log_format: LogFormat,
    },
    /// Prints the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs a node.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) settings: Flags,
    /// File with settings [default: tinyfaas.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Prints one line of JSON with the addresses when the node is ready, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// How the log on standard error looks
    #[arg(long, value_enum, default_value_t, env = "TINYFAAS_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// Shows the settings.
#[derive(Debug, Args)]
#[command(after_help = "What it prints is a file with settings: tinyfaas config > tinyfaas.toml")]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    pub(crate) settings: Flags,
    /// File with settings [default: tinyfaas.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Also finds out whether a node could start with them here, and fails if not
    #[arg(long)]
    pub(crate) check: bool,
    /// Prints JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the management service in a container.
#[cfg(feature = "docker")]
#[derive(Debug, Args)]
#[command(
    after_help = "Settings come from TINYFAAS_* variables, as for serve.\n\nExample:\n  \
    docker run -v /var/run/docker.sock:/var/run/docker.sock -p 5000:8080 \\\n    \
    --name tinyfaas-mgmt -d tinyfaas-mgmt tinyfaas-mgmt"
)]
pub(crate) struct Mgmt {
    /// The name of this container, as docker run --name gave it
    pub(crate) name: String,
    /// UDP port of the machine for CoAP [default: 5683]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// How the log on standard error looks
    #[arg(long, value_enum, default_value_t, env = "TINYFAAS_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// The node that a command talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Node {
    /// The node's management service: a URL, a port of this machine, or unix:PATH [default: the socket in the data
    /// directory, or port 8080 of this machine]
    #[arg(long, value_name = "URL", env = "TINYFAAS_NODE")]
    pub(crate) node: Option<String>,
    /// File with the node's token, where it is not the one in the data directory; the variable
    /// `TINYFAAS_TOKEN` holds the token itself
    #[arg(long, value_name = "FILE", env = "TINYFAAS_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Prints JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Deploys a function.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// A folder, a source file (.py, .js, .go, .sh), a program, a wasm file, a zip or tar.gz, or the
    /// http or https URL of an archive
    pub(crate) source: String,
    /// The function's name and route [default: the name of the folder or archive]
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    /// Runtime: nodejs, python3, go, binary or wasm [default: told by the files]
    #[arg(long, short, value_name = "RUNTIME")]
    pub(crate) env: Option<String>,
    /// Number of handlers [default: 1; for wasm, instances at once: 8 for each core]
    #[arg(long, short)]
    pub(crate) threads: Option<u16>,
    /// Environment variable of the function; repeat for more
    #[arg(long, short, value_name = "K=V", value_parser = variable)]
    pub(crate) var: Vec<String>,
    /// Folder in the archive that has the function
    #[arg(long, value_name = "FOLDER")]
    pub(crate) subfolder: Option<String>,
    /// Memory of a handler, such as 128M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// CPU of a handler in cores, such as 0.5
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<f32>,
    /// Time that a call may take, such as 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    pub(crate) deadline: Option<u64>,
    /// What a handler may write to /tmp, such as 64M; it counts as memory
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) tmp_size: Option<u64>,
    /// Files that a handler may make in /tmp
    #[arg(long, value_name = "NUMBER")]
    pub(crate) tmp_files: Option<u64>,
    /// Lets the function reach other machines (own), or all that this machine reaches, itself
    /// included (host)
    #[arg(long, value_enum, value_name = "own|host", num_args = 0..=1, require_equals = true, default_missing_value = "own")]
    pub(crate) network: Option<NetworkChoice>,
    /// Port of the node's machine that the function may reach, such as a database's; repeat for
    /// more
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) host_port: Vec<u16>,
    /// Host that a wasi:http component may send requests to, such as example.org or
    /// *.example.org:8080; repeat for more
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// Lets npm packages, and the function itself, run their install scripts
    #[arg(long)]
    pub(crate) allow_scripts: bool,
    /// Web pages of other sites that may call the function over HTTP and read its replies: origins such
    /// as `https://app.example.com` with commas between, * for any, none, function where it answers for
    /// itself, or default for the node's own setting
    #[arg(long, value_name = "ORIGINS")]
    pub(crate) cors: Option<String>,
    /// Gives every setting that is not named its default; without, a known function keeps them
    #[arg(long)]
    pub(crate) reset: bool,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Changes settings of a function that is deployed; its code stays.
#[derive(Debug, Args)]
#[command(
    mut_arg("source", |source| source.value_name("NAME").help("The function")),
    mut_arg("name", |name| name.hide(true)),
    mut_arg("subfolder", |subfolder| subfolder.hide(true)),
    after_help = "Example:\n  tinyfaas set thumbnails --memory 512M --var SIZE=200 --unset COLOR"
)]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) settings: Deploy,
    /// Environment variable that the function shall not have any more; repeat for more
    #[arg(long, value_name = "NAME")]
    pub(crate) unset: Vec<String>,
}

/// What a function reaches of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkChoice {
    /// Other machines, from a network of its own
    Own,
    /// The host's whole network
    Host,
}

/// A command on one function.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The function
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Calls a function.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tinyfaas invoke sieve\n  \
    tinyfaas invoke coap://localhost/sieve\n  \
    tinyfaas invoke grpc://localhost:9000/echo -d hello\n  \
    tinyfaas invoke http://localhost:8000/echo -X PUT -d @picture.png")]
pub(crate) struct Invoke {
    /// coap://, http:// or grpc:// URL, or the name of a function
    pub(crate) target: String,
    /// Payload: a text, @FILE, or - for standard input
    #[arg(long, short, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// Method [default: GET, with a payload POST]
    #[arg(long, short = 'X')]
    pub(crate) method: Option<String>,
    /// Header or metadata; repeat for more
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Shows status and headers as well, on standard error
    #[arg(long, short)]
    pub(crate) include: bool,
    /// How long to wait, such as 30s
    #[arg(long, value_name = "TIME", value_parser = milliseconds, default_value = "70s")]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Shows what functions print.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The function; all of them where none is named
    pub(crate) name: Option<String>,
    /// Goes on with what is printed from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Leaves out what is older, such as 10m, or before a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Deletes functions.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The functions
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Deletes every function.
#[derive(Debug, Args)]
pub(crate) struct Wipe {
    /// Does it without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Copies everything that is deployed.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write, such as tinyfaas-backup.tar.gz
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Brings a backup back.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The file that backup wrote
    pub(crate) file: PathBuf,
    /// Data directory of the node that is to have the functions [default: as for serve]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Finds out what this machine can do.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// File with settings [default: tinyfaas.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Flags that may stand alone, so that their value comes with an equals sign.
const WITH_EQUALS: [&str; 4] = [
    "--network",
    "--examples",
    "--insecure-management",
    "--accept-no-landlock",
];

/// What to write where a value of such a flag was taken for another word of the command line.
pub(crate) fn equals_hint(words: &[String]) -> Option<String> {
    let is_value = |word: &str| matches!(word, "own" | "host" | "true" | "false");
    words.windows(2).find_map(|pair| {
        let [flag, value] = pair else { return None };
        let is_split = WITH_EQUALS.contains(&flag.as_str()) && is_value(value);
        is_split
            .then(|| format!("{flag} takes its value after an equals sign: write {flag}={value}"))
    })
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn size(text: &str) -> Result<u64, &'static str> {
    quantity::bytes(text).ok_or(quantity::BYTES_HINT)
}

/// A time in milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<u64, &'static str> {
    let time = quantity::time(text).ok_or(quantity::TIME_HINT)?;
    u64::try_from(time.as_millis()).map_err(|_too_long| quantity::TIME_HINT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_parse_as_the_reference_says() {
        for line in [
            "serve --examples --json --management 0 --coap off --http 127.0.0.1:0 --grpc :0",
            "serve --data-dir d --handlers-dir h --insecure-management --sandbox reduced",
            "serve --http -1 --backend process --nodejs /n --python3 /p --go /g --log-format json",
            "deploy fn --name a/b --env python3 --threads 4 --var A=1 --var B=2=3",
            "deploy fn.py --tmp-size 16M --tmp-files 100",
            "deploy fn.zip --memory 128M --deadline 0.5s --cpu 0.5 --network",
            "deploy --network fn",
            "deploy fn --network=host",
            "deploy fn --network=own --host-port 5432 --host-port 1883",
            "serve --build-network host --build-host-ports 4873,3141",
            "deploy https://example.org/a.zip --subfolder x -n n -e nodejs -t 2",
            "deploy fn --reset",
            "set a/b --memory 512M --var A=1 --unset B --unset C",
            "set a --reset -t 2",
            "deploy fn --cors https://app.example.com,http://localhost:3000",
            "set a --cors *",
            "serve --cors none --http-hosts edge.example",
            "list --json",
            "describe a/b --node http://h:1 --token-file t",
            "invoke coap://localhost/sieve -d -",
            "invoke sieve -X PUT -d @file -H a:b -H c:d",
            "logs -f sieve --since 10m",
            "logs",
            "logs -f",
            "delete a b c",
            "wipe --yes",
            "status",
            "doctor",
            "backup b.tar.gz",
            "restore b.tar.gz --data-dir d",
            "completions bash",
        ] {
            let words = std::iter::once("tinyfaas").chain(line.split(' '));
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for line in [
            "",
            "serve --http here:there",
            "deploy fn --threads many",
            "deploy fn --var A",
            "deploy fn --memory big",
            "delete",
            "invoke sieve -H nothing",
        ] {
            let words = std::iter::once("tinyfaas").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn a_value_after_a_space_is_told_to_want_an_equals_sign() {
        let hint = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            equals_hint(&words)
        };
        let told = hint("deploy --network host fn").unwrap();
        assert!(told.ends_with("write --network=host"), "{told}");
        assert!(hint("serve --examples true").is_some());
        assert_eq!(hint("deploy --network fn"), None);
        assert_eq!(hint("deploy host --network=own"), None);
    }
}
