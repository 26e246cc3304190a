"""The python3 shim: what a function gets, what it may return, and where its calls run."""

import json
import time
import unittest

from handler import FAILED, REPLY, Handler, python

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"


class PythonTest(unittest.TestCase):
    def load(self, source, files=(), **options):
        """A shim that is about to load the function."""
        handler = Handler(python, dict(files, **{"fn.py": source}), **options)
        self.addCleanup(handler.__exit__)
        return handler

    def ready(self, source, files=(), **options):
        return self.load(source, files, **options).hello()

    def fails_to_load(self, source):
        handler = self.load(source)
        _, kind, _, _, _, reason = handler.frame()
        self.assertEqual(kind, FAILED)
        self.assertNotEqual(handler.process.wait(30), 0)
        return reason.decode()


class Headers(PythonTest):
    FIELDS = [("lab", "a"), ("user-agent", "b"), ("x-3d-model", "c")]

    def evaluate(self, expression, fields=FIELDS):
        """What an expression of `h` is, as a function sees it."""
        source = "import json, copy, pickle\ndef fn(input, h):\n    return [eval(input)]\n"
        failed, _, _, answer = self.ready(source).call(expression.encode(), headers=fields)
        self.assertFalse(failed, answer)
        return json.loads(answer)[0]

    def test_names_are_written_as_http_does(self):
        written = {"Lab": "a", "User-Agent": "b", "X-3d-Model": "c"}
        for expression, expected in [
            ("h", written),
            ("json.loads(json.dumps(h))", written),
            ("dict(h)", written),
            ("{**h}", written),
            ("h.copy()", written),
            ("copy.copy(h)", written),
            ("copy.deepcopy(h)", written),
            ("pickle.loads(pickle.dumps(h))", written),
            ("dict(h.items())", written),
            ("list(h)", list(written)),
            ("list(h.keys())", list(written)),
            ("[*h]", list(written)),
            ("list(h.values())", ["a", "b", "c"]),
            ("len(h)", 3),
            ("str(h)", str(written)),
            ("isinstance(h, dict)", True),
        ]:
            with self.subTest(expression):
                self.assertEqual(self.evaluate(expression), expected)

    def test_any_case_finds_a_field(self):
        for name in ("User-Agent", "user-agent", "USER-AGENT", "uSer-aGent"):
            for expression, expected in [
                ("h['%s']", "b"),
                ("h.get('%s')", "b"),
                ("h.get('%s', 'x')", "b"),
                ("'%s' in h", True),
                ("'%s' not in h", False),
                ("(h.pop('%s'), len(h))", ["b", 2]),
                ("h.pop('%s', None)", "b"),
                ("(h.setdefault('%s', 'x'), len(h))", ["b", 3]),
                ("(h.__setitem__('%s', 'x'), list(h.items())[1])", [None, ["User-Agent", "x"]]),
                ("(h.__delitem__('%s'), list(h))", [None, ["Lab", "X-3d-Model"]]),
                ("(h.update({'%s': 'x'}), h['user-agent'], len(h))", [None, "x", 3]),
                ("(h.update([('%s', 'x')]), h['user-agent'], len(h))", [None, "x", 3]),
                ("h.copy()['%s']", "b"),
                ("(h | {'%s': 'x'})['user-agent']", "x"),
                ("len(h | {'%s': 'x'})", 3),
                ("len({'%s': 'x'} | h)", 3),
                ("h == {'lab': 'a', '%s': 'b', 'X-3D-model': 'c'}", True),
                ("h != {'lab': 'a', '%s': 'b', 'X-3D-model': 'c'}", False),
                ("h == {'%s': 'b'}", False),
                ("type(h)({'%s': 'x'})['user-agent']", "x"),
                ("type(h).fromkeys(['%s'], 'x')['user-agent']", "x"),
            ]:
                with self.subTest(expression % name):
                    self.assertEqual(self.evaluate(expression % name), expected)

    def test_what_is_not_there_is_not_found(self):
        for expression, expected in [
            ("h.get('none')", None),
            ("h.get('none', 'x')", "x"),
            ("h.pop('none', 'x')", "x"),
            ("'none' in h", False),
            ("7 in h", False),
            ("h == 7", False),
            ("(h.setdefault('x-new', 'x'), list(h)[-1])", ["x", "X-New"]),
        ]:
            with self.subTest(expression):
                self.assertEqual(self.evaluate(expression), expected)
        for statement in ("h['None-Here']", "h.pop('None-Here')", "h.__delitem__('None-Here')"):
            with self.subTest(statement):
                reply = self.ready("def fn(i, h): return eval(i)").call(statement.encode())
                self.assertEqual(reply, [True, 500, {}, b"KeyError: 'None-Here'"])

    def test_a_field_that_comes_twice_is_joined(self):
        self.assertEqual(self.evaluate("h", [("x-a", "1"), ("x-a", "2")]), {"X-A": "1, 2"})

    def test_no_fields_are_an_empty_dict(self):
        self.assertEqual(self.evaluate("h", []), {})

    def test_many_names_take_no_memory_for_good(self):
        source = "import tinyfaas_headers as t\ndef fn(i, h):\n    return str(len(t.canonical_names) + len(t.canonical_wire_names))\n"
        handler = self.ready(source)
        for round in range(3):
            fields = [("x-%d-%d" % (round, n), "") for n in range(1000)]
            self.assertLessEqual(int(handler.call(headers=fields)[3]), 512)


class Replies(PythonTest):
    def check(self, body, status, headers, payload):
        source = "def fn(input, headers):\n    %s\n" % body.replace("\n", "\n    ")
        with self.subTest(body):
            reply = self.ready(source).call()
            self.assertEqual(reply, [False, status, headers, payload])

    def check_type(self, body, content_type, payload):
        headers = {"content-type": content_type} if content_type else {}
        self.check(body, 200, headers, payload)

    def check_fails(self, body, *parts):
        source = "def fn(input, headers):\n    %s\n" % body.replace("\n", "\n    ")
        with self.subTest(body):
            failed, status, headers, message = self.ready(source).call()
            self.assertEqual((failed, status, headers), (True, 500, {}), message)
            for part in parts:
                self.assertIn(part, message.decode())

    def test_a_body_has_the_type_of_what_it_is(self):
        for body, content_type, payload in [
            ("return 'hä'", TEXT, "hä".encode()),
            ("return b'\\xff'", BYTES, b"\xff"),
            ("return bytearray(b'a')", BYTES, b"a"),
            ("return memoryview(b'a')", BYTES, b"a"),
            ("return None", None, b""),
            ("return {'a': [1, 'ä']}", JSON, b'{"a": [1, "\\u00e4"]}'),
            ("return []", JSON, b"[]"),
            ("return {1}", JSON, b"[1]"),
            ("return True", TEXT, b"True"),
            ("return 1.5", TEXT, b"1.5"),
            ("from decimal import Decimal\nreturn Decimal('1.50')", TEXT, b"1.50"),
            ("import datetime\nreturn datetime.date(2026, 1, 2)", TEXT, b"2026-01-02"),
            ("from dataclasses import make_dataclass\nreturn make_dataclass('P', ['x'])(3)", JSON, b'{"x": 3}'),
            ("return (x for x in ('a', 'b'))", TEXT, b"ab"),
            ("return iter([b'a', 'b'])", BYTES, b"ab"),
            ("return iter([])", TEXT, b""),
            ("async def later(): return {'a': 1}\nreturn later()", JSON, b'{"a": 1}'),
        ]:
            self.check_type(body, content_type, payload)

    def test_json_holds_what_programs_hold(self):
        for value, written in [
            ("datetime.datetime(2026, 1, 2, 3, 4, 5)", "2026-01-02T03:04:05"),
            ("datetime.date(2026, 1, 2)", "2026-01-02"),
            ("datetime.time(3, 4)", "03:04:00"),
            ("decimal.Decimal('1.50')", "1.50"),
            ("uuid.UUID(int=0)", "00000000-0000-0000-0000-000000000000"),
            ("{1}", [1]),
            ("(1, 2)", [1, 2]),
            ("Point(1)", {"x": 1}),
            ("Scalar()", 7),
        ]:
            source = (
                "import datetime, decimal, uuid, dataclasses\n"
                "Point = dataclasses.make_dataclass('Point', ['x'])\n"
                "class Scalar:\n"
                # As NumPy's scalars and arrays have it.
                "    def tolist(self): return 7\n"
                "def fn(i): return {'v': eval(i)}\n"
            )
            with self.subTest(value):
                _, _, headers, payload = self.ready(source).call(value.encode())
                self.assertEqual((headers["content-type"], json.loads(payload)), (JSON, {"v": written}))

    def test_what_json_does_not_have_fails_with_what_to_do(self):
        for value in ("float('nan')", "[float('inf')]", "{'a': -float('inf')}"):
            self.check_fails("return {'a': %s}" % value, "NaN or an infinity", "put None in its place")
        self.check_fails("return [object()]", "TypeError: the result holds a object", "convert it")

    def test_what_has_no_text_fails_with_what_to_do(self):
        for value in ("object()", "fn", "lambda: 1", "[].append"):
            self.check_fails("return %s" % value, "TypeError: fn returned a", "return str, bytes")
        self.check_fails("return iter([1])", "a piece of the reply is a int")

    def test_a_tuple_or_an_object_sets_status_and_headers(self):
        text = {"content-type": TEXT}
        for body, status, headers, payload in [
            ("return 'not found', 404", 404, text, b"not found"),
            ("return {'a': 1}, 201", 201, {"content-type": JSON}, b'{"a": 1}'),
            ("return None, 202", 202, {}, b""),
            ("return 'x', 204", 204, {}, b""),
            ("return 'x', 200, {}", 200, text, b"x"),
            ("return 'x', 200, None", 200, text, b"x"),
            ("from http import HTTPStatus\nreturn 'x', HTTPStatus.CREATED", 201, text, b"x"),
            ("return '<p>', 200, {'Content-Type': 'text/html'}", 200, {"content-type": "text/html"}, b"<p>"),
            (
                "return b'x', 201, {'ETag': '\"a\"', 'Cache-Control': 'max-age=60', 'Location': '/a/1'}",
                201,
                {"content-type": BYTES, "etag": '"a"', "cache-control": "max-age=60", "location": "/a/1"},
                b"x",
            ),
            ("return '', 200, [('Set-Cookie', 'a=1'), ('Set-Cookie', 'b=2')]", 200,
             {"content-type": TEXT, "set-cookie": "a=1, b=2"}, b""),
            ("return '', 200, {'Set-Cookie': ['a=1', 'b=2'], 'X-N': 7}", 200,
             {"content-type": TEXT, "set-cookie": "a=1, b=2", "x-n": "7"}, b""),
            ("from types import SimpleNamespace as N\nreturn N(body='x', status=404)", 404, text, b"x"),
            ("from types import SimpleNamespace as N\nreturn N(body=b'x', status_code=410, headers={'A': 'b'})", 410,
             {"content-type": BYTES, "a": "b"}, b"x"),
            ("async def later(): return 'x', 404\nreturn later()", 404, text, b"x"),
        ]:
            self.check(body, status, headers, payload)
        self.check("return headers", 200, {"content-type": JSON}, b"{}")

    def test_the_same_holds_for_async_functions(self):
        for body, status, headers, payload in [
            ("return 'x', 404", 404, {"content-type": TEXT}, b"x"),
            ("yield 'a'\n    yield b'b'", 200, {"content-type": BYTES}, b"ab"),
            ("async def more():\n        yield 'a'\n    return more(), 201", 201, {"content-type": TEXT}, b"a"),
            ("async def more():\n        return 'a'\n    return more()", 200, {"content-type": TEXT}, b"a"),
        ]:
            with self.subTest(body):
                handler = self.ready("async def fn(i, h):\n    %s\n" % body)
                self.assertEqual(handler.call(), [False, status, headers, payload])
                self.assertEqual(handler.call(), [False, status, headers, payload])

    def test_a_bad_head_is_the_functions_error(self):
        for result, part in [
            ("('x',)", "a tuple of 1 is no reply"),
            ("(1, 2, 3, 4)", "a tuple of 4 is no reply"),
            ("('x', 99)", "between 200 and 599, got 99"),
            ("('x', True)", "got True"),
            ("('x', '404')", "got '404'"),
            ("(('x', 404), 200)", "the body of a reply is a tuple"),
            ("('x', 200, {'a b': 'c'})", "'a b' is no name"),
            ("('x', 200, {'a': 'b\\r\\nc: d'})", "the header field a holds a control character"),
            ("('x', 200, {'a': 'b' * 70000})", "the header field a has 70000 bytes"),
            ("('x', 200, {'a%d' % n: 'b' * 60000 for n in range(2)})", "may have 65536 bytes together"),
        ]:
            self.check_fails("return %s" % result, part)

    def test_a_reply_has_the_bound_of_every_runtime(self):
        handler = self.ready("def fn(i):\n    return (c for c in ['x' * int(i)]) if i[0] == '0' else 'x' * int(i)\n")
        self.assertEqual(len(handler.call(b"8388608")[3]), 8 << 20)
        self.assertEqual(len(handler.call(b"08388608")[3]), 8 << 20)
        for size in (b"8388609", b"08388609"):
            message = b"ValueError: a reply may have 8388608 bytes, got 8388609"
            self.assertEqual(handler.call(size), [True, 500, {}, message])


class Threads(PythonTest):
    """What works on the first call works on every later one."""

    def test_every_call_runs_on_the_thread_that_imported_the_function(self):
        source = (
            "import threading, time\n"
            "importer = threading.get_ident()\n"
            "def fn(i):\n"
            "    time.sleep(float(i or 0))\n"
            "    return str(threading.get_ident() == importer and threading.current_thread() is threading.main_thread())\n"
        )
        handler = self.ready(source)
        for pause in (b"", b"0.05", b"", b"0.05", b""):
            self.assertEqual(handler.call(pause)[3], b"True")
        ids = [handler.begin(pause) for pause in (b"0.05", b"", b"0.05", b"")]
        replies = [handler.reply() for _ in ids]
        # One after the other, in the order in which they came.
        self.assertEqual([(id, payload) for id, _, _, _, payload in replies], [(id, b"True") for id in ids])

    def three(self, source, payloads, expected):
        handler = self.ready(source)
        for payload, answer in zip(payloads, expected):
            self.assertEqual(handler.call(payload)[3], answer, handler.printed())

    def test_the_event_loop_of_the_thread_stays(self):
        source = (
            "import asyncio\n"
            "async def work(n):\n"
            "    await asyncio.sleep(n)\n"
            "    return 'slept'\n"
            "def fn(input, headers):\n"
            "    return asyncio.get_event_loop().run_until_complete(work(float(input or 0)))\n"
        )
        self.three(source, [b"0", b"0.05", b"0"], [b"slept"] * 3)

    def test_what_is_awaited_for_a_plain_function_has_one_loop(self):
        source = (
            "import asyncio\n"
            "async def work():\n"
            "    global queue\n"
            "    loop = asyncio.get_running_loop()\n"
            "    same = globals().setdefault('first', loop) is loop\n"
            "    return str(same)\n"
            "def fn(input):\n"
            "    if input: asyncio.run(asyncio.sleep(0.05))\n"
            "    return work()\n"
        )
        self.three(source, [b"", b""], [b"True"] * 2)
        # `asyncio.run` takes the thread's loop away.
        self.three(source, [b"x", b"x", b""], [b"True", b"False", b"False"])

    def test_a_connection_to_sqlite_stays(self):
        source = (
            "import sqlite3, time\n"
            "db = sqlite3.connect(':memory:')\n"
            "db.execute('create table t(k text)')\n"
            "def fn(input, headers):\n"
            "    db.execute('insert into t values (?)', (input or '',))\n"
            "    if input == 'slow': time.sleep(0.05)\n"
            "    return str(db.execute('select count(*) from t').fetchone()[0])\n"
        )
        self.three(source, [b"a", b"slow", b"a"], [b"1", b"2", b"3"])

    def test_signal_handlers_can_be_set_by_every_call(self):
        source = (
            "import signal, time\n"
            "def expire(*_): raise TimeoutError('too long')\n"
            "def fn(input, headers):\n"
            "    signal.signal(signal.SIGALRM, expire)\n"
            "    signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
            "    try: time.sleep(float(input))\n"
            "    except TimeoutError as error: return str(error)\n"
            "    finally: signal.setitimer(signal.ITIMER_REAL, 0)\n"
            "    return 'in time'\n"
        )
        self.three(source, [b"0", b"30", b"0", b"30"], [b"in time", b"too long"] * 2)

    def test_an_async_function_has_the_loop_of_the_main_thread(self):
        source = (
            "import asyncio, signal, threading, warnings\n"
            "warnings.simplefilter('ignore')\n"
            "loop = asyncio.get_event_loop_policy().get_event_loop()\n"
            "async def fn(input):\n"
            "    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)\n"
            "    await asyncio.sleep(float(input or 0))\n"
            "    is_main = threading.current_thread() is threading.main_thread()\n"
            "    return str(is_main and asyncio.get_running_loop() is loop)\n"
        )
        self.three(source, [b"", b"0.05", b""], [b"True"] * 3)

    def test_concurrent_calls_run_on_other_threads_from_the_first(self):
        source = (
            "import threading, time\n"
            "CONCURRENT_CALLS = 4\n"
            "def fn(i):\n"
            "    time.sleep(float(i or 0))\n"
            "    return str(threading.current_thread() is threading.main_thread())\n"
        )
        handler = self.load(source)
        self.assertEqual(handler.frame()[1:5], (1, 0, 1, 4))
        for pause in (b"", b"0.05", b"", b"0.05"):
            self.assertEqual(handler.call(pause)[3], b"False")

    def test_concurrent_calls_are_bounded(self):
        for value in ("0", "-1", "257", "'16'", "1.5"):
            reason = self.fails_to_load("CONCURRENT_CALLS = %s\ndef fn(i): return i\n" % value)
            self.assertIn("CONCURRENT_CALLS in fn.py must be between 1 and 256, got %s" % value, reason)

    def test_goes_on_where_no_thread_can_be_started(self):
        # What the interpreter says where the function has used up its processes.
        source = (
            "import threading, time\n"
            "CONCURRENT_CALLS = 4\n"
            "def refuse(self): raise RuntimeError(\"can't start new thread\")\n"
            "def fn(i, h):\n"
            "    start, threading.Thread.start = threading.Thread.start, refuse\n"
            "    time.sleep(0.1)\n"
            "    threading.Thread.start = start\n"
            "    return i\n"
        )
        handler = self.ready(source)
        self.assertEqual(handler.call(b"one")[3], b"one")
        self.assertEqual(handler.call(b"two")[3], b"two")

    def test_async_functions_run_side_by_side(self):
        handler = self.ready("import asyncio\nasync def fn(i, h):\n    await asyncio.sleep(0.3)\n    return i\n")
        ids = [handler.begin(b"x") for _ in range(16)]
        self.assertEqual(sorted(handler.reply()[0] for _ in ids), ids)

    def test_cancelled_async_function_ends(self):
        handler = self.ready("import asyncio\nasync def fn(i, h):\n    await asyncio.sleep(1000)\n")
        id = handler.begin()
        handler.cancel(id)
        self.assertEqual(handler.reply()[:2], (id, True))

    def test_a_busy_handler_answers_pings_and_confirms_what_has_not_begun(self):
        for most in ("1", "2"):
            source = (
                "import time\nCONCURRENT_CALLS = %s\n"
                "def fn(i, h):\n    print('began', i)\n    time.sleep(0.7)\n    return i\n" % most
            )
            with self.subTest(most):
                handler = self.ready(source)
                ids = [handler.begin(b"%d" % n) for n in range(4)]
                time.sleep(0.2)
                handler.ping()
                handler.cancel(ids[3])
                self.assertEqual(handler.reply()[:2], (ids[3], True))
                self.assertEqual(sorted(handler.reply()[0] for _ in range(3)), ids[:3])
                self.assertNotIn("began 3", handler.printed())

    def test_what_waits_behind_a_call_that_hangs_is_given_back(self):
        for most in ("1", "2"):
            source = "import time\nCONCURRENT_CALLS = %s\ndef fn(i, h):\n    print('began', i)\n    time.sleep(3600)\n" % most
            with self.subTest(most):
                handler = self.ready(source)
                ids = [handler.begin(b"%d" % n) for n in range(5)]
                time.sleep(0.2)
                handler.cancel(ids[0])
                waiting = ids[int(most):]
                for id in waiting:
                    answered, kind, flags, word, _, body = handler.frame()
                    self.assertEqual((answered, kind, flags, word, body), (id, REPLY, 2, 503, b""))
                self.assertEqual(handler.printed().count("began"), int(most))
                handler.ping()
                handler.process.kill()

    def test_a_slow_call_is_followed_at_once(self):
        handler = self.ready("import time\ndef fn(i, h):\n    time.sleep(0.012)\n    return i\n")
        ids = [handler.begin(b"x") for _ in range(100)]
        self.assertEqual([handler.reply()[0] for _ in ids], ids)

    def test_calls_of_changing_length_all_come_back(self):
        for most in ("1", "16"):
            source = (
                "import time\nCONCURRENT_CALLS = %s\n"
                "def fn(i, h):\n    time.sleep(int(i) / 1000)\n    return i\n" % most
            )
            with self.subTest(most):
                handler = self.ready(source)
                wanted = {handler.begin(b"%d" % (n * 7 % 13)): b"%d" % (n * 7 % 13) for n in range(400)}
                for _ in range(len(wanted)):
                    id, _, _, _, payload = handler.reply()
                    self.assertEqual(wanted.pop(id), payload)


class Processes(PythonTest):
    def test_multiprocessing_works_however_it_starts(self):
        source = (
            "import multiprocessing\n"
            "def square(n): return n * n\n"
            "def tell(queue, headers): queue.put((headers['x-a'], headers))\n"
            "def fn(how, headers):\n"
            "    context = multiprocessing.get_context(how)\n"
            "    with context.Pool(2) as pool: squares = pool.map(square, range(4))\n"
            "    queue = context.Queue()\n"
            "    child = context.Process(target=tell, args=(queue, headers))\n"
            "    child.start()\n"
            "    told = queue.get()\n"
            "    child.join()\n"
            "    return [squares, told, child.exitcode]\n"
        )
        handler = self.ready(source)
        for how in (b"fork", b"spawn", b"forkserver", b"fork"):
            with self.subTest(how):
                _, _, _, answer = handler.call(how, headers=[("x-a", "b")])
                self.assertEqual(json.loads(answer), [[0, 1, 4, 9], ["b", {"X-A": "b"}], 0], handler.printed())

    def test_a_child_that_goes_on_as_the_shim_answers_nothing(self):
        source = "import os\ndef fn(i):\n    child = os.fork()\n    if child: os.waitpid(child, 0)\n    return i\n"
        handler = self.ready(source)
        for payload in (b"one", b"two"):
            self.assertEqual(handler.call(payload)[3], payload)
        handler.ping()


class Errors(PythonTest):
    def test_exit_is_there_and_fails_the_call(self):
        for statement, message in [
            ("exit('x')", b"SystemExit: x"),
            ("quit(3)", b"SystemExit: 3"),
            ("exit()", b"SystemExit"),
            ("import sys; sys.exit('x')", b"SystemExit: x"),
        ]:
            with self.subTest(statement):
                handler = self.ready("def fn(i):\n    if i: return i\n    %s\n" % statement)
                self.assertEqual(handler.call(), [True, 500, {}, message])
                self.assertEqual(handler.call(b"x")[3], b"x")

    def test_tracebacks_show_the_functions_frames_alone(self):
        for source in (
            "def fn(i):\n    inner()\ndef inner():\n    raise ValueError('no')\n",
            "async def fn(i):\n    inner()\ndef inner():\n    raise ValueError('no')\n",
            "def fn(i):\n    yield inner()\ndef inner():\n    raise ValueError('no')\n",
            "def fn(i):\n    try: 1 / 0\n    except ZeroDivisionError: inner()\ndef inner():\n    raise ValueError('no')\n",
        ):
            with self.subTest(source):
                handler = self.ready(source)
                self.assertEqual(handler.call()[3], b"ValueError: no")
                printed = handler.printed()
                self.assertEqual(printed.count("in inner"), 1, printed)
                self.assertIn("fn.py", printed)
                self.assertNotIn("shim.py", printed)
                self.assertNotIn("tinyfaas_", printed)

    def test_an_error_of_the_shim_has_no_empty_stack(self):
        handler = self.ready("def fn(i): return object()\n")
        handler.call()
        self.assertTrue(handler.printed().startswith("TypeError: fn returned a object"), handler.printed())

    def test_what_does_not_load_shows_its_own_frames_once(self):
        reason = self.fails_to_load("import json\njson.loads('')\n")
        self.assertIn("fn.py\", line 2", reason)
        self.assertEqual(reason.count("Traceback"), 1, reason)
        self.assertNotIn("shim.py", reason)
        self.assertNotIn("importlib", reason)
        handler = self.load("1 / 0\n")
        handler.frame()
        handler.process.wait(30)
        self.assertEqual(handler.printed(), "")

    def test_a_module_without_the_function_says_what_to_write(self):
        reason = self.fails_to_load("def handler(event): pass\n")
        self.assertEqual(reason.strip(), "TypeError: fn.py has no function fn: write def fn(input, headers)")

    def test_a_function_that_no_call_could_run_is_told_when_it_is_loaded(self):
        for head, count in [("fn()", 0), ("fn(a, b, c)", 3)]:
            reason = self.fails_to_load("def %s: return 1\n" % head)
            self.assertIn("must take the input, or the input and the headers, got %d parameters" % count, reason)
        takes_one = ["fn(a)", "fn(*a)", "fn(a, b=1)", "fn(a, b, c=1)", "fn(a=1)", "fn(a, *, b=1)"]
        for head in takes_one:
            handler = self.ready("def %s: return 'x'\n" % head)
            self.assertEqual(handler.call()[3], b"x", head)


if __name__ == "__main__":
    unittest.main()
