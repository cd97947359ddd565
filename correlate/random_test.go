// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"breadcrumb/internal/span"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

// TestWhateverIsToldNothingDangles tells things at random, likely and absurd: what is let go must hang
// together all the same, and nothing may stay behind.
func TestWhateverIsToldNothingDangles(t *testing.T) {
	seeds := uint64(3000)
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		first := absurd(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		if seed%10 != 0 {
			continue
		}
		if diff := cmp.Diff(first, absurd(t, seed)); diff != "" {
			t.Fatalf("seed %d, again: (-first +second)\n%s", seed, diff)
		}
	}
}

// absurd returns a line for each span that was let go.
func absurd(t *testing.T, seed uint64) []string {
	rng := rand.New(rand.NewPCG(seed, 1))
	g := newStageOf(t, Config{MaxHeld: []int{1, 3, 20, 1000}[rng.IntN(4)], JoinWait: int64(rng.IntN(100)), ClaimWait: int64(rng.IntN(100)), UnreadWait: int64(rng.IntN(300)), Seed: seed})
	addrs := []string{"127.0.0.1:80", "127.0.0.1:81", "10.0.0.1:80", "10.0.0.2:81", "[::ffff:127.0.0.1]:80"}
	var (
		now     int64
		open    []*span.Span
		ended   int
		all     []trace.SpanID // ever begun
		conns   []uint64       // alive, and which spans they carry
		carries = map[*span.Span]uint64{}
		lines   []string
	)
	pick := func() on { // of what may be a cause
		return func(s *span.Span) {
			if n := len(all); n > 0 {
				s.Evidence.Cause = all[max(0, n-1-rng.IntN(8))]
			}
			s.Evidence.CauseSource = []span.Source{span.SourceThread, span.SourceGoroutine}[rng.IntN(2)]
			s.Evidence.Inherited = rng.IntN(4) == 0
		}
	}
	finish := func(i int) {
		s := open[i]
		open = append(open[:i], open[i+1:]...)
		delete(carries, s)
		if rng.IntN(6) == 0 {
			g.lost(s)
			return
		}
		ended++
		s.Unanswered = rng.IntN(3) == 0
		g.end(s, now-int64(rng.IntN(5)))
	}
	collect := func() {
		for _, s := range g.out[len(lines):] {
			lines = append(lines, fmt.Sprint(s.ID, s.TraceID, s.Parent, s.Source, s.Start))
		}
	}
	for range 20 + rng.IntN(300) {
		now += int64(rng.IntN(5))
		switch rng.IntN(17) {
		case 16:
			if len(open) > 0 {
				request := open[rng.IntN(len(open))].ID
				g.HandOff(uint32(1+rng.IntN(2)), uint64(rng.IntN(4)), request)
				g.Job(uint32(1+rng.IntN(2)), open[rng.IntN(len(open))].ID, request, rng.IntN(3))
			}
		case 12, 13, 14:
			if rng.IntN(4) == 0 {
				g.PeerEnded(uint64(rng.IntN(8)))
			}
			g.Moved(uint32(rng.IntN(3)), uint32(rng.IntN(3)), uint64(rng.IntN(8)), uint8(rng.IntN(2)))
		case 15:
			if len(open) > 0 {
				s := open[rng.IntN(len(open))]
				s.State = span.Answered
				g.Add(s)
			}
		case 0, 1:
			id := uint64(len(conns) + 1 + rng.IntN(3))
			if rng.IntN(3) == 0 {
				g.Conn(unixConn(id, uint64(rng.IntN(4)), uint64(rng.IntN(4))))
			} else {
				g.Conn(tcp(id, addrs[rng.IntN(len(addrs))], addrs[rng.IntN(len(addrs))], uint32(rng.IntN(2))))
			}
			conns = append(conns, id)
		case 2:
			if len(conns) > 0 {
				i := rng.IntN(len(conns))
				id := conns[i]
				for j := len(open) - 1; j >= 0; j-- {
					if carries[open[j]] == id {
						finish(j)
					}
				}
				g.ConnGone(id)
			}
		case 3, 4, 5, 6:
			kind := trace.SpanKindServer
			if rng.IntN(2) == 0 {
				kind = trace.SpanKindClient
			}
			s := g.begin(kind, now, pick(), func(s *span.Span) {
				s.Evidence.PID = uint32(rng.IntN(3))
				s.Evidence.Task = uint64(rng.IntN(3000))
				if s.Evidence.PID == 2 {
					s.Target = golang
					s.Evidence.Task = uint64(rng.IntN(4))
				}
				s.Evidence.Conn = uint64(rng.IntN(8))
				s.Evidence.Seq, s.Evidence.HasSeq = uint32(rng.IntN(4)), rng.IntN(3) > 0
				if rng.IntN(3) == 0 {
					s.Wire = wire(uint64(1+rng.IntN(2)), 1<<50+uint64(rng.IntN(3)))
				}
				if rng.IntN(30) == 0 && len(open) > 0 {
					s.ID = open[rng.IntN(len(open))].ID
				}
			})
			carries[s] = s.Evidence.Conn
			open, all = append(open, s), append(all, s.ID)
		case 7, 8, 9:
			if len(open) > 0 {
				finish(rng.IntN(len(open)))
			}
		case 10:
			if len(open) > 0 {
				id := spanID(1<<60 + uint64(len(all)))
				g.Alias(id, open[rng.IntN(len(open))])
				all = append(all, id)
			}
		case 11:
			g.Expire(now)
			g.take()
		}
		g.take()
		if rng.IntN(20) == 0 {
			g.check()
		}
	}
	for len(open) > 0 {
		finish(len(open) - 1)
	}
	for id := range uint64(len(conns) + 4) {
		g.ConnGone(id)
	}
	g.finish()
	collect()
	if len(g.out) != ended {
		t.Errorf("%d requests ended, %d spans were let go", ended, len(g.out))
	}
	if len(g.conns) != 0 || len(g.ends) != 0 {
		t.Errorf("%d connections and %d ends are left", len(g.conns), len(g.ends))
	}
	return lines
}

// TestParentsAreRightInWhateverOrderTheyAreTold lets requests of a few services cause one another, tells the
// events of all at once, those of two ends of a connection in any order that can be, and knows what
// caused what.
func TestParentsAreRightInWhateverOrderTheyAreTold(t *testing.T) {
	seeds := uint64(1000)
	if testing.Short() {
		seeds = 100
	}
	spans := 0
	for seed := range seeds {
		w := &mesh{stage: newStage(t), rng: rand.New(rand.NewPCG(seed, 2)), parent: map[*span.Span]*span.Span{}}
		w.run(30)
		spans += len(w.out)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d spans", spans)
}

// mesh is what happened on a node, and the truth of it.
type mesh struct {
	*stage
	rng    *rand.Rand
	conns  uint64
	parent map[*span.Span]*span.Span
	now    int64
}

// run tells of n requests from outside, all under way at once.
func (w *mesh) run(n int) {
	var scripts [][]func()
	for range n {
		scripts = append(scripts, w.request(nil, 0))
	}
	total := 0
	for _, s := range scripts {
		total += len(s)
	}
	for told := 0; told < total; {
		i := w.rng.IntN(len(scripts))
		if len(scripts[i]) == 0 {
			continue
		}
		w.now++
		scripts[i][0]()
		scripts[i] = scripts[i][1:]
		told++
		if w.rng.IntN(10) == 0 {
			w.Expire(w.now)
			w.take()
		}
	}
	w.finish()
	if len(w.out) != len(w.parent) {
		w.t.Errorf("%d spans of %d", len(w.out), len(w.parent))
	}
	for s, parent := range w.parent {
		if parent == nil {
			w.root(s)
			continue
		}
		if s.Parent != parent.ID || s.TraceID != parent.TraceID {
			w.t.Errorf("%v %v is under %v, want %v", s.Kind, s.ID, s.Parent, parent.ID)
		}
	}
}

// request is the events of a request to a service: those of its caller, if that is a span too, and those of
// everything that it causes.
func (w *mesh) request(by **span.Span, depth int) []func() {
	s, c := new(*span.Span), new(*span.Span)
	var inner []func()
	if depth < 3 {
		for range w.rng.IntN(4 - depth) {
			inner = append(inner, w.request(s, depth+1)...)
		}
	}
	w.conns += 2
	clientEnd, serverEnd := w.conns, w.conns+1
	position := w.rng.Uint32()
	isUnix := w.rng.IntN(3) == 0
	introduce := func(id uint64) func() {
		return func() {
			port := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(clientEnd))
			k := Conn{ID: id, NetNS: 1, Local: port, Remote: netip.MustParseAddrPort("10.0.0.1:80")}
			if isUnix {
				k = Conn{ID: id, Socket: 1<<40 + clientEnd, Peer: 1<<40 + serverEnd}
			}
			if id == serverEnd {
				k.Local, k.Remote, k.Socket, k.Peer = k.Remote, k.Local, k.Peer, k.Socket
			}
			w.Conn(k)
		}
	}
	at := over(serverEnd)
	where := []on{at}
	if !isUnix {
		where = append(where, seq(position))
	}
	started := new(int64)
	serve := []func(){introduce(serverEnd), func() {
		*s = w.server(w.now, where...)
		w.parent[*s] = *c
		if by != nil && *c == nil {
			*started = w.now // its call began before
		}
	}}
	serve = append(serve, inner...)
	serve = append(serve, func() { w.end(*s, w.now) }, func() { w.ConnGone(serverEnd) })
	if by == nil {
		return serve
	}
	call := []func(){introduce(clientEnd), func() {
		start := w.now
		if *started != 0 {
			start = *started
		}
		about := []on{over(clientEnd), cause(*by)}
		if !isUnix {
			about = append(about, seq(position))
		}
		*c = w.client(start, about...)
		w.parent[*c] = *by
		if *s != nil {
			w.parent[*s] = *c
		}
	}}
	answer := []func(){func() { w.end(*c, w.now) }, func() { w.ConnGone(clientEnd) }}
	// The end of the call waits for the answer; of the rest, each end keeps its order.
	read := len(serve) - 1 // the server's connection may go later than the answer is read
	events := w.merge(call, serve[:read])
	return append(events, w.merge(answer, serve[read:])...)
}

func (w *mesh) merge(a, b []func()) []func() {
	var out []func()
	first := w.rng.IntN(2) == 0 // mostly the one before the other
	for len(a)+len(b) > 0 {
		fromA := first
		if w.rng.IntN(4) == 0 {
			fromA = !fromA
		}
		if fromA && len(a) > 0 || len(b) == 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return out
}
