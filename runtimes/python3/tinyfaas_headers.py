"""The header fields that a Python function gets."""

from struct import Struct

# What is remembered of how names are written; a caller may send any.
KNOWN_NAMES_MAX = 256
KNOWN_NAME_BYTES_MAX = 64

FIELD = Struct("!HH")
MISSING = object()
canonical_names = {}
canonical_wire_names = {}


def canonical(name):
    """A field's name as HTTP writes it, such as `User-Agent`."""
    known = canonical_names.get(name)
    if known is not None:
        return known
    if not isinstance(name, str):
        return name
    written = "-".join([part.capitalize() for part in name.split("-")])
    remember(canonical_names, name, written)
    return written


def canonical_of_wire(name):
    written = canonical(name.decode("ascii"))
    remember(canonical_wire_names, name, written)
    return written


def remember(known, name, written):
    if len(known) < KNOWN_NAMES_MAX and len(name) <= KNOWN_NAME_BYTES_MAX:
        known[name] = written


class Headers(dict):
    """The header fields by name, as HTTP writes it (`User-Agent`); any case finds them.

    Every key is written so, whichever way it came in. What does not find its key as it is tries
    again with that, so that the names that HTTP itself uses cost nothing.
    """

    __slots__ = ()
    __hash__ = None

    def __init__(self, *args, **fields):
        dict.__init__(self)
        self.update(*args, **fields)

    @classmethod
    def fromkeys(cls, names, value=None):
        return cls((name, value) for name in names)

    def __missing__(self, name):
        value = dict.get(self, canonical(name), MISSING)
        if value is MISSING:
            raise KeyError(name)
        return value

    def __contains__(self, name):
        return dict.__contains__(self, name) or dict.__contains__(self, canonical(name))

    def get(self, name, default=None):
        value = dict.get(self, name, MISSING)
        return dict.get(self, canonical(name), default) if value is MISSING else value

    def __setitem__(self, name, value):
        dict.__setitem__(self, canonical(name), value)

    def __delitem__(self, name):
        if dict.pop(self, canonical(name), MISSING) is MISSING:
            raise KeyError(name)

    def pop(self, name, *default):
        if len(default) > 1:
            raise TypeError("pop takes a name and a default, got %d values" % (1 + len(default)))
        value = dict.pop(self, canonical(name), MISSING)
        if value is not MISSING:
            return value
        if not default:
            raise KeyError(name)
        return default[0]

    def setdefault(self, name, default=None):
        return dict.setdefault(self, canonical(name), default)

    def update(self, *args, **fields):
        for name, value in dict(*args, **fields).items():
            dict.__setitem__(self, canonical(name), value)

    def copy(self):
        return type(self)(self)

    __copy__ = copy

    def __or__(self, other):
        if not isinstance(other, dict):
            return NotImplemented
        both = self.copy()
        both.update(other)
        return both

    def __ror__(self, other):
        if not isinstance(other, dict):
            return NotImplemented
        both = type(self)(other)
        both.update(self)
        return both

    def __ior__(self, other):
        self.update(other)
        return self

    def __eq__(self, other):
        if not isinstance(other, dict):
            return NotImplemented
        other = other if isinstance(other, Headers) else Headers(other)
        return dict.__eq__(self, other)

    def __ne__(self, other):
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal


def read_headers(block):
    headers = dict.__new__(Headers)
    put = dict.__setitem__
    known = canonical_wire_names
    at, end = 0, len(block)
    while at < end:
        name_len, value_len = FIELD.unpack_from(block, at)
        at += 4
        name = block[at : at + name_len]
        name = known.get(name) or canonical_of_wire(name)
        at += name_len
        value = block[at : at + value_len].decode("utf-8", "surrogateescape")
        at += value_len
        before = dict.get(headers, name)
        put(headers, name, value if before is None else before + ", " + value)
    return headers


def field(name, value):
    return FIELD.pack(len(name), len(value)) + name + value


def content_type(value):
    return field(b"content-type", value)


# Of text, which most functions return.
TEXT = content_type(b"text/plain; charset=utf-8")
