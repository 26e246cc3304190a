//! The URLs that `invoke` takes.

use anyhow::{Result, bail};

/// An endpoint's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Over UDP.
    Coap,
    /// Without TLS.
    Http,
    /// With TLS, such as behind a proxy.
    Https,
    /// Without TLS.
    Grpc,
}

/// A function's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path without its leading slash, percent-decoded.
    pub(crate) name: String,
    /// What stands behind `?`, undecoded.
    pub(crate) query: Option<String>,
    /// The URL as it was written, its scheme in lower case.
    pub(crate) text: String,
}

impl Target {
    /// Reads a URL; none where the text is a bare name.
    ///
    /// # Errors
    /// If it looks like a URL but isn't one that can be called.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(None);
        };
        let (known, default_port) = match scheme.as_str() {
            "coap" => (Scheme::Coap, 5683),
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            "grpc" => (Scheme::Grpc, 9000),
            other => bail!("{other:?} can't be called; use a coap, http, https or grpc URL"),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (path, None),
        };
        let (host, port) = split_port(authority, default_port)?;
        let name = percent_encoding::percent_decode_str(path).decode_utf8()?;
        if host.is_empty() || name.is_empty() {
            bail!("{text:?} names no function; write it like http://localhost:8000/sieve");
        }
        Ok(Some(Self {
            scheme: known,
            host: host.to_owned(),
            port,
            name: name.into_owned(),
            query,
            text: format!("{scheme}://{rest}"),
        }))
    }

    /// Host and port as they stand in a URL.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}

/// The scheme of a URL in lower case, since it may be written in any (RFC 3986, section 3.1), and what
/// follows it.
pub(super) fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    Some((scheme.to_ascii_lowercase(), rest))
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    let port = match port {
        None | Some("") => default,
        Some(text) => match text.parse() {
            Ok(port) => port,
            Err(_) => bail!("{text:?} is no port; write a number up to 65535"),
        },
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    Ok((bare.unwrap_or(host), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_endpoint_function_and_query() {
        let check = |text: &str, scheme, authority: &str, name: &str, query: Option<&str>| {
            let target = Target::parse(text).unwrap().unwrap();
            assert_eq!(target.scheme, scheme, "{text}");
            assert_eq!(target.authority(), authority, "{text}");
            assert_eq!(target.name, name, "{text}");
            assert_eq!(target.query.as_deref(), query, "{text}");
        };
        check("coap://h/a/b", Scheme::Coap, "h:5683", "a/b", None);
        check("http://h:1/a?b=c", Scheme::Http, "h:1", "a", Some("b=c"));
        check("grpc://[::1]/a", Scheme::Grpc, "[::1]:9000", "a", None);
        check(
            "https://[::1]:2/a%7Eb",
            Scheme::Https,
            "[::1]:2",
            "a~b",
            None,
        );
        assert_eq!(Target::parse("sieve/primes").unwrap(), None);
    }

    #[test]
    fn a_scheme_is_written_in_any_case() {
        for (text, scheme, written) in [
            ("HTTP://h/A", Scheme::Http, "http://h/A"),
            ("Https://H/a", Scheme::Https, "https://H/a"),
            ("COAP://h/a", Scheme::Coap, "coap://h/a"),
            ("gRPC://h/a", Scheme::Grpc, "grpc://h/a"),
        ] {
            let target = Target::parse(text).unwrap().unwrap();
            assert_eq!((target.scheme, target.text.as_str()), (scheme, written));
        }
    }

    #[test]
    fn what_can_not_be_called_is_refused() {
        for text in [
            "ftp://h/a",
            "http://h",
            "http:///a",
            "coap://h:x/a",
            "grpc://h:1/",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
