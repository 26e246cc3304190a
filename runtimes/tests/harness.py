"""Starts shims over a socketpair and speaks the proxy's side of the handler protocol."""

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

RUNTIMES = Path(__file__).resolve().parent.parent
HELLO, REQUEST, REPLY, CANCEL, PING, PONG, FAILED = range(1, 8)
FLAG_FAILED = 1
HEADER = struct.Struct("!IIBBHI")
# A shim that says nothing for so long is stuck; no test waits for it to pass.
STUCK_S = 30


def interpreter(name):
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"{name} is not installed; the tests of its runtime need it")
    return path


def header_block(fields):
    block = b""
    for name, value in fields:
        name, value = name.encode(), value.encode()
        block += struct.pack("!HH", len(name), len(value)) + name + value
    return block


def parse_headers(block):
    fields, at = [], 0
    while at < len(block):
        name_len, value_len = struct.unpack_from("!HH", block, at)
        at += 4
        name = block[at : at + name_len].decode()
        at += name_len
        fields.append((name, block[at : at + value_len].decode()))
        at += value_len
    return fields


def request(id, payload=b"", method="POST", path="/f", query="", headers=(), kind=REQUEST):
    block = header_block(headers)
    method, path, query = method.encode(), path.encode(), query.encode()
    fixed = struct.pack("!QIHH", 1000 + id, 60000, len(path), len(query))
    body = fixed + method + path + query + block + payload
    return HEADER.pack(12 + len(body), id, kind, 0, len(method), len(block)) + body


def control(kind, body=b"", id=0):
    return HEADER.pack(12 + len(body), id, kind, 0, 0, 0) + body


class Frame:
    def __init__(self, id, kind, flags, word, headers_len, body):
        self.id, self.kind, self.flags, self.word = id, kind, flags, word
        self.at_once = headers_len
        block = headers_len if kind == REPLY else 0
        self.headers = parse_headers(body[:block])
        self.payload = body[block:]

    @property
    def failed(self):
        return self.kind == REPLY and bool(self.flags & FLAG_FAILED)

    def header(self, name):
        return next((value for known, value in self.headers if known == name), None)


class Handler:
    """A running shim."""

    def __init__(self, command, code, envs=(), over_tcp=False):
        self.folder = str(code)
        listener = None
        if over_tcp:
            listener = socket.create_server(("127.0.0.1", 0))
            envs = dict(envs, TINYFAAS_CONNECT="127.0.0.1:%d" % listener.getsockname()[1])
            theirs = open(os.devnull)
        else:
            self.ours, theirs = socket.socketpair()
        self.output = tempfile.TemporaryFile()
        environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "LANG": "C.UTF-8"}
        environment.update(TINYFAAS_CODE=str(code), TINYFAAS_FUNCTION="f", TINYFAAS_HANDLER="f-1")
        environment.update(envs)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=self.output, stderr=self.output,
            env=environment, cwd=code,
        )
        theirs.close()
        if listener is not None:
            listener.settimeout(STUCK_S)
            self.ours, _ = listener.accept()
            listener.close()
        self.ours.settimeout(STUCK_S)
        self.received = b""

    def send(self, *frames):
        self.ours.sendall(b"".join(frames))

    def frame(self):
        """The next frame; none where the shim closed the stream."""
        while True:
            if len(self.received) >= 16:
                length, id, kind, flags, word, headers_len = HEADER.unpack_from(self.received)
                if len(self.received) >= 4 + length:
                    body = self.received[16 : 4 + length]
                    self.received = self.received[4 + length :]
                    return Frame(id, kind, flags, word, headers_len, body)
            try:
                data = self.ours.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.received += data

    def call(self, payload=b"", id=7, **request_parts):
        self.send(request(id, payload, **request_parts))
        reply = self.frame()
        assert reply is not None, "the shim ended: " + self.log()
        assert (reply.kind, reply.id) == (REPLY, id), (reply.kind, reply.id)
        return reply

    def log(self):
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def ended(self):
        """The exit status, once the shim has ended."""
        return self.process.wait(STUCK_S)

    def stop(self):
        self.ours.close()
        try:
            self.process.wait(STUCK_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.output.close()


class RuntimeTest(unittest.TestCase):
    """What the tests of all runtimes share: functions in temporary folders."""

    def command(self, code):
        raise NotImplementedError

    def start(self, files, envs=(), over_tcp=False):
        """A shim that has loaded, or not, the function of these files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name, text in files.items():
            path = Path(folder.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        handler = Handler(self.command(Path(folder.name)), folder.name, envs, over_tcp)
        self.addCleanup(handler.stop)
        return handler

    def ready(self, files, envs=(), over_tcp=False):
        handler = self.start(files, envs, over_tcp)
        hello = handler.frame()
        self.assertIsNotNone(hello, handler.log())
        self.assertEqual(hello.kind, HELLO, hello.payload.decode(errors="replace"))
        self.assertEqual(hello.word, 1)
        self.at_once = hello.at_once
        return handler

    def fails_to_load(self, files, envs=()):
        """The reason that the shim gives."""
        handler = self.start(files, envs)
        failed = handler.frame()
        self.assertIsNotNone(failed, handler.log())
        self.assertEqual(failed.kind, FAILED)
        self.assertIsNone(handler.frame())
        self.assertNotEqual(handler.ended(), 0)
        return failed.payload.decode()
