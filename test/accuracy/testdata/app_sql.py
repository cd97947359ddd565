# SPDX-License-Identifier: Apache-2.0
"""A threading server that asks a database through a pool for each request. It knows nothing of tracing.

GET /SHAPE/ID executes statements with columns that are called call_ID_N."""

import os
import queue
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DRIVER = os.environ["DRIVER"]
HOST, PORT = os.environ["DATABASE"].split(":")


class Psycopg:
    """psycopg 3 and its own pool."""

    sleep = "SELECT pg_sleep({}) AS call_{}_{}"

    def __init__(self, size):
        import psycopg_pool

        self.pool = psycopg_pool.ConnectionPool(
            f"host={HOST} port={PORT} user=postgres dbname=postgres", min_size=size, max_size=size, timeout=120
        )
        self.pool.wait()

    def execute(self, *arguments):
        with self.pool.connection() as conn:
            conn.execute(*arguments).fetchall()


class Plain:
    """Connections in a queue, as programs have them that use no pool of the driver's."""

    def __init__(self, size):
        self.idle = queue.LifoQueue()
        for _ in range(size):
            self.idle.put(self.connect())

    def execute(self, *arguments):
        conn = self.idle.get()
        try:
            with conn.cursor() as cursor:
                cursor.execute(*arguments)
                cursor.fetchall()
            conn.commit()
        finally:
            self.idle.put(conn)


class Psycopg2(Plain):
    sleep = Psycopg.sleep

    def connect(self):
        import psycopg2

        return psycopg2.connect(host=HOST, port=PORT, user="postgres", dbname="postgres")


class PyMySQL(Plain):
    sleep = "SELECT SLEEP({}) AS call_{}_{}"

    def connect(self):
        import pymysql

        return pymysql.connect(host=HOST, port=int(PORT), user="root")


Pool = {"psycopg": Psycopg, "psycopg2": Psycopg2, "pymysql": PyMySQL}[DRIVER]
many, few = Pool(64), Pool(8)
workers = ThreadPoolExecutor(16)


def seconds():
    return round(random.random() * 0.003, 4)


def call(pool, request, n):
    """The first has its argument apart from the text, if the driver knows how."""
    if n == 0:
        pool.execute(pool.sleep.format("%s", request, n), (seconds(),))
    else:
        pool.execute(pool.sleep.format(seconds(), request, n))


def serve(path):
    _, shape, request = path.split("/", 2)
    if shape in ("sequence", "few"):
        for n in range(2):
            call(few if shape == "few" else many, request, n)
    elif shape == "executor":
        for future in [workers.submit(call, many, request, n) for n in range(2)]:
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


threading.stack_size(256 << 10)
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
