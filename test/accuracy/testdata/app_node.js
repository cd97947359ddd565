// SPDX-License-Identifier: Apache-2.0
// A Node server that makes calls for each request, in ways that programs do. It knows nothing of tracing.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const { setTimeout: sleep, setImmediate: immediate } = require('node:timers/promises');

const backend = process.env.BACKEND;
const next = process.env.NEXT || 'call';
const keep = new http.Agent({ keepAlive: true });

const pause = () => sleep(Math.random() * 3);

const few = new http.Agent({ keepAlive: true, maxSockets: 8 });

// Who gives a permit back lets another request go on.
const permits = {
  left: 4,
  waiting: [],
  async take() {
    if (this.left > 0) this.left--;
    else await new Promise((resolve) => this.waiting.push(resolve));
  },
  give() {
    const next = this.waiting.shift();
    if (next) next();
    else this.left++;
  },
};

function call(id, n, agent = keep) {
  return new Promise((resolve, reject) => {
    http.get(`${backend}/${next}/${id}/${n}`, { agent }, (res) => {
      res.resume();
      res.on('end', resolve);
    }).on('error', reject);
  });
}

const fetched = async (id, n) => (await fetch(`${backend}/${next}/${id}/${n}`)).text();

const shapes = {
  async await(id) {
    await call(id, 0);
    await call(id, 1);
  },
  async chain(id) {
    await Promise.all([call(id, 0), call(id, 1)]);
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
  async slowfetch(id) {
    await fetched(id, 0);
    await pause();
    await fetched(id, 1);
  },
  callback(id) {
    return new Promise((resolve) => {
      setTimeout(() => call(id, 0).then(() => setTimeout(() => call(id, 1).then(resolve), Math.random() * 3)), Math.random() * 3);
    });
  },
  async file(id) {
    await fs.promises.readFile(__filename);
    await call(id, 0);
    await new Promise((resolve) => fs.readFile(__filename, resolve));
    await call(id, 1);
  },
  async sockets(id) {
    await call(id, 0, few);
    await pause();
    await call(id, 1, few);
  },
  async permit(id) {
    await permits.take();
    await call(id, 0);
    permits.give();
    await permits.take();
    await call(id, 1);
    permits.give();
  },
  async immediate(id) {
    await immediate();
    await call(id, 0);
    await immediate();
    await call(id, 1);
  },
};

http.createServer(async (req, res) => {
  const [, shape, ...id] = req.url.split('/');
  await shapes[shape](id.join('/'));
  res.end('done\n');
}).listen(Number(process.env.PORT), '127.0.0.1', 128);
