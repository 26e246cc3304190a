'use strict'

const LARGEST = 1000

function primesUpTo (largest) {
  const isComposite = new Uint8Array(largest + 1)
  const primes = []
  for (let n = 2; n <= largest; n++) {
    if (isComposite[n]) continue
    primes.push(n)
    for (let multiple = n * n; multiple <= largest; multiple += n) isComposite[multiple] = 1
  }
  return primes
}

module.exports = (req, res) => {
  res.type('txt').send(primesUpTo(LARGEST).join(','))
}
