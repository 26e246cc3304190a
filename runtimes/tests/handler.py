"""A proxy's side of the handler protocol, for tests: starts a shim and talks to it."""

import hmac
import os
import pathlib
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time

RUNTIMES = pathlib.Path(__file__).resolve().parent.parent
HELLO, REQUEST, REPLY, CANCEL, PING, PONG, FAILED, LEAVING = range(1, 9)
HEADER = struct.Struct("!IIBBHI")
# Longer than anything takes; a test that gets here has failed.
PATIENCE_S = 30


def program(name, install):
    found = shutil.which(name)
    if not found:
        raise AssertionError("the program %s is not on this machine: %s" % (name, install))
    return found


def node(code):
    return [program("node", "apt install nodejs"), str(RUNTIMES / "nodejs" / "shim.js")]


def python(code):
    found = program("python3", "apt install python3")
    return [found, "-B", "-S", "-X", "utf8", str(RUNTIMES / "python3" / "shim.py")]


def go(code):
    found = program("go", "apt install golang-go")
    shutil.copy(RUNTIMES / "go" / "shim.go", code / "tinyfaas_shim.go")
    if not (code / "go.mod").exists():
        (code / "go.mod").write_text("module fn\n\ngo 1.18\n")
    cache = pathlib.Path(tempfile.gettempdir()) / "tinyfaas-test-go"
    env = dict(os.environ, CGO_ENABLED="0", GOCACHE=str(cache), GOFLAGS="", GOTOOLCHAIN="local")
    binary = str(code / "out")
    args = [found, "build", "-trimpath", "-buildvcs=false", "-o", binary, "."]
    subprocess.run(args, cwd=code, env=env, check=True)
    return [binary]


def binary(code):
    cargo = program("cargo", "install Rust")
    root = RUNTIMES.parent
    args = [cargo, "build", "--quiet", "-p", "runtime-binary", "--example", "shim"]
    subprocess.run(args, cwd=root, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", str(root / "target"))
    return [os.path.join(root, target, "debug", "examples", "shim")]


class Handler:
    """A shim that runs a function made of `files`."""

    def __init__(self, command, files, env=(), tcp=False, strangers=0, before=None):
        self.folder = tempfile.TemporaryDirectory()
        code = pathlib.Path(self.folder.name)
        for name, text in files.items():
            path = code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        args = command(code)
        envs = {"PATH": os.environ["PATH"], "HOME": "/tmp", "TINYFAAS_CODE": str(code)}
        envs.update({"TINYFAAS_FUNCTION": "test", "TINYFAAS_HANDLER": "test-1"})
        envs.update(env)
        self.output = tempfile.TemporaryFile()
        self.others = []
        self.id = 0
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            self.port, self.secret = port, os.urandom(32)
            envs["TINYFAAS_LISTEN"] = str(port)
            envs["TINYFAAS_SECRET"] = self.secret.hex()
            self.process = self.start(args, envs, code, subprocess.DEVNULL)
            # Whoever comes before the proxy.
            self.others = [self.dial("127.0.0.%d" % (at + 2)) for at in range(strangers)]
            if before:
                before(self)
            self.sock = self.dial("127.0.0.1")
            self.prove(self.sock, self.secret)
        else:
            self.sock, theirs = socket.socketpair()
            self.process = self.start(args, envs, code, theirs)
            theirs.close()
        self.sock.settimeout(PATIENCE_S)
        self.buffer = bytearray()

    def start(self, args, envs, code, stream):
        # The stream is descriptor 3; descriptor 0 is the function's.
        args = ["sh", "-c", 'exec "$@" 3<&0 0</dev/null', "sh", *args]
        return subprocess.Popen(
            args, env=envs, cwd=code, stdin=stream, stdout=self.output, stderr=self.output
        )

    def dial(self, source):
        """A connection to the shim from an address, as soon as it listens."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                at = ("127.0.0.1", self.port)
                return socket.create_connection(at, PATIENCE_S, source_address=(source, 0))
            except ConnectionRefusedError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise AssertionError(self.printed())
                time.sleep(0.005)

    def prove(self, sock, secret):
        """Shows the shim that this is the proxy, and sees that it is the shim."""
        challenge = exactly(sock, 32)
        nonce = os.urandom(32)
        sock.sendall(nonce + hmac.new(secret, b"caller" + challenge + nonce, "sha256").digest())
        shown = exactly(sock, 32)
        expected = hmac.new(secret, b"handler" + challenge + nonce, "sha256").digest()
        assert shown == expected, "it is not the shim"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        for other in self.others:
            other.close()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.output.close()
            self.folder.cleanup()

    def printed(self):
        self.output.seek(0)
        return self.output.read().decode("utf-8", "replace")

    def hello(self):
        _, kind, _, word, at_once, body = self.frame()
        assert kind == HELLO, (kind, body.decode(), self.printed())
        assert word == 1 and at_once >= 1
        return self

    def frame(self):
        """The next frame: id, kind, flags, word, headers_len, body."""
        while True:
            if len(self.buffer) >= 16:
                length, id, kind, flags, word, headers = HEADER.unpack_from(self.buffer)
                if len(self.buffer) >= length + 4:
                    body = bytes(self.buffer[16 : length + 4])
                    del self.buffer[: length + 4]
                    return id, kind, flags, word, headers, body
            data = self.sock.recv(1 << 18)
            if not data:
                raise EOFError(self.printed())
            self.buffer += data

    def request(self, payload=b"", method="POST", path="/test", query="", headers=()):
        """A frame and its id."""
        self.id += 1
        block = b"".join(
            struct.pack("!HH", len(n), len(v)) + n.encode() + v.encode() for n, v in headers
        )
        line = (method + path + query).encode()
        fixed = struct.pack("!QIHH", self.id, 60000, len(path), len(query))
        length = 12 + len(fixed) + len(line) + len(block) + len(payload)
        start = HEADER.pack(length, self.id, REQUEST, 0, len(method), len(block))
        return self.id, start + fixed + line + block + payload

    def begin(self, *args, **kwargs):
        id, frame = self.request(*args, **kwargs)
        self.sock.sendall(frame)
        return id

    def reply(self):
        """The next reply: id, whether the function failed, status, header fields, payload."""
        id, kind, flags, word, headers, body = self.frame()
        assert kind == REPLY, kind
        return id, flags == 1, word, fields(body[:headers]), body[headers:]

    def call(self, *args, **kwargs):
        id = self.begin(*args, **kwargs)
        answered, *reply = self.reply()
        assert answered == id
        return reply

    def cancel(self, id):
        self.sock.sendall(HEADER.pack(12, id, CANCEL, 0, 0, 0))

    def ping(self, text=b"are you there"):
        self.sock.sendall(HEADER.pack(12 + len(text), 0, PING, 0, 0, 0) + text)
        _, kind, _, _, _, body = self.frame()
        assert (kind, body) == (PONG, text), (kind, body)

    def flood(self, count, in_flight, payload):
        """Calls per second with so many in flight, and how many were answered with the payload."""
        _, frame = self.request(payload)
        frame = bytearray(frame)
        sent = answered = right = 0
        out = bytearray()
        self.sock.setblocking(False)
        began = time.monotonic()
        while answered < count:
            while sent < count and sent - answered < in_flight:
                sent += 1
                struct.pack_into("!I", frame, 4, sent)
                out += frame
            events = select.POLLIN | (select.POLLOUT if out else 0)
            poll = select.poll()
            poll.register(self.sock, events)
            if not poll.poll(PATIENCE_S * 1000):
                break
            if out:
                try:
                    del out[: self.sock.send(out)]
                except BlockingIOError:
                    pass
            try:
                data = self.sock.recv(1 << 18)
            except BlockingIOError:
                continue
            if not data:
                break
            self.buffer += data
            at = 0
            while len(self.buffer) - at >= 16:
                length, _, kind, flags, _, headers = HEADER.unpack_from(self.buffer, at)
                if len(self.buffer) - at < length + 4:
                    break
                body = self.buffer[at + 16 + headers : at + length + 4]
                right += kind == REPLY and flags == 0 and body == payload
                answered += 1
                at += length + 4
            del self.buffer[:at]
        took = time.monotonic() - began
        self.sock.settimeout(PATIENCE_S)
        return count / took, right


def exactly(sock, count):
    """So many bytes; fewer where the other side closed."""
    data = b""
    while len(data) < count:
        try:
            more = sock.recv(count - len(data))
        except ConnectionResetError:
            more = b""
        if not more:
            return data
        data += more
    return data


def fields(block):
    found = {}
    at = 0
    while at < len(block):
        name, value = struct.unpack_from("!HH", block, at)
        at += 4
        key = block[at : at + name].decode()
        text = block[at + name : at + name + value].decode("latin1")
        found[key] = found[key] + ", " + text if key in found else text
        at += name + value
    return found
