// SPDX-License-Identifier: Apache-2.0

// A @grpc/grpc-js server of grpc.testing.TestService. It reads no protobuf: an answer is as large as its request, and
// metadata says which status to answer (want-code) and how long to wait before (want-ms). It knows nothing of tracing.
'use strict';
const grpc = require('@grpc/grpc-js');

const ANSWERS = 3; // to a request for a stream of them
const empty = Buffer.alloc(0);

function method(path, requestStream, responseStream) {
  const same = (bytes) => bytes;
  return {
    path,
    requestStream,
    responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}

function varint(n) {
  const out = [];
  for (; n > 127; n >>>= 7) out.push(n & 127 | 128);
  return Buffer.from([...out, n]);
}

function answer(request) {
  const body = Buffer.concat([Buffer.from([0x12]), varint(request.length), Buffer.alloc(request.length)]);
  return Buffer.concat([Buffer.from([0x0a]), varint(body.length), body]); // field 1: the payload
}

function want(call, key) {
  return Number(call.metadata.get(key)[0] || 0);
}

function failure(code) {
  return { code, details: 'as asked – 100%' };
}

const service = '/grpc.testing.TestService/';
const server = new grpc.Server({ 'grpc.max_receive_message_length': -1 });
server.addService({
  UnaryCall: method(`${service}UnaryCall`, false, false),
  EmptyCall: method(`${service}EmptyCall`, false, false),
  StreamingOutputCall: method(`${service}StreamingOutputCall`, false, true),
  StreamingInputCall: method(`${service}StreamingInputCall`, true, false),
  FullDuplexCall: method(`${service}FullDuplexCall`, true, true),
}, {
  UnaryCall(call, done) {
    const code = want(call, 'want-code');
    if (code) return done(failure(code));
    done(null, answer(call.request));
  },
  EmptyCall(call, done) {
    done(null, empty);
  },
  StreamingOutputCall(call) {
    let answers = 0;
    let timer;
    const next = () => {
      call.write(answer(call.request));
      if (++answers === ANSWERS) return call.end();
      timer = setTimeout(next, want(call, 'want-ms'));
    };
    call.on('cancelled', () => clearTimeout(timer));
    timer = setTimeout(next, want(call, 'want-ms'));
  },
  StreamingInputCall(call, done) {
    call.on('data', () => {});
    call.on('end', () => done(null, empty));
  },
  FullDuplexCall(call) {
    const code = want(call, 'want-code');
    call.on('data', (request) => {
      call.write(answer(request));
      if (code) call.emit('error', failure(code));
    });
    call.on('end', () => call.end());
  },
});
server.addService({ Check: method('/grpc.health.v1.Health/Check', false, false) }, {
  Check(call, done) {
    done(null, Buffer.from([0x08, 0x01])); // SERVING
  },
});
server.bindAsync(`127.0.0.1:${process.env.PORT}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
