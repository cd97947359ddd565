// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/binary"
	"testing"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// BenchmarkCorrelate is what a span costs from its begin to its release, the decoder's part and the
// exporter's apart.
func BenchmarkCorrelate(b *testing.B) {
	const batch = 64
	for _, bench := range []struct {
		name string
		loop func(c *Correlator, n int64, take func() *span.Span)
	}{
		{"server", func(c *Correlator, n int64, take func() *span.Span) {
			s := take()
			s.Kind, s.Evidence.Conn, s.Evidence.Seq, s.Evidence.HasSeq = trace.SpanKindServer, 2+uint64(n)&31, uint32(n), true
			c.Add(s)
			s.State, s.End = span.Done, n+1
			c.Add(s)
		}},
		{"server and client", func(c *Correlator, n int64, take func() *span.Span) {
			s := take()
			s.Kind, s.Evidence.Conn, s.Evidence.Seq, s.Evidence.HasSeq = trace.SpanKindServer, 2+uint64(n)&31, uint32(n), true
			c.Add(s)
			call := take()
			call.Kind, call.Evidence.Conn, call.Evidence.Seq, call.Evidence.HasSeq = trace.SpanKindClient, 34, uint32(n), true
			call.Evidence.Cause, call.Evidence.CauseSource = s.ID, span.SourceThread
			c.Add(call)
			call.State, call.End = span.Done, n+1
			c.Add(call)
			s.State, s.End = span.Done, n+1
			c.Add(s)
		}},
		{"both ends of a call", func(c *Correlator, n int64, take func() *span.Span) {
			call := take()
			call.Kind, call.Evidence.Conn, call.Evidence.Seq, call.Evidence.HasSeq = trace.SpanKindClient, 35, uint32(n), true
			c.Add(call)
			s := take()
			s.Kind, s.Evidence.Conn, s.Evidence.Seq, s.Evidence.HasSeq = trace.SpanKindServer, 36, uint32(n), true
			c.Add(s)
			s.State, s.End = span.Done, n+1
			c.Add(s)
			call.State, call.End = span.Done, n+1
			c.Add(call)
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			c := New(Default())
			for i := range uint64(32) {
				c.Conn(tcp(2+i, "10.0.0.1:80", "10.9.0.1:4000", 1))
			}
			c.Conn(tcp(34, "10.0.0.1:5555", "10.9.0.1:80", 1))
			c.Conn(tcp(35, "127.0.0.1:4000", "127.0.0.1:80", 1))
			c.Conn(tcp(36, "127.0.0.1:80", "127.0.0.1:4000", 1))
			var free []*span.Span
			var id uint64
			take := func() *span.Span {
				if len(free) == 0 {
					free = append(free, new(span.Span))
				}
				s := free[len(free)-1]
				free = free[:len(free)-1]
				id++
				s.State = span.Open
				binary.BigEndian.PutUint64(s.ID[:], mix(id)) // as random as the kernel side's
				return s
			}
			give := func(spans []*span.Span) {
				for _, s := range spans {
					*s = span.Span{}
				}
				free = append(free, spans...)
			}
			b.ReportAllocs()
			n := int64(0)
			for b.Loop() {
				n++
				bench.loop(c, n, take)
				if n%batch == 0 {
					c.Expire(n)
					give(c.Take())
				}
			}
			c.Flush()
			if c.Held() != 0 || len(c.nodes) != 0 {
				b.Fatalf("%d are held, %d nodes left", c.Held(), len(c.nodes))
			}
		})
	}
}
