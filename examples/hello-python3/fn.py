import os


def fn(input, headers):
    greeting = os.environ.get("GREETING", "Hello")
    return {"text": "%s, %s!" % (greeting, input or "world"), "headers": headers}
