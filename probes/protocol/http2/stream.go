// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/http1"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// stream is a request and its response.
type stream struct {
	id       uint32
	begin    probes.Chunk   // in which it began
	inner    probes.Decoder // HTTP/1's, which makes the span; nil where span is made here
	span     *span.Span     // gRPC's
	pos      [2]uint64      // of what the inner decoder has, by direction
	asked    bool           // the request is complete
	answered bool           // the response's head is told
	complete bool           // the response is complete
	broken   bool           // the response began, and the connection was closed; HTTP/1 may take that for its end

	size  [2]int64 // of the bodies, bytes, by direction
	gaps  [2]int   // the sides' when it began
	sized [2]bool  // size is all of it

	early  bool         // its request was not told yet
	status string       // of the response
	answer probes.Chunk // early: the response's, without its bytes
	overAt int64        // early: when the response was complete, or the stream was reset

	grpc                 bool
	untyped              bool   // the request's content type is not known
	method               string // pkg.Service/Method, if it is gRPC; empty: not known
	hidden               bool   // not all of the request's fields are known
	pathless, schemeless bool   // hidden: its path, or its scheme, is not
	timeout              time.Duration
	context              span.Context // that the request carried, where the inner decoder does not see it
	code                 string       // gRPC's status, once it is known
	message              string
	httpCode             int
	unsure               bool // not all of the response's fields are known
	reset                string

	renamed renamed // where the inner decoder's spans go
}

// section is what a header or trailer section says (RFC 9110, sections 6.3 and 6.5).
type section struct {
	cut                             bool // some of it is not known
	grpc                            bool // it has fields of gRPC's own
	method, path, scheme, authority string
	status                          string
	contentType, grpcStatus         string
	grpcMessage, timeout, traceBin  string
	context                         http1.ContextFields
	text                            []byte  // the memory of context
	fields                          []field // others
	size                            int     // of fields, bytes
}

// maxKept bounds what is kept of a section: a short block may refer to a long entry again and again.
const maxKept = 16 << 10

// reset makes it empty; it keeps its memory.
func (m *section) reset() {
	clear(m.fields)
	*m = section{text: m.text[:0], fields: m.fields[:0]}
	if cap(m.text) > maxSpare {
		m.text = nil
	}
}

// keep copies a field's value behind those that came before it (RFC 9110, section 5.3).
func (m *section) keep(list []byte, v string) []byte {
	if len(m.text)+len(list)+1+len(v) > maxKept {
		return list
	}
	from := len(m.text)
	if list != nil {
		m.text = append(append(m.text, list...), ',')
	}
	m.text = append(m.text, v...)
	return m.text[from:len(m.text):len(m.text)]
}

// carried is the context that the request carries.
func (m *section) carried() span.Context {
	if c := m.context.Context(); c.SpanID.IsValid() {
		return c
	}
	if m.traceBin != "" {
		c, _ := traceBin(m.traceBin)
		return c
	}
	return span.Context{}
}

// take adds a field.
func (m *section) take(f field) {
	m.grpc = m.grpc || f.name.known && strings.HasPrefix(f.name.s, "grpc-")
	if !f.name.known || !f.value.known {
		m.cut = true
		return
	}
	v := f.value.s
	switch f.name.s {
	case ":method":
		m.method = v
	case ":path":
		m.path = v
	case ":scheme":
		m.scheme = v
	case ":authority":
		m.authority = v
	case ":status":
		m.status = v
	case "content-type":
		m.contentType = v
	case "grpc-status":
		m.grpcStatus = v
	case "grpc-message":
		m.grpcMessage = v
	case "grpc-timeout":
		m.timeout = v
	case "grpc-trace-bin":
		m.traceBin = v
	case "host":
		m.authority = cmp.Or(m.authority, v)
	case "traceparent":
		m.context.Traceparent = m.keep(m.context.Traceparent, v)
	case "tracestate":
		m.context.Tracestate = m.keep(m.context.Tracestate, v)
	case "b3":
		m.context.B3 = m.keep(m.context.B3, v)
	case "x-b3-traceid":
		m.context.B3TraceID = m.keep(m.context.B3TraceID, v)
	case "x-b3-spanid":
		m.context.B3SpanID = m.keep(m.context.B3SpanID, v)
	case "x-b3-sampled":
		m.context.B3Sampled = m.keep(m.context.B3Sampled, v)
	case "x-b3-flags":
		m.context.B3Flags = m.keep(m.context.B3Flags, v)
	case "user-agent", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host":
		if n := m.size + size(f); n <= maxKept && !strings.ContainsAny(v, "\r\n") {
			m.fields, m.size = append(m.fields, f), n
		}
	}
}

func write(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	b.WriteString(": ")
	b.WriteString(value)
	b.WriteString("\r\n")
}

func (m *section) interim() bool { return len(m.status) == 3 && m.status[0] == '1' }

// unknownMethod stands for a method that is not known (semantic conventions, HTTP).
const unknownMethod = "_OTHER"

// request takes the head of a request.
func (d *decoder) request(st *stream, m *section, c *probes.Chunk, out probes.Out) {
	st.hidden, st.timeout = m.cut, timeout(m.timeout)
	told := d.methods[st.id]
	delete(d.methods, st.id)
	st.method = valid(cmp.Or(strings.TrimPrefix(m.path, "/"), told))
	st.untyped = m.cut && m.contentType == ""
	st.grpc = isGRPC(m.contentType) || told != "" || st.untyped && m.grpc
	d.grpc = d.grpc || st.grpc
	st.grpc = st.grpc || st.untyped && d.grpc
	if st.grpc {
		d.begin(st, m, out)
		return
	}
	st.inner = d.http.New(&d.conn, d.server)
	head := &d.head
	head.Reset()
	head.WriteString(oneWord(cmp.Or(m.method, unknownMethod)))
	head.WriteByte(' ')
	https := m.scheme == "https" && m.authority != "" && strings.HasPrefix(m.path, "/")
	if https {
		head.WriteString("https://")
		head.WriteString(oneWord(m.authority))
	}
	path := m.path
	if m.method == "CONNECT" && path == "" { // section 8.5
		path = m.authority
	}
	st.pathless, st.schemeless = path == "", m.scheme == "" || m.scheme == "https" && !https
	head.WriteString(oneWord(cmp.Or(path, "*")))
	head.WriteString(" HTTP/1.1\r\n")
	if m.authority != "" {
		write(head, "host", oneWord(m.authority))
	}
	for _, f := range m.fields {
		write(head, f.name.s, f.value.s)
	}
	st.context = m.carried()
	head.WriteString("\r\n")
	first := st.begin
	first.Head, first.Total, first.End = head.Bytes(), uint64(head.Len()), max(first.Begin, c.End)
	_ = st.inner.Decode(&first, st.out(out, d.server)) // it is a well-formed head
	st.pos[d.in] = first.Total
	if head.Cap() > maxSpare {
		*head = bytes.Buffer{}
	}
}

// oneWord has no spaces or ends of lines.
func oneWord(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, s)
}

// response takes the head of a response.
func (d *decoder) response(st *stream, m *section, c *probes.Chunk, out probes.Out) {
	st.answered = true
	st.grpc = st.grpc || isGRPC(m.contentType) || st.untyped && m.grpc
	d.grpc = d.grpc || st.grpc
	st.trailers(m)
	st.status = m.status
	if st.httpCode, _ = strconv.Atoi(m.status); len(m.status) != 3 || st.httpCode < 200 {
		st.status, st.httpCode = "200", 0
		st.unsure = true
	}
	if st.early {
		st.answer = *c
		st.answer.Head, st.answer.Tail = nil, nil
		return
	}
	d.answer(st, c, out)
}

// answer tells of a response's head, which came with c.
func (d *decoder) answer(st *stream, c *probes.Chunk, out probes.Out) {
	if st.span != nil {
		st.span.State = span.Answered
		out.Span(st.span)
		return
	}
	d.head.Reset()
	d.head.WriteString("HTTP/1.1 ")
	d.head.WriteString(st.status)
	d.head.WriteString(" \r\n\r\n")
	head := d.head.Bytes()
	b := *c
	b.Dir, b.Pos, b.Total, b.Head, b.Tail, b.Named, b.Lost = d.out, st.pos[d.out], uint64(len(head)), head, nil, false, false
	b.ID = trace.SpanID{}
	_ = st.inner.Decode(&b, st.out(out, d.server))
	st.pos[d.out] += b.Total
}

// trailers takes what comes behind the response, or with its head where there is nothing else.
func (st *stream) trailers(m *section) {
	st.unsure = st.unsure || m.cut
	st.grpc = st.grpc || st.untyped && m.grpc
	if m.grpcStatus != "" {
		st.code, st.message = valid(statusName(m.grpcStatus)), valid(message(m.grpcMessage))
	}
}

// resetBy notes with what code, and when, the stream was reset.
func (st *stream) resetBy(code uint32, t int64) {
	st.reset = ofReset(code)
	if st.reset == "CANCELLED" && st.timeout > 0 && t-st.begin.Begin >= int64(st.timeout) {
		st.reset = "DEADLINE_EXCEEDED"
	}
}

// closed is error.type where the connection was.
const closed = "connection_closed"

// out is where the inner decoder's spans go.
func (st *stream) out(out probes.Out, server bool) probes.Out {
	st.renamed = renamed{out, st, server}
	return &st.renamed
}

type renamed struct {
	probes.Out
	st     *stream
	server bool
}

var (
	version2 = semconv.NetworkProtocolVersion("2")
	system   = semconv.RPCSystemNameGRPC
	// unknownAttr marks a span of which header fields are not known: they refer to what was sent before the agent looked, or
	// was lost.
	unknownAttr = attribute.Bool("breadcrumb.unknown_fields", true)
)

// Span implements probes.Out.
func (r *renamed) Span(s *span.Span) {
	st := r.st
	if st.context.SpanID.IsValid() {
		s.Wire = st.context
	}
	if s.State == span.Done {
		if st.grpc {
			r.asGRPC(s)
		} else {
			r.asHTTP(s)
		}
	}
	r.Out.Span(s)
}

// asHTTP sets what differs from HTTP/1.
func (r *renamed) asHTTP(s *span.Span) {
	st := r.st
	attrs := s.Attrs[:0]
	for _, a := range s.Attrs {
		switch a.Key {
		case semconv.NetworkProtocolVersionKey:
			a = version2
		case semconv.HTTPRequestMethodOriginalKey:
			if st.hidden {
				continue
			}
		case semconv.URLPathKey:
			if st.hidden && st.pathless {
				continue
			}
		case semconv.URLFullKey:
			if st.hidden && (st.pathless || st.schemeless) {
				continue
			}
		case semconv.URLSchemeKey:
			if st.hidden && st.schemeless {
				continue
			}
		case semconv.HTTPResponseStatusCodeKey:
			if st.httpCode == 0 {
				continue
			}
		case semconv.ErrorTypeKey:
			if st.broken {
				continue
			}
		}
		attrs = append(attrs, a)
	}
	if st.broken {
		attrs = append(attrs, semconv.ErrorTypeKey.String(closed))
		s.Status = codes.Error
	}
	in, out := probes.Ingress, probes.Egress
	if !r.server {
		in, out = out, in
	}
	if st.asked && st.sized[in] && st.size[in] > 0 {
		attrs = append(attrs, semconv.HTTPRequestBodySize(int(st.size[in])))
	}
	if st.complete && st.sized[out] {
		attrs = append(attrs, semconv.HTTPResponseBodySize(int(st.size[out])))
	}
	if st.hidden || st.unsure && st.answered {
		attrs = append(attrs, unknownAttr)
		s.Partial = true
	}
	s.Attrs = attrs
}

// asGRPC makes it a span of a remote procedure call (semantic conventions, RPC).
func (r *renamed) asGRPC(s *span.Span) {
	st := r.st
	attrs := s.Attrs[:0]
	failed := "" // error.type of a connection that ended
	for _, a := range s.Attrs {
		switch key := string(a.Key); {
		case a.Key == semconv.ErrorTypeKey:
			if v := a.Value.AsString(); strings.HasPrefix(v, "connection_") {
				failed = v
			}
			continue
		case strings.HasPrefix(key, "http."), strings.HasPrefix(key, "url."), a.Key == semconv.UserAgentOriginalKey:
			continue
		case a.Key == semconv.NetworkProtocolVersionKey:
			a = version2
		}
		attrs = append(attrs, a)
	}
	if st.broken {
		failed = closed
	}
	s.Attrs = append(attrs, system)
	st.describe(s)
	st.conclude(s, r.server, failed)
}

// describe names the span of a call.
func (st *stream) describe(s *span.Span) {
	s.Name = "grpc"
	if st.method != "" {
		s.Name = st.method
		s.Attrs = append(s.Attrs, semconv.RPCMethod(st.method))
	}
}

// conclude adds how a call ended; failed is error.type where its connection did.
func (st *stream) conclude(s *span.Span, server bool, failed string) {
	attrs := s.Attrs
	code := st.code
	switch {
	case st.reset != "" && code == "":
		code, failed = st.reset, ""
	case code == "" && failed == "" && st.complete && !st.unsure && st.httpCode != 0:
		code = ofHTTP(st.httpCode)
	}
	s.Status, s.Message = codes.Unset, ""
	if code != "" {
		attrs = append(attrs, semconv.RPCResponseStatusCode(code))
	}
	isError := code != "" && code != "OK" && (!server || serverErrors[code])
	if st.reset == code && code != "" { // it did not run to its end
		isError = true
	}
	switch {
	case failed != "":
		attrs = append(attrs, semconv.ErrorTypeKey.String(failed))
		s.Status = codes.Error
	case isError:
		attrs = append(attrs, semconv.ErrorTypeKey.String(code))
		s.Status, s.Message = codes.Error, st.message
	}
	if st.hidden || st.unsure && st.answered && st.code == "" {
		attrs = append(attrs, unknownAttr)
		s.Partial = true
	}
	s.Attrs = attrs
}

// sorted is the streams in an order that a replay repeats.
func sorted(streams map[uint32]*stream) []*stream {
	return slices.SortedFunc(maps.Values(streams), func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
}

// valid is s as it may be exported: OTLP refuses a whole batch for a string that is not UTF-8.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
