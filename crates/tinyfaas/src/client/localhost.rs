//! Names of this machine, which no resolver is asked for (RFC 6761, section 6.3): on a small system
//! `/etc/hosts` may lack them, and whoever runs the resolver must not answer for them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

/// This machine, in the order in which it is tried.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The addresses of a host, this machine's own for `localhost` and names that end so.
///
/// # Errors
/// If the resolver knows none.
pub(super) fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if is_local(host) {
        return Ok(LOOPBACK.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Whether a name stands for this machine.
pub(super) fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost")
}

/// A client for HTTP that knows these names.
pub(super) fn agent(config: Config) -> Agent {
    Agent::with_parts(config, DefaultConnector::default(), Names::default())
}

#[derive(Debug, Default)]
struct Names {
    others: DefaultResolver,
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        if !uri.host().is_some_and(is_local) {
            return self.others.resolve(uri, config, timeout);
        }
        let mut found = self.empty();
        LOOPBACK
            .into_iter()
            .for_each(|ip| found.push(SocketAddr::new(ip, port)));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_need_no_resolver_and_no_other_name_is_one() {
        for host in [
            "localhost",
            "LocalHost",
            "localhost.",
            "a.localhost",
            "a.b.localhost.",
        ] {
            let found = addresses(host, 7).unwrap();
            assert_eq!(found, LOOPBACK.map(|ip| SocketAddr::new(ip, 7)), "{host}");
        }
        for host in [
            "localhost.example.org",
            "mylocalhost",
            "",
            "127.0.0.1",
            "::1",
        ] {
            assert!(!is_local(host), "{host}");
        }
        assert_eq!(
            addresses("127.0.0.9", 7).unwrap(),
            ["127.0.0.9:7".parse().unwrap()]
        );
    }
}
