//! Messages of rtnetlink(7): setting up a sandbox's interfaces, and asking where an address leads.

use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::io;
use std::net::IpAddr;

const HEADER_BYTES: usize = 16;
/// Attributes and messages are padded to multiples of this.
const ALIGNMENT: usize = 4;
/// The kernel's answers to what is asked here are far smaller.
const ANSWER_BYTES_MAX: usize = 4096;

// Flags of messages: `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE`, which libc declares too wide.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;

const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

/// A connection to the kernel, about this process's network namespace.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens the connection.
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self(socket))
    }

    /// Turns an interface on, with the largest packets that it carries where that is given.
    pub(crate) fn turn_on(&self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, ACKNOWLEDGE);
        let up = libc::IFF_UP.cast_unsigned();
        message.put(&[0; 4]);
        message.put(&index.to_ne_bytes());
        message.put(&up.to_ne_bytes());
        message.put(&up.to_ne_bytes());
        if let Some(mtu) = mtu {
            message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.acknowledged(message)
    }

    /// Gives an interface an address.
    pub(crate) fn add_address(&self, index: u32, addr: IpAddr, prefix: u8) -> io::Result<()> {
        /// `IFA_F_NODAD`: nobody else is there who could have the address.
        const AT_ONCE: u8 = 2;
        let mut message = Message::new(libc::RTM_NEWADDR, ACKNOWLEDGE | CREATE);
        message.put(&[family(addr), prefix, AT_ONCE, 0]);
        message.put(&index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &octets(addr));
        message.attribute(IFA_ADDRESS, &octets(addr));
        self.acknowledged(message)
    }

    /// Sends everything of the address's family that has no other way out through an interface.
    pub(crate) fn add_default_route(&self, index: u32, like: IpAddr) -> io::Result<()> {
        let scope = if like.is_ipv4() {
            libc::RT_SCOPE_LINK
        } else {
            libc::RT_SCOPE_UNIVERSE
        };
        let mut message = Message::new(libc::RTM_NEWROUTE, ACKNOWLEDGE | CREATE);
        message.put(&[family(like), 0, 0, 0]);
        message.put(&[
            libc::RT_TABLE_MAIN,
            libc::RTPROT_BOOT,
            scope,
            libc::RTN_UNICAST,
        ]);
        message.put(&[0; 4]);
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        self.acknowledged(message)
    }

    /// What a packet to the address meets now: `RTN_UNICAST` for another machine, `RTN_LOCAL` for
    /// this one.
    pub(crate) fn kind_of_route(&self, addr: IpAddr) -> io::Result<u8> {
        /// Where `struct rtmsg` has its type.
        const TYPE: usize = HEADER_BYTES + 7;
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let mut message = Message::new(libc::RTM_GETROUTE, 0);
        message.put(&[family(addr), bits, 0, 0, 0, 0, 0, 0]);
        message.put(&[0; 4]);
        message.attribute(RTA_DST, &octets(addr));
        let answer = self.ask(message)?;
        let kind = answer.get(TYPE).copied();
        kind.ok_or_else(|| io::Error::other("the kernel's answer about a route is cut off"))
    }

    fn acknowledged(&self, message: Message) -> io::Result<()> {
        self.ask(message).map(drop)
    }

    /// The kernel's answer; the error that it reports, where it does.
    fn ask(&self, message: Message) -> io::Result<Vec<u8>> {
        send(&self.0, &message.finish()?, SendFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let (len, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(len);
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
        let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
        let is_verdict = kind.map(u16::from_ne_bytes) == u16::try_from(libc::NLMSG_ERROR).ok();
        match code.map(i32::from_ne_bytes) {
            Some(code) if is_verdict && code != 0 => Err(io::Error::from_raw_os_error(-code)),
            Some(_) => Ok(answer),
            None => Err(io::Error::other("the kernel's answer is cut off")),
        }
    }
}

fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// A message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self(bytes)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("values here have at most 16 bytes");
        self.put(&len.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        let len = u32::try_from(self.0.len()).map_err(io::Error::other)?;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        Ok(self.0)
    }
}
