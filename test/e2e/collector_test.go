// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// quick makes the agent send batches soon, and the queue a certain size.
func quick(queue int) []string {
	return []string{"OTEL_BSP_SCHEDULE_DELAY=50", fmt.Sprint("OTEL_BSP_MAX_QUEUE_SIZE=", queue)}
}

// TestCollectorGetsWhatIsPrinted exports in both ways at once.
func TestCollectorGetsWhatIsPrinted(t *testing.T) {
	s, collector := servers.GoProxy(t, servers.Options{}), StartCollector(t)
	agent := StartAgent(t, AgentOptions{Select: PIDs(s, s.Behind), Env: quick(10_000),
		Flags: []string{"--output", "json", "--otlp-endpoint", collector.Endpoint()}})
	truth, err := drive.Plan{Addr: s.Addr, Requests: 500, Connections: 8, Trace: true}.Run()
	if err != nil {
		t.Fatal(err)
	}
	collector.WaitSpans(3 * len(truth))
	agent.WaitSpans(3 * len(truth))
	printed, summary := agent.Stop()
	received := map[string]*Span{}
	for _, span := range collector.Spans() {
		received[span.SpanID] = span
	}
	if len(received) != len(collector.Spans()) || len(printed) != len(received) {
		t.Errorf("%d spans printed, %d received, %d ids", len(printed), len(collector.Spans()), len(received))
	}
	NothingLost(t, summary, 3*len(truth))
	for _, span := range printed {
		if diff := cmp.Diff(span, received[span.SpanID], cmpopts.IgnoreFields(Span{}, "Line", "Events", "Links")); diff != "" {
			t.Fatalf("- printed, + received:\n%s", diff)
		}
	}
}

// TestCollectorAway lets the collector go away while a server is busy, and come back. Below the bound of
// the queue nothing is lost; above it the oldest spans are, and are counted.
func TestCollectorAway(t *testing.T) {
	const requests = 5000
	for name, queue := range map[string]int{"below the bound": 2 * requests, "above the bound": requests / 5} {
		t.Run(name, func(t *testing.T) {
			s, collector := servers.Go(t, servers.Options{}), StartCollector(t)
			agent := StartAgent(t, AgentOptions{Select: PIDs(s), Env: quick(queue),
				Flags: []string{"--output", "none", "--otlp-endpoint", collector.Endpoint()}})
			plan := drive.Plan{Addr: s.Addr, Requests: 100, Connections: 16}
			before, err := plan.Run()
			if err != nil {
				t.Fatal(err)
			}
			collector.WaitSpans(len(before))

			collector.Stop()
			plan.Requests = requests
			away, err := plan.Run()
			if err != nil {
				t.Fatalf("a traced server notices that the collector is away: %v", err)
			}
			collector.Start()
			plan.Requests = 100
			after, err := plan.Run()
			if err != nil {
				t.Fatal(err)
			}

			truth := append(append(before, away...), after...)
			if queue > requests {
				collector.WaitSpans(len(truth))
			}
			_, summary := agent.Stop()
			spans := collector.Spans()
			total := summary.Total
			t.Logf("the ledger says %v", total)
			if total["exported"] != int64(len(spans)) || total["seen"] != int64(len(truth)) {
				t.Errorf("%d made, %d received: %v", len(truth), len(spans), total)
			}
			if queue > requests {
				NothingLost(t, summary, len(truth))
				if err := Compare(spans, truth, Want{Service: "goserver"}); err != nil {
					t.Error(err)
				}
				return
			}
			if total["queue_full"] == 0 || total["exported"]+total["queue_full"] != int64(len(truth)) {
				t.Errorf("%d made and the queue holds %d: %v", len(truth), queue, total)
			}
			// The newest are those that stay.
			have := ByPath(spans)
			for _, x := range after {
				if have[x.Path] == nil {
					t.Fatalf("%s was made after the collector had come back and did not arrive", x.Path)
				}
			}
		})
	}
}

// TestCollectorRefuses answers as collectors do that are busy, or that do not like what they get.
func TestCollectorRefuses(t *testing.T) {
	const requests = 300
	type response = collectorpb.ExportTraceServiceResponse
	for _, test := range []struct {
		name    string
		answer  func(call int, r *collectorpb.ExportTraceServiceRequest) (*response, error)
		refused bool
	}{
		{"for a while", func(call int, _ *collectorpb.ExportTraceServiceRequest) (*response, error) {
			if call <= 2 {
				return nil, status.Error(codes.Unavailable, "busy")
			}
			return &response{}, nil
		}, false},
		{"for good", func(int, *collectorpb.ExportTraceServiceRequest) (*response, error) {
			return nil, status.Error(codes.InvalidArgument, "no")
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, collector := servers.Go(t, servers.Options{}), StartCollector(t)
			collector.Answer(test.answer)
			agent := StartAgent(t, AgentOptions{Select: PIDs(s), Env: quick(10_000),
				Flags: []string{"--output", "none", "--otlp-endpoint", collector.Endpoint()}})
			truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 4}.Run()
			if err != nil {
				t.Fatal(err)
			}
			if !test.refused {
				collector.WaitSpans(requests)
			}
			_, summary := agent.Stop()
			if test.refused {
				if summary.Total["export_refused"] != requests || summary.Total["exported"] != 0 {
					t.Errorf("all were refused: %v", summary.Total)
				}
				return
			}
			NothingLost(t, summary, requests)
			if err := Compare(collector.Spans(), truth, Want{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSlowCollector holds every batch back until the load is over: the programs do not wait for it.
func TestSlowCollector(t *testing.T) {
	const requests = 3000
	s, collector := servers.Go(t, servers.Options{}), StartCollector(t)
	loaded := make(chan struct{})
	collector.Answer(func(int, *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
		<-loaded
		return &collectorpb.ExportTraceServiceResponse{}, nil
	})
	agent := StartAgent(t, AgentOptions{Select: PIDs(s), Env: quick(2 * requests),
		Flags: []string{"--output", "none", "--otlp-endpoint", collector.Endpoint()}})
	truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 16}.Run()
	close(loaded)
	if err != nil {
		t.Fatal(err)
	}
	collector.WaitSpans(requests)
	_, summary := agent.Stop()
	NothingLost(t, summary, requests)
	if err := Compare(collector.Spans(), truth, Want{Service: "goserver"}); err != nil {
		t.Error(err)
	}
}
