// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestRealCollector sends spans to the OpenTelemetry Collector, which passes them on to the receiver of
// the test: all that is printed comes out of it, and nothing else.
func TestRealCollector(t *testing.T) {
	Binary(t) // skips the test where nothing can be traced, before the longer build
	sink := StartCollector(t)
	collector := realCollector(t, sink)
	s := servers.GoProxy(t, servers.Options{})
	agent := StartAgent(t, AgentOptions{Select: PIDs(s, s.Behind), Env: quick(10_000),
		Flags: []string{"--output", "json", "--otlp-endpoint", "http://" + collector.Addr}})
	truth, err := drive.Plan{Addr: s.Addr, Requests: 300, Connections: 8, Request: mixed}.Run()
	if err != nil {
		t.Fatal(err)
	}
	// The proxy has a span for the request that it gets and one for that which it makes.
	all := 3 * len(truth)
	sink.WaitSpans(all)
	agent.WaitSpans(all)
	printed, summary := agent.Stop()
	NothingLost(t, summary, all)

	received := sink.Spans()
	byID := cmpopts.SortSlices(func(a, b *Span) bool { return a.SpanID < b.SpanID })
	if diff := cmp.Diff(printed, received, byID, cmpopts.IgnoreFields(Span{}, "Line", "Events", "Links")); diff != "" {
		t.Errorf("%d printed and %d received; - printed, + received:\n%.4000s", len(printed), len(received), diff)
	}
	proxy, calls := Select(received, "goproxy", "server"), Select(received, "goproxy", "client")
	if err := Compare(proxy, truth, Want{Service: "goproxy"}); err != nil {
		t.Error(err)
	}
	if err := Compare(calls, truth, Want{Service: "goproxy", Kind: "client", Foreign: true}); err != nil {
		t.Error(err)
	}
	behind := Select(received, "goserver", "server")
	if err := Compare(behind, truth, Want{Service: "goserver", Foreign: true}); err != nil {
		t.Error(err)
	}
	if err := Joined(calls, proxy); err != nil {
		t.Error(err)
	}
	if err := Joined(behind, calls); err != nil {
		t.Error(err)
	}
}

// mixed makes spans that differ in whatever OTLP carries: parents, trace states, statuses, attributes.
func mixed(i int) drive.Request {
	switch i % 4 {
	case 0:
		return drive.Request{Target: fmt.Sprintf("/item/plain-%d", i)}
	case 1:
		return drive.Request{Target: fmt.Sprintf("/item/traced-%d?page=%d", i, i), Trace: true, TraceState: "vendor=opaque"}
	case 2:
		return drive.Request{Method: "POST", Target: fmt.Sprintf("/upload/%d", i), Body: make([]byte, i), Trace: true}
	default:
		return drive.Request{Target: fmt.Sprintf("/status/503/%d", i)}
	}
}

// realCollector builds the OpenTelemetry Collector and starts it before the sink. The first build fetches
// 113 MB of modules and costs about three minutes of CPU, a later one a few seconds.
func realCollector(t testing.TB, sink *Collector) *servers.Server {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "collector")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", exe, ".")
	build.Dir = filepath.Join(servers.ModuleRoot(), "test", "e2e", "testdata", "collector")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the collector: %v\n%s", err, out)
	}
	port := servers.FreePort(t)
	p := servers.Run(t, servers.Options{}, exe, "-listen", servers.Loopback(port), "-forward", sink.addr)
	return servers.Listening(t, p, port)
}
