// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/attribute"
)

const (
	in  = 0 // directions, as Moved takes them
	out = 1
)

// loop is one thread of a process that serves requests and makes calls.
type loop struct {
	*stage
	tid    uint32
	now    int64
	target *span.Target
}

func newLoop(t testing.TB) *loop { return &loop{stage: newStage(t), tid: 7, now: 1000} }

func (l *loop) moved(conn uint64, dir uint8) {
	l.now++
	l.Moved(1, l.tid, conn, dir)
}

// request is read on a connection.
func (l *loop) request(conn uint64) *span.Span {
	l.moved(conn, in)
	s := l.server(l.now, over(conn))
	s.Target = l.target
	return s
}

// call is made on a connection, while the request had been read last.
func (l *loop) call(conn uint64, last *span.Span) *span.Span {
	l.moved(conn, out)
	return l.client(l.now, over(conn), cause(last), func(s *span.Span) { s.Target = l.target })
}

// answer to a call is read.
func (l *loop) answer(call *span.Span) {
	l.moved(call.Evidence.Conn, in)
	call.State = span.Answered
	l.Add(call)
	l.end(call, l.now)
}

// respond writes the response to a request.
func (l *loop) respond(request *span.Span) {
	l.moved(request.Evidence.Conn, out)
	request.State = span.Answered
	l.Add(request)
	l.end(request, l.now)
}

// prove has the thread be seen as a loop, and be right as often as it takes to be believed.
func (l *loop) prove() {
	for range probation {
		other, s := l.request(101), l.request(102)
		l.answer(l.call(110, s))
		l.respond(s)
		l.respond(other)
	}
}

func (l *loop) wantParent(call, request *span.Span, source span.Source) {
	l.t.Helper()
	if call.Parent != request.ID || call.TraceID != request.TraceID || call.Source != source {
		l.t.Errorf("call %v is under %q by %q, want %v by %v", call.ID, call.Parent, call.Source, request.ID, source)
	}
}

func (l *loop) wantNone(call *span.Span) {
	l.t.Helper()
	if call.Parent.IsValid() || call.Source != span.SourceNone {
		l.t.Errorf("call %v is under %v by %v, want none", call.ID, call.Parent, call.Source)
	}
}

func TestOneRequestAtATime(t *testing.T) {
	l := newLoop(t)
	for range 3 {
		s := l.request(1)
		a := l.call(10, s)
		l.answer(a)
		l.moved(30, out) // something else, between
		b := l.call(11, s)
		l.answer(b)
		l.moved(30, out)
		l.respond(s)
		l.wantParent(a, s, span.SourceThread)
		l.wantParent(b, s, span.SourceThread)
	}
	l.finish()
}

func TestLoopIsBelievedWhereTheEndConfirmsIt(t *testing.T) {
	l := newLoop(t)
	l.prove()
	s1 := l.request(1)
	a1 := l.call(10, s1)
	s2 := l.request(2)
	a2 := l.call(11, s2)
	l.answer(a1)
	b1 := l.call(10, s1)
	l.answer(a2)
	l.respond(s2)
	l.answer(b1)
	l.respond(s1)
	l.wantParent(a1, s1, span.SourceEventLoop)
	l.wantParent(b1, s1, span.SourceEventLoop)
	l.wantParent(a2, s2, span.SourceEventLoop)
	l.finish()
}

// What is right where a request is alone shows nothing of where it is not.
func TestLoopIsProvenByRequestsThatAreNotAlone(t *testing.T) {
	l := newLoop(t)
	other, s := l.request(101), l.request(102) // it is a loop
	l.respond(s)
	l.respond(other)
	alone := func() (call, request *span.Span) {
		request = l.request(1)
		call = l.call(10, request)
		l.answer(call)
		l.respond(request)
		return call, request
	}
	for range 2 * probation {
		alone()
	}
	a, first := alone()
	other, s = l.request(101), l.request(102)
	b := l.call(110, s)
	l.answer(b)
	l.respond(s)
	l.respond(other)
	c, last := alone()
	l.wantParent(a, first, span.SourceEventLoop)
	l.wantParent(c, last, span.SourceEventLoop)
	l.finish()
	l.wantNone(b)
}

// A loop is not believed at once: how often it is right has to show.
func TestLoopOnProbation(t *testing.T) {
	for _, lies := range []bool{false, true} {
		l := newLoop(t)
		calls := map[*span.Span]*span.Span{}
		for i := range probation {
			other, s := l.request(101), l.request(102)
			a := l.call(110, s)
			l.answer(a)
			calls[a] = s
			if lies && i == probation-1 {
				l.respond(other)
				l.respond(s)
			} else {
				l.respond(s)
				l.respond(other)
			}
			if i < probation-1 && (l.Waiting() != i+1 || a.TraceID.IsValid()) {
				t.Errorf("%d wait after %d", l.Waiting(), i+1)
			}
		}
		if l.Waiting() != 0 {
			t.Errorf("%d wait", l.Waiting())
		}
		for a, s := range calls {
			if lies {
				l.wantNone(a)
			} else {
				l.wantParent(a, s, span.SourceEventLoop)
			}
		}
		l.finish()
	}
	// One that does little is not waited for.
	l := newLoop(t)
	other, s := l.request(101), l.request(102)
	a := l.call(110, s)
	l.answer(a)
	l.respond(s)
	l.respond(other)
	l.Expire(l.now + Default().ClaimWait + 1)
	l.take()
	l.wantNone(a)
	l.finish()
}

func TestCallsAtOnceAreConfirmedTogether(t *testing.T) {
	l := newLoop(t)
	l.prove()
	other := l.request(2)
	s := l.request(1)
	calls := []*span.Span{l.call(10, s), l.call(11, s), l.call(12, s)}
	l.answer(calls[1])
	l.answer(calls[2])
	l.answer(calls[0])
	l.respond(s)
	for _, call := range calls {
		l.wantParent(call, s, span.SourceEventLoop)
	}
	l.respond(other)
	l.finish()
}

// A call that a timer makes right after another's may seem to be made at once with it: what its answer leads to tells.
func TestTimerRightAfterACall(t *testing.T) {
	l := newLoop(t)
	l.prove()
	s1, s2 := l.request(1), l.request(2)
	a2 := l.call(11, s2)
	x1 := l.call(10, s2) // for s1
	l.answer(x1)
	y1 := l.call(10, s2) // as well
	l.answer(a2)
	l.respond(s2)
	l.answer(y1)
	l.respond(s1)
	l.wantNone(x1)
	l.wantNone(y1)
	l.finish()
}

// A timer of an earlier request runs after a later one was read.
func TestTimerInALoop(t *testing.T) {
	l := newLoop(t)
	s1, s2 := l.request(1), l.request(2)
	a1 := l.call(10, s2) // for s1
	l.answer(a1)
	l.respond(s1)
	a2 := l.call(11, s2)
	l.answer(a2)
	l.respond(s2)
	l.wantNone(a1)
	l.wantNone(a2) // right, but the thread has just been contradicted

	l.now += distrust + 1
	l.prove()
	s3, s4 := l.request(1), l.request(2)
	a4 := l.call(11, s4)
	l.answer(a4)
	l.respond(s4)
	l.respond(s3)
	l.wantParent(a4, s4, span.SourceEventLoop)
	l.finish()
}

// What is read on another connection between breaks the chain: nothing says whose the response is.
func TestUnconfirmedLoop(t *testing.T) {
	l := newLoop(t)
	l.prove()
	s1, s2 := l.request(1), l.request(2)
	a := l.call(10, s2)
	l.answer(a)
	l.moved(30, in)
	l.respond(s2)
	l.respond(s1)
	l.wantNone(a)
	l.finish()
}

// A proxy that is a loop passes on the header that it got: no chain has to confirm what that says.
func TestLoopThatPassesTheContextOn(t *testing.T) {
	l := newLoop(t)
	s1, s2 := l.request(1), l.request(2)
	s2.Wire = wire(5, 77)
	a := l.call(10, s2)
	a.Wire = wire(5, 77)
	l.answer(a)
	l.moved(30, in)
	l.respond(s2)
	l.respond(s1)
	l.wantParent(a, s2, span.SourceEventLoop)
	l.finish()
}

func TestAnswerInParts(t *testing.T) {
	l := newLoop(t)
	l.prove()
	s1, s2 := l.request(1), l.request(2)
	a := l.call(10, s2)
	l.moved(10, in)
	a.State = span.Answered
	l.Add(a)
	l.moved(30, in) // and then the rest of it
	l.moved(10, in)
	l.respond(s2) // goes on before the last of the answer is told
	l.end(a, l.now)
	l.respond(s1)
	l.wantParent(a, s2, span.SourceEventLoop)
	l.finish()
}

func TestLoopThatQueuesIsNotBelieved(t *testing.T) {
	l := newLoop(t)
	l.target = &span.Target{PID: 1, Resource: []attribute.KeyValue{attribute.String("process.runtime.name", "cpython")}}
	s1, s2 := l.request(1), l.request(2)
	a := l.call(10, s2)
	l.answer(a)
	l.respond(s2)
	l.respond(s1)
	l.wantNone(a)
	l.finish()
}

// A thread that reads for others is a loop, but those that work for it are not.
func TestThreadsAreKnownApart(t *testing.T) {
	l := newLoop(t)
	s1, s2 := l.request(1), l.request(2)
	l.tid = 8
	s3 := l.request(3)
	a := l.call(10, s3)
	l.answer(a)
	l.moved(30, out)
	l.respond(s3)
	l.wantParent(a, s3, span.SourceThread)
	l.respond(s1)
	l.respond(s2)
	l.finish()
}

// A task that waits goes on in another thread, as tokio has it: what a thread has read last says nothing of what it does.
func TestTasksThatMoveBetweenThreads(t *testing.T) {
	l := newLoop(t)
	var calls []*span.Span
	for range 5 {
		l.tid = 7
		s1 := l.request(1)
		l.tid = 8
		s2 := l.request(2)
		l.tid = 7
		a := l.call(10, s1) // for s2
		calls = append(calls, a)
		l.tid = 8
		l.respond(s1)
		l.tid = 7
		l.answer(a)
		l.respond(s2)
	}
	for _, a := range calls {
		l.wantNone(a)
	}
	l.finish()
}

// Requests are read by one thread and handed to another, which makes the calls and writes the responses.
func TestWhoWritesTheResponseDidTheWork(t *testing.T) {
	l := newLoop(t)
	nobody := &span.Span{}
	for i := range 3 {
		l.tid = 7
		s1, s2 := l.request(1), l.request(2)
		l.tid = 8
		a := l.call(10, nobody)
		l.answer(a)
		b := l.call(10, nobody)
		l.answer(b)
		l.respond(s1)
		c := l.call(10, nobody)
		l.answer(c)
		l.respond(s2)
		if i == 0 {
			l.wantNone(a) // it has not written any response before
		} else {
			l.wantParent(a, s1, span.SourceThread)
			l.wantParent(b, s1, span.SourceThread)
		}
		l.wantParent(c, s2, span.SourceThread)
	}
	// What it does before it reads a request of its own is not that request's; nor is what was before a request came.
	a := l.call(10, nobody)
	l.answer(a)
	s := l.request(3)
	b := l.call(10, s)
	l.answer(b)
	l.respond(s)
	l.wantNone(a)
	l.wantParent(b, s, span.SourceThread)
	early := l.call(10, nobody)
	l.answer(early)
	l.tid = 7
	late := l.request(1)
	l.tid = 8
	l.respond(late)
	l.wantNone(early)
	l.finish()
}

func TestCallThatNobodyClaims(t *testing.T) {
	l := newLoop(t)
	s := l.request(1)
	l.respond(s)
	a := l.call(10, &span.Span{})
	l.answer(a)
	if l.Waiting() != 1 {
		t.Errorf("%d wait", l.Waiting())
	}
	l.Expire(l.now + Default().ClaimWait + 1)
	if l.take(); l.Waiting() != 0 {
		t.Errorf("%d wait", l.Waiting())
	}
	l.wantNone(a)
	l.finish()
}

func TestThreadsAreBounded(t *testing.T) {
	l := newLoop(t)
	for tid := range uint32(3 * maxThreads) {
		l.tid = tid
		l.moved(1, in)
	}
	if len(l.threads) != maxThreads || len(l.threadKeys) != maxThreads {
		t.Errorf("%d threads, %d keys", len(l.threads), len(l.threadKeys))
	}
}

// TestLoopWhoseProcessBecomesAnother settles calls of a loop after its process has executed another program.
func TestLoopWhoseProcessBecomesAnother(t *testing.T) {
	l := newLoop(t)
	l.prove()
	a, s := l.request(1), l.request(2)
	call := l.call(3, s)
	l.answer(call)
	l.Exit(1)
	l.respond(s)
	l.respond(a)
	l.finish()
}
