// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"breadcrumb/test/e2e/servers"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector is an OTLP receiver over gRPC that keeps what it gets.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer
	t    testing.TB
	addr string

	mu      sync.Mutex
	server  *grpc.Server
	changed chan struct{}
	spans   []*Span
	calls   int
	answer  func(call int, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error)
}

// StartCollector starts a collector that ends with the test.
func StartCollector(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{t: t, changed: make(chan struct{}), addr: servers.Loopback(servers.FreePort(t))}
	c.Start()
	t.Cleanup(c.Stop)
	return c
}

// Endpoint is for --otlp-endpoint.
func (c *Collector) Endpoint() string { return "http://" + c.addr }

// Start lets it listen again where it did before.
func (c *Collector) Start() {
	c.t.Helper()
	listener, err := net.Listen("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	go server.Serve(listener)
}

// Stop answers the calls under way and goes away.
func (c *Collector) Stop() {
	c.mu.Lock()
	server := c.server
	c.server = nil
	c.mu.Unlock()
	if server != nil {
		server.GracefulStop()
	}
}

// Answer makes every later call go through f, which may wait or refuse. What it refuses is not kept. A
// nil f takes all.
func (c *Collector) Answer(f func(call int, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = f
}

// Export implements the service.
func (c *Collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	c.calls++
	call, answer := c.calls, c.answer
	c.mu.Unlock()
	res := &collectorpb.ExportTraceServiceResponse{}
	if answer != nil {
		var err error
		if res, err = answer(call, r); err != nil {
			return nil, err
		}
	}
	spans := decode(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, spans...)
	close(c.changed)
	c.changed = make(chan struct{})
	return res, nil
}

// Spans is what was received up to now.
func (c *Collector) Spans() []*Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans[:len(c.spans):len(c.spans)]
}

// WaitSpans waits until n spans were received.
func (c *Collector) WaitSpans(n int) []*Span {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		changed, have := c.changed, len(c.spans)
		c.mu.Unlock()
		if have >= n {
			return c.Spans()
		}
		select {
		case <-changed:
		case <-deadline:
			c.t.Fatalf("the collector has received %d spans of %d", have, n)
		}
	}
}

// decode turns OTLP's spans into those that --output json prints.
func decode(r *collectorpb.ExportTraceServiceRequest) []*Span {
	var spans []*Span
	for _, rs := range r.ResourceSpans {
		resource := attributes(rs.Resource.GetAttributes())
		for _, ss := range rs.ScopeSpans {
			for _, p := range ss.Spans {
				s := &Span{
					TraceID:    hex.EncodeToString(p.TraceId),
					SpanID:     hex.EncodeToString(p.SpanId),
					ParentID:   hex.EncodeToString(p.ParentSpanId),
					TraceState: p.TraceState,
					Name:       p.Name,
					Kind:       strings.ToLower(strings.TrimPrefix(p.Kind.String(), "SPAN_KIND_")),
					Start:      int64(p.StartTimeUnixNano),
					End:        int64(p.EndTimeUnixNano),
					Status:     Status{Code: statusCode(p.Status.GetCode()), Message: p.Status.GetMessage()},
					Attributes: attributes(p.Attributes),
					Resource:   resource,
					Scope:      Scope{Name: ss.Scope.GetName(), Version: ss.Scope.GetVersion()},
				}
				spans = append(spans, s)
			}
		}
	}
	return spans
}

func statusCode(c tracepb.Status_StatusCode) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "STATUS_CODE_"))
}

func attributes(list []*commonpb.KeyValue) map[string]any {
	m := make(map[string]any, len(list))
	for _, kv := range list {
		m[kv.Key] = value(kv.Value)
	}
	return m
}

// value is what encoding/json would make of the attribute.
func value(v *commonpb.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return v.BoolValue
	case *commonpb.AnyValue_IntValue:
		return float64(v.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		return v.DoubleValue
	case *commonpb.AnyValue_ArrayValue:
		list := []any{}
		for _, e := range v.ArrayValue.Values {
			list = append(list, value(e))
		}
		return list
	}
	return fmt.Sprint(v)
}
