"""Takes as long as it is told: `busy SECONDS` computes, `sleep SECONDS` waits."""

import time


def fn(input, headers):
    kind, seconds = input.split()
    end = time.perf_counter() + float(seconds)
    if kind == "sleep":
        time.sleep(float(seconds))
    while time.perf_counter() < end:
        pass
    return kind
