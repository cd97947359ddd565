// SPDX-License-Identifier: Apache-2.0

// Package jsonl writes spans as lines of JSON, for scripts. The keys of a line and their order are a
// contract; attributes stand in the order in which the span has them, with their native JSON types
// (bytes as base64, a float that JSON has no number for as a string, an empty value as null).
package jsonl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"breadcrumb/export"
	"breadcrumb/internal/span"
	"breadcrumb/internal/version"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	// chunk is how much is written at once, about.
	chunk = 64 << 10
	// maxResources bounds the rendered resources that are kept, about 1 KiB each.
	maxResources = 1024
)

// Exporter is an export.Exporter that writes to an io.Writer.
type Exporter struct {
	w         io.Writer
	buf       []byte
	resources map[*span.Target][]byte
}

// New makes an exporter. It writes whole lines, all of a batch by the time Export returns.
func New(w io.Writer) *Exporter { return &Exporter{w: w} }

// Export writes the spans. An error of the writer is final: the spans whose lines were not written to
// their ends are refused.
func (e *Exporter) Export(_ context.Context, batch []*span.Span) error {
	done := 0
	for i, s := range batch {
		e.buf = e.appendSpan(e.buf, s)
		if len(e.buf) < chunk && i+1 < len(batch) {
			continue
		}
		n, err := e.w.Write(e.buf)
		if err != nil {
			done += bytes.Count(e.buf[:min(max(n, 0), len(e.buf))], []byte{'\n'})
			e.buf = e.buf[:0]
			return &export.Error{Done: done, Err: err}
		}
		done = i + 1
		e.buf = e.buf[:0]
	}
	return nil
}

// Shutdown has nothing to do: nothing is held back.
func (*Exporter) Shutdown(context.Context) error { return nil }

func (e *Exporter) appendSpan(b []byte, s *span.Span) []byte {
	b = append(b, `{"trace_id":"`...)
	b = hex.AppendEncode(b, s.TraceID[:])
	b = append(b, `","span_id":"`...)
	b = hex.AppendEncode(b, s.ID[:])
	b = append(b, `","parent_span_id":"`...)
	if s.Parent.IsValid() {
		b = hex.AppendEncode(b, s.Parent[:])
	}
	b = append(b, `","trace_state":`...)
	b = appendString(b, s.TraceState)
	b = append(b, `,"name":`...)
	b = appendString(b, s.Name)
	b = append(b, `,"kind":"`...)
	b = append(b, kind(s.Kind)...)
	b = append(b, `","start_unix_nano":`...)
	b = strconv.AppendInt(b, s.Start, 10)
	b = append(b, `,"end_unix_nano":`...)
	b = strconv.AppendInt(b, s.End, 10)
	b = append(b, `,"status":{"code":"`...)
	b = append(b, code(s.Status)...)
	b = append(b, `","message":`...)
	b = appendString(b, s.Message)
	b = append(b, `},"attributes":{`...)
	b = appendMembers(b, s.Attrs)
	if source := s.Source.String(); source != "" {
		if len(s.Attrs) > 0 {
			b = append(b, ',')
		}
		b = append(b, `"breadcrumb.parent.source":`...)
		b = appendString(b, source)
	}
	b = append(b, `},"events":[],"links":[`...)
	b = appendLink(b, &s.Link)
	b = append(b, `],"resource":`...)
	b = append(b, e.resource(s.Target)...)
	b = append(b, `,"scope":{"name":`...)
	b = appendString(b, span.ScopeName)
	b = append(b, `,"version":`...)
	b = appendString(b, version.Version)
	return append(b, "}}\n"...)
}

func appendLink(b []byte, c *span.Context) []byte {
	if !c.SpanID.IsValid() {
		return b
	}
	b = append(b, `{"trace_id":"`...)
	b = hex.AppendEncode(b, c.TraceID[:])
	b = append(b, `","span_id":"`...)
	b = hex.AppendEncode(b, c.SpanID[:])
	b = append(b, `","trace_state":`...)
	b = appendString(b, c.TraceState)
	return append(b, `,"attributes":{}}`...)
}

func (e *Exporter) resource(t *span.Target) []byte {
	if t == nil {
		return []byte("{}")
	}
	b := e.resources[t]
	if b == nil {
		if e.resources == nil || len(e.resources) >= maxResources {
			e.resources = make(map[*span.Target][]byte)
		}
		b = append(appendMembers([]byte{'{'}, t.Resource), '}')
		e.resources[t] = b
	}
	return b
}

func kind(k trace.SpanKind) string {
	switch k {
	case trace.SpanKindInternal:
		return "internal"
	case trace.SpanKindServer:
		return "server"
	case trace.SpanKindClient:
		return "client"
	case trace.SpanKindProducer:
		return "producer"
	case trace.SpanKindConsumer:
		return "consumer"
	}
	return "unspecified"
}

func code(c codes.Code) string {
	switch c {
	case codes.Ok:
		return "ok"
	case codes.Error:
		return "error"
	}
	return "unset"
}

// appendMembers appends what stands between the braces of an object.
func appendMembers(b []byte, attrs []attribute.KeyValue) []byte {
	for i, kv := range attrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, string(kv.Key))
		b = append(b, ':')
		b = appendValue(b, kv.Value)
	}
	return b
}

func appendValue(b []byte, v attribute.Value) []byte {
	switch v.Type() {
	case attribute.STRING:
		return appendString(b, v.AsString())
	case attribute.BOOL:
		return strconv.AppendBool(b, v.AsBool())
	case attribute.INT64:
		return strconv.AppendInt(b, v.AsInt64(), 10)
	case attribute.FLOAT64:
		return appendFloat(b, v.AsFloat64())
	case attribute.BOOLSLICE:
		return appendArray(b, v.AsBoolSlice(), strconv.AppendBool)
	case attribute.INT64SLICE:
		return appendArray(b, v.AsInt64Slice(), func(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) })
	case attribute.FLOAT64SLICE:
		return appendArray(b, v.AsFloat64Slice(), appendFloat)
	case attribute.STRINGSLICE:
		return appendArray(b, v.AsStringSlice(), appendString)
	case attribute.BYTESLICE:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.AsByteSlice())
		return append(b, '"')
	case attribute.SLICE:
		return appendArray(b, v.AsSlice(), appendValue)
	case attribute.MAP:
		return append(appendMembers(append(b, '{'), v.AsMap()), '}')
	}
	return append(b, "null"...)
}

func appendArray[T any](b []byte, items []T, item func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, it)
	}
	return append(b, ']')
}

func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

// endsLine is whether some readers of lines, such as Python's splitlines, end one at r. Those below
// U+0080 are escaped like all control characters.
func endsLine(r rune) bool { return r == '\u0085' || r == '\u2028' || r == '\u2029' }

// appendString quotes s. Bytes that are not UTF-8 become U+FFFD, as in encoding/json.
// https://www.rfc-editor.org/rfc/rfc8259#section-7
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf-1 && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		bad := r == utf8.RuneError && size == 1
		if c >= utf8.RuneSelf && !bad && !endsLine(r) {
			i += size
			continue
		}
		b = append(b, s[from:i]...)
		switch {
		case bad:
			b = append(b, "\uFFFD"...)
		case c >= utf8.RuneSelf:
			b = append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, digits[c>>4], digits[c&15])
		}
		i += size
		from = i
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}
