//! `tinyfaas deploy`.

use super::api::{Api, function_path};
use super::url::split_scheme;
use super::{pack, underway};
use crate::cli::{Deploy, NetworkChoice, Set};
use crate::output;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

/// Deploys from a folder, an archive or a URL.
pub(crate) fn deploy(args: &Deploy) -> Result<()> {
    let api = Api::new(&args.node)?;
    if is_url(&args.source) {
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
        pack::file(path)?
    };
    let form = Form::new(&settings(args), &archive)?;
    let len = form.len();
    let mut body = Watched {
        rest: form.body.as_slice(),
        len,
    };
    let target = function_path(&name);
    let media = form.media_type();
    let answer = underway::told(&args.node, &name, || {
        api.upload("PUT", &target, &media, (&mut body, len))
    })?;
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
    let mut changed = self::settings(settings);
    if !args.unset.is_empty() {
        changed["unset"] = args.unset.clone().into();
    }
    if changed == json!({}) {
        bail!("name a setting to change, such as --memory 512M; see tinyfaas set --help");
    }
    output::progress("starting the handlers with the new settings");
    let body = changed.to_string();
    let answer = underway::told(&settings.node, name, || {
        api.send("PATCH", &function_path(name), Some(body.as_bytes()))
    })?;
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

/// The settings that were given, as the API takes them. They go in the body: variables may be
/// longer than a URL.
fn settings(args: &Deploy) -> Value {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    if let Some(threads) = args.threads {
        set("threads", threads.into());
    }
    if let Some(runtime) = &args.env {
        set("runtime", runtime.clone().into());
    }
    if !args.var.is_empty() {
        set("envs", args.var.clone().into());
    }
    for (name, bytes) in [("memory", args.memory), ("tmp", args.tmp_size)] {
        if let Some(bytes) = bytes {
            set(name, bytes.into());
        }
    }
    if let Some(files) = args.tmp_files {
        set("tmp_files", files.into());
    }
    if let Some(cores) = args.cpu {
        set("cpu", cores.to_string().into());
    }
    if let Some(deadline) = args.deadline {
        set("deadline", format!("{deadline}ms").into());
    }
    match args.network {
        None => {}
        Some(NetworkChoice::Own) => drop(set("network", true.into())),
        Some(NetworkChoice::Host) => drop(set("host_network", true.into())),
    }
    if !args.host_port.is_empty() {
        let ports = args.host_port.iter().map(u16::to_string);
        set("host_ports", ports.collect::<Vec<_>>().into());
    }
    if args.reset {
        set("reset", true.into());
    }
    if args.allow_scripts {
        set("allow_scripts", true.into());
    }
    if !args.allow_host.is_empty() {
        set("allow_hosts", args.allow_host.clone().into());
    }
    if let Some(cors) = &args.cors {
        set("cors", cors.clone().into());
    }
    settings.into()
}

/// A multipart body with settings and archive (RFC 7578).
struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    fn new(settings: &Value, archive: &[u8]) -> Result<Self> {
        let settings = settings.to_string();
        let boundary = boundary(&[settings.as_bytes(), archive])?;
        let mut body = Vec::with_capacity(archive.len() + settings.len() + 512);
        for (name, contents) in [("settings", settings.as_bytes()), ("archive", archive)] {
            let head =
                format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(contents);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        Ok(Self { boundary, body })
    }

    fn len(&self) -> u64 {
        self.body.len() as u64
    }

    fn media_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }
}

/// A line that stands in none of the parts: random, so that nobody can have put it there.
fn boundary(parts: &[&[u8]]) -> Result<String> {
    loop {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).context("make a random number")?;
        let boundary = faas::hex(&bytes);
        let is_in = |part: &&&[u8]| part.windows(32).any(|window| window == boundary.as_bytes());
        if !parts.iter().any(|part| is_in(&part)) {
            return Ok(boundary);
        }
    }
}

/// Lets the node fetch the archive.
fn from_url(args: &Deploy, api: &Api) -> Result<()> {
    let Some(runtime) = &args.env else {
        bail!("say the runtime of what is at the URL with --env");
    };
    let has_tmp = args.tmp_size.is_some() || args.tmp_files.is_some();
    let has_limits =
        has_tmp || args.memory.is_some() || args.cpu.is_some() || args.deadline.is_some();
    let has_network = args.network.is_some() || !args.host_port.is_empty();
    let has_rights =
        has_network || args.allow_scripts || !args.allow_host.is_empty() || args.cors.is_some();
    if has_limits || has_rights {
        bail!(
            "--memory, --cpu, --deadline, --tmp-size, --tmp-files, --network, --host-port, --allow-host, \
             --allow-scripts and --cors are not for URLs; download the archive and deploy it"
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
    let answer = underway::told(&args.node, &name, || {
        api.send("POST", "/uploadURL", Some(body.to_string().as_bytes()))
    })?;
    output::progress_done();
    let text = String::from_utf8_lossy(&answer);
    if args.node.json {
        let urls: Vec<_> = text.lines().collect();
        return output::line(json!({ "name": name, "urls": urls }));
    }
    deployed(&name, text.lines())
}

/// Whether the node is to fetch it.
fn is_url(source: &str) -> bool {
    let scheme = split_scheme(source).map(|(scheme, _)| scheme);
    matches!(scheme.as_deref(), Some("http" | "https"))
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
    let sources = [".py", ".js", ".mjs", ".cjs", ".go", ".sh"];
    let mut endings = endings.iter().chain(&sources);
    let name = endings
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(name);
    // What every function's file is called says nothing: its folder's name does.
    let above = path
        .parent()
        .and_then(|folder| folder.file_name()?.to_str());
    let name = match above {
        Some(above) if path.is_file() && matches!(name, "fn" | "index") => above,
        Some(_) | None => name,
    };
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
    fn the_node_fetches_urls_of_http_in_any_case() {
        for url in ["http://h/a.zip", "HTTPS://h/a.zip"] {
            assert!(is_url(url), "{url}");
        }
        for path in ["a.zip", "http:/a", "ftp://h/a.zip", "folder/http://h"] {
            assert!(!is_url(path), "{path}");
        }
    }

    #[test]
    fn a_folder_or_archive_suggests_the_name() {
        let check = |path: &str, name: &str| assert_eq!(name_of(Path::new(path)).unwrap(), name);
        check("some/sieve", "sieve");
        check("sieve.zip", "sieve");
        check("sieve.py", "sieve");
        check("hello.sh", "hello");
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("greeter");
        std::fs::create_dir(&named).unwrap();
        std::fs::write(named.join("fn.py"), "").unwrap();
        check(named.join("fn.py").to_str().unwrap(), "greeter");
        check("sieve.wasm", "sieve");
        check("a/sieve.tar.gz", "sieve");
        check("https://example.org/archive.tgz", "archive");
        assert!(name_of(Path::new("a b")).is_err());
        assert!(name_of(Path::new("/")).is_err());
    }
}
