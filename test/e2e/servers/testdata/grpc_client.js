// SPDX-License-Identifier: Apache-2.0

// Calls grpc.testing.TestService with @grpc/grpc-js and prints a line of JSON for each call: what it knows of it.
//
//	grpc_client.js ADDR N KIND STREAMS [wait]
//
// N calls, STREAMS at once on one connection, of a KIND as for the Go client, or of several in turn with commas between.
// "wait" makes a call without a line, prints "ready" and waits for a line on stdin. It knows nothing of tracing.
'use strict';
const grpc = require('@grpc/grpc-js');

const SIZE = 100; // bytes in each payload
const LARGE = 10 << 20;
const MESSAGES = 3; // of each stream, in each direction that streams
const DEADLINE = 200; // ms, long enough for the request to be on its way
const SLOW = 10000; // ms that the server waits when the caller will not
const MIXED = 'unary,empty,server-stream,client-stream,bidi,error,late-error,health';
const CODES = [5, 13, 16, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 14, 15]; // of the kinds with an error, in turn
const SERVICE = '/grpc.testing.TestService/';

function varint(n) {
  const out = [];
  for (; n > 127; n >>>= 7) out.push(n & 127 | 128);
  return Buffer.from([...out, n]);
}

function number(field, n) {
  return Buffer.concat([varint(field << 3), varint(n)]);
}

function nested(field, ...parts) {
  const data = Buffer.concat(parts);
  return Buffer.concat([varint(field << 3 | 2), varint(data.length), data]);
}

function payload(field, size = SIZE) {
  return nested(field, nested(2, Buffer.alloc(size)));
}

function status(code) {
  return nested(7, number(1, code), nested(2, Buffer.from('as asked – 100%')));
}

// wanted asks for an answer of the usual size after a wait.
function wanted(ms = 0) {
  return nested(2, number(1, SIZE), number(2, ms * 1000));
}

const same = (bytes) => bytes;

// now is the time in ns, a BigInt; Date has only ms.
function now() {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
}

// Every kind has its method and a function that starts a call and tells done how it ended.
const kinds = {
  unary: [`${SERVICE}UnaryCall`, unary(() => Buffer.concat([number(2, SIZE), payload(3)]))],
  large: [`${SERVICE}UnaryCall`, unary(() => Buffer.concat([number(2, LARGE), payload(3, LARGE)]))],
  error: [`${SERVICE}UnaryCall`, unary((code) => Buffer.concat([payload(3), status(code)]), true)],
  empty: [`${SERVICE}EmptyCall`, unary(() => Buffer.alloc(0))],
  health: ['/grpc.health.v1.Health/Check', unary(() => Buffer.alloc(0))],
  'server-stream': [`${SERVICE}StreamingOutputCall`, serverStream],
  deadline: [`${SERVICE}StreamingOutputCall`, deadline],
  'client-stream': [`${SERVICE}StreamingInputCall`, clientStream],
  bidi: [`${SERVICE}FullDuplexCall`, bidi],
  'late-error': [`${SERVICE}FullDuplexCall`, lateError],
  cancel: [`${SERVICE}FullDuplexCall`, cancel],
};

// wants is what servers are told that do not read protobuf.
function wants(key, value) {
  const metadata = new grpc.Metadata();
  metadata.set(key, String(value));
  return metadata;
}

function unary(request, fails) {
  return (client, path, code, done) => {
    const metadata = fails ? wants('want-code', code) : new grpc.Metadata();
    client.makeUnaryRequest(path, same, same, request(code), metadata, {}, done);
  };
}

// ended tells done once how a call with a stream of answers ended.
function ended(call, done) {
  call.on('data', () => {});
  call.on('error', () => {}); // a status too
  call.on('status', (s) => done(s.code === grpc.status.OK ? null : s));
}

function serverStream(client, path, code, done) {
  const request = Buffer.concat([...Array(MESSAGES).fill(wanted()), payload(3)]);
  ended(client.makeServerStreamRequest(path, same, same, request, new grpc.Metadata(), {}), done);
}

function deadline(client, path, code, done) {
  const options = { deadline: Date.now() + DEADLINE };
  ended(client.makeServerStreamRequest(path, same, same, Buffer.concat([wanted(SLOW), payload(3)]), wants('want-ms', SLOW), options), done);
}

function clientStream(client, path, code, done) {
  const call = client.makeClientStreamRequest(path, same, same, new grpc.Metadata(), {}, done);
  for (let i = 0; i < MESSAGES; i++) call.write(payload(1));
  call.end();
}

// bidi waits for the answer to each message before it sends the next.
function bidi(client, path, code, done) {
  const call = client.makeBidiStreamRequest(path, same, same, new grpc.Metadata(), {});
  const request = Buffer.concat([wanted(), payload(3)]);
  let answers = 0;
  ended(call, done);
  call.on('data', () => (++answers < MESSAGES ? call.write(request) : call.end()));
  call.write(request);
}

// lateError is answered with an error after an answer, when more requests could follow.
function lateError(client, path, code, done) {
  const call = client.makeBidiStreamRequest(path, same, same, wants('want-code', code), {});
  ended(call, done);
  call.write(Buffer.concat([wanted(), payload(3), status(code)]));
}

// cancel gives up after the first answer, with the stream open in both directions.
function cancel(client, path, code, done) {
  const call = client.makeBidiStreamRequest(path, same, same, new grpc.Metadata(), {});
  ended(call, done);
  call.on('data', () => call.cancel());
  call.write(Buffer.concat([wanted(), payload(3)]));
}

function make(client, kind, n) {
  const [path, call] = kinds[kind];
  return new Promise((resolve) => {
    const before = now();
    call(client, path, CODES[n % CODES.length], (error) => {
      const code = grpc.status[error ? error.code : grpc.status.OK];
      const more = error ? `,"Error":${JSON.stringify(error.details)}` : '';
      resolve(`{"Method":"${path.slice(1)}","Code":"${code}","Before":${before},"After":${now()}${more}}`);
    });
  });
}

async function main([addr, count, kind, streams, wait]) {
  const turns = kind.replaceAll('mixed', MIXED).split(',');
  const unknown = turns.find((k) => !kinds[k]);
  if (unknown !== undefined) throw new Error(`no kind of call is called ${unknown}`);

  const client = new grpc.Client(addr, grpc.credentials.createInsecure(), { 'grpc.max_receive_message_length': -1 });
  await new Promise((resolve, reject) => {
    client.waitForReady(Date.now() + 60000, (error) => (error ? reject(error) : resolve()));
  });
  if (wait === 'wait') {
    await make(client, 'unary', 0);
    console.log('ready');
    await new Promise((resolve) => { process.stdin.once('data', resolve); });
    process.stdin.pause();
  }
  let i = 0;
  await Promise.all(Array.from({ length: Number(streams) }, async () => {
    while (i < Number(count)) {
      const n = i++;
      console.log(await make(client, turns[n % turns.length], Math.floor(n / turns.length)));
    }
  }));
  client.close();
}

main(process.argv.slice(2));
