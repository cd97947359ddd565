// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"strconv"
	"testing"

	"breadcrumb/bpf"
	"breadcrumb/correlate"
	"breadcrumb/internal/eventtest"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/http1"
)

// BenchmarkHandle is what a request and its answer cost between the ring buffer and the export queue, as one
// record each.
func BenchmarkHandle(b *testing.B) {
	const (
		connections = 32
		batch       = 64
		line        = "GET /item/"
		request     = line + "1000 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
		response    = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 12\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello world\n"
	)
	for _, bench := range []struct {
		name   string
		server bool
	}{{"server", true}, {"client", false}} {
		b.Run(bench.name, func(b *testing.B) {
			corr := correlate.New(correlate.Default())
			target := &span.Target{PID: 1, Account: new(ledger.Account)}
			conns := probes.NewConns([]probes.Protocol{http1.New(http1.Default())}, noKernel{}, sink{corr}, func(uint32) *span.Target { return target })
			var k eventtest.Kernel
			var requests, responses [connections][]byte
			for i := range connections {
				c, s := k.TCP(1, 1, "10.9.0.1:"+strconv.Itoa(4000+i), "10.0.0.1:80")
				if bench.server {
					conns.Handle(s.Open())
					requests[i], responses[i] = s.Receive(request, s.Named()), s.Send(response)
				} else {
					conns.Handle(c.Open())
					requests[i], responses[i] = c.Send(request, c.Named()), c.Receive(response)
				}
			}
			out := 0
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				i := n % connections
				round := uint64(n / connections)
				for _, r := range [][]byte{requests[i], responses[i]} {
					e := bpf.View[bpf.DataEvent](r)
					e.Pos = round * uint64(e.Total)
					e.Seq = uint32(e.Pos)
					e.Hdr.Time = uint64(n) * 1000
					e.Begin = e.Hdr.Time
					e.Request = uint64(n+1) * 0x9e3779b97f4a7c15
				}
				head, _, _ := bpf.DataPayload(requests[i], bpf.View[bpf.DataEvent](requests[i]))
				strconv.AppendInt(head[:len(line)], int64(1000+n%9000), 10)
				conns.Handle(requests[i])
				conns.Handle(responses[i])
				if n%batch == batch-1 {
					corr.Expire(int64(n) * 1000)
					spans := corr.Take()
					out += len(spans)
					probes.Recycle(spans)
				}
			}
			corr.Flush()
			if out += len(corr.Take()); uint64(out) != target.Account.Counts()[ledger.Seen] || out == 0 {
				b.Fatalf("%d spans, account %v", out, target.Account.Counts())
			}
		})
	}
}

type noKernel struct{}

func (noKernel) Verdict(uint64, bpf.VerdictKind) error { return nil }
func (noKernel) Forget(uint64)                         {}
