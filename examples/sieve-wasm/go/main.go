// Replies with the primes up to 1000: the same function as fn.c, in Go.
package main

import (
	"fmt"
	"strconv"
	"strings"
)

const limit = 1000

func main() {
	var composite [limit + 1]bool
	var primes []string
	for number := 2; number <= limit; number++ {
		if composite[number] {
			continue
		}
		primes = append(primes, strconv.Itoa(number))
		for multiple := number * number; multiple <= limit; multiple += number {
			composite[multiple] = true
		}
	}
	fmt.Print(strings.Join(primes, ","))
}
