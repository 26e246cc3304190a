//! What a function with a network of its own reaches: another machine, and of this one only what
//! was named.

use crate::builds::PROJECT;
use crate::host::{Node, failed_build, outside};
use crate::outlive::until;
use anyhow::{Context, Result, ensure};
use faas::{Network, Runtime};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

type Test = fn() -> Result<()>;

pub(crate) const ALL: &[(&str, Test)] = &[
    (
        "a_function_with_network_reaches_no_address_of_this_machine",
        no_address_of_this_machine,
    ),
    (
        "a_function_with_network_reaches_no_abstract_socket",
        no_abstract_socket,
    ),
    (
        "a_function_with_network_reaches_another_machine",
        another_machine,
    ),
    (
        "a_named_port_of_this_machine_is_reached_and_no_other",
        a_named_port,
    ),
    (
        "datagrams_reach_a_named_port_and_no_other",
        datagrams_to_a_named_port,
    ),
    ("a_handler_does_not_outlive_its_relay", the_relay_dies),
    (
        "a_function_with_the_hosts_network_reaches_this_machine",
        the_hosts_network,
    ),
    (
        "a_build_of_pip_reaches_another_machine_and_not_this_one",
        a_build_of_pip,
    ),
    (
        "a_build_of_npm_reaches_another_machine_and_not_this_one",
        a_build_of_npm,
    ),
];

/// Another machine, as this one sees it: a network namespace with servers, which has the address
/// of clouds' metadata services too.
struct Machine {
    servers: Child,
    /// Held while it is there: it has one name and one address on this machine.
    _turn: File,
}

/// TCP: says how much it got when the client has sent everything, and sends it back. UDP: sends
/// back what comes.
const SERVERS: &str = r"
import socket, threading
def tcp(family, host):
    server = socket.create_server((host, 7000), family=family)
    def serve(client):
        data = b''.join(iter(lambda: client.recv(65536), b''))
        client.sendall(b'%d\n' % len(data) + data)
        client.close()
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],)).start()
def udp():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(('0.0.0.0', 7000))
    while True:
        data, client = server.recvfrom(65536)
        server.sendto(data, client)
threading.Thread(target=tcp, args=(socket.AF_INET6, '::')).start()
threading.Thread(target=tcp, args=(socket.AF_INET, '0.0.0.0')).start()
threading.Thread(target=udp).start()
print('ready', flush=True)
";

impl Machine {
    const NAME: &str = "tf-escape";
    const ADDRESS: &str = "10.98.8.2";
    const ADDRESS_V6: &str = "fd98:8::2";
    const METADATA: &str = "169.254.169.254";

    fn start() -> Result<Self> {
        let turn = File::create(std::env::temp_dir().join("tinyfaas-escape.lock"))?;
        turn.lock()?;
        for words in [
            "netns add tf-escape",
            "link add tf-esc0 type veth peer name tf-esc1 netns tf-escape",
            "addr add 10.98.8.1/30 dev tf-esc0",
            "addr add fd98:8::1/64 dev tf-esc0 nodad",
            "link set tf-esc0 up",
            "route add 169.254.169.254/32 dev tf-esc0",
            "-n tf-escape addr add 10.98.8.2/30 dev tf-esc1",
            "-n tf-escape addr add fd98:8::2/64 dev tf-esc1 nodad",
            "-n tf-escape addr add 169.254.169.254/32 dev tf-esc1",
            "-n tf-escape link set tf-esc1 up",
            "-n tf-escape link set lo up",
        ] {
            let done = Command::new("ip").args(words.split(' ')).output();
            let done = done.context("ip (Debian: apt install iproute2) as root is needed")?;
            ensure!(done.status.success(), "ip {words}: {done:?}");
        }
        let serve = ["netns", "exec", Self::NAME, "python3", "-S", "-c", SERVERS];
        let mut servers = Command::new("ip")
            .args(serve)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = servers.stdout.take().context("a pipe was asked for")?;
        let machine = Self {
            servers,
            _turn: turn,
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "the servers said {line:?}");
        Ok(machine)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `ip netns exec` has become the servers.
        drop(self.servers.kill());
        drop(self.servers.wait());
        for words in ["link del tf-esc0", "netns del tf-escape"] {
            drop(Command::new("ip").args(words.split(' ')).status());
        }
    }
}

/// Code that connects and tells.
fn connect(to: SocketAddr) -> String {
    let (ip, port) = (to.ip(), to.port());
    format!("socket.create_connection(('{ip}', {port}), 5); result = 'connected'")
}

/// Addresses of this machine: loopback, and what it would call others from.
fn own_addresses() -> Result<Vec<IpAddr>> {
    let listed = Command::new("ip").args(["-o", "addr"]).output()?;
    let text = String::from_utf8(listed.stdout)?;
    let addresses = text.lines().filter_map(|line| {
        let address = line.split_whitespace().nth(3)?.split('/').next()?;
        address.parse().ok()
    });
    // A link-local address of version 6 needs an interface beside it.
    let is_plain = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Ok(addresses.filter(is_plain).collect())
}

/// Listens on every address of this machine.
fn listen_everywhere() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("[::]:0")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

const REFUSED: &[&str] = &["ConnectionRefusedError", "OSError(101,", "TimeoutError"];

fn check_refused(node: &Node, to: SocketAddr) -> Result<()> {
    let code = node.aim(&connect(to));
    let control = outside(&code)?;
    ensure!(
        control == "connected",
        "the control said {control:?} of {to}"
    );
    let answer = node.call(&code)?;
    ensure!(
        REFUSED.iter().any(|refusal| answer.contains(refusal)),
        "{to} answered the function {answer:?}"
    );
    Ok(())
}

fn check_reached(node: &Node, to: SocketAddr) -> Result<()> {
    let answer = node.call(&node.aim(&connect(to)))?;
    ensure!(answer == "connected", "{to} answered {answer:?}");
    Ok(())
}

fn no_address_of_this_machine() -> Result<()> {
    let _machine = Machine::start()?;
    let (_listener, port) = listen_everywhere()?;
    let node = Node::connected(Network::own())?;
    let own = own_addresses()?;
    ensure!(own.len() > 2, "{own:?} has no address but loopback");
    for ip in own {
        check_refused(&node, SocketAddr::new(ip, port))?;
    }
    check_refused(&node, SocketAddr::new("0.0.0.0".parse()?, port))?;
    check_refused(&node, SocketAddr::new("127.9.9.9".parse()?, port))?;
    check_refused(&node, SocketAddr::new(Machine::METADATA.parse()?, 7000))?;
    // The way by which the ports that are named are reached has no others.
    let relay = SocketAddr::new("192.0.0.1".parse()?, port);
    let answer = node.call(&node.aim(&connect(relay)))?;
    ensure!(answer.contains("ConnectionRefusedError"), "{answer:?}");
    check_reached(&node, SocketAddr::new(Machine::ADDRESS.parse()?, 7000))
}

fn no_abstract_socket() -> Result<()> {
    let node = Node::connected(Network::own())?;
    let code =
        "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + '@ABSTRACT'); result = 'connected'";
    let code = node.aim(code);
    let control = outside(&code)?;
    ensure!(control == "connected", "the control said {control:?}");
    let answer = node.call(&code)?;
    ensure!(answer.contains("ConnectionRefusedError"), "{answer:?}");
    Ok(())
}

/// Sends megabytes both ways, half closes, and sends datagrams.
const EXCHANGE: &str = r"
import hashlib, time
def tcp(host):
    sent = os.urandom(8 << 20)
    s = socket.create_connection((host, 7000), 20)
    s.sendall(sent)
    s.shutdown(socket.SHUT_WR)
    data = b''.join(iter(lambda: s.recv(65536), b''))
    return data == b'%d\n' % len(sent) + sent
def udp(host):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(20)
    answers = []
    for size in (0, 1, 1400, 60000):
        s.sendto(bytes(size), (host, 7000))
        answers.append(s.recvfrom(65536) == (bytes(size), (host, 7000)))
    return all(answers)
def refused(host):
    try: socket.create_connection((host, 7001), 20)
    except ConnectionRefusedError: return True
result = tcp('@V4'), tcp('@V6'), udp('@V4'), refused('@V4')
";

fn another_machine() -> Result<()> {
    let _machine = Machine::start()?;
    let node = Node::connected(Network::own())?;
    let code = EXCHANGE
        .replace("@V4", Machine::ADDRESS)
        .replace("@V6", Machine::ADDRESS_V6);
    let code = node.aim(&code);
    let control = outside(&code)?;
    ensure!(
        control == "(True, True, True, True)",
        "the control said {control:?}"
    );
    let answer = node.call(&code)?;
    ensure!(answer == control, "{answer:?}");
    // A function without network does not get there.
    let code = connect(SocketAddr::new(Machine::ADDRESS.parse()?, 7000));
    let answer = Node::start()?.call(&node.aim(&code))?;
    let is_refused = ["OSError(101,", "PermissionError(13,"];
    let is_refused = is_refused.iter().any(|refusal| answer.contains(refusal));
    ensure!(is_refused, "{answer:?}");
    Ok(())
}

fn a_named_port() -> Result<()> {
    let _machine = Machine::start()?;
    let (_named, port) = listen_everywhere()?;
    let (_other, other) = listen_everywhere()?;
    let host_ports = vec![port];
    let node = Node::connected(Network::Own { host_ports })?;
    for ip in own_addresses()? {
        check_reached(&node, SocketAddr::new(ip, port))?;
        check_refused(&node, SocketAddr::new(ip, other))?;
    }
    let by_name =
        format!("socket.create_connection(('host.internal', {port}), 5); result = 'connected'");
    let answer = node.call(&node.aim(&by_name))?;
    ensure!(answer == "connected", "{answer:?}");
    Ok(())
}

const BACK: &str = "back b'there'";

/// Sends a datagram and waits for it to come back.
fn exchange(to: SocketAddr) -> String {
    let (ip, port) = (to.ip(), to.port());
    let family = if to.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    format!(
        "s = socket.socket(socket.{family}, socket.SOCK_DGRAM); s.settimeout(2)\n\
         s.connect(('{ip}', {port})); s.send(b'there'); result = 'back %r' % s.recv(99)"
    )
}

/// Sends datagrams back, on every address of this machine.
fn echo_everywhere() -> Result<u16> {
    let socket = UdpSocket::bind("[::]:0")?;
    let port = socket.local_addr()?.port();
    std::thread::spawn(move || {
        let mut buffer = [0; 99];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&buffer[..len], from));
        }
    });
    Ok(port)
}

fn datagrams_to_a_named_port() -> Result<()> {
    let (named, other) = (echo_everywhere()?, echo_everywhere()?);
    let host_ports = vec![named];
    let node = Node::connected(Network::Own { host_ports })?;
    let answered = |ip: &IpAddr| {
        let control = outside(&node.aim(&exchange(SocketAddr::new(*ip, other))));
        control.is_ok_and(|said| said == BACK)
    };
    // Of an interface that is down, an echo does not come back outside either.
    let own: Vec<_> = own_addresses()?.into_iter().filter(answered).collect();
    ensure!(own.len() > 2, "{own:?} has no address but loopback");
    // Loopback in the sandbox is its own.
    let reached = own.iter().filter(|ip| !ip.is_loopback()).copied();
    for ip in reached.chain(["192.0.0.1".parse()?]) {
        let answer = node.call(&node.aim(&exchange(SocketAddr::new(ip, named))))?;
        ensure!(answer == BACK, "{ip} answered {answer:?}");
    }
    for ip in own.into_iter().chain(["192.0.0.1".parse()?]) {
        let answer = node.call(&node.aim(&exchange(SocketAddr::new(ip, other))))?;
        ensure!(answer.contains("denied"), "{ip} answered {answer:?}");
    }
    Ok(())
}

/// The relays that this process has started.
fn relays() -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace() {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if words.starts_with(b"tinyfaas-relay\0") {
                found.extend(Pid::from_raw(pid.parse()?));
            }
        }
    }
    Ok(found)
}

fn the_relay_dies() -> Result<()> {
    let _machine = Machine::start()?;
    let node = Node::connected(Network::own())?;
    let to = SocketAddr::new(Machine::ADDRESS.parse()?, 7000);
    check_reached(&node, to)?;
    let found = relays()?;
    ensure!(found.len() == 1, "{found:?}");
    kill_process(found[0], Signal::KILL)?;
    let is_restarted = || (node.handlers.living()[0].status().restarts > 0).then_some(());
    until(is_restarted).context("the handler goes on without network")?;
    check_reached(&node, to)?;
    let log = node
        .log
        .last_text(&node.handlers.living()[0].status().id, 50);
    ensure!(log.contains("its way to the network ended"), "{log}");
    Ok(())
}

fn the_hosts_network() -> Result<()> {
    let (_listener, port) = listen_everywhere()?;
    let node = Node::connected(Network::Host)?;
    check_reached(&node, SocketAddr::new("127.0.0.1".parse()?, port))
}

/// Says of each address whether it is reached.
const TRY_IN_PYTHON: &str = r"
import socket
def attempt(host, port):
    try: socket.create_connection((host, port), 5); return 'reached'
    except OSError: return 'refused'
for host, port in @ADDRESSES: print('<%s %s>' % (attempt(host, port), host))
";

const TRY_IN_JAVASCRIPT: &str = r"
const net = require('net');
(async () => {
  for (const [host, port] of @ADDRESSES) {
    const said = await new Promise((done) => {
      const s = net.connect({ host, port, timeout: 5000 }, () => done('reached'));
      s.on('error', () => done('refused'));
      s.on('timeout', () => done('refused'));
    });
    console.error('<' + said + ' ' + host + '>');
  }
  process.exit(1);
})();
";

/// What the code says outside, where everything is reached, and in the build.
fn check_build(port: u16, control: &str, build: impl Fn(&str) -> Result<String>) -> Result<()> {
    let own = own_addresses()?;
    let mut addresses: Vec<_> = own.iter().map(|ip| (ip.to_string(), port)).collect();
    addresses.push((Machine::METADATA.to_owned(), 7000));
    addresses.push((Machine::ADDRESS.to_owned(), 7000));
    let listed: Vec<_> = addresses
        .iter()
        .map(|(host, port)| format!("['{host}', {port}]"))
        .collect();
    let listed = format!("[{}]", listed.join(", "));
    let answer = outside(&format!(
        "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n  exec({:?})\nresult = out.getvalue()",
        control.replace("@ADDRESSES", &listed)
    ))?;
    let output = build(&listed)?;
    for (host, _) in &addresses {
        ensure!(answer.contains(&format!("<reached {host}>")), "{answer}");
        let may_be_reached = host == Machine::ADDRESS;
        let expected = if may_be_reached { "reached" } else { "refused" };
        let line = format!("<{expected} {host}>");
        ensure!(output.contains(&line), "no {line} in {output}");
    }
    Ok(())
}

fn a_build_of_pip() -> Result<()> {
    let _machine = Machine::start()?;
    let (_listener, port) = listen_everywhere()?;
    check_build(port, TRY_IN_PYTHON, |addresses| {
        let code = TRY_IN_PYTHON.replace("@ADDRESSES", addresses);
        let files = [
            ("fn.py", "def fn(x): return x".to_owned()),
            ("requirements.txt", "./nosy\n".to_owned()),
            ("nosy/pyproject.toml", PROJECT.to_owned()),
            ("nosy/backend.py", format!("{code}\nraise SystemExit(1)\n")),
        ];
        failed_build(Runtime::Python3, &files)
    })
}

fn a_build_of_npm() -> Result<()> {
    let _machine = Machine::start()?;
    let (_listener, port) = listen_everywhere()?;
    check_build(port, TRY_IN_PYTHON, |addresses| {
        let code = TRY_IN_JAVASCRIPT.replace("@ADDRESSES", addresses);
        let code = code.replace('\n', " ");
        let manifest = serde_json::json!({
            "name": "fn",
            "scripts": { "postinstall": format!("node -e {}", quoted(&code)) },
        });
        let files = [
            (
                "index.js",
                "module.exports = (q, s) => s.send('')".to_owned(),
            ),
            ("package.json", manifest.to_string()),
        ];
        failed_build(Runtime::Nodejs, &files)
    })
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
