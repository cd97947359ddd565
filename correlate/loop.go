// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// A thread that serves one request at a time makes its calls for that request: I/O causality is exact. A thread that
// runs an event loop reads one request and then another, and what it does next may be for any of them: because its
// socket became readable, because of a timer, or because it was queued. Such a thread gives itself away: it reads a
// request while another that it has read is not answered, does something on another connection while a call of its own is
// not answered, or has read a request that another thread answers.
//
// Of a loop, what was read last is believed only where the end confirms it. Calls are chained as their bytes follow one
// another on the thread with nothing between: the answer to one call, then the next call; and the chain belongs to the
// request whose response follows its last answer. Where chain and thread name the same request, it is the parent.

// thread is what the rules know of a thread that moves bytes.
type thread struct {
	loop         bool         // it was seen to run an event loop
	process      *process     // nil: it has neither read a request nor made a call
	reads        uint64       // requests that it has read
	open         int          // those of them that are under way
	proven       int          // requests of which a chain named the one read last, since one did not
	tested       int          // those of them that were not the only one under way
	prover       trace.SpanID // the last of them
	judged       int          // calls, up to shareOf
	share        float64      // of the calls of late that were confirmed
	contradicted int64        // when a chain last named another request than the one read last; Unix ns

	now, before move  // the runs of bytes that moved last
	reading     ref   // the request that it has read last, until the response begins
	calling     ref   // the call that it has made last, until it is answered
	trial       []ref // calls that wait for it to prove right
	writes      bool  // it has written responses
	loose       []ref // the calls that it has made since the last one, or since it read a request, for nobody knows whom
}

// move is a run of bytes of one connection in one direction, moved by one thread with nothing between.
type move struct {
	conn uint64
	dir  uint8
	role role
	of   ref
}

// role is what of an exchange began in a move.
type role uint8

const (
	nothing role = iota
	requestRead
	callSent
	answerRead
	responseWritten
)

// ref is a node that may be gone, and another in its memory.
type ref struct {
	n  *node
	id trace.SpanID
}

func refer(n *node) ref { return ref{n, n.id} }

func (r ref) get() *node {
	if r.n == nil || r.n.id != r.id {
		return nil
	}
	return r.n
}

type threadKey struct{ pid, tid uint32 }

const (
	// maxThreads bounds the threads that are known; the one that was met first goes.
	maxThreads = 16384
	// distrust is how long, in ns, a loop is not believed that was contradicted.
	distrust = 60e9
	// probation is of how many requests a chain must have been right before one is believed.
	probation = 12
	// shareOf is how many calls "of late" are, and trustLoop the share of them that must be confirmed: where it is less, those that
	// are may be so by chance (15 of 10 000 were, with half, where promises of one request are resolved by another one).
	shareOf   = 16
	trustLoop = 0.9
	// maxLoose bounds the calls that one response may be found to be of, and what may follow the answers to a burst.
	maxLoose = 64
	// maxChain bounds the calls that are confirmed at once.
	maxChain = 256
)

// Moved says that a thread has moved bytes of a connection, before what the decoder makes of them.
func (c *Correlator) Moved(pid, tid uint32, conn uint64, dir uint8) {
	c.mover = nil
	p := c.processes[pid]
	if p != nil && p.goroutines {
		return
	}
	key := threadKey{pid, tid}
	t := c.threads[key]
	if t == nil {
		if len(c.threadKeys) >= maxThreads {
			delete(c.threads, c.threadKeys[0])
			c.threadKeys = c.threadKeys[1:]
		}
		t = &thread{}
		c.threads[key] = t
		c.threadKeys = append(c.threadKeys, key)
	}
	c.mover = t
	if p != nil { // else the process has ended or become another program, and calls of before are not settled yet
		t.process = p
	}
	if t.now.conn == conn && t.now.dir == dir {
		return
	}
	t.before, t.now = t.now, move{conn: conn, dir: dir}
	if call := c.answering[conn].get(); call != nil && call.state == underWay && dir == 0 {
		t.now.role, t.now.of = answerRead, refer(call) // another part of it
	}
	if call := t.calling.get(); call != nil && call.conn != conn {
		t.loop = true
	}
}

// PeerEnded says that the process has read that no more will come on a connection. It is a part of the answer, if one has come on it: the
// end of it, or what the process waited for before it went on.
func (c *Correlator) PeerEnded(conn uint64) {
	call := c.answering[conn].get()
	if call == nil || call.thread == nil {
		return
	}
	if t := call.thread; t.now.conn != conn || t.now.dir != 0 {
		t.before, t.now = t.now, move{conn: conn, role: answerRead, of: refer(call)}
	}
}

// began takes note of what the bytes that move are the beginning of.
func (t *thread) began(r role, n *node) {
	t.now.role, t.now.of = r, refer(n)
	before := t.before.of.get()
	switch r {
	case requestRead:
		if other := t.reading.get(); other != nil && other.conn != n.conn {
			t.loop = true
		}
		t.reading = refer(n)
		n.shared = t.open > 0
		t.reads++
		t.open++
		n.thread, n.order = t, t.reads
	case callSent:
		n.thread, n.burst = t, &burst{}
		switch {
		case before == nil || n.parent == nil:
		case t.before.role == requestRead && before == n.parent, t.before.role == answerRead && before.parent == n.parent:
			n.burst.after = refer(before)
			if before.burst != nil && len(before.burst.next) < maxLoose {
				before.burst.next = append(before.burst.next, n.burst)
			}
		case t.before.role == callSent && before.parent == n.parent && before.burst != nil:
			n.burst = before.burst
		}
		t.calling = refer(n)
		if n.parent == nil && n.span.Evidence.Task == 0 && len(t.loose) < maxLoose {
			t.loose = append(t.loose, refer(n))
		}
	case answerRead:
		t.takesOver(n)
		if t.calling.get() == n {
			t.calling = ref{}
		}
	case responseWritten:
		if t.reading.get() == n {
			t.reading = ref{}
		}
		t.takesOver(n)
		if n.thread != nil && n.thread != t {
			n.thread.loop = true // what it reads others go on with, and it with what others have read
		}
		if before != nil && t.before.role == answerRead {
			confirm(before, n)
		}
	}
}

// isOver is called when a request that a thread has read is no longer under way.
func (n *node) isOver() {
	if n.order == 0 {
		return
	}
	n.shared = n.shared || n.order != n.thread.reads
	n.thread.open--
	n.order = 0
}

// takesOver is called when a thread goes on with what another one has begun. Where both run event loops, tasks move from loop to
// loop, as tokio's do: then it is chance what a loop does next.
func (t *thread) takesOver(n *node) {
	if n.thread != nil && n.thread != t && t.loop && n.thread.loop && t.process != nil {
		t.process.migrates = true
	}
}

// burst is one call, or some that a thread has made for the same request with nothing between: what is known of one holds
// for all.
type burst struct {
	after     ref          // what the thread had read right before: the request, or the answer to a call
	next      []*burst     // what the thread did right after the answer to one of them
	confirmed trace.SpanID // the request whose response followed the chain of calls that they are of
	disputed  bool         // another one's did, too
}

// confirm says that the chain that ends with a call was for a request.
func confirm(call, request *node) {
	for range maxChain {
		b := call.burst
		if b == nil {
			return // the request with which it began, or a call that is not of a thread
		}
		switch {
		case !b.confirmed.IsValid():
			b.confirmed = request.id
		case b.confirmed != request.id:
			b.disputed = true
		}
		if call = b.after.get(); call == nil {
			return
		}
	}
}

// verdict is what is thought of the parent that I/O causality gave a call.
type verdict uint8

const (
	believed verdict = iota
	refused
	onTrial // it is right if the thread proves to be
)

// judge says whether the parent of a call holds, when all is known of the request. Wrong where a loop runs what no socket
// woke, and that, by chance, both follows and precedes nothing but I/O of one other request; which is the rarer as a loop
// is not believed before some of its chains were right, nor for a while after one was not.
func (c *Correlator) judge(n *node) verdict {
	if n.parent != nil && n.pool != nil {
		return n.judgeJob()
	}
	t, b := n.thread, n.burst
	if n.parent == nil || n.source != span.SourceThread || b == nil || !t.loop {
		return believed
	}
	// A proxy passes on the context that it got. Wrong where it got the same one with two requests at once.
	if w := n.span.Wire; w.SpanID.IsValid() && w.SpanID == n.parent.wire && w.TraceID == n.parent.traceID {
		return believed
	}
	right := n.isConfirmed()
	if n.dialed && !right {
		return refused // a loop may open a connection later than it was asked to: that says nothing of it otherwise
	}
	if t.judged < shareOf {
		t.judged++
	}
	t.share -= t.share / float64(t.judged)
	if right {
		t.share += 1 / float64(t.judged)
	}
	switch {
	case b.confirmed.IsValid() && (b.disputed || b.confirmed != n.parent.id):
		t.contradicted, t.proven, t.tested = n.end, 0, 0
		c.sentence(t, true)
		return refused
	case !right:
		return refused
	}
	if t.process.queues || t.process.migrates || t.contradicted != 0 && n.end-t.contradicted <= distrust && t.contradicted-n.end <= distrust {
		return refused
	}
	// One chain may be long and wrong. Where a request is alone, nothing but it can be meant: that proves nothing of the others.
	if n.parent.id != t.prover {
		t.prover = n.parent.id
		t.proven++
		if n.parent.shared {
			t.tested++
		}
	}
	if !t.hasProven(n) || t.share < trustLoop {
		return onTrial
	}
	c.sentence(t, false)
	return believed
}

// hasProven says that the loop was right often enough for a call like this to be believed.
func (t *thread) hasProven(n *node) bool {
	if n.parent.shared {
		return t.tested >= probation
	}
	return t.proven >= probation
}

// isConfirmed says that the end confirms who made a call: its chain, and all that came of it, ends in the response of the
// request that the thread had read last.
func (n *node) isConfirmed() bool {
	b := n.burst
	if b.confirmed != n.parent.id || b.disputed || n.end > n.parent.end { // what a request needs is there before its response is
		return false
	}
	for _, next := range b.next {
		if next.confirmed != b.confirmed {
			return false // one of them led to something of which that is not known
		}
	}
	return true
}

// sentence ends the trial of what waits for a thread to prove right.
func (c *Correlator) sentence(t *thread, guilty bool) {
	trial := t.trial
	t.trial = nil
	for _, r := range trial {
		n := r.get()
		switch {
		case n == nil || n.state != tried:
		case !guilty && !t.hasProven(n):
			t.trial = append(t.trial, r)
		default:
			c.endTrial(n, guilty)
		}
	}
}

// endTrial lets a call go that was on trial.
func (c *Correlator) endTrial(n *node, guilty bool) {
	c.trials.remove(n)
	if n.refused = guilty; guilty {
		c.stats.RefusedLoop++
	}
	c.release(n)
}

// mayBeClaimed says of a call that has ended, and of which nobody knows for whom it was made, that the response that its
// thread writes next may tell.
func (n *node) mayBeClaimed() bool {
	t := n.thread
	if n.parent != nil || t == nil || t.loop || !t.writes {
		return false
	}
	for _, r := range t.loose {
		if r.get() == n {
			return true
		}
	}
	return false
}

// claim gives a request the calls that were made by the thread that now writes its response: what another thread has read
// is handed to this one, which does all of the work and answers. They were made since the request was read, and since the
// thread's response before. Wrong where a thread goes on working for a request that it has answered, and then answers
// another that waited for it meanwhile. With no request the calls are nobody's: the thread begins with one of its own.
func (c *Correlator) claim(t *thread, request *node) {
	t.writes = t.writes || request != nil
	for _, r := range t.loose {
		call := r.get()
		if call != nil && call.source == span.SourceHandOff && request != nil && call.parent != request {
			call.refused = true // the rules disagree
		}
		if call == nil || call.state != adrift {
			continue
		}
		if !t.loop && request != nil && call.start >= request.start {
			call.setParent(request, span.SourceThread)
		}
		c.stopDrifting(call)
	}
	t.loose = t.loose[:0]
}

// stopDrifting settles a call that will not be claimed, or just was.
func (c *Correlator) stopDrifting(n *node) {
	c.drifting.remove(n)
	c.settle(n)
}
