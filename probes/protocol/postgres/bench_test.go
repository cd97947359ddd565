// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"strconv"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"

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
	return &span.Span{Attrs: make([]attribute.KeyValue, 0, maxAttrs)}
}

func (o *benchOut) Span(s *span.Span) {
	if s.State == span.Done {
		o.n++
		o.free = append(o.free, s)
	}
}

func (o *benchOut) Alias(trace.SpanID, *span.Span) {}

func BenchmarkDecode(b *testing.B) {
	const text = "SELECT abalance FROM pgbench_accounts WHERE aid = "
	answer := rowsOf("abalance") + row("1234") + tagged("SELECT 1") + idleZ
	for _, bench := range []struct {
		name            string
		server          bool
		before          string // said first
		request, answer string
		varied          int // an offset in the request at which it differs
		captured        int // of the answer
	}{
		{name: "query", request: q(text + "0000"), answer: answer, varied: headerSize + len(text)},
		{name: "query, the same", request: q(text + "0000"), answer: answer},
		{name: "query, server", server: true, request: q(text + "0000"), answer: answer, varied: headerSize + len(text)},
		{name: "unnamed", request: p("", text+"$1") + b_("", "", "1234") + dP("") + e("", 0) + sy, answer: okParse + okBind + answer},
		{name: "prepared", before: p("s1", text+"$1") + sy, request: b_("", "s1", "1234") + e("", 0) + sy, answer: okBind + row("1234") + tagged("SELECT 1") + idleZ},
		{name: "many rows", request: q(text + "0000"), answer: rowsOf("abalance") + big(1000) + tagged("SELECT 1000") + idleZ, captured: 450},
	} {
		b.Run(bench.name, func(b *testing.B) {
			d := newDecoder(testConn(new(ledger.Account), bench.server), bench.server, sql.Sanitised)
			o := new(benchOut)
			first := d.in
			var pos [2]uint64
			send := func(dir probes.Direction, data []byte, captured, n int) {
				c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: data, Begin: int64(n), End: int64(n), Named: dir == first, ID: trace.SpanID{1, byte(n)}}
				if captured > 0 {
					c.Head, c.Tail = data[:captured], data[len(data)-64:]
				}
				if err := d.Decode(&c, o); err != nil {
					b.Fatal(err)
				}
				pos[dir] += c.Total
			}
			send(first, []byte(startup("user", "app", "database", "shop")), 0, 0)
			send(first.Other(), []byte(greeted), 0, 0)
			if bench.before != "" {
				send(first, []byte(bench.before), 0, 0)
				send(first.Other(), []byte(okParse+idleZ), 0, 0)
			}
			request, answer, scratch := []byte(bench.request), []byte(bench.answer), []byte(bench.answer)
			b.SetBytes(int64(len(request) + len(answer)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if bench.varied > 0 {
					strconv.AppendInt(request[:bench.varied], int64(1000+n%9000), 10)
				}
				send(first, request, 0, n)
				if bench.captured > 0 { // what is zeroed is not looked at
					copy(scratch[len(scratch)-64:], answer[len(answer)-64:])
				} else {
					copy(scratch, answer)
				}
				send(first.Other(), scratch, bench.captured, n)
				n++
			}
			if o.n != n {
				b.Fatalf("%d spans of %d", o.n, n)
			}
		})
	}
}

// b_ is b where that is something else.
func b_(portal, name string, values ...string) string { return b(portal, name, values...) }
