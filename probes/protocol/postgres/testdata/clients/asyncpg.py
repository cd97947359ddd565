# SPDX-License-Identifier: Apache-2.0
# asyncpg 0.32.0
import asyncio

import asyncpg


async def fails(task):
    try:
        await task
    except (asyncpg.PostgresError, asyncio.TimeoutError) as e:
        print(repr(e))


async def main():
    c = await asyncpg.connect()
    await c.execute("CREATE TABLE a (id int PRIMARY KEY, b text)")
    for i in range(3):
        await c.fetch("SELECT $1::int + 1", i)
        await c.execute("INSERT INTO a VALUES ($1, $2)", i, "planted-%d" % i)
    await c.executemany("INSERT INTO a VALUES ($1, $2)", [(i, "planted-m%d" % i) for i in range(100, 250)])
    await fails(c.fetch("SELECT * FROM nowhere"))
    await fails(c.execute("INSERT INTO a VALUES ($1, $2)", 1, "planted-dup"))
    async with c.transaction():
        async for _ in c.cursor("SELECT generate_series(1, $1)", 120):
            pass
    async with c.transaction():
        k = await c.cursor("SELECT * FROM a")
        await k.fetch(3)
        await k.fetch(4)
    await c.copy_records_to_table("a", records=[(i, "planted-c") for i in range(1000, 1050)])
    await c.execute("SELECT 1; SELECT 2")
    p = await c.prepare("SELECT b FROM a WHERE id = $1")
    await p.fetch(1)
    await p.fetchval(2)
    await fails(c.fetch("SELECT pg_sleep(5)", timeout=0.2))
    await c.fetch("SELECT 4")
    await c.reset()
    await c.fetch("SELECT 5")
    await c.close()


asyncio.run(main())
