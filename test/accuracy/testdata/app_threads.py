# SPDX-License-Identifier: Apache-2.0
"""Threading server and WSGI application that make calls for each request. They know nothing of tracing."""

import http.client
import os
import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = os.environ["BACKEND"].removeprefix("http://")
idle = queue.LifoQueue()
pool = ThreadPoolExecutor(16)


def call(request, n):
    time.sleep(random.random() * 0.003)
    try:
        conn = idle.get_nowait()
    except queue.Empty:
        conn = http.client.HTTPConnection(HOST)
    conn.request("GET", f"/call/{request}/{n}")
    conn.getresponse().read()
    idle.put(conn)


def serve(path):
    _, shape, request = path.split("/", 2)
    if shape in ("sequence", "chain"):
        call(request, 0)
        call(request, 1)
    elif shape == "executor":
        for future in [pool.submit(call, request, n) for n in range(2)]:
            future.result()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        serve(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"done\n")

    def log_message(self, *args):
        pass


def app(environ, start_response):
    serve(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "5")])
    return [b"done\n"]


if __name__ == "__main__":
    threading.stack_size(256 << 10)
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
