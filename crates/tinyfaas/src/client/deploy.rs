//! `tinyfaas deploy`.

use super::api::{Api, encoded, function_path};
use super::pack;
use crate::cli::{Deploy, NetworkChoice, Set};
use crate::output;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// Deploys from a folder, an archive or a URL.
pub(crate) fn deploy(args: &Deploy) -> Result<()> {
    let api = Api::new(&args.node)?;
    let is_url = args.source.starts_with("http://") || args.source.starts_with("https://");
    if is_url {
        return from_url(args, &api);
    }
    if args.subfolder.is_some() {
        bail!("--subfolder is for URLs; name the folder itself instead");
    }
    let path = Path::new(&args.source);
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(path)?,
    };
    let archive = if path.is_dir() {
        output::progress(format_args!("packing {}", path.display()));
        pack::folder(path)?
    } else {
        std::fs::read(path).with_context(|| {
            format!(
                "read {}; name a folder, a zip, tar.gz or wasm file, or a URL",
                path.display()
            )
        })?
    };
    let len = archive.len() as u64;
    let mut body = Watched {
        rest: &archive,
        len,
    };
    let target = format!("{}?{}", function_path(&name), query(args).join("&"));
    let answer = api.upload("PUT", &target, &mut body, len)?;
    output::progress_done();
    let function: Value = serde_json::from_slice(&answer)?;
    if args.node.json {
        return output::line(&function);
    }
    let urls = function["urls"].as_array().map_or(&[][..], Vec::as_slice);
    let urls = urls.iter().filter_map(Value::as_str);
    deployed(&name, urls)?;
    tell_kept(&function)
}

/// Changes settings of a function that is deployed.
pub(crate) fn set(args: &Set) -> Result<()> {
    let settings = &args.settings;
    if settings.name.is_some() || settings.subfolder.is_some() {
        bail!("--name and --subfolder are for deploy; the function is named first");
    }
    let name = &settings.source;
    let api = Api::new(&settings.node)?;
    let mut query = query(settings);
    let unset = args.unset.iter();
    query.extend(unset.map(|name| format!("unset={}", encoded(name))));
    if query.is_empty() {
        bail!("name a setting to change, such as --memory 512M; see tinyfaas set --help");
    }
    output::progress("starting the handlers with the new settings");
    let target = format!("{}?{}", function_path(name), query.join("&"));
    let answer = api.send("PATCH", &target, None)?;
    output::progress_done();
    let function: Value = serde_json::from_slice(&answer)?;
    if settings.node.json {
        return output::line(&function);
    }
    output::line(format_args!("{name} has the new settings"))
}

/// Tells what a redeployment did not change.
fn tell_kept(function: &Value) -> Result<()> {
    let kept = function["kept"].as_array().map_or(&[][..], Vec::as_slice);
    let kept: Vec<&str> = kept.iter().filter_map(Value::as_str).collect();
    if kept.is_empty() {
        return Ok(());
    }
    output::line(format_args!(
        "  kept as before: {} (--reset for the defaults)",
        kept.join(", ")
    ))
}

/// The settings that were given, as the API takes them.
fn query(args: &Deploy) -> Vec<String> {
    let mut query = Vec::new();
    let mut add = |name: &str, value: String| query.push(format!("{name}={}", encoded(&value)));
    if let Some(threads) = args.threads {
        add("threads", threads.to_string());
    }
    if let Some(runtime) = &args.env {
        add("runtime", runtime.clone());
    }
    for variable in &args.var {
        add("var", variable.clone());
    }
    if let Some(bytes) = args.memory {
        add("memory", bytes.to_string());
    }
    if let Some(cores) = args.cpu {
        add("cpu", cores.to_string());
    }
    if let Some(deadline) = args.deadline {
        add("deadline", format!("{deadline}ms"));
    }
    match args.network {
        None => {}
        Some(NetworkChoice::Own) => add("network", "true".to_owned()),
        Some(NetworkChoice::Host) => add("host_network", "true".to_owned()),
    }
    for port in &args.host_port {
        add("host_port", port.to_string());
    }
    if args.reset {
        add("reset", "true".to_owned());
    }
    if args.allow_scripts {
        add("allow_scripts", "true".to_owned());
    }
    for host in &args.allow_host {
        add("allow_host", host.clone());
    }
    query
}

/// Lets the node fetch the archive.
fn from_url(args: &Deploy, api: &Api) -> Result<()> {
    let Some(runtime) = &args.env else {
        bail!("say the runtime of what is at the URL with --env");
    };
    let has_limits = args.memory.is_some() || args.cpu.is_some() || args.deadline.is_some();
    let has_network = args.network.is_some() || !args.host_port.is_empty();
    let has_rights = has_network || args.allow_scripts || !args.allow_host.is_empty();
    if has_limits || has_rights {
        bail!(
            "--memory, --cpu, --deadline, --network, --host-port, --allow-host and --allow-scripts are not for \
             URLs; download the archive and deploy it"
        );
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let path = args.source.split(['?', '#']).next().unwrap_or_default();
            name_of(Path::new(path))?
        }
    };
    let body = json!({
        "name": name,
        "env": runtime,
        "threads": args.threads.map_or(String::new(), |threads| threads.to_string()),
        "url": args.source,
        "subfolder_path": args.subfolder.as_deref().unwrap_or_default(),
        "envs": args.var,
    });
    output::progress(format_args!("the node fetches and builds {name}"));
    let answer = api.send("POST", "/uploadURL", Some(body.to_string().as_bytes()))?;
    output::progress_done();
    let text = String::from_utf8_lossy(&answer);
    if args.node.json {
        let urls: Vec<_> = text.lines().collect();
        return output::line(json!({ "name": name, "urls": urls }));
    }
    deployed(&name, text.lines())
}

fn deployed<'a>(name: &str, urls: impl Iterator<Item = &'a str>) -> Result<()> {
    output::line(format_args!("{name} is deployed"))?;
    for url in urls {
        output::line(format_args!("  {url}"))?;
    }
    Ok(())
}

/// The name that a folder or archive suggests.
fn name_of(path: &Path) -> Result<String> {
    // `.` and such have a name only when resolved.
    let resolved = path.canonicalize();
    let path = resolved.as_deref().unwrap_or(path);
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    let endings = [".zip", ".tar.gz", ".tgz", ".wasm"];
    let bare = endings.iter().find_map(|ending| name.strip_suffix(ending));
    let name = bare.unwrap_or(name);
    if name.parse::<faas::FunctionName>().is_err() {
        bail!("{name:?} can't be a function's name; give one with --name");
    }
    Ok(name.to_owned())
}

/// An archive that shows how much of it was sent.
struct Watched<'a> {
    rest: &'a [u8],
    len: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.rest.read(buf)?;
        let sent = self.len - self.rest.len() as u64;
        if self.rest.is_empty() {
            output::progress("sent; building and starting the handlers");
        } else {
            output::progress(format_args!(
                "sending {} of {} KiB",
                sent >> 10,
                self.len >> 10
            ));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_or_archive_suggests_the_name() {
        let check = |path: &str, name: &str| assert_eq!(name_of(Path::new(path)).unwrap(), name);
        check("some/sieve", "sieve");
        check("sieve.zip", "sieve");
        check("sieve.wasm", "sieve");
        check("a/sieve.tar.gz", "sieve");
        check("https://example.org/archive.tgz", "archive");
        assert!(name_of(Path::new("a b")).is_err());
        assert!(name_of(Path::new("/")).is_err());
    }
}
