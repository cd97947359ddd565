// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// A proxy for a database, as PgBouncer, asks word for word what it was asked. That tells for whom a call is, whoever makes it and
// whenever: for the one request under way that says the same, values in the text included, and that has not been passed on yet. Of
// the requests of one connection it is the first, as they are passed on in their order. If several are left, they tell nothing, and the
// thread may.
//
// Wrong where a program that serves a database's protocol asks another database of its own accord, in the very words of a request that it
// is about to pass on.

// told keeps what a request says until it is passed on or ends.
func (p *process) told(n *node) {
	if n.span.Digest == 0 {
		return
	}
	n.teller = p
	p.unsent = append(p.unsent, n)
}

// passedOn says that a request is no longer one that may be passed on.
func (n *node) passedOn() {
	if n.teller == nil {
		return
	}
	list := n.teller.unsent
	for i, other := range list {
		if other == n {
			n.teller.unsent = append(list[:i], list[i+1:]...)
			break
		}
	}
	n.teller = nil
}

// source is the request that a call passes on, nil if there is none or it may be any of several.
func (p *process) source(call *span.Span) *node {
	if call.Digest == 0 {
		return nil
	}
	var found *node
	for _, n := range p.unsent {
		switch {
		case n.span.Digest != call.Digest:
		case found == nil:
			found = n
		case found.conn != n.conn:
			return nil
		}
	}
	return found
}

// proxied gives a call the parent that it passes on, unless a task or a goroutine has told already for whom it is made.
func (c *Correlator) proxied(n *node, p *process) {
	if n.kind != trace.SpanKindClient || n.parent != nil && n.source != span.SourceThread {
		return
	}
	request := p.source(n.span)
	if request == nil {
		return
	}
	if n.parent != nil {
		c.drop(n.parent)
		n.parent = nil
	}
	n.setParent(request, span.SourceProxy)
	request.passedOn()
}
