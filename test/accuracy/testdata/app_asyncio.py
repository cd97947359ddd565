# SPDX-License-Identifier: Apache-2.0
"""An asyncio server, on the standard library's streams, that makes calls for each request. It knows nothing of tracing."""

import asyncio
import http.client
import os
import random
import threading

HOST, PORT = os.environ["BACKEND"].removeprefix("http://").split(":")
idle = []
running = set()
local = threading.local()


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    if length:
        await reader.readexactly(length)
    return head


async def call(request, n):
    reader, writer = idle.pop() if idle else await asyncio.open_connection(HOST, PORT)
    writer.write(f"GET /call/{request}/{n} HTTP/1.1\r\nHost: backend\r\n\r\n".encode())
    await read_head(reader)
    idle.append((reader, writer))


async def pause():
    await asyncio.sleep(random.random() * 0.003)


async def serve(shape, request):
    if shape == "await":
        await call(request, 0)
        await call(request, 1)
    elif shape == "sleep":
        await pause()
        await call(request, 0)
        await pause()
        await call(request, 1)
    elif shape == "gather":
        await asyncio.gather(call(request, 0), call(request, 1))
    elif shape == "task":
        task = asyncio.create_task(paused(request, 0))
        await pause()
        await call(request, 1)
        await task
    elif shape == "later":
        done = loop.create_future()
        loop.call_later(random.random() * 0.003, begin, request, done)
        await done
        await call(request, 1)
    elif shape == "thread":
        await asyncio.to_thread(blocking, request, 0)
        await asyncio.to_thread(blocking, request, 1)
    elif shape == "executor":
        await loop.run_in_executor(None, blocking, request, 0)
        await loop.run_in_executor(None, blocking, request, 1)
    elif shape == "queue":
        for n in range(2):
            done = loop.create_future()
            jobs.put_nowait((request, n, done))
            await done


async def paused(request, n):
    await pause()
    await call(request, n)


def begin(request, done):
    running.add(task := loop.create_task(call(request, 0)))
    task.add_done_callback(lambda _: (running.discard(task), done.set_result(None)))


def blocking(request, n):
    """A call of a thread, on a connection that the thread keeps."""
    if not hasattr(local, "connection"):
        local.connection = http.client.HTTPConnection(HOST, int(PORT))
    local.connection.request("GET", f"/call/{request}/{n}")
    local.connection.getresponse().read()


async def worker():
    while True:
        request, n, done = await jobs.get()
        await call(request, n)
        done.set_result(None)


async def connection(reader, writer):
    try:
        while True:
            head = await read_head(reader)
            _, shape, request = head.split(b" ", 2)[1].decode().split("/")
            await serve(shape, request)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    global loop, jobs
    loop = asyncio.get_running_loop()
    jobs = asyncio.Queue()
    for _ in range(8):
        running.add(loop.create_task(worker()))
    server = await asyncio.start_server(connection, "127.0.0.1", int(os.environ["PORT"]), backlog=128)
    await server.serve_forever()


asyncio.run(main())
