'use strict';
// The shim of the nodejs runtime: loads the npm module in TINYFAAS_CODE and calls it for every
// request.
//
// It speaks the handler protocol (docs/reference/handler-protocol.md) on descriptor 3, or over TCP
// on the port that TINYFAAS_LISTEN names.
//
// Quick functions are what this file is shaped for: what a read brings is run at once, and what is
// ready then goes out in one write.

const net = require('net');
const { Request, Response, REQUEST_BYTES, headerBlock, toBuffer } = require('./express.js');

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
const FLAG_FAILED = 1;

const EMPTY = Buffer.alloc(0);

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
    // The first to call is the proxy: the function, which could be another, is not loaded yet.
    const server = net.createServer({ pauseOnConnect: true, noDelay: true }, (accepted) => {
      server.close();
      // Made anew, since only a new socket can read into one buffer again and again.
      const handle = accepted._handle;
      const options = { handle, readable: true, writable: true, ...this.reading() };
      this.takeOver(new net.Socket(options).resume());
      next();
    });
    server.listen(Number(port), '0.0.0.0');
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
    this.socket.write(hello());
  }

  fail(reason) {
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
    const res = new Response(this, id, req);
    try {
      const result = this.call(req, res);
      // Any object with a `then` counts, as not every library returns native promises.
      if (typeof result?.then === 'function') {
        result.then(undefined, (error) => this.threw(res, error));
      }
    } catch (error) {
      this.threw(res, error);
    }
    if (!res.writableEnded) this.running.set(id, res);
  }

  threw(res, error) {
    console.error(error);
    if (res.writableEnded) return;
    res.headersSent = true;
    res.writableEnded = true;
    this.running.delete(res._id);
    this.put(failure(res._id, describe(error)));
  }

  reply(res, body) {
    this.running.delete(res._id);
    if (res.statusCode === 204 || res.statusCode === 304) {
      res._type = undefined;
      body = '';
    }
    const headers = headerBlock(res);
    const reply = frame(res._id, REPLY, 0, res.statusCode, headers, body);
    const size = reply.size + headers.length + HEADER_BYTES;
    if (size > FRAME_BYTES_MAX || headers.length > HEADERS_BYTES_MAX) {
      const message = `the reply has ${size} bytes, too many: send less`;
      console.error(message);
      return this.put(failure(res._id, message));
    }
    return this.put(reply);
  }

  /** Confirms at once; what the function still does has no taker. */
  cancel(id) {
    const res = this.running.get(id);
    if (res === undefined) return;
    this.running.delete(id);
    res.writableEnded = true;
    this.put(failure(id, 'cancelled'));
    res.req._cancel();
    if (res._emitter !== undefined) res.emit('close');
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

/** The function's message for its caller. */
function describe(error) {
  try {
    if (error instanceof Error || typeof error?.message === 'string') {
      return `${error.name || 'Error'}: ${error.message}`;
    }
    return typeof error === 'string' ? error : require('util').inspect(error);
  } catch {
    return 'the function threw something that cannot be shown';
  }
}

// The function

// What `require` says of a module that has to be imported.
const ES_MODULE = new Set(['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE']);

/** The exports of the module at a path, be it CommonJS or an ES module. */
async function importFrom(path) {
  const file = require.resolve(path);
  if (!file.endsWith('.mjs')) {
    try {
      return require(file);
    } catch (error) {
      if (!ES_MODULE.has(error?.code)) throw error;
    }
  }
  return import(require('url').pathToFileURL(file));
}

/** The file to load; a folder stands for its package.json's `main` or its index.js. */
function entryOf(code) {
  const tries = [code, `${code}/index.mjs`, `${code}/fn.js`];
  for (const path of tries) {
    try {
      return require.resolve(path);
    } catch (error) {
      if (error?.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  const fix = 'put an index.js into the folder, or name its file as "main" in package.json';
  throw new Error(`no module to load: ${fix}`);
}

function addDependencies() {
  const folder = process.env.TINYFAAS_DEPS;
  // Node itself looks at /node_modules.
  if (!folder || folder === '/node_modules') return;
  const before = process.env.NODE_PATH;
  process.env.NODE_PATH = before ? `${folder}:${before}` : folder;
  require('module').Module._initPaths();
}

/** What is called with a request and a response. */
async function load() {
  addDependencies();
  const code = process.env.TINYFAAS_CODE;
  const original = process.env.TINYFAAS_ENTRY;
  if (original) return oldContract(await importFrom(`${code}/${original}`), original);
  const file = entryOf(code);
  const entry = require('path').relative(code, file);
  const module = await importFrom(file);
  for (const candidate of [module, module?.default, module?.default?.default, module?.fn]) {
    if (typeof candidate === 'function') return candidate;
  }
  const found = module === null ? 'null' : typeof module;
  const fix = 'use module.exports = (req, res) => { … }, or export default';
  throw new Error(`${entry} exports ${found}, not a function: ${fix}`);
}

/** `eventhandler()`, whose result is the reply as it is. */
function oldContract(module, entry) {
  const eventhandler = module?.eventhandler ?? module?.default?.eventhandler;
  if (typeof eventhandler !== 'function') {
    const fix = 'use module.exports.eventhandler = () => …';
    throw new Error(`${entry} exports no function eventhandler(): ${fix}`);
  }
  const answer = (res, result) => {
    if (typeof result === 'object' && result !== null && !ArrayBuffer.isView(result)) {
      return res.json(result);
    }
    const isPlain = typeof result === 'string' || ArrayBuffer.isView(result);
    return res.type('text').send(isPlain ? result : String(result ?? ''));
  };
  return (req, res) => {
    const result = eventhandler();
    if (typeof result?.then !== 'function') return answer(res, result);
    return result.then((value) => answer(res, value));
  };
}

/** A stack without the frames of this file, which tell the function's author nothing. */
function stackOf(error) {
  const stack = error instanceof Error ? error.stack || describe(error) : describe(error);
  const isOurs = (line) => line.includes(__dirname) || line.includes('node:internal');
  const lines = stack.split('\n').filter((line) => !(/^\s+at /.test(line) && isOurs(line)));
  return lines.join('\n');
}

const shim = new Shim();
shim.connect(() => {
  load().then(
    (call) => shim.serve(call),
    (error) => {
      console.error(error);
      shim.fail(stackOf(error));
    },
  );
});
