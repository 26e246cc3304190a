//! What a redeployment keeps: every setting that it does not name.

use crate::undecided::Undecided;
use faas::{FunctionSpec, Limits};

/// The settings that a client named.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    /// By the names of the API.
    pub(crate) names: Vec<String>,
    /// Variables that go.
    pub(crate) unset: Vec<String>,
    /// Whether all that is not named gets its default.
    pub(crate) is_reset: bool,
    /// Whether the variables are all that there are to be: the old calls send them whole.
    pub(crate) replaces_envs: bool,
}

impl Named {
    /// Whether one of these was named.
    pub(crate) fn has(&self, names: &[&str]) -> bool {
        self.names.iter().any(|name| names.contains(&name.as_str()))
    }

    /// Takes from the known function what was not named. Returns the names of what differs from
    /// the defaults.
    pub(crate) fn keep(
        &self,
        spec: &mut FunctionSpec,
        undecided: &mut Undecided,
        known: &FunctionSpec,
        limits: &Limits,
    ) -> Vec<&'static str> {
        let mut kept = Vec::new();
        undecided.known_runtime = Some(known.runtime);
        if undecided.has_no_handlers && undecided.may_be(known.runtime, spec) {
            let mut default = known.runtime.default_handlers(limits);
            keep("threads", &mut default, &known.handlers, &mut kept);
            spec.handlers = default;
        }
        if undecided.has_no_memory && undecided.may_be(known.runtime, spec) {
            let wanted = spec.limits.memory_bytes_max;
            let mut default = known.runtime.default_memory(wanted, limits);
            let memory = known.limits.memory_bytes_max;
            keep("memory", &mut default, &memory, &mut kept);
            undecided.default_memory_bytes = wanted;
            spec.limits.memory_bytes_max = default;
        }
        self.keep_envs(spec, known, &mut kept);
        if !self.has(&["network", "host_network", "host_port", "host_ports"]) {
            keep("network", &mut spec.network, &known.network, &mut kept);
        }
        if !self.has(&["allow_host", "allow_hosts"]) && undecided.may_be(known.runtime, spec) {
            keep(
                "allow_hosts",
                &mut spec.allow_hosts,
                &known.allow_hosts,
                &mut kept,
            );
        }
        if !self.has(&["allow_scripts"]) && undecided.may_be(known.runtime, spec) {
            keep(
                "allow_scripts",
                &mut spec.allow_scripts,
                &known.allow_scripts,
                &mut kept,
            );
        }
        if !self.has(&["cors"]) {
            keep("cors", &mut spec.cors, &known.cors, &mut kept);
        }
        self.keep_limits(spec, known, &mut kept);
        kept
    }

    fn keep_envs(
        &self,
        spec: &mut FunctionSpec,
        known: &FunctionSpec,
        kept: &mut Vec<&'static str>,
    ) {
        if self.replaces_envs {
            return;
        }
        let is_named = |name: &String| spec.envs.iter().any(|(named, _)| named == name);
        let stays = |(name, _): &&(String, String)| !is_named(name) && !self.unset.contains(name);
        let mut envs: Vec<_> = known.envs.iter().filter(stays).cloned().collect();
        if !envs.is_empty() {
            kept.push("envs");
        }
        envs.append(&mut spec.envs);
        spec.envs = envs;
    }

    fn keep_limits(
        &self,
        spec: &mut FunctionSpec,
        known: &FunctionSpec,
        kept: &mut Vec<&'static str>,
    ) {
        let (to, from) = (&mut spec.limits, &known.limits);
        if !self.has(&["pids"]) {
            keep("pids", &mut to.pids_max, &from.pids_max, kept);
        }
        if !self.has(&["cpu"]) {
            keep("cpu", &mut to.cpu_millis_max, &from.cpu_millis_max, kept);
        }
        if !self.has(&["tmp"]) {
            keep("tmp", &mut to.tmp_bytes_max, &from.tmp_bytes_max, kept);
        }
        if !self.has(&["tmp_files"]) {
            keep(
                "tmp_files",
                &mut to.tmp_files_max,
                &from.tmp_files_max,
                kept,
            );
        }
        if !self.has(&["open_files"]) {
            keep(
                "open_files",
                &mut to.open_files_max,
                &from.open_files_max,
                kept,
            );
        }
        if !self.has(&["deadline"]) {
            keep("deadline", &mut to.deadline, &from.deadline, kept);
        }
        if !self.has(&["queue"]) {
            keep("queue", &mut to.queue_max, &from.queue_max, kept);
        }
    }
}

fn keep<T: Clone + PartialEq>(
    name: &'static str,
    to: &mut T,
    known: &T,
    kept: &mut Vec<&'static str>,
) {
    if to != known {
        kept.push(name);
        *to = known.clone();
    }
}
