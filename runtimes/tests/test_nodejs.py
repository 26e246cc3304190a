"""The nodejs shim keeps the protocol and gives functions the shape of Express."""

import json
import unittest

from harness import RUNTIMES, RuntimeTest, interpreter, request, control, CANCEL, REPLY
from contract import Contract


class NodejsTest(Contract, RuntimeTest):
    AT_ONCE = 256
    THROWN = "TypeError: not today"
    FUNCTION = {"index.js": """
        let waiting = [];
        module.exports = (req, res) => {
          const word = req.body.toString().split(' ')[0];
          if (word === 'header') return res.type('txt').send(req.get('X-Wanted'));
          if (word === 'env') return res.type('txt').send(process.env.WANTED);
          if (word === 'print') { console.log('to stdout'); console.error('to stderr'); return res.send('ok'); }
          if (word === 'throw') throw new TypeError('not today');
          if (word === 'stdin') {
            let text = '';
            process.stdin.on('data', (d) => { text += d; }).on('end', () => res.type('txt').send(`<${text}>`));
            return;
          }
          if (word === 'wait') { waiting.push(res); return; }
          if (word === 'release') { for (const one of waiting.splice(0)) one.type('txt').send('released'); }
          if (req.headers['x-raw']) return res.send(req.rawBody);
          res.type('txt').send(req.rawBody.length ? req.body : '');
        };
    """}
    BROKEN = {"index.js": "const x = ;"}
    MISSING = {"other.txt": "no code"}
    WITHOUT_FUNCTION = {"index.js": "module.exports = 42;"}

    def command(self, code):
        return [interpreter("node"), str(RUNTIMES / "nodejs" / "shim.js")]

    def one(self, body, payload=b"", **parts):
        """The reply of a function whose body is given."""
        return self.ready({"index.js": "module.exports = (req, res) => { %s };" % body}).call(payload, **parts)

    def test_a_request_has_the_shape_of_express(self):
        reply = self.one(
            "const { method, path, url, originalUrl, query, headers, body } = req;"
            "res.json({ method, path, url, originalUrl, query, headers, body, is: req.is('json') })",
            b'{"a":1}', method="PUT", path="/f/a%20b", query="x=1&x=2&y=%26",
            headers=[("x-a", "1"), ("x-a", "2"), ("content-type", "application/json")],
        )
        self.assertEqual(json.loads(reply.payload), {
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
                reply = self.one(body, b"in")
                self.assertEqual((reply.word, reply.header("content-type"), reply.payload), expected)

    def test_headers_go_out_as_they_were_set(self):
        reply = self.one("res.set({ 'X-A': 1, b: 'x' }).append('Set-Cookie', 'a=1')"
                         ".append('Set-Cookie', 'b=2').removeHeader('B'); res.end()")
        self.assertEqual(reply.headers, [("x-a", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")])

    def test_a_bad_header_or_status_is_the_functions_error(self):
        for body in ("res.set('x y', '1')", "res.set('x', 'a\\nb')", "res.status(99)", "res.statusCode = 1000; res.end()"):
            with self.subTest(body):
                self.assertTrue(self.one(body).failed)

    def test_rejections_fail_the_call_with_their_message(self):
        for body, message in [
            ("return Promise.reject(new RangeError('late'))", b"RangeError: late"),
            ("throw 'a string'", b"a string"),
            ("throw { a: 1 }", b"{ a: 1 }"),
        ]:
            with self.subTest(body):
                reply = self.one(body)
                self.assertTrue(reply.failed)
                self.assertEqual(reply.payload, message)

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
                self.assertEqual(self.ready(files).call().payload, b"found")

    def test_dependencies_beside_the_code_are_found(self):
        deps = self.ready({"dep/index.js": "", "index.js": "module.exports = () => {}"})
        handler = self.ready({"index.js": "const d = require('dep'); module.exports = (q, s) => s.send(typeof d)"},
                             {"TINYFAAS_DEPS": deps.folder})
        self.assertEqual(handler.call().payload, b"object")

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
                reply = handler.call()
                self.assertEqual((reply.header("content-type"), reply.payload), expected)
        reason = self.fails_to_load({"old.js": "exports.other = 1"}, {"TINYFAAS_ENTRY": "old.js"})
        self.assertIn("old.js exports no function eventhandler()", reason)

    def test_cancel_aborts_the_signal_and_is_confirmed_at_once(self):
        handler = self.ready({"index.js": "module.exports = (req, res) => { req.signal.addEventListener('abort',"
                                          " () => { console.log('aborted'); res.send('too late') }) }"})
        handler.send(request(3), control(CANCEL, id=3), request(4), control(CANCEL, id=4))
        self.assertEqual([(f.kind, f.id, f.failed) for f in (handler.frame(), handler.frame())],
                         [(REPLY, 3, True), (REPLY, 4, True)])
        handler.ours.shutdown(1)
        handler.ended()
        self.assertEqual(handler.log().count("aborted"), 2)

    def test_output_before_a_crash_is_not_lost(self):
        handler = self.ready({"index.js": "module.exports = () => { for (let i = 0; i < 20000; i++)"
                                          " console.log('line ' + i); setTimeout(() => { throw new Error('crashed') }) }"})
        handler.send(request(1))
        self.assertIsNone(handler.frame())
        self.assertNotEqual(handler.ended(), 0)
        self.assertIn("line 19999\n", handler.log())
        self.assertIn("Error: crashed", handler.log())


if __name__ == "__main__":
    unittest.main()
