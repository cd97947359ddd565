# SPDX-License-Identifier: Apache-2.0
"""A grpcio server of grpc.testing.TestService, with a pool of threads or on asyncio: grpc_server.py [asyncio].

It reads no protobuf: an answer is as large as its request, and metadata says which status to answer (want-code) and how
long to wait before (want-ms). It knows nothing of tracing.
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

ANSWERS = 3  # to a request for a stream of them
OPTIONS = [("grpc.max_receive_message_length", -1)]
STATUS = {code.value[0]: code for code in grpc.StatusCode}
REASON = "as asked – 100%"


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(data):
    """Field 1 of a message: the payload of an answer."""
    return b"\x0a" + varint(len(data)) + data


def answer(request):
    body = bytes(len(request))
    return field(b"\x12" + varint(len(body)) + body)


def want(context, key):
    return int(dict(context.invocation_metadata()).get(key, 0))


def empty(request, context):
    return b""


def check(request, context):
    return b"\x08\x01"  # SERVING


def unary(request, context):
    if code := want(context, "want-code"):
        context.abort(STATUS[code], REASON)
    return answer(request)


def server_stream(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    for _ in range(ANSWERS):
        if ended.wait(want(context, "want-ms") / 1000):
            return
        yield answer(request)


def client_stream(requests, context):
    for _ in requests:
        pass
    return b""


def bidi(requests, context):
    for request in requests:
        yield answer(request)
        if code := want(context, "want-code"):
            context.abort(STATUS[code], REASON)


async def aio_empty(request, context):
    return b""


async def aio_check(request, context):
    return b"\x08\x01"


async def aio_unary(request, context):
    if code := want(context, "want-code"):
        await context.abort(STATUS[code], REASON)
    return answer(request)


async def aio_server_stream(request, context):
    for _ in range(ANSWERS):
        await asyncio.sleep(want(context, "want-ms") / 1000)
        yield answer(request)


async def aio_client_stream(requests, context):
    async for _ in requests:
        pass
    return b""


async def aio_bidi(requests, context):
    async for request in requests:
        yield answer(request)
        if code := want(context, "want-code"):
            await context.abort(STATUS[code], REASON)


def handlers(unary, empty, server_stream, client_stream, bidi, check):
    return [
        grpc.method_handlers_generic_handler("grpc.testing.TestService", {
            "UnaryCall": grpc.unary_unary_rpc_method_handler(unary),
            "EmptyCall": grpc.unary_unary_rpc_method_handler(empty),
            "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(server_stream),
            "StreamingInputCall": grpc.stream_unary_rpc_method_handler(client_stream),
            "FullDuplexCall": grpc.stream_stream_rpc_method_handler(bidi),
        }),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.unary_unary_rpc_method_handler(check),
        }),
    ]


async def serve():
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(aio_unary, aio_empty, aio_server_stream, aio_client_stream, aio_bidi, aio_check))
    server.add_insecure_port(ADDRESS)
    await server.start()
    await server.wait_for_termination()


ADDRESS = "127.0.0.1:" + os.environ["PORT"]
if sys.argv[1:] == ["asyncio"]:
    asyncio.run(serve())
else:
    server = grpc.server(ThreadPoolExecutor(16), options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(unary, empty, server_stream, client_stream, bidi, check))
    server.add_insecure_port(ADDRESS)
    server.start()
    server.wait_for_termination()
