//! Which pages of other sites may call a function and read its replies.

use std::fmt;
use std::str::FromStr;

/// The longest origin: a scheme, a host name (RFC 1035, section 2.3.4) and a port.
const ORIGIN_BYTES_MAX: usize = 320;

/// Which pages of other sites may call a function and read its replies: the CORS protocol of the
/// Fetch standard. As a text `none`, `function`, `*`, or origins with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// None: their requests are refused.
    None,
    /// Those that the function lets: it gets every request and answers preflights itself.
    Function,
    /// Any page. Replies are readable for all of them, without credentials.
    Any,
    /// Pages of these origins, at least one.
    Origins(Vec<Origin>),
}

/// The origin of a page: `scheme://host`, and `:port` unless it is the scheme's own, in lower case, as
/// browsers write it in the field `Origin` (RFC 6454, section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// A text that names no pages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCors {
    /// No origin is named.
    #[error(
        "no pages are named; write an origin such as https://app.example.com, * for any, none, or \
         function where the function answers for itself"
    )]
    Empty,
    /// A word that stands alone is one of several.
    #[error("{0:?} stands alone; write it without other origins")]
    NotAlone(&'static str),
    /// The origin of pages that have none of their own.
    #[error("any page can give itself the origin null; write * if any page may call")]
    Null,
    /// It is no origin.
    #[error(
        "{0:?} is no origin; write the scheme, the host and a port that is not the scheme's own, \
         without a path, such as https://app.example.com or http://localhost:3000"
    )]
    Origin(String),
}

impl Cors {
    /// Whether only certain pages may call, or none.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::None | Self::Origins(_) => true,
            Self::Function | Self::Any => false,
        }
    }

    /// The origins that are named.
    #[must_use]
    pub fn origins(&self) -> &[Origin] {
        match self {
            Self::Origins(origins) => origins,
            Self::None | Self::Function | Self::Any => &[],
        }
    }
}

impl FromStr for Cors {
    type Err = BadCors;

    fn from_str(text: &str) -> Result<Self, BadCors> {
        let parts = text.split(',').map(str::trim);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        let word = |part: &str| match part {
            "none" => Some(("none", Self::None)),
            "function" => Some(("function", Self::Function)),
            "*" => Some(("*", Self::Any)),
            _ => None,
        };
        match parts[..] {
            [] => return Err(BadCors::Empty),
            [part] => {
                if let Some((_, cors)) = word(part) {
                    return Ok(cors);
                }
            }
            _ => {
                if let Some((word, _)) = parts.iter().find_map(|part| word(part)) {
                    return Err(BadCors::NotAlone(word));
                }
            }
        }
        let origins = parts.into_iter().map(str::parse);
        origins.collect::<Result<_, _>>().map(Self::Origins)
    }
}

impl fmt::Display for Cors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Function => f.write_str("function"),
            Self::Any => f.write_str("*"),
            Self::Origins(origins) => {
                for (at, origin) in origins.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{}", origin.0)?;
                }
                Ok(())
            }
        }
    }
}

impl Origin {
    /// As it stands in the field `Origin`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = BadCors;

    fn from_str(text: &str) -> Result<Self, BadCors> {
        let bad = || BadCors::Origin(text.chars().take(80).collect());
        if text == "null" {
            return Err(BadCors::Null);
        }
        if text.len() > ORIGIN_BYTES_MAX {
            return Err(bad());
        }
        let lower = text.to_ascii_lowercase();
        let (scheme, site) = lower.split_once("://").ok_or_else(bad)?;
        let end_of_host = match site.find(']') {
            Some(bracket) => bracket + 1,
            None => site.find(':').unwrap_or(site.len()),
        };
        let (host, port) = site.split_at(end_of_host);
        if !is_scheme(scheme) || !is_host(host) {
            return Err(bad());
        }
        let Some(digits) = port.strip_prefix(':') else {
            return if port.is_empty() {
                Ok(Self(lower))
            } else {
                Err(bad())
            };
        };
        let number = digits.parse::<u16>().ok().filter(|&number| number > 0);
        let number = number.ok_or_else(bad)?;
        // Browsers leave the scheme's own out.
        Ok(Self(match (scheme, number) {
            ("http", 80) | ("https", 443) => format!("{scheme}://{host}"),
            _ => format!("{scheme}://{host}:{number}"),
        }))
    }
}

fn is_scheme(scheme: &str) -> bool {
    let starts_well = scheme.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    starts_well && scheme.chars().all(allowed)
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !host.is_empty() && host.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_named_by_words_or_origins() {
        let check = |text: &str, shown: &str| {
            let cors: Cors = text.parse().unwrap();
            assert_eq!(cors.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(cors), "{text}");
        };
        for word in ["none", "function", "*"] {
            check(word, word);
        }
        check("https://app.example.com", "https://app.example.com");
        check("HTTPS://App.Example.com:443", "https://app.example.com");
        check("http://localhost:80", "http://localhost");
        check("http://localhost:443", "http://localhost:443");
        check("http://[::1]:3000", "http://[::1]:3000");
        check("capacitor://localhost", "capacitor://localhost");
        check("chrome-extension://abcdef", "chrome-extension://abcdef");
        check(
            " https://a.example , https://B.example:8443,",
            "https://a.example,https://b.example:8443",
        );
    }

    #[test]
    fn what_browsers_never_send_as_an_origin_is_refused() {
        let long = format!("https://{}", "a".repeat(400));
        for text in [
            "",
            " , ",
            "null",
            "https://a.example,null",
            "https://a.example,*",
            "none,https://a.example",
            "*,function",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://user@app.example.com",
            "https://*.example.com",
            "https://bücher.example",
            "https://app.example.com:0",
            "https://app.example.com:x",
            "https://[::1",
            "https://[a]",
            "https://[::1]x",
            "https://",
            "://a",
            "1a://b",
            "https://a\r\nb",
            &long,
        ] {
            assert!(text.parse::<Cors>().is_err(), "{text:?}");
        }
    }
}
