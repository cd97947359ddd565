// SPDX-License-Identifier: Apache-2.0

// An ordinary node:http server. It knows nothing of tracing.
'use strict';
const http = require('node:http');

const server = http.createServer((req, res) => {
  const [kind, first] = req.url.split('?')[0].split('/').slice(1);
  switch (kind) {
    case 'item':
      return res.end(`item ${first}\n`);
    case 'upload': {
      let n = 0;
      req.on('data', (data) => { n += data.length; });
      return req.on('end', () => res.end(`${n}\n`));
    }
    case 'refuse':
      res.statusCode = 413;
      return res.end('too large\n');
    case 'status':
      res.statusCode = Number(first);
      return res.end();
    case 'sleep':
      return setTimeout(() => res.end('slept\n'), Number(first));
    case 'chunked':
      res.setHeader('Trailer', 'X-Chunks');
      for (let i = 0; i < Number(first); i++) res.write(`chunk ${i}\n`);
      res.addTrailers({ 'X-Chunks': first });
      return res.end();
    case 'large':
      res.setHeader('Content-Length', first);
      return res.end(Buffer.alloc(Number(first)));
    case 'cut':
      if (first !== 'body') return req.socket.destroy();
      res.setHeader('Content-Length', 1000);
      return res.write('the first of many\n', () => req.socket.destroy());
    default:
      res.statusCode = 404;
      return res.end('not found\n');
  }
});

// Changes to a protocol of its own, which sends everything back.
server.on('upgrade', (req, socket, head) => {
  socket.on('error', () => {});
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
  socket.write(head);
  socket.pipe(socket);
});

server.listen(Number(process.env.PORT), '127.0.0.1', 511);
