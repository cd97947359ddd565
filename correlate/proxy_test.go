// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"breadcrumb/internal/span"
)

// says makes a span one that has a digest.
func says(digest uint64) func(*span.Span) { return func(s *span.Span) { s.Digest = digest } }

// asks has a client ask a proxy.
func (l *loop) asks(conn, digest uint64) *span.Span {
	l.moved(conn, in)
	return l.server(l.now, over(conn), says(digest))
}

// passesOn has the proxy ask, when it has read a request last.
func (l *loop) passesOn(conn, digest uint64, last *span.Span) *span.Span {
	l.moved(conn, out)
	return l.client(l.now, over(conn), cause(last), says(digest))
}

func TestProxyPassesOnWhatItWasAsked(t *testing.T) {
	l := newLoop(t)
	l.prove()
	a, b := l.asks(1, 77), l.asks(2, 88)
	toA, toB := l.passesOn(10, 77, b), l.passesOn(11, 88, b)
	again := l.asks(3, 77) // the first one is passed on already
	toAgain := l.passesOn(12, 77, b)
	own := l.passesOn(13, 99, again)
	for _, call := range []*span.Span{own, toAgain, toB, toA} {
		l.answer(call)
	}
	for _, s := range []*span.Span{again, b, a} {
		l.respond(s)
	}
	l.wantParent(toA, a, span.SourceProxy)
	l.wantParent(toB, b, span.SourceProxy)
	l.wantParent(toAgain, again, span.SourceProxy)
	l.wantNone(own)
	l.finish()
}

func TestProxyThatIsAskedTheSameTwice(t *testing.T) {
	l := newLoop(t)
	first, second := l.asks(1, 77), l.asks(1, 77)
	one, two := l.passesOn(10, 77, second), l.passesOn(11, 77, second)
	l.answer(two)
	l.answer(one)
	l.respond(first)
	l.respond(second)
	l.wantParent(one, first, span.SourceProxy)
	l.wantParent(two, second, span.SourceProxy)

	a, b := l.asks(1, 77), l.asks(2, 77)
	other := l.asks(3, 88)
	either := l.passesOn(10, 77, other)
	l.respond(a) // what has ended is not passed on
	last := l.passesOn(11, 77, other)
	l.answer(either)
	l.answer(last)
	l.respond(b)
	l.respond(other)
	l.wantNone(either)
	l.wantParent(last, b, span.SourceProxy)
	l.finish()
}

func TestProxyOfWhichATaskTells(t *testing.T) {
	l := newLoop(t)
	a, b := l.server(10, over(1), says(77)), l.server(11, over(2))
	call := l.client(12, over(10), says(77), cause(b), func(s *span.Span) { s.Evidence.CauseSource = span.SourceTask })
	l.end(call, 13)
	l.end(a, 14)
	l.end(b, 15)
	l.wantParent(call, b, span.SourceTask)
	l.finish()
}
