// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strconv"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

const (
	benchRequest = "GET /api/v1/items/0000 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: Go-http-client/1.1\r\n" +
		"Accept: application/json\r\nAccept-Encoding: gzip\r\nX-Request-Id: 4f1c2d3e\r\n" +
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
	benchResponse = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 12\r\n\r\nhello world\n"
)

// benchOut hands memory out as the pipeline does, which frees a span when it is exported.
type benchOut struct {
	free []*span.Span
	n    int
}

func (o *benchOut) New() *span.Span {
	if n := len(o.free); n > 0 {
		s := o.free[n-1]
		o.free = o.free[:n-1]
		*s = span.Span{Attrs: s.Attrs[:0]}
		return s
	}
	return &span.Span{Attrs: make([]attribute.KeyValue, 0, maxAttrs)}
}

func (o *benchOut) Span(s *span.Span) {
	if s.State != span.Open {
		o.n++
		o.free = append(o.free, s)
	}
}

func (o *benchOut) Alias(trace.SpanID, *span.Span) {}

func BenchmarkDecode(b *testing.B) {
	for _, bench := range []struct {
		name     string
		server   bool
		varied   bool
		request  string
		response string
		split    int // length of the request's first part
	}{
		{name: "server", server: true, varied: true},
		{name: "server, same path", server: true},
		{name: "server, first byte apart", server: true, varied: true, split: 1},
		{name: "client", varied: true},
		{name: "server, small", server: true, request: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", response: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{name: "server, chunked", server: true, varied: true, response: "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nhello world\n\r\n0\r\n\r\n"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			request, response := []byte(benchRequest), []byte(benchResponse)
			if bench.request != "" {
				request = []byte(bench.request)
			}
			if bench.response != "" {
				response = []byte(bench.response)
			}
			first, second := probes.Ingress, probes.Egress
			if !bench.server {
				first, second = second, first
			}
			d := newDecoder(testConn(new(ledger.Account)), bench.server, standard)
			o := new(benchOut)
			var pos [2]uint64
			send := func(dir probes.Direction, data []byte, named bool, n int) {
				c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: data, Begin: int64(n), End: int64(n), Named: named, ID: trace.SpanID{1, byte(n)}}
				if err := d.Decode(&c, o); err != nil {
					b.Fatal(err)
				}
				pos[dir] += c.Total
			}
			b.SetBytes(int64(len(request) + len(response)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if bench.varied {
					strconv.AppendInt(request[:len("GET /api/v1/items/")], int64(1000+n%9000), 10)
				}
				if bench.split > 0 {
					send(first, request[:bench.split], true, n)
				}
				send(first, request[bench.split:], bench.split == 0, n)
				send(second, response, false, n)
				n++
			}
			if o.n != n {
				b.Fatalf("%d spans of %d", o.n, n)
			}
		})
	}
}
