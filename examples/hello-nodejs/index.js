'use strict'

module.exports = (req, res) => {
  const greeting = process.env.GREETING || 'Hello'
  res.json({
    text: `${greeting}, ${req.query.name || req.body || 'world'}!`,
    method: req.method,
    path: req.path,
    headers: req.headers
  })
}
