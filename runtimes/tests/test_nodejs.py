"""The nodejs shim gives functions the shape of Express, and finds modules as npm does."""

import json
import time
import unittest

from handler import FAILED, LEAVING, REPLY, Handler, node


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
            "headers": {"x-a": "1, 2", "content-type": "application/json", "content-length": "7"},
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

    def test_output_before_an_exit_is_not_lost(self):
        handler = self.ready({"index.js": "module.exports = () => { for (let i = 0; i < 20000; i++)"
                                          " console.log('line ' + i); setTimeout(() => process.exit(3)) }"})
        handler.begin()
        self.assertEqual(handler.process.wait(30), 3)
        self.assertIn("line 19999\n", handler.printed())

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


    def test_what_is_thrown_outside_of_a_call_fails_that_call_and_no_other(self):
        for fault in [
            "setTimeout(() => { throw new Error('stray') }, 1)",
            "setImmediate(() => { throw new Error('stray') })",
            "process.nextTick(() => { throw new Error('stray') })",
            "queueMicrotask(() => { throw new Error('stray') })",
            "void Promise.reject(new Error('stray'))",
            "(async () => { await new Promise(setImmediate); throw new Error('stray') })()",
            "const e = new (require('events'))(); setTimeout(() => e.emit('error', new Error('stray')), 1)",
            "require('fs').readFile(__filename, () => { throw new Error('stray') })",
            "new (require('stream').Readable)({ read() { this.destroy(new Error('stray')) } }).resume()",
            "req.on('end', () => { throw new Error('stray') }).resume()",
        ]:
            with self.subTest(fault):
                source = ("const waiting = []; module.exports = (req, res) => {"
                          " if (req.body === 'go') { for (const one of waiting.splice(0)) one.send('mine'); return res.send('gone') }"
                          " if (req.body === 'wait') return waiting.push(res); %s }" % fault)
                handler = self.ready({"index.js": source})
                bystanders = [handler.begin(b"wait") for _ in range(10)]
                self.assertEqual(handler.call(b"fault"), [True, 500, {}, b"Error: stray"])
                last = handler.begin(b"go")
                replies = [handler.reply() for _ in range(11)]
                self.assertEqual(sorted(reply[0] for reply in replies), [*bystanders, last])
                self.assertEqual({reply[4] for reply in replies}, {b"mine", b"gone"})
                self.assertIsNone(handler.process.poll())
                self.assertIn("Error: stray", handler.printed())

    def test_what_is_thrown_by_no_call_lets_the_handler_finish_its_calls_and_leave(self):
        for fault in [
            "setTimeout(() => { throw new Error('stray') }, 1)",
            "void Promise.reject(new Error('stray'))",
            "queueMicrotask(() => { throw new Error('stray') })",
            "require('net').connect('/nowhere')",
        ]:
            with self.subTest(fault):
                # Begun while the module was loaded, so that it is no call's.
                source = ("const waiting = []; const bus = new (require('events'))();"
                          " setInterval(() => { if (waiting.length === 3) bus.emit('go') }, 1);"
                          " bus.once('go', () => { %s });"
                          " module.exports = (req, res) => { waiting.push(res);"
                          " setTimeout(() => res.send('mine'), 300) }" % fault)
                handler = self.ready({"index.js": source})
                bystanders = [handler.begin(b"wait") for _ in range(3)]
                self.assertEqual(handler.frame(), (0, LEAVING, 0, 0, 0, b""))
                late = handler.begin(b"late")
                self.assertEqual(handler.frame(), (late, REPLY, 2, 503, 0, b""))
                replies = [handler.reply() for _ in bystanders]
                self.assertEqual(sorted(reply[0] for reply in replies), bystanders)
                self.assertEqual({reply[1:3] + reply[4:] for reply in replies}, {(False, 200, b"mine")})
                handler.ping()
                handler.sock.shutdown(1)
                self.assertEqual(handler.process.wait(30), 0)

    def test_what_a_call_throws_after_its_reply_is_told_and_no_more(self):
        handler = self.ready({"index.js": "module.exports = (req, res) => { res.send(req.body);"
                                          " setTimeout(() => { throw new Error('stray') }, 1) }"})
        handler.call(b"1")
        for _ in range(1000):
            if "stray" in handler.printed():
                break
            time.sleep(0.01)
        self.assertEqual(handler.call(b"2")[3], b"2")

    def test_a_request_is_a_stream(self):
        for read in [
            "let n = 0; for await (const c of req) n += c.length; res.send(String(n))",
            "let n = 0; req.pipe(new Writable({ write(c, e, done) { n += c.length; done() } }))"
            ".on('finish', () => res.send(String(n)))",
            "await new Promise(setImmediate); let n = 0; req.on('data', (c) => { n += c.length })"
            ".on('end', () => res.send(String(n)))",
            "let n = 0; req.on('readable', () => { for (let c; (c = req.read()) !== null;) n += c.length })"
            ".on('end', () => res.send(String(n)))",
            "res.send(String((await require('stream/consumers').text(req)).length))",
            "let text = ''; req.setEncoding('utf8').on('data', (c) => { text += c })"
            ".on('end', () => res.send(String(text.length)))",
            "for await (const c of req) break; res.send(String(req.body.length))",
        ]:
            with self.subTest(read):
                source = ("const { Writable } = require('stream');"
                          "module.exports = async (req, res) => { %s };" % read)
                self.assertEqual(self.ready({"index.js": source}).call(b"x" * 200000)[3], b"200000")

    def test_requests_and_responses_are_what_node_calls_them(self):
        reply = self.one(
            "const { IncomingMessage, ServerResponse } = require('http'); const { Readable } = require('stream');"
            "res.json([req instanceof IncomingMessage, req instanceof Readable, res instanceof ServerResponse,"
            " req.complete, req.httpVersion, req.readable, res.writable, req.rawHeaders, req.socket.writable])",
            b"x", headers=[("x-a", "1"), ("x-a", "2")],
        )
        self.assertEqual(json.loads(reply[3]), [
            True, True, True, True, "1.1", True, True, ["x-a", "1", "x-a", "2", "content-length", "1"], True,
        ])

    def test_a_response_is_written_to_as_a_stream(self):
        for write, expected in [
            ("pipeline(req, createGzip(), createGunzip(), res, () => {})", b"hello"),
            ("req.pipe(res)", b"hello"),
            ("res.on('finish', () => console.log('finished')).write('a', () => res.end('b'))", b"ab"),
            ("const bytes = Buffer.from('ab'); res.write(bytes, () => { bytes.fill('x'); res.end() })", b"ab"),
            ("res.set('transfer-encoding', 'chunked'); res.write('a'); res.end('b')", b"ab"),
            ("res.writeHead(200, ['x-a', '1', 'connection', 'close']); res.end('c')", b"c"),
            ("const end = res.end; res.end = function (...args) { res.setHeader('x-b', '1'); return end.apply(this, args) };"
             " res.send('wrapped')", b"wrapped"),
            ("const send = res.send; res.send = (text) => send.call(res, text + '!'); res.json(1)", b"1!"),
        ]:
            with self.subTest(write):
                source = ("const { pipeline } = require('stream'); const { createGzip, createGunzip } = require('zlib');"
                          "module.exports = (req, res) => { %s };" % write)
                failed, status, headers, payload = self.ready({"index.js": source}).call(b"hello")
                self.assertEqual((failed, status, payload), (False, 200, expected))
                self.assertFalse({"connection", "transfer-encoding", "content-length"} & set(headers), headers)

    def test_cookies_files_and_links(self):
        for body, name, value in [
            ("res.cookie('a', 'b c', { httpOnly: true }).end()", "set-cookie", "a=b%20c; Path=/; HttpOnly"),
            ("res.cookie('a', { b: 1 }, { path: '/x', sameSite: 'lax', secure: true }).end()", "set-cookie",
             "a=j%3A%7B%22b%22%3A1%7D; Path=/x; Secure; SameSite=Lax"),
            ("res.cookie('a', 1).cookie('b', 2).end()", "set-cookie", "a=1; Path=/, b=2; Path=/"),
            ("res.clearCookie('a').end()", "set-cookie", "a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
            ("res.attachment('a\"ä.png').end()", "content-disposition",
             "attachment; filename=\"a\\\"?.png\"; filename*=UTF-8''a%22%C3%A4.png"),
            ("res.links({ next: '/2' }).end()", "link", '</2>; rel="next"'),
            ("res.vary('A').vary(['a', 'B']).end()", "vary", "A, B"),
        ]:
            with self.subTest(body):
                self.assertEqual(self.one(body)[2].get(name), value)

    def test_a_file_is_sent_with_its_type_and_only_from_below_its_root(self):
        source = "module.exports = (req, res) => { res.sendFile(req.query.p, { root: __dirname + '/public' }) }"
        handler = self.ready({"index.js": source, "public/a.css": "a {}", "secret.txt": "s"})
        self.assertEqual(handler.call(query="p=a.css")[1:], [200, {"content-type": "text/css; charset=utf-8"}, b"a {}"])
        self.assertEqual(handler.call(query="p=none")[1], 404)
        for path in ("../secret.txt", "a/../../secret.txt"):
            failed, _, _, message = handler.call(query="p=" + path)
            self.assertTrue(failed)
            self.assertIn(b"leaves its root", message)

    def test_a_value_that_is_returned_is_the_reply(self):
        for function, expected in [
            ("async () => 'text'", (200, "text/html; charset=utf-8", b"text")),
            ("async (req, res) => { res.status(201); return { a: 1 } }", (201, "application/json; charset=utf-8", b'{"a":1}')),
            ("async () => Buffer.from([255])", (200, "application/octet-stream", b"\xff")),
            ("(req) => req.body + '!'", (200, "text/html; charset=utf-8", b"in!")),
            ("async (req, res) => setTimeout(() => res.send('later'), 1)", (200, "text/html; charset=utf-8", b"later")),
            ("async (req, res) => { res.send('sent'); return 'returned' }", (200, "text/html; charset=utf-8", b"sent")),
            ("async (req, res) => { res.write('written'); setImmediate(() => res.end()); return 1 }", (200, None, b"written")),
        ]:
            with self.subTest(function):
                _, status, headers, payload = self.ready({"index.js": "module.exports = " + function}).call(b"in")
                self.assertEqual((status, headers.get("content-type"), payload), expected)
        failed, *_, message = self.ready({"index.js": "module.exports = async () => ({ a: 1n })"}).call()
        self.assertTrue(failed)
        self.assertIn(b"BigInt", message)

    def test_a_call_whose_connection_the_function_closes_fails_at_once(self):
        for body, message in [
            ("res.destroy()", b"the function closed the connection without a reply"),
            ("res.destroy(new Error('why'))", b"Error: why"),
            ("req.socket.destroy()", b"the function closed the connection without a reply"),
        ]:
            with self.subTest(body):
                self.assertEqual(self.one(body), [True, 500, {}, message])

    def test_a_written_reply_over_the_bound_fails_at_once(self):
        failed, _, _, message = self.one("for (let i = 0; i < 20; i++) res.write(Buffer.alloc(1 << 20))")
        self.assertEqual((failed, message), (True, b"a reply may have 8388608 bytes, got more"))

    def test_a_native_response_with_a_bad_status_fails(self):
        failed, _, _, message = self.one("res.statusCode = 700; res.write('a'); res.end()")
        self.assertEqual((failed, message), (True, b"status 700: use a number from 200 to 599"))

    def test_a_response_to_head_has_its_body_until_the_endpoint_sends_it(self):
        self.assertEqual(self.one("res.write('a'); res.end()", method="HEAD")[3], b"a")

    def test_an_application_that_a_function_calls_keeps_the_query_and_the_body(self):
        # What Express 4 does when it takes a request over.
        reply = self.one(
            "const { IncomingMessage, ServerResponse } = require('http'); res.setHeader('x-powered-by', 'it');"
            "req.next = () => {}; const { url, method } = req; req.res = res; res.req = req;"
            "Object.setPrototypeOf(req, Object.create(IncomingMessage.prototype));"
            "Object.setPrototypeOf(res, Object.create(ServerResponse.prototype)); let body = '';"
            "req.on('data', (chunk) => { body += chunk }).on('end', () =>"
            " res.end(JSON.stringify([url, method, req.url, req.query, req.headers, body])))",
            b"hi", query="a=1",
        )
        self.assertEqual(reply[2], {"x-powered-by": "it"})
        self.assertEqual(json.loads(reply[3]), [
            "/test?a=1", "POST", "/test?a=1", {"a": "1"}, {"content-length": "2"}, "hi",
        ])

    def test_cancel_closes_the_streams(self):
        source = ("module.exports = (req, res) => { res.on('close', () => console.log('closed', res.writableEnded));"
                  " req.on('aborted', () => console.log('aborted')) }")
        handler = self.ready({"index.js": source})
        id = handler.begin(b"x")
        handler.ping()
        handler.cancel(id)
        self.assertEqual(handler.reply()[:2], (id, True))
        handler.ping()
        self.assertEqual(sorted(handler.printed().split("\n")), ["", "aborted", "closed false"])

    def test_stacks_in_the_log_have_no_frames_of_the_shim(self):
        for fault in ["throw new Error('why')", "setTimeout(() => { throw new Error('why') })",
                      "throw new Error('outer', { cause: new Error('why') })"]:
            with self.subTest(fault):
                handler = self.ready({"index.js": "module.exports = (req, res) => { %s }" % fault})
                handler.call()
                self.assertIn("index.js:1:", handler.printed())
                for ours in ("shim.js", "native.js", "async_hooks", "node:internal"):
                    self.assertNotIn(ours, handler.printed())

    def test_middleware_is_given_a_next(self):
        handler = self.ready({"index.js": "module.exports = (req, res, next) => next(req.body && new Error(req.body))"})
        self.assertEqual(handler.call(b"why"), [True, 500, {}, b"Error: why"])
        self.assertEqual(handler.call(method="GET")[1::2], [404, b"Cannot GET /test"])


if __name__ == "__main__":
    unittest.main()
