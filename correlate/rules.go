// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/binary"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// goidSlack is how far behind the newest goroutine a new one may be: each P takes ids in batches of 16
// and hands them out when it likes (runtime.newproc1, _GoidCacheBatch).
const goidSlack = 1024

// cause is the request on whose behalf a call was made, by I/O causality: the request that the goroutine or
// thread had read last when it made the call. Wrong where a thread runs something that no socket woke
// (a timer, a queued task) while another request of its own is under way.
func (c *Correlator) cause(s *span.Span) *node {
	ev := &s.Evidence
	if !ev.Cause.IsValid() {
		return nil
	}
	p := c.nodes[ev.Cause]
	if p == nil || p.kind != trace.SpanKindServer {
		return nil // it ended before, or its first event was lost
	}
	if p.end != 0 && p.end < s.Start {
		c.stats.RefusedEnded++
		return nil
	}
	if ev.Inherited && stale(ev, p) {
		c.stats.RefusedStale++
		return nil
	}
	return p
}

// stale says that a goroutine is older than the request that it seems to descend from: a worker that was
// started within an earlier request of the same parent. Wrong (too strict) for a goroutine whose id comes
// from a batch that a P kept for long.
func stale(ev *span.Evidence, p *node) bool { return ev.Task+goidSlack < p.goids }

// settleTrace gives a span its trace, when everything that it depends on is known.
//
// In order: the context in its own headers names the trace. The parent is the nearest span of that trace
// that is known: the local parent if it is of the same trace, unless the headers name a span that the
// process made itself in between; else the span that the headers name.
func (c *Correlator) settleTrace(n *node) {
	s := n.span
	p := n.parent
	source := n.source
	if n.refused {
		p = nil
	} else if n.burst != nil && n.thread.loop && source == span.SourceThread {
		source = span.SourceEventLoop
	}
	if p != nil && p.state != released && p.state != unread {
		p = nil // it was lost
	}
	wire := s.Wire
	switch {
	case wire.TraceID.IsValid() && (p == nil || p.traceID != wire.TraceID || c.between(n, p, wire)):
		s.TraceID, s.Parent, s.Flags, s.TraceState = wire.TraceID, wire.SpanID, wire.Flags, wire.TraceState
		s.Source = span.SourceHeader
	case p != nil:
		s.TraceID, s.Parent, s.Flags, s.TraceState = p.traceID, p.id, p.flags, p.traceState
		s.Source = source
		if source == span.SourceInferred {
			s.Attrs = append(s.Attrs, ConfidenceKey.Float64(n.confidence))
		}
	default:
		s.TraceID = c.traceID(s)
		s.Flags = trace.FlagsSampled
		s.Source = span.SourceNone
		c.link(n)
	}
	n.traceID, n.flags, n.traceState = s.TraceID, s.Flags, s.TraceState
	n.wire = wire.SpanID
}

// ended is a request that is released.
type ended struct {
	context span.Context
	end     int64
	goids   uint64
}

const (
	// maxEnded bounds the requests that are remembered for calls that come late.
	maxEnded = 8192
	// maxLate is how long, in ns, after its end a call is believed to be made for a request: what lives longer works for others.
	maxLate = 10e9
)

// remember keeps a request that is about to be released.
func (c *Correlator) remember(n *node) {
	if n.kind != trace.SpanKindServer {
		return
	}
	if len(c.endedIDs) >= maxEnded {
		delete(c.ended, c.endedIDs[0])
		c.endedIDs = c.endedIDs[1:]
	}
	c.ended[n.id] = ended{span.Context{TraceID: n.traceID, SpanID: n.id, Flags: n.flags, TraceState: n.traceState}, n.end, n.goids}
	c.endedIDs = append(c.endedIDs, n.id)
}

// link has a call without a parent refer to the request for which its thread, goroutine or task was made or has worked, and which
// has ended before: what was started in it and outlives it. Wrong where a thread or goroutine works for others by then, too, which is
// not known: not done for one that is older than the request, nor of an event loop, nor long after its end.
func (c *Correlator) link(n *node) {
	ev := &n.span.Evidence
	if n.kind != trace.SpanKindClient || n.refused || !ev.Cause.IsValid() || n.thread != nil && n.thread.loop {
		return
	}
	e, ok := c.ended[ev.Cause]
	if !ok || e.end > n.start || n.start-e.end > maxLate || ev.Inherited && ev.Task+goidSlack < e.goids {
		return
	}
	n.span.Link = e.context
}

// between says that a call's headers name a span that is neither the parent nor the parent's own parent: one
// that the process itself made for the call. A proxy, in contrast, passes on what it got.
func (c *Correlator) between(n, p *node, wire span.Context) bool {
	return n.kind == trace.SpanKindClient && wire.SpanID != p.id && wire.SpanID != p.wire
}

// traceID makes a trace id from the span's id, which is random, and the run's seed: the same events give the
// same ids again.
func (c *Correlator) traceID(s *span.Span) trace.TraceID {
	var id trace.TraceID
	low := binary.BigEndian.Uint64(s.ID[:])
	binary.BigEndian.PutUint64(id[:8], mix(c.cfg.Seed^mix(low^uint64(s.Evidence.PID)<<32)))
	binary.BigEndian.PutUint64(id[8:], mix(low+c.cfg.Seed)|1)
	return id
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
