'use strict';
// The shim of the nodejs runtime: loads the npm module in TINYFAAS_CODE and calls it for every
// request.
//
// It speaks the handler protocol (docs/reference/handler-protocol.md) on descriptor 3, or over TCP
// on the port that TINYFAAS_LISTEN names.
//
// What is thrown outside of a call, such as in a timer, fails the call that it comes from and no other.
// Where it comes from none, the handler finishes the calls that it has and another takes over.
// Quick functions are what this file is shaped for: what a read brings is run at once, and what is
// ready then goes out in one write.

const net = require('net');
const { AsyncLocalStorage } = require('async_hooks');
const { Request, Response, abandon } = require('./native.js');
const { REQUEST_BYTES } = require('./request.js');
const { toBuffer } = require('./express.js');
const { describe, stackOf, withoutOurs } = require('./errors.js');
const { load } = require('./load.js');

const VERSION = 1;
// Node itself keeps children from inheriting it.
const PROTOCOL_FD = 3;
const AT_ONCE = 256;
const READ_BYTES = 64 << 10;
// Replies below this size are copied into one buffer; larger ones are handed on as they are.
const COPY_BYTES_MAX = 64 << 10;
const SLABS_MAX = 4;
// How long a reply may wait for the others that came with it.
const PATIENCE_MS = 2;
const FRAME_BYTES_MAX = 16 << 20;
// As for every runtime.
const PAYLOAD_BYTES_MAX = 8 << 20;
const HEADERS_BYTES_MAX = 64 << 10;
const MESSAGE_BYTES_MAX = 64 << 10;
const HEADER_BYTES = 16;

const HELLO = 1;
const REQUEST = 2;
const REPLY = 3;
const CANCEL = 4;
const PING = 5;
const PONG = 6;
const FAILED = 7;
const LEAVING = 8;
const FLAG_FAILED = 1;
const FLAG_NOT_BEGUN = 2;

const EMPTY = Buffer.alloc(0);

// Whose work runs: the response of the call that began it.
const calls = new AsyncLocalStorage();

// Frames

/** A frame that is ready to be written: its payload is text or a Buffer. */
function frame(id, kind, flags, word, headers, payload) {
  const size = typeof payload === 'string' ? Buffer.byteLength(payload) : payload.length;
  return { id, kind, flags, word, headers, payload, size };
}

function failure(id, message) {
  return frame(id, REPLY, FLAG_FAILED, 500, EMPTY, cut(message));
}

function cut(text) {
  const bytes = Buffer.from(text);
  return bytes.length > MESSAGE_BYTES_MAX ? bytes.subarray(0, MESSAGE_BYTES_MAX) : bytes;
}

function putHead(out, at, { id, kind, flags, word, headers, size }) {
  out.writeUInt32BE(HEADER_BYTES - 4 + headers.length + size, at);
  out.writeUInt32BE(id, at + 4);
  out[at + 8] = kind;
  out[at + 9] = flags;
  out.writeUInt16BE(word, at + 10);
  out.writeUInt32BE(headers.length, at + 12);
  headers.copy(out, at + HEADER_BYTES);
  return at + HEADER_BYTES + headers.length;
}

/** Whether a value that a function returns is meant for its caller: streams and timers are not. */
function isReply(value) {
  if (value === undefined || value === null || typeof value === 'function') return false;
  return typeof value !== 'object' || !(typeof value.on === 'function' || typeof value.ref === 'function');
}

/** `HELLO`, whose last field is no length. */
function hello() {
  const bytes = Buffer.alloc(HEADER_BYTES);
  putHead(bytes, 0, frame(0, HELLO, 0, VERSION, EMPTY, EMPTY));
  bytes.writeUInt32BE(AT_ONCE, 12);
  return bytes;
}

// The stream

class Shim {
  constructor() {
    this.call = undefined;
    this.ready = [];
    this.readyBytes = 0;
    // Buffers that are written from, again and again.
    this.slabs = [];
    this.flushLater = () => this.flush();
    // Requests that run: by id.
    this.running = new Map();
    // The beginning of a frame whose length has not come, and one that has come in part.
    this.start = EMPTY;
    this.partial = undefined;
    this.filled = 0;
    this.socket = undefined;
    this.isLeaving = false;
  }

  /** Takes the stream; `next` runs when it is there. */
  connect(next) {
    const port = process.env.TINYFAAS_LISTEN;
    delete process.env.TINYFAAS_LISTEN;
    if (!port) {
      const options = { fd: PROTOCOL_FD, readable: true, writable: true, ...this.reading() };
      this.takeOver(new net.Socket(options));
      next();
      return;
    }
    // Out of the environment, and the connection made, before the function is loaded.
    const secret = Buffer.from(process.env.TINYFAAS_SECRET, 'hex');
    delete process.env.TINYFAAS_SECRET;
    require('./caller.js').accept(Number(port), secret, (accepted, proof) => {
      // Made again, since only a new socket can read into one buffer again and again.
      const handle = accepted._handle;
      const options = { handle, readable: true, writable: true, ...this.reading() };
      this.takeOver(new net.Socket(options).resume());
      this.socket.write(proof);
      next();
    });
  }

  reading() {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    const callback = (count) => {
      this.take(buffer.subarray(0, count));
      return true;
    };
    return { onread: { buffer, callback } };
  }

  takeOver(socket) {
    // The proxy closes the stream when the handler is to stop.
    const stop = () => process.exit(0);
    this.socket = socket.on('end', stop).on('close', stop).on('error', stop);
  }

  serve(call) {
    this.call = call;
    process.on('exit', this.flushLater);
    process.on('uncaughtException', (error) => this.threwOutside(error));
    process.on('unhandledRejection', (error) => this.threwOutside(error));
    this.socket.write(hello());
  }

  /** Tells why the function cannot be loaded, and exits. */
  refuse(reason) {
    const bytes = Buffer.alloc(HEADER_BYTES);
    const text = cut(reason);
    putHead(bytes, 0, frame(0, FAILED, 0, 0, EMPTY, text));
    this.socket.end(Buffer.concat([bytes, text]), () => process.exit(1));
  }

  /** Takes bytes that came; the view is of use only during this call. */
  take(view) {
    if (this.partial !== undefined) {
      const count = view.copy(this.partial, this.filled);
      this.filled += count;
      if (this.filled < this.partial.length) return;
      const whole = this.partial;
      this.partial = undefined;
      this.dispatch(whole, 0, whole.length);
      view = view.subarray(count);
    }
    const chunk = this.start.length ? Buffer.concat([this.start, view]) : Buffer.from(view);
    this.start = EMPTY;
    this.takeFrames(chunk);
  }

  takeFrames(chunk) {
    const end = chunk.length;
    const until = Date.now() + PATIENCE_MS;
    let at = 0;
    while (end - at >= HEADER_BYTES) {
      const length = chunk.readUInt32BE(at) + 4;
      if (length < HEADER_BYTES || length > FRAME_BYTES_MAX) this.leave();
      if (end - at < length) {
        this.partial = Buffer.allocUnsafe(length);
        this.filled = chunk.copy(this.partial, 0, at);
        return;
      }
      this.dispatch(chunk, at, length);
      if (this.ready.length && Date.now() > until) this.flush();
      at += length;
    }
    if (at < end) this.start = chunk.subarray(at);
  }

  dispatch(buffer, at, length) {
    const id = buffer.readUInt32BE(at + 4);
    switch (buffer[at + 8]) {
      case REQUEST:
        if (length < REQUEST_BYTES) this.leave();
        return this.run(id, new Request(buffer, at, length));
      case CANCEL:
        return this.cancel(id);
      case PING: {
        const bytes = Buffer.from(buffer.subarray(at + HEADER_BYTES, at + length));
        return this.put(frame(0, PONG, 0, 0, EMPTY, bytes));
      }
      default:
        return this.leave();
    }
  }

  run(id, req) {
    // It was on its way when this handler asked for no more.
    if (this.isLeaving) return this.put(frame(id, REPLY, FLAG_NOT_BEGUN, 503, EMPTY, EMPTY));
    const res = new Response(this, id, req);
    try {
      const result = calls.run(res, this.call, req, res);
      // Any object with a `then` counts, as not every library returns native promises.
      if (typeof result?.then === 'function') {
        const returned = res._isOver ? undefined : (value) => this.returned(res, value);
        result.then(returned, (error) => this.threw(res, error));
      } else if (result !== undefined && this.call.length < 2) {
        this.returned(res, result);
      }
    } catch (error) {
      this.threw(res, error);
    }
    if (!res._isOver) this.running.set(id, res);
    return undefined;
  }

  /** A value is the reply of a function that has not begun one. */
  returned(res, value) {
    if (res._isOver || res.headersSent || !isReply(value)) return;
    try {
      res.send(value);
    } catch (error) {
      this.threw(res, error);
    }
  }

  threw(res, error) {
    console.error(withoutOurs(error));
    if (!res._isOver) this.end(res, failure(res._id, describe(error)));
  }

  /** Fails a call for a reason of ours. */
  fail(res, message) {
    console.error(message);
    this.end(res, failure(res._id, message));
  }

  /** What was thrown outside of a call fails the call that it comes from. */
  threwOutside(error) {
    const res = calls.getStore();
    if (res !== undefined && !res._isOver) return this.threw(res, error);
    console.error(withoutOurs(error));
    if (res === undefined) this.retire();
    return undefined;
  }

  /** Asks to be replaced: what all calls share may be broken. The proxy closes the stream when the
   * calls that run are over. */
  retire() {
    if (this.isLeaving) return;
    this.isLeaving = true;
    this.put(frame(0, LEAVING, 0, 0, EMPTY, EMPTY));
  }

  /** Node.js before version 24 forgets whose microtask it is that throws. */
  traceMicrotasks() {
    const queue = globalThis.queueMicrotask;
    globalThis.queueMicrotask = (task) => queue(typeof task !== 'function' ? task : () => {
      try {
        task();
      } catch (error) {
        this.threwOutside(error);
      }
    });
  }

  /** Sends the reply of a response that has ended. */
  reply(res, body, headers) {
    const status = Number(res.statusCode);
    if (!(Number.isInteger(status) && status >= 200 && status < 600)) {
      return this.fail(res, `status ${res.statusCode}: use a number from 200 to 599`);
    }
    const payload = status === 204 || status === 304 ? '' : body;
    const reply = frame(res._id, REPLY, 0, status, headers, payload);
    if (reply.size > PAYLOAD_BYTES_MAX) {
      return this.fail(res, `a reply may have ${PAYLOAD_BYTES_MAX} bytes, got ${reply.size}`);
    }
    if (headers.length > HEADERS_BYTES_MAX) {
      const got = headers.length;
      return this.fail(res, `the header fields may have ${HEADERS_BYTES_MAX} bytes, got ${got}`);
    }
    res._isOver = true;
    this.running.delete(res._id);
    return this.put(reply);
  }

  /** Confirms at once; what the function still does has no taker. */
  cancel(id) {
    const res = this.running.get(id);
    if (res === undefined) return;
    res._isCancelled = true;
    this.end(res, failure(id, 'cancelled'));
    try {
      // The function's listeners run here.
      calls.run(res, abandon, res);
    } catch (error) {
      console.error(withoutOurs(error));
    }
  }

  /** Ends a call that sends no reply of its own. */
  end(res, outcome) {
    res._isOver = true;
    this.running.delete(res._id);
    this.put(outcome);
    res._socket?.destroy();
  }

  put(ready) {
    const bytes = HEADER_BYTES + ready.headers.length + ready.size;
    if (this.readyBytes + bytes > COPY_BYTES_MAX) this.flush();
    if (this.ready.push(ready) === 1) setImmediate(this.flushLater);
    this.readyBytes += bytes;
  }

  /** Writes what is ready. */
  flush() {
    const { ready, readyBytes } = this;
    if (ready.length === 0) return;
    this.ready = [];
    this.readyBytes = 0;
    if (readyBytes <= COPY_BYTES_MAX) {
      const out = this.slabs.pop() || Buffer.allocUnsafeSlow(COPY_BYTES_MAX);
      let at = 0;
      for (const one of ready) {
        at = putHead(out, at, one);
        if (typeof one.payload === 'string') at += out.write(one.payload, at);
        else at += one.payload.copy(out, at);
      }
      this.socket.write(out.subarray(0, at), () => {
        if (this.slabs.length < SLABS_MAX) this.slabs.push(out);
      });
      return;
    }
    this.socket.cork();
    for (const one of ready) {
      const head = Buffer.allocUnsafe(HEADER_BYTES + one.headers.length);
      putHead(head, 0, one);
      this.socket.write(head);
      if (one.size) this.socket.write(toBuffer(one.payload));
    }
    this.socket.uncork();
  }

  /** The proxy broke the protocol: there is nothing more to do. */
  leave() {
    process.exit(0);
  }
}

const shim = new Shim();
shim.traceMicrotasks();
shim.connect(() => {
  load().then(
    (call) => shim.serve(call),
    (error) => {
      console.error(withoutOurs(error));
      shim.refuse(stackOf(error));
    },
  );
});
