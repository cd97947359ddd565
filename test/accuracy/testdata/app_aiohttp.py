# SPDX-License-Identifier: Apache-2.0
"""An aiohttp server that makes calls with aiohttp's client for each request. It knows nothing of tracing."""

import asyncio
import os
import random
import sys

import aiohttp
from aiohttp import web

BACKEND = os.environ["BACKEND"]


async def call(request, n):
    async with request.app["session"].get(f"{BACKEND}/call/{request.match_info['id']}/{n}") as answer:
        await answer.read()


async def pause():
    await asyncio.sleep(random.random() * 0.003)


async def serve(request):
    shape = request.match_info["shape"]
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
    return web.Response(text="done\n")


async def session(app):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app["session"]:
        yield


def main():
    if sys.argv[1:] == ["uvloop"]:
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_get("/{shape}/{id}", serve)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None, loop=loop)


main()
