// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"breadcrumb/internal/span"
)

// TestCallsThatOutliveTheirRequestAreLinked: what a request has started and goes on after its response is not its child.
func TestCallsThatOutliveTheirRequestAreLinked(t *testing.T) {
	for name, test := range map[string]struct {
		play func(g *stage, s *span.Span) *span.Span // the request has ended at 200
		want bool
	}{
		"a call right after": {func(g *stage, s *span.Span) *span.Span {
			g.end(s, 200)
			return g.client(210, cause(s))
		}, true},
		"a call of a goroutine that it has started": {func(g *stage, s *span.Span) *span.Span {
			g.end(s, 200)
			return g.client(210, of(golang), cause(s), inherited, goroutine(5000))
		}, true},
		"a call of a goroutine that is older": {func(g *stage, s *span.Span) *span.Span {
			late := g.server(150, of(golang), goroutine(9000))
			g.end(g.server(160, of(golang), goroutine(9001)), 170)
			old := g.server(180, of(golang), goroutine(9002))
			g.end(late, 200)
			g.end(s, 200)
			g.end(old, 200)
			return g.client(210, of(golang), cause(old), inherited, goroutine(7))
		}, false},
		"a call long after": {func(g *stage, s *span.Span) *span.Span {
			g.end(s, 200)
			return g.client(200+maxLate+1, cause(s))
		}, false},
		"a call during the request": {func(g *stage, s *span.Span) *span.Span {
			c := g.client(150, cause(s))
			g.end(s, 200)
			return c
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newStage(t)
			s := g.server(100)
			c := test.play(g, s)
			g.end(c, c.Start+10)
			g.finish()
			switch {
			case test.want:
				g.root(c)
				if c.Link.SpanID != s.ID || c.Link.TraceID != s.TraceID {
					t.Errorf("linked to %v, want %v in %v", c.Link, s.ID, s.TraceID)
				}
			case c.Link.SpanID.IsValid():
				t.Errorf("linked to %v", c.Link)
			}
		})
	}
}

// TestEndedRequestsAreForgotten bounds what is kept for calls that come late.
func TestEndedRequestsAreForgotten(t *testing.T) {
	g := newStage(t)
	for i := range int64(2 * maxEnded) {
		g.end(g.server(i), i)
	}
	if len(g.ended) > maxEnded || len(g.endedIDs) > maxEnded {
		t.Errorf("%d requests are kept", len(g.ended))
	}
	g.finish()
}
