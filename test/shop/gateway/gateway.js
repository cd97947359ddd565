// SPDX-License-Identifier: Apache-2.0

// Gateway is the shop's front door: it places an order, then pays for it. It knows nothing of tracing.
'use strict';
const http = require('node:http');

const port = Number(process.env.GATEWAY_PORT || 8080);
const orders = { host: '127.0.0.1', port: Number(process.env.ORDERS_PORT || 8081) };
const agent = new http.Agent({ keepAlive: true });

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = body ? { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) } : {};
    const req = http.request({ ...orders, method, path, headers, agent }, (res) => {
      let text = '';
      res.setEncoding('utf8');
      res.on('data', (data) => { text += data; });
      res.on('end', () => resolve({ status: res.statusCode, text }));
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end(body);
  });
}

async function checkout(id, res) {
  const order = await call('POST', `/orders/${id}`);
  if (order.status !== 200) return reply(res, order.status, { error: `no order ${id}` });

  const { total } = JSON.parse(order.text);
  const receipt = await call('POST', `/pay/${id}`, JSON.stringify({ amount: total }));
  if (receipt.status !== 200) return reply(res, 502, { error: `order ${id} is not paid` });
  return reply(res, 200, { id, total, paid: true });
}

function reply(res, status, value) {
  const body = JSON.stringify(value) + '\n';
  res.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  res.end(body);
}

const server = http.createServer((req, res) => {
  const match = /^\/checkout\/(\w+)$/.exec(req.url);
  if (req.method !== 'GET' || !match) return reply(res, 404, { error: 'not found' });
  checkout(match[1], res).catch((err) => reply(res, 502, { error: err.message }));
});

server.listen(port, '127.0.0.1', 511);
