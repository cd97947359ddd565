# SPDX-License-Identifier: Apache-2.0
"""An ordinary threading http.server. It knows nothing of tracing."""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from socketserver import ForkingMixIn


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        kind, *rest = self.path.partition("?")[0].strip("/").split("/")
        if kind == "item":
            self.answer(200, f"item {rest[0]}\n".encode())
        elif kind == "status":
            self.answer(int(rest[0]))
        elif kind == "sleep":
            time.sleep(int(rest[0]) / 1000)
            self.answer(200, b"slept\n")
        elif kind == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(int(rest[0])):
                chunk = b"chunk %d\n" % i
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(404, b"not found\n")

    do_HEAD = do_GET

    def do_POST(self):
        n = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(n)
        self.answer(200, b"%d\n" % len(body))

    def answer(self, code, body=b""):
        self.send_response(code)
        if code >= 200 and code not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


class ForkingHTTPServer(ForkingMixIn, HTTPServer):
    """A process for each connection."""


if __name__ == "__main__":
    server = ForkingHTTPServer if "--fork" in sys.argv else ThreadingHTTPServer
    server.request_queue_size = 128
    server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
