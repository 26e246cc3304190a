'use strict';
// The request and the response of a function, in Express's shape. Nothing of a request is decoded
// before it is asked for, and whatever ends a response hands one reply to `sink.reply`.

const REQUEST_BYTES = 32;

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

/** A response in Express's shape. Whatever ends it sends one reply. */
class Response {
  constructor(sink, id, req) {
    this._sink = sink;
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
    this._sink.reply(this, body);
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

// The endpoint that answers the client frames the body itself.
const FRAMING = new Set(['connection', 'content-length', 'transfer-encoding']);
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
    if (FRAMING.has(name)) continue;
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

module.exports = { Request, Response, REQUEST_BYTES, headerBlock, toBuffer };
