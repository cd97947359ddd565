// SPDX-License-Identifier: Apache-2.0
// A @grpc/grpc-js server that makes calls for each request. It knows nothing of tracing.
//
// It answers any method. /SHAPE/ID makes the gRPC calls /call/ID/0 and /call/ID/1 to GRPC_BACKEND on a connection that all share,
// and GET BACKEND/call/ID/2.
'use strict';
const http = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');

const backend = process.env.BACKEND;
const keep = new http.Agent({ keepAlive: true });
const client = new grpc.Client(process.env.GRPC_BACKEND, grpc.credentials.createInsecure());

const empty = Buffer.alloc(0);
const same = (bytes) => bytes;

const invoke = (id, n) => new Promise((resolve, reject) => {
  client.makeUnaryRequest(`/call/${id}/${n}`, same, same, empty, (error) => (error ? reject(error) : resolve()));
});

const get = (id, n) => new Promise((resolve, reject) => {
  http.get(`${backend}/call/${id}/${n}`, { agent: keep }, (res) => {
    res.resume();
    res.on('end', resolve);
  }).on('error', reject);
});

async function call(id, n) {
  await sleep(Math.random() * 3);
  await (n < 2 ? invoke(id, n) : get(id, n));
}

const shapes = {
  async sequence(id) {
    for (let n = 0; n < 3; n++) await call(id, n);
  },
  async gather(id) {
    await Promise.all([0, 1, 2].map((n) => call(id, n)));
  },
};

// A server has the handlers of its methods in a map, by path, and cannot be told of others; this map has one for every path.
class AnyMethod extends Map {
  get(path) {
    const [, shape, id] = path.split('/');
    return {
      path,
      type: 'unary',
      serialize: same,
      deserialize: same,
      func: (_, done) => shapes[shape](id).then(() => done(null, empty), done),
    };
  }
}

const server = new grpc.Server();
server.handlers = new AnyMethod();
server.bindAsync(`127.0.0.1:${process.env.PORT}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
