// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"breadcrumb/internal/span"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

// stage drives a correlator and keeps what it lets go.
type stage struct {
	*Correlator
	t    testing.TB
	out  []*span.Span
	next uint64
}

func newStage(t testing.TB) *stage { return newStageOf(t, Default()) }

func newStageOf(t testing.TB, cfg Config) *stage {
	return &stage{Correlator: New(cfg), t: t}
}

func spanID(n uint64) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], n)
	return id
}

func traceID(n uint64) (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func wire(traceN, spanN uint64) span.Context {
	return span.Context{TraceID: traceID(traceN), SpanID: spanID(spanN), Flags: trace.FlagsSampled, TraceState: "v=1"}
}

// on is what a request is about: a part of its evidence, or its wire context.
type on func(*span.Span)

func over(id uint64) on { return func(s *span.Span) { s.Evidence.Conn = id } }

func seq(n uint32) on {
	return func(s *span.Span) { s.Evidence.Seq, s.Evidence.HasSeq = n, true }
}

func cause(of *span.Span) on {
	return func(s *span.Span) { s.Evidence.Cause, s.Evidence.CauseSource = of.ID, span.SourceThread }
}

func goroutine(id uint64) on { return func(s *span.Span) { s.Evidence.Task = id } }

func inherited(s *span.Span) {
	s.Evidence.Inherited, s.Evidence.CauseSource = true, span.SourceGoroutine
}

func header(c span.Context) on { return func(s *span.Span) { s.Wire = c } }

// begin tells of a request that started at time start.
func (g *stage) begin(kind trace.SpanKind, start int64, about ...on) *span.Span {
	g.next++
	s := &span.Span{Kind: kind, ID: spanID(g.next), Start: start, Evidence: span.Evidence{PID: 1}}
	for _, f := range about {
		f(s)
	}
	g.Add(s)
	return s
}

func (g *stage) server(start int64, about ...on) *span.Span {
	return g.begin(trace.SpanKindServer, start, about...)
}

func (g *stage) client(start int64, about ...on) *span.Span {
	return g.begin(trace.SpanKindClient, start, about...)
}

// end tells of the end of a request, and returns what was let go for it.
func (g *stage) end(s *span.Span, at int64) []*span.Span {
	s.State, s.End = span.Done, at
	g.Add(s)
	return g.take()
}

func (g *stage) lost(s *span.Span) []*span.Span {
	s.State = span.Lost
	g.Add(s)
	return g.take()
}

func (g *stage) take() []*span.Span {
	taken := append([]*span.Span(nil), g.Take()...)
	g.out = append(g.out, taken...)
	return taken
}

// finish lets everything go, and looks at what is left behind.
func (g *stage) finish() {
	g.t.Helper()
	g.Flush()
	g.take()
	g.check()
	if len(g.nodes) != 0 {
		g.t.Errorf("%d nodes are left", len(g.nodes))
	}
	if g.Held() != 0 || g.Waiting() != 0 || g.drifting.n != 0 || g.trials.n != 0 || len(g.gone) != 0 || g.calls.n != 0 {
		g.t.Errorf("%d spans are held, %d wait, %d connections linger", g.Held(), g.Waiting(), len(g.gone))
	}
}

// check asks what must hold at any time.
func (g *stage) check() {
	g.t.Helper()
	exported := map[trace.SpanID]*span.Span{}
	for _, s := range g.out {
		if exported[s.ID] != nil {
			g.t.Errorf("%v was let go twice", s.ID)
		}
		if !s.TraceID.IsValid() {
			g.t.Errorf("%v has no trace", s.ID)
		}
		switch parent := exported[s.Parent]; {
		case !s.Parent.IsValid():
			if s.Source != span.SourceNone {
				g.t.Errorf("%v is a root by %v", s.ID, s.Source)
			}
		case s.Source == span.SourceHeader:
			if s.Parent != s.Wire.SpanID || s.TraceID != s.Wire.TraceID {
				g.t.Errorf("%v is in %v under %v, and its header says %v under %v", s.ID, s.TraceID, s.Parent, s.Wire.TraceID, s.Wire.SpanID)
			}
		case parent == nil:
			g.t.Errorf("%v was let go under %v, which was not (%v)", s.ID, s.Parent, s.Source)
		case parent.TraceID != s.TraceID:
			g.t.Errorf("%v is in %v, its parent in %v", s.ID, s.TraceID, parent.TraceID)
		}
		exported[s.ID] = s
	}
	free := map[*node]bool{}
	for _, n := range g.free {
		if free[n] || n.refs != 0 {
			g.t.Errorf("a node is free twice, or has %d references", n.refs)
		}
		free[n] = true
	}
	for id, n := range g.nodes {
		if free[n] {
			g.t.Errorf("%v is known, and its node is free", id)
		}
	}
}

// child says whether s hangs under parent by the rule.
func (g *stage) child(s, parent *span.Span, by span.Source) {
	g.t.Helper()
	if s.Parent != parent.ID || s.TraceID != parent.TraceID || s.Source != by {
		g.t.Errorf("%v is in %v under %v by %q, want in %v under %v by %q", s.ID, s.TraceID, s.Parent, s.Source, parent.TraceID, parent.ID, by)
	}
}

func (g *stage) root(s *span.Span) {
	g.t.Helper()
	if s.Parent.IsValid() || s.Source != span.SourceNone || !s.TraceID.IsValid() || s.Flags != trace.FlagsSampled {
		g.t.Errorf("%v is in %v under %v by %q with flags %v, want a root", s.ID, s.TraceID, s.Parent, s.Source, s.Flags)
	}
}

// underHeader says whether s hangs under what its header names.
func (g *stage) underHeader(s *span.Span) {
	g.t.Helper()
	if s.Parent != s.Wire.SpanID || s.TraceID != s.Wire.TraceID || s.Source != span.SourceHeader || s.TraceState != s.Wire.TraceState {
		g.t.Errorf("%v is in %v under %v by %q, want in %v under %v by its header", s.ID, s.TraceID, s.Parent, s.Source, s.Wire.TraceID, s.Wire.SpanID)
	}
}

func (g *stage) released(got []*span.Span, want ...*span.Span) {
	g.t.Helper()
	ids := func(spans []*span.Span) []trace.SpanID {
		ids := []trace.SpanID{}
		for _, s := range spans {
			ids = append(ids, s.ID)
		}
		return ids
	}
	if diff := cmp.Diff(ids(want), ids(got)); diff != "" {
		g.t.Errorf("let go (-want +got):\n%s", diff)
	}
}

func TestCallIsChildOfTheRequestThatCausedIt(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(g *stage)
	}{
		{"parent goes first", func(g *stage) {
			s := g.server(100)
			c := g.client(110, cause(s))
			g.released(g.end(c, 120))
			if g.Held() != 1 {
				t.Errorf("%d are held", g.Held())
			}
			g.released(g.end(s, 130), s, c)
			g.root(s)
			g.child(c, s, span.SourceThread)
		}},
		{"many calls in the order in which they ended", func(g *stage) {
			s := g.server(100)
			a, b, c := g.client(110, cause(s)), g.client(111, cause(s)), g.client(112, cause(s))
			g.end(b, 113)
			g.end(a, 114)
			g.end(c, 115)
			g.released(g.end(s, 130), s, b, a, c)
		}},
		{"call that outlives its parent", func(g *stage) {
			s := g.server(100)
			c := g.client(110, cause(s))
			g.released(g.end(s, 120), s)
			g.released(g.end(c, 130), c)
			g.child(c, s, span.SourceThread)
		}},
		{"call of a goroutine that inherited its request", func(g *stage) {
			s := g.server(100, goroutine(5000))
			c := g.client(110, goroutine(5017), cause(s), inherited)
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceGoroutine)
		}},
		{"goroutine whose id is from an old batch", func(g *stage) {
			g.server(90, goroutine(5000))
			s := g.server(100, goroutine(30))
			c := g.client(110, goroutine(5000-goidSlack), cause(s), inherited)
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceGoroutine)
		}},
		{"thread of a program of goroutines that was not known for one yet", func(g *stage) {
			g.Moved(1, 7, 1, in)
			s := g.server(100, of(golang), over(1))
			g.Moved(1, 7, 2, out)
			c := g.client(110, of(golang), over(2), cause(s), func(s *span.Span) { s.Evidence.CauseSource = span.SourceThread })
			g.end(c, 120)
			g.end(s, 130)
			g.root(c)
		}},
		{"goroutine that is older than the request", func(g *stage) {
			g.server(90, goroutine(5000))
			s := g.server(100, goroutine(30))
			c := g.client(110, goroutine(5000-goidSlack-1), cause(s), inherited)
			g.end(c, 120)
			g.end(s, 130)
			g.root(c)
			if g.Stats().RefusedStale != 1 {
				t.Errorf("stats: %+v", g.Stats())
			}
		}},
		{"old goroutine that read the request itself", func(g *stage) {
			g.server(90, goroutine(5000))
			s := g.server(100, goroutine(30))
			c := g.client(110, goroutine(30), cause(s))
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceThread)
		}},
		{"goroutine ids of another process", func(g *stage) {
			g.server(90, goroutine(5000), func(s *span.Span) { s.Evidence.PID = 2 })
			s := g.server(100, goroutine(30))
			c := g.client(110, goroutine(40), cause(s), inherited)
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceGoroutine)
		}},
		{"goroutine ids begin anew with the process", func(g *stage) {
			g.server(90, goroutine(5000))
			g.Exit(1)
			s := g.server(100, goroutine(30))
			c := g.client(110, goroutine(40), cause(s), inherited)
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceGoroutine)
		}},
		{"cause that is exported already", func(g *stage) {
			s := g.server(100)
			g.end(s, 105)
			c := g.client(110, cause(s))
			g.released(g.end(c, 120), c)
			g.root(c)
		}},
		{"cause that had ended, and waits for its own parent", func(g *stage) {
			s := g.server(100)
			c := g.client(101, cause(s), over(1))
			g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
			g.Conn(tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1))
			c2 := g.client(102, cause(s), over(1), seq(7))
			s2 := g.server(103, over(2), seq(7))
			g.end(s2, 105)
			late := g.client(106, cause(s2))
			g.end(late, 107)
			g.root(late)
			if g.Stats().RefusedEnded != 1 {
				t.Errorf("stats: %+v", g.Stats())
			}
			g.end(c2, 108)
			g.end(c, 109)
			g.end(s, 110)
			g.child(s2, c2, span.SourceLocalConnection)
		}},
		{"call that began while the answer was sent", func(g *stage) {
			g.Conn(tcp(1, "127.0.0.1:80", "127.0.0.1:4000", 1))
			s := g.server(100, over(1), seq(7))
			g.end(s, 110) // waits for its caller
			c := g.client(110, cause(s))
			g.end(c, 120)
			g.Flush()
			g.released(g.take(), s, c)
			g.child(c, s, span.SourceThread)
		}},
		{"cause that nobody told of", func(g *stage) {
			c := g.client(110, cause(&span.Span{ID: spanID(77)}))
			g.released(g.end(c, 120), c)
			g.root(c)
		}},
		{"cause that is a call", func(g *stage) {
			a := g.client(100)
			c := g.client(110, cause(a))
			g.released(g.end(c, 120), c)
			g.root(c)
			g.end(a, 130)
		}},
		{"cause that is itself", func(g *stage) {
			c := g.client(110, func(s *span.Span) { s.Evidence.Cause = s.ID })
			g.end(c, 120)
			g.root(c)
		}},
		{"cause of a request that is served", func(g *stage) {
			a := g.server(100)
			s := g.server(110, cause(a))
			g.end(s, 120)
			g.root(s)
			g.end(a, 130)
		}},
		{"alias", func(g *stage) {
			s := g.server(100)
			alias := spanID(1 << 40)
			g.Alias(alias, s)
			c := g.client(110, cause(&span.Span{ID: alias}))
			g.end(c, 120)
			g.released(g.end(s, 130), s, c)
			g.child(c, s, span.SourceThread)
			late := g.client(140, cause(&span.Span{ID: alias}))
			g.end(late, 150)
			g.root(late)
		}},
		{"alias of what is not known", func(g *stage) {
			s := g.server(100)
			g.end(s, 110)
			g.Alias(spanID(1<<40), s)
		}},
		{"alias that is a name already", func(g *stage) {
			a, b := g.server(100), g.server(101)
			g.Alias(a.ID, b)
			c := g.client(110, cause(a))
			g.end(c, 120)
			g.end(b, 130)
			g.end(a, 131)
			g.child(c, a, span.SourceThread)
		}},
		{"lost parent", func(g *stage) {
			s := g.server(100)
			done, open := g.client(110, cause(s)), g.client(111, cause(s))
			g.end(done, 120)
			g.released(g.lost(s), done)
			g.released(g.end(open, 130), open)
			g.root(done)
			g.root(open)
			if done.TraceID == open.TraceID {
				t.Error("two roots share a trace")
			}
		}},
		{"parent that is lost when its children are gone", func(g *stage) {
			s := g.server(100)
			c := g.client(110, cause(s))
			g.released(g.lost(c))
			g.released(g.end(s, 120), s)
		}},
		{"end without a begin", func(g *stage) {
			g.released(g.end(&span.Span{ID: spanID(9)}, 10))
			g.released(g.lost(&span.Span{ID: spanID(9)}))
		}},
		{"two ends", func(g *stage) {
			s := g.server(100)
			c := g.client(110, cause(s))
			g.end(c, 120)
			g.released(g.end(c, 121))
			g.released(g.lost(c))
			g.released(g.end(s, 130), s, c)
			g.released(g.end(s, 131))
		}},
		{"two requests of one name", func(g *stage) {
			a := g.server(100)
			g.next--
			b := g.server(101)
			if a.ID == b.ID {
				t.Error("they share a name")
			}
			g.released(g.end(a, 110), a)
			g.released(g.end(b, 110), b)
		}},
		{"begun twice", func(g *stage) {
			s := g.server(100)
			g.Add(s)
			g.released(g.end(s, 110), s)
		}},
	} {
		t.Run(test.name, func(t2 *testing.T) {
			t = t2
			g := newStage(t)
			test.run(g)
			for _, n := range g.nodes {
				if n.state == underWay {
					g.end(n.span, 1000)
				}
			}
			g.finish()
		})
	}
}

func tcp(id uint64, local, remote string, netns uint32) Conn {
	return Conn{ID: id, NetNS: netns, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}

func unixConn(id, socket, peer uint64) Conn { return Conn{ID: id, Socket: socket, Peer: peer} }

// TestBothEndsOfAConnectionAreJoined takes the events of one request as both ends tell them, in every order
// in which they can come: those of an end keep theirs.
func TestBothEndsOfAConnectionAreJoined(t *testing.T) {
	const clientConn, serverConn = 1, 2
	for _, test := range []struct {
		name           string
		client, server Conn
		seqs           []on // of the client's, of the server's
		join           bool
		waits          bool // a server span that is alone waits for its caller
	}{
		{"loopback", tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1), []on{seq(7), seq(7)}, true, true},
		{"IPv6 loopback", tcp(1, "[::1]:4000", "[::1]:80", 1), tcp(2, "[::1]:80", "[::1]:4000", 1), []on{seq(7), seq(7)}, true, true},
		{"loopback of two namespaces", tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 2), []on{seq(7), seq(7)}, false, true},
		{"own address", tcp(1, "10.0.0.1:4000", "10.0.0.1:80", 1), tcp(2, "10.0.0.1:80", "10.0.0.1:4000", 1), []on{seq(7), seq(7)}, true, true},
		{"between namespaces", tcp(1, "10.0.0.2:4000", "10.0.0.3:80", 1), tcp(2, "10.0.0.3:80", "10.0.0.2:4000", 2), []on{seq(7), seq(7)}, true, false},
		{"v4-mapped", tcp(1, "[::ffff:127.0.0.1]:4000", "[::ffff:127.0.0.1]:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1), []on{seq(7), seq(7)}, true, true},
		{"sequence wraps", tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1), []on{seq(0), seq(0)}, true, true},
		{"the client's FIN in the same read", tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1), []on{seq(1<<32 - 1), seq(0)}, true, true},
		{"other bytes before", tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1), []on{seq(8), seq(7)}, false, true},
		{"other bytes", tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1), []on{seq(7), seq(9)}, false, true},
		{"other port", tcp(1, "127.0.0.1:4001", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1), []on{seq(7), seq(7)}, false, true},
		{"Unix", unixConn(1, 0xa, 0xb), unixConn(2, 0xb, 0xa), []on{over(clientConn), over(serverConn)}, true, true},
		{"Unix, others", unixConn(1, 0xa, 0xc), unixConn(2, 0xb, 0xd), []on{over(clientConn), over(serverConn)}, false, true},
	} {
		// The client's events are Conn, Open, Done, ConnGone; so are the server's.
		for order := range 1 << 8 {
			var mine, theirs int
			for i := range 8 {
				if order>>i&1 == 0 {
					mine++
				} else {
					theirs++
				}
			}
			if mine != 4 || theirs != 4 {
				continue
			}
			g := newStage(t)
			var c, s *span.Span
			steps := [2][]func(){
				{
					func() { g.Conn(test.client) },
					func() { c = g.client(100, over(clientConn), test.seqs[0]) },
					func() { g.end(c, 200) },
					func() { g.ConnGone(clientConn) },
				},
				{
					func() { g.Conn(test.server) },
					func() { s = g.server(110, over(serverConn), test.seqs[1]) },
					func() { g.end(s, 190) },
					func() { g.ConnGone(serverConn) },
				},
			}
			// A call is answered after it was read, by a server that has not yet closed; else it was given up.
			answered := false
			var trail string
			for i := range 8 {
				side := order >> i & 1
				if side == 0 && len(steps[0]) == 2 {
					c.Unanswered = !answered
				}
				steps[side][0]()
				steps[side] = steps[side][1:]
				if side == 1 && len(steps[1]) <= 2 {
					answered = true
				}
				trail += string("cs"[side])
			}
			// Who is not of this node as far as is known must be told of before the request has ended.
			known := test.waits || strings.Count(trail[:strings.Index(trail, "c")], "s") < 3 &&
				strings.Count(trail[:strings.Index(trail, "s")], "c") < 3
			if test.join && known {
				// What is let go has both spans by now, without an Expire.
				g.released(g.out, c, s)
				g.child(s, c, span.SourceLocalConnection)
				g.root(c)
			} else {
				g.finish()
				g.root(s)
				g.root(c)
			}
			g.finish()
			if len(g.conns) != 0 || len(g.ends) != 0 {
				t.Errorf("%d connections and %d ends are left", len(g.conns), len(g.ends))
			}
			if t.Failed() {
				t.Fatalf("%s: order %s", test.name, trail)
			}
		}
	}
}

func TestConnectionsOfAKnownAddressAreOfThisNode(t *testing.T) {
	g := newStage(t)
	g.Conn(tcp(9, "10.0.0.2:555", "8.8.8.8:443", 1)) // 10.0.0.2 is here
	g.Conn(tcp(2, "10.0.0.3:80", "10.0.0.2:4000", 2))
	s := g.server(110, over(2), seq(7))
	g.released(g.end(s, 120)) // waits
	g.Conn(tcp(1, "10.0.0.2:4000", "10.0.0.3:80", 1))
	c := g.client(100, over(1), seq(7))
	g.released(g.end(c, 130), c, s)
	g.child(s, c, span.SourceLocalConnection)
	for i := range uint64(maxAddrs + 5) {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 1)
		g.Conn(Conn{ID: 100 + i, Local: a, Remote: a})
		g.ConnGone(100 + i)
	}
	if len(g.addrs) > maxAddrs {
		t.Errorf("%d addresses are kept", len(g.addrs))
	}
	g.finish()
}

func TestPipelinedRequestsAreJoinedByPosition(t *testing.T) {
	g := newStage(t)
	g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
	g.Conn(tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1))
	// Across the wrap of the sequence numbers, the server's last first.
	seqs := []uint32{0xffffff00, 0xffffffff, 0x40, 0x60}
	var c, s [4]*span.Span
	for i := range c {
		c[i] = g.client(100+int64(i), over(1), seq(seqs[i]))
	}
	for i := len(s) - 1; i >= 0; i-- {
		s[i] = g.server(110+int64(i), over(2), seq(seqs[i]))
	}
	for i := range s {
		g.released(g.end(s[i], 200))
		g.released(g.end(c[i], 210), c[i], s[i])
		g.child(s[i], c[i], span.SourceLocalConnection)
	}
	g.finish()
}

func TestCallNeverStartsAfterItsRequest(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		g := newStage(t)
		g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
		g.Conn(tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1))
		var c, s *span.Span
		if clientFirst {
			c = g.client(120, over(1), seq(7))
		}
		s = g.server(110, over(2), seq(7))
		if !clientFirst {
			c = g.client(120, over(1), seq(7))
		}
		g.end(s, 130)
		g.end(c, 140)
		if c.Start != 110 || s.Start != 110 {
			t.Errorf("call at %d, request at %d", c.Start, s.Start)
		}
		g.finish()
	}
}

func TestServerSpanWaitsForItsCallerAndNoLonger(t *testing.T) {
	cfg := Config{MaxHeld: 10, JoinWait: 1000}
	local := func(g *stage) *span.Span {
		g.Conn(tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1))
		s := g.server(100, over(2), seq(7))
		g.released(g.end(s, 200))
		return s
	}
	t.Run("expires", func(t *testing.T) {
		g := newStageOf(t, cfg)
		s := local(g)
		g.Expire(1200)
		g.released(g.take())
		g.Expire(1201)
		g.released(g.take(), s)
		g.root(s)
		g.finish()
	})
	t.Run("the clock is set back", func(t *testing.T) {
		g := newStageOf(t, cfg)
		s := local(g)
		g.Expire(-801)
		g.released(g.take(), s)
		g.finish()
	})
	t.Run("only the first of a connection waits", func(t *testing.T) {
		g := newStageOf(t, cfg)
		s := local(g)
		s2 := g.server(300, over(2), seq(8))
		g.released(g.end(s2, 400), s2)
		g.Flush()
		g.released(g.take(), s)
		g.finish()
	})
	t.Run("remote callers are not waited for", func(t *testing.T) {
		g := newStageOf(t, cfg)
		g.Conn(tcp(2, "10.0.0.1:80", "10.0.0.9:4000", 1))
		s := g.server(100, over(2), seq(7))
		g.released(g.end(s, 200), s)
		g.finish()
	})
	t.Run("unknown connections are not waited for", func(t *testing.T) {
		g := newStageOf(t, cfg)
		s := g.server(100, over(99), seq(7))
		g.released(g.end(s, 200), s)
		g.finish()
	})
	t.Run("calls do not wait for their servers", func(t *testing.T) {
		g := newStageOf(t, cfg)
		g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
		c := g.client(100, over(1), seq(7))
		g.released(g.end(c, 200), c)
		g.finish()
	})
	t.Run("the caller's end comes after the connection is gone", func(t *testing.T) {
		g := newStageOf(t, cfg)
		s := local(g)
		g.ConnGone(2)
		g.Expire(1200)
		g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
		c := g.client(90, over(1), seq(7))
		g.released(g.take())
		g.released(g.end(c, 210), c, s)
		g.child(s, c, span.SourceLocalConnection)
		g.ConnGone(1)
		g.finish()
	})
	t.Run("the caller's end never comes after the connection is gone", func(t *testing.T) {
		g := newStageOf(t, cfg)
		s := local(g)
		g.ConnGone(2)
		g.Expire(1201)
		g.released(g.take(), s)
		if len(g.ends) != 0 || len(g.gone) != 0 {
			t.Errorf("%d ends are left", len(g.ends))
		}
		g.finish()
	})
	t.Run("both ends are gone", func(t *testing.T) {
		g := newStageOf(t, cfg)
		s := local(g)
		g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
		g.ConnGone(1)
		g.released(g.take())
		g.ConnGone(2)
		g.released(g.take(), s)
		g.finish()
	})
	t.Run("no more than there is room for", func(t *testing.T) {
		g := newStageOf(t, cfg)
		for i := range uint64(12) {
			id, port := 100+i, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(5000+i))
			g.Conn(Conn{ID: id, NetNS: 1, Local: netip.MustParseAddrPort("127.0.0.1:80"), Remote: port})
			g.end(g.server(100, over(id), seq(7)), 200)
		}
		if g.Waiting() != 10 || len(g.out) != 2 || g.Stats().Orphaned != 0 {
			t.Errorf("%d wait, %d are let go, %+v", g.Waiting(), len(g.out), g.Stats())
		}
		g.finish()
	})
}

// TestCallThatWasGivenUpIsStillRead ends calls before the server has read them.
func TestCallThatWasGivenUpIsStillRead(t *testing.T) {
	cfg := Config{MaxHeld: 10, JoinWait: 1000, UnreadWait: 5000}
	// call is one that ends at 200, and its connection with it.
	call := func(g *stage, id uint64, port uint16, unanswered bool, about ...on) *span.Span {
		g.Conn(Conn{ID: id, NetNS: 1, Local: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), Remote: netip.MustParseAddrPort("127.0.0.1:80")})
		c := g.client(100, append(about, over(id), seq(7))...)
		c.Unanswered = unanswered
		g.end(c, 200)
		g.ConnGone(id)
		return c
	}
	serve := func(g *stage, id uint64, at int64) *span.Span {
		g.Conn(tcp(id, "127.0.0.1:80", "127.0.0.1:4000", 1))
		s := g.server(at, over(id), seq(7))
		g.end(s, at+100)
		g.ConnGone(id)
		return s
	}
	t.Run("is read late", func(t *testing.T) {
		g := newStageOf(t, cfg)
		c := call(g, 1, 4000, true)
		g.released(g.out, c)
		g.Expire(5200)
		s := serve(g, 2, 5200)
		g.released(g.out, c, s)
		g.child(s, c, span.SourceLocalConnection)
		g.finish()
	})
	t.Run("is read too late", func(t *testing.T) {
		g := newStageOf(t, cfg)
		call(g, 1, 4000, true)
		g.Expire(5201)
		if len(g.ends) != 0 || len(g.gone) != 0 || g.calls.n != 0 {
			t.Errorf("%d ends, %d connections and %d calls are left", len(g.ends), len(g.gone), g.calls.n)
		}
		s := serve(g, 2, 5300)
		g.finish()
		g.root(s)
	})
	t.Run("its own parent is under way", func(t *testing.T) {
		g := newStageOf(t, cfg)
		first := g.server(50)
		c := call(g, 1, 4000, true, cause(first))
		g.Expire(6000) // what is held is not forgotten
		s := serve(g, 2, 6100)
		g.released(g.out)
		g.released(g.end(first, 6300), first, c, s)
		g.child(s, c, span.SourceLocalConnection)
		g.child(c, first, span.SourceThread)
		g.finish()
	})
	t.Run("its parent was let go before it is read", func(t *testing.T) {
		g := newStageOf(t, cfg)
		first := g.server(50)
		c := call(g, 1, 4000, true, cause(first))
		g.released(g.end(first, 300), first, c)
		s := serve(g, 2, 400)
		g.child(s, c, span.SourceLocalConnection)
		g.finish()
	})
	t.Run("was answered", func(t *testing.T) {
		g := newStageOf(t, cfg)
		call(g, 1, 4000, false)
		if g.calls.n != 0 {
			t.Errorf("%d calls are remembered", g.calls.n)
		}
		g.finish()
	})
	t.Run("of another node", func(t *testing.T) {
		g := newStageOf(t, cfg)
		g.Conn(tcp(1, "10.0.0.1:4000", "10.0.0.9:80", 1))
		c := g.client(100, over(1), seq(7))
		c.Unanswered = true
		g.released(g.end(c, 200), c)
		g.ConnGone(1)
		if g.calls.n != 0 {
			t.Errorf("%d calls are remembered", g.calls.n)
		}
		g.finish()
	})
	t.Run("on a connection that the server closes unread", func(t *testing.T) {
		g := newStageOf(t, cfg)
		g.Conn(tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1))
		call(g, 1, 4000, true)
		if g.calls.n != 1 {
			t.Errorf("%d calls are remembered", g.calls.n)
		}
		g.ConnGone(2)
		if g.calls.n != 0 {
			t.Errorf("%d calls are remembered", g.calls.n)
		}
		g.finish()
	})
	t.Run("many", func(t *testing.T) {
		g := newStageOf(t, cfg)
		for i := range uint64(maxUnread + 10) {
			call(g, 10+i, uint16(10_000+i), true)
		}
		if g.calls.n != maxUnread || len(g.out) != maxUnread+10 {
			t.Errorf("%d calls are remembered, %d were let go", g.calls.n, len(g.out))
		}
		g.Expire(5201)
		if g.calls.n != 0 || len(g.ends) != 0 {
			t.Errorf("%d calls and %d ends are left", g.calls.n, len(g.ends))
		}
		g.finish()
	})
}

func TestLostHalvesOfUnixConnectionsAreNotJoinedToOthers(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(g *stage)
	}{
		{"the first call was not told", func(g *stage) {
			s1 := g.server(100, over(2))
			g.end(s1, 110) // waits
			c2 := g.client(120, over(1))
			s2 := g.server(121, over(2))
			g.end(s2, 130)
			g.end(c2, 140)
			g.child(s2, c2, span.SourceLocalConnection)
			g.Flush()
			g.take()
			g.root(s1)
		}},
		{"the first request was not told", func(g *stage) {
			c1 := g.client(90, over(1))
			g.end(c1, 110)
			c2 := g.client(120, over(1))
			s2 := g.server(121, over(2))
			g.end(s2, 130)
			g.end(c2, 140)
			g.child(s2, c2, span.SourceLocalConnection)
		}},
		{"the first call was given up", func(g *stage) {
			c1 := g.client(90, over(1))
			g.lost(c1)
			s1 := g.server(95, over(2))
			g.end(s1, 110)
			c2 := g.client(120, over(1))
			g.end(c2, 140)
			g.Flush()
			g.take()
			g.root(s1)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newStage(t)
			g.Conn(unixConn(1, 0xa, 0xb))
			g.Conn(unixConn(2, 0xb, 0xa))
			test.run(g)
			g.finish()
		})
	}
}

func TestReusedAddressesAreJoinedAnew(t *testing.T) {
	client, server := tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1), tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1)
	for _, known := range []string{"c", "s", "cs", "sc"} { // ends of the old connection that were told, and never their end
		for _, again := range []string{"cs", "sc"} {
			g := newStage(t)
			id := uint64(100)
			introduce := func(ends string) (clientID, serverID uint64) {
				for _, e := range ends {
					id++
					k := client
					if e == 's' {
						k, serverID = server, id
					} else {
						clientID = id
					}
					k.ID = id
					g.Conn(k)
				}
				return clientID, serverID
			}
			oldC, oldS := introduce(known)
			newC, newS := introduce(again)
			c := g.client(100, over(newC), seq(7))
			s := g.server(110, over(newS), seq(7))
			g.ConnGone(oldC)
			g.end(s, 120)
			g.ConnGone(oldS)
			g.end(c, 130)
			g.child(s, c, span.SourceLocalConnection)
			c2 := g.client(200, over(newC), seq(9))
			s2 := g.server(210, over(newS), seq(9))
			g.end(s2, 220)
			g.ConnGone(newS)
			g.end(c2, 230)
			g.ConnGone(newC)
			g.child(s2, c2, span.SourceLocalConnection)
			g.finish()
			if len(g.conns) != 0 || len(g.ends) != 0 {
				t.Errorf("%d connections and %d ends are left", len(g.conns), len(g.ends))
			}
			if t.Failed() {
				t.Fatalf("known %s, again %s", known, again)
			}
		}
	}
}

func TestPipelineOfManyCallsIsBounded(t *testing.T) {
	g := newStage(t)
	g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
	g.Conn(tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1))
	var calls []*span.Span
	for i := range uint32(3 * maxPending) {
		calls = append(calls, g.client(100, over(1), seq(20*i)))
	}
	p := g.conns[1].pair
	if len(p.pending) != maxPending {
		t.Errorf("%d are pending", len(p.pending))
	}
	last := g.server(110, over(2), seq(20*(3*maxPending-1)))
	first := g.server(110, over(2), seq(0))
	g.end(last, 120)
	g.end(first, 120)
	for _, c := range calls {
		g.end(c, 130)
	}
	g.child(last, calls[len(calls)-1], span.SourceLocalConnection)
	g.finish()
	g.root(first)
}

// TestContextsFromTheWire follows a request from a driver through S1, its call C1, and S2.
func TestContextsFromTheWire(t *testing.T) {
	const X, Y, Z = 0x71, 0x72, 0x73
	type result struct{ s1, c1, s2 string } // parents: a letter for a wire context's span, or a span's name
	for _, test := range []struct {
		name       string
		s1, c1, s2 span.Context
		want       result
	}{
		{name: "none", want: result{"", "s1", "c1"}},
		{name: "proxy passes the header on", s1: wire(1, X), c1: wire(1, X), s2: wire(1, X), want: result{"X", "s1", "c1"}},
		{name: "an SDK in the process made its own", s1: wire(1, X), c1: wire(1, Y), s2: wire(1, Y), want: result{"X", "Y", "c1"}},
		{name: "an SDK in a process without a context", c1: wire(2, Y), s2: wire(2, Y), want: result{"", "Y", "c1"}},
		{name: "another trace", s1: wire(1, X), c1: wire(2, Y), s2: wire(2, Y), want: result{"X", "Y", "c1"}},
		{name: "the process drops the header", s1: wire(1, X), want: result{"X", "s1", "c1"}},
		{name: "the header is changed on the way", s1: wire(1, X), c1: wire(1, X), s2: wire(3, Z), want: result{"X", "s1", "Z"}},
		{name: "the call names the request itself", c1: wire(0, 0), want: result{"", "s1", "c1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newStage(t)
			g.Conn(tcp(1, "127.0.0.1:4000", "127.0.0.1:80", 1))
			g.Conn(tcp(2, "127.0.0.1:80", "127.0.0.1:4000", 1))
			s1 := g.server(100, header(test.s1))
			c1 := g.client(110, cause(s1), over(1), seq(7), header(test.c1))
			s2 := g.server(120, over(2), seq(7), header(test.s2))
			g.end(s2, 130)
			g.end(c1, 140)
			g.released(g.end(s1, 150), s1, c1, s2)
			names := map[trace.SpanID]string{{}: "", spanID(X): "X", spanID(Y): "Y", spanID(Z): "Z", s1.ID: "s1", c1.ID: "c1"}
			got := result{names[s1.Parent], names[c1.Parent], names[s2.Parent]}
			if got != test.want {
				t.Errorf("parents are %+v, want %+v", got, test.want)
			}
			for _, s := range g.out {
				switch {
				case s.Parent == s.Wire.SpanID && s.Parent.IsValid():
					g.underHeader(s)
				case s == c1:
					g.child(c1, s1, span.SourceThread)
				case s == s2:
					g.child(s2, c1, span.SourceLocalConnection)
				}
			}
			g.finish()
		})
	}
}

func TestContextOfALostParentIsNotLost(t *testing.T) {
	g := newStage(t)
	s := g.server(100, header(wire(1, 0x71)))
	c := g.client(110, cause(s), header(wire(1, 0x71)))
	g.end(c, 120)
	g.released(g.lost(s), c)
	g.underHeader(c)
	g.finish()
}

func TestTraceStateAndFlagsComeFromTheParent(t *testing.T) {
	g := newStage(t)
	w := wire(1, 0x71)
	w.Flags = 2
	s := g.server(100, header(w))
	c := g.client(110, cause(s))
	g.end(c, 120)
	g.end(s, 130)
	if c.TraceState != "v=1" || c.Flags != 2 || s.TraceState != "v=1" || s.Flags != 2 {
		t.Errorf("request %q %v, call %q %v", s.TraceState, s.Flags, c.TraceState, c.Flags)
	}
	g.finish()
}

func TestHeldSpansAreBounded(t *testing.T) {
	g := newStageOf(t, Config{MaxHeld: 3, JoinWait: 1000})
	s := g.server(100)
	var calls []*span.Span
	for range 5 {
		c := g.client(110, cause(s))
		calls = append(calls, c)
		g.end(c, 120)
	}
	g.released(g.out, calls[0], calls[1])
	if g.Held() != 3 || g.Stats().Orphaned != 2 {
		t.Errorf("%d are held, %+v", g.Held(), g.Stats())
	}
	// Nodes that were let go early are used again while their parent goes on.
	other := g.server(200)
	next := g.client(210, cause(other))
	g.released(g.end(next, 220), calls[2])
	g.released(g.end(s, 300), s, calls[3], calls[4])
	if g.Held() != 1 {
		t.Errorf("%d are held", g.Held())
	}
	g.released(g.end(other, 310), other, next)
	for _, c := range calls[:3] {
		g.root(c)
	}
	g.child(calls[4], s, span.SourceThread)
	g.child(next, other, span.SourceThread)
	g.finish()
}

func TestLongRequestDoesNotGatherWhatIsBehindIt(t *testing.T) {
	g := newStage(t)
	stream := g.server(100)
	g.end(g.client(110, cause(stream)), 120) // held for as long as the stream lasts
	for i := range int64(100_000) {
		s := g.server(200 + i)
		c := g.client(200+i, cause(s))
		g.end(c, 201+i)
		g.end(s, 202+i)
		g.Expire(202 + i)
	}
	if g.Held() != 1 || g.holds.first != g.holds.last || len(g.free) > 10 {
		t.Errorf("%d are held, %d nodes free", g.Held(), len(g.free))
	}
	g.end(stream, 1e6)
	g.finish()
}

func TestSameEventsGiveTheSameTraces(t *testing.T) {
	run := func(seed uint64) []trace.TraceID {
		cfg := Default()
		cfg.Seed = seed
		g := newStageOf(t, cfg)
		for i := range int64(10) {
			g.end(g.server(i), i+1)
		}
		var ids []trace.TraceID
		for _, s := range g.out {
			ids = append(ids, s.TraceID)
		}
		return ids
	}
	a, b, other := run(1), run(1), run(2)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
	seen := map[trace.TraceID]bool{}
	for i, id := range a {
		if id == other[i] || seen[id] {
			t.Errorf("trace %v is of two runs, or of two requests", id)
		}
		seen[id] = true
	}
}
