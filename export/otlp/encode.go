// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"breadcrumb/internal/span"
	"breadcrumb/internal/version"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// The field tags of OTLP, each as it stands in the bytes.
// https://github.com/open-telemetry/opentelemetry-proto/blob/v1.11.0/opentelemetry/proto/trace/v1/trace.proto
const (
	bytesField = byte(protowire.BytesType)
	varint     = byte(protowire.VarintType)
	fixed64    = byte(protowire.Fixed64Type)

	resourceSpansResource  = 1<<3 | bytesField
	resourceSpansScope     = 2<<3 | bytesField
	resourceSpansSchemaURL = 3<<3 | bytesField

	resourceAttributes = 1<<3 | bytesField

	scopeSpansScope     = 1<<3 | bytesField
	scopeSpansSpan      = 2<<3 | bytesField
	scopeSpansSchemaURL = 3<<3 | bytesField

	scopeName    = 1<<3 | bytesField
	scopeVersion = 2<<3 | bytesField

	spanTraceID    = 1<<3 | bytesField
	spanID         = 2<<3 | bytesField
	spanTraceState = 3<<3 | bytesField
	spanParentID   = 4<<3 | bytesField
	spanName       = 5<<3 | bytesField
	spanKind       = 6<<3 | varint
	spanStart      = 7<<3 | fixed64
	spanEnd        = 8<<3 | fixed64
	spanAttributes = 9<<3 | bytesField
	spanLinks      = 13<<3 | bytesField
	spanStatus     = 15<<3 | bytesField
	// spanFlags is field 16, the first whose tag takes two bytes.
	spanFlags = 16<<3 | uint64(protowire.Fixed32Type)

	linkTraceID    = 1<<3 | bytesField
	linkSpanID     = 2<<3 | bytesField
	linkTraceState = 3<<3 | bytesField
	linkFlags      = 6<<3 | byte(protowire.Fixed32Type)

	statusMessage = 2<<3 | bytesField
	statusCode    = 3<<3 | varint

	keyValueKey   = 1<<3 | bytesField
	keyValueValue = 2<<3 | bytesField

	valueString = 1<<3 | bytesField
	valueBool   = 2<<3 | varint
	valueInt    = 3<<3 | varint
	valueDouble = 4<<3 | fixed64
	valueArray  = 5<<3 | bytesField
	valueList   = 6<<3 | bytesField
	valueBytes  = 7<<3 | bytesField

	listValues = 1<<3 | bytesField // of ArrayValue and of KeyValueList
)

// parentSourceKey says by which rule a span got its parent.
const parentSourceKey = "breadcrumb.parent.source"

// A length that is known only afterwards is reserved as a varint of four bytes, the first three with the
// continuation bit. That is legal, if not the shortest, and good for 256 MiB.
const reserved = 4

// begin starts a message field whose length end fills in.
func begin(b []byte, tag byte) ([]byte, int) {
	b = append(b, tag, 0, 0, 0, 0)
	return b, len(b)
}

func end(b []byte, start int) {
	n := len(b) - start
	p := b[start-reserved : start]
	p[0] = byte(n) | 0x80
	p[1] = byte(n>>7) | 0x80
	p[2] = byte(n>>14) | 0x80
	p[3] = byte(n>>21) & 0x7f
}

// appendHead begins a ResourceSpans: its resource and the head of its only ScopeSpans, which is left open
// with its length reserved in the last four bytes before start.
func appendHead(b []byte, resource []byte) (_ []byte, start int) {
	b = append(b, resource...)
	b = appendString(b, resourceSpansSchemaURL, semconv.SchemaURL)
	b, start = begin(b, resourceSpansScope)
	b, scope := begin(b, scopeSpansScope)
	b = appendString(b, scopeName, span.ScopeName)
	b = appendString(b, scopeVersion, version.Version)
	end(b, scope)
	return appendString(b, scopeSpansSchemaURL, semconv.SchemaURL), start
}

// appendResource appends the resource field of a ResourceSpans.
func appendResource(b []byte, t *span.Target) []byte {
	b, start := begin(b, resourceSpansResource)
	if t != nil {
		for _, kv := range t.Resource {
			b = appendKeyValue(b, resourceAttributes, kv)
		}
	}
	end(b, start)
	return b
}

// appendSpan appends s as a field of a ScopeSpans.
func appendSpan(b []byte, s *span.Span) []byte {
	b, start := begin(b, scopeSpansSpan)
	b = append(b, spanTraceID, byte(len(s.TraceID)))
	b = append(b, s.TraceID[:]...)
	b = append(b, spanID, byte(len(s.ID)))
	b = append(b, s.ID[:]...)
	if s.TraceState != "" {
		b = appendString(b, spanTraceState, s.TraceState)
	}
	if s.Parent.IsValid() {
		b = append(b, spanParentID, byte(len(s.Parent)))
		b = append(b, s.Parent[:]...)
	}
	b = appendString(b, spanName, s.Name)
	b = append(b, spanKind, kind(s.Kind), spanStart)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Start))
	b = append(b, spanEnd)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.End))
	for _, kv := range s.Attrs {
		b = appendKeyValue(b, spanAttributes, kv)
	}
	if source := s.Source.String(); source != "" {
		b = appendKeyValue(b, spanAttributes, attribute.String(parentSourceKey, source))
	}
	if c := &s.Link; c.SpanID.IsValid() {
		var link int
		b, link = begin(b, spanLinks)
		b = append(b, linkTraceID, byte(len(c.TraceID)))
		b = append(b, c.TraceID[:]...)
		b = append(b, linkSpanID, byte(len(c.SpanID)))
		b = append(b, c.SpanID[:]...)
		if c.TraceState != "" {
			b = appendString(b, linkTraceState, c.TraceState)
		}
		b = append(b, linkFlags)
		b = binary.LittleEndian.AppendUint32(b, uint32(c.Flags)|uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK))
		end(b, link)
	}
	if s.Status != codes.Unset || s.Message != "" {
		var status int
		b, status = begin(b, spanStatus)
		if s.Message != "" {
			b = appendString(b, statusMessage, s.Message)
		}
		b = append(b, statusCode, byte(code(s.Status)))
		end(b, status)
	}
	b = protowire.AppendVarint(b, spanFlags)
	b = binary.LittleEndian.AppendUint32(b, flags(s))
	end(b, start)
	return b
}

// flags are the trace flags of W3C and whether the parent's context came from another process. Of the span that
// a call's own headers name it is not known: the process may have made it, or pass on what it got.
func flags(s *span.Span) uint32 {
	const known = uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
	const remote = known | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	f := uint32(s.Flags)
	switch {
	case s.Source == span.SourceLocalConnection, s.Source == span.SourceHeader && s.Kind == trace.SpanKindServer:
		return f | remote
	case s.Source == span.SourceHeader:
		return f
	}
	return f | known
}

func kind(k trace.SpanKind) byte {
	switch k {
	case trace.SpanKindInternal:
		return byte(tracepb.Span_SPAN_KIND_INTERNAL)
	case trace.SpanKindServer:
		return byte(tracepb.Span_SPAN_KIND_SERVER)
	case trace.SpanKindClient:
		return byte(tracepb.Span_SPAN_KIND_CLIENT)
	case trace.SpanKindProducer:
		return byte(tracepb.Span_SPAN_KIND_PRODUCER)
	case trace.SpanKindConsumer:
		return byte(tracepb.Span_SPAN_KIND_CONSUMER)
	}
	return byte(tracepb.Span_SPAN_KIND_UNSPECIFIED)
}

func code(c codes.Code) tracepb.Status_StatusCode {
	switch c {
	case codes.Ok:
		return tracepb.Status_STATUS_CODE_OK
	case codes.Error:
		return tracepb.Status_STATUS_CODE_ERROR
	}
	return tracepb.Status_STATUS_CODE_UNSET
}

// appendKeyValue appends an attribute as the field tag. The lengths of plain values are computed, so
// that they take one byte each; those of slices and maps are reserved.
func appendKeyValue(b []byte, tag byte, kv attribute.KeyValue) []byte {
	key := valid(string(kv.Key))
	var text string
	var size int // of the AnyValue
	switch kv.Value.Type() {
	case attribute.EMPTY:
	case attribute.STRING:
		text = valid(kv.Value.AsString())
		if n := len(key) + len(text) + 6; n < 0x80 { // all lengths take one byte
			b = append(b, tag, byte(n), keyValueKey, byte(len(key)))
			b = append(b, key...)
			b = append(b, keyValueValue, byte(2+len(text)), valueString, byte(len(text)))
			return append(b, text...)
		}
		size = 1 + protowire.SizeBytes(len(text))
	case attribute.BOOL:
		size = 2
	case attribute.INT64:
		size = 1 + protowire.SizeVarint(uint64(kv.Value.AsInt64()))
	case attribute.FLOAT64:
		size = 9
	default:
		b, start := begin(b, tag)
		b = appendBytes(b, keyValueKey, key)
		b = appendValue(b, keyValueValue, kv.Value)
		end(b, start)
		return b
	}
	if n := len(key) + size + 4; n < 0x80 {
		b = append(b, tag, byte(n), keyValueKey, byte(len(key)))
		b = append(b, key...)
		b = append(b, keyValueValue, byte(size))
	} else {
		b = append(b, tag)
		b = protowire.AppendVarint(b, uint64(1+protowire.SizeBytes(len(key))+1+protowire.SizeBytes(size)))
		b = appendBytes(b, keyValueKey, key)
		b = append(b, keyValueValue)
		b = protowire.AppendVarint(b, uint64(size))
	}
	if kv.Value.Type() == attribute.STRING {
		return appendBytes(b, valueString, text)
	}
	return appendPlain(b, kv.Value)
}

// appendValue appends any value as the field tag, an AnyValue.
func appendValue(b []byte, tag byte, v attribute.Value) []byte {
	b, start := begin(b, tag)
	switch v.Type() {
	case attribute.BYTESLICE:
		b = append(b, valueBytes)
		b = protowire.AppendBytes(b, v.AsByteSlice())
	case attribute.BOOLSLICE:
		b = appendArray(b, v.AsBoolSlice(), attribute.BoolValue)
	case attribute.INT64SLICE:
		b = appendArray(b, v.AsInt64Slice(), attribute.Int64Value)
	case attribute.FLOAT64SLICE:
		b = appendArray(b, v.AsFloat64Slice(), attribute.Float64Value)
	case attribute.STRINGSLICE:
		b = appendArray(b, v.AsStringSlice(), attribute.StringValue)
	case attribute.SLICE:
		b = appendArray(b, v.AsSlice(), func(v attribute.Value) attribute.Value { return v })
	case attribute.MAP:
		var list int
		b, list = begin(b, valueList)
		for _, kv := range v.AsMap() {
			b = appendKeyValue(b, listValues, kv)
		}
		end(b, list)
	case attribute.STRING:
		b = appendString(b, valueString, v.AsString())
	default:
		b = appendPlain(b, v)
	}
	end(b, start)
	return b
}

func appendArray[T any](b []byte, items []T, value func(T) attribute.Value) []byte {
	b, start := begin(b, valueArray)
	for _, item := range items {
		b = appendValue(b, listValues, value(item))
	}
	end(b, start)
	return b
}

// appendPlain appends a value of fixed shape; an empty one is an AnyValue without a field.
func appendPlain(b []byte, v attribute.Value) []byte {
	switch v.Type() {
	case attribute.BOOL:
		var bit byte
		if v.AsBool() {
			bit = 1
		}
		return append(b, valueBool, bit)
	case attribute.INT64:
		b = append(b, valueInt)
		return protowire.AppendVarint(b, uint64(v.AsInt64()))
	case attribute.FLOAT64:
		b = append(b, valueDouble)
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v.AsFloat64()))
	}
	return b
}

// appendString appends a string field that may hold anything.
func appendString(b []byte, tag byte, s string) []byte { return appendBytes(b, tag, valid(s)) }

// appendBytes appends a string field that is valid UTF-8.
func appendBytes(b []byte, tag byte, s string) []byte {
	b = append(b, tag)
	b = protowire.AppendVarint(b, uint64(len(s)))
	return append(b, s...)
}

// valid is s with what is not UTF-8 replaced: receivers refuse a whole request for one such string.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
