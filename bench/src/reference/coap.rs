//! The least that a CoAP server can be: no exchange is remembered, no option is looked at.

use anyhow::Result;
use coap::{Code, Message};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use socket2::{Domain, Socket, Type};
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::thread;

/// Datagrams of one system call.
const BATCH: usize = 32;
const DATAGRAM_BYTES_MAX: usize = 2048;

pub(super) fn serve() -> Result<()> {
    let first = bind(0)?;
    let port = first
        .local_addr()?
        .as_socket()
        .map_or(0, |addr| addr.port());
    let cores = thread::available_parallelism()?.get();
    let more = (1..cores).map(|_| bind(port)).collect::<Result<Vec<_>>>()?;
    super::tell((Ipv4Addr::LOCALHOST, port).into())?;
    let threads: Vec<_> = more
        .into_iter()
        .map(|socket| thread::spawn(move || answer(&socket)))
        .collect();
    answer(&first)?;
    drop(threads);
    Ok(())
}

fn bind(port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    let addr: SocketAddr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into();
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn answer(socket: &Socket) -> Result<()> {
    let fd = socket.as_raw_fd();
    let mut incoming = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut outgoing = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut buffers = vec![[0_u8; DATAGRAM_BYTES_MAX]; BATCH];
    loop {
        let received: Vec<(usize, Option<SockaddrIn>)> = {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(&mut buffer[..])])
                .collect();
            let flags = MsgFlags::MSG_WAITFORONE;
            let messages = recvmmsg(fd, &mut incoming, slices.iter_mut(), flags, None)?;
            messages
                .map(|message| (message.bytes, message.address))
                .collect()
        };
        let mut replies = Vec::with_capacity(received.len());
        let mut peers = Vec::with_capacity(received.len());
        for ((len, peer), buffer) in received.into_iter().zip(&buffers) {
            if let Some(reply) = reply(&buffer[..len]) {
                replies.push(reply);
                peers.push(peer);
            }
        }
        let slices: Vec<[IoSlice<'_>; 1]> =
            replies.iter().map(|reply| [IoSlice::new(reply)]).collect();
        sendmmsg(
            fd,
            &mut outgoing,
            slices.iter(),
            &peers,
            [],
            MsgFlags::empty(),
        )?;
    }
}

fn reply(request: &[u8]) -> Option<Vec<u8>> {
    const ACKNOWLEDGEMENT: u8 = 0x60;
    let message = Message::parse(request).ok()?;
    let token = message.token.as_bytes();
    let mut reply = Vec::with_capacity(5 + token.len() + message.payload.len());
    reply.push(ACKNOWLEDGEMENT | u8::try_from(token.len()).ok()?);
    reply.push(Code::CHANGED.to_byte());
    reply.extend_from_slice(&message.message_id.to_be_bytes());
    reply.extend_from_slice(token);
    reply.push(0xff);
    reply.extend_from_slice(message.payload);
    Some(reply)
}
