//! Handlers as sandboxed processes of the host.
