// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"breadcrumb/internal/span"
	"breadcrumb/internal/version"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// plainRequest builds the message that the bytes must amount to.
func plainRequest(batch []*span.Span) *coltracepb.ExportTraceServiceRequest {
	var request coltracepb.ExportTraceServiceRequest
	of := make(map[*span.Target]*tracepb.ScopeSpans)
	for _, s := range batch {
		scope := of[s.Target]
		if scope == nil {
			scope = &tracepb.ScopeSpans{
				Scope:     &commonpb.InstrumentationScope{Name: span.ScopeName, Version: version.Version},
				SchemaUrl: semconv.SchemaURL,
			}
			of[s.Target] = scope
			resource := new(resourcepb.Resource)
			if s.Target != nil {
				resource.Attributes = plainAttributes(s.Target.Resource)
			}
			request.ResourceSpans = append(request.ResourceSpans, &tracepb.ResourceSpans{
				Resource: resource, ScopeSpans: []*tracepb.ScopeSpans{scope}, SchemaUrl: semconv.SchemaURL,
			})
		}
		scope.Spans = append(scope.Spans, plainSpan(s))
	}
	return &request
}

func plainSpan(s *span.Span) *tracepb.Span {
	p := &tracepb.Span{
		TraceId: s.TraceID[:], SpanId: s.ID[:], TraceState: plainString(s.TraceState), Name: plainString(s.Name),
		Kind: tracepb.Span_SpanKind(s.Kind), StartTimeUnixNano: uint64(s.Start), EndTimeUnixNano: uint64(s.End),
		Attributes: plainAttributes(s.Attrs), Flags: uint32(s.Flags) | plainRemote(s),
	}
	if s.Parent.IsValid() {
		p.ParentSpanId = s.Parent[:]
	}
	if s.Source != span.SourceNone {
		p.Attributes = append(p.Attributes, plainAttributes([]attribute.KeyValue{
			attribute.String("breadcrumb.parent.source", s.Source.String())})...)
	}
	if s.Link.SpanID.IsValid() {
		p.Links = []*tracepb.Span_Link{{TraceId: s.Link.TraceID[:], SpanId: s.Link.SpanID[:], TraceState: plainString(s.Link.TraceState),
			Flags: uint32(s.Link.Flags) | 0x100}}
	}
	if s.Status != codes.Unset || s.Message != "" {
		p.Status = &tracepb.Status{Message: plainString(s.Message), Code: map[codes.Code]tracepb.Status_StatusCode{
			codes.Ok: tracepb.Status_STATUS_CODE_OK, codes.Error: tracepb.Status_STATUS_CODE_ERROR}[s.Status]}
	}
	return p
}

// plainRemote is bits 8 and 9: has_is_remote and is_remote, as trace.proto has them.
func plainRemote(s *span.Span) uint32 {
	bits := map[span.Source]uint32{span.SourceNone: 0x100, span.SourceGoroutine: 0x100, span.SourceThread: 0x100,
		span.SourceLocalConnection: 0x300}
	if s.Kind == trace.SpanKindServer {
		bits[span.SourceHeader] = 0x300
	}
	return bits[s.Source]
}

func plainString(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func plainAttributes(attrs []attribute.KeyValue) []*commonpb.KeyValue {
	var plain []*commonpb.KeyValue
	for _, kv := range attrs {
		plain = append(plain, &commonpb.KeyValue{Key: plainString(string(kv.Key)), Value: plainValue(kv.Value)})
	}
	return plain
}

func plainValue(v attribute.Value) *commonpb.AnyValue {
	list := func(n int, at func(int) attribute.Value) *commonpb.AnyValue {
		array := new(commonpb.ArrayValue)
		for i := range n {
			array.Values = append(array.Values, plainValue(at(i)))
		}
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: array}}
	}
	switch v.Type() {
	case attribute.STRING:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: plainString(v.AsString())}}
	case attribute.BOOL:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: v.AsBool()}}
	case attribute.INT64:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: v.AsInt64()}}
	case attribute.FLOAT64:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: v.AsFloat64()}}
	case attribute.BYTESLICE:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: v.AsByteSlice()}}
	case attribute.BOOLSLICE:
		items := v.AsBoolSlice()
		return list(len(items), func(i int) attribute.Value { return attribute.BoolValue(items[i]) })
	case attribute.INT64SLICE:
		items := v.AsInt64Slice()
		return list(len(items), func(i int) attribute.Value { return attribute.Int64Value(items[i]) })
	case attribute.FLOAT64SLICE:
		items := v.AsFloat64Slice()
		return list(len(items), func(i int) attribute.Value { return attribute.Float64Value(items[i]) })
	case attribute.STRINGSLICE:
		items := v.AsStringSlice()
		return list(len(items), func(i int) attribute.Value { return attribute.StringValue(items[i]) })
	case attribute.SLICE:
		items := v.AsSlice()
		return list(len(items), func(i int) attribute.Value { return items[i] })
	case attribute.MAP:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{
			KvlistValue: &commonpb.KeyValueList{Values: plainAttributes(v.AsMap())}}}
	}
	return new(commonpb.AnyValue)
}

// decode reads a request as a receiver does.
func decode(t testing.TB, request []*tracepb.ResourceSpans) *coltracepb.ExportTraceServiceRequest {
	t.Helper()
	b, err := proto.Marshal(&coltracepb.ExportTraceServiceRequest{ResourceSpans: request})
	if err != nil {
		t.Fatal(err)
	}
	var got coltracepb.ExportTraceServiceRequest
	if err := proto.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	return &got
}

func compare(t *testing.T, r *requests, batch []*span.Span) {
	t.Helper()
	request, n := r.fill(batch)
	if n != len(batch) {
		t.Fatalf("a request of %d spans, want %d", n, len(batch))
	}
	got, want := decode(t, request), plainRequest(batch)
	if !proto.Equal(want, got) {
		t.Errorf("-want +got:\n%s", cmp.Diff(want, got, protocmp.Transform()))
	}
}

var (
	gateway = &span.Target{PID: 1, Resource: []attribute.KeyValue{
		attribute.String("service.name", "gateway"), attribute.Int("process.pid", 1), attribute.StringSlice("process.command_args", []string{"node", "gateway.js"}),
	}}
	orders = &span.Target{PID: 2, Resource: []attribute.KeyValue{attribute.String("service.name", "orders")}}
)

// httpSpan is a common server span.
func httpSpan(t *span.Target, n int) *span.Span {
	return &span.Span{
		State: span.Done, Kind: trace.SpanKindServer, Source: span.SourceLocalConnection, Target: t,
		TraceID: trace.TraceID{0x4b, 0xf9, 14: byte(n >> 8), 15: byte(n)}, ID: trace.SpanID{6: byte(n >> 8), 7: byte(n)},
		Parent: trace.SpanID{1}, Flags: trace.FlagsSampled, Name: "GET",
		Start: 1_700_000_000_000_000_000, End: 1_700_000_000_001_000_000,
		Attrs: []attribute.KeyValue{
			semconv.HTTPRequestMethodGet, semconv.URLPath("/orders/42"), semconv.URLScheme("http"),
			semconv.HTTPResponseStatusCode(200), semconv.ServerAddress("10.1.2.3"), semconv.ServerPort(8080),
			semconv.ClientAddress("10.1.2.4"), semconv.UserAgentOriginal("Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
		},
	}
}

func TestDecodesToThePlainMessage(t *testing.T) {
	kinds := []trace.SpanKind{trace.SpanKindUnspecified, trace.SpanKindInternal, trace.SpanKindServer,
		trace.SpanKindClient, trace.SpanKindProducer, trace.SpanKindConsumer}
	sources := []span.Source{span.SourceNone, span.SourceHeader, span.SourceLocalConnection, span.SourceGoroutine, span.SourceThread}
	for _, tc := range []struct {
		name   string
		values []attribute.Value
	}{
		{"strings", []attribute.Value{attribute.StringValue(""), attribute.StringValue("a"), attribute.StringValue("\xff\x00ü"),
			attribute.StringValue(strings.Repeat("x", 127)), attribute.StringValue(strings.Repeat("x", 128)), attribute.StringValue(strings.Repeat("x", 70_000))}},
		{"numbers", []attribute.Value{attribute.IntValue(0), attribute.IntValue(127), attribute.IntValue(128), attribute.IntValue(-1),
			attribute.Int64Value(math.MinInt64), attribute.Int64Value(math.MaxInt64), attribute.Float64Value(0),
			attribute.Float64Value(math.Pi), attribute.Float64Value(math.Inf(-1)), attribute.BoolValue(true), attribute.BoolValue(false)}},
		{"slices", []attribute.Value{attribute.BoolSliceValue([]bool{true, false}), attribute.Int64SliceValue([]int64{-1, 1}),
			attribute.Float64SliceValue([]float64{0, 0.5}), attribute.StringSliceValue([]string{"", "\xff", "c", "d", "e"}),
			attribute.StringSliceValue(nil), attribute.ByteSliceValue([]byte{0, 255}), attribute.ByteSliceValue(nil)}},
		{"nested", []attribute.Value{attribute.SliceValue(), attribute.SliceValue(attribute.IntValue(1), attribute.Value{},
			attribute.SliceValue(attribute.StringValue("x"), attribute.ByteSliceValue([]byte("y")))),
			attribute.MapValue(), attribute.MapValue(attribute.Int("a", 1), attribute.KeyValue{Key: "b", Value: attribute.MapValue(attribute.Bool("c", true))})}},
		{"empty", []attribute.Value{{}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var batch []*span.Span
			for i, kind := range kinds {
				for j, source := range sources {
					s := httpSpan([]*span.Target{gateway, orders, nil}[(i+j)%3], i*10+j)
					s.Kind, s.Source = kind, source
					s.Status = []codes.Code{codes.Unset, codes.Ok, codes.Error}[i%3]
					s.Message = []string{"", "bad \xff"}[j%2]
					s.TraceState = []string{"", "vendor=1"}[i%2]
					if i%3 == 1 {
						s.Link = span.Context{TraceID: trace.TraceID{1, byte(i)}, SpanID: trace.SpanID{2, byte(i)}, Flags: trace.TraceFlags(i % 2), TraceState: s.TraceState}
					}
					s.Flags = trace.TraceFlags(3 * (i % 2))
					if j == 0 {
						s.Parent = trace.SpanID{}
					}
					for k, v := range tc.values {
						s.Attrs = append(s.Attrs, attribute.KeyValue{Key: attribute.Key(fmt.Sprint("k", k)), Value: v})
					}
					batch = append(batch, s)
				}
			}
			var r requests
			compare(t, &r, batch)
			compare(t, &r, batch[3:9]) // with memory that was used before
			compare(t, &r, []*span.Span{{}})
		})
	}
}

// TestParentsOfOtherProcessesAreRemote says of each rule by which a span gets its parent what the flags must be.
func TestParentsOfOtherProcessesAreRemote(t *testing.T) {
	for _, tc := range []struct {
		kind   trace.SpanKind
		source span.Source
		want   uint32
	}{
		{trace.SpanKindServer, span.SourceNone, 0x101},
		{trace.SpanKindServer, span.SourceHeader, 0x301},
		{trace.SpanKindServer, span.SourceLocalConnection, 0x301},
		{trace.SpanKindClient, span.SourceNone, 0x101},
		{trace.SpanKindClient, span.SourceGoroutine, 0x101},
		{trace.SpanKindClient, span.SourceThread, 0x101},
		{trace.SpanKindClient, span.SourceHeader, 0x001}, // its own, or one that it passes on
	} {
		s := httpSpan(gateway, 1)
		s.Kind, s.Source = tc.kind, tc.source
		var r requests
		request, _ := r.fill([]*span.Span{s})
		got := decode(t, request).ResourceSpans[0].ScopeSpans[0].Spans[0].Flags
		if got != tc.want {
			t.Errorf("%s, parent by %q: flags %#x, want %#x", tc.kind, tc.source, got, tc.want)
		}
	}
}

func TestRequestsStayBelowTheCollectorsLimit(t *testing.T) {
	var batch []*span.Span
	for i := range 100 {
		s := httpSpan([]*span.Target{gateway, orders}[i%2], i)
		s.Attrs = append(s.Attrs, attribute.String("big", strings.Repeat("x", 100_000)))
		batch = append(batch, s)
	}
	batch[50].Attrs = append(batch[50].Attrs, attribute.String("huge", strings.Repeat("x", 5<<20)))
	var r requests
	var sizes []int
	for rest := batch; len(rest) > 0; {
		request, n := r.fill(rest)
		got := decode(t, request)
		if !proto.Equal(plainRequest(rest[:n]), got) {
			t.Fatal("differs from the plain message")
		}
		sizes = append(sizes, n)
		if size := proto.Size(got); size > 4<<20 && n > 1 && size < 5<<20 {
			t.Errorf("a request of %d bytes and %d spans", size, n)
		}
		rest = rest[n:]
	}
	if diff := cmp.Diff([]int{32, 19, 32, 17}, sizes); diff != "" {
		t.Error(diff)
	}
	r.fill(batch[:1])
	if r.spareSize > maxSpareSize {
		t.Errorf("%d bytes kept, want at most %d", r.spareSize, maxSpareSize)
	}
}

func TestMoreTargetsThanAreKept(t *testing.T) {
	var batch []*span.Span
	for i := range 2*maxResources + 100 {
		target := &span.Target{Resource: []attribute.KeyValue{attribute.Int("process.pid", i)}}
		batch = append(batch, httpSpan(target, i))
	}
	var r requests
	for range 2 {
		compare(t, &r, batch)
		if len(r.resources) > maxResources {
			t.Errorf("%d resources kept, want at most %d", len(r.resources), maxResources)
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("GET", "k", "v", int64(1), 0.5, []byte{1})
	f.Add("\xff", "", "\xed\xa0\x80", int64(-1), math.Inf(1), []byte(nil))
	f.Fuzz(func(t *testing.T, name, key, text string, n int64, x float64, raw []byte) {
		if math.IsNaN(x) {
			return // not equal to itself
		}
		target := &span.Target{Resource: []attribute.KeyValue{attribute.String(key, text), attribute.String(text, name)}}
		s := httpSpan(target, int(n))
		s.Name, s.TraceState, s.Message, s.Start = name, text, key, n
		s.Kind, s.Source = trace.SpanKind(uint64(n)%6), span.Source(uint64(n)%5)
		s.Attrs = append(s.Attrs, attribute.String(key, text), attribute.Int64(text, n), attribute.Float64(name, x),
			attribute.KeyValue{Key: attribute.Key(key), Value: attribute.ByteSliceValue(raw)},
			attribute.StringSlice(key, []string{name, text}),
			attribute.KeyValue{Key: "m", Value: attribute.MapValue(attribute.String(key, text))})
		var r requests
		compare(t, &r, []*span.Span{s, httpSpan(gateway, 1), s})
	})
}

// BenchmarkEncode makes requests of full batches, from spans of eight attributes to what goes to gRPC.
func BenchmarkEncode(b *testing.B) {
	for _, targets := range []int{1, 20} {
		b.Run(fmt.Sprint("targets=", targets), func(b *testing.B) {
			var of []*span.Target
			for range targets {
				of = append(of, &span.Target{Resource: gateway.Resource})
			}
			var batch []*span.Span
			for i := range 2048 {
				batch = append(batch, httpSpan(of[i%targets], i))
			}
			var r requests
			var size int
			b.ReportAllocs()
			for b.Loop() {
				if _, n := r.fill(batch); n != len(batch) {
					b.Fatal(n)
				}
				size = r.size
			}
			b.SetBytes(int64(size))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/span")
			b.ReportMetric(float64(size)/float64(len(batch)), "B/span")
		})
	}
}
