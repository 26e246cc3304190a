'use strict';
// The response that a function gets. What ends it hands one reply to `sink.reply`. It becomes
// Node's own kind of response when it is first used as one (see native.js).

const {
  ExpressResponse, HTML, JSON_TYPE, BYTES, mix, toBuffer, withCharset,
} = require('./express.js');
const { checkName, checkValue, headerBlock } = require('./headers.js');

const express = ExpressResponse.prototype;

class Response {
  constructor(sink, id, req) {
    this._sink = sink;
    this._id = id;
    this._isNative = false;
    // Replied, failed or cancelled.
    this._isOver = false;
    this._isCancelled = false;
    this._type = undefined;
    this._fields = undefined;
    this.req = req;
    this.statusCode = 200;
    req._response = this;
  }

  get headersSent() {
    return this._isOver;
  }

  get writableEnded() {
    return this._isOver;
  }

  get finished() {
    return this._isOver;
  }
}

function finish(res, body) {
  if (res._isOver) return res;
  const hasContent = res.statusCode !== 204 && res.statusCode !== 304;
  res._sink.reply(res, body, headerBlock(hasContent ? res._type : undefined, res._fields));
  return res;
}

/** The quick ways; `native` has Node's own, for responses that have become native. */
function quickMethods(native) {
  return {
    send(body) {
      if (this._isNative) return express.send.call(this, body);
      if (typeof body === 'string') {
        this._type = this._type === undefined ? HTML : withCharset(this._type);
        return finish(this, body);
      }
      return express.send.call(this, body);
    },

    json(body) {
      if (this._isNative) return express.json.call(this, body);
      const text = JSON.stringify(body);
      if (this._type === undefined) this._type = JSON_TYPE;
      return finish(this, text === undefined ? '' : text);
    },

    end(chunk, encoding, done) {
      const isQuick = !this._isNative && typeof chunk !== 'function' &&
        typeof encoding !== 'function' && done === undefined;
      if (!isQuick) return native(this).end.call(this, chunk, encoding, done);
      if (this._isOver) return this;
      if (chunk === undefined || chunk === null) return finish(this, '');
      const isText = typeof chunk === 'string' && encoding === undefined;
      return finish(this, isText ? chunk : toBuffer(chunk, encoding));
    },

    setHeader(name, value) {
      if (this._isNative) return native(this).setHeader.call(this, name, value);
      if (this._isOver) throw new Error('set header: the reply has been sent');
      const key = checkName(name);
      const values = Array.isArray(value) ? value.map(checkValue) : checkValue(value);
      if (key === 'content-type') this._type = String(values);
      else (this._fields ||= new Map()).set(key, values);
      return this;
    },

    getHeader(name) {
      if (this._isNative) return native(this).getHeader.call(this, name);
      const key = String(name).toLowerCase();
      return key === 'content-type' ? this._type : this._fields?.get(key);
    },

    hasHeader(name) {
      return this.getHeader(name) !== undefined;
    },

    removeHeader(name) {
      if (this._isNative) return native(this).removeHeader.call(this, name);
      const key = String(name).toLowerCase();
      if (key === 'content-type') this._type = undefined;
      else this._fields?.delete(key);
      return undefined;
    },
  };
}

mix(Response.prototype, ExpressResponse);

module.exports = { Response, quickMethods };
