// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// Limits of https://www.w3.org/TR/trace-context/#tracestate-header. What goes beyond the length is cut
// off by whole members; what goes beyond the number makes the list invalid.
const (
	maxTraceState   = 512
	maxTraceMembers = 32
	maxTraceKey     = 256
	maxTraceValue   = 256
)

// ContextFields are the header fields that carry a trace context, as they were sent; nil where there is none.
type ContextFields struct {
	Traceparent, Tracestate            []byte
	B3, B3TraceID, B3SpanID, B3Sampled []byte
	B3Flags                            []byte
}

// Context is the trace context that they carry; not valid if they carry none.
func (f *ContextFields) Context() (c span.Context) {
	r := request{
		traceparent: f.Traceparent, tracestate: f.Tracestate, b3: f.B3, b3Trace: f.B3TraceID, b3Span: f.B3SpanID,
		b3Sampled: f.B3Sampled, b3Debug: string(f.B3Flags) == "1",
	}
	if f.Traceparent != nil {
		r.traceparents = 1
	}
	if f.Tracestate != nil {
		r.states = 1
	}
	r.context(&c)
	return c
}

// context sets the trace context that the request carries.
func (r *request) context(c *span.Context) {
	if r.traceparents == 1 && parseTraceparent(r.traceparent, c) {
		if r.states > 0 {
			c.TraceState = r.traceState()
		}
		return
	}
	if r.b3 != nil {
		parseB3(r.b3, c)
	} else if r.b3Trace != nil {
		parseB3Multi(r, c)
	}
}

// parseTraceparent follows https://www.w3.org/TR/trace-context/#traceparent-header.
func parseTraceparent(v []byte, c *span.Context) bool {
	const length = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if len(v) < length || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return false
	}
	var version, flags [1]byte
	if !lowerHex(version[:], v[:2]) || version[0] == 0xff {
		return false
	}
	if len(v) > length && (version[0] == 0 || v[length] != '-') {
		return false
	}
	var ctx span.Context
	if !lowerHex(ctx.TraceID[:], v[3:35]) || !lowerHex(ctx.SpanID[:], v[36:52]) || !lowerHex(flags[:], v[53:55]) {
		return false
	}
	if !ctx.TraceID.IsValid() || !ctx.SpanID.IsValid() {
		return false
	}
	// Only the flags that are defined are kept: sampled and, from level 2 on, random.
	ctx.Flags = trace.TraceFlags(flags[0] & 3)
	*c = ctx
	return true
}

// parseB3 follows https://github.com/openzipkin/b3-propagation#single-header:
// trace-span, trace-span-sampled or trace-span-sampled-parent.
func parseB3(v []byte, c *span.Context) bool {
	id, rest, ok := bytes.Cut(v, dash)
	if !ok {
		return false // only a sampling decision, or nothing
	}
	sp, rest, _ := bytes.Cut(rest, dash)
	sampled, parent, ok := bytes.Cut(rest, dash)
	if ok {
		var p trace.SpanID
		if !lowerHex(p[:], parent) {
			return false
		}
	}
	switch string(sampled) {
	case "", "0", "1", "d":
	default:
		return false
	}
	return setB3(c, id, sp, string(sampled) == "1" || string(sampled) == "d")
}

// parseB3Multi follows https://github.com/openzipkin/b3-propagation#multiple-headers.
func parseB3Multi(r *request, c *span.Context) bool {
	sampled := r.b3Debug || string(r.b3Sampled) == "1" || equalFold(r.b3Sampled, "true")
	return setB3(c, r.b3Trace, r.b3Span, sampled)
}

func setB3(c *span.Context, id, sp []byte, sampled bool) bool {
	var ctx span.Context
	dst := ctx.TraceID[:]
	if len(id) == 16 {
		dst = dst[8:]
	}
	if !lowerHex(dst, id) || !lowerHex(ctx.SpanID[:], sp) || !ctx.TraceID.IsValid() || !ctx.SpanID.IsValid() {
		return false
	}
	if sampled {
		ctx.Flags = trace.FlagsSampled
	}
	*c = ctx
	return true
}

var dash = []byte{'-'}

// lowerHex decodes src, which must be of the length for dst and in lower case.
func lowerHex(dst, src []byte) bool {
	if len(src) != 2*len(dst) {
		return false
	}
	bad := uint8(0)
	for i := range dst {
		h, l := lowerHexValue[src[2*i]], lowerHexValue[src[2*i+1]]
		bad |= h | l
		dst[i] = h<<4 | l
	}
	return bad < 0x10
}

// traceState joins the members of all tracestate fields. A list that is not valid is dropped as a whole.
func (r *request) traceState() string {
	var keys [maxTraceMembers][]byte
	n := 0
	out := make([]byte, 0, maxTraceState)
	full := false
	add := func(list []byte) bool {
		for more := true; more; {
			var m []byte
			m, list, more = bytes.Cut(list, comma)
			if m = trim(m); len(m) == 0 {
				continue
			}
			key, value, ok := bytes.Cut(m, []byte{'='})
			if !ok || n == maxTraceMembers || !isTraceKey(key) || !isTraceValue(value) {
				return false
			}
			for _, k := range keys[:n] {
				if bytes.Equal(k, key) {
					return false
				}
			}
			keys[n] = key
			n++
			need := len(m)
			if len(out) > 0 {
				need++
			}
			if full = full || len(out)+need > maxTraceState; full {
				continue
			}
			if len(out) > 0 {
				out = append(out, ',')
			}
			out = append(out, m...)
		}
		return true
	}
	if r.states == 1 {
		if !add(r.tracestate) {
			return ""
		}
		return string(out)
	}
	for b := r.head; ; {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return string(out)
		}
		if name, v := field(trimCR(b[:i])); equalFold(name, "tracestate") && !add(v) {
			return ""
		}
		b = b[i+1:]
	}
}

// isTraceKey follows https://www.w3.org/TR/trace-context/#key, with the tolerance of level 2: any letter
// or digit may come first, and '@' anywhere after it.
func isTraceKey(b []byte) bool {
	if len(b) == 0 || len(b) > maxTraceKey {
		return false
	}
	for i, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '-' || c == '*' || c == '/' || c == '@'):
		default:
			return false
		}
	}
	return true
}

// isTraceValue follows https://www.w3.org/TR/trace-context/#value.
func isTraceValue(b []byte) bool {
	if len(b) == 0 || len(b) > maxTraceValue {
		return false
	}
	for _, c := range b {
		if c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}
