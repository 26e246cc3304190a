//! `tinyfaas config`: what a node would run with, and where each value is from.

use crate::cli::ConfigArgs;
use crate::config::{Config, InForce, Place, check_variables};
use crate::output;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Prints the settings in force as a file of settings.
///
/// # Errors
/// If a setting is wrong, or with `--check` could not work here.
pub(crate) fn run(args: &ConfigArgs) -> Result<()> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    check_variables(names)?;
    let variable = |name: &str| std::env::var(name).ok();
    let config = Config::load(&args.settings, args.config.as_deref(), &variable)?;
    if args.json {
        let settings = config.in_force.iter().map(|setting| {
            json!({
                "name": setting.name,
                "value": setting.value,
                "source": setting.source.to_string(),
            })
        });
        output::line(json!({ "settings": settings.collect::<Vec<_>>() }))?;
    } else {
        for line in lines(&config.in_force) {
            output::line(line)?;
        }
    }
    match args.check {
        true => check(&config),
        false => Ok(()),
    }
}

/// The lines of a file with these settings, where each is from beside it.
fn lines(settings: &[InForce]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut section = "";
    for setting in settings {
        let (group, key) = setting.name.rsplit_once('.').unwrap_or(("", &setting.name));
        if group != section {
            section = group;
            lines.push(String::new());
            lines.push(format!("[{group}]"));
        }
        lines.push(match &setting.value {
            Some(value) => format!("{key} = {}  # {}", toml_of(value), setting.source),
            None => format!("# {key} is not set"),
        });
    }
    lines
}

/// A number or a switch as it is, all else as a string, whose escapes are those of JSON.
fn toml_of(value: &str) -> Value {
    match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(number), _) => Value::from(number),
        (Err(_), Ok(is_so)) => Value::from(is_so),
        (Err(_), Err(_)) => Value::from(value),
    }
}

fn check(config: &Config) -> Result<()> {
    config.check(&config.limits)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    let places = [
        ("management", &config.management),
        ("coap", &config.coap),
        ("http", &config.http),
        ("grpc", &config.grpc),
    ];
    for (name, place) in places {
        let found = runtime.block_on(place.candidates());
        let found = found.with_context(|| format!("{name} is {place}; this host is not known"))?;
        if found.is_empty() && *place != Place::Off {
            bail!("{name} is {place}; this host has no address");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn what_is_printed_is_a_file_with_the_same_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        std::fs::write(
            &path,
            "http = 1\nbuild-host-ports = [1, 2]\nexamples = true\n[limits]\nhandlers-max = 7\n\
             [limits.builds]\ntime = \"1h\"\n",
        )
        .unwrap();
        let nothing = |_: &str| None;
        let first = Config::load(&Flags::default(), Some(&path), &nothing).unwrap();
        let printed = lines(&first.in_force).join("\n");
        std::fs::write(&path, &printed).unwrap();
        let mut second = Config::load(&Flags::default(), Some(&path), &nothing).unwrap();
        assert!(second.in_force.len() > 100, "{printed}");
        // The printed file names what nobody had named.
        second.is_token_wanted = first.is_token_wanted;
        second.is_handlers_dir_named = first.is_handlers_dir_named;
        second.in_force.clone_from(&first.in_force);
        assert_eq!(second, first, "{printed}");
        let told = printed
            .lines()
            .filter(|line| line.contains("settings.toml"));
        assert_eq!(told.count(), 5, "{printed}");
    }
}
