'use strict'
// What functions do with npm packages that read requests as streams and write replies as streams.

const express = require('express')
const busboy = require('busboy')
const multer = require('multer')().any()
const wrappers = [require('cookie-parser')(), require('cors')(), require('compression')({ threshold: 0 })]

const app = express()
app.use(express.json())
app.post('/:name', (req, res) => res.status(201).json({ got: req.body, path: req.path, q: req.query.q }))
const routes = {
  cookies: (req, res) => res.cookie('a', 'b', { httpOnly: true }).cookie('c', 'd').send('set'),
  file: (req, res) => res.sendFile(__filename),
  stream: (req, res) => { res.write('a'); setTimeout(() => res.end('b'), 1) },
  redirect: (req, res) => res.redirect('/elsewhere'),
  throw: () => { throw new Error('not for callers') },
  stray: () => { setTimeout(() => { throw new Error('stray') }) }
}
app.get('/:name', (req, res, next) => (routes[req.query.route] || (() => next()))(req, res))

const plain = {
  busboy (req, res) {
    const out = {}
    const form = busboy({ headers: req.headers })
    form.on('file', (name, file) => {
      let bytes = 0
      file.on('data', (chunk) => { bytes += chunk.length }).on('end', () => { out[name] = bytes })
    })
    form.on('field', (name, value) => { out[name] = value }).on('close', () => res.json(out))
    req.pipe(form)
  },
  multer (req, res) {
    multer(req, res, (error) => res.json(error ? String(error) : { t: req.body.t, f: req.files[0].size }))
  },
  wrapped (req, res) {
    const next = (at) => at < wrappers.length
      ? wrappers[at](req, res, () => next(at + 1))
      : res.cookie('n', req.cookies.x + 1).json({ x: req.cookies.x })
    next(0)
  },
  inside (req, res) { app(req, res) },
}

module.exports = process.env.PLAIN ? plain[process.env.PLAIN] : app
