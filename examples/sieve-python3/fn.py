LARGEST = 1000


def primes_up_to(largest):
    is_prime = bytearray([1]) * (largest + 1)
    is_prime[:2] = b"\0\0"
    for n in range(2, int(largest**0.5) + 1):
        if is_prime[n]:
            multiples = range(n * n, largest + 1, n)
            is_prime[n * n :: n] = bytes(len(multiples))
    return [n for n, prime in enumerate(is_prime) if prime]


def fn(input, headers):
    return ",".join(map(str, primes_up_to(LARGEST)))
