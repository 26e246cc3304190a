'use strict'

module.exports = (req, res) => {
  res.type(req.get('content-type') || 'txt').send(req.rawBody)
}
