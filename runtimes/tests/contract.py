"""What every runtime that is a shim keeps, whatever its language.

A runtime's test names its functions: FUNCTION answers with its payload, and does something else
where the payload begins with one of the words that the tests here send.
"""

import threading

from harness import CANCEL, PING, PONG, REPLY, control, request


class Contract:
    def test_hello_names_the_calls_that_run_at_once(self):
        self.ready(self.FUNCTION)
        self.assertEqual(self.at_once, self.AT_ONCE)

    def test_text_comes_back(self):
        reply = self.ready(self.FUNCTION).call("hällo ☃".encode())
        self.assertFalse(reply.failed)
        self.assertEqual((reply.word, reply.payload.decode()), (200, "hällo ☃"))
        self.assertEqual(reply.header("content-type"), "text/plain; charset=utf-8")

    def test_every_byte_comes_back(self):
        every = bytes(range(256))
        self.assertEqual(self.ready(self.FUNCTION).call(every, headers=[("x-raw", "1")]).payload, every)

    def test_an_empty_payload_comes_back(self):
        reply = self.ready(self.FUNCTION).call(b"")
        self.assertEqual((reply.failed, reply.payload), (False, b""))

    def test_large_payloads_come_back(self):
        handler = self.ready(self.FUNCTION)
        for size in (65_519, 65_536, 100_000, 5_000_000):
            payload = b"0123456789" * (size // 10)
            # The function may answer before all of the request is written.
            writer = threading.Thread(target=handler.send, args=(request(7, payload),))
            writer.start()
            self.assertEqual(handler.frame().payload, payload)
            writer.join()

    def test_frames_in_pieces_are_put_together(self):
        handler = self.ready(self.FUNCTION)
        whole = request(1, b"first") + request(2, b"second")
        for cut in range(1, len(whole)):
            handler.send(whole[:cut])
            handler.send(whole[cut:])
            self.assertEqual({handler.frame().payload, handler.frame().payload}, {b"first", b"second"})

    def test_functions_see_headers_and_variables(self):
        handler = self.ready(self.FUNCTION, {"WANTED": "from the deployment"})
        self.assertEqual(handler.call(b"header", headers=[("x-wanted", "yes")]).payload, b"yes")
        self.assertEqual(handler.call(b"env").payload, b"from the deployment")

    def test_a_failing_function_answers_with_its_message_and_goes_on(self):
        handler = self.ready(self.FUNCTION)
        reply = handler.call(b"throw")
        self.assertTrue(reply.failed)
        self.assertEqual((reply.word, reply.payload.decode(), reply.headers), (500, self.THROWN, []))
        self.assertEqual(handler.call(b"again").payload, b"again")
        self.assertIn("not today", handler.log())

    def test_what_is_printed_is_log_and_not_protocol(self):
        handler = self.ready(self.FUNCTION)
        self.assertFalse(handler.call(b"print").failed)
        self.assertIn("to stdout\n", handler.log())
        self.assertIn("to stderr\n", handler.log())

    def test_standard_input_is_empty(self):
        self.assertEqual(self.ready(self.FUNCTION).call(b"stdin").payload, b"<>")

    def test_a_quick_call_is_answered_while_slow_ones_run(self):
        handler = self.ready(self.FUNCTION)
        slow = 15
        handler.send(*[request(id, b"wait") for id in range(1, slow + 1)])
        handler.send(request(99, b"quick"))
        self.assertEqual(handler.frame().id, 99)
        handler.send(request(100, b"release"))
        self.assertEqual({handler.frame().id for _ in range(slow + 1)}, {*range(1, slow + 1), 100})

    def test_pings_are_answered_while_all_places_are_taken(self):
        handler = self.ready(self.FUNCTION)
        handler.send(*[request(id, b"wait") for id in range(1, self.AT_ONCE + 1)])
        handler.send(control(PING, b"12345678"))
        pong = handler.frame()
        self.assertEqual((pong.kind, pong.id, pong.payload), (PONG, 0, b"12345678"))

    def test_calls_that_wait_can_be_cancelled(self):
        handler = self.ready(self.FUNCTION)
        handler.send(request(1, b"wait"), control(CANCEL, id=1), control(CANCEL, id=77))
        if self.CANCELS_RUNNING:
            reply = handler.frame()
            self.assertEqual((reply.kind, reply.id, reply.failed), (REPLY, 1, True))
        else:
            handler.send(request(2, b"release"))
            self.assertEqual({handler.frame().id, handler.frame().id}, {1, 2})
        self.assertEqual(handler.call(b"after").payload, b"after")

    CANCELS_RUNNING = True

    def test_ten_thousand_calls_at_once_are_all_answered(self):
        handler = self.ready(self.FUNCTION)
        count = 10_000
        frames = b"".join(request(id, b"%d" % id) for id in range(1, count + 1))
        writer = threading.Thread(target=handler.send, args=(frames,))
        writer.start()
        answered = {}
        for _ in range(count):
            reply = handler.frame()
            answered[reply.id] = reply.payload
        writer.join()
        self.assertEqual(answered, {id: b"%d" % id for id in range(1, count + 1)})

    def test_a_shim_ends_with_its_stream(self):
        handler = self.ready(self.FUNCTION)
        handler.ours.shutdown(1)
        self.assertIsNone(handler.frame())
        self.assertEqual(handler.ended(), 0)

    def test_a_shim_ends_with_its_stream_while_calls_run(self):
        handler = self.ready(self.FUNCTION)
        handler.send(*[request(id, b"wait") for id in range(1, 17)])
        handler.ours.close()
        handler.ended()

    def test_garbage_ends_the_shim(self):
        for garbage in (b"\xff" * 64, b"\0" * 64, control(42), control(REPLY)):
            with self.subTest(garbage):
                handler = self.ready(self.FUNCTION)
                handler.send(garbage)
                self.assertIsNone(handler.frame())
                handler.ended()

    def test_a_function_that_does_not_load_says_why(self):
        for files in (self.BROKEN, self.MISSING, self.WITHOUT_FUNCTION):
            with self.subTest(str(files)):
                reason = self.fails_to_load(files)
                self.assertGreater(len(reason), 10)
                self.assertLessEqual(len(reason.encode()), 64 << 10)

    def test_the_stream_can_be_tcp(self):
        handler = self.ready(self.FUNCTION, over_tcp=True)
        self.assertEqual(handler.call(b"over TCP").payload, b"over TCP")
