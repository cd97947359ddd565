// SPDX-License-Identifier: Apache-2.0
// node-postgres 8.23.1
const { Client } = require('pg');
const Cursor = require('pg-cursor');

(async () => {
  const c = new Client();
  const fails = (...args) => c.query(...args).catch((e) => console.log(e.message));
  await c.connect();
  await c.query('SELECT 1');
  await c.query('SELECT $1::text', ['planted-1']);
  for (let i = 0; i < 3; i++) await c.query({ name: 'byid', text: 'SELECT $1::int AS v', values: [i] });
  await Promise.all([1, 2, 3].map((i) => c.query('SELECT $1::int + 1', [i])));
  await fails('SELECT * FROM nowhere');
  await fails('SELECT $1::int FROM nowhere', [1]);
  await fails('SELECT $1::int', ['planted-nan']);
  await c.query('SELECT 1; SELECT 2');
  const cursor = c.query(new Cursor('SELECT generate_series(1, $1::int)', [25]));
  for (let i = 0; i < 3; i++) await cursor.read(10);
  await cursor.close();
  await c.query('');
  await c.end();
})();
