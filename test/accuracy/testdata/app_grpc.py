# SPDX-License-Identifier: Apache-2.0
"""A grpcio server that makes calls for each request: app_grpc.py sync|asyncio. It knows nothing of tracing.

It answers any method. /SHAPE/ID makes the gRPC calls /call/ID/0 and /call/ID/1 to GRPC_BACKEND on a connection that all share, and
GET BACKEND/call/ID/2.
"""

import asyncio
import http.client
import os
import queue
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

ADDRESS = "127.0.0.1:" + os.environ["PORT"]
BACKEND = os.environ["BACKEND"]
GRPC_BACKEND = os.environ["GRPC_BACKEND"]


def pause():
    return random.random() * 0.003


class Sync:
    """Threads, stubs that block, and connections that are kept."""

    def __init__(self):
        self.channel = grpc.insecure_channel(GRPC_BACKEND)
        self.idle = queue.LifoQueue()

    def call(self, id, n):
        time.sleep(pause())
        if n < 2:
            self.channel.unary_unary(f"/call/{id}/{n}")(b"")
            return
        try:
            conn = self.idle.get_nowait()
        except queue.Empty:
            conn = http.client.HTTPConnection(BACKEND.removeprefix("http://"))
        conn.request("GET", f"/call/{id}/{n}")
        conn.getresponse().read()
        self.idle.put(conn)

    def serve(self, shape, id):
        assert shape == "sequence"
        for n in range(3):
            self.call(id, n)

    def handler(self, shape, id):
        def handle(request, context):
            self.serve(shape, id)
            return b""

        return handle


class Asyncio:
    """The same on asyncio, with aiohttp's client."""

    def __init__(self, session):
        self.channel = grpc.aio.insecure_channel(GRPC_BACKEND)
        self.session = session

    async def call(self, id, n):
        await asyncio.sleep(pause())
        if n < 2:
            await self.channel.unary_unary(f"/call/{id}/{n}")(b"")
            return
        async with self.session.get(f"{BACKEND}/call/{id}/{n}") as answer:
            await answer.read()

    async def serve(self, shape, id):
        if shape == "gather":
            await asyncio.gather(*(self.call(id, n) for n in range(3)))
            return
        assert shape == "sequence"
        for n in range(3):
            await self.call(id, n)

    def handler(self, shape, id):
        async def handle(request, context):
            await self.serve(shape, id)
            return b""

        return handle


class AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, app):
        self.app = app

    def service(self, details):
        _, shape, id = details.method.split("/", 2)
        return grpc.unary_unary_rpc_method_handler(self.app.handler(shape, id))


def serve_sync():
    server = grpc.server(ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers([AnyMethod(Sync())])
    server.add_insecure_port(ADDRESS)
    server.start()
    server.wait_for_termination()


async def serve_asyncio():
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([AnyMethod(Asyncio(session))])
        server.add_insecure_port(ADDRESS)
        await server.start()
        await server.wait_for_termination()


if sys.argv[1] == "asyncio":
    asyncio.run(serve_asyncio())
else:
    serve_sync()
