//! Addresses that functions and builds never reach, whatever their lists and routes say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Where clouds tell a machine its credentials, beside 169.254.169.254, which is link-local.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The address that a packet reaches in the end: the IPv4 address that an IPv6 address stands for,
/// mapped (RFC 4291 section 2.5.5.2), translated (NAT64, RFC 6052 and 8215) or tunnelled (6to4,
/// RFC 3056); else itself.
#[must_use]
pub fn reached(ip: IpAddr) -> IpAddr {
    let ip = ip.to_canonical();
    let IpAddr::V6(v6) = ip else {
        return ip;
    };
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            v4(high, low).into()
        }
        [0x2002, high, low, ..] => v4(high, low).into(),
        _ => ip,
    }
}

/// Whether an address is loopback, link-local, of a group, of a cloud's metadata, or otherwise not
/// that of one other machine. Whether it is this machine's own is another question: see
/// [`is_own`].
#[must_use]
pub fn is_never_reached(ip: IpAddr) -> bool {
    let ip = reached(ip);
    let is_special = match ip {
        IpAddr::V4(ip) => {
            // "This network" (RFC 791 section 3.2), which Linux takes as itself.
            ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            // `::`, `::1` and what once embedded IPv4 addresses (RFC 4291 section 2.5.5.1).
            let is_compatible = ip.segments()[..6].iter().all(|segment| *segment == 0);
            is_compatible || ip.is_unicast_link_local() || ip.is_multicast()
        }
    };
    is_special || METADATA.contains(&ip)
}

/// Whether an address is one of this machine: the kernel sends from the address that it sends to
/// for its own alone. Nothing is sent.
#[must_use]
pub fn is_own(ip: IpAddr) -> bool {
    let ip = reached(ip);
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_link_local_groups_and_metadata_are_never_reached() {
        for never in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "100.100.100.200",
            "192.0.0.192",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "ff0e::1",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            assert!(is_never_reached(parse(never)), "{never}");
        }
    }

    #[test]
    fn an_address_that_stands_for_one_that_is_never_reached_is_not_either() {
        for v4 in [
            "0.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
            let six_to_four = format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1");
            let embedded = [
                format!("::ffff:{v4}"),
                format!("64:ff9b::{v4}"),
                format!("64:ff9b:1:2:3:4:{v4}"),
                six_to_four,
            ];
            for text in embedded {
                assert_eq!(reached(parse(&text)), parse(v4), "{text}");
                assert!(is_never_reached(parse(&text)), "{text}");
            }
        }
    }

    #[test]
    fn other_machines_are_reached() {
        for other in [
            "1.2.3.4",
            "10.0.0.1",
            "100.64.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "192.168.1.1",
            "223.255.255.255",
            "255.255.255.254",
            "2001:db8::1",
            "fd00::1",
            "fec0::1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::8.8.8.8",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_never_reached(parse(other)), "{other}");
        }
    }

    #[test]
    fn own_addresses_are_told_from_others() {
        for own in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_own(parse(own)), "{own}");
        }
        for other in ["192.0.2.1", "198.51.100.7", "2001:db8::1"] {
            assert!(!is_own(parse(other)), "{other}");
        }
    }
}
