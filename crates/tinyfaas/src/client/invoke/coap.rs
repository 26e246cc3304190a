//! Calling over CoAP.

use super::{Answer, Call};
use crate::client::localhost;
use crate::client::url::Target;
use crate::failure::Failure;
use anyhow::{Context, Result, anyhow, bail};
use coap::{Client, ClientConfig, ClientError, ClientRequest, ClientResponse, Code};
use faas::NOT_FOUND_BEGIN;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The largest reply that is taken.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// The Content-Formats of RFC 7252, section 12.3, and RFC 8949 that have a media type of one word.
const FORMATS: [(u16, &str); 6] = [
    (0, "text/plain"),
    (40, "application/link-format"),
    (41, "application/xml"),
    (42, "application/octet-stream"),
    (50, "application/json"),
    (60, "application/cbor"),
];

pub(super) fn call(call: &Call) -> Result<Answer> {
    let request = request(call)?;
    let socket = connect(&call.target)?;
    let config = ClientConfig {
        response_timeout: call.timeout,
        payload_bytes_max: REPLY_BYTES_MAX,
        ..ClientConfig::default()
    };
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).context("get random bytes for a token")?;
    let client = Client::new(Instant::now(), request, config, u64::from_ne_bytes(seed));
    match exchange(client, &socket, call)? {
        Ok(response) => Ok(answer(&response)),
        Err(ClientError::NoAnswer(_)) => Err(unreachable(call)),
        Err(error) => Err(anyhow!("call {}: {error}", call.target.text)),
    }
}

fn request(call: &Call) -> Result<ClientRequest> {
    let method = match &*call.method.to_ascii_uppercase() {
        "GET" => Code::GET,
        "POST" => Code::POST,
        "PUT" => Code::PUT,
        "DELETE" => Code::DELETE,
        "FETCH" => Code::FETCH,
        "PATCH" => Code::PATCH,
        other => bail!("CoAP has no method {other}; use GET, POST, PUT, DELETE, FETCH or PATCH"),
    };
    let mut request = ClientRequest::new(method, &call.target.name);
    let query = call.target.query.as_deref().unwrap_or_default();
    request.query = coap::uri::arguments(query);
    request.payload = call.payload.clone().into();
    for (name, value) in &call.headers {
        match &*name.to_ascii_lowercase() {
            "content-type" => request.content_format = Some(format(value)?),
            "accept" => request.accept = Some(format(value)?),
            _ => bail!("CoAP carries no header {name}, only Content-Type and Accept"),
        }
    }
    Ok(request)
}

fn format(media_type: &str) -> Result<u16> {
    let bare = media_type.split(';').next().unwrap_or_default().trim();
    if let Ok(number) = bare.parse() {
        return Ok(number);
    }
    let known = FORMATS.iter().find(|(_, name)| *name == bare);
    known.map(|(number, _)| *number).with_context(|| {
        format!("{bare:?} is no Content-Format that is known here; give its number")
    })
}

fn connect(target: &Target) -> Result<UdpSocket> {
    let addrs = localhost::addresses(&target.host, target.port)
        .with_context(|| format!("find the address of {}", target.authority()))?;
    // Nothing tells an IPv6 address that nobody listens on from a slow one, and IPv4 is heard by
    // both kinds of endpoints.
    let addr = addrs.iter().find(|addr| addr.is_ipv4()).or(addrs.first());
    let Some(addr) = addr else {
        bail!("the host {} has no address", target.host);
    };
    let local: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(addr)?;
    Ok(socket)
}

/// Carries datagrams until there is a result, or the time is up.
fn exchange(
    mut client: Client,
    socket: &UdpSocket,
    call: &Call,
) -> Result<Result<ClientResponse, ClientError>> {
    let ends = Instant::now() + call.timeout;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        while let Some(datagram) = client.poll_transmit() {
            send(socket, &datagram, call)?;
        }
        if let Some(result) = client.result() {
            return Ok(result.clone());
        }
        let now = Instant::now();
        if now >= ends {
            bail!(
                "no reply within {} s; wait longer with --timeout",
                call.timeout.as_secs_f32()
            );
        }
        let until = client.deadline().map_or(ends, |due| due.min(ends));
        // A timeout of zero would mean none.
        let pause = until.saturating_duration_since(now);
        socket.set_read_timeout(Some(pause.max(Duration::from_millis(1))))?;
        match socket.recv(&mut buffer) {
            Ok(len) => client.receive(Instant::now(), &buffer[..len]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                ErrorKind::ConnectionRefused => return Err(unreachable(call)),
                _ => return Err(error.into()),
            },
        }
        client.expire(Instant::now());
    }
}

fn send(socket: &UdpSocket, datagram: &[u8], call: &Call) -> Result<()> {
    match socket.send(datagram) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err(unreachable(call)),
        Err(error) => Err(error).context("send a datagram"),
    }
}

fn unreachable(call: &Call) -> anyhow::Error {
    Failure::EndpointUnreachable(call.target.text.clone()).into()
}

fn answer(response: &ClientResponse) -> Answer {
    let mut headers = Vec::new();
    if let Some(number) = response.content_format {
        let known = FORMATS.iter().find(|(known, _)| *known == number);
        let name = known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned());
        headers.push(("content-format".to_owned(), name));
    }
    if let Some(seconds) = response.max_age {
        headers.push(("max-age".to_owned(), seconds.to_string()));
    }
    // CoAP has no field that tells a function's own 4.04 from the platform's.
    let is_platforms = response.payload.starts_with(NOT_FOUND_BEGIN.as_bytes());
    Answer {
        status: format!("CoAP {}", response.code),
        is_success: response.code.class() == 2,
        is_unknown: response.code == Code::NOT_FOUND && is_platforms,
        headers,
        payload: response.payload.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_becomes_a_content_format() {
        assert_eq!(format("application/json").unwrap(), 50);
        assert_eq!(format("text/plain; charset=utf-8").unwrap(), 0);
        assert_eq!(format("112").unwrap(), 112);
        assert!(format("image/png").is_err());
    }

    #[test]
    fn a_host_where_nobody_listens_is_unreachable() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let text = format!("coap://127.0.0.1:{port}/a");
        let target = Target::parse(&text).unwrap().unwrap();
        let error = call(&Call {
            target,
            method: "GET".to_owned(),
            headers: Vec::new(),
            payload: Vec::new(),
            timeout: Duration::from_secs(20),
        });
        let error = error.unwrap_err();
        let is_told = matches!(error.downcast_ref(), Some(Failure::EndpointUnreachable(_)));
        assert!(is_told, "{error:#}");
    }
}
