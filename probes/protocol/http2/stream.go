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

	size [2]int64 // of the bodies, bytes

	grpc     bool
	method   string // pkg.Service/Method; empty: not known
	hidden   bool   // not all of the request's fields are known
	timeout  time.Duration
	context  span.Context // that the request carried, where the inner decoder does not see it
	code     string       // gRPC's status, once it is known
	message  string
	httpCode int
	unsure   bool // not all of the response's fields are known
	reset    string
}

// block is a header block, or a request's or response's trailers.
type block struct {
	cut                             bool // some of it is not known
	method, path, scheme, authority string
	status                          string
	contentType, grpcStatus         string
	grpcMessage, timeout, traceBin  string
	context                         http1.ContextFields
	fields                          []field // others
}

// join makes one list of a field that was sent more than once (RFC 9110, section 5.3).
func join(list []byte, v string) []byte {
	if len(list) > 0 && len(list) < maxBlock {
		list = append(list, ',')
	}
	return append(list, v...)
}

// carried is the context that the request carries.
func (m *block) carried() span.Context {
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
func (m *block) take(f field) {
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
		m.context.Traceparent = []byte(v)
	case "tracestate":
		m.context.Tracestate = join(m.context.Tracestate, v)
	case "b3":
		m.context.B3 = []byte(v)
	case "x-b3-traceid":
		m.context.B3TraceID = []byte(v)
	case "x-b3-spanid":
		m.context.B3SpanID = []byte(v)
	case "x-b3-sampled":
		m.context.B3Sampled = []byte(v)
	case "x-b3-flags":
		m.context.B3Flags = []byte(v)
	case "user-agent", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host":
		if !strings.ContainsAny(v, "\r\n") && len(m.fields) < maxBlock {
			m.fields = append(m.fields, f)
		}
	}
}

func write(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	b.WriteString(": ")
	b.WriteString(value)
	b.WriteString("\r\n")
}

func (m *block) interim() bool { return len(m.status) == 3 && m.status[0] == '1' }

// unknownMethod stands for a method that is not known (semantic conventions, HTTP).
const unknownMethod = "_OTHER"

// request takes the head of a request.
func (d *decoder) request(st *stream, m *block, c *probes.Chunk, out probes.Out) {
	st.grpc, st.hidden, st.timeout = isGRPC(m.contentType), m.cut, timeout(m.timeout)
	d.grpc = d.grpc || st.grpc
	if st.grpc = st.grpc || m.cut && m.contentType == "" && d.grpc; st.grpc {
		st.method = valid(strings.TrimPrefix(m.path, "/"))
	}
	if st.grpc {
		d.begin(st, m, out)
		return
	}
	st.inner = d.http.New(&d.conn, d.server)
	var head bytes.Buffer
	head.WriteString(oneWord(cmp.Or(m.method, unknownMethod)))
	head.WriteByte(' ')
	if m.scheme == "https" && m.authority != "" && strings.HasPrefix(m.path, "/") {
		head.WriteString("https://")
		head.WriteString(oneWord(m.authority))
	}
	head.WriteString(oneWord(cmp.Or(m.path, "*")))
	head.WriteString(" HTTP/1.1\r\n")
	if m.authority != "" {
		write(&head, "host", oneWord(m.authority))
	}
	for _, f := range m.fields {
		write(&head, f.name.s, f.value.s)
	}
	st.context = m.carried()
	head.WriteString("\r\n")
	first := st.begin
	first.Head, first.Total, first.End = head.Bytes(), uint64(head.Len()), max(first.Begin, c.End)
	_ = st.inner.Decode(&first, st.out(out, d.server)) // it is a well-formed head
	st.pos[d.in] = first.Total
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
func (d *decoder) response(st *stream, m *block, c *probes.Chunk, out probes.Out) {
	st.answered = true
	st.grpc = st.grpc || isGRPC(m.contentType)
	st.trailers(m)
	status := m.status
	if st.httpCode, _ = strconv.Atoi(status); len(status) != 3 || st.httpCode < 200 {
		status, st.httpCode = "200", 0
		st.unsure = true
	}
	if st.span != nil {
		st.span.State = span.Answered
		out.Span(st.span)
		return
	}
	head := []byte("HTTP/1.1 " + status + " \r\n\r\n")
	b := *c
	b.Dir, b.Pos, b.Total, b.Head, b.Tail, b.Named, b.Lost = d.out, 0, uint64(len(head)), head, nil, false, false
	b.ID = trace.SpanID{}
	_ = st.inner.Decode(&b, st.out(out, d.server))
	st.pos[d.out] = b.Total
}

// trailers takes what comes behind the response, or with its head where there is nothing else.
func (st *stream) trailers(m *block) {
	st.unsure = st.unsure || m.cut
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

// out is where the inner decoder's spans go.
func (st *stream) out(out probes.Out, server bool) probes.Out { return renamed{out, st, server} }

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
func (r renamed) Span(s *span.Span) {
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
func (r renamed) asHTTP(s *span.Span) {
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
		case semconv.URLPathKey, semconv.URLFullKey:
			if st.hidden && strings.HasSuffix(a.Value.AsString(), "*") {
				continue
			}
		case semconv.HTTPResponseStatusCodeKey:
			if st.httpCode == 0 {
				continue
			}
		}
		attrs = append(attrs, a)
	}
	in, out := r.st.size[probes.Ingress], r.st.size[probes.Egress]
	if !r.server {
		in, out = out, in
	}
	if in > 0 && st.asked {
		attrs = append(attrs, semconv.HTTPRequestBodySize(int(in)))
	}
	if st.complete {
		attrs = append(attrs, semconv.HTTPResponseBodySize(int(out)))
	}
	if st.hidden || st.unsure && st.answered {
		attrs = append(attrs, unknownAttr)
	}
	s.Attrs = attrs
}

// asGRPC makes it a span of a remote procedure call (semantic conventions, RPC).
func (r renamed) asGRPC(s *span.Span) {
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
	case code == "" && failed == "" && st.answered && !st.unsure && st.httpCode != 0:
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
	}
	s.Attrs = attrs
}

// sorted is the streams in an order that a replay repeats.
func sorted(streams map[uint32]*stream) []*stream {
	return slices.SortedFunc(maps.Values(streams), func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
}

// valid is s as it may be exported: OTLP refuses a whole batch for a string that is not UTF-8.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
