'use strict'
// The function behind node's own HTTP server, or Express: what one would write without a platform.

function listen (server) {
  server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`))
}

if (process.argv[2] === 'express') {
  const express = require('express')
  const app = express()
  app.use(express.text({ type: () => true }))
  app.post('/', (req, res) => { res.type('txt').send(req.body) })
  listen(require('http').createServer(app))
} else {
  listen(require('http').createServer((req, res) => {
    const chunks = []
    req.on('data', (chunk) => chunks.push(chunk))
    req.on('end', () => {
      const body = Buffer.concat(chunks)
      res.setHeader('content-type', 'text/plain')
      res.setHeader('content-length', body.length)
      res.end(body)
    })
  }))
}
