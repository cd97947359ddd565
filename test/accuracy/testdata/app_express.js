// SPDX-License-Identifier: Apache-2.0
// An Express application that makes calls for each request. It knows nothing of tracing.
'use strict';
const http = require('node:http');
const express = require(`${process.env.MODULES}/express`);

const backend = process.env.BACKEND;
const agent = new http.Agent({ keepAlive: true });

function call(id, n) {
  return new Promise((resolve, reject) => {
    http.get(`${backend}/call/${id}/${n}`, { agent }, (res) => {
      res.resume();
      res.on('end', resolve);
    }).on('error', reject);
  });
}

const app = express();
app.use(express.json());
app.get('/await/:id', async (req, res) => {
  await call(req.params.id, 0);
  await call(req.params.id, 1);
  res.send('done\n');
});
app.listen(Number(process.env.PORT), '127.0.0.1');
