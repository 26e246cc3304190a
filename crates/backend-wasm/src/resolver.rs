//! Looks up the hosts that components send requests to, and leaves out this machine: a name on the
//! list is somebody else's to point where they like (DNS rebinding), and must not lead to what
//! listens here, the management service first.

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::Service;

type Looked = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

/// The system's resolver without the addresses of this machine. An address that the list itself
/// names, and `localhost` there, need no resolver or mean what they say.
#[derive(Debug, Clone)]
pub(crate) struct Resolver(GaiResolver);

impl Resolver {
    pub(crate) fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Looked;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Looked {
        let means_here = is_localhost(name.as_str());
        let looking = self.0.call(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = looking.await?.collect();
            let allowed = found
                .into_iter()
                .filter(|addr| means_here || !is_here(addr.ip()));
            let allowed: Vec<_> = allowed.collect();
            if allowed.is_empty() {
                let text = "the name leads to this machine, which functions do not reach by name";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            Ok(allowed.into_iter())
        })
    }
}

/// Names that are this machine's by definition (RFC 6761 section 6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether an address is this machine's own, or none of one other machine.
fn is_here(ip: IpAddr) -> bool {
    net::is_never_reached(ip) || net::is_own(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_here_is_refused_unless_it_says_so() {
        let host = rustix::system::uname()
            .nodename()
            .to_str()
            .unwrap()
            .to_owned();
        let mut resolver = Resolver::new();
        if let Ok(found) = resolver.call(host.parse().unwrap()).await {
            // Where the name of this machine is known at all, none of its addresses is given.
            assert!(found.map(|addr| addr.ip()).all(|ip| !is_here(ip)));
        }
        let found = resolver.call("localhost".parse().unwrap()).await.unwrap();
        assert!(found.map(|addr| addr.ip()).all(|ip| ip.is_loopback()));
    }
}
