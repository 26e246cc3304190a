'use strict'
// Does what its input asks for, and sends back every other input as it came.

module.exports = (req, res) => {
  const [word, argument] = req.body.split(' ', 2)
  switch (word) {
    case 'do:fail': throw new Error('the function says no')
    case 'do:crash': process.exit(3)
    // falls through is not reached: the process has ended
    case 'do:sleep': return
    case 'do:env': return res.send(process.env[argument] ?? 'unset')
    case 'do:header': return res.send(req.get(argument) ?? 'unset')
    default: return res.send(req.rawBody)
  }
}
