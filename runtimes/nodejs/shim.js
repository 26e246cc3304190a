'use strict'
/*
 * The shim of the nodejs runtime: loads the function's module and runs it for every request.
 *
 * It speaks the handler protocol (docs/reference/handler-protocol.md) on descriptor 0, or over TCP
 * where TINYFAAS_CONNECT asks for it. All that has come is run in one turn of the event loop, and
 * the replies that are ready go out in one write.
 */

const fs = require('fs')
const net = require('net')
const path = require('path')
const EventEmitter = require('events')
const { pathToFileURL } = require('url')

const VERSION = 1
// Requests that may run at once; more wait in the proxy.
const AT_ONCE = 256
// Replies that are ready don't wait longer than this for a neighbour that blocks the event loop.
const PATIENCE_MS = 5
const FRAME_BYTES_MAX = 16 << 20
const HEADERS_BYTES_MAX = 64 << 10
const MESSAGE_BYTES_MAX = 64 << 10
const HEADER_BYTES = 16
const REQUEST_BYTES = 32
// Replies are written one after the other into slabs of this size.
const SLAB_BYTES = 32 << 10
const KNOWN_TYPES_MAX = 64

const [HELLO, REQUEST, REPLY, CANCEL, PING, PONG, FAILED] = [1, 2, 3, 4, 5, 6, 7]
const FLAG_FAILED = 1

const EMPTY = Buffer.alloc(0)
const TEXT = 'text/plain; charset=utf-8'
const HTML = 'text/html; charset=utf-8'
const JSON_TYPE = 'application/json; charset=utf-8'
const BYTES = 'application/octet-stream'
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
// What a field's value may not have: control characters but tab, and what is not one byte.
// eslint-disable-next-line no-control-regex
const NOT_A_VALUE = /[^\t\x20-\x7e\x80-\xff]/

const TYPES = {
  bin: BYTES, css: 'text/css; charset=utf-8', csv: 'text/csv; charset=utf-8', gif: 'image/gif',
  htm: HTML, html: HTML, jpeg: 'image/jpeg', jpg: 'image/jpeg', js: 'text/javascript; charset=utf-8',
  json: JSON_TYPE, pdf: 'application/pdf', png: 'image/png', svg: 'image/svg+xml', text: TEXT,
  txt: TEXT, wasm: 'application/wasm', webp: 'image/webp', xml: 'application/xml'
}

/** One call of the function: the request, in the shape that Express gives it. */
class Request extends EventEmitter {
  constructor (frame, id) {
    super()
    const method = frame.readUInt16BE(10)
    const block = frame.readUInt32BE(12)
    const route = frame.readUInt16BE(28)
    const query = frame.readUInt16BE(30)
    let at = REQUEST_BYTES
    this.method = frame.latin1Slice(at, at += method)
    this.path = frame.utf8Slice(at, at += route)
    this.search = frame.utf8Slice(at, at += query)
    this.block = frame.subarray(at, at += block)
    this.rawBody = frame.subarray(at)
    this.id = id
    this.frame = frame
    this.params = {}
    this.baseUrl = ''
    this.httpVersion = '1.1'
    this.protocol = 'http'
    this.secure = false
    this.complete = true
    this.aborted = false
  }

  get url () { return this.search ? this.path + '?' + this.search : this.path }
  get originalUrl () { return this.url }

  get invocation () { return String(this.frame.readBigUInt64BE(16)) }

  get body () { return replace(this, 'body', this.rawBody.utf8Slice()) }
  set body (value) { replace(this, 'body', value) }

  get headers () { return replace(this, 'headers', readHeaders(this.block)) }
  set headers (value) { replace(this, 'headers', value) }

  get query () { return replace(this, 'query', { ...require('querystring').parse(this.search) }) }
  set query (value) { replace(this, 'query', value) }

  get hostname () { return (this.get('host') || '').replace(/:\d+$/, '') }

  get controller () { return replace(this, 'controller', new AbortController()) }

  /** Aborts when nobody waits for the reply any more. */
  get signal () {
    const { signal } = this.controller
    if (this.aborted) this.controller.abort()
    return signal
  }

  get (name) {
    name = String(name).toLowerCase()
    if (name === 'referer' || name === 'referrer') return this.headers.referrer || this.headers.referer
    return this.headers[name]
  }

  header (name) { return this.get(name) }

  is (type) {
    const own = (this.get('content-type') || '').split(';')[0].trim().toLowerCase()
    const wanted = type.includes('/') ? type : (TYPES[type] || type).split(';')[0]
    const matches = wanted.endsWith('/*') ? own.startsWith(wanted.slice(0, -1)) : own === wanted
    return matches && own ? own : false
  }

  abort () {
    this.aborted = true
    if (Object.hasOwn(this, 'controller')) this.controller.abort()
    this.emit('aborted')
    this.emit('close')
  }
}

/** Puts a value that is worked out once in the place of its getter. */
function replace (object, name, value) {
  Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true })
  return value
}

function readHeaders (block) {
  const headers = {}
  for (let at = 0; at < block.length;) {
    const nameEnd = at + 4 + block.readUInt16BE(at)
    const valueEnd = nameEnd + block.readUInt16BE(at + 2)
    const name = block.latin1Slice(at + 4, nameEnd)
    const value = block.latin1Slice(nameEnd, valueEnd)
    at = valueEnd
    // A plain assignment would not make a field of this name.
    if (name === '__proto__') continue
    if (name === 'set-cookie') (headers[name] ||= []).push(value)
    else if (!Object.hasOwn(headers, name)) headers[name] = value
    else headers[name] += (name === 'cookie' ? '; ' : ', ') + value
  }
  return headers
}

/** The reply, in the shape that Express gives it. */
class Response extends EventEmitter {
  constructor (request) {
    super()
    this.req = request
    this.statusCode = 200
    this.fields = null
    this.contentType = undefined
    this.pieces = null
    this.headersSent = false
    this.writableEnded = false
    this.finished = false
  }

  get locals () { return replace(this, 'locals', {}) }
  set locals (value) { replace(this, 'locals', value) }

  status (code) {
    if (!Number.isInteger(code) || code < 200 || code > 599) {
      throw new RangeError(`the status ${code} is not a whole number from 200 to 599`)
    }
    this.statusCode = code
    return this
  }

  setHeader (name, value) {
    if (this.headersSent) throw sent('set headers')
    if (!TOKEN.test(name)) throw new TypeError(`${JSON.stringify(name)} is no name for a header`)
    value = Array.isArray(value) ? value.map(String) : String(value)
    if ([].concat(value).some(one => NOT_A_VALUE.test(one))) {
      throw new TypeError(`the header ${name} has a character that headers may not have`)
    }
    name = name.toLowerCase()
    if (name === 'content-type') this.contentType = [].concat(value)[0]
    else (this.fields ||= new Map()).set(name, value)
    return this
  }

  getHeader (name) {
    name = String(name).toLowerCase()
    return name === 'content-type' ? this.contentType : this.fields?.get(name)
  }

  getHeaders () { return Object.fromEntries(this.getHeaderNames().map(name => [name, this.getHeader(name)])) }

  getHeaderNames () {
    const type = this.contentType === undefined ? [] : ['content-type']
    return type.concat(...(this.fields?.keys() || []))
  }

  hasHeader (name) { return this.getHeader(name) !== undefined }

  removeHeader (name) {
    name = String(name).toLowerCase()
    if (name === 'content-type') this.contentType = undefined
    else this.fields?.delete(name)
  }

  set (name, value) {
    if (typeof name === 'string') {
      this.setHeader(name, value)
      if (name.toLowerCase() === 'content-type') this.contentType = withCharset(this.contentType)
    } else for (const [one, its] of Object.entries(name)) this.set(one, its)
    return this
  }

  header (name, value) { return this.set(name, value) }

  get (name) { return this.getHeader(name) }

  append (name, value) {
    const before = this.getHeader(name)
    return this.set(name, before === undefined ? value : [].concat(before, value))
  }

  type (type) {
    return this.set('content-type', type.includes('/') ? type : TYPES[type.replace(/^.*\./, '')] || BYTES)
  }

  location (url) { return this.set('location', encodeURI(url).replace(/%25([0-9a-f]{2})/gi, '%$1')) }
  vary (field) { return this.append('vary', field) }
  flushHeaders () {}

  redirect (status, url) {
    if (url === undefined) [status, url] = [302, status]
    this.status(status).location(url).type('txt').send(`Redirecting to ${url}`)
  }

  writeHead (status, message, headers) {
    if (typeof message === 'object') headers = message
    this.status(status)
    if (Array.isArray(headers)) {
      for (let i = 0; i + 1 < headers.length; i += 2) this.setHeader(headers[i], headers[i + 1])
    } else for (const [name, value] of Object.entries(headers || {})) this.setHeader(name, value)
    return this
  }

  send (body) {
    if (typeof body === 'string') {
      const type = this.contentType
      this.contentType = type === undefined ? HTML : withCharset(type)
    } else if (body === undefined || body === null) {
      body = ''
    } else if (ArrayBuffer.isView(body)) {
      if (this.contentType === undefined) this.contentType = BYTES
    } else {
      return this.json(body)
    }
    if (this.statusCode === 204 || this.statusCode === 304) {
      this.contentType = undefined
      body = ''
    }
    return this.end(body)
  }

  json (value) {
    if (this.contentType === undefined) this.contentType = JSON_TYPE
    return this.send(JSON.stringify(value) ?? '')
  }

  sendStatus (code) {
    return this.status(code).type('txt').send(require('http').STATUS_CODES[code] || String(code))
  }

  write (chunk, encoding, done) {
    if (typeof encoding === 'function') [encoding, done] = [undefined, encoding]
    if (this.writableEnded) throw sent('write')
    this.headersSent = true
    ;(this.pieces ||= []).push(typeof chunk === 'string' ? Buffer.from(chunk, encoding) : bytes(chunk))
    if (done) process.nextTick(done)
    return true
  }

  end (chunk, encoding, done) {
    if (typeof chunk === 'function') [chunk, done] = [undefined, chunk]
    if (typeof encoding === 'function') [encoding, done] = [undefined, encoding]
    if (this.writableEnded) throw sent('send another reply')
    let payload = chunk === undefined || chunk === null ? '' : chunk
    if (typeof payload !== 'string') payload = bytes(payload)
    else if (encoding && !/^utf-?8$/i.test(encoding)) payload = Buffer.from(payload, encoding)
    if (this.pieces) payload = Buffer.concat([...this.pieces, bytes(payload)])
    this.writableEnded = this.headersSent = this.finished = true
    reply(this, payload)
    if (done) process.nextTick(done)
    this.emit('finish')
    this.emit('close')
    return this
  }
}

function sent (what) {
  const error = new Error(`Cannot ${what} after the reply was sent`)
  error.code = 'ERR_HTTP_HEADERS_SENT'
  return error
}

function bytes (chunk) {
  if (typeof chunk === 'string') return Buffer.from(chunk)
  if (ArrayBuffer.isView(chunk)) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  throw new TypeError('a reply is written as a string, a Buffer or a typed array')
}

function withCharset (type) {
  const isText = /^(text\/|application\/(json|javascript)\b)/i.test(type)
  return isText && !/;\s*charset=/i.test(type) ? type + '; charset=utf-8' : type
}

// The stream to the proxy.

let socket
let invoke
let rest = EMPTY
// The pieces of a frame that is larger than what came at once, and how many bytes it lacks.
let parts = null
let missing = 0
// The calls without a reply, by id.
const calls = new Map()
let slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
let written = 0
let filled = 0
let isFlushing = false

function flush () {
  isFlushing = false
  if (filled > written) socket.write(slab.subarray(written, filled))
  written = filled
}

/** Makes room for a frame; it goes out with all others of this turn of the event loop. */
function room (length) {
  if (slab.length - filled < length) {
    flush()
    slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, length))
    written = filled = 0
  }
  if (!isFlushing) {
    isFlushing = true
    setImmediate(flush)
  }
}

function put (id, kind, flags, word, headers, payload) {
  const isText = typeof payload === 'string'
  // A character takes at most three bytes in UTF-8.
  const most = isText && payload.length > SLAB_BYTES / 8 ? Buffer.byteLength(payload) : payload.length * 3
  room(HEADER_BYTES + headers.length + most)
  const at = filled
  filled += HEADER_BYTES
  if (headers.length) filled += headers.copy(slab, filled)
  filled += isText ? slab.utf8Write(payload, filled) : payload.copy(slab, filled)
  slab.writeUInt32BE(filled - at - 4, at)
  slab.writeUInt32BE(id, at + 4)
  slab[at + 8] = kind
  slab[at + 9] = flags
  slab.writeUInt16BE(word, at + 10)
  slab.writeUInt32BE(kind === HELLO ? AT_ONCE : headers.length, at + 12)
}

const knownTypes = new Map()

function headerBlock (response) {
  const { contentType, fields } = response
  let block = EMPTY
  if (contentType !== undefined) {
    block = knownTypes.get(contentType)
    if (!block) {
      block = field('content-type', contentType)
      if (knownTypes.size < KNOWN_TYPES_MAX) knownTypes.set(contentType, block)
    }
  }
  if (!fields || !fields.size) return block
  const blocks = [block]
  for (const [name, value] of fields) {
    for (const one of [].concat(value)) blocks.push(field(name, one))
  }
  return Buffer.concat(blocks)
}

function field (name, value) {
  const block = Buffer.allocUnsafe(4 + name.length + value.length)
  block.writeUInt16BE(name.length, 0)
  block.writeUInt16BE(value.length, 2)
  block.latin1Write(name, 4)
  block.latin1Write(value, 4 + name.length)
  return block
}

function reply (response, payload) {
  const { id } = response.req
  if (calls.get(id) !== response.req) return
  const headers = headerBlock(response)
  const size = typeof payload === 'string' ? Buffer.byteLength(payload) : payload.length
  if (headers.length > HEADERS_BYTES_MAX) {
    return refuse(response.req, `Error: the reply's headers have ${headers.length} bytes, too many`)
  }
  if (HEADER_BYTES + headers.length + size > FRAME_BYTES_MAX) {
    return refuse(response.req, `Error: the reply has ${size} bytes, too many`)
  }
  const { statusCode } = response
  if (!Number.isInteger(statusCode) || statusCode < 200 || statusCode > 599) {
    return refuse(response.req, `Error: the status ${statusCode} is not a whole number from 200 to 599`)
  }
  calls.delete(id)
  put(id, REPLY, 0, statusCode, headers, payload)
}

/** Answers that the function failed, unless it has answered. */
function refuse (request, message) {
  if (calls.get(request.id) !== request) return
  calls.delete(request.id)
  put(request.id, REPLY, FLAG_FAILED, 500, EMPTY, cut(message))
}

function cut (text) {
  const all = Buffer.from(text)
  if (all.length <= MESSAGE_BYTES_MAX) return all
  let end = MESSAGE_BYTES_MAX
  while ((all[end] & 0xc0) === 0x80) end--
  return all.subarray(0, end)
}

function fail (request, error) {
  log(error)
  let message = 'the function threw something that has no text'
  try { message = String(error) } catch {}
  refuse(request, message)
}

function log (error) {
  let text = 'an error without a text'
  try { text = (error && error.stack) || require('util').inspect(error) } catch {}
  try { fs.writeSync(2, text + '\n') } catch {}
}

function receive (chunk) {
  if (missing > chunk.length) {
    missing -= chunk.length
    parts.push(chunk)
    return
  }
  if (parts) {
    parts.push(chunk)
    rest = Buffer.concat(parts)
    parts = null
    missing = 0
  } else if (rest.length) rest = Buffer.concat([rest, chunk])
  else rest = chunk
  readFrames()
}

function readFrames () {
  const data = rest
  const end = data.length
  let at = 0
  let began = performance.now()
  while (end - at >= HEADER_BYTES) {
    const length = data.readUInt32BE(at) + 4
    if (length < HEADER_BYTES || length > FRAME_BYTES_MAX) broken(`a frame of ${length} bytes`)
    if (end - at < length) {
      parts = [data.subarray(at)]
      missing = length - (end - at)
      at = end
      break
    }
    take(data, at, length)
    at += length
    if (isFlushing && filled > written) {
      const now = performance.now()
      if (now - began > PATIENCE_MS) {
        began = now
        if (filled > written) {
          socket.write(slab.subarray(written, filled))
          written = filled
        }
      }
    }
  }
  rest = at === end ? EMPTY : data.subarray(at)
}

function take (data, at, length) {
  const id = data.readUInt32BE(at + 4)
  switch (data[at + 8]) {
    case REQUEST: {
      const fixed = length >= REQUEST_BYTES && REQUEST_BYTES + data.readUInt16BE(at + 10) +
        data.readUInt32BE(at + 12) + data.readUInt16BE(at + 28) + data.readUInt16BE(at + 30)
      if (!fixed || fixed > length || calls.has(id)) broken('a request that contradicts itself')
      const request = new Request(data.subarray(at, at + length), id)
      calls.set(id, request)
      run(request)
      break
    }
    case CANCEL: {
      const request = calls.get(id)
      if (!request) break
      refuse(request, 'cancelled')
      try { request.abort() } catch (error) { log(error) }
      break
    }
    case PING:
      put(0, PONG, 0, 0, EMPTY, data.subarray(at + HEADER_BYTES, at + length))
      break
    default:
      broken(`a frame of kind ${data[at + 8]}`)
  }
}

function run (request) {
  try {
    const result = invoke(request, new Response(request))
    if (typeof result?.then === 'function') result.then(undefined, error => fail(request, error))
  } catch (error) {
    fail(request, error)
  }
}

function broken (what) {
  fs.writeSync(2, `the proxy sent ${what}\n`)
  process.exit(1)
}

// Loading the function.

function connect () {
  const address = process.env.TINYFAAS_CONNECT
  delete process.env.TINYFAAS_CONNECT
  if (!address) {
    const stream = new net.Socket({ fd: 0, readable: true, writable: true })
    // Node cannot move a descriptor, but what reads standard input finds its end.
    let stdin
    Object.defineProperty(process, 'stdin', {
      configurable: true,
      enumerable: true,
      get: () => (stdin ||= fs.createReadStream('/dev/null'))
    })
    return stream
  }
  const colon = address.lastIndexOf(':')
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '')
  return net.connect({ host, port: Number(address.slice(colon + 1)), noDelay: true })
}

async function load () {
  const code = path.resolve(process.env.TINYFAAS_CODE)
  if (process.env.TINYFAAS_DEPS) {
    process.env.NODE_PATH = [process.env.TINYFAAS_DEPS, process.env.NODE_PATH].filter(Boolean).join(':')
    require('module').Module._initPaths()
  }
  const entry = process.env.TINYFAAS_ENTRY
  const file = entry ? path.join(code, entry) : find(code)
  const loaded = await open(file)
  if (entry) {
    const handler = loaded?.eventhandler || loaded?.default?.eventhandler
    if (typeof handler === 'function') return answerWith(handler)
    throw `${entry} exports no function eventhandler(); add: module.exports = { eventhandler: () => 'text' }`
  }
  const handler = [loaded, loaded?.default, loaded?.default?.default].find(one => typeof one === 'function')
  if (handler) return handler
  throw `${path.basename(file)} exports ${loaded === null ? 'null' : typeof loaded}, not a function; ` +
    'add: module.exports = (req, res) => { res.send(req.body) }'
}

function find (code) {
  try {
    return require.resolve(code)
  } catch (error) {
    const names = ['index.mjs', 'index.cjs', 'fn.js', 'fn.mjs', 'fn.cjs']
    const found = names.map(name => path.join(code, name)).find(fs.existsSync)
    if (found) return found
    throw 'there is no index.js, and package.json names no other file as "main" that exists'
  }
}

async function open (file) {
  try {
    return require(file)
  } catch (error) {
    if (error?.code !== 'ERR_REQUIRE_ESM' && error?.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error
    return await import(pathToFileURL(file))
  }
}

/** The contract of the original call: what the function returns is the reply, as it is. */
function answerWith (handler) {
  const answer = (response, value) => {
    if (typeof value === 'string') response.type('txt')
    if (typeof value === 'number' || typeof value === 'boolean') value = response.type('txt') && String(value)
    response.send(value)
  }
  return (request, response) => {
    const value = handler(request)
    if (typeof value?.then === 'function') return value.then(settled => answer(response, settled))
    answer(response, value)
  }
}

async function main () {
  socket = connect()
  socket.on('error', () => process.exit(0))
  socket.on('close', () => process.exit(0))
  socket.on('end', () => process.exit(0))
  try {
    invoke = await load()
  } catch (error) {
    const reason = typeof error === 'string' ? error : require('util').inspect(error)
    put(0, FAILED, 0, 0, EMPTY, cut(reason))
    flush()
    socket.end(() => process.exit(1))
    return
  }
  process.on('uncaughtException', error => {
    log(error)
    process.exit(1)
  })
  put(0, HELLO, 0, VERSION, EMPTY, EMPTY)
  flush()
  socket.on('data', receive)
}

main()
