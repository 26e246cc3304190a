"""Every shim keeps the handler protocol and its function's contract.

Run by: python3 -m unittest discover -s runtimes/tests
"""

import hmac
import socket
import time
import unittest

from handler import FAILED, HEADER, Handler, binary, exactly, go, node, program, python

ALL_BYTES = bytes(range(256))
GO = "package main\n%s\nfunc fn(data string, headers map[string]string) (string, error) { %s }\n"


class Contract:
    """What every shim does; a subclass says how functions look in its language."""

    def run_function(self, name, **options):
        return Handler(type(self).command, {self.file: self.functions[name]}, **options)

    def check_echo(self, payload):
        with self.run_function("echo").hello_on() as handler:
            failed, status, _, answer = handler.call(payload)
            self.assertEqual((failed, status), (False, 200))
            self.assertEqual(answer, payload)

    def test_echoes_text(self):
        self.check_echo("zwölf Boxkämpfer".encode())

    def test_echoes_every_byte(self):
        self.check_echo(ALL_BYTES)

    def test_echoes_100_kb(self):
        self.check_echo(ALL_BYTES * 400)

    def test_echoes_4_mb(self):
        self.check_echo(ALL_BYTES * (4 << 12))

    def test_echoes_nothing(self):
        self.check_echo(b"")

    def test_a_reply_has_one_bound(self):
        with self.run_function("sized").hello_on() as handler:
            self.assertEqual(len(handler.call(b"%d" % (8 << 20))[3]), 8 << 20)
            failed, status, headers, message = handler.call(b"%d" % ((8 << 20) + 1))
            self.assertEqual((failed, status, headers), (True, 500, {}))
            self.assertIn(b"8388608 bytes", message)
            self.assertEqual(handler.call(b"1")[0], False)

    def test_speaks_over_tcp(self):
        with self.run_function("echo", tcp=True).hello_on() as handler:
            self.assertEqual(handler.call(b"over tcp")[3], b"over tcp")

    def test_only_who_knows_the_secret_is_the_proxy(self):
        challenges = []

        def meet_strangers(handler):
            challenges.extend(exactly(other, 32) for other in handler.others)

        shim = self.run_function("environment", tcp=True, strangers=4, before=meet_strangers)
        with shim.hello_on() as handler:
            # The proxy came last and was taken; the others were shown nothing but a challenge.
            self.assertEqual([len(challenge) for challenge in challenges], [32] * 4)
            said = handler.call()[3]
            self.assertIn(b"TINYFAAS_FUNCTION", said)
            self.assertNotIn(b"TINYFAAS_SECRET", said)
            self.assertNotIn(b"TINYFAAS_LISTEN", said)
            for other in handler.others:
                self.assertEqual(exactly(other, 1), b"")

    def test_a_wrong_proof_is_no_proof(self):
        def lie(handler):
            frame = handler.request(b"x")[1]
            for said in (bytes(64), frame + bytes(64), b"x"):
                with handler.dial("127.0.0.9") as liar:
                    challenge = exactly(liar, 32)
                    self.assertEqual(len(challenge), 32)
                    liar.sendall(said)
                    if len(said) < 64:
                        # One that goes in the middle.
                        continue
                    self.assertEqual(exactly(liar, 1), b"", said)
            # What was shown for one challenge is none for another.
            first, second = handler.dial("127.0.0.10"), handler.dial("127.0.0.11")
            challenge, _ = exactly(first, 32), exactly(second, 32)
            proof = hmac.new(handler.secret, b"caller" + challenge + bytes(32), "sha256").digest()
            second.sendall(bytes(32) + proof)
            self.assertEqual(exactly(second, 1), b"")
            handler.others += [first, second]

        with self.run_function("echo", tcp=True, before=lie).hello_on() as handler:
            self.assertEqual(handler.call(b"taken")[3], b"taken")

    def test_one_who_connects_again_and_again_keeps_nobody_out(self):
        def flood(handler):
            handler.others += [handler.dial("127.0.0.9") for _ in range(200)]
            # Only the last of them is kept.
            for other in handler.others[:-1]:
                self.assertLess(len(exactly(other, 33)), 33)

        with self.run_function("echo", tcp=True, before=flood).hello_on() as handler:
            self.assertEqual(handler.call(b"taken")[3], b"taken")

    def test_function_sees_headers(self):
        with self.run_function("header").hello_on() as handler:
            self.assertEqual(handler.call(headers=[("x-test", "some value")])[3].strip(), b"some value")
            # A request that does not fit one read.
            reply = handler.call(bytes(1 << 20), headers=[("x-test", "some value")])
            self.assertEqual(reply[3].strip(), b"some value")

    def test_function_sees_its_environment(self):
        with self.run_function("env", env={"COLOUR": "green"}).hello_on() as handler:
            self.assertEqual(handler.call()[3].strip(), b"green")

    def test_failing_function_is_answered_with_its_message(self):
        with self.run_function("fail").hello_on() as handler:
            failed, status, headers, message = handler.call()
            self.assertEqual((failed, status, headers), (True, 500, {}))
            self.assertIn(b"no such colour", message)
            self.assertEqual(handler.call(b"ok")[3].strip(), b"ok")
            self.assertIn("no such colour", handler.printed())

    def test_what_does_not_load_is_reported(self):
        with self.run_function("broken") as handler:
            _, kind, _, _, _, text = handler.frame()
            self.assertEqual(kind, FAILED)
            self.assertIn(self.broken_says, text.decode())
            handler.process.wait(30)
            self.assertNotEqual(handler.process.returncode, 0)

    def test_missing_function_is_reported(self):
        with Handler(type(self).command, {"other.txt": ""}) as handler:
            _, kind, _, _, _, text = handler.frame()
            self.assertEqual(kind, FAILED)
            self.assertIn(self.missing_says, text.decode())

    def test_slow_calls_overlap_and_quick_ones_pass_them(self):
        with self.run_function("slow").hello_on() as handler:
            slow = [handler.begin(b"slow") for _ in range(8)]
            quick = handler.begin(b"quick")
            self.assertEqual(handler.reply()[0], quick)
            handler.ping()
            self.assertEqual(sorted(handler.reply()[0] for _ in slow), slow)

    def test_cancelled_call_is_confirmed(self):
        with self.run_function("slow").hello_on() as handler:
            id = handler.begin(b"slow")
            handler.ping()
            handler.cancel(id)
            self.assertEqual(handler.reply()[0], id)
            handler.cancel(id)
            self.assertEqual(handler.call(b"quick")[3].strip(), b"quick")

    def test_answers_all_of_many_at_once(self):
        with self.run_function("echo").hello_on() as handler:
            _, right = handler.flood(self.flood, 256, ALL_BYTES)
            self.assertEqual(right, self.flood)

    def test_puts_frames_that_come_in_pieces_together(self):
        with self.run_function("echo").hello_on() as handler:
            for cut in range(1, 48, 3):
                (first, one), (second, two) = handler.request(b"one"), handler.request(b"two")
                handler.sock.sendall(one[:cut])
                handler.sock.sendall(one[cut:] + two)
                answers = {id: payload for id, _, _, _, payload in (handler.reply(), handler.reply())}
                self.assertEqual(answers, {first: b"one", second: b"two"})

    def test_ends_when_the_stream_ends(self):
        with self.run_function("echo").hello_on() as handler:
            handler.sock.shutdown(socket.SHUT_WR)
            self.assertEqual(handler.process.wait(30), 0)

    def test_ends_on_garbage(self):
        for garbage in (b"\0\0\0\x0b" + bytes(12), b"\xff" * 64, HEADER.pack(12, 1, 9, 0, 0, 0)):
            with self.run_function("echo").hello_on() as handler:
                handler.sock.sendall(garbage)
                handler.process.wait(30)

    def test_standard_input_is_empty_for_a_child_too(self):
        with self.run_function("child").hello_on() as handler:
            # The next request comes while the child of the first reads its standard input.
            ids = [handler.begin(b"x"), handler.begin(b"y")]
            replies = dict(handler.reply()[::4] for _ in ids)
            self.assertEqual({id: text.strip() for id, text in replies.items()}, dict.fromkeys(ids, b"<> 0"))

    def test_no_child_has_the_protocols_descriptor(self):
        with self.run_function("descriptors").hello_on() as handler:
            self.assertEqual(handler.call()[3], b"none\n")

    def test_output_is_no_part_of_the_protocol(self):
        with self.run_function("print").hello_on() as handler:
            self.assertEqual(handler.call(b"x")[3].strip(), b"x")
            self.assertIn("a line of the log", handler.printed())


def hello_on(self):
    try:
        return self.hello()
    except BaseException:
        self.__exit__()
        raise


Handler.hello_on = hello_on


class Python(Contract, unittest.TestCase):
    command = staticmethod(python)
    file = "fn.py"
    flood = 10000
    broken_says = "ZeroDivisionError"
    missing_says = "fn"
    functions = {
        "echo": "def fn(input, headers):\n    return input\n",
        "sized": "def fn(input, headers):\n    return 'x' * int(input)\n",
        "header": "def fn(input, headers):\n    return headers['X-Test']\n",
        "env": "import os\ndef fn(input, headers):\n    return os.environ['COLOUR']\n",
        "environment": "import os\ndef fn(input):\n    return repr(dict(os.environ))\n",
        "fail": "def fn(i, h):\n    if i: return i\n    raise ValueError('no such colour')\n",
        "broken": "1 / 0\n",
        "slow": "import time\nCONCURRENT_CALLS = 16\n"
        "def fn(i, h):\n    if i == 'slow': time.sleep(0.7)\n    return i\n",
        "print": "def fn(i, h):\n    print('a line of the log')\n    return i\n",
        "child": "import subprocess\ndef fn(i, h):\n"
        "    out = subprocess.run(['sh', '-c', 'echo \"<$(cat)> $?\"'], stdout=-1, close_fds=False).stdout\n"
        "    return out\n",
        "descriptors": "import subprocess\ndef fn(i, h):\n"
        "    return subprocess.run(['sh', '-c', 'readlink /proc/self/fd/3 || echo none'], stdout=-1, close_fds=False).stdout\n",
    }


class Node(Contract, unittest.TestCase):
    command = staticmethod(node)
    file = "index.js"
    flood = 10000
    broken_says = "index.js:1"
    missing_says = "index.js"
    functions = {
        "echo": "module.exports = (req, res) => { res.send(req.rawBody) }",
        "sized": "module.exports = (req, res) => { res.send('x'.repeat(Number(req.body))) }",
        "header": "module.exports = (req, res) => { res.send(req.get('X-Test')) }",
        "env": "module.exports = (req, res) => { res.send(process.env.COLOUR) }",
        "environment": "module.exports = (req, res) => { res.send(JSON.stringify(process.env)) }",
        "fail": "module.exports = async (req, res) => {"
        " if (req.body) return res.send(req.body); throw new Error('no such colour') }",
        "broken": "throw new Error('not today')",
        "slow": "module.exports = (req, res) => {"
        " setTimeout(() => res.send(req.body), req.body === 'slow' ? 700 : 0) }",
        "print": "module.exports = (req, res) => { console.log('a line of the log'); res.send(req.body) }",
        "child": "module.exports = (req, res) => { const stdio = ['inherit', 'pipe', 'inherit'];"
        " const child = require('child_process').spawn('sh', ['-c', 'echo \"<$(cat)> $?\"'], { stdio });"
        " child.stdout.on('data', (d) => res.send(d)) }",
        "descriptors": "module.exports = (req, res) => { res.send("
        "require('child_process').execFileSync('sh', ['-c', 'readlink /proc/self/fd/3 || echo none'], { stdio: ['inherit', 'pipe', 'inherit'] })) }",
    }


class Go(Contract, unittest.TestCase):
    command = staticmethod(go)
    file = "fn.go"
    flood = 10000
    functions = {
        "echo": GO % ("", "return data, nil"),
        "sized": GO % (
            'import ("strconv"; "strings")', 'n, err := strconv.Atoi(data); return strings.Repeat("x", n), err'
        ),
        "header": GO % ("", 'return headers["x-test"], nil'),
        "env": GO % ('import "os"', 'return os.Getenv("COLOUR"), nil'),
        "environment": GO % ('import ("os"; "strings")', 'return strings.Join(os.Environ(), " "), nil'),
        "fail": GO % ("", 'if data == "" { panic("no such colour") }; return data, nil'),
        "slow": GO % ('import "time"', 'if data == "slow" { time.Sleep(700 * time.Millisecond) }; return data, nil'),
        "print": GO % ('import "fmt"', 'fmt.Println("a line of the log"); return data, nil'),
        "child": GO % (
            'import "os"; import "os/exec"',
            "c := exec.Command(\"sh\", \"-c\", `echo \"<$(cat)> $?\"`); c.Stdin = os.Stdin;"
            " out, err := c.Output(); return string(out), err",
        ),
        "descriptors": GO % (
            'import "os/exec"',
            'out, err := exec.Command("sh", "-c", "readlink /proc/self/fd/3 || echo none").Output(); return string(out), err',
        ),
        "error": GO % ('import "errors"', 'return "", errors.New("no such shape")'),
    }
    # These fail when the function is compiled, before there is a handler.
    test_what_does_not_load_is_reported = None
    test_missing_function_is_reported = None

    def test_error_is_the_message(self):
        with self.run_function("error").hello_on() as handler:
            self.assertEqual(handler.call(), [True, 500, {}, b"no such shape"])

    def test_another_shape_sets_status_and_headers(self):
        text, binary = "text/plain; charset=utf-8", "application/octet-stream"
        source = (
            'package main\nimport ("errors"; "strings")\n'
            "func fn(data string, headers map[string]string) (string, int, map[string]string, error) {\n"
            "switch data {\n"
            'case "error": return "x", 404, nil, errors.New("no such shape")\n'
            'case "typed": return "<p>", 201, map[string]string{"Content-Type": "text/html", "ETag": `"a"`,'
            ' "Location": "/a/1", "Cache-Control": "max-age=60"}, nil\n'
            'case "bytes": return "\\xff", 200, nil, nil\n'
            'case "none": return "x", 204, map[string]string{"content-type": "a/b", "x-a": "b"}, nil\n'
            'case "status": return "x", 99, nil, nil\n'
            'case "name": return "x", 200, map[string]string{"a b": "c"}, nil\n'
            'case "value": return "x", 200, map[string]string{"a": "b\\r\\nc: d"}, nil\n'
            'case "long": return "x", 200, map[string]string{"a": strings.Repeat("b", 70000)}, nil\n'
            'case "most": return strings.Repeat("x", 8<<20), 200, nil, nil\n'
            'case "more": return strings.Repeat("x", 8<<20+1), 200, nil, nil\n'
            '}\nreturn "not found", 404, nil, nil\n}\n'
        )
        with Handler(go, {"fn.go": source}).hello_on() as handler:
            typed = {"content-type": "text/html", "etag": '"a"', "location": "/a/1", "cache-control": "max-age=60"}
            for payload, expected in [
                (b"", [False, 404, {"content-type": text}, b"not found"]),
                (b"error", [True, 500, {}, b"no such shape"]),
                (b"typed", [False, 201, typed, b"<p>"]),
                (b"bytes", [False, 200, {"content-type": binary}, b"\xff"]),
                (b"none", [False, 204, {"x-a": "b"}, b""]),
                (b"status", [True, 500, {}, b"the status of a reply must be between 200 and 599, got 99"]),
                (b"name", [True, 500, {}, b'"a b" is no name of a header field']),
                (b"value", [True, 500, {}, b"the header field a holds a control character"]),
                (b"long", [True, 500, {}, b"the header fields of the reply have more than 65280 bytes"]),
                (b"more", [True, 500, {}, b"a reply may have 8388608 bytes, got 8388609"]),
            ]:
                self.assertEqual(handler.call(payload), expected)
            self.assertEqual(len(handler.call(b"most")[3]), 8 << 20)
        source = "package main\nfunc fn(data string, headers map[string]string) (string, int, error) { return data, 201, nil }\n"
        with Handler(go, {"fn.go": source}).hello_on() as handler:
            self.assertEqual(handler.call(b"x"), [False, 201, {"content-type": text}, b"x"])

    def test_a_wrong_shape_shows_the_right_ones(self):
        for source, shape in [
            ("func fn(data string) string { return data }", "fn is a func(string) string: write one of"),
            ("var fn = 7", "fn is a int: write one of"),
        ]:
            with Handler(go, {"fn.go": "package main\n" + source}) as handler:
                _, kind, _, _, _, text = handler.frame()
                self.assertEqual(kind, FAILED)
                self.assertIn(shape, text.decode())
                self.assertIn("func fn(data string, headers map[string]string) (string, error)", text.decode())
                self.assertEqual(handler.process.wait(30), 1)


class Binary(Contract, unittest.TestCase):
    command = staticmethod(binary)
    file = "fn.sh"
    flood = 500
    missing_says = "fn.sh"
    functions = {
        "echo": "#!/bin/sh\ncat\n",
        "sized": 'head -c "$(cat)" /dev/zero\n',
        "header": 'echo "$HTTP_X_TEST"\n',
        "env": 'echo "$COLOUR"\n',
        "environment": "env\n",
        "fail": 'in=$(cat)\n[ "$in" ] && echo "$in" && exit\necho no such colour\n'
        "echo no such colour >&2\nexit 3\n",
        "slow": 'in=$(cat)\n[ "$in" = slow ] && sleep 0.7\necho "$in"\n',
        "print": "echo a line of the log >&2\ncat\n",
        "child": 'cat >/dev/null; echo "<$(cat)> $?"\n',
        "descriptors": "readlink /proc/self/fd/3 || echo none\n",
    }
    # A script is only read when it is run.
    test_what_does_not_load_is_reported = None

    def check(self, script, expected, payload=b"", **request):
        with Handler(binary, {"fn.sh": script}).hello_on() as handler:
            failed, _, _, answer = handler.call(payload, **request)
            self.assertEqual((failed, answer), expected)

    def test_how_a_script_ends_is_its_reply(self):
        self.check("exit 3", (True, b"fn.sh exited with status 3"))
        self.check("kill -9 $$", (True, b"fn.sh was ended by signal 9"))
        # It reads nothing of a large payload.
        self.check("echo a", (False, b"a\n"), payload=bytes(1 << 20))
        # What it leaves running holds its output open.
        self.check("echo a; sleep 1000 &", (False, b"a\n"))
        self.check("head -c 9000000 /dev/zero", (True, b"fn.sh printed more than 8388608 bytes"))

    def test_a_cgi_program_prints_status_and_headers(self):
        script = """case "$(cat)" in
            found) printf 'Content-Type: text/html\\r\\nETag: "a"\\r\\nCache-Control: max-age=60\\r\\n\\r\\n<p>\\n' ;;
            moved) printf 'Location: /a/1\\n\\n' ;;
            failed) printf 'Status: 200\\n\\n'; exit 3 ;;
            plain) echo 'no fields' ;;
            most) printf 'A: b\\n\\n'; head -c 8388608 /dev/zero ;;
            more) printf 'A: b\\n\\n'; head -c 8388609 /dev/zero ;;
            long) printf 'A: '; head -c 65000 /dev/zero | tr '\\0' a; printf '\\nB: '; head -c 65000 /dev/zero | tr '\\0' a; printf '\\n\\n' ;;
            *) printf 'Status: 404 Not Found\\n\\nnot found' ;;
        esac"""
        with Handler(binary, {"fn.cgi": script}).hello_on() as handler:
            text = {"content-type": "text/plain; charset=utf-8"}
            found = {"content-type": "text/html", "etag": '"a"', "cache-control": "max-age=60"}
            for payload, expected in [
                (b"", [False, 404, text, b"not found"]),
                (b"found", [False, 200, found, b"<p>\n"]),
                (b"moved", [False, 302, {"location": "/a/1"}, b""]),
                (b"failed", [True, 500, {}, b"Status: 200"]),
            ]:
                self.assertEqual(handler.call(payload), expected)
            self.assertEqual(len(handler.call(b"most")[3]), 8 << 20)
            for payload, part in [
                (b"plain", b"print fields such as Content-Type: text/plain, then an empty line"),
                (b"more", b"more than 8388608 bytes"),
                (b"long", b"may print 65536 bytes of header fields"),
            ]:
                failed, status, headers, message = handler.call(payload)
                self.assertEqual((failed, status, headers), (True, 500, {}))
                self.assertIn(part, message)

    def test_a_script_that_may_not_be_executed_is_run_by_its_first_line(self):
        self.check('#!/usr/bin/env python3\nimport sys\nprint(len(sys.stdin.read()))\n', (False, b"3\n"), payload=b"abc")

    def test_what_cannot_be_run_is_refused_before_the_first_call(self):
        for files, part in [
            ({"fn.sh": "#!/bin/sh\r\necho hello\r\n"}, "has Windows line endings"),
            ({"fn.sh": "#!/usr/bin/env none-such\n"}, "asks for none-such, which is not here"),
            ({"fn.sh": "", "fn.cgi": ""}, "there are fn.sh and fn.cgi"),
        ]:
            with Handler(binary, files) as handler:
                _, kind, _, _, _, text = handler.frame()
                self.assertEqual(kind, FAILED)
                self.assertIn(part, text.decode())
                self.assertNotEqual(handler.process.wait(30), 0)

    def test_first_process_of_a_namespace_reaps_orphans(self):
        unshare = program("unshare", "apt install util-linux")
        namespaces = [unshare, "--map-root-user", "--pid", "--fork", "--mount-proc"]
        script = """case "$(cat)" in
            leave) (setsid sh -c : &) ;;
            count) cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z ' || true ;;
        esac"""
        with Handler(lambda code: namespaces + binary(code), {"fn.sh": script}).hello_on() as handler:
            for _ in range(5):
                self.assertEqual(handler.call(b"leave")[0], False)
            end = time.monotonic() + 30
            while handler.call(b"count")[3] != b"0\n":
                self.assertLess(time.monotonic(), end, "ended processes were not reaped")

    def test_request_is_in_the_environment(self):
        script = 'echo "$REQUEST_METHOD $PATH_INFO $QUERY_STRING $CONTENT_TYPE $HTTP_PROXY"'
        headers = [("content-type", "a/b"), ("proxy", "evil")]
        self.check(script, (False, b"PUT /p a=1 a/b \n"), method="PUT", path="/p", query="a=1", headers=headers)


if __name__ == "__main__":
    unittest.main()
