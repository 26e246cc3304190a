#!/bin/sh
# The primes up to 1000, with commas between them. awk is part of every POSIX system.
exec awk -v largest=1000 'BEGIN {
    for (n = 2; n <= largest; n++) {
        if (n in is_composite) continue
        printf "%s%d", separator, n
        separator = ","
        for (multiple = n * n; multiple <= largest; multiple += n) is_composite[multiple]
    }
}'
