//! What a starting node prints.

use super::bind::Addresses;
use super::bundled::{Outcome, Result as Deployment};
use crate::config::{BackendName, Config};
use crate::output;
use std::net::{IpAddr, SocketAddr};

/// Prints what is bound, for people.
pub(crate) fn addresses(config: &Config, addresses: &Addresses) {
    output::notice(format_args!(
        "tinyFaaS {} is running\n",
        env!("CARGO_PKG_VERSION")
    ));
    row("management", &url("http", addresses.management));
    for (scheme, addr) in addresses.endpoints() {
        row(title(scheme), &url(scheme, addr));
    }
    let isolation = match config.backend {
        BackendName::Process => config.sandbox.as_str(),
        BackendName::Docker => "Docker containers",
    };
    let isolation = format!("{isolation} (tinyfaas status shows its parts)");
    row("isolation", &isolation);
    row("data", &config.data_dir.display().to_string());
    if addresses.management.is_some() && !config.is_management_insecure {
        row("token", &config.token_file.display().to_string());
    }
    output::notice("");
}

/// Prints how to call an example, or why it is not there.
pub(crate) fn example(outcome: &Outcome, addresses: &Addresses) {
    let name = outcome.name;
    match &outcome.result {
        Deployment::Deployed(runtime) => output::notice(format_args!("{name} ({runtime})")),
        Deployment::Unchanged(runtime) => {
            output::notice(format_args!("{name} ({runtime}, as before)"));
        }
        Deployment::Failed(reason) => {
            return output::notice(format_args!("{name} is not deployed: {reason}\n"));
        }
    }
    for (scheme, addr) in addresses.endpoints() {
        if let Some(addr) = addr {
            output::notice(format_args!(
                "  {}",
                command(&program(), scheme, addr, name)
            ));
        }
    }
    output::notice("");
}

/// Prints what is bound, for programs: one line.
pub(crate) fn json(addresses: &Addresses) {
    let shown = Bound {
        management: addresses.management,
        coap: addresses.coap,
        http: addresses.http,
        grpc: addresses.grpc,
        pid: std::process::id(),
    };
    let line = serde_json::to_string(&shown);
    output::notice(line.expect("the shape has only texts and a number"));
}

/// The line for programs; an address is null where the endpoint is off.
#[derive(serde::Serialize)]
struct Bound {
    management: Option<SocketAddr>,
    coap: Option<SocketAddr>,
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    pid: u32,
}

fn row(title: &str, value: &str) {
    output::notice(format_args!("  {title:<12}{value}"));
}

fn title(scheme: &str) -> &str {
    match scheme {
        "coap" => "CoAP",
        "http" => "HTTP",
        "grpc" => "gRPC",
        other => other,
    }
}

fn url(scheme: &str, addr: Option<SocketAddr>) -> String {
    addr.map_or_else(
        || "off".to_owned(),
        |addr| format!("{scheme}://{}", reachable(addr)),
    )
}

/// This program as it was called, so that a command can be copied where it is not in `PATH`.
fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "tinyfaas".to_owned())
}

/// The command that calls a function.
fn command(program: &str, scheme: &str, addr: SocketAddr, name: &str) -> String {
    let url = format!("{}/{name}", url(scheme, Some(addr)));
    match scheme {
        "http" => format!("curl {url}"),
        _ => format!("{program} invoke {url}"),
    }
}

/// An address as a client on this machine writes it.
fn reachable(addr: SocketAddr) -> String {
    match addr.ip() {
        // Takes IPv4 too, so that it does not matter which way the name is resolved.
        IpAddr::V6(ip) if ip.is_unspecified() => format!("localhost:{}", addr.port()),
        IpAddr::V4(ip) if ip.is_unspecified() => format!("127.0.0.1:{}", addr.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => addr.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_calls_an_address_that_this_machine_reaches() {
        let check = |scheme: &str, addr: &str, expected: &str| {
            let addr = addr.parse().unwrap();
            assert_eq!(command("tinyfaas", scheme, addr, "sieve"), expected);
        };
        check("http", "[::]:8000", "curl http://localhost:8000/sieve");
        check("http", "0.0.0.0:1", "curl http://127.0.0.1:1/sieve");
        check("http", "[::1]:1", "curl http://[::1]:1/sieve");
        // Debian's coap-client has another name, so it is not for everybody.
        let coap = "tinyfaas invoke coap://localhost:5683/sieve";
        check("coap", "[::]:5683", coap);
        let grpc = "tinyfaas invoke grpc://10.0.0.1:9000/sieve";
        check("grpc", "10.0.0.1:9000", grpc);
    }
}
