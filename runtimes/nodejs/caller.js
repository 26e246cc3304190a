'use strict';
// Takes the proxy's connection, whoever else connects: the other handlers of the function are on the
// same network, and one of them may be hostile. See docs/reference/handler-protocol.md.

const { createHmac, randomBytes, timingSafeEqual } = require('crypto');
const net = require('net');

const NONCE_BYTES = 32;
const SHOWN_BYTES = 64;

/** `next` gets the first connection to the port that knows the secret, and what to send on it first. */
exports.accept = function accept(port, secret, next) {
  // One for each address: no other than the proxy's own can push the proxy out.
  const waiting = new Map();
  const server = net.createServer({ noDelay: true }, (socket) => {
    const address = socket.remoteAddress;
    waiting.get(address)?.destroy();
    waiting.set(address, socket);
    const challenge = randomBytes(NONCE_BYTES);
    let shown = Buffer.alloc(0);
    const forget = () => {
      socket.destroy();
      if (waiting.get(address) === socket) waiting.delete(address);
    };
    const take = (nonce) => {
      server.close();
      waiting.delete(address);
      for (const other of waiting.values()) other.destroy();
      socket.removeAllListeners();
      socket.pause();
      // Not while it is being read.
      setImmediate(next, socket, proof(secret, 'handler', challenge, nonce));
    };
    socket.on('error', forget).on('end', forget).on('data', (data) => {
      shown = Buffer.concat([shown, data]);
      if (shown.length < SHOWN_BYTES) return;
      const nonce = shown.subarray(0, NONCE_BYTES);
      const expected = proof(secret, 'caller', challenge, nonce);
      const isProxy = shown.length === SHOWN_BYTES && timingSafeEqual(shown.subarray(NONCE_BYTES), expected);
      if (isProxy) take(nonce);
      else forget();
    });
    socket.write(challenge);
  });
  server.listen(port, '0.0.0.0');
};

function proof(secret, who, challenge, nonce) {
  return createHmac('sha256', secret).update(who).update(challenge).update(nonce).digest();
}
