'use strict'

const LARGEST = 1000

/** The primes up to 1000, with commas between them. */
function eventhandler () {
  const isComposite = new Uint8Array(LARGEST + 1)
  const primes = []
  for (let n = 2; n <= LARGEST; n++) {
    if (isComposite[n]) continue
    primes.push(n)
    for (let multiple = n * n; multiple <= LARGEST; multiple += n) isComposite[multiple] = 1
  }
  return primes.join(',')
}

module.exports = { eventhandler }
