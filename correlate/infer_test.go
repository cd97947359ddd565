// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"breadcrumb/internal/span"
)

func TestParentsByTimeAreMarkedAsSuch(t *testing.T) {
	confidence := func(s *span.Span) float64 {
		for _, kv := range s.Attrs {
			if kv.Key == ConfidenceKey {
				return kv.Value.AsFloat64()
			}
		}
		return 0
	}
	for name, play := range map[string]func(g *stage){
		"the only request": func(g *stage) {
			s := g.server(100)
			c := g.client(110)
			g.end(c, 120)
			g.end(s, 130)
			g.child(c, s, span.SourceInferred)
			if got := confidence(c); got != 1 {
				t.Errorf("confidence %v, want 1", got)
			}
		},
		"of two, the one that began last": func(g *stage) {
			a, b := g.server(100), g.server(105)
			c := g.client(110)
			g.end(c, 120)
			g.end(a, 130)
			g.end(b, 130)
			g.child(c, b, span.SourceInferred)
			if got := confidence(c); got != 0.5 {
				t.Errorf("confidence %v, want 0.5", got)
			}
		},
		"a request that ended meanwhile": func(g *stage) {
			s := g.server(100)
			c := g.client(110)
			g.end(s, 115)
			g.end(c, 120)
			g.root(c)
		},
		"a request that began meanwhile": func(g *stage) {
			c := g.client(110)
			s := g.server(112)
			g.end(c, 120)
			g.end(s, 130)
			g.root(c)
		},
		"a request of another process": func(g *stage) {
			s := g.server(100, func(s *span.Span) { s.Evidence.PID = 2 })
			c := g.client(110)
			g.end(c, 120)
			g.end(s, 130)
			g.root(c)
		},
		"what another rule knows": func(g *stage) {
			a := g.server(100)
			b := g.server(105)
			c := g.client(110, cause(a))
			g.end(c, 120)
			g.end(a, 130)
			g.end(b, 130)
			g.child(c, a, span.SourceThread)
			if got := confidence(c); got != 0 {
				t.Errorf("confidence %v of a parent that was not inferred", got)
			}
		},
		"more than one can choose from": func(g *stage) {
			var requests []*span.Span
			for range maxCandidates + 1 {
				requests = append(requests, g.server(100))
			}
			c := g.client(110)
			g.end(c, 120)
			for _, s := range requests {
				g.end(s, 130)
			}
			g.root(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newStage(t)
			g.cfg.Infer = true
			play(g)
			g.finish()
		})
	}
}
