//! Every bound of the platform, by name.

use std::time::Duration;

/// The bounds of one node. A function's own are in [`FunctionLimits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request or reply body.
    pub payload_bytes_max: usize,
    /// Largest header block of a request or reply, in the form of the handler protocol.
    pub headers_bytes_max: usize,
    /// Longest query string.
    pub query_bytes_max: usize,
    /// Invocations that run after their caller was answered (`X-tinyFaaS-Async`), all together.
    pub async_invocations_max: usize,
    /// How long such an invocation, once accepted, may take to finish when the node stops. Together
    /// with two times `drain` below the 90 s that systemd gives.
    pub async_drain: Duration,
    /// Refusals in a second that are told at once; more are held back.
    pub refusals_free_per_second: u32,
    /// How long a refusal is held back; less than a CoAP request may go unacknowledged.
    pub hold_back: Duration,
    /// Refusals that are held back at once; more are told at once.
    pub held_back_max: usize,
    /// Functions that can be deployed.
    pub functions_max: usize,
    /// Handlers ("threads") of one function.
    pub handlers_max: u16,

    /// How long a handler may take from its start to its hello.
    pub handler_start: Duration,
    /// How long a handler may take to confirm a cancelled invocation before it is replaced.
    pub cancel_grace: Duration,
    /// How long a handler that was told to stop may take to exit before it is killed.
    pub stop_grace: Duration,
    /// How often an idle handler is asked whether it lives.
    pub health_interval: Duration,
    /// How long a handler may take to answer that before it is replaced.
    pub health_timeout: Duration,
    /// Instances of a handler that asked to be replaced and finish what they have beside the one that
    /// serves; one more finishes before its successor starts.
    pub leaving_max: usize,
    /// How long handlers of a node that stops may finish what they have. Those of a function that
    /// is replaced or deleted have as long as its deadline, and at least this.
    pub drain: Duration,
    /// First pause before a handler that died is started again; doubles each time.
    pub restart_pause_min: Duration,
    /// Longest pause before a handler that keeps dying is started again.
    pub restart_pause_max: Duration,
    /// The longest of these pauses that an invocation waits for; it is refused where a longer one
    /// is left.
    pub restart_waited_max: Duration,
    /// A handler that has lived this long counts as well again.
    pub restart_forget: Duration,

    /// Largest archive as it is sent.
    pub archive_packed_bytes_max: u64,
    /// Largest archive when unpacked.
    pub archive_unpacked_bytes_max: u64,
    /// Largest ratio of unpacked to packed size, counted from 1 MiB unpacked on.
    pub archive_ratio_max: u64,
    /// Entries in an archive.
    pub archive_files_max: usize,
    /// Folders within folders in an archive.
    pub archive_depth_max: usize,
    /// Longest path in an archive, in bytes.
    pub archive_name_bytes_max: usize,
    /// Redirects that `uploadURL` follows.
    pub download_redirects_max: u32,
    /// How long a download may take.
    pub download: Duration,
    /// Environment variables of one function.
    pub envs_max: usize,
    /// All names and values of a function's environment variables together.
    pub envs_bytes_max: usize,

    /// Hosts that a function may send requests to.
    pub allow_hosts_max: usize,
    /// Requests that one call may have sent and not yet read to their end.
    pub outbound_at_once_max: usize,
    /// How long a function's request to another host may take to connect.
    pub outbound_connect: Duration,
    /// How long a function's request may wait for the next piece of its response.
    pub outbound_idle: Duration,

    /// Ports of this machine that a function may name.
    pub host_ports_max: usize,
    /// Connections at once from a sandbox with a network of its own, and as many flows of datagrams.
    pub network_connections_max: usize,
    /// How long a connection from such a sandbox may take to be made.
    pub network_connect: Duration,
    /// How long a flow of datagrams from such a sandbox waits for the next reply.
    pub network_datagrams_idle: Duration,

    /// How long the status waits for what the backend can do on this host.
    pub report: Duration,

    /// Those of builds.
    pub builds: BuildLimits,
    /// Those of WebAssembly functions.
    pub wasm: WasmLimits,
    /// Deployments that are worked on at once; more wait.
    pub deployments_at_once_max: usize,
    /// How long a function that is started holds one of these places; from then on it is taken to
    /// wait for something, such as a server that does not answer.
    pub start_slot: Duration,
    /// Functions that load for longer than that; more keep their places.
    pub slow_starts_max: usize,
    /// Deployments that wait; more are refused.
    pub deployments_waiting_max: usize,
    /// Longest deadline that a function can ask for.
    pub deadline_max: Duration,
    /// First pause before a stored function that could not be brought back is tried again; it
    /// doubles each time.
    pub restore_pause_min: Duration,
    /// Longest such pause.
    pub restore_pause_max: Duration,
    /// Requests to the management service with the largest body that are in memory at once; more
    /// are refused.
    pub uploads_at_once_max: u64,
    /// Space that the store keeps for deleting functions on a full disk.
    pub store_reserve_bytes: u64,

    /// What the log of one function keeps in memory.
    pub log_bytes_max: usize,
    /// Longest line of a log; the rest becomes the next line.
    pub log_line_bytes_max: usize,
    /// Clients of the management service that read or follow logs at once; more are refused.
    pub log_readers_max: usize,
    /// Time of a core, in hundredths, that reading what one function prints may take.
    pub log_core_percent_max: u32,
    /// Time of a core, in hundredths, that reading what all functions print may take.
    pub logs_core_percent_max: u32,

    /// How long an HTTP client may take to send its request's head.
    pub http_head: Duration,
    /// How long an HTTP client may take between two pieces of a body, either way.
    pub http_idle: Duration,
    /// Bytes a second that a client has to send of a body, or take of a reply, at the least.
    pub pace_bytes_min: u64,
    /// Header fields of one HTTP/1.1 request.
    pub http_fields_max: usize,
    /// Requests at once on one HTTP/2 connection, gRPC included.
    pub http2_streams_max: u32,
    /// What the node holds in memory for the clients of all endpoints together: heads, bodies,
    /// replies, connections and what keeps them.
    pub client_bytes_max: usize,
    /// What it holds for one client: an address, or the /64 of one.
    pub client_share_bytes_max: usize,
    /// Open connections of all endpoints together. The node allows fewer where the system grants
    /// it fewer open files.
    pub connections_max: usize,
    /// Open connections of one client.
    pub client_connections_max: usize,
    /// Open connections of the management service.
    pub management_connections_max: usize,
    /// CoAP messages that one socket remembers for their duplicates, requests that run at once on
    /// it, and separate responses that wait for their acknowledgement: as many of each.
    pub coap_exchanges_max: usize,
    /// What block-wise transfers, remembered messages and running requests may each hold in memory
    /// on one socket, real overhead counted.
    pub coap_transfer_bytes_max: usize,
}

impl Limits {
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

impl Default for Limits {
    #[expect(clippy::too_many_lines, reason = "it is a list, a line for each bound")]
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            host_ports_max: 16,
            network_connections_max: 256,
            network_connect: Duration::from_secs(30),
            network_datagrams_idle: Duration::from_secs(60),
            payload_bytes_max: 8 << 20,
            headers_bytes_max: 64 << 10,
            query_bytes_max: 8 << 10,
            async_invocations_max: 4096,
            async_drain: Duration::from_secs(65),
            refusals_free_per_second: 100,
            hold_back: Duration::from_millis(900),
            held_back_max: 4096,
            functions_max: 20_000,
            handlers_max: 256,
            handler_start: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(1),
            stop_grace: Duration::from_millis(500),
            health_interval: Duration::from_secs(10),
            health_timeout: Duration::from_secs(4),
            leaving_max: 2,
            drain: Duration::from_secs(10),
            restart_pause_min: Duration::from_millis(100),
            restart_pause_max: Duration::from_secs(60),
            restart_waited_max: Duration::from_secs(1),
            restart_forget: Duration::from_secs(30),
            archive_packed_bytes_max: 64 * MIB,
            archive_unpacked_bytes_max: 256 * MIB,
            archive_ratio_max: 200,
            archive_files_max: 20_000,
            archive_depth_max: 32,
            archive_name_bytes_max: 1024,
            download_redirects_max: 5,
            download: Duration::from_secs(120),
            envs_max: 256,
            envs_bytes_max: 64 << 10,
            allow_hosts_max: 64,
            outbound_at_once_max: 16,
            outbound_connect: Duration::from_secs(10),
            outbound_idle: Duration::from_secs(30),
            report: Duration::from_secs(10),
            builds: BuildLimits::default(),
            wasm: WasmLimits::default(),
            deployments_at_once_max: 4,
            start_slot: Duration::from_secs(1),
            slow_starts_max: 32,
            deployments_waiting_max: 1024,
            deadline_max: Duration::from_secs(24 * 60 * 60),
            restore_pause_min: Duration::from_secs(5),
            restore_pause_max: Duration::from_secs(300),
            uploads_at_once_max: 2,
            store_reserve_bytes: MIB,
            log_bytes_max: 256 << 10,
            log_line_bytes_max: 4 << 10,
            log_readers_max: 32,
            log_core_percent_max: 5,
            logs_core_percent_max: 20,
            http_head: Duration::from_secs(10),
            http_idle: Duration::from_secs(30),
            pace_bytes_min: 1 << 10,
            http_fields_max: 100,
            http2_streams_max: 256,
            client_bytes_max: 128 << 20,
            client_share_bytes_max: 64 << 20,
            connections_max: 10_000,
            client_connections_max: 5000,
            management_connections_max: 256,
            coap_exchanges_max: 262_144,
            coap_transfer_bytes_max: 64 << 20,
        }
    }
}

/// The bounds of builds: of installing dependencies and of compiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildLimits {
    /// How long the installation of dependencies or a compilation may take.
    pub time: Duration,
    /// Largest result of a build.
    pub bytes_max: u64,
    /// What all kept build results may take together; the least recently used go first.
    pub cache_bytes_max: u64,
    /// What the compiled standard libraries of Go may take together.
    pub go_cache_bytes_max: u64,
    /// What a build leaves free on the disk; kept results go to keep it free.
    pub free_bytes_min: u64,
    /// How often the disk's free space is looked at.
    pub disk_interval: Duration,
    /// How long after a start kept results stay that no function has asked for yet: until then it
    /// may be brought back.
    pub spared_after_start: Duration,
    /// Builds at once: they are heavy.
    pub at_once_max: usize,
    /// Memory of a build.
    pub memory_bytes_max: u64,
    /// Processes and threads of a build.
    pub pids_max: u32,
    /// CPU time of a build in thousandths of a core.
    pub cpu_millis_max: u32,
    /// What a build may write to `/tmp`; counts as memory.
    pub tmp_bytes_max: u64,
    /// Open files of a build, and files in its `/tmp`.
    pub files_max: u64,
}

impl Default for BuildLimits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            time: Duration::from_secs(600),
            bytes_max: 1024 * MIB,
            cache_bytes_max: 4096 * MIB,
            go_cache_bytes_max: 512 * MIB,
            free_bytes_min: 256 * MIB,
            disk_interval: Duration::from_secs(30),
            spared_after_start: Duration::from_secs(300),
            at_once_max: 2,
            memory_bytes_max: 1024 * MIB,
            pids_max: 1024,
            cpu_millis_max: 16_000,
            tmp_bytes_max: 256 * MIB,
            files_max: 8192,
        }
    }
}

/// The bounds of WebAssembly functions, all instances of a node together or one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WasmLimits {
    /// Largest module or component.
    pub module_bytes_max: u64,
    /// Room on the disk below which kept compiled code is dropped, the least recently used first.
    pub free_bytes_min: u64,
    /// Instances that run at once on this node: the slots of the pool.
    pub instances_max: u32,
    /// Calls that wait for one of them; more are refused.
    pub waiting_max: usize,
    /// Addresses that a slot reserves for its instance's memory, which is also the memory of a
    /// function that asks for none. One that asks for more runs outside the pool. A hundred slots
    /// fit the 4 GiB of a 32-bit address space.
    pub slot_bytes_max: u64,
    /// The stack of an instance.
    pub stack_bytes_max: usize,
    /// Memories of one instance.
    pub memories_max: u32,
    /// Tables of one instance.
    pub tables_max: u32,
    /// Entries of one table.
    pub table_entries_max: usize,
    /// Core instances that make up one component's instance.
    pub core_instances_max: u32,
}

impl Default for WasmLimits {
    fn default() -> Self {
        Self {
            module_bytes_max: 24 << 20,
            free_bytes_min: 64 << 20,
            instances_max: 512,
            waiting_max: 4096,
            slot_bytes_max: 32 << 20,
            stack_bytes_max: 512 << 10,
            memories_max: 4,
            tables_max: 8,
            table_entries_max: 64 << 10,
            core_instances_max: 16,
        }
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
