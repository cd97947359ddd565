// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// golang is a process in which goroutines run.
var golang = &span.Target{Resource: []attribute.KeyValue{semconv.ProcessRuntimeName("go")}}

func of(t *span.Target) on { return func(s *span.Span) { s.Target = t } }

func TestWhoWaitsForAJobWantedIt(t *testing.T) {
	const worker, other = 40, 41
	for name, play := range map[string]func(g *stage){
		"the end of a job": func(g *stage) {
			s := g.server(100, of(golang), goroutine(30))
			g.HandOff(1, other, s.ID) // it is known that this process hands over
			c := g.client(110, of(golang), goroutine(worker))
			g.released(g.end(c, 120))
			g.HandOff(1, worker, s.ID)
			g.released(g.end(s, 130), s, c)
			g.child(c, s, span.SourceHandOff)
		},
		"of two jobs of one worker": func(g *stage) {
			a := g.server(100, of(golang), goroutine(30))
			b := g.server(101, of(golang), goroutine(31))
			c := g.client(110, of(golang), goroutine(worker))
			g.HandOff(1, worker, a.ID)
			d := g.client(120, of(golang), goroutine(worker))
			g.HandOff(1, worker, b.ID)
			g.end(c, 130)
			g.end(d, 130)
			g.end(a, 140)
			g.end(b, 140)
			g.child(c, a, span.SourceHandOff)
			g.child(d, b, span.SourceHandOff)
		},
		"a call from before the request": func(g *stage) {
			c := g.client(90, of(golang), goroutine(worker))
			s := g.server(100, of(golang), goroutine(30))
			g.HandOff(1, worker, s.ID)
			g.end(c, 120)
			g.end(s, 130)
			g.root(c)
		},
		"a request that has ended": func(g *stage) {
			s := g.server(100, of(golang), goroutine(30))
			c := g.client(110, of(golang), goroutine(worker))
			g.end(s, 120)
			g.HandOff(1, worker, s.ID)
			g.end(c, 130)
			g.root(c)
		},
		"a job whose end nobody waits for": func(g *stage) {
			s := g.server(100, of(golang), goroutine(30))
			g.HandOff(1, other, s.ID)
			c := g.client(110, of(golang), goroutine(worker))
			g.end(c, 120)
			g.end(s, 130)
			g.Expire(120 + Default().ClaimWait + 1)
			g.root(c)
		},
		"a process that hands nothing over is not waited for": func(g *stage) {
			c := g.client(110, of(golang), goroutine(worker))
			g.released(g.end(c, 120), c)
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

func TestHandOffsAreAskedForWhereTheyWouldTell(t *testing.T) {
	g := newStage(t)
	calls := func(pid uint32, n int) {
		for range n {
			g.end(g.client(110, of(golang), goroutine(40), func(s *span.Span) { s.Evidence.PID = pid }), 120)
		}
	}
	calls(1, enoughOrphans) // it serves nobody
	g.server(100, of(golang), goroutine(30), func(s *span.Span) { s.Evidence.PID = 2 })
	calls(2, enoughOrphans-1)
	if w := g.Wanting(); len(w) != 0 {
		t.Errorf("asked for %v", w)
	}
	calls(2, 2)
	if w := g.Wanting(); len(w) != 1 || w[0] != 2 {
		t.Errorf("asked for %v", w)
	}
	calls(2, 2*enoughOrphans)
	if w := g.Wanting(); len(w) != 0 {
		t.Errorf("asked again for %v", w)
	}
}
