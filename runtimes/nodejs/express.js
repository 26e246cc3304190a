'use strict';
// What Express adds to requests and responses. It is written in terms of Node's own methods, so
// that it serves objects of both kinds: quick ones and native ones (see native.js).

const HTML = 'text/html; charset=utf-8';
const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json; charset=utf-8';
const BYTES = 'application/octet-stream';
const TYPES = {
  bin: BYTES, css: 'text/css; charset=utf-8', csv: 'text/csv; charset=utf-8', gif: 'image/gif',
  htm: HTML, html: HTML, jpeg: 'image/jpeg', jpg: 'image/jpeg',
  js: 'text/javascript; charset=utf-8', json: JSON_TYPE, mjs: 'text/javascript; charset=utf-8',
  mp3: 'audio/mpeg', mp4: 'video/mp4', pdf: 'application/pdf', png: 'image/png',
  svg: 'image/svg+xml', text: TEXT, txt: TEXT, wasm: 'application/wasm', webp: 'image/webp',
  woff2: 'font/woff2', xml: 'application/xml', zip: 'application/zip',
};

class ExpressRequest {
  get(name) {
    const key = String(name).toLowerCase();
    const headers = this.headers;
    if (key === 'referer' || key === 'referrer') return headers.referrer || headers.referer;
    return headers[key];
  }

  header(name) {
    return this.get(name);
  }

  /** The content type, if it is one of `types`: names such as `json`, or types such as `text/*`. */
  is(...types) {
    const own = (this.headers['content-type'] || '').split(';')[0].trim().toLowerCase();
    const matches = (type) => {
      const wanted = type.includes('/') ? type : (TYPES[type] || type).split(';')[0];
      return wanted.endsWith('/*') ? own.startsWith(wanted.slice(0, -1)) : own === wanted;
    };
    return own !== '' && types.flat().some(matches) ? own : false;
  }

  get hostname() {
    return (this.headers.host || '').replace(/:\d+$/, '');
  }

  get xhr() {
    return (this.headers['x-requested-with'] || '').toLowerCase() === 'xmlhttprequest';
  }
}

class ExpressResponse {
  get locals() {
    const value = {};
    this.locals = value;
    return value;
  }

  set locals(value) {
    Object.defineProperty(this, 'locals', {
      value, configurable: true, enumerable: true, writable: true,
    });
  }

  status(code) {
    this.statusCode = checkStatus(code);
    return this;
  }

  sendStatus(code) {
    const { STATUS_CODES } = require('http');
    this.status(code).type('txt');
    return this.send(STATUS_CODES[this.statusCode] || String(this.statusCode));
  }

  send(body) {
    if (this.writableEnded) return this;
    if (body === undefined || body === null) return this.end('');
    const type = this.getHeader('content-type');
    if (typeof body === 'string') {
      const known = type === undefined ? HTML : withCharset(String(type));
      if (known !== type) this.setHeader('content-type', known);
      return this.end(body);
    }
    if (!ArrayBuffer.isView(body)) return this.json(body);
    if (type === undefined) this.setHeader('content-type', BYTES);
    return this.end(toBuffer(body));
  }

  json(body) {
    const text = JSON.stringify(body);
    if (!this.hasHeader('content-type')) this.setHeader('content-type', JSON_TYPE);
    return this.send(text === undefined ? '' : text);
  }

  redirect(status, url) {
    if (url === undefined) [status, url] = [302, status];
    this.status(status).location(url).type('txt');
    return this.end(`Redirecting to ${url}`);
  }

  location(url) {
    return this.set('location', encodeURI(url).replace(/%25([0-9a-f]{2})/gi, '%$1'));
  }

  vary(field) {
    const known = String(this.getHeader('vary') || '');
    const names = known.toLowerCase().split(/\s*,\s*/);
    const missing = [].concat(field).filter((name) => !names.includes(name.toLowerCase()));
    if (names.includes('*') || missing.length === 0) return this;
    return this.set('vary', (known ? [known, ...missing] : missing).join(', '));
  }

  set(name, value) {
    if (typeof name === 'object') {
      for (const key of Object.keys(name)) this.set(key, name[key]);
      return this;
    }
    this.setHeader(name, Array.isArray(value) ? value.map(String) : asText(value));
    return this;
  }

  header(name, value) {
    return this.set(name, value);
  }

  get(name) {
    return this.getHeader(name);
  }

  append(name, value) {
    const known = this.getHeader(name);
    return this.set(name, known === undefined ? value : [].concat(known, value));
  }

  type(name) {
    const key = String(name).replace(/^.*\./, '').toLowerCase();
    return this.set('content-type', name.includes('/') ? name : TYPES[key] || BYTES);
  }

  contentType(name) {
    return this.type(name);
  }

  links(links) {
    const all = Object.keys(links).map((rel) => `<${links[rel]}>; rel="${rel}"`);
    const known = this.getHeader('link');
    return this.set('link', (known ? [known, ...all] : all).join(', '));
  }

  cookie(name, value, options) {
    return this.append('set-cookie', cookieOf(this.req, name, value, { path: '/', ...options }));
  }

  clearCookie(name, options) {
    return this.cookie(name, '', { path: '/', ...options, maxAge: undefined, expires: new Date(1) });
  }

  attachment(filename) {
    if (filename === undefined) return this.set('content-disposition', 'attachment');
    const name = require('path').basename(filename);
    this.type(require('path').extname(name) || 'bin');
    const plain = name.replace(/[^\x20-\x7e]/g, '?').replace(/["\\]/g, '\\$&');
    const coded = encodeURIComponent(name).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
    const extended = plain === name ? '' : `; filename*=UTF-8''${coded}`;
    return this.set('content-disposition', `attachment; filename="${plain}"${extended}`);
  }

  /** Sends a file: its path is absolute, or is below `options.root`. */
  sendFile(path, options, done) {
    if (typeof options === 'function') [options, done] = [{}, options];
    const file = fileBelow(options?.root, path);
    // Within the call, so that what fails here is its failure.
    require('fs').promises.readFile(file).then((bytes) => {
      if (!this.hasHeader('content-type')) this.type(require('path').extname(file) || 'bin');
      if (options?.headers) this.set(options.headers);
      this.send(bytes);
      if (done) done();
    }, (error) => {
      if (done) return done(Object.assign(error, { status: statusOf(error) }));
      if (statusOf(error) === 500) throw error;
      return this.sendStatus(404);
    });
  }

  download(path, filename, options, done) {
    if (typeof filename === 'function') [filename, done] = [undefined, filename];
    if (typeof filename === 'object') [filename, options] = [undefined, filename];
    if (typeof options === 'function') [options, done] = [{}, options];
    this.attachment(filename || path);
    return this.sendFile(options?.root ? path : require('path').resolve(path), options, done);
  }
}

function asText(value) {
  return value === undefined ? value : String(value);
}

function cookieOf(req, name, value, options) {
  let text = typeof value === 'object' ? `j:${JSON.stringify(value)}` : String(value);
  if (options.signed) text = `s:${text}.${signature(text, options.secret ?? req.secret)}`;
  const encode = options.encode || encodeURIComponent;
  const parts = [`${name}=${encode(text)}`];
  let { expires } = options;
  if (options.maxAge !== undefined && options.maxAge !== null) {
    parts.push(`Max-Age=${Math.floor(options.maxAge / 1000)}`);
    expires = new Date(Date.now() + Number(options.maxAge));
  }
  if (options.domain) parts.push(`Domain=${options.domain}`);
  if (options.path) parts.push(`Path=${options.path}`);
  if (expires) parts.push(`Expires=${expires.toUTCString()}`);
  if (options.httpOnly) parts.push('HttpOnly');
  if (options.secure) parts.push('Secure');
  if (options.partitioned) parts.push('Partitioned');
  if (options.priority) parts.push(`Priority=${capital(options.priority)}`);
  const { sameSite } = options;
  if (sameSite) parts.push(`SameSite=${sameSite === true ? 'Strict' : capital(sameSite)}`);
  return parts.join('; ');
}

function capital(word) {
  return word[0].toUpperCase() + word.slice(1).toLowerCase();
}

/** As cookie-parser checks it. */
function signature(text, secret) {
  if (!secret) throw new Error('a signed cookie needs a secret: use cookie-parser with one');
  const hmac = require('crypto').createHmac('sha256', secret).update(text);
  return hmac.digest('base64').replace(/=+$/, '');
}

function fileBelow(root, path) {
  const { isAbsolute, resolve, sep } = require('path');
  if (root === undefined) {
    if (isAbsolute(path)) return path;
    throw new TypeError(`sendFile(${JSON.stringify(path)}): give an absolute path or { root }`);
  }
  const folder = resolve(root);
  const file = resolve(folder, `.${sep}${path}`);
  if (file === folder || file.startsWith(folder.endsWith(sep) ? folder : folder + sep)) return file;
  throw Object.assign(new Error('sendFile: the path leaves its root'), { status: 403 });
}

function statusOf(error) {
  return ['ENOENT', 'ENOTDIR', 'EISDIR', 'ENAMETOOLONG'].includes(error.code) ? 404 : 500;
}

function checkStatus(code) {
  const status = Number(code);
  if (Number.isInteger(status) && status >= 200 && status < 600) return status;
  throw new RangeError(`status ${code}: use a number from 200 to 599`);
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

/** Gives `target` what the class `source` has. */
function mix(target, source) {
  const { constructor, ...members } = Object.getOwnPropertyDescriptors(source.prototype);
  Object.defineProperties(target, members);
}

module.exports = {
  ExpressRequest, ExpressResponse, HTML, JSON_TYPE, BYTES, checkStatus, mix, toBuffer, withCharset,
};
