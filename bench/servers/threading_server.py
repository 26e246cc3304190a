"""The function behind Python's own HTTP server: what one would write without a platform."""

import http.server
import importlib.util
import sys

spec = importlib.util.spec_from_file_location("fn", "examples/echo-python3/fn.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = sys.argv[1]
    if protocol_version == "HTTP/1.1":
        # Else the answer's body waits 40 ms for the acknowledgement of its head.
        disable_nagle_algorithm = True
        wbufsize = -1

    def do_POST(self):
        payload = self.rfile.read(int(self.headers["content-length"]))
        reply = module.fn(payload.decode(), dict(self.headers)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args):
        pass


    def handle(self):
        # Whoever closes a connection early is no reason to print.
        try:
            super().handle()
        except ConnectionError:
            pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
