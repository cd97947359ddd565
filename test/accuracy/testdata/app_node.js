// SPDX-License-Identifier: Apache-2.0
// A Node server that makes calls for each request, in ways that programs do. It knows nothing of tracing.
'use strict';
const http = require('node:http');
const { setTimeout: sleep, setImmediate: immediate } = require('node:timers/promises');

const backend = process.env.BACKEND;
const agent = new http.Agent({ keepAlive: true });

const pause = () => sleep(Math.random() * 3);

function call(id, n) {
  return new Promise((resolve, reject) => {
    http.get(`${backend}/call/${id}/${n}`, { agent }, (res) => {
      res.resume();
      res.on('end', resolve);
    }).on('error', reject);
  });
}

const fetched = async (id, n) => (await fetch(`${backend}/call/${id}/${n}`)).text();

const shapes = {
  async await(id) {
    await call(id, 0);
    await call(id, 1);
  },
  async fetch(id) {
    await fetched(id, 0);
    await fetched(id, 1);
  },
  async all(id) {
    await Promise.all([call(id, 0), call(id, 1)]);
  },
  async timer(id) {
    await pause();
    await call(id, 0);
    await pause();
    await call(id, 1);
  },
  async immediate(id) {
    await immediate();
    await call(id, 0);
    await immediate();
    await call(id, 1);
  },
};

http.createServer(async (req, res) => {
  const [, shape, id] = req.url.split('/');
  await shapes[shape](id);
  res.end('done\n');
}).listen(Number(process.env.PORT), '127.0.0.1', 128);
