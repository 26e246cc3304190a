'use strict';
// Header fields, in the form in which the handler protocol carries them.

const EMPTY = Buffer.alloc(0);
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;

// Of one connection (RFC 9110, section 7.6.1): the endpoint that answers the client frames the body.
const DROPPED = new Set([
  'connection', 'content-length', 'keep-alive', 'proxy-connection', 'te', 'trailer',
  'transfer-encoding', 'upgrade',
]);
const knownTypes = new Map();

/** Calls `each` with every name and value of a header block. */
function forEachField(block, each) {
  let at = 0;
  while (at < block.length) {
    const valueAt = at + 4 + block.readUInt16BE(at);
    const end = valueAt + block.readUInt16BE(at + 2);
    each(block.latin1Slice(at + 4, valueAt), block.utf8Slice(valueAt, end));
    at = end;
  }
}

function readHeaders(block) {
  const headers = {};
  forEachField(block, (name, value) => {
    const known = Object.hasOwn(headers, name) ? headers[name] : undefined;
    const joined = known === undefined ? value : known + (name === 'cookie' ? '; ' : ', ') + value;
    if (name === '__proto__') Object.defineProperty(headers, name, { value: joined });
    else headers[name] = joined;
  });
  return headers;
}

/** Names and values in turn, as `rawHeaders` has them. */
function readRawHeaders(block) {
  const raw = [];
  forEachField(block, (name, value) => raw.push(name, value));
  return raw;
}

/** The block of a content type and of pairs of a name and one or several values. */
function headerBlock(type, entries, encoding = 'utf8') {
  if (entries === undefined) return type === undefined ? EMPTY : typeBlock(type);
  const fields = type === undefined ? [] : [field('content-type', type, encoding)];
  for (const [name, values] of entries) {
    if (DROPPED.has(name)) continue;
    for (const value of [].concat(values)) fields.push(field(name, String(value), encoding));
  }
  return Buffer.concat(fields);
}

function typeBlock(type) {
  let block = knownTypes.get(type);
  if (block === undefined) {
    block = field('content-type', type, 'utf8');
    if (knownTypes.size < 64) knownTypes.set(type, block);
  }
  return block;
}

function field(name, value, encoding) {
  const bytes = Buffer.from(value, encoding);
  const lens = Buffer.allocUnsafe(4);
  lens.writeUInt16BE(name.length, 0);
  lens.writeUInt16BE(bytes.length, 2);
  return Buffer.concat([lens, Buffer.from(name, 'latin1'), bytes]);
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

module.exports = { readHeaders, readRawHeaders, headerBlock, checkName, checkValue };
