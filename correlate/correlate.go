// SPDX-License-Identifier: Apache-2.0

// Package correlate gives spans their trace and their parent, and lets them go only when both are
// settled: a span is never exported with the id of a parent that will not be. It runs on one goroutine
// and has no clock and no I/O: time comes with the events.
package correlate

import (
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
	// Seed makes the trace ids of this run differ from those of others.
	Seed uint64
}

// Default bounds the held spans to some 100 MB.
func Default() Config { return Config{MaxHeld: 100_000, JoinWait: 200e6} }

// Stats counts what the rules could not decide.
type Stats struct {
	// Refused are calls whose cause was known and not believed, by the rule that refused it.
	RefusedEnded, RefusedStale uint64
	// Orphaned are spans that were let go without a parent that they had, for want of room.
	Orphaned uint64
}

// node is a span as its relatives see it. It outlives the span, which belongs to the exporter once it is
// released.
type node struct {
	span   *span.Span // nil once released or lost
	id     trace.SpanID
	parent *node // whose call this is, or whose call this answers; nil: none is known
	source span.Source

	// Set on release.
	traceID    trace.TraceID
	traceState string
	flags      trace.TraceFlags

	held    []*node // finished, waiting for this one
	aliases []trace.SpanID
	pair    *pair
	start   int64
	end     int64  // 0: under way
	goids   uint64 // highest goroutine id that was seen in the process before this request
	joins   uint32 // TCP sequence number of the first byte
	hasSeq  bool
	kind    trace.SpanKind
	state   state
	refs    int32
	wire    trace.SpanID // the span that its own headers named; set on release
}

type state uint8

const (
	underWay state = iota
	waiting        // finished; the call that caused it may still be told
	holding        // finished; waits for its parent
	released
	lost
)

// Correlator is the only type here that run.go knows.
type Correlator struct {
	cfg   Config
	stats Stats
	nodes map[trace.SpanID]*node // under way or waiting or holding, and aliases
	goids map[uint32]uint64      // by process: highest goroutine id seen
	conns map[uint64]*conn
	ends  map[endpoint]*conn
	held  int
	wait  fifo // nodes in state waiting, oldest first
	order fifo // nodes in state holding, oldest first
	out   []*span.Span
	free  []*node
}

// New returns a correlator that has seen nothing.
func New(cfg Config) *Correlator {
	return &Correlator{
		cfg:   cfg,
		nodes: make(map[trace.SpanID]*node, 1024),
		goids: map[uint32]uint64{},
		conns: map[uint64]*conn{},
		ends:  map[endpoint]*conn{},
	}
}

// Stats returns what was counted so far.
func (c *Correlator) Stats() Stats { return c.stats }

// Held is the number of finished spans that wait for a parent.
func (c *Correlator) Held() int { return c.held }

// Waiting is the number of finished spans whose caller may still be told.
func (c *Correlator) Waiting() int { return len(c.wait.nodes) - c.wait.first }

// Add takes a span that began, ended or was lost, as the decoders tell it.
func (c *Correlator) Add(s *span.Span) {
	switch s.State {
	case span.Open:
		c.begin(s)
	case span.Done:
		c.finish(s)
	case span.Lost:
		c.lose(s)
	}
}

// Alias says that whatever names id as its cause means s.
func (c *Correlator) Alias(id trace.SpanID, s *span.Span) {
	n := c.nodes[s.ID]
	if n == nil || c.nodes[id] != nil {
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
	n := c.newNode()
	n.span, n.id, n.kind, n.start = s, s.ID, s.Kind, s.Start
	n.joins, n.hasSeq = ev.Seq, ev.HasSeq
	n.goids = c.goids[ev.PID]
	if ev.Task > n.goids {
		c.goids[ev.PID] = ev.Task
	}
	c.nodes[s.ID] = n
	if s.Kind == trace.SpanKindClient {
		n.setParent(c.cause(s), ev.CauseSource)
	}
	c.join(n, ev.Conn)
}

func (c *Correlator) finish(s *span.Span) {
	n := c.nodes[s.ID]
	if n == nil || n.span != s {
		return // it was never begun: a decoder's mistake, which its tests would show
	}
	n.end = s.End
	if n.parent == nil && n.pair.mayJoin(n) {
		n.state = waiting
		c.wait.push(n)
		return
	}
	c.settle(n)
}

// settle lets a finished span go, or has it wait for its parent.
func (c *Correlator) settle(n *node) {
	c.forget(n)
	if p := n.parent; p != nil && p.state != released && p.state != lost {
		n.state = holding
		p.held = append(p.held, n)
		c.held++
		c.order.push(n)
		for c.held > c.cfg.MaxHeld {
			c.orphanOldest()
		}
		return
	}
	c.release(n)
}

// release hands the span over, then what waited for it.
func (c *Correlator) release(n *node) {
	c.settleTrace(n)
	c.out = append(c.out, n.span)
	c.leave(n, released)
}

func (c *Correlator) lose(s *span.Span) {
	n := c.nodes[s.ID]
	if n == nil || n.span != s {
		return
	}
	c.forget(n)
	c.leave(n, lost)
}

// leave ends the correlator's hold of the span; what waited for it is settled.
func (c *Correlator) leave(n *node, st state) {
	n.span, n.state, n.pair = nil, st, nil
	delete(c.nodes, n.id)
	for _, id := range n.aliases {
		delete(c.nodes, id)
	}
	held := n.held
	n.held = nil
	for i, child := range held {
		held[i] = nil
		if child.state == holding {
			c.held--
			c.release(child)
		}
	}
	n.held = held[:0]
	c.drop(n.parent)
	n.parent = nil
	c.drop(n)
}

func (c *Correlator) orphanOldest() {
	for {
		n := c.order.pop()
		if n == nil {
			return
		}
		old := n.state == holding
		if old {
			c.stats.Orphaned++
			c.held--
			n.state = underWay
			c.drop(n.parent)
			n.parent = nil
			c.release(n)
		}
		c.drop(n)
		if old {
			return
		}
	}
}

// Expire lets go what has waited for long enough at time now (Unix ns, of the events).
func (c *Correlator) Expire(now int64) {
	for n := c.wait.peek(); n != nil && (n.state != waiting || n.end+c.cfg.JoinWait < now); n = c.wait.peek() {
		c.wait.pop()
		if n.state == waiting {
			c.settle(n)
		}
		c.drop(n)
	}
	// What has left the order in the meantime is dropped from its front; what is under it waits its turn.
	for n := c.order.peek(); n != nil && n.state != holding; n = c.order.peek() {
		c.order.pop()
		c.drop(n)
	}
}

// Flush lets everything go that is finished. What is still under way must have been ended before.
func (c *Correlator) Flush() {
	for n := c.wait.pop(); n != nil; n = c.wait.pop() {
		if n.state == waiting {
			c.settle(n)
		}
		c.drop(n)
	}
	for c.held > 0 {
		c.orphanOldest()
	}
}

// Exit forgets a process.
func (c *Correlator) Exit(pid uint32) { delete(c.goids, pid) }

func (n *node) setParent(p *node, source span.Source) {
	if p == nil || p == n {
		return
	}
	for a := p; a != nil; a = a.parent { // never a circle, whatever the events say
		if a == n {
			return
		}
	}
	p.refs++
	n.parent, n.source = p, source
}

func (c *Correlator) newNode() *node {
	if last := len(c.free) - 1; last >= 0 {
		n := c.free[last]
		c.free = c.free[:last]
		n.refs = 1
		return n
	}
	return &node{refs: 1}
}

// drop gives up one reference to the node.
func (c *Correlator) drop(n *node) {
	if n == nil {
		return
	}
	n.refs--
	if n.refs > 0 || len(c.free) >= 4096 {
		return
	}
	*n = node{held: n.held[:0], aliases: n.aliases[:0]}
	c.free = append(c.free, n)
}

// fifo is a queue of nodes, each counted as a reference.
type fifo struct {
	nodes []*node
	first int
}

func (q *fifo) push(n *node) {
	n.refs++
	q.nodes = append(q.nodes, n)
}

func (q *fifo) peek() *node {
	if q.first == len(q.nodes) {
		return nil
	}
	return q.nodes[q.first]
}

func (q *fifo) pop() *node {
	n := q.peek()
	if n == nil {
		return nil
	}
	q.nodes[q.first] = nil
	q.first++
	if q.first == len(q.nodes) {
		q.nodes, q.first = q.nodes[:0], 0
	} else if q.first > 1024 && q.first*2 > len(q.nodes) {
		n := copy(q.nodes, q.nodes[q.first:])
		clear(q.nodes[n:])
		q.nodes, q.first = q.nodes[:n], 0
	}
	return n
}
