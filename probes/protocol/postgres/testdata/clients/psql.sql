-- SPDX-License-Identifier: Apache-2.0
-- psql 15
\set ON_ERROR_STOP off
SELECT 1;
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, price numeric DEFAULT 0, note text);
INSERT INTO items (name, price) VALUES ('planted-apple', 1.5), ('planted-pear', 2), ('planted-plum', 3) RETURNING id;
INSERT INTO items (name) VALUES ('planted-apple');
SELECT * FROM items WHERE name = 'planted-pear' /* a comment */;
UPDATE items SET price = price + 1 WHERE id < 3;
SELECT nothing FROM nowhere;
SELEC 1;
SELECT 'x'::int;
BEGIN;
DELETE FROM items WHERE id = 3;
SELECT 1/0;
SELECT 1;
ROLLBACK;
SET standard_conforming_strings = off;
SELECT 'it\'s planted-quote';
RESET standard_conforming_strings;
COPY items (name, price) FROM STDIN;
planted-copy1	1
planted-copy2	2
\.
COPY items TO STDOUT;
COPY (SELECT 1/0) TO STDOUT;
COPY items (id) FROM STDIN;
planted-bad
\.
\copy items to '/dev/null'
LISTEN ev;
NOTIFY ev, 'planted-payload';
SELECT pg_notify('ev', 'planted-payload2');
DO $$ BEGIN RAISE NOTICE 'planted-notice %', 1; END $$;
PREPARE p1 (int) AS SELECT $1 + 1;
EXECUTE p1 (41);
DEALLOCATE p1;
DECLARE c CURSOR FOR SELECT 1;
BEGIN;
DECLARE c CURSOR FOR SELECT generate_series(1, 100);
FETCH 10 FROM c;
MOVE 5 FROM c;
CLOSE c;
COMMIT;
WITH x AS (SELECT 1) SELECT * FROM x;
EXPLAIN SELECT * FROM items;
SELECT generate_series(1, 600), repeat('planted-row', 5);
SELECT 1 \; SELECT 2, generate_series(1, 3) \; SELECT 3;
SELECT 1 \; SELECT 1/0 \; SELECT 2;
SELECT 1 \gdesc
;
SHOW server_version;
VACUUM items;
TABLE items;
VALUES (1), (2);
DISCARD ALL;
\dt+
\d items
\l
\du
\df now
\conninfo
SELECT pg_terminate_backend(pg_backend_pid());
