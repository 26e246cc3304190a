'use strict';
// The request that a function gets. Nothing of it is decoded before it is asked for, and it becomes
// a stream when it is first used as one (see native.js).

const { readHeaders, readRawHeaders } = require('./headers.js');
const { ExpressRequest, mix } = require('./express.js');

const REQUEST_BYTES = 32;

class Request {
  constructor(buffer, at, length) {
    this._buffer = buffer;
    this._at = at;
    this._end = at + length;
    this._isNative = false;
    this.params = {};
    this._response = undefined;
  }
}

function part(req, number) {
  const { _buffer: buffer, _at: at } = req;
  const lens = [
    buffer.readUInt16BE(at + 10), buffer.readUInt16BE(at + 28), buffer.readUInt16BE(at + 30),
    buffer.readUInt32BE(at + 12),
  ];
  let start = at + REQUEST_BYTES;
  for (let i = 0; i < number; i++) start += lens[i];
  return buffer.subarray(start, number < 4 ? start + lens[number] : req._end);
}

/** A property that is computed when it is first read and can be assigned. */
function lazy(compute) {
  const slot = Symbol('slot');
  return {
    configurable: true,
    enumerable: true,
    get() {
      const known = this[slot];
      return known === undefined ? (this[slot] = compute(this)) : known;
    },
    set(value) {
      this[slot] = value;
    },
  };
}

const queryText = (req) => part(req, 2).toString();

function urlOf(req) {
  const query = queryText(req);
  return query ? `${req.path}?${query}` : req.path;
}

/** The headers. What has a body has its length, as HTTP demands and parsers of bodies look for. */
function headersOf(req) {
  const headers = readHeaders(part(req, 3));
  const { length } = part(req, 4);
  if (length > 0) headers['content-length'] = String(length);
  return headers;
}

function rawHeadersOf(req) {
  const raw = readRawHeaders(part(req, 3));
  const { length } = part(req, 4);
  const isThere = raw.some((name, index) => index % 2 === 0 && name === 'content-length');
  return length === 0 || isThere ? raw : [...raw, 'content-length', String(length)];
}

/** Aborts when nobody waits for the reply any more. */
function signalOf(req) {
  const controller = new AbortController();
  req._controller = controller;
  if (req._response._isCancelled) controller.abort();
  return controller.signal;
}

/** What Node's own requests lack and ours have, whatever kind they are of. */
const OWN = {
  rawBody: lazy((req) => part(req, 4)),
  signal: lazy(signalOf),
};

/** What the request of a function that is no Express application has besides. */
const SHAPE = {
  ...OWN,
  path: lazy((req) => part(req, 1).toString()),
  query: lazy((req) => ({ ...require('querystring').parse(queryText(req)) })),
  body: lazy((req) => req.rawBody.toString()),
  originalUrl: lazy((req) => urlOf(req)),
};

/** What Node's own requests have as plain properties. */
const HEAD = {
  method: lazy((req) => part(req, 0).toString('latin1')),
  url: lazy((req) => urlOf(req)),
  headers: lazy(headersOf),
};

mix(Request.prototype, ExpressRequest);
Object.defineProperties(Request.prototype, { ...SHAPE, ...HEAD });

module.exports = { Request, REQUEST_BYTES, OWN, SHAPE, queryText, rawHeadersOf };
