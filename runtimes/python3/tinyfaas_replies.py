"""What a Python function may return, and what becomes of it.

It is loaded with the first result that is not a string.
"""

import sys

from tinyfaas_headers import FIELD, TEXT, content_type, field

# As for every runtime.
PAYLOAD_BYTES_MAX = 8 << 20
HEADERS_BYTES_MAX = 64 << 10
# Statuses whose replies have no body.
WITHOUT_BODY = (204, 205, 304)

json_encoder = None

JSON = content_type(b"application/json")
BYTES = content_type(b"application/octet-stream")


def reply_of(result):
    """What a function returned, as status, header block and payload."""
    if isinstance(result, tuple):
        if not 2 <= len(result) <= 3:
            raise TypeError(
                "a tuple of %d is no reply: return (body, status) or (body, status, headers),"
                " or a list for a JSON array" % len(result)
            )
        return reply_with(*result)
    if hasattr(result, "__await__"):
        return reply_of(wait_for(result))
    if hasattr(result, "body") and (hasattr(result, "status") or hasattr(result, "status_code")):
        status = getattr(result, "status", None)
        if not isinstance(status, int):
            status = getattr(result, "status_code", status)
        return reply_with(result.body, status, getattr(result, "headers", None))
    return (200, *body_of(result))


def reply_with(body, status, headers=None):
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise ValueError(
            "the status of a reply must be a number between 200 and 599, got %r" % (status,)
        )
    own_type, payload = body_of(body)
    fields = fields_of(headers)
    if status in WITHOUT_BODY:
        own_type, payload = b"", b""
        fields = [(name, value) for name, value in fields if name != b"content-type"]
    elif any(name == b"content-type" for name, _ in fields):
        own_type = b""
    block = own_type + b"".join([field(name, value) for name, value in fields])
    if len(block) > HEADERS_BYTES_MAX:
        raise ValueError(
            "the header fields of the reply may have %d bytes together, got %d"
            % (HEADERS_BYTES_MAX, len(block))
        )
    return int(status), block, payload


def fields_of(headers):
    """The fields of a reply, names in lower case. A list as a value is a field for each."""
    if headers is None:
        return []
    # Loading it takes longer than all of this file.
    import re

    pairs = headers.items() if hasattr(headers, "items") else headers
    fields = []
    for name, values in pairs:
        name = name.decode("latin-1") if isinstance(name, bytes) else name
        if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError("%r is no name of a header field" % (name,))
        for value in values if isinstance(values, (list, tuple)) else (values,):
            value = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            value = value.strip(" \t")
            if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
                raise ValueError("the header field %s holds a control character" % name)
            value = value.encode("utf-8", "surrogateescape")
            if len(name) + len(value) > HEADERS_BYTES_MAX - FIELD.size:
                raise ValueError("the header field %.64s has %d bytes: send less" % (name, len(value)))
            fields.append((name.lower().encode(), value))
    return fields


def body_of(result):
    """What a function returned as a body: the field of its type, and the payload."""
    own_type, payload = typed(result)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise too_large(len(payload))
    return own_type, payload


def typed(result):
    if isinstance(result, str):
        return TEXT, result.encode("utf-8", "surrogateescape")
    if result is None:
        return b"", b""
    if isinstance(result, (bytes, bytearray, memoryview)):
        return BYTES, bytes(result)
    if isinstance(result, (dict, list, set, frozenset)) or is_dataclass(result):
        return JSON, to_json(result)
    if isinstance(result, tuple):
        raise TypeError("the body of a reply is a tuple: make it a list for a JSON array")
    if hasattr(result, "__await__"):
        return typed(wait_for(result))
    if hasattr(result, "__aiter__"):
        return typed(wait_for(collect(result)))
    if hasattr(result, "__next__"):
        return joined(result)
    if hasattr(result, "tolist"):
        # An array or a scalar of NumPy, and what is made like one.
        return typed(result.tolist())
    if type(result).__repr__ is object.__repr__ or callable(result):
        raise TypeError(
            "fn returned a %s: return str, bytes, a dict or list for JSON, or (body, status)"
            % type(result).__name__
        )
    return TEXT, str(result).encode("utf-8", "surrogateescape")


def too_large(size):
    return ValueError("a reply may have %d bytes, got %d" % (PAYLOAD_BYTES_MAX, size))


def joined(pieces):
    """The pieces that a generator yields, one after the other."""
    parts, size, own_type = [], 0, TEXT
    for piece in pieces:
        if isinstance(piece, str):
            piece = piece.encode("utf-8", "surrogateescape")
        elif isinstance(piece, (bytes, bytearray, memoryview)):
            piece, own_type = bytes(piece), BYTES
        else:
            raise TypeError(
                "a piece of the reply is a %s: yield str or bytes, or return a list for JSON"
                % type(piece).__name__
            )
        size += len(piece)
        if size > PAYLOAD_BYTES_MAX:
            raise too_large(size)
        parts.append(piece)
    return own_type, b"".join(parts)


async def collect(pieces):
    """The pieces of an asynchronous generator, as an iterator."""
    got, size = [], 0
    async for piece in pieces:
        size += len(piece) if hasattr(piece, "__len__") else 0
        if size > PAYLOAD_BYTES_MAX:
            raise too_large(size)
        got.append(piece)
    return iter(got)


def thread_loop():
    """The event loop of this thread, the same one for as long as the thread lives."""
    import asyncio

    try:
        loop = asyncio.get_event_loop()
        if not loop.is_closed():
            return loop
    except RuntimeError:
        # It has none, or the function took it away, as `asyncio.run` does.
        pass
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def wait_for(awaitable):
    """The result of a plain function that returned something to await."""

    async def wait():
        return await awaitable

    return thread_loop().run_until_complete(wait())


async def settle(result):
    """What a coroutine returned, once nothing of it has to be awaited any more."""
    while hasattr(result, "__await__"):
        result = await result
    if hasattr(result, "__aiter__"):
        return await collect(result)
    if isinstance(result, tuple) and result and hasattr(result[0], "__aiter__"):
        return (await collect(result[0]), *result[1:])
    return result


def is_dataclass(value):
    return hasattr(type(value), "__dataclass_fields__")


def to_json(value):
    try:
        return encoder().encode(value).encode()
    except ValueError as error:
        if "Out of range float" not in str(error):
            raise
        raise ValueError(
            "the result holds NaN or an infinity, which JSON does not have: put None in its place"
        ) from None


def encoder():
    global json_encoder
    if json_encoder is None:
        import json

        json_encoder = json.JSONEncoder(default=plain, allow_nan=False)
    return json_encoder


def plain(value):
    """A value that JSON has for one that it does not have."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value):
        return {name: getattr(value, name) for name in type(value).__dataclass_fields__}
    for module, name in (("decimal", "Decimal"), ("uuid", "UUID")):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(value, kind):
            return str(value)
    raise TypeError(
        "the result holds a %s, which JSON does not have: convert it, such as by str() or list()"
        % type(value).__name__
    )
