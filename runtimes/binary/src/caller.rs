//! Takes the proxy's connection, whoever else connects.

use auth::{NONCE_BYTES, PROOF_BYTES, Secret, is_same};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

/// Takes the first connection to a port, as `TINYFAAS_LISTEN` names it, that knows the secret of
/// `TINYFAAS_SECRET`: the proxy's.
///
/// # Errors
/// If they are no port and no secret, or the port is not free.
pub fn accept(port: &str, secret: &str) -> io::Result<OwnedFd> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let secret = Secret::from_hex(secret);
    let secret = secret.ok_or_else(|| io::Error::other("TINYFAAS_SECRET is no secret"))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    // One for each address: no other than the proxy's own can push the proxy out.
    let mut waiting: HashMap<IpAddr, Waiting> = HashMap::new();
    loop {
        let mut interest = vec![PollFd::new(&listener, PollFlags::IN)];
        let streams = waiting
            .values()
            .map(|it| PollFd::new(&it.stream, PollFlags::IN));
        interest.extend(streams);
        poll(&mut interest, None)?;
        drop(interest);
        let mut proven = None;
        waiting.retain(|addr, it| match it.hear(&secret) {
            Ok(Heard::Proof) => {
                proven = Some(*addr);
                true
            }
            Ok(Heard::Nothing) => true,
            Err(_not_the_proxy) => false,
        });
        if let Some(it) = proven.and_then(|addr| waiting.remove(&addr)) {
            return it.take(&secret);
        }
        match listener.accept() {
            Ok((stream, addr)) => {
                if let Ok(begun) = Waiting::begin(stream) {
                    waiting.insert(addr.ip(), begun);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Such as for want of descriptors, which somebody else holds.
            Err(_) => waiting.clear(),
        }
    }
}

/// A connection that has yet to prove that it is the proxy's.
struct Waiting {
    stream: TcpStream,
    challenge: [u8; NONCE_BYTES],
    shown: [u8; NONCE_BYTES + PROOF_BYTES],
    count: usize,
}

enum Heard {
    Nothing,
    Proof,
}

impl Waiting {
    fn begin(mut stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut challenge = [0; NONCE_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut challenge)?;
        // A new connection has room for that.
        stream.write_all(&challenge)?;
        Ok(Self {
            stream,
            challenge,
            shown: [0; NONCE_BYTES + PROOF_BYTES],
            count: 0,
        })
    }

    /// An error is the end of the connection.
    fn hear(&mut self, secret: &Secret) -> io::Result<Heard> {
        match self.stream.read(&mut self.shown[self.count..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.count += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if self.count < self.shown.len() {
            return Ok(Heard::Nothing);
        }
        let (nonce, proof) = self.shown.split_at(NONCE_BYTES);
        if is_same(proof, &secret.of_caller(&self.challenge, nonce)) {
            Ok(Heard::Proof)
        } else {
            Err(ErrorKind::PermissionDenied.into())
        }
    }

    /// Shows in its turn that this is the handler.
    fn take(mut self, secret: &Secret) -> io::Result<OwnedFd> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_nodelay(true)?;
        let proof = secret.of_handler(&self.challenge, &self.shown[..NONCE_BYTES]);
        self.stream.write_all(&proof)?;
        Ok(self.stream.into())
    }
}
