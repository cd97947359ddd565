// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"breadcrumb/internal/span"
)

func multiplexed(s *span.Span) { s.Evidence.Multiplexed = true }

// asked is what is told of a goroutine that works for a request, or for one that nobody knows.
func asked(goroutine uint64, request *span.Span) span.Evidence {
	ev := span.Evidence{PID: 1, Task: goroutine}
	if request != nil {
		ev.Cause, ev.CauseSource = request.ID, span.SourceGoroutine
	}
	return ev
}

// askedTask is what is told of a task that was asked to make a call, for a request, or for one that nobody knows.
func askedTask(task uint64, request *span.Span) span.Evidence {
	ev := span.Evidence{PID: 1, Task: task, CauseSource: span.SourceTask}
	if request != nil {
		ev.Cause = request.ID
	}
	return ev
}

// inTask has a call be made by a task that seems to work for a request, or for one that nobody knows.
func inTask(task uint64, request *span.Span) func(s *span.Span) {
	return func(s *span.Span) {
		s.Evidence.Task, s.Evidence.Cause, s.Evidence.CauseSource = task, askedTask(task, request).Cause, span.SourceTask
	}
}

func TestWhoAskedForACallWantedIt(t *testing.T) {
	for name, play := range map[string]func(g *stage){
		"told before the call": func(g *stage) {
			s := g.server(100, of(golang), multiplexed)
			g.Caller(spanID(g.next+1), asked(40, s))
			c := g.client(110, of(golang), multiplexed)
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceGoroutine)
		},
		"told after it": func(g *stage) {
			s := g.server(100, of(golang), multiplexed)
			c := g.client(110, of(golang), multiplexed)
			g.Caller(c.ID, asked(40, s))
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceGoroutine)
		},
		"the first counts": func(g *stage) {
			s := g.server(100, of(golang), multiplexed)
			other := g.server(101, of(golang), multiplexed)
			g.Caller(spanID(g.next+1), asked(40, s))
			g.Caller(spanID(g.next+1), asked(41, other))
			c := g.client(110, of(golang), multiplexed)
			g.Caller(c.ID, asked(41, other))
			g.end(c, 120)
			g.end(other, 125)
			g.end(s, 130)
			g.child(c, s, span.SourceGoroutine)
		},
		"a task's call, that had none": func(g *stage) {
			s := g.server(100)
			c := g.client(110, inTask(20, nil))
			g.Caller(c.ID, askedTask(20, s))
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceTask)
		},
		"a task's call, that seemed to be another's": func(g *stage) {
			s, other := g.server(100), g.server(101)
			c := g.client(110, inTask(20, other))
			g.Caller(c.ID, askedTask(20, s))
			g.end(c, 120)
			g.end(other, 125)
			g.end(s, 130)
			g.child(c, s, span.SourceTask)
		},
		"a task's call, told before it": func(g *stage) {
			s, other := g.server(100), g.server(101)
			g.Caller(spanID(g.next+1), askedTask(20, s))
			c := g.client(110, inTask(20, other))
			g.end(c, 120)
			g.end(other, 125)
			g.end(s, 130)
			g.child(c, s, span.SourceTask)
		},
		"a task's call, asked for by nobody known": func(g *stage) {
			other := g.server(101)
			c := g.client(110, inTask(20, other))
			g.Caller(c.ID, askedTask(20, nil))
			g.end(c, 120)
			g.end(other, 125)
			g.root(c)
		},
		"for nobody known": func(g *stage) {
			s := g.server(100, of(golang), multiplexed)
			c := g.client(110, of(golang), multiplexed)
			g.Caller(c.ID, asked(40, nil))
			g.end(c, 120)
			g.end(s, 130)
			g.root(c)
		},
		"by a goroutine that hands over": func(g *stage) {
			s := g.server(100, of(golang), multiplexed)
			g.HandOff(1, 99, s.ID) // it is known that this process hands over
			c := g.client(110, of(golang), multiplexed)
			g.Caller(c.ID, asked(40, nil))
			g.end(c, 120)
			g.HandOff(1, 40, s.ID)
			g.end(s, 130)
			g.child(c, s, span.SourceHandOff)
		},
		"for a request that has ended": func(g *stage) {
			s := g.server(100, of(golang), multiplexed)
			g.end(s, 105)
			c := g.client(110, of(golang), multiplexed)
			g.Caller(c.ID, asked(40, s))
			g.end(c, 120)
			g.root(c)
		},
		"of a call that has ended": func(g *stage) {
			s := g.server(100, of(golang), multiplexed)
			c := g.client(110, of(golang), multiplexed)
			g.end(c, 120)
			g.Caller(c.ID, asked(40, s))
			g.end(s, 130)
			g.root(c)
		},
		"of a call on a connection of its own": func(g *stage) {
			s := g.server(100, of(golang))
			c := g.client(110, of(golang), goroutine(41))
			g.Caller(c.ID, asked(40, s))
			g.end(c, 120)
			g.end(s, 130)
			g.Expire(120 + Default().ClaimWait + 1)
			g.root(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newStage(t)
			play(g)
			g.finish()
		})
	}
}

func TestCallersThatNeverCallAreForgotten(t *testing.T) {
	g := newStage(t)
	for i := range uint64(3 * maxCallers) {
		g.Caller(spanID(1000+i), asked(40, nil))
	}
	if len(g.callers) > maxCallers || len(g.callerIDs) > maxCallers {
		t.Errorf("%d callers are kept, %d in order", len(g.callers), len(g.callerIDs))
	}
}
