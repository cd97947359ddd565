# SPDX-License-Identifier: Apache-2.0
"""An aiohttp server that asks PostgreSQL through the pool of asyncpg for each request. It knows nothing of tracing.

GET /SHAPE/ID executes statements with columns that are called call_ID_N."""

import asyncio
import os
import random

import asyncpg
from aiohttp import web

many, few = web.AppKey("many"), web.AppKey("few")


async def call(pool, request, n):
    """The first has its argument apart from the text."""
    seconds = random.random() * 0.003
    name = f"call_{request.match_info['id']}_{n}"
    if n == 0:
        await pool.fetch(f"SELECT pg_sleep($1::float8) AS {name}", seconds)
    else:
        await pool.fetch(f"SELECT pg_sleep({seconds:.4f}) AS {name}")


async def serve(request):
    shape = request.match_info["shape"]
    pool = request.app[few if shape == "few" else many]
    if shape in ("await", "few"):
        await call(pool, request, 0)
        await call(pool, request, 1)
    elif shape == "gather":
        await asyncio.gather(call(pool, request, 0), call(pool, request, 1))
    elif shape == "transaction":
        async with pool.acquire() as conn, conn.transaction():
            statement = await conn.prepare(f"SELECT pg_sleep($1::float8) AS call_{request.match_info['id']}_0")
            await statement.fetch(0.001)
            await call(conn, request, 1)
    return web.Response(text="done\n")


async def pools(app):
    host, port = os.environ["DATABASE"].split(":")
    source = {"host": host, "port": port, "user": "postgres", "database": "postgres"}
    async with (
        asyncpg.create_pool(**source, min_size=64, max_size=64) as app[many],
        asyncpg.create_pool(**source, min_size=8, max_size=8) as app[few],
    ):
        yield


app = web.Application()
app.cleanup_ctx.append(pools)
app.router.add_get("/{shape}/{id}", serve)
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None)
