// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

const (
	// enoughOrphans is how many calls for nobody knows whom a process that serves requests has to make until it is asked
	// for its hand-offs.
	enoughOrphans = 8
	// maxJobs bounds the goroutines of a process of which such calls are remembered, and maxJobCalls those of one.
	maxJobs     = 4096
	maxJobCalls = 64
	// jobsOfLate is of how many calls it is known whether someone has waited for them, and trustJobs the share of those for
	// which someone did, from which on all of a process's hand-offs are believed.
	jobsOfLate = 64
	trustJobs  = 0.9
)

// looseCall remembers a call for nobody knows whom: who waits for the goroutine, or for the thread, may tell. It says whether
// now is the time to ask for the process's hand-offs.
func (p *process) looseCall(n *node, task uint64, t *thread) bool {
	switch {
	case !p.goroutines:
		if p.chains || t != nil && t.loop {
			return false
		}
		n.job = true
	case task == 0:
		return false
	default:
		if p.jobs == nil || len(p.jobs) >= maxJobs {
			p.jobs = map[uint64][]ref{}
		}
		if len(p.jobs[task]) < maxJobCalls {
			p.jobs[task] = append(p.jobs[task], refer(n))
			n.job = true
		}
	}
	p.orphans++
	if !p.serves || p.orphans < enoughOrphans || p.asked {
		return false
	}
	p.asked = true
	return true
}

// HandOff says that a goroutine has given to another one, which serves a request, what that waited for: the end of a job that
// the other wanted. The calls that it has made since its last job were for that request. Wrong where it gives to one request
// what it has made for another.
func (c *Correlator) HandOff(pid uint32, task uint64, request trace.SpanID) {
	p := c.processes[pid]
	if p == nil {
		return
	}
	p.handsOver = true
	parent := c.nodes[request]
	calls := p.jobs[task]
	delete(p.jobs, task)
	for _, r := range calls {
		call := r.get()
		if call == nil || call.parent != nil || call.state != underWay && call.state != adrift {
			continue
		}
		call.job = false
		if parent != nil && parent.kind == trace.SpanKindServer && parent.end == 0 && call.start >= parent.start {
			call.setParent(parent, span.SourceHandOff)
		}
		if call.state == adrift {
			c.stopDrifting(call)
		}
	}
}

// Job says that a thread whose last call is answered has ended what another thread waits for, that serves a request: the call was
// for it. unclaimed is of how many of the thread's calls before, since the last such event, nothing such was seen.
//
// Wrong where the other waits for something else that the thread lets go of: a lock for which it has queued since before the call
// was made. Such a wake-up is not the last one before the other responds. So all are believed only in a process in which
// someone waits for nearly every job; else the last one before the response. And it is wrong where threads both do jobs and
// answer requests: not believed of one that was seen to.
func (c *Correlator) Job(pid uint32, call, request trace.SpanID, unclaimed int) {
	p, n := c.processes[pid], c.nodes[call]
	if p == nil {
		return
	}
	p.handsOver = true
	for range min(unclaimed, jobsOfLate) {
		p.claimed -= p.claimed / jobsOfLate
	}
	p.claimed += (1 - p.claimed) / jobsOfLate
	if n == nil || n.kind != trace.SpanKindClient || n.parent != nil || n.state != underWay && n.state != adrift {
		return
	}
	n.job = false
	parent := c.nodes[request]
	if parent != nil && parent.kind == trace.SpanKindServer && parent.end == 0 && n.start >= parent.start &&
		!n.thread.ownWork() && (parent.thread == nil || !parent.thread.loop) {
		if n.setParent(parent, span.SourceHandOff); !parent.responds {
			parent.lastJob = refer(n)
		}
		n.pool = p
	}
	if n.state == adrift && !n.mayBeClaimed() {
		c.stopDrifting(n)
	}
}

// judgeJob says whether a call holds its parent that a thread made in a job for another.
func (n *node) judgeJob() verdict {
	if n.pool.claimed >= trustJobs || n.parent.lastJob.get() == n {
		return believed
	}
	return refused
}

// ownWork says that a thread does more than jobs for others.
func (t *thread) ownWork() bool { return t != nil && (t.loop || t.writes) }

// Wanting are the processes, since the last call, whose hand-offs would tell for whom they make calls.
func (c *Correlator) Wanting() []uint32 {
	wanting := c.wanting
	c.wanting = nil
	return wanting
}
