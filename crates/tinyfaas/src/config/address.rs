//! Where to listen, as people write it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// An address that may leave out its host or its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddr {
    /// `off` or `-1`.
    Off,
    /// What was named of `HOST:PORT`.
    At {
        /// Which of this machine's addresses; `*` is all.
        host: Option<Host>,
        /// 0 picks a free one.
        port: Option<u16>,
    },
}

/// Why a string is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an address; write HOST:PORT, a host (* is every address), a port (0 picks a free \
     one), or off"
)]
pub(crate) struct AddressError(String);

impl FromStr for ListenAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        if matches!(text, "off" | "-1") {
            return Ok(Self::Off);
        }
        let at = |host: Option<&str>, port| Self::At {
            host: host.map(|host| match host {
                "*" => Host::Everywhere,
                name => Host::Named(name.to_owned()),
            }),
            port,
        };
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let port = text.parse().map_err(|_error| error())?;
            return Ok(at(None, Some(port)));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(at(Some(&ip.to_string()), None));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return is_host(text)
                .then(|| at(Some(text), None))
                .ok_or_else(error);
        };
        let port = port.parse().map_err(|_error| error())?;
        if host.is_empty() {
            return Ok(at(None, Some(port)));
        }
        if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            let is_v6 = inner.parse::<std::net::Ipv6Addr>().is_ok();
            return is_v6.then(|| at(Some(inner), Some(port))).ok_or_else(error);
        }
        is_host(host)
            .then(|| at(Some(host), Some(port)))
            .ok_or_else(error)
    }
}

fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    text == "*" || (!text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed))
}

impl ListenAddr {
    /// The place, with what was left out taken from the default.
    pub(crate) fn or_default(self, default: Place) -> Place {
        let Self::At { host, port } = self else {
            return Place::Off;
        };
        let (default_host, default_port) = match default {
            Place::Off => (Host::Everywhere, 0),
            Place::At { host, port } => (host, port),
        };
        Place::At {
            host: host.unwrap_or(default_host),
            port: port.unwrap_or(default_port),
        }
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere.
    Off,
    /// On a host's port.
    At {
        /// The host.
        host: Host,
        /// 0 picks a free one.
        port: u16,
    },
}

/// Which of this machine's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// Every address, IPv6 and IPv4.
    Everywhere,
    /// A name or an IP address.
    Named(String),
}

impl Place {
    /// What a default says, which leaves nothing out.
    ///
    /// # Errors
    /// If it is not an address.
    pub(crate) fn default_of(text: &str) -> Result<Self, AddressError> {
        let address: ListenAddr = text.parse()?;
        Ok(address.or_default(Self::Off))
    }

    /// A port on every address.
    pub(crate) fn everywhere(port: u16) -> Self {
        Self::At {
            host: Host::Everywhere,
            port,
        }
    }

    /// The addresses to try, in order; none where it is off. Every address is tried with IPv6
    /// first, whose sockets take IPv4 too.
    ///
    /// # Errors
    /// If the host's name is not known.
    pub(crate) async fn candidates(&self) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            Self::Off => Ok(Vec::new()),
            Self::At { host, port } => match host {
                Host::Everywhere => Ok(vec![
                    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, *port)),
                    SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, *port)),
                ]),
                Host::Named(name) => {
                    let found = tokio::net::lookup_host((name.as_str(), *port)).await?;
                    Ok(found.take(1).collect())
                }
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At { host, port } => match host {
                Host::Everywhere => write!(f, "[::]:{port}"),
                Host::Named(name) if name.contains(':') => write!(f, "[{name}]:{port}"),
                Host::Named(name) => write!(f, "{name}:{port}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_host_or_port() {
        let check = |text: &str, expected: &str| {
            let address: ListenAddr = text.parse().unwrap();
            let place = address.or_default(Place::default_of("127.0.0.1:8080").unwrap());
            assert_eq!(place.to_string(), expected, "{text}");
        };
        check("off", "off");
        check("-1", "off");
        check("0", "127.0.0.1:0");
        check("9", "127.0.0.1:9");
        check(":9", "127.0.0.1:9");
        check("host", "host:8080");
        check("host.example:9", "host.example:9");
        check("10.0.0.1", "10.0.0.1:8080");
        check("10.0.0.1:9", "10.0.0.1:9");
        check("::", "[::]:8080");
        check("[::1]", "[::1]:8080");
        check("[::1]:9", "[::1]:9");
        check("*", "[::]:8080");
        check("*:9", "[::]:9");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "", ":", "-2", "65536", "a:b", "a:70000", "a b", "http://a", "[::1", "[a]:1", "a:1:2",
        ] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text:?}");
        }
    }
}
