# SPDX-License-Identifier: Apache-2.0
# psycopg 3.3.9
import psycopg


def fails(f, *args):
    try:
        f(*args)
    except (psycopg.Error, ValueError) as e:
        print(e)


c = psycopg.connect("", autocommit=True)
c.execute("CREATE TABLE a (id int PRIMARY KEY, b text, CONSTRAINT later UNIQUE (b) DEFERRABLE INITIALLY DEFERRED)")
for i in range(7):
    c.execute("INSERT INTO a VALUES (%s, %s)", (i, "planted-%d" % i))
    c.execute("SELECT b FROM a WHERE id = %s", (i,)).fetchall()
fails(c.execute, "INSERT INTO a VALUES (%s, %s)", (100, "planted-1"))
fails(c.execute, "INSERT INTO a VALUES (%s, %s)", (1, "planted-x"))
fails(c.execute, "SELECT * FROM nowhere WHERE x = %s", (1,))
c.cursor().executemany("INSERT INTO a VALUES (%s, %s)", [(i, "planted-m%d" % i) for i in range(200, 230)])
with c.pipeline():
    for i in range(5):
        c.execute("SELECT %s::int", (i,))


def aborted():
    with c.pipeline() as p:
        c.execute("SELECT 1")
        c.execute("SELECT nothing")
        c.execute("SELECT 3")
        p.sync()
        c.execute("SELECT 4")


fails(aborted)
with c.transaction():
    with c.cursor(name="cur") as k:
        k.execute("SELECT generate_series(1, 30)")
        k.fetchmany(10)
        k.fetchmany(10)
with c.cursor().copy("COPY a (id, b) FROM STDIN") as copy:
    for i in range(300, 320):
        copy.write_row((i, "planted-c%d" % i))
with c.cursor().copy("COPY a TO STDOUT") as copy:
    for _ in copy:
        pass


def given_up():
    with c.cursor().copy("COPY a (id, b) FROM STDIN") as copy:
        copy.write_row((400, "planted-fail"))
        raise ValueError("stop")


fails(given_up)
c.execute("SELECT 'planted-lit', %b::int", (7,), prepare=True)
c.execute("SELECT repeat('planted-row', 100) FROM generate_series(1, %s)", (40,)).fetchall()
c.execute("DEALLOCATE ALL")
c.close()
