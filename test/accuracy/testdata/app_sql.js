// SPDX-License-Identifier: Apache-2.0
// A Node server that asks a database through a pool for each request. It knows nothing of tracing. GET /SHAPE/ID executes
// statements with columns that are called call_ID_N.
'use strict';
const http = require('node:http');

const [host, port] = process.env.DATABASE.split(':');

const drivers = {
  pg(max) {
    const pool = new (require('pg').Pool)({ host, port, user: 'postgres', database: 'postgres', max, idleTimeoutMillis: 0 });
    return {
      query: (text, args) => pool.query(text, args),
      connect: () => pool.connect(),
      argument: '$1::float8',
      sleep: (seconds, name) => `SELECT pg_sleep(${seconds}) AS ${name}`,
    };
  },
  mysql2(connectionLimit) {
    const pool = require('mysql2/promise').createPool({ host, port, user: 'root', connectionLimit, maxIdle: connectionLimit });
    return {
      query: (text, args) => (args ? pool.execute(text, args) : pool.query(text)),
      connect: () => pool.getConnection(),
      argument: '?',
      sleep: (seconds, name) => `SELECT SLEEP(${seconds}) AS ${name}`,
    };
  },
};
const open = drivers[process.env.DRIVER];
const many = open(64);
const few = open(8);

// The first has its argument apart from the text.
function call(pool, id, n) {
  const seconds = (Math.random() * 0.003).toFixed(4);
  const name = `call_${id}_${n}`;
  return n === 0 ? pool.query(pool.sleep(pool.argument, name), [seconds]) : pool.query(pool.sleep(seconds, name));
}

const shapes = {
  async await(id) {
    await call(many, id, 0);
    await call(many, id, 1);
  },
  async few(id) {
    await call(few, id, 0);
    await call(few, id, 1);
  },
  async all(id) {
    await Promise.all([call(many, id, 0), call(many, id, 1)]);
  },
  async transaction(id) {
    const conn = await many.connect();
    await conn.query('BEGIN');
    await conn.query(many.sleep('0.001', `call_${id}_0`));
    await conn.query(many.sleep('0.001', `call_${id}_1`));
    await conn.query('COMMIT');
    conn.release();
  },
};

http.createServer(async (req, res) => {
  const [, shape, id] = req.url.split('/');
  await shapes[shape](id);
  res.end('done\n');
}).listen(Number(process.env.PORT), '127.0.0.1', 128);
