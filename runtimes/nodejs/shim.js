'use strict';
// The shim of the nodejs runtime: loads the npm module in TINYFAAS_CODE and calls it for every
// request.
//
// It speaks the handler protocol (docs/reference/handler-protocol.md) on descriptor 0, or over TCP
// where TINYFAAS_CONNECT asks for it.
//
// Quick functions are what this file is shaped for: what a read brings is run at once, what is
// ready then goes out in one write, and nothing of a request is decoded before it is asked for.

const net = require('net');

const VERSION = 1;
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
const REQUEST_BYTES = 32;

const HELLO = 1;
const REQUEST = 2;
const REPLY = 3;
const CANCEL = 4;
const PING = 5;
const PONG = 6;
const FAILED = 7;
const FLAG_FAILED = 1;

const EMPTY = Buffer.alloc(0);
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;
const HTML = 'text/html; charset=utf-8';
const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json; charset=utf-8';
const BYTES = 'application/octet-stream';
const TYPES = {
  bin: BYTES, css: 'text/css; charset=utf-8', csv: 'text/csv; charset=utf-8', gif: 'image/gif',
  htm: HTML, html: HTML, jpeg: 'image/jpeg', jpg: 'image/jpeg',
  js: 'text/javascript; charset=utf-8', json: JSON_TYPE, pdf: 'application/pdf', png: 'image/png',
  svg: 'image/svg+xml', text: TEXT, txt: TEXT, xml: 'application/xml', zip: 'application/zip',
};

// What came

/** A request in Express's shape. Its parts are decoded when they are first asked for. */
class Request {
  constructor(buffer, at, length) {
    this._buffer = buffer;
    this._at = at;
    this._end = at + length;
    this._isCancelled = false;
    this.params = {};
  }

  get(name) {
    const key = String(name).toLowerCase();
    const headers = this.headers;
    if (key === 'referer' || key === 'referrer') return headers.referrer || headers.referer;
    return headers[key];
  }

  header(name) {
    return this.get(name);
  }

  /** The content type, if it is `type`: a name such as `json`, or a type such as `text/*`. */
  is(type) {
    const own = (this.headers['content-type'] || '').split(';')[0].trim().toLowerCase();
    const wanted = type.includes('/') ? type : (TYPES[type] || type).split(';')[0];
    const matches = wanted.endsWith('/*') ? own.startsWith(wanted.slice(0, -1)) : own === wanted;
    return matches && own !== '' ? own : false;
  }

  get hostname() {
    return (this.headers.host || '').replace(/:\d+$/, '');
  }

  /** Aborts when nobody waits for the reply any more. */
  get signal() {
    if (this._controller === undefined) {
      this._controller = new AbortController();
      if (this._isCancelled) this._controller.abort();
    }
    return this._controller.signal;
  }

  /** `data`, once, and `end`, as a stream would send them. */
  on(event, listener) {
    if (event === 'data') setImmediate(() => this.rawBody.length && listener(this.rawBody));
    if (event === 'end') setImmediate(() => setImmediate(listener));
    if (event === 'aborted' || event === 'close') this.signal.addEventListener('abort', listener);
    return this;
  }

  once(event, listener) {
    return this.on(event, listener);
  }

  setEncoding() {
    return this;
  }

  _cancel() {
    this._isCancelled = true;
    if (this._controller !== undefined) this._controller.abort();
  }

  _part(number) {
    const { _buffer: buffer, _at: at } = this;
    const lens = [
      buffer.readUInt16BE(at + 10), buffer.readUInt16BE(at + 28), buffer.readUInt16BE(at + 30),
      buffer.readUInt32BE(at + 12),
    ];
    let start = at + REQUEST_BYTES;
    for (let i = 0; i < number; i++) start += lens[i];
    return buffer.subarray(start, number < 4 ? start + lens[number] : this._end);
  }
}

/** Gives requests a property that is computed when it is first read and can be assigned. */
function lazy(name, compute) {
  const slot = `_${name}`;
  Object.defineProperty(Request.prototype, name, {
    enumerable: true,
    get() {
      const known = this[slot];
      return known === undefined ? (this[slot] = compute(this)) : known;
    },
    set(value) {
      this[slot] = value;
    },
  });
}

lazy('method', (req) => req._part(0).toString('latin1'));
lazy('path', (req) => req._part(1).toString());
lazy('_query_text', (req) => req._part(2).toString());
lazy('headers', (req) => readHeaders(req._part(3)));
lazy('rawBody', (req) => req._part(4));
lazy('body', (req) => req.rawBody.toString());
lazy('url', (req) => (req._query_text ? `${req.path}?${req._query_text}` : req.path));
lazy('originalUrl', (req) => req.url);
lazy('query', (req) => ({ ...require('querystring').parse(req._query_text) }));

function readHeaders(block) {
  const headers = {};
  let at = 0;
  while (at < block.length) {
    const valueAt = at + 4 + block.readUInt16BE(at);
    const end = valueAt + block.readUInt16BE(at + 2);
    const name = block.latin1Slice(at + 4, valueAt);
    const value = block.utf8Slice(valueAt, end);
    const known = Object.hasOwn(headers, name) ? headers[name] : undefined;
    const joined = known === undefined ? value : known + (name === 'cookie' ? '; ' : ', ') + value;
    if (name === '__proto__') Object.defineProperty(headers, name, { value: joined });
    else headers[name] = joined;
    at = end;
  }
  return headers;
}

// What goes out

/** A response in Express's shape. Whatever ends it sends one reply. */
class Response {
  constructor(shim, id, req) {
    this._shim = shim;
    this._id = id;
    this._emitter = undefined;
    this._headers = undefined;
    this._type = undefined;
    this._chunks = undefined;
    this.req = req;
    this.statusCode = 200;
    this.statusMessage = '';
    this.headersSent = false;
    this.writableEnded = false;
    this.locals = {};
  }

  get finished() {
    return this.writableEnded;
  }

  status(code) {
    this.statusCode = checkStatus(code);
    return this;
  }

  sendStatus(code) {
    const { STATUS_CODES } = require('http');
    this.status(code);
    this._type = TEXT;
    return this.send(STATUS_CODES[this.statusCode] || String(this.statusCode));
  }

  send(body) {
    if (typeof body === 'string') {
      this._type = this._type === undefined ? HTML : withCharset(this._type);
      return this._finish(body);
    }
    if (body === undefined || body === null) return this._finish('');
    if (ArrayBuffer.isView(body)) {
      if (this._type === undefined) this._type = BYTES;
      return this._finish(toBuffer(body));
    }
    return this.json(body);
  }

  json(body) {
    const text = JSON.stringify(body);
    if (this._type === undefined) this._type = JSON_TYPE;
    return this._finish(text === undefined ? '' : text);
  }

  redirect(status, url) {
    if (url === undefined) [status, url] = [302, status];
    this.status(status).location(url).type('txt');
    return this._finish(`Redirecting to ${url}`);
  }

  location(url) {
    return this.set('location', encodeURI(url).replace(/%25([0-9a-f]{2})/gi, '%$1'));
  }

  vary(field) {
    return this.append('vary', field);
  }

  write(chunk, encoding, done) {
    if (this.writableEnded) throw new Error('write after end: the reply has been sent');
    this.headersSent = true;
    (this._chunks ||= []).push(toBuffer(chunk, encoding));
    const callback = typeof encoding === 'function' ? encoding : done;
    if (callback) setImmediate(callback);
    return true;
  }

  end(chunk, encoding, done) {
    const callback = [chunk, encoding, done].find((argument) => typeof argument === 'function');
    if (callback) this.once('finish', callback);
    if (this.writableEnded) return this;
    let body = chunk === undefined || chunk === null || chunk === callback ? '' : chunk;
    if (typeof body !== 'string' || typeof encoding === 'string') body = toBuffer(body, encoding);
    if (this._chunks !== undefined) body = Buffer.concat([...this._chunks, toBuffer(body)]);
    return this._finish(body);
  }

  set(name, value) {
    if (typeof name === 'object') {
      for (const key of Object.keys(name)) this.set(key, name[key]);
      return this;
    }
    return this.setHeader(name, value);
  }

  header(name, value) {
    return this.set(name, value);
  }

  setHeader(name, value) {
    if (this.writableEnded) throw new Error('set header: the reply has been sent');
    const key = checkName(name);
    const values = Array.isArray(value) ? value.map(checkValue) : checkValue(value);
    if (key === 'content-type') this._type = String(values);
    else (this._headers ||= new Map()).set(key, values);
    return this;
  }

  append(name, value) {
    const known = this.getHeader(name);
    return this.set(name, known === undefined ? value : [].concat(known, value));
  }

  appendHeader(name, value) {
    return this.append(name, value);
  }

  get(name) {
    return this.getHeader(name);
  }

  getHeader(name) {
    const key = String(name).toLowerCase();
    return key === 'content-type' ? this._type : this._headers?.get(key);
  }

  getHeaders() {
    const headers = Object.fromEntries(this._headers || []);
    if (this._type !== undefined) headers['content-type'] = this._type;
    return headers;
  }

  getHeaderNames() {
    return Object.keys(this.getHeaders());
  }

  hasHeader(name) {
    return this.getHeader(name) !== undefined;
  }

  removeHeader(name) {
    const key = String(name).toLowerCase();
    if (key === 'content-type') this._type = undefined;
    else this._headers?.delete(key);
    return this;
  }

  writeHead(code, reason, headers) {
    this.status(code);
    const fields = typeof reason === 'string' ? headers : reason;
    if (fields) this.set(fields);
    return this;
  }

  flushHeaders() {}

  type(name) {
    const key = String(name).replace(/^.*\./, '').toLowerCase();
    return this.set('content-type', name.includes('/') ? name : TYPES[key] || BYTES);
  }

  contentType(name) {
    return this.type(name);
  }

  _emitDone() {
    this.emit('finish');
    this.emit('close');
  }

  _finish(body) {
    if (this.writableEnded) return this;
    if (this._chunks !== undefined && body === '') body = Buffer.concat(this._chunks);
    checkStatus(this.statusCode);
    this.headersSent = true;
    this.writableEnded = true;
    this._shim.reply(this, body);
    if (this._emitter !== undefined) setImmediate(() => this._emitDone());
    return this;
  }
}

// Streams can be piped into a response; its listeners cost nothing where there are none.
for (const method of [
  'on', 'once', 'off', 'emit', 'addListener', 'removeListener', 'prependListener', 'listenerCount',
]) {
  Response.prototype[method] = function (...args) {
    if (this._emitter === undefined) this._emitter = new (require('events'))();
    const result = this._emitter[method](...args);
    return result === this._emitter ? this : result;
  };
}

function checkStatus(code) {
  const status = Number(code);
  if (Number.isInteger(status) && status >= 200 && status < 600) return status;
  throw new RangeError(`status ${code}: use a number from 200 to 599`);
}

function checkName(name) {
  if (TOKEN.test(name)) return String(name).toLowerCase();
  throw new TypeError(`header ${JSON.stringify(name)}: not a name that a header can have`);
}

function checkValue(value) {
  const text = String(value).trim();
  if (value !== undefined && !CONTROL.test(text) && text.length < 65536) return text;
  throw new TypeError(`header value ${JSON.stringify(value)}: leave out control characters`);
}

/** Text goes out as UTF-8, and its type says so. */
function withCharset(type) {
  return /^text\//i.test(type) && !/;\s*charset=/i.test(type) ? `${type}; charset=utf-8` : type;
}

function toBuffer(value, encoding) {
  if (typeof value === 'string') {
    return Buffer.from(value, typeof encoding === 'string' ? encoding : 'utf8');
  }
  if (Buffer.isBuffer(value)) return value;
  if (ArrayBuffer.isView(value)) {
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
  throw new TypeError(`a reply of type ${typeof value}: give text or a Buffer`);
}

const knownTypes = new Map();

/** The header block of a response. */
function headerBlock(res) {
  if (res._headers === undefined || res._headers.size === 0) {
    if (res._type === undefined) return EMPTY;
    let block = knownTypes.get(res._type);
    if (block === undefined) {
      block = field('content-type', res._type);
      if (knownTypes.size < 64) knownTypes.set(res._type, block);
    }
    return block;
  }
  const fields = [];
  if (res._type !== undefined) fields.push(field('content-type', res._type));
  for (const [name, values] of res._headers) {
    // The endpoint that answers the client frames the body itself.
    if (name === 'content-length' || name === 'transfer-encoding' || name === 'connection') continue;
    for (const value of [].concat(values)) fields.push(field(name, value));
  }
  return Buffer.concat(fields);
}

function field(name, value) {
  const bytes = Buffer.from(value);
  const lens = Buffer.allocUnsafe(4);
  lens.writeUInt16BE(name.length, 0);
  lens.writeUInt16BE(bytes.length, 2);
  return Buffer.concat([lens, Buffer.from(name, 'latin1'), bytes]);
}

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
    this.socket = this.connect();
  }

  connect() {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    const callback = (count) => {
      this.take(buffer.subarray(0, count));
      return true;
    };
    const onread = { buffer, callback };
    const address = process.env.TINYFAAS_CONNECT;
    delete process.env.TINYFAAS_CONNECT;
    let socket;
    if (address) {
      const colon = address.lastIndexOf(':');
      const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
      socket = net.connect({ host, port: Number(address.slice(colon + 1)), noDelay: true, onread });
    } else {
      socket = new net.Socket({ fd: 0, readable: true, writable: true, onread });
      hideStdin();
    }
    // The proxy closes the stream when the handler is to stop.
    const stop = () => process.exit(0);
    return socket.on('end', stop).on('close', stop).on('error', stop);
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
      if (typeof result?.then === 'function') result.then(undefined, (error) => this.threw(res, error));
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
    const hasBody = res.statusCode !== 204 && res.statusCode !== 304;
    const headers = headerBlock(res);
    const reply = frame(res._id, REPLY, 0, res.statusCode, headers, hasBody ? body : '');
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
      this.socket.write(out.subarray(0, at), () => this.slabs.length < SLABS_MAX && this.slabs.push(out));
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

/** What a function reads from its standard input is nothing. Descriptor 0 cannot be replaced. */
function hideStdin() {
  Object.defineProperty(process, 'stdin', {
    configurable: true,
    enumerable: true,
    get: () => {
      const value = require('stream').Readable.from([]);
      value.fd = 0;
      Object.defineProperty(process, 'stdin', { value });
      return value;
    },
  });
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

/** The exports of the module at a path, be it CommonJS or an ES module. */
async function importFrom(path) {
  const file = require.resolve(path);
  if (!file.endsWith('.mjs')) {
    try {
      return require(file);
    } catch (error) {
      if (error?.code !== 'ERR_REQUIRE_ESM' && error?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
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
  throw new Error('no module to load: put an index.js into the folder, or name its file as "main" in package.json');
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
  const entry = process.env.TINYFAAS_ENTRY;
  if (entry) return oldContract(await importFrom(`${code}/${entry}`), entry);
  const module = await importFrom(entryOf(code));
  for (const candidate of [module, module?.default, module?.default?.default, module?.fn]) {
    if (typeof candidate === 'function') return candidate;
  }
  const found = module === null ? 'null' : typeof module;
  throw new Error(`the module exports no function (found: ${found}): use module.exports = (req, res) => { … }, or export default`);
}

/** `eventhandler()`, whose result is the reply as it is. */
function oldContract(module, entry) {
  const eventhandler = module?.eventhandler ?? module?.default?.eventhandler;
  if (typeof eventhandler !== 'function') {
    throw new Error(`${entry} exports no function eventhandler(): use module.exports.eventhandler = () => …`);
  }
  const answer = (res, result) => {
    if (typeof result === 'string' || ArrayBuffer.isView(result)) return res.type('text').send(result);
    if (typeof result === 'object' && result !== null) return res.json(result);
    return res.type('text').send(result === undefined || result === null ? '' : String(result));
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
  const lines = stack.split('\n').filter((line) => !(/^\s+at /.test(line) && (line.includes(__filename) || line.includes('node:internal'))));
  return lines.join('\n');
}

const shim = new Shim();
load().then(
  (call) => shim.serve(call),
  (error) => {
    console.error(error);
    shim.fail(stackOf(error));
  },
);
