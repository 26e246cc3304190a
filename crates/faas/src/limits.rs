//! Every bound of the platform, by name.

mod bound;

pub use bound::{Bound, BoundError};

use bound::{Setting, bounds};
use std::time::Duration;

bounds! {
    /// The bounds of one node. A function's own are in [`FunctionLimits`].
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Limits {
        /// Largest request or reply body.
        pub payload_bytes_max: usize = 8 << 20,
        /// Largest header block of a request or reply, in the form of the handler protocol.
        pub headers_bytes_max: usize = 64 << 10,
        /// Longest query string.
        pub query_bytes_max: usize = 8 << 10,
        /// Invocations that run after their caller was answered (`X-tinyFaaS-Async`), all together.
        pub async_invocations_max: usize = 4096,
        /// How long such an invocation, once accepted, may take to finish when the node stops. Together
        /// with two times `drain` below the 90 s that systemd gives.
        pub async_drain: Duration = Duration::from_secs(65),
        /// Refusals in a second that are told at once; more are held back.
        pub refusals_free_per_second: u32 = 100,
        /// How long a refusal is held back at most, and seven tenths of that at least; less than a CoAP
        /// request may go unacknowledged.
        pub hold_back: Duration = Duration::from_millis(900),
        /// Refusals that are held back at once; more are told at once.
        pub held_back_max: usize = 4096,
        /// Functions that can be deployed.
        pub functions_max: usize = 20_000,
        /// Handlers ("threads") of one function.
        pub handlers_max: u16 = 256,
        /// Memory that a handler can be given: what the machine has.
        pub handler_memory_bytes_max: u64 = 1 << 40,
        /// CPU time that a handler can be given, in thousandths of a core: what the machine has.
        pub handler_cpu_millis_max: u32 = 1_024_000,

        /// How long a handler may take from its start to its hello.
        pub handler_start: Duration = Duration::from_secs(30),
        /// How long a handler may take to confirm a cancelled invocation before it is replaced.
        pub cancel_grace: Duration = Duration::from_secs(1),
        /// How long a handler that was told to stop may take to exit before it is killed.
        pub stop_grace: Duration = Duration::from_millis(500),
        /// How often an idle handler is asked whether it lives.
        pub health_interval: Duration = Duration::from_secs(10),
        /// How long a handler may take to answer that before it is replaced.
        pub health_timeout: Duration = Duration::from_secs(4),
        /// Instances of a handler that asked to be replaced and finish what they have beside the one that
        /// serves; one more finishes before its successor starts.
        pub leaving_max: usize = 2,
        /// How long handlers of a node that stops may finish what they have. Those of a function that
        /// is replaced or deleted have as long as its deadline, and at least this.
        pub drain: Duration = Duration::from_secs(10),
        /// First pause before a handler that died is started again; doubles each time.
        pub restart_pause_min: Duration = Duration::from_millis(100),
        /// Longest pause before a handler that keeps dying is started again.
        pub restart_pause_max: Duration = Duration::from_secs(60),
        /// The longest of these pauses that an invocation waits for; it is refused where a longer one
        /// is left.
        pub restart_waited_max: Duration = Duration::from_secs(1),
        /// A handler that has lived this long counts as well again.
        pub restart_forget: Duration = Duration::from_secs(30),

        /// Largest archive as it is sent.
        pub archive_packed_bytes_max: u64 = 64 << 20,
        /// Largest archive when unpacked.
        pub archive_unpacked_bytes_max: u64 = 256 << 20,
        /// Largest ratio of unpacked to packed size, counted from 1 MiB unpacked on.
        pub archive_ratio_max: u64 = 200,
        /// Entries in an archive.
        pub archive_files_max: usize = 20_000,
        /// Folders within folders in an archive.
        pub archive_depth_max: usize = 32,
        /// Longest path in an archive, in bytes.
        pub archive_name_bytes_max: usize = 1024,
        /// What a header in a tar may take with its long names, which are kept in memory.
        pub archive_header_bytes_max: u64 = 1 << 20,
        /// Redirects that `uploadURL` follows.
        pub download_redirects_max: u32 = 5,
        /// How long a download may take.
        pub download: Duration = Duration::from_secs(120),
        /// Environment variables of one function.
        pub envs_max: usize = 256,
        /// All names and values of a function's environment variables together.
        pub envs_bytes_max: usize = 64 << 10,

        /// Hosts that a function may send requests to.
        pub allow_hosts_max: usize = 64,
        /// Origins whose pages may call a function.
        pub cors_origins_max: usize = 64,
        /// Requests that one call may have sent and not yet read to their end.
        pub outbound_at_once_max: usize = 16,
        /// How long a function's request to another host may take to connect.
        pub outbound_connect: Duration = Duration::from_secs(10),
        /// How long a function's request may wait for the next piece of its response.
        pub outbound_idle: Duration = Duration::from_secs(30),
        /// Connections to one host that are kept for a function's next request.
        pub outbound_kept_max: usize = 4,
        /// How long such a connection is kept.
        pub outbound_kept: Duration = Duration::from_secs(15),

        /// Ports of this machine that a function may name.
        pub host_ports_max: usize = 16,
        /// Connections at once from a sandbox with a network of its own, and as many flows of datagrams.
        pub network_connections_max: usize = 256,
        /// How long a connection from such a sandbox may take to be made.
        pub network_connect: Duration = Duration::from_secs(30),
        /// How long a flow of datagrams from such a sandbox waits for the next reply.
        pub network_datagrams_idle: Duration = Duration::from_secs(60),

        /// How long the status waits for what the backend can do on this host.
        pub report: Duration = Duration::from_secs(10),

        /// Those of builds.
        pub builds: BuildLimits = BuildLimits::default(),
        /// Those of WebAssembly functions.
        pub wasm: WasmLimits = WasmLimits::default(),
        /// Deployments that are worked on at once; more wait.
        pub deployments_at_once_max: usize = 4,
        /// How long a function that is started holds one of these places; from then on it is taken to
        /// wait for something, such as a server that does not answer.
        pub start_slot: Duration = Duration::from_secs(1),
        /// Functions that load for longer than that; more keep their places.
        pub slow_starts_max: usize = 32,
        /// Deployments that wait; more are refused.
        pub deployments_waiting_max: usize = 1024,
        /// Longest deadline that a function can ask for.
        pub deadline_max: Duration = Duration::from_secs(24 * 60 * 60),
        /// First pause before a stored function that could not be brought back is tried again; it
        /// doubles each time.
        pub restore_pause_min: Duration = Duration::from_secs(5),
        /// Longest such pause.
        pub restore_pause_max: Duration = Duration::from_secs(300),
        /// Requests to the management service with the largest body that are in memory at once; more
        /// are refused.
        pub uploads_at_once_max: u64 = 2,
        /// What such a request may have besides its archive: settings and the frame around both.
        pub upload_settings_bytes_max: u64 = 1 << 20,
        /// Parts of a multipart body that are looked at.
        pub upload_parts_max: usize = 8,
        /// How many of the largest bodies are read, and not kept, of one that is too large, so that
        /// its client comes to read the answer.
        pub upload_discarded_max: u64 = 2,
        /// Slow uploads that give way in a row to one that needs memory.
        pub upload_evictions_max: usize = 64,
        /// How long an upload that gives way may take to end.
        pub upload_end: Duration = Duration::from_secs(1),
        /// Backups that are written at once; more are refused.
        pub backups_at_once_max: usize = 2,
        /// What is kept of a backup until its client takes it.
        pub backup_ahead_bytes_max: usize = 1 << 20,
        /// Changes that wait for the store; more wait for a place.
        pub store_writes_waiting_max: usize = 1024,
        /// Changes that one commit of the store takes along.
        pub store_writes_at_once_max: usize = 256,
        /// Space that the store keeps for deleting functions on a full disk.
        pub store_reserve_bytes: u64 = 1 << 20,

        /// What the log of one function keeps in memory.
        pub log_bytes_max: usize = 256 << 10,
        /// Longest line of a log; the rest becomes the next line.
        pub log_line_bytes_max: usize = 4 << 10,
        /// Clients of the management service that read or follow logs at once; more are refused.
        pub log_readers_max: usize = 32,
        /// Time of a core, in hundredths, that reading what one function prints may take.
        pub log_core_percent_max: u32 = 5,
        /// Time of a core, in hundredths, that reading what all functions print may take.
        pub logs_core_percent_max: u32 = 20,

        /// How long an HTTP client may take to send its request's head.
        pub http_head: Duration = Duration::from_secs(10),
        /// How long an HTTP client may take between two pieces of a body, either way.
        pub http_idle: Duration = Duration::from_secs(30),
        /// Bytes a second that a client has to send of a body, or take of a reply, at the least.
        pub pace_bytes_min: u64 = 1 << 10,
        /// Header fields of one request over HTTP/1.1, HTTP/2 or gRPC.
        pub http_fields_max: usize = 100,
        /// Longest method of an HTTP request.
        pub http_method_bytes_max: usize = 64,
        /// What the line of an HTTP/1.1 request may have besides its query: method, path and version.
        pub http_line_bytes_max: usize = 1 << 10,
        /// What is allocated for an announced body before any of it has come.
        pub http_body_reserve_bytes_max: usize = 1 << 20,
        /// What an HTTP/2 client may send before it is read, on one stream and on all of a connection.
        pub http2_window_bytes: u32 = 256 << 10,
        /// What is taken from a reply before an HTTP/2 client has taken what came before.
        pub http2_send_bytes_max: usize = 64 << 10,
        /// Requests at once on one HTTP/2 connection, gRPC included.
        pub http2_streams_max: u32 = 256,
        /// What the node holds in memory for the clients of all endpoints together: heads, bodies,
        /// replies, connections and what keeps them.
        pub client_bytes_max: usize = 128 << 20,
        /// What it holds for one client: an address, or the /64 of one.
        pub client_share_bytes_max: usize = 64 << 20,
        /// Open connections of all endpoints together. The node allows fewer where the system grants
        /// it fewer open files.
        pub connections_max: usize = 10_000,
        /// Open connections of one client.
        pub client_connections_max: usize = 5000,
        /// Connections that the kernel keeps for a listener until they are accepted; it may grant fewer.
        pub connections_waiting_max: u32 = 1024,
        /// Connections that were told to end and still have their files; no more are accepted meanwhile.
        pub connections_leaving_max: usize = 8,
        /// Idle connections that are closed in a row to make room for one.
        pub connection_evictions_max: usize = 8,
        /// How long to wait before accepting again where the system had no descriptor or memory for a
        /// connection.
        pub accept_pause: Duration = Duration::from_millis(50),
        /// An upload that brought less than that lately gives way where others need its place or its
        /// memory. Half of what came is forgotten each second.
        pub upload_slow_bytes: u64 = 16 << 10,
        /// What an upload is taken to have brought when it begins.
        pub upload_first_bytes: u64 = 64 << 10,
        /// Open connections of the management service.
        pub management_connections_max: usize = 512,
        /// CoAP messages that one socket remembers for their duplicates, requests that run at once on
        /// it, and separate responses that wait for their acknowledgement: as many of each.
        pub coap_exchanges_max: usize = 262_144,
        /// What block-wise transfers, remembered messages and running requests may each hold in memory
        /// on one socket, real overhead counted.
        pub coap_transfer_bytes_max: usize = 64 << 20,
        /// How long a block-wise transfer is kept after its last block.
        pub coap_transfer_idle: Duration = Duration::from_secs(120),
        /// What the kernel keeps for one CoAP socket until it is read; it may grant less.
        pub coap_receive_bytes_max: usize = 4 << 20,
        /// CoAP messages that wait for room in one socket; more are dropped.
        pub coap_unsent_max: usize = 1024,
    }
}

impl Limits {
    /// All of them, by the names that [`Limits::set`] knows, groups after the others.
    #[must_use]
    pub fn list(&self) -> Vec<Bound> {
        let mut list = Vec::new();
        Setting::list(self, String::new(), "", &mut list);
        list.sort_by_key(|bound| bound.name.contains('.'));
        list
    }

    /// Sets one by its name, such as `payload-bytes-max` or `builds.time`.
    ///
    /// # Errors
    /// If there is none of that name, or the value is not of its kind or zero.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), BoundError> {
        Setting::set(self, Some(name), name, value)
    }

    /// Whether they agree with each other.
    ///
    /// # Errors
    /// With the first two that don't.
    pub fn check(&self) -> Result<(), BoundError> {
        let in_order = |smaller, larger, is_right: bool| match is_right {
            true => Ok(()),
            false => Err(BoundError::Order { smaller, larger }),
        };
        in_order(
            "restart-pause-min",
            "restart-pause-max",
            self.restart_pause_min <= self.restart_pause_max,
        )?;
        in_order(
            "restore-pause-min",
            "restore-pause-max",
            self.restore_pause_min <= self.restore_pause_max,
        )?;
        in_order(
            "client-share-bytes-max",
            "client-bytes-max",
            self.client_share_bytes_max <= self.client_bytes_max,
        )?;
        in_order(
            "client-connections-max",
            "connections-max",
            self.client_connections_max <= self.connections_max,
        )?;
        in_order(
            "log-line-bytes-max",
            "log-bytes-max",
            self.log_line_bytes_max <= self.log_bytes_max,
        )?;
        in_order(
            "upload-slow-bytes",
            "upload-first-bytes",
            self.upload_slow_bytes <= self.upload_first_bytes,
        )?;
        in_order(
            "health-timeout",
            "health-interval",
            self.health_timeout <= self.health_interval,
        )?;
        self.check_ranges()
    }

    /// Whether protocols and the system take them.
    fn check_ranges(&self) -> Result<(), BoundError> {
        // RFC 9113, section 6.5.2; the lengths and counts of the system's calls are `int`.
        let signed = u64::from(i32::MAX.unsigned_abs());
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let waiting = u64::from(self.connections_waiting_max);
        let ranges = [
            (
                "http2-window-bytes",
                u64::from(self.http2_window_bytes),
                signed,
            ),
            (
                "http2-send-bytes-max",
                wide(self.http2_send_bytes_max),
                signed,
            ),
            (
                "coap-receive-bytes-max",
                wide(self.coap_receive_bytes_max),
                signed,
            ),
            ("connections-waiting-max", waiting, signed),
        ];
        let over = ranges.into_iter().find(|(_, value, max)| value > max);
        over.map_or(Ok(()), |(name, value, max)| {
            Err(BoundError::Range {
                name,
                max: max.to_string(),
                value: value.to_string(),
            })
        })
    }

    /// What a build may take, as a handler's bounds are told.
    #[must_use]
    pub fn of_build(&self) -> FunctionLimits {
        FunctionLimits {
            memory_bytes_max: self.builds.memory_bytes_max,
            pids_max: self.builds.pids_max,
            cpu_millis_max: self.builds.cpu_millis_max,
            tmp_bytes_max: self.builds.tmp_bytes_max,
            tmp_files_max: self.builds.files_max,
            open_files_max: self.builds.files_max,
            deadline: self.builds.time,
            ..FunctionLimits::default()
        }
    }
}

bounds! {
    /// The bounds of builds: of installing dependencies and of compiling.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct BuildLimits {
        /// How long the installation of dependencies or a compilation may take.
        pub time: Duration = Duration::from_secs(600),
        /// Largest result of a build.
        pub bytes_max: u64 = 1024 << 20,
        /// What all kept build results may take together; the least recently used go first.
        pub cache_bytes_max: u64 = 4096 << 20,
        /// What the compiled standard libraries of Go may take together.
        pub go_cache_bytes_max: u64 = 512 << 20,
        /// What a build leaves free on the disk; kept results go to keep it free.
        pub free_bytes_min: u64 = 256 << 20,
        /// How often the disk's free space is looked at.
        pub disk_interval: Duration = Duration::from_secs(30),
        /// How long after a start kept results stay that no function has asked for yet: until then it
        /// may be brought back.
        pub spared_after_start: Duration = Duration::from_secs(300),
        /// How long a build may wait for others to end; longer than a build may take, so that those
        /// which hang don't make it fail.
        pub wait: Duration = Duration::from_secs(900),
        /// Builds at once: they are heavy. One name has one of them at most.
        pub at_once_max: usize = 3,
        /// Those of one client, an address or the /64 of one; more of it wait, so that it never has all.
        pub client_at_once_max: usize = 2,
        /// Memory of a build.
        pub memory_bytes_max: u64 = 1024 << 20,
        /// Processes and threads of a build.
        pub pids_max: u32 = 1024,
        /// CPU time of a build in thousandths of a core.
        pub cpu_millis_max: u32 = 16_000,
        /// What a build may write to `/tmp`; counts as memory.
        pub tmp_bytes_max: u64 = 256 << 20,
        /// Open files of a build, and files in its `/tmp`.
        pub files_max: u64 = 8192,
    }
}

bounds! {
    /// The bounds of WebAssembly functions, all instances of a node together or one instance.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct WasmLimits {
        /// Largest module or component.
        pub module_bytes_max: u64 = 24 << 20,
        /// Room on the disk below which kept compiled code that no function uses is dropped, the least
        /// recently used first. Where that is not enough, new code is kept in memory.
        pub free_bytes_min: u64 = 64 << 20,
        /// What compiled code may take in memory together where the disk has no room for it.
        pub code_in_memory_bytes_max: u64 = 64 << 20,
        /// Instances that run at once on this node: the slots of the pool.
        pub instances_max: u32 = 512,
        /// Calls that wait for one of them; more are refused.
        pub waiting_max: usize = 4096,
        /// Addresses that a slot reserves for its instance's memory, which is also the memory of a
        /// function that asks for none. One that asks for more runs outside the pool. A hundred slots
        /// fit the 4 GiB of a 32-bit address space.
        pub slot_bytes_max: u64 = 32 << 20,
        /// The stack of an instance.
        pub stack_bytes_max: usize = 512 << 10,
        /// Memories of one instance.
        pub memories_max: u32 = 4,
        /// Tables of one instance.
        pub tables_max: u32 = 8,
        /// Entries of one table.
        pub table_entries_max: usize = 64 << 10,
        /// Core instances that make up one component's instance.
        pub core_instances_max: u32 = 16,
    }
}

/// What one function may use; the resources are per handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionLimits {
    /// Memory of a handler, swap is none.
    pub memory_bytes_max: u64,
    /// Processes and threads of a handler.
    pub pids_max: u32,
    /// CPU time of a handler in thousandths of a core.
    pub cpu_millis_max: u32,
    /// What a handler may write to `/tmp`; counts as memory.
    pub tmp_bytes_max: u64,
    /// Files that a handler may make in `/tmp`.
    pub tmp_files_max: u64,
    /// Open files of a handler.
    pub open_files_max: u64,
    /// How long an invocation may take, waiting included.
    pub deadline: Duration,
    /// Invocations that wait for a handler; more are refused.
    pub queue_max: usize,
}

impl Default for FunctionLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 << 20,
            pids_max: 128,
            cpu_millis_max: 1000,
            tmp_bytes_max: 64 << 20,
            tmp_files_max: 4096,
            open_files_max: 1024,
            deadline: Duration::from_secs(60),
            queue_max: 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_set_by_the_name_and_value_that_it_is_listed_with() {
        let defaults = Limits::default();
        let mut limits = defaults.clone();
        let list = defaults.list();
        assert!(list.iter().any(|bound| bound.name == "wasm.waiting-max"));
        for bound in &list {
            limits.set(&bound.name, &bound.value).unwrap();
            assert!(!bound.meaning.is_empty(), "{}", bound.name);
        }
        assert_eq!(limits, defaults);
        for bound in &list {
            let other = if bound.value == "7m" { "8m" } else { "7m" };
            let other = match limits.set(&bound.name, other) {
                Ok(()) => other,
                Err(_) => "7",
            };
            limits.set(&bound.name, other).unwrap();
            assert_ne!(limits, defaults, "{} is not what was set", bound.name);
            limits.set(&bound.name, &bound.value).unwrap();
            assert_eq!(limits, defaults, "{} set another one", bound.name);
        }
    }

    #[test]
    fn bounds_are_written_as_sizes_times_and_numbers() {
        let mut limits = Limits::default();
        limits.set("payload-bytes-max", "2MiB").unwrap();
        limits.set("builds.time", "1h").unwrap();
        limits.set("wasm.instances-max", "64").unwrap();
        assert_eq!(limits.payload_bytes_max, 2 << 20);
        assert_eq!(limits.builds.time, Duration::from_secs(3600));
        assert_eq!(limits.wasm.instances_max, 64);
        let error = |limits: &mut Limits, name, value| limits.set(name, value).unwrap_err();
        let unknown = ["payload", "builds", "builds.tme", "payload-bytes-max.x", ""];
        for name in unknown {
            let expected = BoundError::Unknown(name.to_owned());
            assert_eq!(error(&mut limits, name, "1"), expected);
        }
        for (name, value, hint) in [
            ("payload-bytes-max", "2 potatoes", "512KiB"),
            ("payload-bytes-max", "0", "512KiB"),
            ("builds.time", "soon", "30s"),
            ("builds.time", "0s", "30s"),
            ("handlers-max", "70000", "whole number"),
            ("handlers-max", "2k", "whole number"),
        ] {
            let text = error(&mut limits, name, value).to_string();
            assert!(text.contains(hint) && text.contains(name), "{text}");
        }
    }

    #[test]
    fn bounds_that_contradict_each_other_are_named() {
        assert_eq!(Limits::default().check(), Ok(()));
        let mut limits = Limits::default();
        limits.set("client-share-bytes-max", "1GiB").unwrap();
        let text = limits.check().unwrap_err().to_string();
        assert!(text.contains("client-bytes-max"), "{text}");
    }

    #[test]
    fn bounds_that_a_protocol_or_the_system_does_not_take_are_named() {
        let names = [
            "http2-window-bytes",
            "http2-send-bytes-max",
            "coap-receive-bytes-max",
            "connections-waiting-max",
        ];
        for name in names {
            let mut limits = Limits::default();
            limits.set(name, "2147483647").unwrap();
            assert_eq!(limits.check(), Ok(()));
            limits.set(name, "2147483648").unwrap();
            let text = limits.check().unwrap_err().to_string();
            let expected = format!("{name} must be at most 2147483647, got 2147483648");
            assert_eq!(text, expected);
        }
    }
}
