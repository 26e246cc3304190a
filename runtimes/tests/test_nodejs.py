"""The nodejs shim gives functions the shape of Express, and finds modules as npm does."""

import json
import unittest

from handler import FAILED, Handler, node


class NodejsTest(unittest.TestCase):
    def ready(self, files, env=()):
        """A shim that has loaded the function of these files."""
        handler = Handler(node, files, env=env)
        self.addCleanup(handler.__exit__)
        return handler.hello()

    def fails_to_load(self, files, env=()):
        """The reason that the shim gives."""
        handler = Handler(node, files, env=env)
        self.addCleanup(handler.__exit__)
        _, kind, _, _, _, reason = handler.frame()
        self.assertEqual(kind, FAILED)
        self.assertNotEqual(handler.process.wait(30), 0)
        return reason.decode()

    def one(self, body, payload=b"", **parts):
        """The reply of a function whose body is given: failed, status, headers, payload."""
        source = "module.exports = (req, res) => { %s };" % body
        return self.ready({"index.js": source}).call(payload, **parts)

    def test_a_request_has_the_shape_of_express(self):
        reply = self.one(
            "const { method, path, url, originalUrl, query, headers, body } = req;"
            "res.json({ method, path, url, originalUrl, query, headers, body, is: req.is('json') })",
            b'{"a":1}', method="PUT", path="/f/a%20b", query="x=1&x=2&y=%26",
            headers=[("x-a", "1"), ("x-a", "2"), ("content-type", "application/json")],
        )
        self.assertEqual(json.loads(reply[3]), {
            "method": "PUT", "path": "/f/a%20b", "url": "/f/a%20b?x=1&x=2&y=%26",
            "originalUrl": "/f/a%20b?x=1&x=2&y=%26", "query": {"x": ["1", "2"], "y": "&"},
            "headers": {"x-a": "1, 2", "content-type": "application/json"},
            "body": '{"a":1}', "is": "application/json",
        })

    def test_what_is_sent_sets_status_type_and_payload(self):
        json_type, html = "application/json; charset=utf-8", "text/html; charset=utf-8"
        text = "text/plain; charset=utf-8"
        for body, expected in [
            ("res.send('hä')", (200, html, "hä".encode())),
            ("res.send({ a: [1] })", (200, json_type, b'{"a":[1]}')),
            ("res.send(null)", (200, None, b"")),
            ("res.send(Buffer.from([0, 255]))", (200, "application/octet-stream", b"\0\xff")),
            ("res.json('x')", (200, json_type, b'"x"')),
            ("res.status(404).send('no')", (404, html, b"no")),
            ("res.sendStatus(418)", (418, text, b"I'm a Teapot")),
            ("res.status(204).send('x')", (204, None, b"")),
            ("res.set('Content-Type', 'text/x').send('x')", (200, "text/x; charset=utf-8", b"x")),
            ("res.type('json').end('{}')", (200, json_type, b"{}")),
            ("res.write('a'); res.write(Buffer.from('b')); res.end('c')", (200, None, b"abc")),
            ("res.writeHead(201, { 'content-type': 'a/b' }); res.end('6869', 'hex')", (201, "a/b", b"hi")),
            ("res.statusCode = 202; res.end()", (202, None, b"")),
            ("res.redirect('/x y')", (302, text, b"Redirecting to /x y")),
            ("require('stream').Readable.from(['a', 'b']).pipe(res)", (200, None, b"ab")),
            ("req.on('data', (d) => res.write(d)).on('end', () => res.end('!'))", (200, None, b"in!")),
        ]:
            with self.subTest(body):
                _, status, headers, payload = self.one(body, b"in")
                self.assertEqual((status, headers.get("content-type"), payload), expected)

    def test_headers_go_out_as_they_were_set(self):
        reply = self.one("res.set({ 'X-A': 1, b: 'x' }).append('Set-Cookie', 'a=1')"
                         ".append('Set-Cookie', 'b=2').removeHeader('B'); res.end()")
        self.assertEqual(reply[2], {"x-a": "1", "set-cookie": "a=1, b=2"})

    def test_a_bad_header_or_status_is_the_functions_error(self):
        for body in ("res.set('x y', '1')", "res.set('x', 'a\\nb')", "res.status(99)", "res.statusCode = 1000; res.end()"):
            with self.subTest(body):
                self.assertTrue(self.one(body)[0])

    def test_rejections_fail_the_call_with_their_message(self):
        for body, message in [
            ("return Promise.reject(new RangeError('late'))", b"RangeError: late"),
            ("throw 'a string'", b"a string"),
            ("throw { a: 1 }", b"{ a: 1 }"),
        ]:
            with self.subTest(body):
                self.assertEqual(self.one(body), [True, 500, {}, message])

    def test_modules_are_found_as_npm_finds_them(self):
        answer = "(req, res) => res.send('found')"
        for files in [
            {"package.json": '{"main": "lib/a.js"}', "lib/a.js": f"module.exports = {answer}"},
            {"package.json": '{"type": "module"}', "index.js": f"export default {answer}"},
            {"package.json": '{"main": "a.mjs"}', "a.mjs": f"await 0; export default {answer}"},
            {"index.mjs": f"export default {answer}"},
            {"fn.js": f"exports.default = {answer}"},
            {"index.js": "module.exports = require('dep')", "node_modules/dep/index.js": f"module.exports = {answer}"},
        ]:
            with self.subTest(str(files)):
                self.assertEqual(self.ready(files).call()[3], b"found")

    def test_dependencies_beside_the_code_are_found(self):
        deps = self.ready({"dep/index.js": "", "index.js": "module.exports = () => {}"})
        handler = self.ready({"index.js": "const d = require('dep'); module.exports = (q, s) => s.send(typeof d)"},
                             {"TINYFAAS_DEPS": deps.folder.name})
        self.assertEqual(handler.call()[3], b"object")

    def test_the_original_contract_replies_with_what_eventhandler_returns(self):
        for returned, expected in [
            ("'text'", ("text/plain; charset=utf-8", b"text")),
            ("7", ("text/plain; charset=utf-8", b"7")),
            ("Promise.resolve('later')", ("text/plain; charset=utf-8", b"later")),
            ("[1, 2]", ("application/json; charset=utf-8", b"[1,2]")),
            ("Buffer.from([255])", ("text/plain; charset=utf-8", b"\xff")),
            ("undefined", ("text/plain; charset=utf-8", b"")),
        ]:
            with self.subTest(returned):
                handler = self.ready({"old.js": f"exports.eventhandler = () => {returned}"}, {"TINYFAAS_ENTRY": "old.js"})
                _, _, headers, payload = handler.call()
                self.assertEqual((headers["content-type"], payload), expected)
        reason = self.fails_to_load({"old.js": "exports.other = 1"}, {"TINYFAAS_ENTRY": "old.js"})
        self.assertIn("old.js exports no function eventhandler()", reason)

    def test_what_cannot_be_loaded_says_why(self):
        for files, reason in [
            ({"index.js": "const x = ;"}, "index.js:1"),
            ({"index.js": "require('left-out')"}, "Cannot find module 'left-out'"),
            ({"index.js": "module.exports = { a: 1 }"}, "index.js exports object, not a function"),
            ({"index.mjs": "await Promise.reject(new Error('no'))"}, "Error: no"),
            ({"package.json": '{"main": "gone.js"}'}, "put an index.js into the folder"),
        ]:
            with self.subTest(reason):
                self.assertIn(reason, self.fails_to_load(files))

    def test_cancel_aborts_the_signal_and_is_confirmed_at_once(self):
        handler = self.ready({"index.js": "module.exports = (req, res) => { req.signal.addEventListener('abort',"
                                          " () => { console.log('aborted'); res.send('too late') }) }"})
        ids = [handler.begin(), handler.begin()]
        for id in ids:
            handler.cancel(id)
        self.assertEqual([handler.reply()[:2] for _ in ids], [(id, True) for id in ids])
        handler.ping()
        self.assertEqual(handler.printed().count("aborted"), 2)

    def test_output_before_a_crash_is_not_lost(self):
        handler = self.ready({"index.js": "module.exports = () => { for (let i = 0; i < 20000; i++)"
                                          " console.log('line ' + i); setTimeout(() => { throw new Error('crashed') }) }"})
        handler.begin()
        self.assertEqual(handler.process.wait(30), 1)
        self.assertIn("line 19999\n", handler.printed())
        self.assertIn("Error: crashed", handler.printed())

    def test_standard_input_is_empty(self):
        reply = self.one("let text = ''; process.stdin.on('data', (d) => { text += d })"
                         ".on('end', () => res.send(`<${text}>`))")
        self.assertEqual(reply[3], b"<>")

    def test_a_part_that_the_function_assigns_is_kept(self):
        reply = self.one("req.body = JSON.parse(req.body); req.query.a = 1; res.json([req.body.b, req.query])", b'{"b":2}')
        self.assertEqual(json.loads(reply[3]), [2, {"a": 1}])

    def test_what_is_read_after_the_reply_is_still_the_request(self):
        source = ("let last; module.exports = (req, res) => { res.send(last ? last.body + last.get('x-n') : '');"
                  " last = req }")
        handler = self.ready({"index.js": source})
        for n in range(50):
            before = b"%d%d" % (n - 1, n - 1) if n else b""
            self.assertEqual(handler.call(b"%d" % n, headers=[("x-n", str(n))])[3], before)


if __name__ == "__main__":
    unittest.main()
