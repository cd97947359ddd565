// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"breadcrumb/internal/span"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// process is what the rules know of a process, from its first span on.
type process struct {
	target *span.Target
	goids  uint64 // highest goroutine id that was seen, where there are any
	// goroutines says that these run the program, on any thread: threads say nothing, also where the kernel side did not
	// know of them yet.
	goroutines bool
	// queues says that its event loops read from all sockets that are ready before they go on with what waited for any
	// of them: whom they have read last says nothing. So does Python's asyncio.
	queues bool
	// migrates says that what one of its event loops has begun another one was seen to go on with.
	migrates bool
	// chains says that a task is no more than what a thread's loop runs at the time: the thread counts as well. So it is with
	// Node's.
	chains bool

	open      map[*node]struct{} // requests that are under way, where parents may be inferred
	unsent    []*node            // requests that say what may be passed on, oldest first: see proxy.go
	serves    bool               // it has read requests
	orphans   int                // calls that it has made for nobody knows whom
	asked     bool               // Wanting has named it
	claimed   float64            // the share of its threads' calls for nobody knows whom that someone has waited for
	handsOver bool               // its goroutines or threads were seen to hand over what others waited for
	jobs      map[uint64][]ref   // by goroutine: such calls since it last handed something over
}

func (c *Correlator) process(pid uint32, target *span.Target) *process {
	p := c.processes[pid]
	if p == nil {
		p = &process{open: map[*node]struct{}{}}
		c.processes[pid] = p
	}
	if p.target != target {
		name := runtimeName(target)
		p.target, p.goroutines = target, name == "go"
		p.queues, p.chains = name == "cpython" || name == "pypy", name == "nodejs"
	}
	return p
}

// byThread says that the thread that moves the bytes of a span says something of it, and not only its task.
func (p *process) byThread(s *span.Span) bool {
	return !p.goroutines && !s.Evidence.Multiplexed && (s.Evidence.Task == 0 || p.chains)
}

// runtimeName is process.runtime.name, or empty.
func runtimeName(t *span.Target) string {
	if t != nil {
		for _, kv := range t.Resource {
			if kv.Key == semconv.ProcessRuntimeNameKey {
				return kv.Value.AsString()
			}
		}
	}
	return ""
}
