# SPDX-License-Identifier: Apache-2.0
"""A FastAPI application on uvicorn that makes calls with httpx for each request. It knows nothing of tracing."""

import asyncio
import contextlib
import os
import random
import sys

import fastapi
import httpx
import uvicorn

BACKEND = os.environ["BACKEND"]
loop, http = sys.argv[1], sys.argv[2]
limits = httpx.Limits(max_connections=None)


@contextlib.asynccontextmanager
async def lifespan(app):
    with httpx.Client(limits=limits) as app.state.blocking:
        async with httpx.AsyncClient(limits=limits) as app.state.client:
            yield


app = fastapi.FastAPI(lifespan=lifespan)


async def call(id, n):
    await app.state.client.get(f"{BACKEND}/call/{id}/{n}")


async def pause():
    await asyncio.sleep(random.random() * 0.003)


@app.get("/await/{id}")
async def sequence(id: str):
    await call(id, 0)
    await call(id, 1)
    return "done"


@app.get("/sleep/{id}")
async def sleep(id: str):
    await pause()
    await call(id, 0)
    await pause()
    await call(id, 1)
    return "done"


@app.get("/gather/{id}")
async def gather(id: str):
    await asyncio.gather(call(id, 0), call(id, 1))
    return "done"


@app.get("/blocking/{id}")
def blocking(id: str):
    """Such a function runs in a pool of threads."""
    app.state.blocking.get(f"{BACKEND}/call/{id}/0")
    app.state.blocking.get(f"{BACKEND}/call/{id}/1")
    return "done"


@app.middleware("http")
async def middleware(request, call_next):
    """What is behind it runs in another task than that which answers."""
    response = await call_next(request)
    response.headers["x-seen"] = "yes"
    return response


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), loop=loop, http=http, log_level="warning")
