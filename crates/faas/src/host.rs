//! Hosts that a function may send requests to.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The longest host name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A host of an allow-list: `example.org`, `*.example.org` for every name below it, an IPv4
/// address or an IPv6 address in brackets; with `:PORT` for that port, else for the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case, without the `*.`, an IPv6 address with its brackets.
    host: String,
    is_wildcard: bool,
    port: Option<u16>,
}

/// A text that is no host of an allow-list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host; send such as example.org, *.example.org, 10.0.0.7:8080 or [::1]:8080")]
pub struct BadHost(pub String);

impl HostPattern {
    /// Whether it allows a host, an IPv6 address in brackets. `own_port` is that of the scheme.
    #[must_use]
    pub fn allows(&self, host: &str, port: u16, own_port: u16) -> bool {
        if port != self.port.unwrap_or(own_port) {
            return false;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.is_wildcard {
            return host.eq_ignore_ascii_case(&self.host);
        }
        let Some(above) = host.len().checked_sub(self.host.len()) else {
            return false;
        };
        // A name below has at least a label and its dot in front.
        above > 1
            && host.is_char_boundary(above)
            && host[above..].eq_ignore_ascii_case(&self.host)
            && host.as_bytes()[above - 1] == b'.'
    }
}

impl FromStr for HostPattern {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let bad = || BadHost(text.chars().take(80).collect());
        let end_of_host = match text.find(']') {
            Some(bracket) => bracket + 1,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(end_of_host);
        let port = match port.strip_prefix(':') {
            Some(digits) => {
                let port = digits.parse::<u16>().ok().filter(|&port| port > 0);
                Some(port.ok_or_else(bad)?)
            }
            None if port.is_empty() => None,
            None => return Err(bad()),
        };
        let (host, is_wildcard) = match host.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (host, false),
        };
        let is_address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|address| !is_wildcard && address.parse::<Ipv6Addr>().is_ok());
        if !is_address && !is_name(host) {
            return Err(bad());
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            is_wildcard,
            port,
        })
    }
}

/// Whether it is a name or an IPv4 address: labels of letters, digits, `-` and `_`.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= HOST_BYTES_MAX && host.split('.').all(is_label)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wildcard = if self.is_wildcard { "*." } else { "" };
        write!(f, "{wildcard}{}", self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_allowed_on_its_port_or_that_of_the_scheme() {
        let check = |pattern: &str, host: &str, port: u16, is_allowed: bool| {
            let parsed: HostPattern = pattern.parse().unwrap();
            assert_eq!(parsed.to_string(), pattern.to_lowercase());
            assert_eq!(
                parsed.allows(host, port, 443),
                is_allowed,
                "{pattern} {host}:{port}"
            );
        };
        check("example.org", "example.org", 443, true);
        check("Example.org", "EXAMPLE.ORG.", 443, true);
        check("example.org", "example.org", 80, false);
        check("example.org:80", "example.org", 80, true);
        check("example.org:80", "example.org", 443, false);
        check("example.org", "a.example.org", 443, false);
        check("example.org", "badexample.org", 443, false);
        check("*.example.org", "a.b.example.org", 443, true);
        check("*.example.org", "example.org", 443, false);
        check("*.example.org", ".example.org", 443, false);
        check("*.example.org", "badexample.org", 443, false);
        check("10.0.0.7:1", "10.0.0.7", 1, true);
        check("[::1]", "[::1]", 443, true);
        check("[::1]:9", "[::1]", 9, true);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "", "*", "*.", ".", "a..b", "a b", "http://a", "a/b", "a:", "a:0", "a:65536", "a:x",
            "[::1", "::1", "[x]", "[::1]x", "*.[::1]", "a@b", "ü.org",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
        assert!("a".repeat(64).parse::<HostPattern>().is_err());
        assert!("a.".repeat(127).parse::<HostPattern>().is_err());
    }
}
