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
        if is_never_reached(ip) {
            return None;
        }
        let is_reached = match self.routes.kind_of_route(ip) {
            Ok(libc::RTN_UNICAST) => true,
            Ok(libc::RTN_LOCAL) => is_named,
            Ok(_) | Err(_) => false,
        };
        is_reached.then(|| (ip, to.port()).into())
    }
}

/// Loopback, link-local and whatever else is not an address of one other machine.
fn is_never_reached(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            // `::` and what once embedded IPv4 addresses (RFC 4291, 2.5.5.1) are in ::/96.
            let is_compatible = ip.segments()[..6].iter().all(|segment| *segment == 0);
            is_compatible || ip.is_unicast_link_local() || ip.is_multicast()
        }
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
    fn loopback_link_local_and_groups_are_never_reached() {
        for to in [
            "127.0.0.1:8080",
            "127.9.9.9:8080",
            "0.0.0.0:8080",
            "0.1.2.3:8080",
            "[::1]:8080",
            "[::]:8080",
            "[::ffff:127.0.0.1]:8080",
            "[::127.0.0.1]:8080",
            "[::ffff:169.254.169.254]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "224.0.0.1:5683",
            "[ff02::fd]:5683",
            "255.255.255.255:67",
        ] {
            check(&[], to, None);
            // Not by naming the port either: the sandbox has addresses for that.
            check(&[8080, 80, 5683, 67], to, None);
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
