//! The CoAP endpoint: sockets that share a port, each with a task and all its exchanges of its own,
//! so that no lock is on a request's way.

mod format;
mod reply;
mod request;
mod worker;

use crate::wake::polled_again;
use faas::{Limits, Proxy};
use net::Clients;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often another free port is tried where the one that was found is taken meanwhile.
const PORT_ATTEMPTS: usize = 8;

/// Sockets that hear one address.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<UdpSocket>,
    local_addr: SocketAddr,
}

/// Takes an address with so many sockets, at least one; the kernel gives each peer to one of
/// them, and keeps what comes within [`Limits::coap_receive_bytes_max`] until it is read. `[::]` hears
/// IPv4 as well. Port 0 picks a free port.
///
/// # Errors
/// If the address is not this host's or another process has the port.
pub fn bind(addr: SocketAddr, sockets: usize, limits: &Limits) -> io::Result<Listener> {
    let mut attempts = PORT_ATTEMPTS;
    loop {
        match try_bind(addr, sockets.max(1), limits) {
            Err(error) if is_raced(addr, &error) && attempts > 0 => attempts -= 1,
            bound => return bound,
        }
    }
}

fn is_raced(addr: SocketAddr, error: &io::Error) -> bool {
    addr.port() == 0 && error.kind() == io::ErrorKind::AddrInUse
}

fn try_bind(addr: SocketAddr, sockets: usize, limits: &Limits) -> io::Result<Listener> {
    // Sockets that share a port would share it with another tinyFaaS too. One that does not share
    // finds out whether somebody has it, and which one is free.
    let local_addr = open(addr, false, limits)?.local_addr()?;
    let sockets = (0..sockets).map(|_| open(local_addr, true, limits));
    Ok(Listener {
        sockets: sockets.collect::<io::Result<_>>()?,
        local_addr,
    })
}

fn open(addr: SocketAddr, is_shared: bool, limits: &Limits) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(addr);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if let SocketAddr::V6(addr) = addr {
        socket.set_only_v6(*addr.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    #[cfg(unix)]
    socket.set_reuse_port(is_shared)?;
    // A burst is to wait there, not to be lost. The kernel grants what its own bound allows.
    let bytes = limits.coap_receive_bytes_max;
    let _granted = socket.set_recv_buffer_size(bytes).is_ok();
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

impl Listener {
    /// The address, with the port that was picked.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers CoAP until `shutdown`. What it holds is taken from the budget of `clients`.
    ///
    /// Then requests that come are answered with 5.03, and it returns when those inside are
    /// answered and their responses have arrived, which the caller bounds: dropping the future
    /// cuts them.
    pub async fn serve(
        self,
        clients: Arc<Clients>,
        proxy: Arc<Proxy>,
        shutdown: CancellationToken,
    ) {
        let budgets = coap::Budgets::new(clients.budget());
        // Dropping the set ends the tasks.
        let mut workers = JoinSet::new();
        for socket in self.sockets {
            let (proxy, shutdown) = (Arc::clone(&proxy), shutdown.clone());
            let shared = (proxy, budgets.clone());
            workers.spawn(polled_again(worker::run(socket, shared, shutdown)));
        }
        while let Some(ended) = workers.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a CoAP socket is not served"),
                Err(error) => tracing::error!(%error, "the task of a CoAP socket failed"),
            }
        }
    }
}
