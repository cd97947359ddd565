# SPDX-License-Identifier: Apache-2.0
"""Calls grpc.testing.TestService with grpcio and prints a line of JSON for each call: what it knows of it.

    grpc_client.py ADDR N KIND STREAMS [asyncio] [wait]

N calls, STREAMS at once on one connection, of a KIND as for the Go client, or of several in turn with commas between. "wait"
makes a call without a line, prints "ready" and waits for a line on stdin. It knows nothing of tracing.
"""

import asyncio
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

SIZE = 100  # bytes in each payload
LARGE = 10 << 20
MESSAGES = 3  # of each stream, in each direction that streams
DEADLINE = 0.2  # long enough for the request to be on its way
SLOW = 10  # seconds that the server waits when the caller will not
MIXED = "unary,empty,server-stream,client-stream,bidi,error,late-error,health"
CODES = [5, 13, 16, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 14, 15]  # of the kinds with an error, in turn
REASON = "as asked – 100%".encode()
OPTIONS = [("grpc.max_receive_message_length", -1)]


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def nested(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def payload(field, size=SIZE):
    return nested(field, nested(2, bytes(size)))


def status(code):
    return nested(7, number(1, code) + nested(2, REASON))


def wanted(size=SIZE, wait=0):
    return nested(2, number(1, size) + number(2, wait * 1_000_000))


class Call:
    """What one call is: a method, what it sends, and when it gives up."""

    def __init__(self, kind, n):
        code = CODES[n % len(CODES)]
        self.method, self.shape, self.requests = "/grpc.testing.TestService/UnaryCall", "unary_unary", []
        self.metadata, self.timeout, self.cancel, self.stay = (), None, False, False
        if kind == "unary":
            self.requests = [number(2, SIZE) + payload(3)]
        elif kind == "large":
            self.requests = [number(2, LARGE) + payload(3, LARGE)]
        elif kind == "error":
            self.requests = [payload(3) + status(code)]
            self.metadata = (("want-code", str(code)),)
        elif kind == "empty":
            self.method, self.requests = "/grpc.testing.TestService/EmptyCall", [b""]
        elif kind == "health":
            self.method, self.requests = "/grpc.health.v1.Health/Check", [b""]
        elif kind == "client-stream":
            self.method, self.shape = "/grpc.testing.TestService/StreamingInputCall", "stream_unary"
            self.requests = [payload(1)] * MESSAGES
        elif kind in ("server-stream", "deadline"):
            self.method, self.shape = "/grpc.testing.TestService/StreamingOutputCall", "unary_stream"
            if kind == "server-stream":
                self.requests = [wanted() * MESSAGES + payload(3)]
            else:
                self.requests = [wanted(wait=SLOW) + payload(3)]
                self.metadata, self.timeout = (("want-ms", str(SLOW * 1000)),), DEADLINE
        elif kind in ("bidi", "late-error", "cancel"):
            self.method, self.shape = "/grpc.testing.TestService/FullDuplexCall", "stream_stream"
            if kind == "bidi":
                self.requests = [wanted() + payload(3)] * MESSAGES
            elif kind == "late-error":
                self.requests, self.stay = [wanted() + payload(3) + status(code)], True
                self.metadata = (("want-code", str(code)),)
            else:
                self.requests, self.stay, self.cancel = [wanted() + payload(3)], True, True
        else:
            sys.exit(f"no kind of call is called {kind}")

    def start(self, channel, requests):
        """Starts the call: requests are what it sends if it may send several."""
        call = getattr(channel, self.shape)(self.method)
        one = requests if self.shape.startswith("stream") else self.requests[0]
        # A call of threads waits for its one answer, unless it is asked for a future.
        return getattr(call, "future", call)(one, timeout=self.timeout, metadata=self.metadata)

    def report(self, before, code, error):
        line = {"Method": self.method[1:], "Code": code.name, "Before": before, "After": time.time_ns()}
        if error:
            line["Error"] = error
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def make(channel, call, silent=False):
    answered, ended = threading.Semaphore(0), threading.Event()

    def requests():
        """Sends each message when the one before is answered, and stays open after the last where the call does."""
        for n, request in enumerate(call.requests):
            if n > 0 and call.shape == "stream_stream":
                answered.acquire()
            yield request
        if call.stay:
            ended.wait()
        elif call.shape == "stream_stream":
            answered.acquire()

    before, code, error = time.time_ns(), grpc.StatusCode.OK, ""
    try:
        rpc = call.start(channel, requests())
        if not call.shape.endswith("stream"):
            rpc.result()
        else:
            for _ in rpc:
                answered.release()
                if call.cancel:
                    rpc.cancel()
    except grpc.RpcError as e:
        code, error = e.code(), e.details()
    except grpc.FutureCancelledError:
        code = grpc.StatusCode.CANCELLED
    finally:
        ended.set()
        answered.release()
    if not silent:
        call.report(before, code, error)


def by_threads(addr, calls, streams, wait):
    with grpc.insecure_channel(addr, options=OPTIONS) as channel, ThreadPoolExecutor(streams) as pool:
        grpc.channel_ready_future(channel).result(timeout=60)
        if wait:
            make(channel, Call("unary", 0), silent=True)
            ready()
        for future in [pool.submit(make, channel, call) for call in calls]:
            future.result()


async def aio_make(channel, call, silent=False):
    answered, ended = asyncio.Semaphore(0), asyncio.Event()

    async def requests():
        for n, request in enumerate(call.requests):
            if n > 0 and call.shape == "stream_stream":
                await answered.acquire()
            yield request
        if call.stay:
            await ended.wait()
        elif call.shape == "stream_stream":
            await answered.acquire()

    before, code, error = time.time_ns(), grpc.StatusCode.OK, ""
    try:
        rpc = call.start(channel, requests())
        if not call.shape.endswith("stream"):
            await rpc
        else:
            async for _ in rpc:
                answered.release()
                if call.cancel:
                    rpc.cancel()
    except grpc.RpcError as e:
        code, error = e.code(), e.details()
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED
    finally:
        ended.set()
        answered.release()
    if not silent:
        call.report(before, code, error)


async def on_asyncio(addr, calls, streams, wait):
    async with grpc.aio.insecure_channel(addr, options=OPTIONS) as channel:
        await asyncio.wait_for(channel.channel_ready(), 60)
        if wait:
            await aio_make(channel, Call("unary", 0), silent=True)
            ready()
        calls = iter(calls)

        async def worker():
            for call in calls:
                await aio_make(channel, call)

        await asyncio.gather(*(worker() for _ in range(streams)))


def ready():
    print("ready", flush=True)
    sys.stdin.readline()


def main():
    addr, count, kinds, streams, *rest = sys.argv[1:]
    turns = kinds.replace("mixed", MIXED).split(",")
    calls = [Call(turns[i % len(turns)], i // len(turns)) for i in range(int(count))]
    if "asyncio" in rest:
        asyncio.run(on_asyncio(addr, calls, int(streams), "wait" in rest))
    else:
        by_threads(addr, calls, int(streams), "wait" in rest)


main()
