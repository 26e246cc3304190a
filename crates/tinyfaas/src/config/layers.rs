//! The layers that settings come from, and which of them wins.
//!
//! Whatever the layer, a value is text that the parser of the flag reads.

use super::{Config, Settings};
use anyhow::{Context, Result, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// The file that is read from the working directory where none is named.
const FILE: &str = "tinyfaas.toml";
/// The section of the file, and the flag, that bounds are set by.
const LIMITS: &str = "limits";
const LIMIT: &str = "limit";
/// This variable is not the setting `token` but the token itself, for the other commands.
const TOKEN: &str = "TINYFAAS_TOKEN";

/// Variables that are no settings of a node: those of other commands, and of what tinyFaaS starts.
const OTHER_VARIABLES: [&str; 9] = [
    "CONFIG",
    "LOG",
    "LOG_FORMAT",
    "NODE",
    "TOKEN",
    "CONTROL",
    "CONTROL_SECRET",
    "SITE",
    "BIN",
];
/// The variables of the original, with the settings that they are. The ports turn an endpoint off
/// with -1.
const OLD_VARIABLES: [(&str, &str); 4] = [
    ("COAP_PORT", "coap"),
    ("HTTP_PORT", "http"),
    ("GRPC_PORT", "grpc"),
    ("TF_BACKEND", "backend"),
];

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody set it.
    Default,
    /// A file with settings.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Its name in the file, with `limits.` before that of a bound.
    pub(crate) name: String,
    /// None where nothing is set and the default is no value, such as the first Python in `PATH`.
    pub(crate) value: Option<String>,
    pub(crate) source: Source,
    /// What it is for.
    pub(crate) help: String,
}

/// The settings among the flags of a command, not yet put together with the other layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags(Vec<(String, OsString)>);

impl Flags {
    /// One flag, for commands that have no more of them.
    pub(crate) fn of(name: &str, value: Option<&OsStr>) -> Self {
        let value = value.map(|value| (name.to_owned(), value.to_owned()));
        Self(value.into_iter().collect())
    }
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        Settings::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Settings::augment_args_for_update(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let command = command();
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let values = matches.get_raw(id).into_iter().flatten();
            let values: Vec<&OsStr> = values.collect();
            self.0.push((flag(argument), values.join(OsStr::new(","))));
        }
        Ok(())
    }
}

/// The values that win, by the names of their flags; those of bounds begin with `limit=`.
#[derive(Debug)]
pub(super) struct Layers {
    command: clap::Command,
    values: BTreeMap<String, (OsString, Source)>,
}

/// Reads every layer, the file first, so that later ones win.
///
/// # Errors
/// If one can't be read, or has a value that is not one of its setting.
pub(super) fn read(
    flags: &Flags,
    file: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Layers> {
    let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
    let mut layers = Layers {
        command: command(),
        values: BTreeMap::new(),
    };
    let named = variable("TINYFAAS_CONFIG").map(PathBuf::from);
    layers.add_file(file.or(named.as_deref()))?;
    for (name, setting) in OLD_VARIABLES {
        let Some(text) = variable(name) else { continue };
        if name.ends_with("PORT") && text.parse::<i32>().is_err() {
            bail!("{name} is {text:?}; set it to a port, or to -1 to turn the endpoint off");
        }
        layers.add(setting, text.into(), Source::Variable(name.to_owned()))?;
    }
    let command = layers.command.clone();
    for argument in command.get_arguments() {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        for name in aliases.into_iter().chain(argument.get_long()) {
            let name = variable_of(name);
            if let Some(text) = variable(&name).filter(|_| name != TOKEN) {
                layers.add(&flag(argument), text.into(), Source::Variable(name))?;
            }
        }
    }
    for (setting, value) in &flags.0 {
        layers.add(setting, value.clone(), Source::Flag)?;
    }
    Ok(layers)
}

impl Layers {
    /// The settings in a file; none where no file is named and there is none in the working
    /// directory.
    fn add_file(&mut self, named: Option<&Path>) -> Result<()> {
        let path = named.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                return Ok(());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read the settings {}", path.display()));
            }
        };
        self.add_table(&text, path)
            .with_context(|| format!("the settings in {}", path.display()))
    }

    fn add_table(&mut self, text: &str, path: &Path) -> Result<()> {
        let table: toml::Table = toml::from_str(text)?;
        let source = || Source::File(path.to_owned());
        for (key, value) in table {
            if let (LIMITS, toml::Value::Table(limits)) = (key.as_str(), &value) {
                for limit in bounds_of("", limits)? {
                    self.add(LIMIT, limit.into(), source())?;
                }
                continue;
            }
            let found = self
                .command
                .get_arguments()
                .find(|argument| is_named(argument, &key));
            let Some(setting) = found.map(flag).filter(|setting| setting != LIMIT) else {
                let names = self.command.get_arguments().map(flag);
                let names: Vec<String> = names.filter(|name| name != LIMIT).collect();
                bail!(
                    "there is no setting {key:?}; the settings are {}, and the section [limits]",
                    names.join(", ")
                );
            };
            self.add(&setting, text_of(&key, &value)?.into(), source())?;
        }
        Ok(())
    }

    /// Takes a value in, if it is one of its setting.
    fn add(&mut self, setting: &str, value: OsString, source: Source) -> Result<()> {
        self.parse(&[(setting, &value)])
            .map_err(|error| wrong(setting, &value, &source, &error))?;
        if setting != LIMIT {
            self.values.insert(setting.to_owned(), (value, source));
            return Ok(());
        }
        // Each bound comes from a layer of its own.
        for limit in value.to_string_lossy().split(',') {
            let (name, value) = limit.split_once('=').unwrap_or((limit, ""));
            let key = format!("{LIMIT}={}", name.trim());
            let value = value.trim().to_owned();
            self.values.insert(key, (value.into(), source.clone()));
        }
        Ok(())
    }

    /// What they say together.
    pub(super) fn settings(&self) -> Result<Settings> {
        let values = self.values.iter();
        let values: Vec<_> = values
            .map(|(name, (value, _))| (&**name, &**value))
            .collect();
        Ok(self.parse(&values)?)
    }

    fn parse(&self, values: &[(&str, &OsStr)]) -> Result<Settings, clap::Error> {
        let words = values.iter().map(|(name, value)| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            word
        });
        let matches = self.command.clone().try_get_matches_from(words)?;
        Settings::from_arg_matches(&matches)
    }

    /// Every setting and bound, and where it is from.
    pub(super) fn in_force(&self, config: &Config) -> Vec<InForce> {
        let computed = |name: &str| match name {
            "data-dir" => Some(config.data_dir.display().to_string()),
            "token-file" => Some(config.token_file.display().to_string()),
            _ => None,
        };
        let settings = self
            .command
            .get_arguments()
            .filter(|argument| flag(argument) != LIMIT);
        let settings = settings.map(|argument| {
            let name = flag(argument);
            let help = help_of(argument);
            let defaults = argument.get_default_values().iter();
            let default = defaults
                .map(|value| value.to_string_lossy().into_owned())
                .next();
            let (value, source) = match self.values.get(&name) {
                Some((value, source)) => {
                    (Some(value.to_string_lossy().into_owned()), source.clone())
                }
                None => (default, Source::Default),
            };
            let value = computed(&name).or(value);
            InForce {
                name,
                value,
                source,
                help,
            }
        });
        let bounds = config.limits.list().into_iter().map(|bound| {
            let set = self.values.get(&format!("{LIMIT}={}", bound.name));
            InForce {
                name: format!("{LIMITS}.{}", bound.name),
                value: Some(bound.value),
                source: set.map_or(Source::Default, |(_, source)| source.clone()),
                help: bound.meaning.to_owned(),
            }
        });
        settings.chain(bounds).collect()
    }
}

/// The settings as flags of nothing.
fn command() -> clap::Command {
    let command = clap::Command::new("settings").no_binary_name(true);
    Settings::augment_args(command).disable_help_flag(true)
}

/// What it is for, with the words that it may be.
fn help_of(argument: &Arg) -> String {
    let mut help = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    for word in argument.get_possible_values() {
        if let Some(meaning) = word.get_help() {
            help.push_str(&format!("; `{}`: {meaning}", word.get_name()));
        }
    }
    help
}

/// The variable of a setting.
fn variable_of(name: &str) -> String {
    format!("TINYFAAS_{}", name.to_uppercase().replace('-', "_"))
}

fn flag(argument: &Arg) -> String {
    argument.get_long().unwrap_or_default().to_owned()
}

/// Whether this is its name, or one that it had before.
fn is_named(argument: &Arg, name: &str) -> bool {
    let aliases = argument.get_all_aliases().unwrap_or_default();
    argument.get_long() == Some(name) || aliases.contains(&name)
}

/// The bounds in a section of the file, written as for the flag.
fn bounds_of(group: &str, table: &toml::Table) -> Result<Vec<String>> {
    let mut limits = Vec::new();
    for (key, value) in table {
        let name = format!("{group}{key}");
        match value {
            toml::Value::Table(table) => limits.extend(bounds_of(&format!("{name}."), table)?),
            value => limits.push(format!("{name}={}", text_of(&name, value)?)),
        }
    }
    Ok(limits)
}

/// A value of the file as a flag's: without quotes, and those of a list with commas between.
fn text_of(key: &str, value: &toml::Value) -> Result<String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(is_so) => is_so.to_string(),
        toml::Value::Array(values) => {
            let texts: Result<Vec<String>> = values.iter().map(|one| text_of(key, one)).collect();
            texts?.join(",")
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => {
            bail!(
                "{key} is {}; write a string, a number or a list",
                value.type_str()
            )
        }
    })
}

/// What is wrong with a value, said of where it stands rather than of a flag.
fn wrong(setting: &str, value: &OsStr, source: &Source, error: &clap::Error) -> anyhow::Error {
    let name = match source {
        Source::Variable(name) => name,
        Source::Default | Source::File(_) | Source::Flag => setting,
    };
    let why = match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(words))) if !words.is_empty() => {
            format!("set it to one of {}", words.join(", "))
        }
        _ => match std::error::Error::source(error) {
            Some(cause) => cause.to_string(),
            None => error.kind().to_string(),
        },
    };
    anyhow::anyhow!("{name} is {value:?}; {why}")
}

/// Refuses variables whose names begin as ours do and mean nothing, as an unknown key in the file is
/// refused.
///
/// # Errors
/// With the name and where the right ones are listed.
pub(crate) fn check_variables(names: impl Iterator<Item = String>) -> Result<()> {
    let command = command();
    let known = |name: &str| {
        let wanted = name.to_lowercase().replace('_', "-");
        let mut arguments = command.get_arguments();
        arguments.any(|argument| is_named(argument, &wanted))
            || OTHER_VARIABLES.contains(&name)
            || name.starts_with("BUILD_")
    };
    let unknown = names.filter_map(|name| Some(name.strip_prefix("TINYFAAS_")?.to_owned()));
    let unknown: Vec<String> = unknown.filter(|name| !known(name)).collect();
    if let Some(name) = unknown.first() {
        bail!(
            "the variable TINYFAAS_{name} means nothing; unset it, or correct its name: tinyfaas \
             serve --help lists the flags, and each is a variable, such as TINYFAAS_DATA_DIR for \
             --data-dir"
        );
    }
    Ok(())
}
