"""Takes the proxy's connection, whoever else connects: the other handlers of the function are on the
same network, and one of them may be hostile. See docs/reference/handler-protocol.md."""

import os
import select
import socket
from _operator import _compare_digest

try:
    # Without OpenSSL, which takes memory and time and is of no other use here.
    try:
        from _sha2 import sha256
    except ImportError:
        from _sha256 import sha256
except ImportError:
    from hashlib import sha256

NONCE_BYTES = 32
SHOWN_BYTES = 64
BLOCK_BYTES = 64


def proof(secret, who, challenge, nonce):
    """HMAC-SHA256 (RFC 2104)."""
    key = secret.ljust(BLOCK_BYTES, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in key) + who + challenge + nonce).digest()
    return sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


class Waiting:
    """A connection that has yet to prove that it is the proxy's."""

    def __init__(self, sock):
        self.sock = sock
        self.shown = b""
        self.challenge = os.urandom(NONCE_BYTES)
        sock.setblocking(False)
        # A new connection has room for that.
        sock.sendall(self.challenge)

    def is_proven(self, secret):
        """OSError is the end of the connection."""
        data = self.sock.recv(SHOWN_BYTES - len(self.shown))
        if not data:
            raise OSError("it went")
        self.shown += data
        if len(self.shown) < SHOWN_BYTES:
            return False
        expected = proof(secret, b"caller", self.challenge, self.shown[:NONCE_BYTES])
        if not _compare_digest(self.shown[NONCE_BYTES:], expected):
            raise OSError("it is not the proxy")
        return True

    def take(self, secret):
        """Shows in its turn that this is the handler."""
        self.sock.setblocking(True)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(proof(secret, b"handler", self.challenge, self.shown[:NONCE_BYTES]))
        return self.sock


def accept(port, secret):
    """The first connection to the port that knows the secret."""
    # One for each address: no other than the proxy's own can push the proxy out.
    waiting = {}
    poll = select.poll()

    def forget(address):
        it = waiting.pop(address)
        poll.unregister(it.sock)
        it.sock.close()

    def begin(sock, address):
        if address in waiting:
            forget(address)
        try:
            it = Waiting(sock)
        except OSError:
            sock.close()
            return
        waiting[address] = it
        poll.register(sock, select.POLLIN)

    with socket.create_server(("", port)) as server:
        server.setblocking(False)
        poll.register(server, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            for address, it in list(waiting.items()):
                if it.sock.fileno() not in ready:
                    continue
                try:
                    is_proven = it.is_proven(secret)
                except OSError:
                    forget(address)
                    continue
                if is_proven:
                    del waiting[address]
                    for other in list(waiting):
                        forget(other)
                    return it.take(secret)
            if server.fileno() not in ready:
                continue
            try:
                sock, (address, _) = server.accept()
            except BlockingIOError:
                continue
            except OSError:
                # Such as for want of descriptors, which somebody else holds.
                for other in list(waiting):
                    forget(other)
                continue
            begin(sock, address)
