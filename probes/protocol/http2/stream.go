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

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// stream is a request and its response.
type stream struct {
	id       uint32
	begin    probes.Chunk // in which it began
	inner    probes.Decoder
	pos      [2]uint64 // of what the inner decoder has, by direction
	asked    bool      // the request is complete
	answered bool      // the response's head is told
	complete bool      // the response is complete
	done     bool      // the span is made

	size [2]int64 // of the bodies, bytes

	grpc     bool
	method   string // pkg.Service/Method; empty: not known
	hidden   bool   // not all of the request's fields are known
	timeout  time.Duration
	context  span.Context // of grpc-trace-bin
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
	fields                          bytes.Buffer // the others, in HTTP/1's words
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
	case "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "user-agent", "forwarded",
		"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host":
		if !strings.ContainsAny(v, "\r\n") && m.fields.Len() < maxBlock {
			write(&m.fields, f.name.s, v)
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
	if st.grpc {
		st.method = strings.TrimPrefix(m.path, "/")
	}
	if m.traceBin != "" {
		st.context, _ = traceBin(m.traceBin)
	}
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
	head.Write(m.fields.Bytes())
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
		st.code, st.message = statusName(m.grpcStatus), message(m.grpcMessage)
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
	if s.State == span.Open && !s.Wire.SpanID.IsValid() && st.context.SpanID.IsValid() {
		s.Wire = st.context
	}
	if s.State == span.Done {
		if !s.Wire.SpanID.IsValid() && st.context.SpanID.IsValid() {
			s.Wire = st.context
		}
		st.done = true
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
	attrs = append(attrs, system)
	s.Name = "grpc"
	if st.method != "" {
		s.Name = st.method
		attrs = append(attrs, semconv.RPCMethod(st.method))
	}
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
	isError := code != "" && code != "OK" && (!r.server || serverErrors[code])
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
	if st.hidden || st.unsure && st.answered {
		attrs = append(attrs, unknownAttr)
	}
	s.Attrs = attrs
}

// sorted is the streams in an order that a replay repeats.
func sorted(streams map[uint32]*stream) []*stream {
	return slices.SortedFunc(maps.Values(streams), func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
}
