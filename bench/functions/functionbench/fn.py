"""The CPU functions of FunctionBench (Kim and Lee, IEEE CLOUD 2019), written again from their
description in pure Python. The variable WORK picks one; the reply is the seconds that it took."""

import gzip
import json
import math
import os
import random
import time


def float_operations(n=20000):
    total = 0.0
    for i in range(n):
        total += math.sin(i) + math.cos(i) + math.sqrt(i)
    return total


def matmul(n=60):
    random.seed(1)
    a = [[random.random() for _ in range(n)] for _ in range(n)]
    b = list(zip(*[[random.random() for _ in range(n)] for _ in range(n)]))
    return [[sum(x * y for x, y in zip(row, column)) for column in b] for row in a]


def linpack(n=60):
    """Solves n linear equations by Gaussian elimination with partial pivoting."""
    random.seed(2)
    rows = [[random.random() for _ in range(n + 1)] for _ in range(n)]
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            for j in range(k, n + 1):
                rows[i][j] -= factor * rows[k][j]
    x = [0.0] * n
    for i in reversed(range(n)):
        known = sum(rows[i][j] * x[j] for j in range(i + 1, n))
        x[i] = (rows[i][n] - known) / rows[i][i]
    return x


def make_sbox():
    """The substitution table of AES (FIPS 197, section 5.1.1)."""
    exponent, logarithm = [0] * 256, [0] * 256
    value = 1
    for i in range(255):
        exponent[i], logarithm[value] = value, i
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
        value &= 0xFF
    box = []
    for i in range(256):
        inverse = 0 if i == 0 else exponent[(255 - logarithm[i]) % 255]
        result = 0x63
        for shift in range(5):
            result ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        box.append(result)
    return box


SBOX = make_sbox()


def double(value):
    return ((value << 1) ^ (0x1B if value & 0x80 else 0)) & 0xFF


def expand(key):
    words = [list(key[i : i + 4]) for i in range(0, 16, 4)]
    constant = 1
    for i in range(4, 44):
        word = list(words[i - 1])
        if i % 4 == 0:
            word = [SBOX[byte] for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = double(constant)
        words.append([a ^ b for a, b in zip(words[i - 4], word)])
    return [sum(words[i : i + 4], []) for i in range(0, 44, 4)]


def encrypt(block, keys):
    state = [a ^ b for a, b in zip(block, keys[0])]
    for number, key in enumerate(keys[1:], 1):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 10:
            mixed = []
            for c in range(0, 16, 4):
                column = state[c : c + 4]
                all_of = column[0] ^ column[1] ^ column[2] ^ column[3]
                for i in range(4):
                    mixed.append(column[i] ^ all_of ^ double(column[i] ^ column[(i + 1) % 4]))
            state = mixed
        state = [a ^ b for a, b in zip(state, key)]
    return bytes(state)


def pyaes(blocks=64):
    """AES-128 in counter mode over some blocks."""
    keys = expand(bytes(range(16)))
    return b"".join(encrypt(i.to_bytes(16, "big"), keys) for i in range(blocks))


def chameleon(rows=300, columns=10):
    """Renders a table in HTML from a template."""
    cell = "<td class='cell'>{column}: {value}</td>".format
    row = "<tr id='row{number}'>{cells}</tr>".format
    lines = []
    for number in range(rows):
        cells = "".join(cell(column=c, value=number * c) for c in range(columns))
        lines.append(row(number=number, cells=cells))
    return "<table>" + "".join(lines) + "</table>"


def gzip_text(size=200_000):
    random.seed(3)
    words = [str(random.randrange(1000)) for _ in range(size // 4)]
    packed = gzip.compress(" ".join(words).encode())
    return gzip.decompress(packed)


def json_text(entries=3000):
    data = [{"id": i, "name": "entry %d" % i, "values": [i, i / 2, str(i)]} for i in range(entries)]
    return json.loads(json.dumps(data))


WORK = {
    "float": float_operations,
    "matmul": matmul,
    "linpack": linpack,
    "pyaes": pyaes,
    "chameleon": chameleon,
    "gzip": gzip_text,
    "json": json_text,
}[os.environ["WORK"]]


def fn(input, headers):
    begin = time.perf_counter()
    WORK()
    return repr(time.perf_counter() - begin)
