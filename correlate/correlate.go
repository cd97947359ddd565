// SPDX-License-Identifier: Apache-2.0

// Package correlate gives spans their trace and their parent, and lets them go only when both are
// settled: a span is never exported with the id of a parent that will not be. It runs on one goroutine
// and has no clock and no I/O: time comes with the events.
package correlate

import (
	"encoding/binary"
	"net/netip"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// Config bounds what the correlator keeps.
type Config struct {
	// MaxHeld is how many finished spans may wait for their parents to end. Beyond it the oldest go
	// without a parent.
	MaxHeld int
	// JoinWait is how long, in ns of event time, a finished server span waits for the event of the call that
	// caused it, where the caller may be a process on this node whose event comes later.
	JoinWait int64
	// ClaimWait is how long, in ns of event time, a call of which nobody knows for whom it was made waits for the
	// response that its thread writes next, and a call in an event loop for the loop to prove right.
	ClaimWait int64
	// UnreadWait is how long, in ns of event time, a call is remembered that ended before any answer came: a
	// server on this node may be too busy to read it sooner.
	UnreadWait int64
	// Infer has calls of which no rule knows for whom they were made be given a parent by time, with a confidence.
	Infer bool
	// Seed makes the trace ids of this run differ from those of others.
	Seed uint64
}

// Default bounds the held spans to some 100 MB.
func Default() Config {
	return Config{MaxHeld: 100_000, JoinWait: 200e6, ClaimWait: 5e9, UnreadWait: 60e9}
}

// maxUnread bounds the calls that are remembered without being held: those to a server that hangs.
const maxUnread = 4096

// Stats counts what the rules could not decide.
type Stats struct {
	// Refused are calls whose cause was known and not believed, by the rule that refused it.
	RefusedEnded, RefusedStale, RefusedLoop uint64
	// Renamed are spans that had the id of another one that was under way.
	Renamed uint64
	// Orphaned are spans that were let go without a parent that they had, for want of room.
	Orphaned uint64
}

// node is a span as its relatives see it. It outlives the span, which belongs to the exporter once it is
// released, for as long as a child may still ask for its trace.
type node struct {
	span   *span.Span // nil once released or lost
	id     trace.SpanID
	parent *node // whose call this is, or whose call this answers; nil: none is known
	source span.Source

	// Set on release.
	traceID    trace.TraceID
	traceState string
	flags      trace.TraceFlags
	wire       trace.SpanID // the span that its own headers named

	held       siblings // finished, waiting for this one
	line       links    // its place in the list of all that wait, hold or are unread, as it is
	family     links    // its place among those that its parent holds
	aliases    []trace.SpanID
	pair       *pair
	conn       uint64
	thread     *thread // that made the call or read the request, unless it is a goroutine's
	burst      *burst  // of that thread's, that it is one of
	order      uint64  // of a request that is under way: how many its thread had read by then
	shared     bool    // of a request: its thread had others under way as well
	start      int64
	end        int64  // 0: under way
	goids      uint64 // highest goroutine id that was seen in the process before this request
	joins      uint32 // TCP sequence number of the first byte
	refs       int32  // one while it is under way, waiting, holding or unread, and one for each child
	hasSeq     bool
	dialed     bool     // span.Evidence.Dialed
	pending    bool     // it is in pair.pending
	refused    bool     // its parent is not believed
	confidence float64  // of an inferred parent
	server     *process // of a request that is under way, where parents may be inferred
	teller     *process // of a request that may be passed on word for word: see proxy.go
	lastJob    ref      // of a request: the job's call that someone who serves it has waited for last
	responds   bool     // its response has begun
	pool       *process // of a job's call that someone has waited for: whose threads do such jobs
	job        bool     // who waits for the goroutine that made the call may still tell for whom
	kind       trace.SpanKind
	state      state
}

type state uint8

const (
	underWay state = iota
	waiting        // finished; the call that caused it may still be told
	adrift         // finished; the thread that made the call may still show for whom
	holding        // finished; waits for its parent
	tried          // finished, and so is its parent; the thread that made the call has to prove right
	released
	unread // released; the server may still read it
	lost
)

// Correlator is the only type here that run.go knows.
type Correlator struct {
	cfg      Config
	stats    Stats
	nodes    map[trace.SpanID]*node // under way or waiting or holding, and aliases
	ended    map[trace.SpanID]ended // requests that are released, for calls that come late
	endedIDs []trace.SpanID         // of ended, in the order in which they were released

	callers   map[trace.SpanID]span.Evidence // of calls that are to come
	callerIDs []trace.SpanID                 // of callers, in the order in which they were told; some are gone

	threads    map[threadKey]*thread
	threadKeys []threadKey    // of threads, in the order in which they were met
	answering  map[uint64]ref // by connection: the call whose answer began on it last
	mover      *thread        // that moved the bytes of which is told; nil: it does not matter

	processes map[uint32]*process
	conns     map[uint64]*conn
	ends      map[endpoint]*conn
	addrs     map[netip.Addr]struct{} // of connections that were seen from this node's end
	gone      []*conn                 // closed, but in ends for the sake of a caller that is not told yet
	wait      list                    // of nodes in state waiting, oldest first
	drifting  list                    // of nodes in state adrift, oldest first
	holds     list                    // of nodes in state holding, oldest first
	trials    list                    // of nodes in state tried, oldest first
	calls     list                    // of nodes in state unread, oldest first
	wanting   []uint32                // processes whose hand-offs would tell something
	out       []*span.Span
	free      []*node
}

// New returns a correlator that has seen nothing.
func New(cfg Config) *Correlator {
	return &Correlator{
		cfg:       cfg,
		nodes:     make(map[trace.SpanID]*node, 1024),
		ended:     map[trace.SpanID]ended{},
		callers:   map[trace.SpanID]span.Evidence{},
		threads:   map[threadKey]*thread{},
		answering: map[uint64]ref{},
		processes: map[uint32]*process{},
		conns:     map[uint64]*conn{},
		ends:      map[endpoint]*conn{},
		addrs:     map[netip.Addr]struct{}{},
	}
}

// Stats returns what was counted so far.
func (c *Correlator) Stats() Stats { return c.stats }

// Held is the number of finished spans that wait for a parent.
func (c *Correlator) Held() int { return c.holds.n }

// Waiting is the number of finished spans whose caller, or whose cause, may still be told.
func (c *Correlator) Waiting() int { return c.wait.n + c.drifting.n + c.trials.n }

// Ready is the number of spans that Take would return.
func (c *Correlator) Ready() int { return len(c.out) }

// Add takes a span that began, ended or was lost, as the decoders tell it.
func (c *Correlator) Add(s *span.Span) {
	switch s.State {
	case span.Open:
		c.begin(s)
	case span.Answered:
		c.answered(s)
	case span.Done:
		c.finish(s)
	case span.Lost:
		c.lose(s)
	}
}

// Alias says that whatever names id as its cause means s.
func (c *Correlator) Alias(id trace.SpanID, s *span.Span) {
	n := c.nodes[s.ID]
	if n == nil || n.span != s || c.nodes[id] != nil {
		return
	}
	n.aliases = append(n.aliases, id)
	c.nodes[id] = n
}

// Take returns the spans that were let go since the last call, parents before children. The slice is valid
// until the next call of any method.
func (c *Correlator) Take() []*span.Span {
	out := c.out
	c.out = c.out[:0]
	return out
}

func (c *Correlator) begin(s *span.Span) {
	ev := &s.Evidence
	for old := c.nodes[s.ID]; old != nil; old = c.nodes[s.ID] {
		if old.span == s {
			return
		}
		// Two of one name would be one span to whoever reads the trace.
		c.stats.Renamed++
		binary.BigEndian.PutUint64(s.ID[:], mix(binary.BigEndian.Uint64(s.ID[:])^mix(c.stats.Renamed))|1)
	}
	n := c.newNode()
	n.span, n.id, n.kind, n.start = s, s.ID, s.Kind, s.Start
	n.joins, n.hasSeq, n.conn, n.dialed = ev.Seq, ev.HasSeq, ev.Conn, ev.Dialed
	process := c.process(ev.PID, s.Target)
	n.goids = process.goids
	process.goids = max(process.goids, ev.Task)
	process.serves = process.serves || s.Kind == trace.SpanKindServer
	if c.cfg.Infer && s.Kind == trace.SpanKindServer {
		process.open[n] = struct{}{}
		n.server = process
	}
	c.nodes[n.id] = n
	if s.Kind == trace.SpanKindClient && !(process.goroutines && ev.CauseSource == span.SourceThread) {
		n.setParent(c.cause(s), ev.CauseSource)
	}
	if s.Kind == trace.SpanKindServer {
		process.told(n)
	}
	c.proxied(n, process)
	if s.Kind == trace.SpanKindClient && n.parent == nil && !ev.Multiplexed && process.looseCall(n, ev.Task, c.mover) {
		c.wanting = append(c.wanting, ev.PID)
	}
	if by, ok := c.callers[s.ID]; ok {
		delete(c.callers, s.ID)
		if n.isCalledBy(&by) {
			c.calledBy(n, &by)
		}
	}
	if c.mover != nil && process.byThread(s) {
		c.mover.process = process
		if s.Kind == trace.SpanKindClient {
			c.mover.began(callSent, n)
		} else {
			c.claim(c.mover, nil)
			c.mover.began(requestRead, n)
		}
	}
	c.join(n, ev.Conn)
}

// answered takes note of who read or wrote the first of an answer.
func (c *Correlator) answered(s *span.Span) {
	n := c.nodes[s.ID]
	if n != nil {
		n.responds = true
	}
	if n == nil || n.span != s || c.mover == nil || !c.process(s.Evidence.PID, s.Target).byThread(s) {
		return
	}
	if n.kind == trace.SpanKindClient {
		c.answering[n.conn] = refer(n)
		c.mover.began(answerRead, n)
	} else {
		c.mover.began(responseWritten, n)
		c.claim(c.mover, n)
	}
}

func (c *Correlator) finish(s *span.Span) {
	n := c.nodes[s.ID]
	if n == nil || n.span != s || n.state != underWay {
		return // it was never begun, or has ended: a decoder's mistake, which its tests would show
	}
	n.end = s.End
	n.isOver()
	n.noLongerOpen()
	if n.parent == nil && n.pair.mayJoin(n) {
		n.state = waiting
		c.wait.push(n)
		if c.wait.n > c.cfg.MaxHeld {
			c.stopWaiting(c.wait.first)
		}
		return
	}
	if n.kind == trace.SpanKindClient && (n.mayBeClaimed() || n.job && c.process(s.Evidence.PID, s.Target).handsOver) {
		n.state = adrift
		c.drifting.push(n)
		if c.drifting.n > c.cfg.MaxHeld {
			c.stopDrifting(c.drifting.first)
		}
		return
	}
	c.settle(n)
}

// stopWaiting settles a node whose caller will not be told, or just was.
func (c *Correlator) stopWaiting(n *node) {
	c.wait.remove(n)
	c.settle(n)
}

// settle lets a finished span go, or has it wait for its parent.
func (c *Correlator) settle(n *node) {
	if !n.mayBeRead() {
		c.forget(n)
	}
	if c.cfg.Infer && n.kind == trace.SpanKindClient && n.parent == nil {
		c.infer(n)
	}
	if p := n.parent; p != nil && !p.gone() {
		n.state = holding
		p.held.push(n)
		c.holds.push(n)
		for c.holds.n > c.cfg.MaxHeld {
			c.orphanOldest()
		}
		return
	}
	c.decide(n)
}

// decide lets a span go that waits for no other, unless its parent is doubted for now.
func (c *Correlator) decide(n *node) {
	switch c.judge(n) {
	case refused:
		n.refused = true
		c.stats.RefusedLoop++
	case onTrial:
		n.state = tried
		n.thread.trial = append(n.thread.trial, refer(n))
		c.trials.push(n)
		return
	}
	c.release(n)
}

// noLongerOpen takes a request out of those that are under way in its process.
func (n *node) noLongerOpen() {
	n.passedOn()
	if n.server != nil {
		delete(n.server.open, n)
		n.server = nil
	}
}

// gone says that a parent is not waited for.
func (n *node) gone() bool { return n.state == released || n.state == unread || n.state == lost }

// release hands the span over, then what waited for it.
func (c *Correlator) release(n *node) {
	c.settleTrace(n)
	c.remember(n)
	c.out = append(c.out, n.span)
	c.leave(n, released)
}

func (c *Correlator) lose(s *span.Span) {
	n := c.nodes[s.ID]
	if n == nil || n.span != s || n.state != underWay {
		return
	}
	n.isOver()
	n.noLongerOpen()
	c.forget(n)
	c.leave(n, lost)
}

// leave ends the correlator's hold of the span; what waited for it is settled.
func (c *Correlator) leave(n *node, st state) {
	n.span, n.state = nil, st
	delete(c.nodes, n.id)
	for _, id := range n.aliases {
		delete(c.nodes, id)
	}
	for child := n.held.first; child != nil; child = n.held.first {
		c.letGo(child)
	}
	c.drop(n.parent)
	n.parent = nil
	if n.pending {
		n.state = unread
		c.calls.push(n)
		if c.calls.n > maxUnread {
			c.forget(c.calls.first)
		}
		return
	}
	n.pair = nil
	c.drop(n)
}

// letGo releases a node that its parent holds.
func (c *Correlator) letGo(n *node) {
	n.parent.held.remove(n)
	c.holds.remove(n)
	c.decide(n)
}

func (c *Correlator) orphanOldest() {
	c.stats.Orphaned++
	n := c.holds.first
	p := n.parent
	p.held.remove(n)
	c.holds.remove(n)
	n.parent = nil
	c.drop(p)
	c.release(n)
}

// Expire lets go what has waited for long enough at time now (Unix ns, of the events). What is to end far
// in the future stems from before a change of the clock.
func (c *Correlator) Expire(now int64) {
	for n := c.wait.first; n != nil && (now-n.end > c.cfg.JoinWait || n.end-now > c.cfg.JoinWait); n = c.wait.first {
		c.stopWaiting(n)
	}
	for n := c.drifting.first; n != nil && (now-n.end > c.cfg.ClaimWait || n.end-now > c.cfg.ClaimWait); n = c.drifting.first {
		c.stopDrifting(n)
	}
	for n := c.trials.first; n != nil && (now-n.end > c.cfg.ClaimWait || n.end-now > c.cfg.ClaimWait); n = c.trials.first {
		c.endTrial(n, true)
	}
	for n := c.calls.first; n != nil && (now-n.end > c.cfg.UnreadWait || n.end-now > c.cfg.UnreadWait); n = c.calls.first {
		c.forget(n)
	}
	c.forgetGone()
}

// Flush lets everything go that is finished. What is still under way must have been ended before.
func (c *Correlator) Flush() {
	for c.wait.first != nil {
		c.stopWaiting(c.wait.first)
	}
	for c.drifting.first != nil {
		c.stopDrifting(c.drifting.first)
	}
	for c.holds.first != nil {
		c.orphanOldest()
	}
	for c.trials.first != nil {
		c.endTrial(c.trials.first, true)
	}
	for c.calls.first != nil {
		c.forget(c.calls.first)
	}
	c.forgetGone()
}

// Exit forgets a process, which has ended or become another program.
func (c *Correlator) Exit(pid uint32) { delete(c.processes, pid) }

func (n *node) setParent(p *node, source span.Source) {
	if p == nil || p == n {
		return
	}
	if n.refs > 1 { // it has children: never a circle, whatever the events say
		for a := p.parent; a != nil; a = a.parent {
			if a == n {
				return
			}
		}
	}
	p.refs++
	n.parent, n.source = p, source
}

// maxFree bounds the nodes that are kept for later: what a busy second needs.
const maxFree = 16384

func (c *Correlator) newNode() *node {
	if last := len(c.free) - 1; last >= 0 {
		n := c.free[last]
		c.free = c.free[:last]
		n.refs = 1
		return n
	}
	return &node{refs: 1}
}

// drop gives up one reference to the node. Nothing refers to a node without one: lists and pairs are left
// before.
func (c *Correlator) drop(n *node) {
	if n == nil {
		return
	}
	n.refs--
	if n.refs > 0 || len(c.free) == maxFree {
		return
	}
	*n = node{aliases: n.aliases[:0]}
	c.free = append(c.free, n)
}
