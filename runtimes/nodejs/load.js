'use strict';
// Finds the function: loads the npm module in TINYFAAS_CODE and makes what it exports something that
// is called with a request and a response.

const { bare } = require('./native.js');

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
  // Frameworks show callers the stacks of errors unless told that this is production.
  process.env.NODE_ENV ??= 'production';
  addDependencies();
  const code = process.env.TINYFAAS_CODE;
  const original = process.env.TINYFAAS_ENTRY;
  if (original) return oldContract(await importFrom(`${code}/${original}`), original);
  const file = entryOf(code);
  const entry = require('path').relative(code, file);
  const module = await importFrom(file);
  for (const candidate of [module, module?.default, module?.default?.default, module?.fn]) {
    const call = await callOf(candidate);
    if (call !== undefined) return call;
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

/** What is called for an export; none where it is neither a function nor an application. */
async function callOf(candidate) {
  if (typeof candidate === 'function') {
    const isExpress = typeof candidate.handle === 'function' && typeof candidate.set === 'function';
    if (isExpress) return onBare(candidate);
    return candidate.length < 3 ? candidate : withNext(candidate);
  }
  // Applications of Koa and Fastify.
  if (typeof candidate?.callback === 'function') return onBare(candidate.callback());
  if (typeof candidate?.routing === 'function' && typeof candidate.ready === 'function') {
    await candidate.ready();
    return onBare(candidate.routing);
  }
  return undefined;
}

/** Middleware, such as a router. */
function withNext(middleware) {
  return (req, res) => middleware(req, res, (error) => {
    if (error && error !== 'route' && error !== 'router') return res._sink.threw(res, error);
    return res.status(404).type('txt').send(`Cannot ${req.method} ${req.path}`);
  });
}

/** An application, which answers by itself and whose result means nothing. */
function onBare(application) {
  return (req, res) => {
    bare(req, res);
    application(req, res);
  };
}

module.exports = { load };
