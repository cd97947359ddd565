# SPDX-License-Identifier: Apache-2.0
"""An ordinary threading server. It knows nothing of tracing, but counts what it has served."""

import itertools
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

served = itertools.count()  # next() is one step under the interpreter's lock
asked = itertools.count()  # how often next() told of served


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/served":
            body = b"%d\n" % (next(served) - next(asked))
        else:
            next(served)
            body = b"hello\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
