// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// maxAttrs is the most attributes that a span usually has; more only cost an allocation.
const maxAttrs = 16

// Attributes of our own.
var (
	// truncatedAttr marks a span of which the statement was longer than what was captured of it.
	truncatedAttr = attribute.Bool("breadcrumb.truncated", true)
	// withheldAttr marks a span of a statement that is not shown as it cannot be read safely.
	withheldAttr = attribute.Bool("breadcrumb.withheld", true)
	// unknownAttr marks a span of which the statement is not known, as it was prepared before the agent looked or unseen, or how it
	// ended.
	unknownAttr = attribute.Bool("breadcrumb.unknown_fields", true)
	// unfinishedAttr marks a span of what was still under way when the agent stopped.
	unfinishedAttr = attribute.Bool("breadcrumb.unfinished", true)
)

// outcome is how a unit ended.
type outcome struct {
	kind     outcomeKind
	severity severity
	code     [5]byte // SQLSTATE of what has failed, if it is known
}

type outcomeKind uint8

const (
	noOutcome outcomeKind = iota
	succeeded
	failed
	aborted // skipped by the server, as something before it has failed
	unknown // its end was not seen
	unfinished
	connectionClosed
	connectionReset
)

type severity uint8

const (
	severityError severity = iota
	severityFatal          // the connection ends
	severityPanic          // all do
)

func (s severity) String() string { return [...]string{"ERROR", "FATAL", "PANIC"}[s] }

var (
	abortedAttr = semconv.ErrorTypeKey.String("pipeline_aborted")
	closedAttr  = semconv.ErrorTypeKey.String("connection_closed")
	resetAttr   = semconv.ErrorTypeKey.String("connection_reset")
)

// callName is db.operation.name of a FunctionCall, which has no statement.
const callName = "FunctionCall"

// values are the attributes that the spans of a connection have in common.
type values struct {
	common []attribute.KeyValue
	target string // what a statement is about, where it does not say
}

func (v *values) init(c *probes.Conn, server bool) {
	v.common = append(v.common, semconv.DBSystemNamePostgreSQL)
	address, port := c.RemoteAddr, int(c.RemotePort)
	if server {
		address, port = c.LocalAddr, int(c.LocalPort)
	}
	v.target = semconv.DBSystemNamePostgreSQL.Value.AsString()
	if address != "" {
		v.target = valid(address)
		v.common = append(v.common, semconv.ServerAddress(v.target))
	}
	if port != 0 {
		v.common = append(v.common, semconv.ServerPort(port))
		v.target = net.JoinHostPort(v.target, strconv.Itoa(port))
	}
	if c.RemoteAddr != "" {
		remote := valid(c.RemoteAddr)
		if server {
			v.common = append(v.common, semconv.ClientAddress(remote))
		}
		v.common = append(v.common, semconv.NetworkPeerAddress(remote))
		if c.RemotePort != 0 {
			v.common = append(v.common, semconv.NetworkPeerPort(int(c.RemotePort)))
		}
	}
	if c.Network == "unix" {
		v.common = append(v.common, semconv.NetworkTransportUnix)
	}
}

// use takes the name of the database.
func (v *values) use(database []byte) {
	if len(database) > 0 {
		v.target = valid(string(database))
		v.common = append(v.common, semconv.DBNamespace(v.target))
	}
}

// valid makes a string that may be exported: OTLP refuses a whole batch for a string that is not UTF-8.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// open makes the span of a unit, and counts it.
func (d *decoder) open(u *unit, out probes.Out) {
	d.account().Add(ledger.Seen, 1)
	sp := out.New()
	if sp.ID = d.name; !sp.ID.IsValid() {
		sp.ID = mint(d.conn.ID, u.pos)
	}
	d.name = trace.SpanID{}
	sp.Kind = trace.SpanKindClient
	if d.server {
		sp.Kind = trace.SpanKindServer
	}
	sp.Start = u.time
	sp.Evidence = u.evidence
	sp.Target = d.conn.Target
	d.describe(u, sp)
	u.span = sp
	out.Span(sp)
	if d.late.IsValid() {
		if d.late != sp.ID {
			out.Alias(d.late, sp)
		}
		d.late = trace.SpanID{}
	}
}

// describe sets the name, the context and those attributes that come from the statement.
func (d *decoder) describe(u *unit, sp *span.Span) {
	attrs := append(slices.Grow(sp.Attrs[:0], maxAttrs), d.values.common...)
	sp.Name, sp.Wire, sp.Digest = "", u.what.context, u.what.digest
	if st := u.what.statement; st != nil {
		if st.Operation != "" {
			attrs = append(attrs, semconv.DBOperationName(st.Operation))
		}
		if st.Collection != "" {
			attrs = append(attrs, semconv.DBCollectionName(st.Collection))
		}
		if st.Procedure != "" {
			attrs = append(attrs, semconv.DBStoredProcedureName(st.Procedure))
		}
		if st.Summary != "" {
			attrs = append(attrs, semconv.DBQuerySummary(st.Summary))
		}
		if st.Text != "" {
			attrs = append(attrs, semconv.DBQueryText(st.Text))
		}
		if st.Statements > 1 {
			attrs = append(attrs, semconv.DBOperationBatchSize(st.Statements))
		}
		if st.Withheld {
			attrs = append(attrs, withheldAttr)
		}
		switch {
		case st.Summary != "":
			sp.Name = st.Summary
		case st.Operation != "" && st.Collection != "":
			sp.Name = st.Operation + " " + st.Collection
		case st.Operation != "":
			sp.Name = st.Operation + " " + d.values.target
		}
	}
	if u.kind == unitCall {
		attrs = append(attrs, semconv.DBOperationName(callName))
		sp.Name = callName + " " + d.values.target
	}
	if sp.Name == "" {
		sp.Name = d.values.target
	}
	sp.Attrs = attrs
}

// finish hands a unit's span over, if it has one, as complete at time t.
func (d *decoder) finish(u *unit, t int64, out probes.Out) {
	sp := u.span
	if sp == nil {
		return
	}
	u.span = nil
	attrs := sp.Attrs
	o := &u.outcome
	unknowns := u.what.statement == nil && u.kind != unitCall
	if unknowns && u.command != "" {
		attrs = append(attrs, semconv.DBOperationName(u.command))
		sp.Name = u.command + " " + d.values.target
	}
	if u.returns && !u.vague && (o.kind == succeeded || o.kind == failed) {
		attrs = append(attrs, semconv.DBResponseReturnedRows(int(u.rows)))
	}
	switch o.kind {
	case failed:
		attrs = o.describe(attrs, sp)
	case aborted:
		attrs = append(attrs, abortedAttr)
		sp.Status, sp.Message = codes.Error, "not executed: what came before it has failed"
	case unknown:
		unknowns = true
	case unfinished:
		attrs = append(attrs, unfinishedAttr)
	case connectionClosed:
		attrs = append(attrs, closedAttr)
		sp.Status = codes.Error
	case connectionReset:
		attrs = append(attrs, resetAttr)
		sp.Status = codes.Error
	case noOutcome, succeeded:
	}
	sp.Unanswered = o.kind >= unfinished && sp.State == span.Open
	if unknowns {
		attrs = append(attrs, unknownAttr)
		sp.Partial = true
	}
	if u.what.cut {
		attrs = append(attrs, truncatedAttr)
	}
	sp.Attrs = attrs
	sp.End = max(t, sp.Start)
	sp.State = span.Done
	out.Span(sp)
}

// describe says what has failed. The server's message is left out: it quotes what the client has sent.
func (o *outcome) describe(attrs []attribute.KeyValue, sp *span.Span) []attribute.KeyValue {
	sp.Status, sp.Message = codes.Error, o.severity.String()
	if o.code == ([5]byte{}) {
		return append(attrs, semconv.ErrorTypeOther)
	}
	code := string(o.code[:])
	sp.Message += " " + code
	if name := conditions[code]; name != "" {
		sp.Message += " " + name
	}
	return append(attrs, semconv.DBResponseStatusCode(code), semconv.ErrorTypeKey.String(code))
}

// dropAll gives all units up.
func (d *decoder) dropAll(cause ledger.Entry, out probes.Out) {
	for d.queue.len() > 0 {
		u := d.queue.front()
		if sp := u.span; sp != nil {
			if sp.Target != nil {
				sp.Target.Account.Add(cause, 1) // where it was counted as seen
			}
			u.span = nil
			sp.State = span.Lost
			out.Span(sp)
		}
		d.queue.pop()
	}
	d.session.settle(false)
	d.held, d.doubt, d.unsure, d.copying = 0, false, false, false
	d.pending, d.presumed, d.cleared, d.failure = unit{}, unit{}, false, outcome{}
}

// mint names a request that the kernel side did not name. Replays must give the same name, so it comes from the connection and the
// position of the request's first byte.
func mint(conn, pos uint64) trace.SpanID {
	x := mix(mix(conn) + pos)
	if x == 0 {
		x = 1
	}
	return trace.SpanID{byte(x >> 56), byte(x >> 48), byte(x >> 40), byte(x >> 32), byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)}
}

// mix is one step of SplitMix64 (https://prng.di.unimi.it/splitmix64.c).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
