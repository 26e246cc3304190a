//! Taking the addresses of a node.

use crate::config::{Config, Host, Place};
use anyhow::{Context, Result, anyhow};
use faas::Limits;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// The sockets of a node, each none where it is off.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) management: Option<TcpListener>,
    pub(crate) coap: Option<endpoints::coap::Listener>,
    pub(crate) http: Option<TcpListener>,
    pub(crate) grpc: Option<TcpListener>,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) management: Option<SocketAddr>,
    pub(crate) coap: Option<SocketAddr>,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) grpc: Option<SocketAddr>,
}

impl Addresses {
    /// The endpoints in the order in which they are shown, by scheme.
    pub(crate) fn endpoints(&self) -> [(&'static str, Option<SocketAddr>); 3] {
        [
            ("coap", self.coap),
            ("http", self.http),
            ("grpc", self.grpc),
        ]
    }
}

impl Listeners {
    /// Takes every address.
    ///
    /// # Errors
    /// If one is not known or taken; the message names it and the flag for another.
    pub(crate) async fn bind(config: &Config) -> Result<Self> {
        #[cfg(not(feature = "grpc"))]
        if config.grpc != Place::Off {
            tracing::info!("this tinyfaas was built without gRPC");
        }
        let limits = &config.limits;
        let grpc = if cfg!(feature = "grpc") {
            tcp("grpc", &config.grpc, limits).await?
        } else {
            None
        };
        Ok(Self {
            management: tcp("management", &config.management, limits).await?,
            coap: open("coap", &config.coap, |addr| bind_coap(addr, limits)).await?,
            http: tcp("http", &config.http, limits).await?,
            grpc,
        })
    }

    /// Where they listen.
    ///
    /// # Errors
    /// If the system can't tell.
    pub(crate) fn addresses(&self) -> io::Result<Addresses> {
        let of = |listener: &Option<TcpListener>| {
            let listener = listener.as_ref();
            listener.map(TcpListener::local_addr).transpose()
        };
        let coap = self.coap.as_ref();
        Ok(Addresses {
            management: of(&self.management)?,
            coap: coap.map(endpoints::coap::Listener::local_addr),
            http: of(&self.http)?,
            grpc: of(&self.grpc)?,
        })
    }
}

async fn tcp(flag: &str, place: &Place, limits: &Limits) -> Result<Option<TcpListener>> {
    let Some(socket) = open(flag, place, |addr| bind_tcp(addr, limits)).await? else {
        return Ok(None);
    };
    Ok(Some(TcpListener::from_std(socket.into())?))
}

/// Tries the addresses of a place.
async fn open<T>(
    flag: &str,
    place: &Place,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<Option<T>> {
    let candidates = place.candidates().await;
    let candidates = candidates.with_context(|| {
        format!("find the address {place}; choose another with --{flag} HOST:PORT")
    })?;
    let falls_back = matches!(
        place,
        Place::At {
            host: Host::Everywhere,
            ..
        }
    );
    let mut failure = None;
    for addr in candidates {
        match bind(addr) {
            Ok(socket) => return Ok(Some(socket)),
            Err(error) => {
                // A machine without IPv6 has neither the family nor the address.
                let has_no_v6 = falls_back && addr.is_ipv6() && is_missing_family(&error);
                failure = Some(explain(flag, addr, &error));
                if !has_no_v6 {
                    break;
                }
            }
        }
    }
    failure.map_or(Ok(None), Err)
}

fn bind_tcp(addr: SocketAddr, limits: &Limits) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    let waiting_max = i32::try_from(limits.connections_waiting_max);
    socket.listen(waiting_max.unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket for each core: each has its thread.
fn bind_coap(addr: SocketAddr, limits: &Limits) -> io::Result<endpoints::coap::Listener> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    endpoints::coap::bind(addr, cores, limits)
}

fn is_missing_family(error: &io::Error) -> bool {
    let missing = [
        rustix::io::Errno::AFNOSUPPORT,
        rustix::io::Errno::ADDRNOTAVAIL,
        rustix::io::Errno::PROTONOSUPPORT,
    ];
    let code = error.raw_os_error();
    missing
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == code)
}

fn explain(flag: &str, addr: SocketAddr, error: &io::Error) -> anyhow::Error {
    let port = addr.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "port {port} is in use by another program; stop that one, choose another port with \
             --{flag} PORT (0 picks a free one), or do without with --{flag} off"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("port {port} needs root; choose one from 1024 on with --{flag} PORT")
        }
        io::ErrorKind::AddrNotAvailable => anyhow!(
            "this machine does not have the address {}; choose another with --{flag} HOST:PORT",
            addr.ip()
        ),
        _ => anyhow!("listen on {addr}: {error}; choose another address with --{flag} HOST:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> Place {
        Place::default_of(&format!("127.0.0.1:{port}")).unwrap()
    }

    #[tokio::test]
    async fn every_address_takes_ipv4_too_and_port_0_picks_a_free_one() {
        let listener = tcp("http", &Place::everywhere(0), &Limits::default())
            .await
            .unwrap()
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_ne!(port, 0);
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        assert!(connected.is_ok());
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_flag() {
        let first = tcp("http", &loopback(0), &Limits::default())
            .await
            .unwrap()
            .unwrap();
        let port = first.local_addr().unwrap().port();
        let error = tcp("http", &loopback(port), &Limits::default())
            .await
            .unwrap_err();
        let message = error.to_string();
        let expected = format!("port {port} is in use");
        assert!(message.contains(&expected), "{message}");
        assert!(message.contains("--http PORT"), "{message}");
    }
}
