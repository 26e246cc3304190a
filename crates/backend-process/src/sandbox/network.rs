//! What a sandbox reaches of the network, and how its own network namespace is set up.
//!
//! The namespace has loopback and one interface, whose packets go to the relay
//! ([`crate::relay`]), a process outside. The relay decides what is reached; nothing in here could
//! change that, so that no rule has to hold inside.

use super::netlink::Netlink;
use super::step::{Failure, Step};
use super::sys::{NETWORK_FD, make_interface, take_inherited};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The interface to the relay, as programs in the sandbox see it.
const INTERFACE: &str = "tinyfaas0";
const LOOPBACK: u32 = 1;

/// The sandbox's own addresses. 192.0.0.0/29 is set aside for ends of tunnels on one machine
/// (RFC 7335); the other is a unique local address (RFC 4193).
const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
const PREFIX_V4: u8 = 29;
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x696e, 0x7966, 0, 0, 0, 0, 2);
const PREFIX_V6: u8 = 64;

/// Where the relay answers for this machine: its name servers, in their order, and on the first
/// the ports that were named.
pub(crate) const HOST_ADDRESSES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 0, 1),
    Ipv4Addr::new(192, 0, 0, 3),
    Ipv4Addr::new(192, 0, 0, 4),
];

/// The name of the first of them in the sandbox.
const HOST_NAME: &str = "host.internal";

/// The largest packets: they never leave this machine.
pub(crate) const MTU: u16 = 65_520;

/// The most ports of this machine that one function may name.
pub(crate) const HOST_PORTS_MAX: usize = 16;

/// Where the kernel makes interfaces.
const TUN: &str = "/dev/net/tun";

/// What a sandbox reaches of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reach {
    Nothing,
    /// Other machines, through a relay, and these ports of this machine.
    Relay {
        host_ports: Vec<u16>,
    },
    /// All that this machine reaches, itself included.
    Host,
}

impl Reach {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

/// Whether this machine can make networks for sandboxes; else what to do.
pub(crate) fn availability() -> Result<(), String> {
    open_tun().map(drop)
}

fn open_tun() -> Result<fs::File, String> {
    let opened = fs::File::options().read(true).write(true).open(TUN);
    opened.map_err(|error| {
        format!(
            "{TUN} can't be opened ({error}): load it with modprobe tun, allow it with chmod 666 \
             {TUN}, or start the container with --device {TUN}"
        )
    })
}

/// Sets up the namespace and hands its interface to the relay. Needs the rights that a new user
/// namespace gives.
pub(crate) fn set_up(reach: &Reach) -> Result<(), Failure> {
    let Reach::Relay { host_ports } = reach else {
        return Ok(());
    };
    let relay = take_inherited(NETWORK_FD);
    let tun = open_tun().map_err(io::Error::other).step("network")?;
    let index = make_interface(tun.as_fd(), INTERFACE).step("network interface")?;
    configure(index).step("network addresses")?;
    let listeners = listen(host_ports).step("ports of the host")?;
    let fds = std::iter::once(tun.as_fd()).chain(listeners.iter().map(AsFd::as_fd));
    hand_over(&relay, &fds.collect::<Vec<_>>()).step("network relay")
}

fn configure(index: u32) -> io::Result<()> {
    let netlink = Netlink::open()?;
    netlink.turn_on(LOOPBACK, None)?;
    netlink.turn_on(index, Some(u32::from(MTU)))?;
    netlink.add_address(index, ADDRESS_V4.into(), PREFIX_V4)?;
    netlink.add_default_route(index, ADDRESS_V4.into())?;
    // A host without IPv6 has none to give.
    let with_v6 = netlink
        .add_address(index, ADDRESS_V6.into(), PREFIX_V6)
        .and_then(|()| netlink.add_default_route(index, ADDRESS_V6.into()));
    let _has_v6 = with_v6.is_ok();
    Ok(())
}

/// Takes the named ports on the sandbox's own loopback, where the relay accepts connections.
fn listen(ports: &[u16]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for &port in ports {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?);
        listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)));
    }
    Ok(listeners)
}

fn hand_over(relay: &OwnedFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1 + 2 * HOST_PORTS_MAX))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many ports of the host are named"));
    }
    sendmsg(
        relay,
        &[IoSlice::new(b"n")],
        &mut message,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The `resolv.conf` of a sandbox: the host's, with the relay in place of each name server.
pub(crate) fn resolv_conf(of_host: &str) -> String {
    let is_server = |line: &&str| line.split_whitespace().next() == Some("nameserver");
    let servers = of_host.lines().filter(is_server).count().max(1);
    let shown = HOST_ADDRESSES.iter().take(servers);
    let shown = shown.map(|addr| format!("nameserver {addr}\n"));
    let others = of_host.lines().filter(|line| !is_server(line));
    shown
        .chain(others.map(|line| format!("{line}\n")))
        .collect()
}

/// The name servers of this machine, as it looks for them now.
pub(crate) fn name_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default();
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    let mut servers: Vec<IpAddr> = servers.filter_map(|addr| addr.parse().ok()).collect();
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers
}

/// The `hosts` of a sandbox: the host's but for its own name, with a name for the host.
pub(crate) fn hosts(of_host: &str) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for line in of_host.lines() {
        let address = line.split_whitespace().next().unwrap_or_default();
        // Systems name themselves on a line such as `127.0.1.1 my-box`.
        if address.parse().is_ok_and(|ip: IpAddr| !ip.is_loopback()) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(&format!("{} {HOST_NAME}\n", HOST_ADDRESSES[0]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_does_not_learn_the_hosts_name() {
        let of_host =
            "# made by hand\n127.0.0.1 localhost box\n127.0.1.1 box.lan\n10.0.0.7 meter\n";
        let expected =
            "127.0.0.1 localhost\n::1 localhost\n10.0.0.7 meter\n192.0.0.1 host.internal\n";
        assert_eq!(hosts(of_host), expected);
    }

    #[test]
    fn a_sandbox_asks_the_relay_for_names() {
        let check = |of_host: &str, expected: &str| assert_eq!(resolv_conf(of_host), expected);
        check(
            "# made by hand\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n",
            "nameserver 192.0.0.1\n# made by hand\noptions edns0\nsearch lan\n",
        );
        check(
            "nameserver 10.0.0.1\nnameserver fe80::1%eth0\n",
            "nameserver 192.0.0.1\nnameserver 192.0.0.3\n",
        );
        check("", "nameserver 192.0.0.1\n");
    }
}
