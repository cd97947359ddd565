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
)

// looseCall remembers a call of a goroutine for nobody knows whom: who waits for the goroutine may tell.
func (p *process) looseCall(n *node, task uint64) {
	if p.jobs == nil || len(p.jobs) >= maxJobs {
		p.jobs = map[uint64][]ref{}
	}
	if len(p.jobs[task]) < maxJobCalls {
		p.jobs[task] = append(p.jobs[task], refer(n))
		n.job = true
	}
	p.orphans++
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

// Wanting are the processes, since the last call, whose hand-offs would tell for whom they make calls.
func (c *Correlator) Wanting() []uint32 {
	wanting := c.wanting
	c.wanting = nil
	return wanting
}
