// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"breadcrumb/bpf"
	"breadcrumb/correlate"
	"breadcrumb/internal/eventtest"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/http1"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	request  = "GET /item/1 HTTP/1.1\r\nHost: shop\r\n\r\n"
	response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

// bench is a table of connections with a kernel side, processes and a sink that only take notes.
type bench struct {
	*probes.Conns
	t       testing.TB
	kernel  eventtest.Kernel
	targets map[uint32]*span.Target
	asked   []uint32 // processes that were looked for
	notes   []string // what kernel and sink were told
	opened  []*span.Span
	done    []*span.Span
	lost    []*span.Span
}

// drop gives up all connections of a process.
func (b *bench) drop(pid uint32, t int64) { b.Drop(b.Of(pid, b.targets[pid].Account), t) }

func newBench(t testing.TB, protocols ...probes.Protocol) *bench {
	b := &bench{t: t, targets: map[uint32]*span.Target{}}
	for pid := range uint32(5) {
		b.targets[pid+1] = &span.Target{PID: pid + 1, Account: new(ledger.Account)}
	}
	if protocols == nil {
		protocols = []probes.Protocol{http1.New(http1.Default())}
	}
	b.Conns = probes.NewConns(protocols, b, b, func(pid uint32) *span.Target {
		b.asked = append(b.asked, pid)
		return b.targets[pid]
	})
	return b
}

func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

func (b *bench) Verdict(conn uint64, v bpf.VerdictKind) error {
	b.note("verdict %d on %d", v, conn)
	return nil
}
func (b *bench) Forget(key uint64)                   { b.note("forget %#x", key) }
func (b *bench) Conn(c probes.ConnInfo)              { b.note("conn %d", c.ID) }
func (b *bench) ConnGone(id uint64)                  { b.note("gone %d", id) }
func (b *bench) Alias(id trace.SpanID, s *span.Span) { b.note("alias %v of %v", id, s.ID) }

func (*bench) PeerEnded(uint64) {}

func (*bench) HandOff(uint32, uint64, trace.SpanID) {}
func (*bench) Caller(trace.SpanID, span.Evidence)   {}

func (b *bench) Job(pid uint32, call, request trace.SpanID, unclaimed int) {
	b.note("job of %d: %v for %v, %d unclaimed", pid, call, request, unclaimed)
}

func (b *bench) Moved(uint32, uint32, uint64, uint8) {}

func (b *bench) Add(s *span.Span) {
	switch s.State {
	case span.Open:
		b.opened = append(b.opened, s)
	case span.Done:
		b.done = append(b.done, s)
	case span.Lost:
		b.lost = append(b.lost, s)
	}
}

// tell hands records over.
func (b *bench) tell(records ...[]byte) {
	for _, r := range records {
		b.Handle(r)
	}
}

// told returns the notes since the last call.
func (b *bench) told() []string {
	notes := b.notes
	b.notes = nil
	return notes
}

func (b *bench) want(notes ...string) {
	b.t.Helper()
	if diff := cmp.Diff(notes, b.told()); diff != "" {
		b.t.Errorf("(-want +got)\n%s", diff)
	}
}

// empty asks that nothing is kept.
func (b *bench) empty() {
	b.t.Helper()
	if byID, byKey, byPID, waiting := b.Tables(); byID+byKey+byPID+waiting != 0 {
		b.t.Errorf("kept: %d by id, %d by key, %d by process, %d waiting", byID, byKey, byPID, waiting)
	}
	for pid, t := range b.targets {
		if open := t.Account.Counts().Open() - int64(len(b.done)); pid == 1 && open != 0 {
			b.t.Errorf("%d spans are done, the account of process %d says %v", len(b.done), pid, t.Account.Counts())
		}
	}
}

// server is a connection over which process 1 is asked by somebody who is not watched.
func (b *bench) server() *eventtest.Socket {
	_, s := b.kernel.TCP(9, 1, "127.0.0.1:4000", "127.0.0.1:80")
	b.tell(s.Open())
	b.told()
	return s
}

func (b *bench) client() *eventtest.Socket {
	c, _ := b.kernel.TCP(1, 9, "127.0.0.1:4000", "127.0.0.1:80")
	b.tell(c.Open())
	b.told()
	return c
}

// spy is a protocol that claims everything and keeps what it is told.
type spy struct {
	conn     *probes.Conn
	server   bool
	chunks   []probes.Chunk
	text     []string
	progress []string
	ends     []string
	err      error
	waiting  bool
	dir      probes.Direction
}

func (s *spy) protocol() probes.Protocol {
	return probes.Protocol{
		Name:   "spy",
		Detect: func(dir probes.Direction, _ []byte) (probes.Verdict, bool) { return probes.Yes, dir == probes.Ingress },
		New: func(c *probes.Conn, server bool) probes.Decoder {
			s.conn, s.server = c, server
			return s
		},
	}
}

func (s *spy) Decode(c *probes.Chunk, _ probes.Out) error {
	s.chunks = append(s.chunks, *c)
	s.text = append(s.text, string(c.Head)+"|"+string(c.Tail))
	return s.err
}

func (s *spy) End(e probes.End, t int64, _ probes.Out) {
	s.ends = append(s.ends, fmt.Sprint(e, " at ", t))
}

func (s *spy) Waiting() (probes.Direction, uint64, bool) { return s.dir, 1 << 40, s.waiting }

func (s *spy) Progress(dir probes.Direction, pos uint64, t int64, _ probes.Out) {
	s.progress = append(s.progress, fmt.Sprint(dir, " to ", pos, " at ", t))
}

func TestConnectionIsDescribed(t *testing.T) {
	for _, test := range []struct {
		name string
		open func(k *eventtest.Kernel) *eventtest.Socket
		want probes.Conn
	}{
		{"IPv4", func(k *eventtest.Kernel) *eventtest.Socket {
			_, s := k.TCP(9, 1, "10.0.0.9:4000", "10.0.0.1:80")
			return s
		}, probes.Conn{LocalAddr: "10.0.0.1", LocalPort: 80, RemoteAddr: "10.0.0.9", RemotePort: 4000, Network: "tcp", Type: "ipv4"}},
		{"IPv6", func(k *eventtest.Kernel) *eventtest.Socket {
			_, s := k.TCP(9, 1, "[fe80::9]:4000", "[fe80::1]:80")
			return s
		}, probes.Conn{LocalAddr: "fe80::1", LocalPort: 80, RemoteAddr: "fe80::9", RemotePort: 4000, Network: "tcp", Type: "ipv6"}},
		{"IPv4 in IPv6", func(k *eventtest.Kernel) *eventtest.Socket {
			_, s := k.TCP(9, 1, "[::ffff:10.0.0.9]:4000", "[::ffff:10.0.0.1]:80")
			return s
		}, probes.Conn{LocalAddr: "10.0.0.1", LocalPort: 80, RemoteAddr: "10.0.0.9", RemotePort: 4000, Network: "tcp", Type: "ipv4"}},
		{"established", func(k *eventtest.Kernel) *eventtest.Socket {
			c, _ := k.TCP(1, 9, "10.0.0.9:4000", "10.0.0.1:80")
			c.Event.Established = 1
			return c
		}, probes.Conn{LocalAddr: "10.0.0.9", LocalPort: 4000, RemoteAddr: "10.0.0.1", RemotePort: 80, Network: "tcp", Type: "ipv4", Established: true}},
		{"Unix", func(k *eventtest.Kernel) *eventtest.Socket {
			_, s := k.Unix(9, 1, "/run/app.sock")
			return s
		}, probes.Conn{LocalAddr: "/run/app.sock", Network: "unix"}},
		{"Unix, abstract", func(k *eventtest.Kernel) *eventtest.Socket {
			c, _ := k.Unix(1, 9, "\x00app")
			return c
		}, probes.Conn{RemoteAddr: "@app", Network: "unix"}},
		{"Unix, the longest path", func(k *eventtest.Kernel) *eventtest.Socket {
			c, _ := k.Unix(1, 9, strings.Repeat("x", 200))
			return c
		}, probes.Conn{RemoteAddr: strings.Repeat("x", 108), Network: "unix"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := new(spy)
			b := newBench(t, s.protocol())
			k := test.open(&b.kernel)
			b.tell(k.Open(), k.Receive("x"))
			test.want.ID, test.want.Target = k.Event.Conn, b.targets[1]
			if s.conn == nil || *s.conn != test.want {
				t.Errorf("%+v, want %+v", s.conn, test.want)
			}
			b.tell(k.Open()) // a second time: nothing
			b.want(fmt.Sprint("conn ", k.Event.Conn), fmt.Sprintf("verdict %d on %d", bpf.VerdictHTTPServer, k.Event.Conn))
			b.tell(k.End(eventtest.Closed))
			b.empty()
		})
	}
}

// infos keeps what the correlator is told of connections.
type infos struct {
	*bench
	got []probes.ConnInfo
}

func (i *infos) Conn(c probes.ConnInfo) { i.got = append(i.got, c) }

func TestCorrelatorIsToldWhatItNeedsOfAConnection(t *testing.T) {
	b := newBench(t)
	i := &infos{bench: b}
	conns := probes.NewConns(nil, b, i, func(pid uint32) *span.Target { return b.targets[pid] })
	c, s := b.kernel.Unix(1, 2, "/run/app.sock")
	d, e := b.kernel.TCP(1, 2, "[::ffff:127.0.0.1]:4000", "[::ffff:127.0.0.1]:80")
	for _, k := range []*eventtest.Socket{c, s, d, e} {
		conns.Handle(k.Open())
	}
	client, server := netip.MustParseAddrPort("127.0.0.1:4000"), netip.MustParseAddrPort("127.0.0.1:80")
	want := []probes.ConnInfo{
		{ID: c.Event.Conn, NetNS: 1, Socket: c.Event.Key, Peer: s.Event.Key},
		{ID: s.Event.Conn, NetNS: 1, Socket: s.Event.Key, Peer: c.Event.Key},
		{ID: d.Event.Conn, NetNS: 1, Local: client, Remote: server},
		{ID: e.Event.Conn, NetNS: 1, Local: server, Remote: client},
	}
	if diff := cmp.Diff(want, i.got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEvidenceReachesTheDecoder(t *testing.T) {
	s := new(spy)
	b := newBench(t, s.protocol())
	b.SetClock(1e15)
	k := b.client()
	b.tell(k.Receive("first"))
	begin := int64(b.kernel.Now) + 1000 - 300 + 1e15
	b.tell(k.Send("a call", func(e *bpf.DataEvent) {
		e.Tid, e.Task, e.ParentTask, e.Seq = 11, 12, 13, 14
		e.Request, e.Cause = 0x0102030405060708, 0x1112131415161718
		e.Flags |= bpf.FlagNamed | bpf.FlagLost | bpf.FlagUntold | bpf.FlagUnreadable | bpf.FlagCauseGoroutine | bpf.FlagCauseInherited
	}))
	b.tell(k.Send("by a thread", eventtest.For(5)))
	b.tell(k.Piece(eventtest.Egress, "large", "end", 1<<20))
	evidence := span.Evidence{
		PID: 1, TID: 11, Task: 12, ParentTask: 13, Cause: trace.SpanID{0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18},
		CauseSource: span.SourceGoroutine, Dialed: true, Inherited: true, Conn: k.Event.Conn, Seq: 14, HasSeq: true,
	}
	want := probes.Chunk{
		Dir: probes.Egress, Total: 6, Begin: begin, End: begin, ID: trace.SpanID{1, 2, 3, 4, 5, 6, 7, 8},
		Named: true, Lost: true, Untold: true, Unreadable: true, Evidence: evidence,
	}
	got := s.chunks[1]
	got.Head, got.Tail = nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if c := s.chunks[0]; c.Dir != probes.Ingress || c.Begin != c.End || c.Evidence.Cause.IsValid() || c.Evidence.CauseSource != span.SourceNone || c.Named || c.Lost || c.Unreadable {
		t.Errorf("received: %+v", c)
	}
	if c := s.chunks[2]; c.Evidence.CauseSource != span.SourceThread || c.Evidence.Cause != (trace.SpanID{7: 5}) || c.Pos != 6 || c.Evidence.Inherited {
		t.Errorf("by a thread: %+v", c)
	}
	// A call that may have waited for room ended when it returned; others, when they were made.
	if c := s.chunks[3]; c.End != c.Begin+300 || c.Total != 1<<20 || c.Pos != 17 {
		t.Errorf("large: %+v", c)
	}
	if diff := cmp.Diff([]string{"first|", "a call|", "by a thread|", "large|end"}, s.text); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestProtocolIsFoundHoweverItsFirstBytesCome(t *testing.T) {
	split := func(text string, at ...int) (parts []string) {
		for _, i := range at {
			parts = append(parts, text[:i])
			text = text[i:]
		}
		return append(parts, text)
	}
	each := func(text string) []string { return strings.Split(text, "") }
	type message struct {
		dir   int
		parts []string
	}
	check := func(t *testing.T, server bool, messages ...message) {
		t.Helper()
		b := newBench(t)
		open := b.server
		if !server {
			open = b.client
		}
		k := open()
		for i, m := range messages {
			for j, p := range m.parts {
				var options []eventtest.Option
				if i == 0 && j == 0 {
					options = append(options, k.Named())
				}
				b.tell(k.Piece(m.dir, p, "", len(p), options...))
			}
		}
		if len(b.done) != 1 || b.done[0].Name != "GET" || (b.done[0].Kind == trace.SpanKindServer) != server {
			t.Errorf("spans: %+v", b.done)
		}
		verdict := bpf.VerdictHTTPClient
		if server {
			verdict = bpf.VerdictHTTPServer
		}
		b.want(fmt.Sprintf("verdict %d on %d", verdict, k.Event.Conn))
		b.tell(k.End(eventtest.Closed))
		b.empty()
	}
	for i := 1; i < len(request); i++ {
		check(t, true, message{eventtest.Ingress, split(request, i)}, message{eventtest.Egress, []string{response}})
		check(t, false, message{eventtest.Egress, split(request, i)}, message{eventtest.Ingress, []string{response}})
		if t.Failed() {
			t.Fatalf("split at %d", i)
		}
	}
	check(t, true, message{eventtest.Ingress, each(request)}, message{eventtest.Egress, each(response)})
	long := strings.Replace(request, "/item/1", "/"+strings.Repeat("x", 6000), 1)
	check(t, true, message{eventtest.Ingress, split(long, 1000, 1000, 2000)}, message{eventtest.Egress, []string{response}})
}

// TestConnectionThatWasOpenBefore is one that is first seen in the middle of a body, of a request or of an
// answer.
func TestConnectionThatWasOpenBefore(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(b *bench, k *eventtest.Socket) [][]byte
	}{
		{"in an answer", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Send("the end of a body, with signs"), k.Receive(request, k.Named()), k.Send(response)}
		}},
		{"in a request", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Receive("{the end} of a body"), k.Send(response), k.Receive(request, k.Named()), k.Send(response)}
		}},
		{"in a long one", func(_ *bench, k *eventtest.Socket) (records [][]byte) {
			for range 100 {
				records = append(records, k.Piece(eventtest.Egress, "\x00\x01", "", 65536))
			}
			return append(records, k.Receive(request, k.Named()), k.Send(response))
		}},
		{"in a request that ends in a row with the next", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Receive("the end of a body"), k.Receive(request, k.Named()), k.Send(response)}
		}},
		{"before an answer", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Send(response), k.Receive(request, k.Named()), k.Send(response)}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, established := range []uint8{0, 1} {
				b := newBench(t)
				_, k := b.kernel.TCP(9, 1, "127.0.0.1:4000", "127.0.0.1:80")
				k.Event.Established = established
				b.tell(k.Open())
				b.tell(test.run(b, k)...)
				if len(b.done) != 1 || b.Stats().Muted != 0 {
					t.Errorf("established: %d, %d spans, %+v, account %v", established, len(b.done), b.Stats(), b.targets[1].Account.Counts())
				}
			}
		})
	}
}

func TestConnectionThatNoProtocolClaimsIsMuted(t *testing.T) {
	for _, test := range []struct {
		name    string
		records func(k *eventtest.Socket) [][]byte
	}{
		{"a protocol of its own", func(k *eventtest.Socket) [][]byte {
			return [][]byte{k.Receive("\x00\x00\x00\x08\x04\xd2\x16\x2f"), k.Send("N"), k.Receive("\x00\x00\x00\x54user"), k.Send("R\x00\x00"), k.Receive("p")}
		}},
		{"what may be a method for too long", func(k *eventtest.Socket) [][]byte {
			var records [][]byte
			for range 200 {
				records = append(records, k.Receive("A"), k.Send("B"))
			}
			return records
		}},
		{"what flows one way", func(k *eventtest.Socket) (records [][]byte) {
			for range 300 {
				records = append(records, k.Receive("\x00"))
			}
			return records
		}},
		{"a line that does not end", func(k *eventtest.Socket) [][]byte {
			return [][]byte{k.Receive("GET /"), k.Receive(strings.Repeat("x", 4000)), k.Receive(strings.Repeat("x", 4000)), k.Receive(strings.Repeat("x", 4000))}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			k := b.server()
			b.tell(test.records(k)...)
			b.want(fmt.Sprintf("verdict %d on %d", bpf.VerdictMute, k.Event.Conn))
			if s := b.Stats(); s.Muted != 1 || s.Open != 1 {
				t.Errorf("%+v", s)
			}
			b.tell(k.Receive(request, k.Named()), k.Send(response), k.Progress(eventtest.Egress), k.End(eventtest.PeerEnd))
			if len(b.opened) != 0 {
				t.Error("a muted connection has spans")
			}
			b.want()
			b.tell(k.End(eventtest.Closed))
			b.want(fmt.Sprint("gone ", k.Event.Conn))
			b.empty()
		})
	}
}

// TestNothingIsLeftOfWhatNoProtocolClaims: what Handle leaves in a record may be kept.
func TestNothingIsLeftOfWhatNoProtocolClaims(t *testing.T) {
	const secret = "secret of another protocol"
	for _, test := range []struct {
		name    string
		records func(b *bench, k *eventtest.Socket) [][]byte
	}{
		{"before it is muted", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Open(), k.Receive("\x00" + secret), k.Send("\x01" + secret), k.Send("{" + secret), k.Receive("\x00" + secret),
				k.Piece(eventtest.Ingress, "\x00"+secret, secret, 1000)}
		}},
		{"when it is muted", func(_ *bench, k *eventtest.Socket) [][]byte {
			records := [][]byte{k.Open()}
			for range 10 {
				records = append(records, k.Receive("\x00"+secret), k.Send(secret+"\x00"))
			}
			return records
		}},
		{"on a connection that was not introduced", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Receive(secret), k.Receive(request + secret), k.Piece(eventtest.Egress, secret, secret, 1000)}
		}},
		{"in a body", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Open(), k.Receive("POST / HTTP/1.1\r\nContent-Length: 26\r\n\r\n" + secret), k.Send(response)}
		}},
		{"in a body before the connection is known", func(_ *bench, k *eventtest.Socket) [][]byte {
			return [][]byte{k.Open(), k.Receive("{" + secret), k.Send(response)}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			_, k := b.kernel.TCP(9, 1, "127.0.0.1:4000", "127.0.0.1:80")
			for i, r := range test.records(b, k) {
				b.tell(r)
				if bytes.Contains(bpf.Trim(r), []byte(secret)) {
					t.Errorf("record %d: %q", i, r)
				}
			}
		})
	}
}

// TestWhatIsLeftOfRecordsSaysTheSame feeds records again as Handle left them.
func TestWhatIsLeftOfRecordsSaysTheSame(t *testing.T) {
	b := newBench(t)
	k := b.server()
	j := b.client()
	records := [][]byte{
		k.Receive("{the end} of a body that was"), k.Receive("GE"), k.Receive("T /item/1 HTTP/1.1\r\n\r\n"), k.Send(response),
		j.Send("junk"), j.Receive("\x00junk"), j.Send("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", j.Named()), j.Receive(response),
		k.Receive("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", k.Named()), k.Send(response),
	}
	lines := func(b *bench) (lines []string) {
		for _, s := range b.done {
			lines = append(lines, fmt.Sprint(s.ID, s.Name, s.Start, s.End, s.Attrs))
		}
		return append(lines, b.told()...)
	}
	open := [][]byte{k.Open(), j.Open()}
	b.tell(records...)
	want := lines(b)
	if len(want) != 5 {
		t.Errorf("%q", want)
	}
	again := newBench(t)
	again.tell(open...)
	again.told()
	again.tell(records...)
	if diff := cmp.Diff(want, lines(again)); diff != "" {
		t.Errorf("(-first +again)\n%s", diff)
	}
}

func TestDataOfAConnectionThatWasNotIntroducedIsIgnored(t *testing.T) {
	b := newBench(t)
	_, k := b.kernel.TCP(9, 1, "127.0.0.1:4000", "127.0.0.1:80")
	b.tell(k.Receive(request, k.Named()), k.Send(response), k.Progress(eventtest.Egress), k.End(eventtest.PeerEnd), k.End(eventtest.Closed))
	b.want()
	b.empty()
	if len(b.opened) != 0 || b.Stats() != (probes.Stats{}) {
		t.Errorf("%d spans, %+v", len(b.opened), b.Stats())
	}
	// Once it is, it is followed.
	b.tell(k.Open(), k.Receive(request, k.Named()), k.Send(response))
	if len(b.done) != 1 {
		t.Errorf("%d spans", len(b.done))
	}
}

func TestEventsOfUnknownProcessesAreCounted(t *testing.T) {
	b := newBench(t)
	_, k := b.kernel.TCP(9, 77, "127.0.0.1:4000", "127.0.0.1:80")
	b.tell(k.Open(), k.Receive(request, k.Named()), k.Send(response))
	if s := b.Stats(); s.UnknownPID != 1 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
	b.want()
	b.empty()
}

func TestConnectionMovesWithItsProcess(t *testing.T) {
	b := newBench(t)
	k := b.server()
	b.tell(k.Receive(request, k.Named()), k.Send(response))
	k.PID = 2
	b.tell(k.Receive(request, k.Named()), k.Send(response))
	k.PID = 77 // not known: it stays where it is
	b.tell(k.Receive(request, k.Named()), k.Send(response))
	var pids []uint32
	for _, s := range b.done {
		pids = append(pids, s.Target.PID)
	}
	if diff := cmp.Diff([]uint32{1, 2, 2}, pids); diff != "" {
		t.Error(diff)
	}
	if b.Stats().UnknownPID != 2 {
		t.Errorf("%+v", b.Stats())
	}
	b.told()
	b.drop(1, 1)
	b.want()
	b.drop(2, 1)
	b.want(fmt.Sprint("gone ", k.Event.Conn), fmt.Sprintf("forget %#x", k.Event.Key))
	if byID, _, byPID, _ := b.Tables(); byID+byPID != 0 {
		t.Error("it is kept")
	}
}

func TestQuietBodyIsAskedFor(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
	begin := func(t *testing.T) (*bench, *eventtest.Socket) {
		b := newBench(t)
		k := b.server()
		b.tell(k.Receive(request, k.Named()))
		if b.Stats().Waiting != 0 || b.Asking(1e12) != nil {
			t.Error("it waits before there is a body")
		}
		b.tell(k.Send(head))
		k.Unseen(eventtest.Egress, 600_000)
		return b, k
	}
	t.Run("until it ends", func(t *testing.T) {
		b, k := begin(t)
		want := []probes.Question{{ID: k.Event.Conn, Key: k.Event.Key, Dir: probes.Egress}}
		if diff := cmp.Diff(want, b.Asking(1e12)); diff != "" {
			t.Error(diff)
		}
		if b.Asking(1e12+99e6) != nil {
			t.Error("it is asked for too often")
		}
		if diff := cmp.Diff(want, b.Asking(1e12+100e6)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, b.Asking(1e9)); diff != "" { // the clock was set back
			t.Error(diff)
		}
		answer := func() {
			pos, at := k.Moved(eventtest.Egress)
			b.Progress(k.Event.Conn, probes.Egress, pos, int64(at))
		}
		answer()
		if len(b.done) != 0 || b.Stats().Waiting != 1 {
			t.Errorf("%d spans, %+v", len(b.done), b.Stats())
		}
		k.Unseen(eventtest.Egress, 400_000)
		answer()
		_, at := k.Moved(eventtest.Egress)
		if len(b.done) != 1 || b.done[0].End != int64(at) || b.Stats().Waiting != 0 || b.Asking(1e15) != nil {
			t.Errorf("%d spans, %+v", len(b.done), b.Stats())
		}
		answer() // late: nothing
		b.tell(k.Receive(request, k.Named()), k.Send(response), k.End(eventtest.Closed))
		if len(b.done) != 2 {
			t.Errorf("%d spans", len(b.done))
		}
		b.empty()
	})
	t.Run("until the kernel side tells", func(t *testing.T) {
		b, k := begin(t)
		k.Unseen(eventtest.Egress, 400_000)
		b.tell(k.Progress(eventtest.Egress))
		if len(b.done) != 1 || b.Stats().Waiting != 0 {
			t.Errorf("%d spans, %+v", len(b.done), b.Stats())
		}
	})
	t.Run("until the connection ends", func(t *testing.T) {
		b, k := begin(t)
		k.Unseen(eventtest.Egress, 400_000)
		_, at := k.Moved(eventtest.Egress)
		b.tell(k.End(eventtest.LocalEnd))
		if len(b.done) != 1 || b.done[0].End != int64(at) || b.done[0].Status != 0 {
			t.Errorf("%d spans", len(b.done))
		}
		b.tell(k.End(eventtest.Closed))
		b.empty()
	})
	t.Run("until the connection ends too early", func(t *testing.T) {
		b, k := begin(t)
		b.tell(k.End(eventtest.Reset))
		if len(b.done) != 1 || b.done[0].Status == 0 {
			t.Errorf("%d spans", len(b.done))
		}
		b.empty()
	})
	t.Run("of a connection that is gone", func(t *testing.T) {
		b, k := begin(t)
		b.drop(1, 1e12)
		if b.Asking(1e15) != nil {
			t.Error("it is asked for")
		}
		b.Progress(k.Event.Conn, probes.Egress, 1<<40, 1)
		b.empty()
	})
}

func TestProgressIsToldOnceAndForward(t *testing.T) {
	s := &spy{waiting: true, dir: probes.Ingress}
	b := newBench(t, s.protocol())
	b.SetClock(1000)
	k := b.client()
	b.Progress(k.Event.Conn, probes.Ingress, 5, 1) // before there is a decoder
	b.tell(k.Receive("1234"))
	b.Progress(k.Event.Conn, probes.Ingress, 4, 2)
	b.Progress(k.Event.Conn, probes.Ingress, 9, 3)
	b.Progress(k.Event.Conn, probes.Ingress, 9, 4)
	b.Progress(k.Event.Conn, probes.Egress, 1, 5)
	b.tell(k.End(eventtest.PeerEnd)) // it knows no more
	b.Progress(99, probes.Ingress, 100, 6)
	if diff := cmp.Diff([]string{"0 to 9 at 1003", "1 to 1 at 1005"}, s.progress); diff != "" {
		t.Error(diff)
	}
}

func TestEndTellsHowFarItCame(t *testing.T) {
	s := new(spy)
	b := newBench(t, s.protocol())
	b.SetClock(1e6)
	k := b.server()
	b.tell(k.Receive("1234"), k.Send("12"))
	b.tell(k.End(eventtest.PeerEnd))
	b.tell(k.End(eventtest.LocalEnd))
	k.Unseen(eventtest.Egress, 100)
	_, at := k.Moved(eventtest.Egress)
	b.tell(k.End(eventtest.Closed))
	now := int64(b.kernel.Now) + 1e6
	if diff := cmp.Diff([]string{fmt.Sprint("1 to 102 at ", at+1e6)}, s.progress); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{fmt.Sprint("0 at ", now-3000), fmt.Sprint("1 at ", now-2000), fmt.Sprint("2 at ", now)}, s.ends); diff != "" {
		t.Error(diff)
	}
	b.want(fmt.Sprintf("verdict %d on %d", bpf.VerdictHTTPServer, k.Event.Conn), fmt.Sprint("gone ", k.Event.Conn))
	b.empty()
}

func TestLossBeforeTheEndIsTold(t *testing.T) {
	t.Run("to the decoder", func(t *testing.T) {
		s := new(spy)
		b := newBench(t, s.protocol())
		k := b.server()
		b.tell(k.Receive("1234"), k.End(eventtest.Closed, bpf.FlagLost))
		if len(s.chunks) != 2 || !s.chunks[1].Lost || s.chunks[1].Total != 0 || s.chunks[1].Pos != 4 || len(s.ends) != 1 {
			t.Errorf("%+v", s.chunks)
		}
	})
	t.Run("to a decoder that gives up", func(t *testing.T) {
		s := new(spy)
		b := newBench(t, s.protocol())
		k := b.server()
		b.tell(k.Receive("1234"))
		s.err = probes.ErrNotProtocol
		b.tell(k.End(eventtest.Closed, bpf.FlagLost))
		b.empty()
	})
	t.Run("and no status is made up", func(t *testing.T) {
		b := newBench(t)
		k := b.server()
		b.tell(k.Receive(request, k.Named()), k.End(eventtest.Closed, bpf.FlagLost))
		if len(b.done) != 0 || len(b.lost) != 1 || b.targets[1].Account.Counts()[ledger.RingFull] != 1 {
			t.Errorf("%d spans, account %v", len(b.done), b.targets[1].Account.Counts())
		}
		b.empty()
	})
}

func TestUnixConnectionsEndWithTheirProcess(t *testing.T) {
	b := newBench(t)
	_, u := b.kernel.Unix(9, 1, "/run/app.sock")
	_, other := b.kernel.Unix(9, 2, "/run/app.sock")
	k := b.server()
	b.tell(u.Open(), other.Open(), u.Receive(request, u.Named()), k.Receive(request, k.Named()))
	b.told()
	b.tell(b.kernel.Exit(1))
	b.want(fmt.Sprint("gone ", u.Event.Conn), fmt.Sprintf("forget %#x", u.Event.Key))
	if len(b.done) != 1 || b.done[0].End != int64(b.kernel.Now) {
		t.Errorf("%d spans", len(b.done))
	}
	b.tell(k.End(eventtest.Reset), other.End(eventtest.Closed))
	b.empty()
}

func TestNextSocketAtAnAddressEndsTheOneBefore(t *testing.T) {
	b := newBench(t)
	k := b.server()
	b.tell(k.Receive(request, k.Named()))
	_, next := b.kernel.TCP(9, 1, "127.0.0.1:4001", "127.0.0.1:80")
	next.Event.Key = k.Event.Key
	b.tell(next.Open())
	b.want(fmt.Sprintf("verdict %d on %d", bpf.VerdictHTTPServer, k.Event.Conn), fmt.Sprint("gone ", k.Event.Conn), fmt.Sprint("conn ", next.Event.Conn))
	// Its end was lost, and with it perhaps the answer: nothing is concluded from the one that is missing.
	if len(b.done) != 0 || len(b.lost) != 1 || b.targets[1].Account.Counts()[ledger.RingFull] != 1 {
		t.Errorf("%d spans, %d lost", len(b.done), len(b.lost))
	}
	b.tell(k.End(eventtest.Closed)) // late
	b.tell(next.Receive(request, next.Named()), next.Send(response), next.End(eventtest.Closed))
	if len(b.done) != 1 {
		t.Errorf("%d spans", len(b.done))
	}
	b.empty()
}

func TestDropAndStopEndEverythingInOrder(t *testing.T) {
	for _, test := range []struct {
		name   string
		end    func(b *bench)
		forget bool
	}{
		{"drop", func(b *bench) { b.drop(1, 5e9) }, true},
		{"stop", func(b *bench) { b.Stop(5e9) }, false},
	} {
		b := newBench(t)
		var want []string
		var ids []trace.SpanID
		for range 20 {
			k := b.server()
			b.tell(k.Receive(request, k.Named()))
			want = append(want, fmt.Sprint("gone ", k.Event.Conn))
			if test.forget {
				want = append(want, fmt.Sprintf("forget %#x", k.Event.Key))
			}
			ids = append(ids, b.opened[len(b.opened)-1].ID)
		}
		b.told()
		test.end(b)
		b.want(want...)
		var got []trace.SpanID
		for _, s := range b.done {
			got = append(got, s.ID)
			if s.End != 5e9 || s.State != span.Done {
				t.Errorf("%s: span ends at %d", test.name, s.End)
			}
		}
		if !slices.Equal(ids, got) {
			t.Errorf("%s: spans end in the order %v, want %v", test.name, got, ids)
		}
		b.empty()
	}
}

func TestDecoderThatGivesUpMutesItsConnection(t *testing.T) {
	b := newBench(t)
	k := b.server()
	b.tell(k.Receive("GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", k.Named()))
	b.tell(k.Send("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
	if len(b.done) != 1 {
		t.Errorf("%d spans", len(b.done))
	}
	told := b.told()
	if want := fmt.Sprintf("verdict %d on %d", bpf.VerdictOpaque, k.Event.Conn); told[len(told)-1] != want {
		t.Errorf("told %v, want %s at last", told, want)
	}
	b.tell(k.Receive(request), k.Send(response), k.End(eventtest.LocalEnd), k.End(eventtest.Closed))
	if len(b.opened) != 1 {
		t.Error("what follows an upgrade is decoded")
	}
	b.empty()

	// One that gives up on what was kept for it is not called again.
	s := &spy{err: probes.ErrNotProtocol}
	p := s.protocol()
	p.Detect = func(_ probes.Direction, head []byte) (probes.Verdict, bool) {
		if len(head) < 3 {
			return probes.Maybe, false
		}
		return probes.Yes, true
	}
	b = newBench(t, p)
	k = b.server()
	b.tell(k.Receive("1"), k.Receive("2"), k.Receive("3"), k.Receive("4"))
	if len(s.chunks) != 1 || b.Stats().Muted != 1 {
		t.Errorf("%d chunks, %+v", len(s.chunks), b.Stats())
	}
}

func TestMessageReachesItsDecoderInOnePiece(t *testing.T) {
	s := new(spy)
	p := s.protocol()
	var asked []string
	p.Detect = func(dir probes.Direction, head []byte) (probes.Verdict, bool) {
		asked = append(asked, string(head))
		switch {
		case strings.HasPrefix(string(head), "HELLO"):
			return probes.Yes, true
		case strings.HasPrefix("HELLO", string(head)):
			return probes.Maybe, false
		}
		return probes.No, false
	}
	b := newBench(t, p)
	k := b.server()
	b.tell(k.Receive("junk"), k.Receive("H", k.Named()), k.Receive("EL"), k.Send("?"), k.Receive("HE"), k.Piece(eventtest.Ingress, "L", "", 3), k.Receive("LO"), k.Receive("H", k.Named()), k.Receive("EL"), k.Receive("LO you"), k.Receive("more"))
	// A gap, or bytes the other way, begin a new message; so does what no protocol would have.
	if diff := cmp.Diff([]string{"junk", "H", "HEL", "?", "HE", "HEL", "LO", "H", "HEL", "HELLO you"}, asked); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"HELLO you|", "more|"}, s.text); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if c := s.chunks[0]; c.Pos != 14 || c.Total != 9 || !c.Named || c.Begin != int64(b.kernel.Now)-3000 || c.End != c.Begin+2000 {
		t.Errorf("%+v", c)
	}
	if c := s.chunks[1]; c.Pos != 23 || c.Named {
		t.Errorf("%+v", c)
	}

	// A piece of an answer that came before the call that it answers is not lost.
	s.text = nil
	b.tell(b.kernel.Exit(1))
	k = b.client()
	b.tell(k.Receive("HE"), k.Send("HELLO"))
	if diff := cmp.Diff([]string{"HE|", "HELLO|"}, s.text); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestMalformedRecordsAreCounted(t *testing.T) {
	var k eventtest.Kernel
	_, s := k.TCP(9, 1, "127.0.0.1:4000", "127.0.0.1:80")
	open := s.Open()
	records := [][]byte{open, s.Receive(request, s.Named()), s.Send(response), s.Progress(0), s.End(eventtest.PeerEnd), s.End(eventtest.Closed), k.Exit(1)}
	for i, whole := range records {
		least := len(whole)
		if bpf.Kind(whole) == bpf.EventData {
			least = len(bpf.Trim(whole))
		}
		for n := range len(whole) + 1 {
			b := newBench(t)
			b.tell(bytes.Clone(open))
			b.Handle(bytes.Clone(whole[:n:n]))
			want := uint64(1)
			if n >= least {
				want = 0
			}
			if got := b.Stats().Malformed; got != want {
				t.Errorf("record %d, %d of %d bytes: %d malformed, want %d", i, n, len(whole), got, want)
			}
		}
	}
	b := newBench(t)
	_, s = b.kernel.TCP(9, 1, "127.0.0.1:4000", "127.0.0.1:80")
	s.Event.Family = 77
	b.tell(s.Open())
	b.want()
	if b.Stats().Malformed != 1 {
		t.Errorf("family: %+v", b.Stats())
	}
	k2 := b.server()
	b.tell(k2.End(77), k2.Send("1234", func(e *bpf.DataEvent) { e.Total = 3 }), k2.Send("1234", func(e *bpf.DataEvent) { e.Tail = 200 }))
	b.tell(append([]byte{77, 0, 0, 0}, make([]byte, 100)...))
	if b.Stats().Malformed != 5 || b.Stats().Open != 1 {
		t.Errorf("%+v", b.Stats())
	}
}

func TestRecycledSpanIsLikeANewOne(t *testing.T) {
	b := newBench(t)
	k := b.server()
	b.tell(k.Receive(request, k.Named()), k.Send(response))
	s := b.done[0]
	room := cap(s.Attrs)
	probes.Recycle([]*span.Span{s})
	if len(s.Attrs) != 0 || cap(s.Attrs) != room {
		t.Errorf("attributes: %d of %d, want none of %d", len(s.Attrs), cap(s.Attrs), room)
	}
	s.Attrs = nil
	if diff := cmp.Diff(span.Span{}, *s); diff != "" {
		t.Error(diff)
	}
}

func TestKernelsLossesAreBooked(t *testing.T) {
	a := new(ledger.Account)
	before := bpf.Target{RingFull: 1, MapFull: 10, Muted: 1000}
	now := bpf.Target{RingFull: 3, MapFull: 13, Muted: 1005}
	probes.Count(a, &before, &now)
	probes.Count(a, &now, &now)
	want := ledger.Counts{ledger.Seen: 10, ledger.RingFull: 2, ledger.MapFull: 3, ledger.Muted: 5}
	if got := a.Counts(); got != want || got.Open() != 0 {
		t.Errorf("%v, want %v", got, want)
	}
}

// FuzzHandle takes any records: each is led by its length, two bytes.
func FuzzHandle(f *testing.F) {
	var k eventtest.Kernel
	for _, sockets := range [][2]*eventtest.Socket{
		pair(k.TCP(1, 2, "127.0.0.1:4000", "127.0.0.1:80")), pair(k.Unix(1, 2, "/run/app.sock")),
	} {
		c, s := sockets[0], sockets[1]
		var seed []byte
		for _, r := range [][]byte{
			c.Open(), c.Send(request, c.Named()), s.Open(), s.Receive("GET"), s.Receive(request[3:]), s.Send(response), s.Progress(1),
			c.Receive(response), c.Send("junk"), c.Piece(eventtest.Egress, "head", "tail", 1000), s.End(eventtest.PeerEnd), c.End(eventtest.Closed, bpf.FlagLost),
			k.Exit(2), s.End(eventtest.Reset),
		} {
			seed = append(binary.LittleEndian.AppendUint16(seed, uint16(len(r))), r...)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := newBench(t)
		corr := correlate.New(correlate.Default())
		conns := probes.NewConns([]probes.Protocol{http1.New(http1.Default())}, b, sink{corr}, func(pid uint32) *span.Target { return b.targets[pid] })
		for n := 0; len(data) >= 2; n++ {
			length := min(int(binary.LittleEndian.Uint16(data)), len(data)-2)
			conns.Handle(bytes.Clone(data[2 : 2+length]))
			data = data[2+length:]
			if n%8 == 7 {
				for _, q := range conns.Asking(int64(n) * 1e9) {
					conns.Progress(q.ID, q.Dir, uint64(n)*1000, int64(n))
				}
				corr.Expire(int64(n) * 1e9)
				corr.Take()
			}
		}
		conns.Stop(1 << 60)
		corr.Flush()
		if byID, byKey, byPID, waiting := conns.Tables(); byID+byKey+byPID+waiting != 0 {
			t.Errorf("kept: %d by id, %d by key, %d by process, %d waiting", byID, byKey, byPID, waiting)
		}
		if corr.Held() != 0 || corr.Waiting() != 0 {
			t.Error("spans are held at the end")
		}
	})
}

func pair(a, b *eventtest.Socket) [2]*eventtest.Socket { return [2]*eventtest.Socket{a, b} }

// sink is the correlator behind the decoders, as in the agent.
type sink struct{ c *correlate.Correlator }

func (s sink) Conn(c probes.ConnInfo)                                { s.c.Conn(correlate.Conn(c)) }
func (s sink) ConnGone(id uint64)                                    { s.c.ConnGone(id) }
func (s sink) Add(sp *span.Span)                                     { s.c.Add(sp) }
func (s sink) Caller(call trace.SpanID, by span.Evidence)            { s.c.Caller(call, by) }
func (s sink) HandOff(pid uint32, task uint64, request trace.SpanID) { s.c.HandOff(pid, task, request) }

func (s sink) PeerEnded(conn uint64) { s.c.PeerEnded(conn) }

func (s sink) Job(pid uint32, call, request trace.SpanID, unclaimed int) {
	s.c.Job(pid, call, request, unclaimed)
}

func (s sink) Moved(pid, tid uint32, conn uint64, dir uint8) { s.c.Moved(pid, tid, conn, dir) }
func (s sink) Alias(id trace.SpanID, sp *span.Span)          { s.c.Alias(id, sp) }
