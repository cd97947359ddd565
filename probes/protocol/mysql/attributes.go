// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bytes"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/http1"
	"breadcrumb/probes/protocol/sql"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// maxAttrs is the most attributes that a span usually has; more only cost an allocation.
const maxAttrs = 16

// Attributes of our own.
var (
	// truncatedAttr marks a span of which the statement is not shown to its end, or how it ended was not seen.
	truncatedAttr = attribute.Bool("breadcrumb.truncated", true)
	// withheldAttr marks a span of a statement that is not shown as it cannot be read safely.
	withheldAttr = attribute.Bool("breadcrumb.withheld", true)
	// unknownAttr marks a span of which the statement is not known, as it was prepared before the agent looked, or unseen.
	unknownAttr = attribute.Bool("breadcrumb.unknown_fields", true)
	// unfinishedAttr marks a span of a command that was still under way when the agent stopped.
	unfinishedAttr = attribute.Bool("breadcrumb.unfinished", true)
)

// outcome is how a command ended.
type outcome struct {
	failed     bool
	code       int    // the server's error; 0: not known
	kind       string // error.type where no code tells
	unknown    bool   // its end was not seen
	unfinished bool
}

const (
	connectionClosed = "connection_closed"
	connectionReset  = "connection_reset"
)

// values are the attributes that the spans of a connection have in common.
type values struct {
	system attribute.KeyValue
	common []attribute.KeyValue
	target string // a span's name where nothing else is known
}

func (v *values) init(c *probes.Conn, server bool) {
	// Where the handshake was not seen, and nothing tells MariaDB, the protocol's own name has to do: the conventions take a driver's
	// best knowledge.
	v.system = semconv.DBSystemNameMySQL
	address, port := c.RemoteAddr, int(c.RemotePort)
	if server {
		address, port = c.LocalAddr, int(c.LocalPort)
	}
	if address != "" {
		v.target = valid(address)
		v.common = append(v.common, semconv.ServerAddress(v.target))
	}
	if port != 0 {
		v.common = append(v.common, semconv.ServerPort(port))
		v.target = net.JoinHostPort(v.target, strconv.Itoa(port))
	}
	if c.RemoteAddr != "" {
		if server {
			v.common = append(v.common, semconv.ClientAddress(valid(c.RemoteAddr)))
		}
		v.common = append(v.common, semconv.NetworkPeerAddress(valid(c.RemoteAddr)))
		if c.RemotePort != 0 {
			v.common = append(v.common, semconv.NetworkPeerPort(int(c.RemotePort)))
		}
	}
	if c.Network == "unix" {
		v.common = append(v.common, semconv.NetworkTransportUnix)
	}
}

// isMariaDB notes that the server is one.
func (v *values) isMariaDB() { v.system = semconv.DBSystemNameMariaDB }

// valid makes a string that may be exported: OTLP refuses a whole batch for a string that is not UTF-8.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// read makes of the text of a command what may be shown of it.
func (d *decoder) read(ex *exchange, text []byte, cut bool) {
	if w := d.session.wide; w == is || w == unknown && !utf8.Valid(text) {
		// Whether a backslash is one depends on the characters before it.
		if i := bytes.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 { // invalid ones as well
			text, cut = text[:i], true
		}
	}
	if n := len(text); n > 0 && text[n-1] == 0 && !cut {
		text = text[:n-1] // some clients count it, and to the server it is the end
	}
	ex.statement, ex.cut = d.reader.Read(text, cut, d.session.modes), cut
	if !cut {
		ex.digest = d.reader.Digest()
	}
	ex.change = changeOf(text, ex.statement, cut)
}

// open makes the span of a command, which has a number, and counts it.
func (d *decoder) open(ex *exchange, number uint64, out probes.Out) {
	d.account().Add(ledger.Seen, 1)
	sp := out.New()
	if d.name.IsValid() && number >= d.run {
		sp.ID, d.name = d.name, trace.SpanID{}
	} else {
		sp.ID = mint(d.conn.ID, &ex.start)
	}
	sp.Kind = trace.SpanKindClient
	if d.server {
		sp.Kind = trace.SpanKindServer
	}
	sp.Start = ex.start.time
	sp.Evidence = ex.start.evidence
	sp.Target = d.conn.Target
	d.describe(ex, sp)
	ex.span = sp
	out.Span(sp)
	if d.late.IsValid() {
		d.alias(ex, d.late, out)
		d.late = trace.SpanID{}
	}
}

// describe sets the name, the context and those attributes that come from the command.
func (d *decoder) describe(ex *exchange, sp *span.Span) {
	attrs := append(slices.Grow(sp.Attrs[:0], maxAttrs), d.values.system)
	namespace := d.session.namespace
	if namespace.Key != "" {
		attrs = append(attrs, namespace)
	}
	sp.Name, sp.Digest = "", ex.digest
	if st := ex.statement; st != nil {
		if !ex.again {
			sp.Wire = st.Context
		}
		if st.Operation != "" {
			attrs = append(attrs, semconv.DBOperationName(st.Operation))
		}
		if st.Collection != "" {
			attrs = append(attrs, semconv.DBCollectionName(st.Collection))
		}
		if st.Summary != "" {
			attrs = append(attrs, semconv.DBQuerySummary(st.Summary))
		}
		if st.Text != "" {
			attrs = append(attrs, semconv.DBQueryText(st.Text))
		}
		if st.Procedure != "" {
			attrs = append(attrs, semconv.DBStoredProcedureName(st.Procedure))
		}
		if st.Statements > 1 {
			attrs = append(attrs, semconv.DBOperationBatchSize(st.Statements))
		}
		if st.Withheld {
			attrs = append(attrs, withheldAttr)
		}
		sp.Name = d.spanName(st)
	}
	if (ex.command == comQuery || ex.command == comStmtExecute) && d.attributed {
		d.query.context(&sp.Wire)
	}
	if sp.Name == "" {
		sp.Name = d.target()
	}
	sp.Attrs = append(attrs, d.values.common...)
}

// spanName follows the conventions (Database, Name).
func (d *decoder) spanName(st *sql.Statement) string {
	switch {
	case st.Summary != "":
		return st.Summary
	case st.Operation != "" && st.Collection != "":
		return st.Operation + " " + st.Collection
	case st.Operation != "" && st.Procedure != "":
		return st.Operation + " " + st.Procedure
	case st.Operation != "":
		return st.Operation + " " + d.target()
	}
	return ""
}

// target is what a command is about, as far as nothing better is known.
func (d *decoder) target() string {
	switch {
	case d.session.namespace.Key != "":
		return d.session.namespace.Value.AsString()
	case d.values.target != "":
		return d.values.target
	}
	return d.values.system.Value.AsString()
}

// context takes the trace context among a query's attributes, if there is one.
func (a *attributes) context(c *span.Context) {
	f := http1.ContextFields{Traceparent: a.trace[:a.traced]}
	if w := f.Context(); a.traced > 0 && w.TraceID.IsValid() {
		*c = w
	}
}

// complete ends the oldest command at time t.
func (d *decoder) complete(t int64, o outcome, out probes.Out) {
	ex := d.queue.front()
	a := &d.answer
	switch {
	case o.failed && ex.span == nil && (ex.command == comStmtPrepare || ex.command == comStmtFetch):
		d.open(ex, d.queue.base, out)
	case !o.failed && !o.unknown && o.kind == "" && !o.unfinished:
		d.session.apply(ex.change)
	case o.unknown && ex.change != nil:
		d.session.forget() // whether it did that is not known
	}
	if sp := ex.span; sp != nil {
		attrs := sp.Attrs
		switch {
		case o.failed && o.code != 0:
			code := strconv.Itoa(o.code)
			attrs = append(attrs, semconv.DBResponseStatusCode(code), semconv.ErrorTypeKey.String(code))
			sp.Status = codes.Error
		case o.failed:
			attrs = append(attrs, semconv.ErrorTypeOther)
			sp.Status = codes.Error
		case o.kind != "":
			attrs = append(attrs, semconv.ErrorTypeKey.String(o.kind))
			sp.Status = codes.Error
			sp.Unanswered = !a.begun
		case o.unfinished:
			attrs = append(attrs, unfinishedAttr)
			sp.Unanswered = !a.begun
		case o.unknown:
		case a.sets > 0 && !a.inexact && ex.command != comStmtBulkExecute:
			attrs = append(attrs, semconv.DBResponseReturnedRows(int(a.rows)))
		}
		if ex.batch > 1 {
			attrs = append(attrs, semconv.DBOperationBatchSize(ex.batch))
		}
		if ex.statement == nil {
			attrs = append(attrs, unknownAttr)
			sp.Partial = true
		}
		if o.unknown || ex.cut {
			attrs = append(attrs, truncatedAttr)
		}
		sp.Attrs = attrs
		sp.End = max(t, sp.Start)
		sp.State = span.Done
		ex.span = nil
		out.Span(sp)
	}
	d.over()
}

// over forgets the oldest command.
func (d *decoder) over() {
	d.queue.pop()
	d.answer = answer{}
	if d.sure && d.squeezed == unknown {
		d.squeezed = isNot
	}
	if d.aside {
		d.aside, d.fresh = false, true
		d.sides[d.in].realign()
	}
}

// drop gives the oldest command up.
func (d *decoder) drop(cause ledger.Entry, out probes.Out) {
	ex := d.queue.front()
	if ex.change != nil {
		d.session.forget()
	}
	if sp := ex.span; sp != nil {
		if sp.Target != nil {
			sp.Target.Account.Add(cause, 1) // where it was counted as seen
		}
		sp.State = span.Lost
		ex.span = nil
		out.Span(sp)
	}
	d.over()
}

// dropAll gives all commands up.
func (d *decoder) dropAll(cause ledger.Entry, out probes.Out) {
	for d.queue.len() > 0 {
		d.drop(cause, out)
	}
}

// giveUp ends the decoder.
func (d *decoder) giveUp(cause ledger.Entry, out probes.Out) {
	d.dead = true
	d.dropAll(cause, out)
}

// finish ends all commands, as the connection or its server's direction does at time t.
func (d *decoder) finish(e probes.End, t int64, out probes.Out) {
	for d.queue.len() > 0 {
		switch {
		case e == probes.Stopped:
			d.complete(t, outcome{unfinished: true}, out)
		case d.sides[d.out].lost && e != probes.Reset:
			d.concludeBefore(d.queue.base+1, out)
		case e == probes.Reset:
			d.complete(t, outcome{kind: connectionReset}, out)
		default:
			d.complete(t, outcome{kind: connectionClosed}, out)
		}
	}
}
