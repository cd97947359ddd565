// SPDX-License-Identifier: Apache-2.0

package jsonl

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"breadcrumb/export"
	"breadcrumb/internal/span"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite the golden file")

func example() []*span.Span {
	gateway := &span.Target{PID: 7, Resource: []attribute.KeyValue{
		attribute.String("service.name", "gateway"), attribute.Int("process.pid", 7),
	}}
	return []*span.Span{
		{
			Kind: trace.SpanKindServer, Source: span.SourceHeader, Name: "GET /orders/{id}", Target: gateway,
			TraceID: trace.TraceID{0x4b, 0xf9, 15: 1}, ID: trace.SpanID{7: 2}, Parent: trace.SpanID{7: 1},
			TraceState: "vendor=a,other=\"b\"", Start: 1_700_000_000_000_000_001, End: 1_700_000_000_000_000_002,
			Status: codes.Error, Message: "line one\nline \"two\"\\",
			Attrs: []attribute.KeyValue{
				attribute.String("url.path", "/orders/\xff\x00\x1b\u2028ü"), attribute.Int64("int", math.MinInt64),
				attribute.Bool("bool", true), attribute.Float64("float", 1e-9), attribute.Float64("nan", math.NaN()),
				attribute.Float64("inf", math.Inf(-1)), attribute.BoolSlice("bools", []bool{true, false}),
				attribute.Int64Slice("ints", []int64{1, -2}), attribute.Float64Slice("floats", []float64{0.5, math.Inf(1)}),
				attribute.StringSlice("strings", []string{"a", "\t"}), attribute.StringSlice("none", nil),
				{Key: "bytes", Value: attribute.ByteSliceValue([]byte{0, 255})},
				{Key: "slice", Value: attribute.SliceValue(attribute.IntValue(1), attribute.StringValue("x"), attribute.Value{})},
				{Key: "map", Value: attribute.MapValue(attribute.Int("a", 1), attribute.String("b", "c"))},
				{Key: "empty"},
			},
		},
		{
			Kind: trace.SpanKindClient, Source: span.SourceThread, Name: "GET", Status: codes.Ok, Target: gateway,
			TraceID: trace.TraceID{15: 9}, ID: trace.SpanID{7: 9}, Parent: trace.SpanID{7: 8},
		},
		{
			TraceID: trace.TraceID{15: 9}, ID: trace.SpanID{7: 8},
			Link: span.Context{TraceID: trace.TraceID{15: 5}, SpanID: trace.SpanID{7: 6}, TraceState: "vendor=a"},
		},
	}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	if err := New(&out).Export(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/spans.jsonl"
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(out.String(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for line := range strings.Lines(out.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
}

func TestResourceCacheIsBounded(t *testing.T) {
	e := New(io.Discard)
	for range 3 * maxResources {
		if err := e.Export(t.Context(), []*span.Span{{Target: new(span.Target)}}); err != nil {
			t.Fatal(err)
		}
		if len(e.resources) > maxResources {
			t.Fatalf("%d resources kept, want at most %d", len(e.resources), maxResources)
		}
	}
}

// shortWriter takes so many bytes and then fails.
type shortWriter struct{ left int }

func (w *shortWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		n := w.left
		w.left = 0
		return n, io.ErrClosedPipe
	}
	w.left -= len(p)
	return len(p), nil
}

func TestSpansWrittenBeforeAnErrorAreDone(t *testing.T) {
	var batch []*span.Span
	for range 1000 {
		batch = append(batch, example()...)
	}
	var out bytes.Buffer
	if err := New(&out).Export(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{0, 1, 1000, 70_000, 200_000, out.Len() - 1} {
		err := New(&shortWriter{left: room}).Export(t.Context(), batch)
		var e *export.Error
		if !errors.As(err, &e) || !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
		if want := bytes.Count(out.Bytes()[:room], []byte{'\n'}); e.Done != want || e.Retry || e.Refused != 0 {
			t.Errorf("room for %d bytes: %+v, want %d done", room, *e, want)
		}
	}
}

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x1f\x7f", "\"\\\n\r\t", "\xff\xfe", "ü\u2028\U0001F600", "\xed\xa0\x80", "a\xffb"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		s := &span.Span{Name: name, Message: value, TraceState: name,
			Attrs: []attribute.KeyValue{attribute.String(value, name), attribute.StringSlice(name+"/", []string{value})}}
		var out bytes.Buffer
		if err := New(&out).Export(t.Context(), []*span.Span{s}); err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(out.Bytes(), []byte{'\n'}); n != 1 {
			t.Fatalf("%d lines", n)
		}
		var got struct {
			Name       string `json:"name"`
			TraceState string `json:"trace_state"`
			Status     struct{ Message string }
			Attributes map[string]any `json:"attributes"`
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		valid := func(s string) string { return string([]rune(s)) } // each bad byte becomes U+FFFD
		if got.Name != valid(name) || got.TraceState != valid(name) || got.Status.Message != valid(value) {
			t.Errorf("strings differ: %q from %q, %q", got, name, value)
		}
		if valid(value) != valid(name)+"/" {
			want := map[string]any{valid(value): valid(name), valid(name) + "/": []any{valid(value)}}
			if !reflect.DeepEqual(want, got.Attributes) {
				t.Errorf("attributes %q, want %q", got.Attributes, want)
			}
		}
	})
}

func BenchmarkExport(b *testing.B) {
	t := &span.Target{Resource: []attribute.KeyValue{attribute.String("service.name", "x"), attribute.String("process.executable.path", "/usr/bin/x")}}
	var batch []*span.Span
	for range 2048 {
		batch = append(batch, &span.Span{
			Kind: trace.SpanKindServer, Name: "GET /orders/{id}", Target: t, Start: 1_700_000_000_000_000_001, End: 1_700_000_000_001_000_001,
			Attrs: []attribute.KeyValue{attribute.String("http.request.method", "GET"), attribute.String("url.path", "/orders/42"),
				attribute.String("url.scheme", "http"), attribute.Int("http.response.status_code", 200),
				attribute.String("server.address", "10.1.2.3"), attribute.Int("server.port", 8080),
				attribute.String("client.address", "10.1.2.4"), attribute.String("user_agent.original", "curl/8.5.0")},
		})
	}
	e := New(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Export(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/span")
}
