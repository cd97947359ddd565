// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"fmt"
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

// BenchmarkDecode is one exchange on a connection on which many were before: all fields but those that differ are in the tables.
func BenchmarkDecode(b *testing.B) {
	for _, bench := range []struct {
		name   string
		server bool
		ask    func(id, n uint32) []sent
		say    func(id uint32) []sent
		calls  int // that move the response
	}{
		{"call, server", true, func(id, n uint32) []sent { return []sent{head(id, call()...), lastBody(id, 20)} }, answered, 1},
		{"call, client", false, func(id, n uint32) []sent { return []sent{head(id, call()...), lastBody(id, 20)} }, answered, 1},
		{"call, server, traced", true, func(id, n uint32) []sent {
			return []sent{head(id, call("traceparent", fmt.Sprintf("00-0af7651916cd43dd8448eb211c80319c-%016x-01", n+1))...), lastBody(id, 20)}
		}, answered, 1},
		{"call, server, by three writes and a ping", true, func(id, n uint32) []sent {
			return []sent{head(id, call()...), lastBody(id, 20), window(0), pong}
		}, answered, 3},
		{"GET, server", true, func(id, n uint32) []sent { return []sent{last(id, ask()...)} },
			func(id uint32) []sent { return []sent{head(id, ":status", "200"), lastBody(id, 20)} }, 1},
	} {
		b.Run(bench.name, func(b *testing.B) {
			const warm, rounds = 100, 2000
			x := newTalk()
			x.hello()
			first := len(x.parts)
			for n := range uint32(warm + rounds) {
				id := 2*n + 1
				x.client(bench.ask(id, n)...)
				frames := bench.say(id)
				if bench.calls == 1 {
					x.server(frames...)
					continue
				}
				for _, f := range frames {
					x.server(f)
				}
			}
			each := 1 + bench.calls
			events := chunks(x.parts, bench.server, whole)
			o := new(benchOut)
			var d probes.Decoder
			next := 0
			send := func(n int) {
				for range n {
					if err := d.Decode(&events[next].Chunk, o); err != nil {
						b.Fatal(err)
					}
					next++
				}
			}
			begin := func() {
				d, next = protocol.New(testConn(new(ledger.Account)), bench.server), 0
				send(first + warm*each)
			}
			var size int
			for _, ev := range events[first+warm*each:] {
				size += len(ev.Head)
			}
			begin()
			b.SetBytes(int64(size / rounds))
			b.ReportAllocs()
			o.n = 0
			n := 0
			for b.Loop() {
				if next == len(events) {
					b.StopTimer()
					o.n -= warm
					begin()
					b.StartTimer()
				}
				send(each)
				n++
			}
			if o.n != n {
				b.Fatalf("%d spans of %d", o.n, n)
			}
		})
	}
}

// BenchmarkHPACK is a block of which all is in the table.
func BenchmarkHPACK(b *testing.B) {
	p := newPeer()
	tab := newTable(true)
	if _, err := fieldsOf(&tab, p.block(call())); err != nil {
		b.Fatal(err)
	}
	block := p.block(call())
	var m section
	take := m.take
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		m.reset()
		if err := tab.decode(block, take); err != nil {
			b.Fatal(err)
		}
	}
}
