'use strict';
// Requests and responses as Node itself has them. A quick one becomes one, in place, when a function
// uses it as a stream or in any other way that is Node's own; an Express application is given no other.

const { Duplex } = require('stream');
const { IncomingMessage, ServerResponse } = require('http');
const { ExpressRequest, ExpressResponse, mix, toBuffer } = require('./express.js');
const { headerBlock } = require('./headers.js');
const { Request, OWN, SHAPE, queryText, rawHeadersOf } = require('./request.js');
const { Response, quickMethods } = require('./response.js');

// A reply is kept whole until it ends.
const PAYLOAD_BYTES_MAX = 8 << 20;

/** Stands for the connection: it closes when the call is over, and destroying it ends the call. */
class CallSocket extends Duplex {
  constructor() {
    super({ read() {}, write: (chunk, encoding, done) => done() });
  }

  setTimeout() { return this; }
  setNoDelay() { return this; }
  setKeepAlive() { return this; }
  ref() { return this; }
  unref() { return this; }
  address() { return {}; }
  destroySoon() { this.destroy(); }
}

const nativeRequest = Object.create(IncomingMessage.prototype, SHAPE);
mix(nativeRequest, ExpressRequest);
const nativeResponse = Object.create(ServerResponse.prototype);
mix(nativeResponse, ExpressResponse);

function hidden(value) {
  return { value, configurable: true, writable: true };
}

function socketOf(res) {
  if (res._socket === undefined) {
    const socket = new CallSocket();
    Object.defineProperty(res, '_socket', hidden(socket));
    socket.on('error', (error) => res._sink.threw(res, error));
    socket.on('close', () => {
      if (!res._isOver) res._sink.fail(res, 'the function closed the connection without a reply');
    });
  }
  return res._socket;
}

/**
 * Gives a quick object another prototype. That a property is deleted makes it a dictionary: what
 * Node's constructors add to one costs a hundredth of what it costs to add it to a changed shape.
 */
function change(quick, prototype, property) {
  Object.setPrototypeOf(quick, prototype);
  delete quick[property];
  quick._isNative = true;
}

/** An error is for those who listen, as it is where a connection breaks. */
function destroyRequest(error, done) {
  done(error && this.listenerCount('error') > 0 ? error : null);
}

/** Makes a request an `IncomingMessage` that has its whole body. */
function becomeRequest(req, prototype = nativeRequest) {
  if (req._isNative) return;
  const { method, url, headers, rawBody, params } = req;
  change(req, prototype, 'params');
  req.params = params;
  IncomingMessage.call(req, socketOf(req._response));
  Object.assign(req, { method, url, headers, rawHeaders: rawHeadersOf(req) });
  Object.assign(req, { httpVersion: '1.1', httpVersionMajor: 1, httpVersionMinor: 1 });
  Object.defineProperty(req, '_destroy', hidden(destroyRequest));
  if (prototype === nativeRequest) req.res = req._response;
  if (rawBody.length) req.push(rawBody);
  req.push(null);
  req.complete = true;
}

// Own properties, as Express gives every response a prototype of its own.
const OUTLET = {
  // What is sent is framed by the endpoint.
  chunkedEncoding: { configurable: true, get: () => false, set() {} },
  _send: hidden(collect),
  _finish: hidden(finish),
};

/** Makes a response a `ServerResponse`. */
function becomeResponse(res, prototype = nativeResponse) {
  if (res._isNative) return;
  const { req, statusCode, _type: type, _fields: fields } = res;
  change(res, prototype, '_fields');
  // A response to HEAD is like any other until the endpoint sends it.
  ServerResponse.call(res, { method: 'GET', httpVersionMajor: 1, httpVersionMinor: 1 });
  Object.defineProperties(res, { ...OUTLET, _chunks: hidden([]), _bytes: hidden(0) });
  res.req = req;
  res.statusCode = statusCode;
  // From here on `writeHead` adds its headers to the others, which can be read back.
  ServerResponse.prototype.setHeader.call(res, 'content-type', type ?? '');
  if (type === undefined) ServerResponse.prototype.removeHeader.call(res, 'content-type');
  for (const [name, value] of fields ?? []) {
    ServerResponse.prototype.setHeader.call(res, name, value);
  }
  if (!res._isOver) return res.assignSocket(socketOf(res));
  res.finished = true;
  res._header = 'sent';
  res.destroyed = res._closed = true;
}

function collect(data, encoding, done) {
  this._headerSent = true;
  if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
  if (data.length && !this._isOver) {
    // Copied, since whoever writes may use the memory again.
    const bytes = Buffer.from(toBuffer(data, encoding));
    this._chunks.push(bytes);
    this._bytes += bytes.length;
    if (this._bytes > PAYLOAD_BYTES_MAX) {
      this._sink.fail(this, `a reply may have ${PAYLOAD_BYTES_MAX} bytes, got more`);
    }
  }
  if (done) process.nextTick(done);
  return true;
}

function finish() {
  ServerResponse.prototype._finish.call(this);
  process.nextTick(close, this);
  if (this._isOver) return;
  const { 'content-type': type, ...others } = this.getHeaders();
  const body = this._chunks.length === 1 ? this._chunks[0] : Buffer.concat(this._chunks);
  const block = headerBlock(type && String(type), Object.entries(others), 'latin1');
  this._sink.reply(this, body, block);
}

/** What happens to a response, its request and their connection when a call is over. */
function close(res) {
  if (res.req._isNative) res.req._dump();
  if (res._closed) return;
  res._socket.destroy();
}

/** Lets go of a call that nobody waits for any more. */
function abandon(res) {
  const { req, _socket: socket } = res;
  req._controller?.abort();
  if (req._isNative && !req.aborted) {
    req.aborted = true;
    req.emit('aborted');
    const error = Object.assign(new Error('aborted'), { code: 'ECONNRESET' });
    req.destroy(req.readableEnded ? undefined : error);
  }
  if (socket !== undefined) socket.destroy();
}

/** Gives Express the plain objects that it expects, for `app(req, res)`. */
function bare(req, res) {
  becomeRequest(req, IncomingMessage.prototype);
  Object.defineProperties(req, OWN);
  becomeResponse(res, ServerResponse.prototype);
}

// What quick objects do not have themselves makes them native.

function takeOver(quick, nativePrototype, sample, become) {
  const property = (name) => ({
    configurable: true,
    get() {
      if (this._isNative !== false) return undefined;
      become(this);
      return this[name];
    },
    set(value) {
      become(this);
      this[name] = value;
    },
  });
  const names = new Set(Reflect.ownKeys(sample));
  let prototype = nativePrototype;
  for (; prototype !== Object.prototype; prototype = Object.getPrototypeOf(prototype)) {
    for (const name of Reflect.ownKeys(prototype)) names.add(name);
  }
  for (const name of ['constructor', 'req', 'statusCode']) names.delete(name);
  for (const name of names) {
    if (!Object.hasOwn(quick, name)) Object.defineProperty(quick, name, property(name));
  }
  Object.setPrototypeOf(quick, nativePrototype);
}

/** Methods of quick objects can be replaced by middleware: that makes the objects native. */
function replaceable(quick, methods, become) {
  for (const [name, method] of Object.entries(methods)) {
    Object.defineProperty(quick, name, {
      configurable: true,
      get: () => method,
      set(value) {
        become(this);
        this[name] = value;
      },
    });
  }
}

function nativeMethods(res) {
  becomeResponse(res);
  return ServerResponse.prototype;
}

const expressMethods = Object.entries(Object.getOwnPropertyDescriptors(ExpressResponse.prototype))
  .filter(([name, { value }]) => typeof value === 'function' && name !== 'constructor')
  .map(([name, { value }]) => [name, value]);
replaceable(Response.prototype, {
  ...Object.fromEntries(expressMethods),
  ...quickMethods(nativeMethods),
}, becomeResponse);
takeOver(Request.prototype, IncomingMessage.prototype, new IncomingMessage(null), becomeRequest);
takeOver(
  Response.prototype, ServerResponse.prototype,
  new ServerResponse({ method: 'GET', httpVersionMajor: 1, httpVersionMinor: 1 }), becomeResponse,
);

// An application that a function calls itself takes the request by these, and gives both objects
// prototypes of its own.
Object.defineProperties(Request.prototype, {
  res: {
    configurable: true,
    get() {
      return this._response;
    },
    set(value) {
      becomeRequest(this);
      becomeResponse(this._response);
      this.res = value;
    },
  },
  next: {
    configurable: true,
    get: () => undefined,
    set(value) {
      becomeRequest(this);
      becomeResponse(this._response);
      const query = { ...parserOfExpress()(queryText(this)) };
      // Its own, as the prototype that has the other one may go.
      Object.defineProperty(this, 'query', { ...hidden(query), enumerable: true });
      this.next = value;
    },
  },
});

/** Express 4 reads the query before it takes over: it finds what its own parser would give it. */
function parserOfExpress() {
  const path = Object.keys(require.cache).find((file) => /[\\/]qs[\\/]lib[\\/]index\.js$/.test(file));
  return path ? require.cache[path].exports.parse : require('querystring').parse;
}

module.exports = { Request, Response, abandon, bare };
