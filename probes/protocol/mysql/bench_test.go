// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
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
	return &span.Span{Attrs: make([]attribute.KeyValue, 0, 16)}
}

func (o *benchOut) Span(s *span.Span) {
	if s.State == span.Done {
		o.n++
		o.free = append(o.free, s)
	}
}

func (o *benchOut) Alias(trace.SpanID, *span.Span) {}

// BenchmarkDecode is one command and its answer on a connection on which many were before.
func BenchmarkDecode(b *testing.B) {
	const text = "SELECT id, name, price FROM products WHERE category = 'tools' AND price < 100 ORDER BY price LIMIT 10"
	columns := []string{"id", "name", "price"}
	ten := strings.Split(strings.Repeat(row("123", "a hammer", "12.50")+"|", 10), "|")[:10]
	long := modern.set(1, 2, columns, strings.Split(strings.Repeat(row("123", "a hammer", "12.50")+"|", 500), "|")[:500]...)
	for _, bench := range []struct {
		name         string
		server       bool
		wire         wire
		before       []part
		command      string
		answer       string
		head, tail   int // of the answer, if not all of it is captured
		headerFirst  bool
		pieces, done int
	}{
		{name: "query, ten rows, client", wire: modern, command: query(text), answer: modern.set(1, 2, columns, ten...)},
		{name: "query, ten rows, server", wire: plain, server: true, command: query(text), answer: plain.set(1, 2, columns, ten...), headerFirst: true},
		{name: "query, one row, client", wire: modern, command: query(text), answer: modern.set(1, 2, columns, ten[0])},
		{name: "query, OK, client", wire: modern, command: query("UPDATE products SET price = 12 WHERE id = 123"), answer: packet(1, okay(2))},
		{name: "query, 500 rows by their edges", wire: modern, command: query(text), answer: long, head: 416, tail: 64},
		{name: "execute, one row, client", wire: modern, before: []part{req(prepare(strings.ReplaceAll(text, "'tools'", "?"))), rsp(modern.prepared(1, 1, 3))},
			command: execute(1, "tools"), answer: modern.set(1, 2, columns, ten[0])},
	} {
		b.Run(bench.name, func(b *testing.B) {
			parts := append(bench.wire.hello("shop"), bench.before...)
			o := new(benchOut)
			d := protocol.New(testConn(new(ledger.Account), bench.server), bench.server)
			var pos [2]uint64
			for _, ev := range chunks(parts, bench.server, whole) {
				if err := d.Decode(&ev.Chunk, o); err != nil {
					b.Fatal(err)
				}
				pos[ev.Dir] += ev.Total
			}
			in, out := probes.Egress, probes.Ingress
			if bench.server {
				in, out = out, in
			}
			command, answer := []byte(bench.command), []byte(bench.answer)
			var buf [2][]byte
			var c probes.Chunk
			send := func(dir probes.Direction, data []byte, named bool, n int) {
				buf[dir] = append(buf[dir][:0], data...) // what was zeroed is to be there again
				c = probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: buf[dir], Begin: int64(n), End: int64(n), Named: named, ID: trace.SpanID{1, byte(n)}}
				if dir == out && bench.head > 0 {
					c.Head, c.Tail = buf[dir][:bench.head], buf[dir][len(data)-bench.tail:]
				}
				if err := d.Decode(&c, o); err != nil {
					b.Fatal(err)
				}
				pos[dir] += c.Total
			}
			b.SetBytes(int64(len(command) + len(answer)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if bench.headerFirst {
					send(in, command[:headerSize], true, n)
					send(in, command[headerSize:], false, n)
				} else {
					send(in, command, true, n)
				}
				send(out, answer, false, n)
				n++
			}
			if o.n != n {
				b.Fatalf("%d spans of %d", o.n, n)
			}
		})
	}
}
