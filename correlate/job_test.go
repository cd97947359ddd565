// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// pool is a process whose threads hand their calls to those of a pool.
type pool struct {
	*loop
	handlers uint32 // the first of the threads that serve requests; the others follow
}

// newPool is one of which it is known that someone waits for its jobs.
func newPool(t testing.TB) *pool {
	p := &pool{loop: newLoop(t), handlers: 100}
	p.served()
	p.Job(1, trace.SpanID{}, trace.SpanID{}, jobsOfLate)
	return p
}

// on has a thread do the next.
func (p *pool) on(tid uint32) *pool {
	p.tid = tid
	return p
}

// job is a call that a thread of the pool makes, up to its answer.
func (p *pool) job(tid uint32) *span.Span {
	p.on(tid).moved(uint64(tid), out)
	call := p.client(p.now, over(uint64(tid)))
	p.answer(call)
	return call
}

// wakes says that the thread of a job has woken the one that serves a request.
func (p *pool) wakes(call, request *span.Span, unclaimed int) {
	p.Job(1, call.ID, request.ID, unclaimed)
}

// served is a request with one call that it waits for.
func (p *pool) served() (request, call *span.Span) {
	request = p.on(p.handlers).request(uint64(p.handlers))
	call = p.job(7)
	p.wakes(call, request, 0)
	p.on(p.handlers).respond(request)
	return request, call
}

// trusted lets it be known that someone waits for each job.
func (p *pool) trusted() *pool {
	for range 4 * jobsOfLate {
		p.served()
	}
	return p
}

func TestWhoWaitsForAThreadsJobWantedIt(t *testing.T) {
	for name, play := range map[string]func(p *pool){
		"the only job": func(p *pool) {
			request, call := p.served()
			p.finish()
			p.child(call, request, span.SourceHandOff)
		},
		"jobs for two at once": func(p *pool) {
			a, b := p.on(100).request(100), p.on(101).request(101)
			forB, forA := p.job(7), p.job(8)
			p.wakes(forA, a, 0)
			p.wakes(forB, b, 0)
			p.on(100).respond(a)
			p.on(101).respond(b)
			p.finish()
			p.child(forA, a, span.SourceHandOff)
			p.child(forB, b, span.SourceHandOff)
		},
		"a wake-up that is not the last one, of a process of which little is known": func(p *pool) {
			request := p.on(100).request(100)
			lock, call := p.job(7), p.job(8)
			p.wakes(lock, request, 0)
			p.wakes(call, request, 0)
			p.on(100).respond(request)
			p.finish()
			p.root(lock)
			p.child(call, request, span.SourceHandOff)
		},
		"one after the other, where someone waits for all": func(p *pool) {
			p.trusted()
			request := p.on(100).request(100)
			first := p.job(7)
			p.wakes(first, request, 0)
			second := p.job(8)
			p.wakes(second, request, 0)
			p.on(100).respond(request)
			p.finish()
			p.child(first, request, span.SourceHandOff)
			p.child(second, request, span.SourceHandOff)
		},
		"one after the other, where nobody waits for many": func(p *pool) {
			p.trusted()
			request := p.on(100).request(100)
			first := p.job(7)
			p.wakes(first, request, jobsOfLate)
			second := p.job(8)
			p.wakes(second, request, 0)
			p.on(100).respond(request)
			p.finish()
			p.root(first)
			p.child(second, request, span.SourceHandOff)
		},
		"a call from before the request": func(p *pool) {
			call := p.job(7)
			request := p.on(100).request(100)
			p.wakes(call, request, 0)
			p.on(100).respond(request)
			p.finish()
			p.root(call)
		},
		"a thread that answers requests itself": func(p *pool) {
			own := p.on(100).request(100)
			p.on(7).respond(own)
			request := p.on(101).request(101)
			call := p.job(7)
			p.wakes(call, request, 0)
			p.on(101).respond(request)
			p.finish()
			p.root(call)
		},
		"a thread that turns out to answer requests itself": func(p *pool) {
			read, waits := p.on(100).request(100), p.on(101).request(101)
			call := p.job(7)
			p.wakes(call, waits, 0)
			p.on(7).respond(read)
			p.on(101).respond(waits)
			p.finish()
			p.root(call)
		},
		"a request that an event loop serves": func(p *pool) {
			other := p.on(100).request(100)
			request := p.request(101)
			call := p.job(7)
			p.wakes(call, request, 0)
			p.on(100).respond(request)
			p.respond(other)
			p.finish()
			p.root(call)
		},
		"an end that nobody waits for": func(p *pool) {
			p.served()
			call := p.job(7)
			p.released(p.take())
			p.Expire(p.now + Default().ClaimWait + 1)
			p.finish()
			p.root(call)
		},
	} {
		t.Run(name, func(t *testing.T) { play(newPool(t)) })
	}
}

func TestWakeUpsAreAskedForWhereTheyWouldTell(t *testing.T) {
	p := newPool(t)
	request := p.on(100).request(100)
	for range enoughOrphans {
		p.job(7)
	}
	p.on(100).respond(request)
	if w := p.Wanting(); len(w) != 1 || w[0] != 1 {
		t.Errorf("asked for %v", w)
	}
	p.finish()
}
