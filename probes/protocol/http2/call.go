// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"net"
	"slices"
	"strconv"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// maxAttrs is the most attributes that a call's span usually has; more only cost an allocation.
const maxAttrs = 14

// unfinishedAttr marks a span of a call that was still under way when the agent stopped.
var unfinishedAttr = attribute.Bool("breadcrumb.unfinished", true)

// common are the attributes that the calls on a connection have in common.
type common struct {
	authority string
	attrs     []attribute.KeyValue
}

// attributes are those of a call to an authority.
func (d *decoder) attributes(authority string) []attribute.KeyValue {
	if d.common.attrs != nil && d.common.authority == authority {
		return d.common.attrs
	}
	c := &d.conn
	address, port := c.RemoteAddr, int(c.RemotePort)
	if d.server {
		address, port = c.LocalAddr, int(c.LocalPort)
	}
	if host, p, err := net.SplitHostPort(authority); err == nil {
		address = host
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			port = int(n)
		}
	} else if authority != "" {
		address = authority
	}
	var attrs []attribute.KeyValue
	if address != "" {
		attrs = append(attrs, semconv.ServerAddress(valid(address)))
	}
	if port != 0 {
		attrs = append(attrs, semconv.ServerPort(port))
	}
	if c.RemoteAddr != "" {
		if d.server {
			attrs = append(attrs, semconv.ClientAddress(c.RemoteAddr))
		}
		attrs = append(attrs, semconv.NetworkPeerAddress(c.RemoteAddr))
		if c.RemotePort != 0 {
			attrs = append(attrs, semconv.NetworkPeerPort(int(c.RemotePort)))
		}
	}
	if c.Network == "unix" {
		attrs = append(attrs, semconv.NetworkTransportUnix)
	}
	d.common = common{authority, append(attrs, version2, system)}
	return d.common.attrs
}

// begin makes the span of a call of which the request's head is known, and counts it.
func (d *decoder) begin(st *stream, m *section, out probes.Out) {
	sp := out.New()
	sp.ID, sp.Start, sp.Evidence, sp.Target = st.begin.ID, st.begin.Begin, st.begin.Evidence, d.target.Target
	sp.Kind = trace.SpanKindClient
	if d.server {
		sp.Kind = trace.SpanKindServer
	}
	sp.Wire = m.carried()
	sp.Attrs = append(slices.Grow(sp.Attrs[:0], maxAttrs), d.attributes(m.authority)...)
	st.describe(sp)
	st.span = sp
	if sp.Target != nil {
		sp.Target.Account.Add(ledger.Seen, 1)
	}
	out.Span(sp)
}

// end hands over a call's span; e says what ended it, unless its response is complete or it was reset.
func (d *decoder) end(st *stream, e probes.End, t int64, out probes.Out) {
	sp := st.span
	if sp == nil {
		return
	}
	failed := ""
	switch {
	case st.complete || st.reset != "":
	case e == probes.Stopped:
		sp.Attrs = append(sp.Attrs, unfinishedAttr)
	case e == probes.Reset:
		failed = "connection_reset"
	default:
		failed = closed
	}
	sp.Unanswered = !st.complete && !st.answered
	st.conclude(sp, d.server, failed)
	sp.End = max(t, sp.Start)
	sp.State = span.Done
	st.span = nil
	out.Span(sp)
}

// giveUpCall gives a call up.
func (d *decoder) giveUpCall(st *stream, cause ledger.Entry, out probes.Out) {
	if sp := st.span; sp != nil {
		if t := sp.Target; t != nil {
			t.Account.Add(cause, 1)
		}
		sp.State = span.Lost
		st.span = nil
		out.Span(sp)
	}
	d.forget(st)
}
