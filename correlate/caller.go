// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// maxCallers bounds the calls of which it was told who makes them before they are.
const maxCallers = 8192

// Caller says who made a call: not the goroutine or task that wrote it, but one that asked it to. Of calls that share their
// connection with others nothing else is known; of those of a task, it is told where it is not what the call's first bytes have said.
// It may be told before the call begins. The first that is told counts.
func (c *Correlator) Caller(call trace.SpanID, by span.Evidence) {
	n := c.nodes[call]
	if n == nil {
		if len(c.callerIDs) >= maxCallers {
			delete(c.callers, c.callerIDs[0])
			c.callerIDs = c.callerIDs[1:]
		}
		if _, known := c.callers[call]; !known {
			c.callers[call] = by
			c.callerIDs = append(c.callerIDs, call)
		}
		return
	}
	if n.isCalledBy(&by) {
		c.calledBy(n, &by)
	}
}

// isCalledBy says whether what is told of who made a call counts.
func (n *node) isCalledBy(by *span.Evidence) bool {
	return n.kind == trace.SpanKindClient && n.state == underWay && (n.span.Evidence.Multiplexed || by.CauseSource == span.SourceTask)
}

// calledBy gives a call the parent that follows from who made it.
func (c *Correlator) calledBy(n *node, by *span.Evidence) {
	ev := &n.span.Evidence
	ev.Task, ev.ParentTask, ev.Cause, ev.CauseSource, ev.Inherited = by.Task, by.ParentTask, by.Cause, by.CauseSource, by.Inherited
	ev.Multiplexed = false // of this one it is known
	process := c.process(ev.PID, n.span.Target)
	process.goids = max(process.goids, ev.Task)
	c.drop(n.parent)
	n.parent = nil
	if n.setParent(c.cause(n.span), ev.CauseSource); n.parent != nil {
		n.job = false
	}
	if n.parent == nil && process.looseCall(n, ev.Task, nil) {
		c.wanting = append(c.wanting, ev.PID)
	}
}
