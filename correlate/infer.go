// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/attribute"
)

// ConfidenceKey is how likely an inferred parent is right, from 0 to 1, if each of those that could be is as likely.
const ConfidenceKey = attribute.Key("breadcrumb.parent.confidence")

// maxCandidates bounds the requests that an inferred parent is chosen from: with more of them it says nothing.
const maxCandidates = 16

// infer gives a call, of which no rule knows for whom it was made, the request of the same process that was under way all the
// while; of several the one that began last. Wrong wherever there are several, and where the process makes calls of its own
// accord.
func (c *Correlator) infer(n *node) {
	p := c.processes[n.span.Evidence.PID]
	if p == nil {
		return
	}
	var latest *node
	candidates := 0
	for request := range p.open {
		if request.start > n.start {
			continue
		}
		if candidates++; candidates > maxCandidates {
			return
		}
		if latest == nil || request.start > latest.start || request.start == latest.start && request.id.String() > latest.id.String() {
			latest = request
		}
	}
	if latest == nil {
		return
	}
	n.setParent(latest, span.SourceInferred)
	if n.parent == latest {
		n.confidence = 1 / float64(candidates)
	}
}
