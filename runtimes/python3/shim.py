"""The shim of the python3 runtime: loads fn.py and runs it for every request.

It speaks the handler protocol (docs/reference/handler-protocol.md) on descriptor 3, or over TCP
on the port that TINYFAAS_LISTEN names.

A plain function runs on the main thread, which imported it, one call after the other: what it
keeps for its thread (an event loop, a connection to SQLite, signal handlers) serves every call.
Where fn.py says CONCURRENT_CALLS = n, calls run on n other threads instead, none on the main one.
An `async def` has all its calls on one event loop, the main thread's.

Quick functions are what this file is shaped for: the thread that leads reads all that has come,
runs it in place and answers in one write. Where a call takes longer than PATIENCE_S, the monitor
gives the lead to another thread, or without one reads on itself until a thread is free. It
sleeps while there is nothing to do.
"""

import os
import sys
import threading
import time
from collections import deque
from struct import Struct

from tinyfaas_headers import TEXT, read_headers

VERSION = 1
PROTOCOL_FD = 3
# Calls of a function that does not say how many it wants; those that do not run wait here.
AT_ONCE = 16
CONCURRENT_CALLS_MAX = 256
# How long the leading thread may be in one call before another takes the lead.
PATIENCE_S = 0.005
# When calls that wait behind one whose caller has gone are given back. By then the proxy, which lets a
# cancelled call go on for 1 s, has begun to replace the handler.
HAND_BACK_S = 2
# The monitor goes to sleep after so many looks at a shim that does nothing.
IDLE_LOOKS = 40
# Below what malloc takes from the system and gives back each time.
READ_BYTES = 1 << 16
# What stays of the room of large calls.
KEEP_BYTES = 8 << 20
# A reply of so many bytes is sent from where it is: copying it costs more than it saves.
APART_BYTES_MIN = 64 << 10
FRAME_BYTES_MAX = 16 << 20
MESSAGE_BYTES_MAX = 64 << 10

HELLO, REQUEST, REPLY, CANCEL, PING, PONG, FAILED = range(1, 8)
FLAG_FAILED, FLAG_NOT_BEGUN = 1, 2
# u32 len, u32 id, u8 kind, u8 flags, u16 word, u32 headers_len
HEADER = Struct("!IIBBHI")
HEADER_BYTES = HEADER.size
# The header of a request and its fixed part: u64 invocation, u32 deadline_ms, u16 path, u16 query
REQUEST_HEADER = Struct("!IIBBHIQIHH")
REQUEST_BYTES = REQUEST_HEADER.size

# Without it, multiprocessing would run this file again in the processes that it spawns.
FOLDER = os.path.dirname(globals().pop("__file__"))


def frame(id, kind, flags, word, headers, payload):
    """A frame, or the two parts of one with a large payload."""
    length = HEADER_BYTES - 4 + len(headers) + len(payload)
    head = HEADER.pack(length, id, kind, flags, word, len(headers))
    if len(payload) >= APART_BYTES_MIN:
        return head + headers, payload
    return b"".join((head, headers, payload))


def reply_frame(id, result):
    """What a function returned, as a frame."""
    if type(result) is str:
        payload = result.encode("utf-8", "surrogateescape")
        if len(payload) < APART_BYTES_MIN:
            length = HEADER_BYTES - 4 + len(TEXT) + len(payload)
            head = HEADER.pack(length, id, REPLY, 0, 200, len(TEXT))
            return b"".join((head, TEXT, payload))
    from tinyfaas_replies import reply_of

    status, headers, payload = reply_of(result)
    return frame(id, REPLY, 0, status, headers, payload)


def failure_frame(id, message):
    text = message.encode("utf-8", "replace")[:MESSAGE_BYTES_MAX]
    return frame(id, REPLY, FLAG_FAILED, 500, b"", text)


def describe(error):
    """The function's message for its caller, and the whole story for its log."""
    sys.stderr.write(story(error))
    text = str(error)
    return "%s: %s" % (type(error).__name__, text) if text else type(error).__name__


def story(error):
    """The traceback without the frames of the shim, which tell the function's author nothing."""
    import re
    import traceback

    told = traceback.TracebackException(type(error), error, error.__traceback__)
    waiting, seen = [told], set()
    while waiting:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack = traceback.StackSummary.from_list(
            [frame for frame in part.stack if os.path.dirname(frame.filename) != FOLDER]
        )
        waiting += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
    # A stack of which nothing is left needs no title.
    return re.sub(r"(?m)^Traceback \(most recent call last\):\n(?!  )", "", "".join(told.format()))


class Shim:
    def __init__(self, sock, function):
        self.sock = sock
        self.call = function.call
        self.is_async = function.is_async
        self.at_once = function.at_once
        # Threads that calls run on, beside the main one or instead of it.
        self.threads_max = 1 if function.is_on_main_thread else function.at_once
        # Frames of requests that have come and not begun: (id, buffer).
        self.requests = deque()
        # Replies that are ready and not yet written, by the leading thread.
        self.ready = []
        self.sending = threading.Lock()
        self.rest = b""
        self.keeps_room = False
        # Whoever takes the token leads. The leading thread lays it down while it is in a call,
        # where the monitor can take it; both steps are atomic.
        self.token = []
        # Counts the calls that leading threads began; the monitor sees by it whether one hangs.
        self.begun = 0
        self.threads = 1
        # The locks that threads without work wait for.
        self.idle = []
        # Tells the monitor, which reads while all threads are busy, that one is not any more.
        self.reads_meanwhile = False
        self.reader_wakes, self.wake_reader = -1, -1
        # Since when a call that runs has no caller; only while the monitor reads.
        self.hangs_since = None
        self.monitor_sleeps = True
        self.wake_monitor = threading.Lock()
        self.wake_monitor.acquire()
        self.loop = None
        self.tasks = {}

    def serve(self):
        self.send([frame(0, HELLO, 0, VERSION, b"", b"")[:12] + self.at_once.to_bytes(4, "big")])
        if self.is_async:
            from tinyfaas_replies import thread_loop

            self.loop = thread_loop()
            self.start_daemon(self.read_on)
            while True:
                self.loop.run_forever()
        self.start_daemon(self.monitor)
        if self.threads_max == 1:
            self.work()
        self.start_daemon(self.work)
        # The main thread has nothing to do but the function's signal handlers.
        never = threading.Lock()
        never.acquire()
        never.acquire()

    def start_daemon(self, target):
        threading.Thread(target=target, daemon=True).start()

    def send(self, frames):
        try:
            with self.sending:
                try:
                    together = b"".join(frames)
                except TypeError:
                    # One of them is in two parts.
                    self.send_apart(frames)
                else:
                    self.sock.sendall(together)
        except OSError:
            # Also in a process that the function forked, which has no stream.
            self.leave()

    def send_apart(self, frames):
        for frame in frames:
            if type(frame) is bytes:
                self.sock.sendall(frame)
                continue
            head, payload = frame
            sent = self.sock.sendmsg(frame)
            if sent < len(head):
                # A signal came between.
                self.sock.sendall(head[sent:])
                sent = len(head)
            rest = memoryview(payload)[sent - len(head) :]
            if rest:
                self.sock.sendall(rest)

    def work(self):
        """Leads until another thread took over, then waits to lead again."""
        while True:
            self.lead()
            lead_again = threading.Lock()
            lead_again.acquire()
            self.idle.append(lead_again)
            if self.reads_meanwhile:
                os.write(self.wake_reader, b"!")
            lead_again.acquire()

    def lead(self):
        requests = self.requests
        while True:
            if requests:
                if not self.run(*requests.popleft()):
                    return
            elif self.ready:
                self.flush()
            else:
                self.read()

    def flush(self):
        ready, self.ready = self.ready, []
        if ready:
            self.send(ready)

    def run(self, id, buffer):
        """Runs a request; whether this thread still leads."""
        self.begun += 1
        self.token.append(None)
        if self.monitor_sleeps:
            self.rouse_monitor()
        try:
            reply = reply_frame(id, self.call_with(buffer))
        except BaseException as error:
            reply = failure_frame(id, describe(error))
        try:
            self.token.pop()
        except IndexError:
            self.send([reply])
            return False
        self.ready.append(reply)
        return True

    def rouse_monitor(self):
        self.monitor_sleeps = False
        try:
            self.wake_monitor.release()
        except RuntimeError:
            # It was about to sleep and saw by itself that it must not.
            pass

    def call_with(self, buffer):
        _, _, _, _, method_len, headers_len, _, _, path_len, query_len = (
            REQUEST_HEADER.unpack_from(buffer)
        )
        at = REQUEST_BYTES + method_len + path_len + query_len
        is_large = type(buffer) is bytearray
        block = buffer[at : at + headers_len]
        headers = read_headers(bytes(block) if is_large else block)
        payload = (memoryview(buffer) if is_large else buffer)[at + headers_len :]
        text = str(payload, "utf-8", "surrogateescape") if payload else None
        if is_large:
            # The reply can have its room.
            payload.release()
            buffer.clear()
        return self.call(text, headers)

    def read(self):
        """Reads what has come."""
        try:
            data = self.sock.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self.leave()
        self.take(self.rest + data if self.rest else data)

    def take(self, data):
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            length, id, kind, _, _, _ = HEADER.unpack_from(data, at)
            length += 4
            if not HEADER_BYTES <= length <= FRAME_BYTES_MAX:
                self.leave()
            if end - at < length:
                data = self.read_whole(data[at:], length)
                at, end = 0, len(data)
                continue
            if kind == REQUEST:
                whole = data if length == end else data[at : at + length]
                self.requests.append((id, whole))
            elif kind == CANCEL:
                self.cancel(id)
            elif kind == PING:
                self.send([frame(0, PONG, 0, 0, b"", data[at + HEADER_BYTES : at + length])])
            else:
                self.leave()
            at += length
        self.rest = data[at:]
        if self.is_async:
            self.hand_to_loop()

    def read_whole(self, start, length):
        """Reads on until a large frame is complete."""
        if not self.keeps_room:
            self.keeps_room = True
            # glibc keeps twice the largest block that it ever gave back at the end of its heap. By
            # this one it learns not to give back the room of a large call, only to have the
            # kernel clear the same pages for the next.
            bytearray(KEEP_BYTES // 2)
        whole = bytearray(length)
        view = memoryview(whole)
        got = len(start)
        view[:got] = start
        while got < length:
            count = self.sock.recv_into(view[got:])
            if not count:
                self.leave()
            got += count
        return whole

    def leave(self):
        """The proxy closed the stream or broke the protocol: there is nothing more to do."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)

    def cancel(self, id):
        if self.is_async:
            # The request may have come just before and not be a task yet.
            self.hand_to_loop()
            self.loop.call_soon_threadsafe(self.cancel_task, id)
            return
        for request in tuple(self.requests):
            if request[0] != id:
                continue
            try:
                self.requests.remove(request)
            except ValueError:
                # It has just begun.
                return
            self.send([failure_frame(id, "cancelled")])
            return
        if self.reads_meanwhile and self.hangs_since is None:
            self.hangs_since = time.monotonic()

    def hand_back(self):
        """Gives back what waits behind a call that does not end."""
        given = []
        while self.requests:
            try:
                id, _ = self.requests.popleft()
            except IndexError:
                break
            given.append(frame(id, REPLY, FLAG_NOT_BEGUN, 503, b"", b""))
        if given:
            self.send(given)

    def monitor(self):
        """Takes the lead from a thread that is too long in one call."""
        looks = 0
        seen = -1
        while True:
            if looks >= IDLE_LOOKS:
                self.monitor_sleeps = True
                # A call that began before the line above has not roused anyone.
                if self.begun == seen and not self.token:
                    self.wake_monitor.acquire()
                self.monitor_sleeps = False
                looks = 0
            time.sleep(PATIENCE_S)
            if self.begun != seen:
                seen, looks = self.begun, 0
                continue
            looks += 1
            if self.token:
                looks = 0
                try:
                    self.token.pop()
                except IndexError:
                    continue
                self.pass_lead_on()

    def pass_lead_on(self):
        """Gives the lead, which the monitor has, to a thread that is free."""
        self.flush()
        if not self.idle and self.start_thread():
            return
        if not self.idle:
            self.read_meanwhile()
        self.idle.pop().release()

    def start_thread(self):
        """Starts one more thread, which leads; whether there is one."""
        if self.threads >= self.threads_max:
            return False
        try:
            self.start_daemon(self.work)
        except RuntimeError:
            # The function has used up its processes: the lead waits for a thread that is there.
            return False
        self.threads += 1
        return True

    def read_meanwhile(self):
        """All threads are busy: reads on, for cancellations and pings, until one is free."""
        import select

        if self.reader_wakes < 0:
            self.reader_wakes, self.wake_reader = os.pipe()
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(self.reader_wakes, select.POLLIN)
        self.reads_meanwhile = True
        while not self.idle:
            for fd, _ in poll.poll(self.patience_ms()):
                if fd == self.reader_wakes:
                    os.read(fd, READ_BYTES)
                else:
                    self.read()
            if self.patience_ms() == 0:
                self.hand_back()
                self.hangs_since = None
        self.reads_meanwhile = False
        self.hangs_since = None

    def patience_ms(self):
        """How long to wait before calls are given back; None where none hangs."""
        if self.hangs_since is None:
            return None
        left = self.hangs_since + HAND_BACK_S - time.monotonic()
        return max(0, int(left * 1000))

    def read_on(self):
        """Reads for an event loop."""
        while True:
            self.read()

    def hand_to_loop(self):
        requests = []
        while self.requests:
            requests.append(self.requests.popleft())
        if requests:
            self.loop.call_soon_threadsafe(self.begin_all, requests)

    def begin_all(self, requests):
        for id, buffer in requests:
            task = self.loop.create_task(self.run_async(id, buffer))
            self.tasks[id] = task
            task.add_done_callback(lambda task, id=id: self.finish(id, task))

    async def run_async(self, id, buffer):
        from asyncio import CancelledError

        from tinyfaas_replies import settle

        try:
            result = await settle(self.call_with(buffer))
            return reply_frame(id, result)
        except CancelledError:
            return failure_frame(id, "cancelled")
        except BaseException as error:
            # Even SystemExit, which would end the loop.
            return failure_frame(id, describe(error))

    def finish(self, id, task):
        del self.tasks[id]
        # A task that was cancelled before its first step has no result.
        reply = failure_frame(id, "cancelled") if task.cancelled() else task.result()
        if not self.ready:
            self.loop.call_soon(self.flush)
        self.ready.append(reply)

    def cancel_task(self, id):
        task = self.tasks.get(id)
        if task is not None:
            task.cancel()


def connect():
    import socket

    port = os.environ.pop("TINYFAAS_LISTEN", None)
    if port:
        # Out of the environment, and the connection made, before the function is loaded.
        secret = bytes.fromhex(os.environ.pop("TINYFAAS_SECRET"))
        from tinyfaas_caller import accept

        return accept(int(port), secret)
    os.set_inheritable(PROTOCOL_FD, False)
    return socket.socket(fileno=PROTOCOL_FD)


class Function:
    """What fn.py has."""

    def __init__(self, module):
        function = getattr(module, "fn", None)
        if not callable(function):
            raise TypeError("fn.py has no function fn: write def fn(input, headers)")
        target = function if hasattr(function, "__code__") else getattr(function, "__call__", None)
        target = getattr(target, "__func__", target)
        code = getattr(target, "__code__", None)
        # Coroutines and asynchronous generators.
        self.is_async = code is not None and bool(code.co_flags & 0x280)
        self.call = function
        taken = parameters(function, target, code)
        if taken is not None:
            check_parameters(function, taken)
        if taken is not None and taken < 2:
            self.call = lambda text, headers: function(text)
        wanted = getattr(module, "CONCURRENT_CALLS", None)
        if wanted is not None and not is_within(wanted, CONCURRENT_CALLS_MAX):
            bound = CONCURRENT_CALLS_MAX
            raise ValueError(
                "CONCURRENT_CALLS in fn.py must be between 1 and %d, got %r" % (bound, wanted)
            )
        self.is_on_main_thread = wanted in (None, 1)
        self.at_once = AT_ONCE if self.is_on_main_thread else wanted


def is_within(number, most):
    return isinstance(number, int) and 1 <= number <= most


def load():
    """The function, called with input and headers."""
    code = os.environ["TINYFAAS_CODE"]
    sys.path[0] = code
    if "TINYFAAS_DEPS" in os.environ:
        sys.path.insert(1, os.environ["TINYFAAS_DEPS"])
    sys.path.extend(filter(None, os.environ.pop("TINYFAAS_SITE", "").split(":")))
    # Processes that multiprocessing spawns look for the class of the headers.
    sys.path.append(FOLDER)
    add_exit()
    import fn as module

    return Function(module)


def add_exit():
    """What `site` adds, which handlers start without."""
    import builtins

    def exit(code=None):
        raise SystemExit if code is None else SystemExit(code)

    builtins.exit = builtins.quit = exit


def parameters(function, target, code):
    """How many positional arguments the function can take; None where it takes any."""
    if code is None or code.co_flags & 0x04:
        return None
    return code.co_argcount - (target is not function)


def check_parameters(function, taken):
    """Refuses a function that no call could run."""
    needed = taken - len(getattr(function, "__defaults__", None) or ())
    if hasattr(function, "__code__") and (taken < 1 or needed > 2):
        raise TypeError(
            "fn in fn.py must take the input, or the input and the headers, "
            "got %d parameters: write def fn(input, headers)" % taken
        )


def main():
    # Lines reach the log when they are whole.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    sock = connect()
    # Where a function forks, the requests are the parent's.
    os.register_at_fork(after_in_child=sock.close)
    try:
        function = load()
    except BaseException as error:
        text = story(error).encode("utf-8", "replace")[-MESSAGE_BYTES_MAX:]
        sock.sendall(frame(0, FAILED, 0, 0, b"", text))
        sys.stderr.flush()
        sys.stdout.flush()
        # Not sys.exit, which waits for threads that the function's module may have started.
        os._exit(1)
    Shim(sock, function).serve()


if __name__ == "__main__":
    main()
