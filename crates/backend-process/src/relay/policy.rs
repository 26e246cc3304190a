//! What a sandbox may reach.

use crate::sandbox::netlink::Netlink;
use crate::sandbox::network::{HOST_ADDRESSES, name_servers};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the relay answers name queries.
const DNS: u16 = 53;

/// Decides for every connection and every flow of datagrams, by what this machine's addresses and
/// routes are at that moment.
#[derive(Debug)]
pub(crate) struct Policy {
    host_ports: Vec<u16>,
    routes: Netlink,
}

impl Policy {
    pub(crate) fn new(host_ports: Vec<u16>, routes: Netlink) -> Self {
        Self { host_ports, routes }
    }

    /// Where a connection to this address goes; none where it is refused.
    pub(crate) fn target(&self, to: SocketAddr) -> Option<SocketAddr> {
        let ip = to.ip().to_canonical();
        let is_named = self.host_ports.contains(&to.port());
        if let Some(server) = HOST_ADDRESSES.iter().position(|addr| ip == *addr) {
            return match to.port() {
                _ if is_named => Some((Ipv4Addr::LOCALHOST, to.port()).into()),
                DNS => name_servers().get(server).map(|ip| (*ip, DNS).into()),
                _ => None,
            };
        }
        if net::is_never_reached(ip) {
            return None;
        }
        // What a translator or a tunnel would send back to this machine is this machine.
        let reached = net::reached(ip);
        let may_pass = |ip| match self.routes.kind_of_route(ip) {
            Ok(libc::RTN_UNICAST) => true,
            Ok(libc::RTN_LOCAL) => is_named,
            Ok(_) | Err(_) => false,
        };
        let is_reached = may_pass(ip) && (reached == ip || !self.is_own(reached));
        is_reached.then(|| (ip, to.port()).into())
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        let kind = self.routes.kind_of_route(ip);
        kind.is_ok_and(|kind| kind == libc::RTN_LOCAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host_ports: &[u16], to: &str, expected: Option<&str>) {
        let policy = Policy::new(host_ports.to_vec(), Netlink::open().unwrap());
        let target = policy.target(to.parse().unwrap());
        let expected = expected.map(|addr| addr.parse().unwrap());
        assert_eq!(target, expected, "{to} with {host_ports:?}");
    }

    #[test]
    fn what_is_never_reached_is_refused_whatever_port_is_named() {
        for to in [
            "127.0.0.1:8080",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::7f00:1]:8080",
        ] {
            check(&[], to, None);
            // Not by naming the port either: the sandbox has addresses for that.
            check(&[8080, 80], to, None);
        }
    }

    #[test]
    fn the_hosts_addresses_are_reached_by_named_ports_only() {
        let Some(own) = own_address() else {
            // Without an interface there is no such address to refuse.
            return;
        };
        let to = SocketAddr::new(own, 8080).to_string();
        check(&[], &to, None);
        check(&[5432], &to, None);
        check(&[8080], &to, Some(&to));
    }

    #[test]
    fn the_relay_answers_for_the_host_on_named_ports() {
        check(&[5432], "192.0.0.1:5432", Some("127.0.0.1:5432"));
        check(&[5432], "192.0.0.1:5433", None);
        check(&[], "192.0.0.1:8080", None);
    }

    /// An address of this machine: the one from which it would call another.
    fn own_address() -> Option<IpAddr> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.77:9").ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback()).then_some(ip)
    }
}
