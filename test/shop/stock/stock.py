# SPDX-License-Identifier: Apache-2.0
"""Stock knows prices and how many pieces are left. It knows nothing of tracing."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Articles that are not in the catalogue, and those whose shelf is broken: by number, so that every run
# is the same.
UNKNOWN = 3, 17
BROKEN = 5, 29


def number(article):
    return int("".join(c for c in article if c.isdigit()) or 0)


def matches(article, rule):
    rest, modulus = rule
    return number(article) % modulus == rest


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        _, kind, article = self.path.split("/")
        if kind == "price":
            self.reply(200, {"price": 100 + number(article) % 900})
        elif kind == "stock" and not matches(article, UNKNOWN):
            self.reply(200, {"pieces": number(article) % 12})
        else:
            self.reply(404, {"error": "not found"})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, kind, article = self.path.split("/")
        if kind != "reserve":
            self.reply(404, {"error": "not found"})
        elif matches(article, BROKEN):
            self.reply(500, {"error": "the shelf is broken"})
        else:
            self.reply(200, {"pieces": 1})

    def reply(self, code, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


Server(("127.0.0.1", int(os.environ.get("STOCK_PORT", 8082))), Handler).serve_forever()
