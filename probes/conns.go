// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"breadcrumb/bpf"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Kernel is what conns asks of, and tells, the kernel side. In a replay nothing is behind it.
type Kernel interface {
	Verdict(conn uint64, v bpf.VerdictKind) error
	// Forget removes a connection that the kernel side cannot see ending.
	Forget(key uint64)
}

// Sink takes what the decoders make.
type Sink interface {
	Conn(info ConnInfo)
	ConnGone(id uint64)
	Add(*span.Span)
	Alias(trace.SpanID, *span.Span)
	// Caller says who made a call that shares its connection with others; it may be told before the call is, and again.
	Caller(call trace.SpanID, by span.Evidence)
	// HandOff says that a task has done something for a request that another one serves.
	HandOff(pid uint32, task uint64, request trace.SpanID)
	// Job says that a thread whose last call is answered has ended what another one waits for, that serves a request; unclaimed is
	// of how many of its calls before it nothing such was seen.
	Job(pid uint32, call, request trace.SpanID, unclaimed int)
	// PeerEnded says that a process has read that its peer will send no more; after what the decoder makes of it.
	PeerEnded(conn uint64)
	// Moved is called with each chunk, before its decoder.
	Moved(pid, tid uint32, conn uint64, dir uint8)
}

// ConnInfo introduces a connection to the sink.
type ConnInfo struct {
	ID            uint64
	NetNS         uint32
	Local, Remote netip.AddrPort // zero for a Unix socket
	Socket, Peer  uint64         // the kernel's addresses of a Unix socket's ends
}

const (
	// detectRuns is how many times the direction may turn before a connection that no protocol claims is
	// muted: protocols show themselves in the first message of either side. One that was open before may be
	// seen from the middle of a body on.
	detectRuns = 4
	// detectChunks is how many chunks such a body may have; what only ever flows one way is muted then.
	detectChunks = 256
	// detectPieces is how many chunks the first message may come in until a protocol has recognised it: who
	// types it sends each byte for itself.
	detectPieces = 128
	// detectBytes bounds what is kept of a connection while its protocol is not known: the longest line that
	// servers commonly take.
	detectBytes = 8 << 10
	// progressEvery is how often, in ns of event time, the kernel side is asked how far a quiet body is.
	progressEvery = 100e6
)

// Conns knows the connections of watched processes, finds the protocol of each and feeds its decoder. It
// is used by one goroutine.
type Conns struct {
	protocols []Protocol
	kernel    Kernel
	sink      Sink
	target    func(pid uint32) *span.Target
	offset    int64 // from the kernel's monotonic clock to Unix time, ns

	conns   map[uint64]*conn
	byKey   map[uint64]*conn // by the kernel's address of the socket
	byPID   map[uint32]map[*conn]struct{}
	methods map[uint64][]method // by connection: told before it was known what it speaks
	waiting map[*conn]struct{}  // their decoders wait for bytes that are not told
	asked   int64               // when the kernel side was last asked about them
	chunk   Chunk
	stats   Stats
}

// Stats counts connections, and events that could not be used.
type Stats struct {
	Open       int
	Waiting    int    // connections with a body that is not told byte by byte
	Muted      uint64 // connections that no protocol claims
	Malformed  uint64 // records that are not what they say they are
	UnknownPID uint64 // events of processes that are not known any more
}

// conn is one connection as its decoder knows it, and what is needed to keep the decoder right.
type conn struct {
	Conn
	key     uint64
	unix    bool
	decoder Decoder // nil: not known yet, or muted
	muted   bool
	queued  bool      // it is Node's, to a database: a pool may send over it what another request has waited for
	next    [2]uint64 // position behind the last chunk, by direction

	// While the protocol is not known:
	runs   int       // of chunks in one direction
	dir    Direction // of the latest
	chunks int       // that no protocol claims
	held   []heldChunk
}

// heldChunk is a chunk whose bytes are kept: a message may begin with them.
type heldChunk struct {
	Chunk
	bytes []byte
	run   int // in which it came
}

// NewConns returns an empty table. target finds the process of an event.
func NewConns(protocols []Protocol, kernel Kernel, sink Sink, target func(pid uint32) *span.Target) *Conns {
	return &Conns{
		protocols: protocols, kernel: kernel, sink: sink, target: target,
		conns: map[uint64]*conn{}, byKey: map[uint64]*conn{}, byPID: map[uint32]map[*conn]struct{}{}, waiting: map[*conn]struct{}{},
		methods: map[uint64][]method{},
	}
}

// SetClock sets what is to be added to the kernel's monotonic time to make it Unix time, ns.
func (c *Conns) SetClock(offset int64) { c.offset = offset }

// Clock is the offset that is in force.
func (c *Conns) Clock() int64 { return c.offset }

// Stats returns what was counted so far.
func (c *Conns) Stats() Stats {
	s := c.stats
	s.Open, s.Waiting = len(c.conns), len(c.waiting)
	return s
}

// Handle takes one record from the kernel side. It may change the record: bytes of bodies are zeroed once
// they are recognised, and so is everything that no protocol claims.
func (c *Conns) Handle(record []byte) {
	switch bpf.Kind(record) {
	case bpf.EventData:
		c.data(record)
	case bpf.EventConn:
		if e := bpf.View[bpf.ConnEvent](record); e != nil {
			c.open(e)
		} else {
			c.stats.Malformed++
		}
	case bpf.EventProgress:
		if e := bpf.View[bpf.ProgressEvent](record); e != nil {
			c.Progress(e.Conn, Direction(e.Dir&1), e.Pos, int64(e.Hdr.Time))
		} else {
			c.stats.Malformed++
		}
	case bpf.EventEnd:
		if e := bpf.View[bpf.EndEvent](record); e != nil {
			c.end(e)
		} else {
			c.stats.Malformed++
		}
	case bpf.EventHandoff:
		if e := bpf.View[bpf.HandoffEvent](record); e != nil {
			c.sink.HandOff(e.Hdr.Tgid, e.Task, spanID(e.Request))
		} else {
			c.stats.Malformed++
		}
	case bpf.EventJob:
		if e := bpf.View[bpf.JobEvent](record); e != nil {
			c.sink.Job(e.Hdr.Tgid, spanID(e.Call), spanID(e.Request), int(e.Unclaimed))
		} else {
			c.stats.Malformed++
		}
	case bpf.EventCaller:
		if e := bpf.View[bpf.CallerEvent](record); e != nil {
			c.sink.Caller(spanID(e.Call), caller(e))
		} else {
			c.stats.Malformed++
		}
	case bpf.EventMethod:
		if e := bpf.View[bpf.MethodEvent](record); e != nil && int(e.Len) <= len(e.Method) {
			c.method(e)
		} else {
			c.stats.Malformed++
		}
	case bpf.EventExec: // it says where in the order of events it was; who reads them knows the rest
	case bpf.EventExit:
		if e := bpf.View[bpf.ProcessEvent](record); e != nil {
			c.exit(e.Hdr.Tgid, int64(e.Hdr.Time))
		} else {
			c.stats.Malformed++
		}
	default:
		c.stats.Malformed++
	}
}

const (
	afUnix  = 1
	afInet  = 2
	afInet6 = 10
)

func (c *Conns) open(e *bpf.ConnEvent) {
	if c.conns[e.Conn] != nil {
		return
	}
	if old := c.byKey[e.Key]; old != nil { // its end was not told, and another socket is in its place
		t := int64(e.Hdr.Time) + c.offset
		c.lost(old, t, false)
		c.finish(old, Closed, t)
	}
	k := &conn{key: e.Key, Conn: Conn{ID: e.Conn, Established: e.Established != 0}}
	info := ConnInfo{ID: e.Conn, NetNS: e.Netns}
	switch e.Family {
	case afUnix:
		k.unix = true
		k.Network = "unix"
		k.LocalAddr, k.RemoteAddr = unixPath(e.Local[:]), unixPath(e.Remote[:])
		info.Socket, info.Peer = e.Key, e.Peer
	case afInet, afInet6:
		k.Network, k.Type = "tcp", "ipv6"
		n := 16
		if e.Family == afInet {
			k.Type, n = "ipv4", 4
		}
		local, _ := netip.AddrFromSlice(e.Local[:n])
		remote, _ := netip.AddrFromSlice(e.Remote[:n])
		if local.Is4In6() {
			k.Type = "ipv4" // what is on the wire
		}
		local, remote = local.Unmap(), remote.Unmap()
		k.LocalAddr, k.RemoteAddr = local.String(), remote.String()
		k.LocalPort, k.RemotePort = e.LocalPort, e.RemotePort
		info.Local, info.Remote = netip.AddrPortFrom(local, e.LocalPort), netip.AddrPortFrom(remote, e.RemotePort)
	default:
		c.stats.Malformed++
		return
	}
	t := c.target(e.Hdr.Tgid)
	if t == nil {
		c.stats.UnknownPID++
		return
	}
	c.conns[e.Conn] = k
	c.byKey[e.Key] = k
	c.give(k, t)
	c.sink.Conn(info)
}

// give makes the connection that of a process.
func (c *Conns) give(k *conn, t *span.Target) {
	k.Target = t
	if c.byPID[t.PID] == nil {
		c.byPID[t.PID] = map[*conn]struct{}{}
	}
	c.byPID[t.PID][k] = struct{}{}
}

// take is the opposite of give.
func (c *Conns) take(k *conn) {
	pid := k.Target.PID
	delete(c.byPID[pid], k)
	if len(c.byPID[pid]) == 0 {
		delete(c.byPID, pid)
	}
}

// unixPath is the path in sun_path; an abstract name begins with "@".
func unixPath(b []byte) string {
	if b[0] == 0 && b[1] != 0 {
		return "@" + string(bytes.TrimRight(b[1:], "\x00"))
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// methodTaker is a decoder that does not always know what a call is to, and is told.
type methodTaker interface {
	Method(stream uint32, method string, out Out)
}

// method is one that was told of a stream.
type method struct {
	stream uint32
	name   string
}

// maxMethodConns bounds the connections of which methods were told before their first bytes, and maxMethods those of each.
const maxMethodConns, maxMethods = 256, 256

// method gives the method of a stream to the connection's decoder, or keeps it until there is one.
func (c *Conns) method(e *bpf.MethodEvent) {
	k := c.conns[e.Conn]
	if k == nil || k.decoder == nil && !k.muted {
		if list := c.methods[e.Conn]; len(list) < maxMethods && (list != nil || len(c.methods) < maxMethodConns) {
			c.methods[e.Conn] = append(list, method{e.Stream, string(e.Method[:e.Len])})
		}
		return
	}
	if d, ok := k.decoder.(methodTaker); ok {
		d.Method(e.Stream, string(e.Method[:e.Len]), c)
	}
}

// caller is what is known of who made a call.
func caller(e *bpf.CallerEvent) span.Evidence {
	ev := span.Evidence{PID: e.Hdr.Tgid, Task: e.Task, ParentTask: e.ParentTask, Inherited: e.Flags&bpf.FlagCauseInherited != 0}
	if e.Cause != 0 || e.Flags&bpf.FlagCauseTask != 0 {
		ev.Cause, ev.CauseSource = spanID(e.Cause), causeSource(e.Flags)
	}
	return ev
}

// isNode says whether it is a process of Node's.
func isNode(t *span.Target) bool {
	return slices.ContainsFunc(t.Resource, func(a attribute.KeyValue) bool {
		return a.Key == semconv.ProcessRuntimeNameKey && a.Value.AsString() == "nodejs"
	})
}

func causeSource(flags uint32) span.Source {
	switch {
	case flags&bpf.FlagCauseGoroutine != 0:
		return span.SourceGoroutine
	case flags&bpf.FlagCauseTask != 0:
		return span.SourceTask
	}
	return span.SourceThread
}

func (c *Conns) data(record []byte) {
	e := bpf.View[bpf.DataEvent](record)
	if e == nil {
		c.stats.Malformed++
		return
	}
	ch := &c.chunk
	var ok bool
	if ch.Head, ch.Tail, ok = bpf.DataPayload(record, e); !ok {
		c.stats.Malformed++
		return
	}
	k := c.conns[e.Conn]
	if k == nil || k.muted {
		clear(ch.Head)
		clear(ch.Tail)
		return
	}
	ch.Dir, ch.Pos, ch.Total = Direction(e.Dir&1), e.Pos, uint64(e.Total)
	ch.Begin, ch.End = int64(e.Begin)+c.offset, int64(e.Hdr.Time)+c.offset
	// A send that blocked for room ends when its last byte was taken; any other ends, for the peer, when it
	// was entered: the hook at its exit may run long after the peer has read the bytes.
	if ch.Dir == Egress && ch.Total <= 64<<10 {
		ch.End = ch.Begin
	}
	ch.ID = spanID(e.Request)
	ch.Named = e.Flags&bpf.FlagNamed != 0
	ch.Lost, ch.Untold = e.Flags&bpf.FlagLost != 0, e.Flags&bpf.FlagUntold != 0
	ch.Unreadable = e.Flags&bpf.FlagUnreadable != 0
	ch.Framed, ch.Server = e.Flags&(bpf.FlagHTTP2Server|bpf.FlagHTTP2Client) != 0, e.Flags&bpf.FlagHTTP2Server != 0
	ev := &ch.Evidence
	*ev = span.Evidence{
		PID: e.Hdr.Tgid, TID: e.Tid, Task: e.Task, ParentTask: e.ParentTask,
		Inherited: e.Flags&bpf.FlagCauseInherited != 0,
		Dialed:    ch.Dir == Egress && ch.Pos == 0 && !k.Established,
		Conn:      e.Conn, Seq: e.Seq, HasSeq: e.Flags&bpf.FlagHasSeq != 0,
	}
	if e.Cause != 0 {
		ev.Cause, ev.CauseSource = spanID(e.Cause), causeSource(e.Flags)
	}
	if e.Hdr.Tgid != k.Target.PID {
		c.move(k, e.Hdr.Tgid)
	}
	if k.queued && e.Flags&bpf.FlagCauseTask != 0 {
		// It does so within the callback of the answer before: that is believed only where what comes after confirms it.
		ev.Task = 0
		if ev.Cause.IsValid() {
			ev.CauseSource = span.SourceThread
		}
	}
	k.next[ch.Dir] = ch.Pos + ch.Total
	c.sink.Moved(e.Hdr.Tgid, e.Tid, k.ID, uint8(ch.Dir))
	if k.decoder == nil {
		c.detect(k, ch)
		return
	}
	c.decode(k, ch)
}

// move gives the connection to another process that uses it.
func (c *Conns) move(k *conn, pid uint32) {
	t := c.target(pid)
	if t == nil {
		c.stats.UnknownPID++
		return
	}
	c.take(k)
	c.give(k, t)
}

func (c *Conns) decode(k *conn, ch *Chunk) {
	err := k.decoder.Decode(ch, c)
	if u, ok := errors.AsType[*Upgrade](err); ok {
		c.upgrade(k, u, ch)
		return
	}
	switch {
	case errors.Is(err, ErrUpgraded):
		c.mute(k, bpf.VerdictOpaque)
		return
	case err != nil:
		c.mute(k, bpf.VerdictMute)
		return
	}
	c.watchProgress(k)
}

// upgrade has the connection go on as another protocol, from within the chunk on.
func (c *Conns) upgrade(k *conn, u *Upgrade, ch *Chunk) {
	i := slices.IndexFunc(c.protocols, func(p Protocol) bool { return p.Name == u.Protocol })
	if i < 0 {
		k.decoder.End(Stopped, ch.End, c)
		c.mute(k, bpf.VerdictOpaque)
		return
	}
	p := &c.protocols[i]
	answers := ch.Dir == Egress // it is an answer that says so
	old := k.decoder
	k.decoder = p.New(&k.Conn, answers)
	k.decoder.(Adopter).Adopt(old, u.Pos)
	_ = c.kernel.Verdict(k.ID, p.verdict(answers))
	n := u.Pos[ch.Dir] - ch.Pos
	if n >= ch.Total {
		return
	}
	rest := *ch
	rest.Pos, rest.Total, rest.Head, rest.Named, rest.Lost = ch.Pos+n, ch.Total-n, ch.Head[min(n, uint64(len(ch.Head))):], false, false
	c.decode(k, &rest)
}

// detect asks the protocols whose connection it is. What may be the start of a message is kept for the
// decoder until the rest decides.
func (c *Conns) detect(k *conn, ch *Chunk) {
	if k.runs == 0 || k.dir != ch.Dir {
		k.runs++
		k.dir = ch.Dir
	}
	from := k.startOf(ch)
	head := ch.Head
	if from < len(k.held) {
		head = nil
		for i := range k.held[from:] {
			head = append(head, k.held[from+i].bytes...)
		}
		head = append(head, ch.Head...)
	}
	maybe := false
	for i := range c.protocols {
		v, requests := No, false
		if ch.Framed {
			if c.protocols[i].Captures == CaptureFrames {
				v, requests = Yes, ch.Server == (ch.Dir == Ingress)
			}
		} else {
			v, requests = c.protocols[i].Detect(ch.Dir, head)
		}
		switch v {
		case Yes:
			c.claim(k, &c.protocols[i], requests == (ch.Dir == Ingress), ch, from, head)
			return
		case Maybe:
			maybe = true
		}
	}
	clear(ch.Tail)
	if !maybe {
		// It is the middle of something, or something else: nobody behind here has a use for it.
		clear(ch.Head)
		k.refute(ch.Dir)
		k.chunks++
		if k.runs >= detectRuns || k.chunks >= detectChunks {
			c.mute(k, bpf.VerdictMute)
		}
		return
	}
	size := len(ch.Head)
	for i := range k.held {
		size += len(k.held[i].bytes)
	}
	if len(k.held) == detectPieces || k.runs >= 4*detectRuns || size > detectBytes {
		clear(ch.Head)
		c.mute(k, bpf.VerdictMute)
		return
	}
	k.held = append(k.held, heldChunk{Chunk: *ch, bytes: bytes.Clone(ch.Head), run: k.runs})
	k.held[len(k.held)-1].Tail = nil
}

// startOf returns the first of the held chunks that belong to the same message as ch: what came right before
// it, with nothing in the other direction between. The kernel side's name begins a message.
func (k *conn) startOf(ch *Chunk) int {
	from, pos := len(k.held), ch.Pos
	for from > 0 && !ch.Named {
		h := &k.held[from-1]
		if h.Dir != ch.Dir || h.run != k.runs || h.Pos+uint64(len(h.bytes)) != pos {
			break
		}
		from, pos = from-1, h.Pos
	}
	return from
}

// refute forgets what was held in a direction: no message began with it.
func (k *conn) refute(dir Direction) {
	k.held = slices.DeleteFunc(k.held, func(h heldChunk) bool { return h.Dir == dir })
}

// verdicts are what the kernel side is told, by what it is to tell and by who the process is.
var verdicts = [...]struct{ client, server bpf.VerdictKind }{
	CaptureHeads:  {bpf.VerdictHTTPClient, bpf.VerdictHTTPServer},
	CaptureFrames: {bpf.VerdictHTTP2Client, bpf.VerdictHTTP2Server},
	CaptureEnds:   {bpf.VerdictDatabaseClient, bpf.VerdictDatabaseServer},
}

func (p *Protocol) verdict(server bool) bpf.VerdictKind {
	if server {
		return verdicts[p.Captures].server
	}
	return verdicts[p.Captures].client
}

// claim gives the connection to a protocol, and what was held and the chunk to its decoder. The message that
// the protocol has recognised begins at held[from] and is head as far as it came.
func (c *Conns) claim(k *conn, p *Protocol, server bool, ch *Chunk, from int, head []byte) {
	_ = c.kernel.Verdict(k.ID, p.verdict(server))
	k.decoder, k.queued = p.New(&k.Conn, server), p.Captures == CaptureEnds && isNode(k.Target)
	if d, ok := k.decoder.(methodTaker); ok {
		for _, m := range c.methods[k.ID] {
			d.Method(m.stream, m.name, c)
		}
	}
	delete(c.methods, k.ID)
	record := ch.Head
	if from < len(k.held) {
		// In one piece, so that the decoder knows it for what it is in the middle of a stream too.
		first := k.held[from].Chunk
		for i := range k.held[from:] {
			first.lost(&k.held[from+i].Chunk)
		}
		first.lost(ch)
		first.Unreadable = ch.Unreadable
		first.Total, first.End = ch.Pos+ch.Total-first.Pos, ch.End
		first.Head, first.Tail = head, ch.Tail
		*ch = first
	}
	held := k.held[:from]
	k.held = nil
	for i := range held {
		if held[i].Dir == ch.Dir {
			continue // no message began with it
		}
		held[i].Head = held[i].bytes
		c.decode(k, &held[i].Chunk)
		if k.muted {
			clear(record)
			return
		}
	}
	c.decode(k, ch)
	copy(record, head[len(head)-len(record):]) // as the decoder has left it
}

func (c *Conns) mute(k *conn, v bpf.VerdictKind) {
	k.muted, k.decoder, k.held = true, nil, nil
	delete(c.waiting, k)
	c.stats.Muted++
	_ = c.kernel.Verdict(k.ID, v)
}

func (c *Conns) watchProgress(k *conn) {
	if _, _, ok := k.decoder.Waiting(); ok {
		c.waiting[k] = struct{}{}
	} else if len(c.waiting) > 0 {
		delete(c.waiting, k)
	}
}

// Progress says that a direction of a connection has come to pos, its last byte at time t of the kernel's
// clock.
func (c *Conns) Progress(id uint64, dir Direction, pos uint64, t int64) {
	k := c.conns[id]
	if k == nil || k.decoder == nil || pos <= k.next[dir] {
		return
	}
	k.next[dir] = pos
	k.decoder.Progress(dir, pos, t+c.offset, c)
	c.watchProgress(k)
}

// Asking lists the connections whose decoders wait for bytes that the kernel side does not tell by itself, if
// it is time to ask. now is Unix time, ns.
func (c *Conns) Asking(now int64) []Question {
	if since := now - c.asked; len(c.waiting) == 0 || since >= 0 && since < progressEvery {
		return nil
	}
	c.asked = now
	questions := make([]Question, 0, len(c.waiting))
	for k := range c.waiting {
		if dir, _, ok := k.decoder.Waiting(); ok {
			questions = append(questions, Question{ID: k.ID, Key: k.key, Dir: dir})
		}
	}
	return questions
}

// Question is a connection about whose progress the kernel side is to be asked.
type Question struct {
	ID, Key uint64
	Dir     Direction
}

func (c *Conns) end(e *bpf.EndEvent) {
	if End(e.How) > Reset {
		c.stats.Malformed++
		return
	}
	k := c.conns[e.Conn]
	if k == nil {
		return
	}
	t := int64(e.Hdr.Time) + c.offset
	if e.Flags&bpf.FlagLost != 0 {
		c.lost(k, t, e.Flags&bpf.FlagUntold != 0)
	}
	for dir := Ingress; dir <= Egress; dir++ {
		if k.decoder != nil && e.Pos[dir] > k.next[dir] && e.Last[dir] != 0 {
			k.next[dir] = e.Pos[dir]
			last := int64(e.Last[dir]) + c.offset
			k.decoder.Progress(dir, e.Pos[dir], last, c)
			// What the decoder has not got by now passed unseen.
			c.chunk = Chunk{Dir: dir, Pos: e.Pos[dir], Begin: last, End: last}
			c.decode(k, &c.chunk)
		}
	}
	c.finish(k, End(e.How), t)
	if End(e.How) == PeerClosed {
		c.sink.PeerEnded(k.ID)
	}
}

// lost tells the decoder of a loss that no chunk tells: nothing is to be concluded from what seems missing.
func (c *Conns) lost(k *conn, t int64, untold bool) {
	if k.decoder == nil {
		return
	}
	c.chunk = Chunk{Pos: k.next[Ingress], Begin: t, End: t, Lost: true, Untold: untold}
	c.decode(k, &c.chunk)
}

func (c *Conns) finish(k *conn, how End, t int64) {
	if k.decoder != nil {
		k.decoder.End(how, t, c)
	}
	if how == PeerClosed || how == LocalClosed {
		if k.decoder != nil {
			c.watchProgress(k)
		}
		return
	}
	delete(c.waiting, k)
	delete(c.conns, k.ID)
	delete(c.methods, k.ID)
	if c.byKey[k.key] == k {
		delete(c.byKey, k.key)
	}
	c.take(k)
	c.sink.ConnGone(k.ID)
}

// oldestFirst is the connections in an order that a replay repeats.
func oldestFirst(conns iter.Seq[*conn]) []*conn {
	return slices.SortedFunc(conns, func(a, b *conn) int { return cmp.Compare(a.ID, b.ID) })
}

// spanID is the span that the kernel side knows by a number.
func spanID(n uint64) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], n)
	return id
}

// exit ends the connections of a process that the kernel side will not see ending by themselves.
func (c *Conns) exit(pid uint32, t int64) {
	for _, k := range oldestFirst(maps.Keys(c.byPID[pid])) {
		if k.unix {
			c.finish(k, Closed, t+c.offset)
			c.kernel.Forget(k.key)
		}
	}
}

// Of lists the connections of a process as it was known with an account: after an exec it has another.
func (c *Conns) Of(pid uint32, a *ledger.Account) []uint64 {
	var ids []uint64
	for _, k := range oldestFirst(maps.Keys(c.byPID[pid])) {
		if k.Target.Account == a {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// Drop gives up connections whose end will not be told. t is Unix time, ns.
func (c *Conns) Drop(ids []uint64, t int64) {
	for _, id := range ids {
		if k := c.conns[id]; k != nil {
			c.finish(k, Stopped, t)
			c.kernel.Forget(k.key)
		}
	}
}

// Stop ends everything: what is under way is handed over as far as it came. t is Unix time, ns.
func (c *Conns) Stop(t int64) {
	for _, k := range oldestFirst(maps.Values(c.conns)) {
		c.finish(k, Stopped, t)
	}
}

// Span implements Out.
func (c *Conns) Span(s *span.Span) { c.sink.Add(s) }

// Alias implements Out.
func (c *Conns) Alias(id trace.SpanID, s *span.Span) { c.sink.Alias(id, s) }

// New implements Out.
func (c *Conns) New() *span.Span { return pool.Get().(*span.Span) }

var pool = sync.Pool{New: func() any { return &span.Span{Attrs: make([]attribute.KeyValue, 0, 16)} }}

// Recycle takes back spans that nothing refers to any more.
func Recycle(spans []*span.Span) {
	for _, s := range spans {
		attrs := s.Attrs[:0]
		*s = span.Span{Attrs: attrs}
		pool.Put(s)
	}
}

// Count adds to a process's account what the kernel side lost: requests whose first event was not told.
func Count(a *ledger.Account, before, now *bpf.Target) {
	for _, l := range []struct {
		entry       ledger.Entry
		before, now uint64
	}{
		{ledger.RingFull, before.RingFull, now.RingFull},
		{ledger.MapFull, before.MapFull, now.MapFull},
		{ledger.Muted, before.Muted, now.Muted},
	} {
		if n := l.now - l.before; n > 0 {
			a.Add(ledger.Seen, n)
			a.Add(l.entry, n)
		}
	}
}
