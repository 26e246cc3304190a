//! The settings of a function, from a query or from JSON: the same names, the same rules.

use super::fields::{self, Fields};
use crate::bad_field::BadField;
use crate::named::Named;
use crate::order::CPU_MILLIS_MIN;
use crate::undecided::Undecided;
use faas::{
    Cors, Entry, FunctionLimits, FunctionName, FunctionSpec, HostPattern, Network, Runtime,
    quantity,
};

/// The smallest memory that a handler can live in.
const MEMORY_BYTES_MIN: u64 = 4 << 20;

/// What a client set; the rest has its defaults.
#[derive(Debug)]
pub(crate) struct Settings {
    runtime: Option<Runtime>,
    handlers: Option<u16>,
    envs: Vec<(String, String)>,
    has_network: bool,
    has_host_network: bool,
    host_ports: Vec<u16>,
    allow_hosts: Vec<HostPattern>,
    allow_scripts: bool,
    /// As far as it was given: a query may name an origin at a time.
    cors: Vec<String>,
    has_memory: bool,
    limits: FunctionLimits,
    named: Named,
}

/// The name of every setting, for those who mistyped one.
const NAMES: &str = "runtime, threads, envs (in a query: var=NAME=VALUE), network, host_network, host_ports (in a query: host_port=PORT), allow_hosts (in a query: allow_host=HOST), allow_scripts, cors, memory, pids, cpu, tmp, tmp_files, open_files, deadline, queue, unset=NAME for a variable that goes, reset=true for the defaults of what is not named";

impl Settings {
    /// Nothing set.
    pub(crate) fn new(limits: FunctionLimits) -> Self {
        Self {
            runtime: None,
            handlers: None,
            envs: Vec::new(),
            has_network: false,
            has_host_network: false,
            host_ports: Vec::new(),
            allow_hosts: Vec::new(),
            allow_scripts: false,
            cors: Vec::new(),
            has_memory: false,
            limits,
            named: Named::default(),
        }
    }

    /// Takes what a query set.
    pub(crate) fn take_query(&mut self, pairs: &[(String, String)]) -> Result<(), BadField> {
        for (name, value) in pairs {
            self.named.names.push(name.clone());
            match name.as_str() {
                "unset" => self.named.unset.push(value.clone()),
                "var" => self.envs.push(fields::env("var", value)?),
                "allow_host" => self.allow_hosts.push(host("allow_host", value)?),
                "host_port" => self.host_ports.push(port("host_port", value)?),
                name => self.set(name, value)?,
            }
        }
        Ok(())
    }

    /// Takes what a JSON object set.
    pub(crate) fn take_json(&mut self, json: &[u8]) -> Result<(), BadField> {
        let fields = Fields::parse(json, "settings")?;
        self.named.names.extend(fields.names().map(str::to_owned));
        self.envs.append(&mut fields.envs("envs")?);
        self.named.unset.append(&mut fields.texts("unset")?);
        for text in fields.texts("allow_hosts")? {
            self.allow_hosts.push(host("allow_hosts", &text)?);
        }
        for text in fields.texts("host_ports")? {
            self.host_ports.push(port("host_ports", &text)?);
        }
        if fields.is_list("cors") {
            self.cors.append(&mut fields.texts("cors")?);
        }
        let is_list = |name: &&str| {
            let is_always = matches!(*name, "envs" | "unset" | "allow_hosts" | "host_ports");
            is_always || (*name == "cors" && fields.is_list(name))
        };
        for name in fields.names().filter(|name| !is_list(name)) {
            if let Some(value) = fields.plain(name)? {
                self.set(name, &value)?;
            }
        }
        Ok(())
    }

    /// Sets the environment variables, all that there are.
    pub(crate) fn set_envs(&mut self, envs: Vec<(String, String)>) {
        self.named.replaces_envs = true;
        self.envs = envs;
    }

    /// Sets one by its name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), BadField> {
        let number = |max: u64| number(name, value, max);
        let bytes = || {
            quantity::bytes(value)
                .filter(|&bytes| bytes > 0)
                .ok_or_else(|| bad(name, value, "send bytes, such as 268435456 or 256MiB"))
        };
        match name {
            "runtime" | "env" => {
                let fix = "choose one of nodejs, python3, go, binary, wasm";
                let runtime = value.parse().map_err(|_unknown| bad(name, value, fix))?;
                self.runtime = Some(runtime);
            }
            "threads" | "handlers" => {
                let handlers = number(u64::from(u16::MAX))?;
                self.handlers = Some(u16::try_from(handlers).unwrap_or(u16::MAX));
            }
            "reset" => self.named.is_reset = switch(name, value)?,
            "network" => self.has_network = switch(name, value)?,
            "host_network" => self.has_host_network = switch(name, value)?,
            "allow_scripts" => self.allow_scripts = switch(name, value)?,
            "cors" => self.cors.push(value.to_owned()),
            "memory" => {
                let memory = bytes()?;
                if memory < MEMORY_BYTES_MIN {
                    let reason = format!("memory must be at least 4MiB, got {value}");
                    return Err(BadField::new(name, reason, "give a handler at least 4MiB"));
                }
                self.has_memory = true;
                self.limits.memory_bytes_max = memory;
            }
            "tmp" => self.limits.tmp_bytes_max = bytes()?,
            "tmp_files" => self.limits.tmp_files_max = number(u64::MAX)?,
            "open_files" => self.limits.open_files_max = number(1 << 20)?,
            "pids" => {
                self.limits.pids_max = u32::try_from(number(1 << 22)?).unwrap_or(u32::MAX);
            }
            "cpu" => {
                let fix = "send cores, such as 0.5 or 2";
                let millis = quantity::cpu_millis(value);
                let millis = millis.filter(|&millis| millis >= CPU_MILLIS_MIN);
                self.limits.cpu_millis_max = millis.ok_or_else(|| bad(name, value, fix))?;
            }
            "deadline" => {
                let fix = "send a time, such as 60s, 500ms or 2m";
                let time = quantity::time(value).filter(|time| time.as_millis() > 0);
                self.limits.deadline = time.ok_or_else(|| bad(name, value, fix))?;
            }
            "queue" => {
                let queue = value.parse::<u32>().ok();
                let fix = "send how many calls may wait, such as 1024";
                self.limits.queue_max = queue.ok_or_else(|| bad(name, value, fix))? as usize;
            }
            _ => {
                let fix = format!("the settings are {NAMES}");
                return Err(BadField::new(name, "there is no such setting", fix));
            }
        }
        Ok(())
    }

    /// The spec of a function with these settings, and what is decided when its code is
    /// known.
    pub(crate) fn into_spec(
        self,
        name: FunctionName,
    ) -> Result<(FunctionSpec, Undecided, Named), BadField> {
        let undecided = Undecided {
            has_no_runtime: self.runtime.is_none(),
            has_no_handlers: self.handlers.is_none(),
            has_no_memory: !self.has_memory,
            known_runtime: None,
            default_memory_bytes: self.limits.memory_bytes_max,
        };
        let network = match (self.has_host_network, self.has_network) {
            (true, _) => Network::Host,
            (false, is_on) if is_on || !self.host_ports.is_empty() => Network::Own {
                host_ports: self.host_ports,
            },
            (false, _) => Network::None,
        };
        let spec = FunctionSpec {
            name,
            runtime: self.runtime.unwrap_or(Runtime::Nodejs),
            entry: Entry::Convention,
            handlers: self.handlers.unwrap_or(1),
            envs: self.envs,
            network,
            allow_hosts: self.allow_hosts,
            allow_scripts: self.allow_scripts,
            cors: cors(&self.cors)?,
            limits: self.limits,
        };
        Ok((spec, undecided, self.named))
    }
}

fn number(name: &str, value: &str, max: u64) -> Result<u64, BadField> {
    let number = value.trim().parse::<u64>().ok();
    let number = number.filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| bad(name, value, "send a whole number from 1 on"))
}

fn switch(name: &str, value: &str) -> Result<bool, BadField> {
    quantity::switch(value).ok_or_else(|| bad(name, value, "send true or false"))
}

fn port(name: &str, value: &str) -> Result<u16, BadField> {
    let port = number(name, value, u64::from(u16::MAX))?;
    u16::try_from(port).map_err(|_large| bad(name, value, "send a port from 1 to 65535"))
}

fn host(name: &str, value: &str) -> Result<HostPattern, BadField> {
    let fix = "send such as example.org, *.example.org, 10.0.0.7:8080 or [::1]:8080";
    value.parse().map_err(|_bad| bad(name, value, fix))
}

/// The pages that may call; none where that is left to the node.
fn cors(given: &[String]) -> Result<Option<Cors>, BadField> {
    let text = given.join(",");
    match text.trim() {
        "" if given.is_empty() => Ok(None),
        "default" => Ok(None),
        text => text.parse().map(Some).map_err(|bad: faas::BadCors| {
            let fix = "send origins such as https://app.example.com, *, none, function, or default \
                       for the node's own setting";
            BadField::new("cors", bad.to_string(), fix)
        }),
    }
}

fn bad(name: &str, value: &str, fix: &str) -> BadField {
    let shown: String = value.chars().take(80).collect();
    BadField::new(name, format!("{shown:?} is not valid"), fix)
}
