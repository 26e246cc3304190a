package main

import (
	"strconv"
	"strings"
)

const largest = 1000

func fn(data string, headers map[string]string) (string, error) {
	var isComposite [largest + 1]bool
	var primes []string
	for n := 2; n <= largest; n++ {
		if isComposite[n] {
			continue
		}
		primes = append(primes, strconv.Itoa(n))
		for multiple := n * n; multiple <= largest; multiple += n {
			isComposite[multiple] = true
		}
	}
	return strings.Join(primes, ","), nil
}
