// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// get asks the address at which the agent serves its metrics.
func (a *Agent) get(path string) string {
	a.t.Helper()
	url := regexp.MustCompile(`http://\S+/metrics`).FindString(a.WaitLine("/metrics"))
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(strings.TrimSuffix(url, "/metrics") + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		a.t.Fatalf("%s: %s, %v\n%s", path, answer.Status, err, text)
	}
	return string(text)
}

// sample is a line of the Prometheus text format: a name, labels, a value.
var sample = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`)

// metrics are the agent's own, the values by name and labels as they are printed.
func (a *Agent) metrics() map[string]float64 {
	a.t.Helper()
	m := map[string]float64{}
	for line := range strings.Lines(a.get("/metrics")) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := sample.FindStringSubmatch(line)
		if f == nil {
			a.t.Fatalf("not a sample: %q", line)
		}
		value, err := strconv.ParseFloat(f[3], 64)
		if err != nil {
			a.t.Fatalf("%s: %v", line, err)
		}
		m[f[1]+"{"+f[2]+"}"] = value
	}
	return m
}

// ledger is what the metrics say of the messages of a process.
func ledger(m map[string]float64, pid int, service string) Counts {
	labels := fmt.Sprintf(`pid="%d",service="%s"`, pid, service)
	c := Counts{
		"seen":     int64(m["breadcrumb_messages_seen_total{"+labels+"}"]),
		"exported": int64(m["breadcrumb_spans_exported_total{"+labels+"}"]),
	}
	for _, cause := range losses {
		c[cause] = int64(m[fmt.Sprintf(`breadcrumb_messages_lost_total{cause="%s",%s}`, cause, labels)])
	}
	return c
}

// TestMetricsSayWhatTheLedgerSays asks for the metrics before a load, and after it, when the collector has
// taken one half of the spans and refused the other.
func TestMetricsSayWhatTheLedgerSays(t *testing.T) {
	const half = 300
	s, collector := servers.Go(t, servers.Options{}), StartCollector(t)
	agent := StartAgent(t, AgentOptions{Select: PIDs(s), Env: quick(10_000), Flags: []string{
		"--output", "none", "--otlp-endpoint", collector.Endpoint(), "--metrics-addr", "127.0.0.1:0"}})
	if got := agent.get("/healthz"); got != "ok\n" {
		t.Errorf("/healthz answers %q", got)
	}
	before := agent.metrics()
	if got := ledger(before, s.PIDs[0], "goserver"); got["seen"] != 0 || got["exported"] != 0 || got.Lost() != 0 {
		t.Errorf("before any request: %v", got)
	}
	if got := before["breadcrumb_watched_processes{}"]; got != 1 {
		t.Errorf("%v processes are watched, want 1", got)
	}

	plan := drive.Plan{Addr: s.Addr, Requests: half, Connections: 8}
	load := func() {
		t.Helper()
		if _, err := plan.Run(); err != nil {
			t.Fatal(err)
		}
	}
	load()
	collector.WaitSpans(half)
	collector.Answer(func(int, *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
		return nil, status.Error(codes.InvalidArgument, "no")
	})
	load()
	var after map[string]float64
	var got Counts
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		after = agent.metrics()
		got = ledger(after, s.PIDs[0], "goserver")
		if got["exported"]+got.Lost() == 2*half {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d made, and the metrics say %v", 2*half, got)
		}
	}
	if got["exported"] != half || got["export_refused"] != half || got["seen"] != 2*half {
		t.Errorf("%d taken and %d refused, and the metrics say %v", half, half, got)
	}
	for name, value := range before {
		bare, _, _ := strings.Cut(name, "{")
		if now, ok := after[name]; strings.HasSuffix(bare, "_total") && (!ok || now < value) {
			t.Errorf("%s was %v and is %v: a counter never sinks", name, value, now)
		}
	}
	_, summary := agent.Stop()
	if len(summary.Processes) != 1 {
		t.Fatalf("%v", summary)
	}
	for entry, n := range summary.Processes[0].Counts {
		if got[entry] != n {
			t.Errorf("%s: the metrics say %d and the ledger %d", entry, got[entry], n)
		}
	}
}

// TestMetricsAddressInUse gives the agent an address at which another program listens: it says so and ends,
// and nothing of it is left.
func TestMetricsAddressInUse(t *testing.T) {
	s := servers.Go(t, servers.Options{})
	recording := filepath.Join(t.TempDir(), "recording")
	for name, o := range map[string]AgentOptions{
		"run":    {Flags: []string{"--output", "json", "--metrics-addr", s.Addr}},
		"record": {Command: []string{"record", recording}, Config: "metrics_addr: " + s.Addr},
	} {
		t.Run(name, func(t *testing.T) {
			o.Select, o.NoWait = PIDs(s), true
			agent := StartAgent(t, o)
			code, said := agent.Ended()
			if code != 1 {
				t.Errorf("the exit status is %d, want 1", code)
			}
			for _, part := range []string{s.Addr, "in use", "--metrics-addr", "another address"} {
				if !strings.Contains(said, part) {
					t.Errorf("it does not say %q: %s", part, said)
				}
			}
			if strings.Contains(said, "panic") || len(agent.Spans()) > 0 {
				t.Errorf("it printed %d spans, and on stderr:\n%s", len(agent.Spans()), said)
			}
			if err := syscall.Kill(-agent.PID(), 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("a process is left of it: %v", err)
			}
			if _, err := os.Stat(recording); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a recording is left: %v", err)
			}
		})
	}
	// The other program was not disturbed.
	conn, err := net.Dial(s.Network, s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
