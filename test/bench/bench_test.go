// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		name string
		in   []float64
		want spread
	}{
		{"odd", []float64{3, 1, 2}, spread{2, 1, 3, 3}},
		{"even", []float64{4, 1, 3, 2}, spread{2.5, 1, 4, 4}},
		{"one", []float64{7}, spread{7, 7, 7, 1}},
		{"what is not a number does not count", []float64{math.NaN(), 7}, spread{7, 7, 7, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := slices.Clone(test.in)
			if diff := cmp.Diff(test.want, spreadOf(test.in)); diff != "" {
				t.Error(diff)
			}
			for i := range before {
				if before[i] != test.in[i] && !math.IsNaN(before[i]) {
					t.Error("the figures were put in another order")
				}
			}
		})
	}
	if s := spreadOf(nil); s.N != 0 || !math.IsNaN(s.Median) {
		t.Errorf("of nothing: %v", s)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, test := range []struct {
		sorted []int
		p      float64
		want   int
	}{
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.1, 100},
		{hundred, 100, 100},
		{hundred, 0, 1},
		{[]int{1, 2, 3}, 50, 2},
		{[]int{1, 2, 3, 4}, 50, 2},
		{[]int{5}, 99, 5},
		{nil, 50, 0},
	} {
		if got := percentile(test.sorted, test.p); got != test.want {
			t.Errorf("p%v of %d: %d, want %d", test.p, len(test.sorted), got, test.want)
		}
	}
}

// TestRatiosAreOfPairs holds the comparison to pairs: the ratio of the medians would be 1 here.
func TestRatiosAreOfPairs(t *testing.T) {
	r := row{}
	for _, p := range [][2]float64{{100, 50}, {50, 25}, {25, 100}} {
		r.Pairs = append(r.Pairs, pair{
			Without: sample{Load: loadResult{PerSecond: p[0]}},
			With:    sample{Load: loadResult{PerSecond: p[1]}},
		})
	}
	without, with, ratios := r.compare(perSecond)
	if without.Median != 50 || with.Median != 50 {
		t.Errorf("medians %v and %v", without, with)
	}
	if want := (spread{0.5, 0.5, 4, 3}); ratios != want {
		t.Errorf("ratios %v, want %v", ratios, want)
	}
}

func TestPer10kRequests(t *testing.T) {
	r := row{Pairs: []pair{{With: sample{Served: 50000, AgentCPU: time.Second}}}}
	if got := r.per10k(func(s sample) time.Duration { return s.AgentCPU }).Median; math.Abs(got-0.2) > 1e-12 {
		t.Error(got)
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[float64]string{0: "0", 999.4: "999", 1000: "1 000", 85012.6: "85 013",
		1234567: "1 234 567", -1000: "-1 000", -999: "-999", math.NaN(): "–"} {
		if got := number(in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}

func TestRequestsAreDueInTheirSlots(t *testing.T) {
	const rate = 1000
	due := slots(rate, 2*time.Second)
	if len(due) != 2*rate {
		t.Fatalf("%d requests", len(due))
	}
	for i, d := range due {
		if from := time.Duration(i) * time.Second / rate; d < from || d > from+time.Second/rate {
			t.Fatalf("request %d is due at %v", i, d)
		}
	}
	if !slices.Equal(due, slots(rate, 2*time.Second)) {
		t.Error("another run has other moments")
	}
}

func TestAnswerLength(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 6\r\n\r\n"
	for _, test := range []struct {
		in   string
		want int
		err  bool
	}{
		{head + "hello\n", len(head) + 6, false},
		{head, len(head) + 6, false},
		{head[:len(head)-1], -1, false},
		{"", -1, false},
		{strings.Replace(head, "200", "500", 1), 0, true},
		{strings.Replace(head, "Content-Length", "X", 1), 0, true},
		{strings.Replace(head, "6", "x", 1), 0, true},
	} {
		got, err := answerLength([]byte(test.in))
		if got != test.want && err == nil || (err != nil) != test.err {
			t.Errorf("%q: %d, %v", test.in, got, err)
		}
	}
}

func TestParseWrk(t *testing.T) {
	res, err := parseWrk([]byte(`Running 5s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   445.85us  577.71us  11.61ms   94.25%
    Req/Sec    84.99k     6.55k   97.16k    72.00%
  423061 requests in 5.02s, 49.22MB read
  Socket errors: connect 0, read 1, write 0, timeout 2
  Non-2xx or 3xx responses: 4
Requests/sec:  84356.78
Transfer/sec:      9.81MB
`))
	if err != nil {
		t.Fatal(err)
	}
	want := loadResult{Tool: "wrk", Requests: 423061, PerSecond: 84356.78, Seconds: 423061 / 84356.78, Errors: 7,
		Error: "Non-2xx or 3xx responses: 4"}
	if diff := cmp.Diff(want, res); diff != "" {
		t.Error(diff)
	}
	if _, err := parseWrk([]byte("unable to connect to 127.0.0.1:8080 Connection refused\n")); err == nil {
		t.Error("no error without a result")
	}
}

func TestParsePgbench(t *testing.T) {
	res, err := parsePgbench([]byte(`pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: select.sql
scaling factor: 1
query mode: simple
number of clients: 32
number of threads: 1
maximum number of tries: 1
duration: 5 s
number of transactions actually processed: 214861
number of failed transactions: 3 (0.001%)
latency average = 0.742 ms
initial connection time = 21.414 ms
tps = 43125.118412 (without initial connection time)
`))
	if err != nil {
		t.Fatal(err)
	}
	want := loadResult{Tool: "pgbench", Requests: 214861, PerSecond: 43125.118412, Seconds: 214861 / 43125.118412, Errors: 3}
	if diff := cmp.Diff(want, res); diff != "" {
		t.Error(diff)
	}
	if _, err := parsePgbench([]byte("pgbench: error: connection to server failed\n")); err == nil {
		t.Error("no error without a result")
	}
}

// TestFamilyTimeKnowsOfThoseThatHaveEnded has a child use some CPU time.
func TestFamilyTimeKnowsOfThoseThatHaveEnded(t *testing.T) {
	before, err := familyTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := familyTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if grown := after - before; grown < used-3*tick {
		t.Errorf("it grew by %v, and the child used %v", grown, used)
	}
}

func TestParseLedger(t *testing.T) {
	c, err := parseLedger(`{"processes":[{"pid":1,"seen":10}],"total":{"seen":10,"exported":7,"ring_full":2,"muted":1,"queue_full":0}}`)
	if err != nil {
		t.Fatal(err)
	}
	want := counts{Seen: 10, Exported: 7, Lost: map[string]int64{"ring_full": 2, "muted": 1}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	if c.lost() != 3 {
		t.Errorf("%d lost", c.lost())
	}
}

func TestSpansAreCounted(t *testing.T) {
	spans := func(n int) *tracepb.ScopeSpans {
		s := &tracepb.ScopeSpans{SchemaUrl: "https://example.com"}
		for range n {
			s.Spans = append(s.Spans, &tracepb.Span{Name: "GET", TraceId: make([]byte, 16),
				Events: []*tracepb.Span_Event{{Name: "event"}}, StartTimeUnixNano: 1})
		}
		return s
	}
	b, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{
		{ScopeSpans: []*tracepb.ScopeSpans{spans(3), spans(0), spans(1)}}, {}, {ScopeSpans: []*tracepb.ScopeSpans{spans(7)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := countFields(b, spanPath); n != 11 || err != nil {
		t.Errorf("%d spans, %v", n, err)
	}
	if _, err := countFields(b[:len(b)-1], spanPath); err == nil {
		t.Error("no error for half a message")
	}
}

func TestWants(t *testing.T) {
	for _, test := range []struct {
		only, part, server string
		want               bool
	}{
		{"", latency, "go", true},
		{"go", latency, "go", true},
		{"go", latency, "python", false},
		{"latency", latency, "python", true},
		{"cores/nginx,latency/go", cores, "nginx", true},
		{"cores/nginx,latency/go", cores, "go", false},
	} {
		if got := (options{only: test.only}).wants(test.part, test.server); got != test.want {
			t.Errorf("-only %q: %s/%s: %v", test.only, test.part, test.server, got)
		}
	}
}
