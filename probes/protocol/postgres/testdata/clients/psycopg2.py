# SPDX-License-Identifier: Apache-2.0
# psycopg2 2.9.13
import psycopg2

c = psycopg2.connect("")
k = c.cursor()
k.execute("SELECT %s", ("planted-1",))
k.fetchall()
c.commit()
k.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
k.execute("SELECT * FROM t")
k.fetchall()
c.rollback()
try:
    k.execute("SELECT planted FROM nowhere")
except psycopg2.Error as e:
    print(e)
c.rollback()
n = c.cursor("named")
n.execute("SELECT generate_series(1, 900)")
n.fetchmany(300)
n.fetchmany(300)
n.close()
c.lobject(0, "w").close()
c.commit()
c.close()
