// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"breadcrumb/internal/span"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func target(name string) *span.Target {
	return &span.Target{Resource: []attribute.KeyValue{attribute.String("service.name", name)}}
}

var gateway, orders, stock = target("gateway"), target("orders"), target("stock")

// at makes times: a fixed second, and so many milliseconds.
func at(ms float64) int64 { return 1_700_000_000_000_000_000 + int64(ms*1e6) }

func id(n uint64) (s trace.SpanID) {
	binary.BigEndian.PutUint64(s[:], n)
	return s
}

func traceID(n uint64) (t trace.TraceID) {
	copy(t[:], []byte{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6})
	binary.BigEndian.PutUint64(t[8:], n)
	return t
}

func server(t *span.Target, n, parent uint64, path string, status int, start, end float64) *span.Span {
	return &span.Span{
		State: span.Done, Kind: trace.SpanKindServer, TraceID: traceID(1), ID: id(n), Parent: id(parent),
		Name: "GET", Start: at(start), End: at(end), Target: t,
		Attrs: []attribute.KeyValue{attribute.String("http.request.method", "GET"), attribute.String("url.path", path),
			attribute.Int("http.response.status_code", status)},
	}
}

func client(t *span.Target, n, parent uint64, url string, status int, start, end float64) *span.Span {
	s := server(t, n, parent, "", status, start, end)
	s.Kind = trace.SpanKindClient
	s.Attrs[1] = attribute.String("url.full", url)
	return s
}

func failed(s *span.Span, errorType string) *span.Span {
	s.Status = codes.Error
	s.Attrs = append(s.Attrs, attribute.String("error.type", errorType))
	return s
}

func inTrace(n uint64, s *span.Span) *span.Span {
	s.TraceID = traceID(n)
	return s
}

func shop() []*span.Span {
	return []*span.Span{
		server(gateway, 1, 0, "/checkout/42", 200, 0, 12.4),
		client(gateway, 2, 1, "http://orders:9002/orders/42?expand=all", 200, 0.4, 8.5),
		server(orders, 3, 2, "/orders/42", 200, 0.6, 8.2),
		client(orders, 4, 3, "http://stock:9003/stock/7", 200, 1, 3.25),
		server(stock, 5, 4, "/stock/7", 200, 1.2, 3),
		client(gateway, 6, 1, "http://stock:9003/reserve", 503, 9, 11.9),
		failed(server(stock, 7, 6, "/reserve", 503, 9.2, 9.85), "503"),
	}
}

func terminal(width int) Config {
	return Config{Width: func() int { return width }, TreesPerSecond: 20}
}

func TestPrintedTrees(t *testing.T) {
	color := terminal(120)
	color.Color = true
	noStatus := server(gateway, 9, 0, "/slow", 0, 0, 61_500)
	noStatus.Attrs = noStatus.Attrs[:2]
	deep := []*span.Span{server(gateway, 1, 0, "/0", 200, 0, 10)}
	wide := []*span.Span{server(gateway, 1, 0, "/", 200, 0, 500)}
	for i := range 30 {
		deep = append(deep, client(gateway, uint64(i+2), uint64(i+1), fmt.Sprintf("http://a/%d", i), 200, 1, 2))
	}
	for i := range 1234 {
		wide = append(wide, client(gateway, uint64(i+2), 1, fmt.Sprintf("http://a/%d", i), 200, float64(i)/10, float64(i)/10+5))
	}
	for _, tc := range []struct {
		name    string
		cfg     Config
		batches [][]*span.Span
	}{
		{"terminal", terminal(120), [][]*span.Span{shop()}},
		{"color", color, [][]*span.Span{shop()}},
		{"narrow", terminal(80), [][]*span.Span{shop()}},
		{"tiny", terminal(40), [][]*span.Span{shop()}},
		{"file", Default(), [][]*span.Span{shop()}},
		{"single", terminal(120), [][]*span.Span{
			{inTrace(2, server(gateway, 1, 0, "/", 200, 0, 0.25)), inTrace(3, server(gateway, 2, 0, "/gone", 404, 1, 3))},
			shop(),
			{inTrace(4, failed(noStatus, "connection_closed"))},
		}},
		{"pieces", terminal(120), [][]*span.Span{
			{server(orders, 3, 2, "/orders/42", 200, 0, 5), server(stock, 5, 4, "/stock/7", 200, 1, 2)},
			{client(orders, 4, 3, "http://stock:9003/stock/7", 200, 1, 12)},
		}},
		{"ring", terminal(120), [][]*span.Span{
			{server(orders, 3, 4, "/a", 200, 0, 5), server(orders, 4, 3, "/b", 200, 1, 2), server(orders, 5, 5, "/c", 200, 1, 2)},
		}},
		{"hostile", terminal(120), [][]*span.Span{{
			server(target("\x1b[2Jclear"), 1, 0, "/a\x1b]0;owned\a\r\n/\u202egnp.exe/\xff/\u200b/größe/商品", 200, 0, 1),
		}}},
		{"hostile-file", Default(), [][]*span.Span{{
			server(target("\x1b[2Jclear"), 1, 0, "/a\x1b]0;owned\a\r\n/\u202egnp.exe/\xff/größe/商品/\U0001F600", 200, 0, 1),
		}}},
		{"wide-runes", terminal(80), [][]*span.Span{{
			server(target("商店"), 1, 0, "/商品/商品/商品/商品/商品/商品/商品/商品/商品/商品", 200, 0, 1),
			client(target("x"), 2, 1, "http://a/b", 200, 0, 1),
		}}},
		{"deep", terminal(100), [][]*span.Span{deep}},
		{"many", terminal(120), [][]*span.Span{wide}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			e := New(&out, tc.cfg)
			for _, batch := range tc.batches {
				if err := e.Export(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			golden(t, tc.name, out.Bytes())
			if width := tc.cfg.Width; width != nil && width() >= 60 && !tc.cfg.Color {
				for line := range strings.Lines(out.String()) {
					if n := columns(strings.TrimSuffix(line, "\n")); n > width() {
						t.Errorf("a line of %d columns: %s", n, line)
					}
				}
			}
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("differs from %s (-want +got):\n%s", file, diff)
	}
}

func TestTreesBeyondTheLimitAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		cfg := terminal(120)
		cfg.TreesPerSecond = 2
		e := New(&out, cfg)
		show := func(from, n int, ms float64) {
			for i := range n {
				s := inTrace(uint64(from+i), server(gateway, 1, 0, fmt.Sprint("/", from+i), 200, ms, ms+1))
				if err := e.Export(t.Context(), []*span.Span{s}); err != nil {
					t.Fatal(err)
				}
			}
		}
		show(0, 3, 0)    // one too many
		show(10, 2, 1e3) // the next second: room again, and the note first
		show(20, 1236, 1e3)
		time.Sleep(noteAfter) // of fake time: the note comes also when nothing else does
		synctest.Wait()
		e.mu.Lock()
		got := out.String()
		e.mu.Unlock()
		var short []string
		for line := range strings.Lines(got) {
			short = append(short, strings.TrimSpace(line[:min(len(line), 12)]))
		}
		want := []string{"GET /0", "GET /1", "… 1 more t", "GET /10", "GET /11", "… 1 236 mo"}
		if diff := cmp.Diff(want, short); diff != "" {
			t.Errorf("-want +got:\n%s\n%s", diff, got)
		}
	})
}

func TestSpanOfEarlierSecondCountsInThePresentOne(t *testing.T) {
	var out bytes.Buffer
	cfg := terminal(120)
	cfg.TreesPerSecond = 1
	e := New(&out, cfg)
	for i, ms := range []float64{1000, 0, 1500} {
		if err := e.Export(t.Context(), []*span.Span{inTrace(uint64(i), server(gateway, 1, 0, "/", 200, ms, ms+1))}); err != nil {
			t.Fatal(err)
		}
	}
	if e.hidden != 2 {
		t.Errorf("%d trees hidden, want 2", e.hidden)
	}
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "… 2 more traces not shown, but counted\n") {
		t.Errorf("no note at the end of:\n%s", out.String())
	}
}

type brokenPipe struct{ writes int }

func (b *brokenPipe) Write([]byte) (int, error) {
	b.writes++
	return 0, io.ErrClosedPipe
}

func TestWriteErrorIsFinal(t *testing.T) {
	var pipe brokenPipe
	e := New(&pipe, Default())
	for range 2 {
		if err := e.Export(t.Context(), shop()); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("error %v, want %v", err, io.ErrClosedPipe)
		}
	}
	if pipe.writes != 1 {
		t.Errorf("%d writes to a broken pipe, want 1", pipe.writes)
	}
}

func TestDetect(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, tc := range []struct {
		name  string
		env   map[string]string
		color bool
	}{
		{"a file", nil, false},
		{"forced", map[string]string{"CLICOLOR_FORCE": "1"}, true},
		{"forced off", map[string]string{"CLICOLOR_FORCE": "0"}, false},
		{"no color wins", map[string]string{"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, false},
	} {
		c := Detect(file, func(name string) string { return tc.env[name] })
		if c.Color != tc.color || !c.ASCII || c.Width != nil {
			t.Errorf("%s: color %v, ascii %v, with width %v", tc.name, c.Color, c.ASCII, c.Width != nil)
		}
	}
	for locale, want := range map[string]bool{"": true, "C": false, "en_GB.UTF-8": true, "de_DE.utf8": true, "de_DE.ISO-8859-1": false} {
		if got := utf8Locale(func(name string) string { return map[string]string{"LC_CTYPE": locale}[name] }); got != want {
			t.Errorf("locale %q taken for UTF-8: %v, want %v", locale, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	e := New(nil, terminal(80))
	for ns, want := range map[int64]string{
		0: "0 µs", 999_999: "999 µs", 1_000_000: "1.00 ms", 12_400_000: "12.4 ms", 850_000_000: "850 ms",
		1_500_000_000: "1.50 s", 42_000_000_000: "42.0 s", 61_500_000_000: "1m 01s", math.MaxInt64: "153722867m 16s",
	} {
		if got := e.duration(ns); got != want {
			t.Errorf("%d ns: %q, want %q", ns, got, want)
		}
	}
}

func FuzzNothingUnprintableIsPrinted(f *testing.F) {
	f.Add("/a\x1b[2J", "svc\r\n", uint8(80), true)
	f.Add("/\u202e\xff", "\x00", uint8(20), false)
	f.Fuzz(func(t *testing.T, path, service string, width uint8, ascii bool) {
		var out bytes.Buffer
		cfg := terminal(int(width))
		cfg.ASCII = ascii
		e := New(&out, cfg)
		s := server(target(service), 1, 0, path, 200, 0, 1)
		s.Attrs = append(s.Attrs, attribute.String("error.type", path))
		if err := e.Export(context.Background(), []*span.Span{s, client(target(path), 2, 1, path, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 || ascii && r > 0x7f {
				t.Fatalf("%U in %q", r, out.String())
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Fatalf("%d lines for two spans: %q", n, out.String())
		}
	})
}

func BenchmarkExport(b *testing.B) {
	for _, tc := range []struct {
		name  string
		limit int
	}{{"shown", math.MaxInt}, {"counted", 0}} {
		b.Run(tc.name, func(b *testing.B) {
			cfg := terminal(120)
			cfg.TreesPerSecond = tc.limit
			e := New(io.Discard, cfg)
			var batch []*span.Span
			for i := range 300 {
				for _, s := range shop() {
					batch = append(batch, inTrace(uint64(i), s))
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Export(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/span")
			_ = e.Shutdown(b.Context())
		})
	}
}
