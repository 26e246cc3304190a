"""Does what its input asks for, and sends back every other input as it came."""

import os
import time


def fn(input, headers):
    word, _, argument = (input or "").partition(" ")
    if word == "do:fail":
        raise ValueError("the function says no")
    if word == "do:crash":
        os._exit(3)
    if word == "do:sleep":
        time.sleep(3600)
    if word == "do:env":
        return os.environ.get(argument, "unset")
    if word == "do:header":
        return headers.get(argument, "unset")
    return input
