// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"breadcrumb/export"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"

	"github.com/google/go-cmp/cmp"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) {
	for _, kv := range os.Environ() { // the tests set what they need
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			_ = os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

// receiver stands in for a collector.
type receiver struct {
	coltracepb.UnimplementedTraceServiceServer
	server *grpc.Server
	addr   string
	called chan struct{} // one for each call

	mu       sync.Mutex
	answer   func(*coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error)
	requests []*coltracepb.ExportTraceServiceRequest
	headers  metadata.MD
	wire     int // bytes of the last request as they came
}

func (r *receiver) Export(ctx context.Context, request *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.headers, _ = metadata.FromIncomingContext(ctx)
	r.requests = append(r.requests, request)
	select {
	case r.called <- struct{}{}:
	default:
	}
	if r.answer != nil {
		return r.answer(request)
	}
	return new(coltracepb.ExportTraceServiceResponse), nil
}

func (r *receiver) will(answer func(*coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) spans() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, request := range r.requests {
		n += count(request)
	}
	return n
}

func count(request *coltracepb.ExportTraceServiceRequest) (n int) {
	for _, rs := range request.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			n += len(ss.Spans)
		}
	}
	return n
}

// The receiver is its server's stats.Handler, to see how large a request is on the wire.
func (r *receiver) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		r.mu.Lock()
		r.wire = in.CompressedLength
		r.mu.Unlock()
	}
}
func (*receiver) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*receiver) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*receiver) HandleConn(context.Context, stats.ConnStats)                       {}

// receive starts a receiver; an empty address is any free port.
func receive(t testing.TB, addr string, opts ...grpc.ServerOption) *receiver {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	listener, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{addr: listener.Addr().String(), called: make(chan struct{}, 1000)}
	r.server = grpc.NewServer(append(opts, grpc.StatsHandler(r))...)
	coltracepb.RegisterTraceServiceServer(r.server, r)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.server.Serve(listener)
	}()
	t.Cleanup(func() {
		r.server.Stop()
		<-done
	})
	return r
}

func exporter(t testing.TB, cfg Config) *Exporter {
	t.Helper()
	e, err := New(t.Context(), cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Shutdown(context.Background()) })
	return e
}

func batchOf(n int) []*span.Span {
	var batch []*span.Span
	for i := range n {
		batch = append(batch, httpSpan([]*span.Target{gateway, orders}[i%2], i))
	}
	return batch
}

func TestReceiverGetsThePlainMessage(t *testing.T) {
	r := receive(t, "")
	socket := receive(t, filepath.Join(t.TempDir(), "s"))
	for _, tc := range []struct {
		name string
		r    *receiver
		cfg  Config
		env  map[string]string
	}{
		{"by configuration", r, Config{Endpoint: "http://" + r.addr}, nil},
		{"with a path", r, Config{Endpoint: "http://" + r.addr + "/v1/traces"}, nil},
		{"without a scheme", r, Config{Endpoint: r.addr}, map[string]string{"OTEL_EXPORTER_OTLP_INSECURE": "true"}},
		{"by a Unix socket", socket, Config{Endpoint: "unix://" + socket.addr}, nil},
		{"by the environment", r, Config{}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + r.addr}},
		{"by the environment, for traces", r, Config{}, map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://" + r.addr}},
		{"configuration wins", r, Config{Endpoint: "http://" + r.addr}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1"}},
		{"with gzip", r, Config{Endpoint: "http://" + r.addr, Compression: "gzip"}, nil},
		{"with gzip by the environment", r, Config{Endpoint: "http://" + r.addr}, map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}},
		{"with a header", r, Config{Endpoint: "http://" + r.addr}, map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret%20one"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, value := range tc.env {
				t.Setenv(name, value)
			}
			e, batch := exporter(t, tc.cfg), batchOf(50)
			for range 3 {
				if err := e.Export(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
			}
			tc.r.mu.Lock()
			defer tc.r.mu.Unlock()
			got, want := tc.r.requests[len(tc.r.requests)-1], plainRequest(batch)
			if !proto.Equal(want, got) {
				t.Errorf("-want +got:\n%s", cmp.Diff(want, got, protocmp.Transform()))
			}
			if compressed := tc.r.wire < proto.Size(got)/2; compressed != strings.Contains(tc.name, "gzip") {
				t.Errorf("%d bytes on the wire for a message of %d", tc.r.wire, proto.Size(got))
			}
			if agent := tc.r.headers.Get("user-agent"); len(agent) != 1 || !strings.HasPrefix(agent[0], "breadcrumb/") {
				t.Errorf("user agent %q", agent)
			}
			if want, got := tc.env["OTEL_EXPORTER_OTLP_HEADERS"], tc.r.headers.Get("api-key"); want != "" && !cmp.Equal([]string{"secret one"}, got) {
				t.Errorf("header %q", got)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	throttled, err := status.New(codes.ResourceExhausted, "slow down").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	partial := func(n int64, msg string) *coltracepb.ExportTraceServiceResponse {
		return &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: n, ErrorMessage: msg}}
	}
	for _, tc := range []struct {
		name   string
		answer *coltracepb.ExportTraceServiceResponse
		err    error
		want   *export.Error // nil: no error
	}{
		{"taken", new(coltracepb.ExportTraceServiceResponse), nil, nil},
		{"taken, with empty details", partial(0, ""), nil, nil},
		{"some refused", partial(3, "too old"), nil, &export.Error{Done: 10, Refused: 3}},
		{"some refused without a reason", partial(3, ""), nil, &export.Error{Done: 10, Refused: 3}},
		{"a remark", partial(0, "use gzip"), nil, &export.Error{Done: 10}},
		{"more refused than sent", partial(99, ""), nil, &export.Error{Done: 10, Refused: 10}},
		{"away", nil, status.Error(codes.Unavailable, "no"), &export.Error{Retry: true}},
		{"throttled", nil, throttled.Err(), &export.Error{Retry: true, After: time.Minute}},
		{"exhausted", nil, status.Error(codes.ResourceExhausted, "no"), &export.Error{}},
		{"not allowed", nil, status.Error(codes.PermissionDenied, "no"), &export.Error{}},
		{"malformed", nil, status.Error(codes.InvalidArgument, "no"), &export.Error{}},
		{"not a receiver", nil, status.Error(codes.Unimplemented, "no"), &export.Error{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := receive(t, "")
			r.will(func(*coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
				return tc.answer, tc.err
			})
			err := exporter(t, Config{Endpoint: "http://" + r.addr}).Export(t.Context(), batchOf(10))
			if tc.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var got *export.Error
			if !errors.As(err, &got) {
				t.Fatalf("error %v, want %+v", err, tc.want)
			}
			if got.Err == nil {
				t.Error("no reason")
			}
			if got.Done != tc.want.Done || got.Refused != tc.want.Refused || got.Retry != tc.want.Retry || got.After != tc.want.After {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestLargeBatchThatFailsHalfWay(t *testing.T) {
	r := receive(t, "")
	batch := batchOf(100)
	for _, s := range batch {
		s.Message = strings.Repeat("x", 100_000)
	}
	calls := 0
	r.will(func(request *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
		if calls++; calls == 3 {
			return nil, status.Error(codes.Unavailable, "no")
		}
		return &coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: 2}}, nil
	})
	err := exporter(t, Config{Endpoint: "http://" + r.addr}).Export(t.Context(), batch)
	var got *export.Error
	if !errors.As(err, &got) || got.Done != 64 || got.Refused != 4 || !got.Retry {
		t.Errorf("%+v, want 64 done, 4 of them refused, and the rest to be sent again", got)
	}
}

func TestDeadlineIsARetry(t *testing.T) {
	r, hold := receive(t, ""), make(chan struct{})
	defer close(hold)
	r.will(func(*coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
		<-hold
		return nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-r.called
		cancel()
	}()
	err := exporter(t, Config{Endpoint: "http://" + r.addr}).Export(ctx, batchOf(1))
	var got *export.Error
	if !errors.As(err, &got) || !got.Retry || got.Done != 0 {
		t.Errorf("%v, want a retry", err)
	}
}

// TestQueueOutlivesTheEndpoint has a queue send to an endpoint that answers, is busy, is gone and is back.
func TestQueueOutlivesTheEndpoint(t *testing.T) {
	r := receive(t, "")
	e, err := New(t.Context(), Config{Endpoint: "http://" + r.addr}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	account := new(ledger.Account)
	target := &span.Target{Account: account}
	q, err := export.New(export.Default(), e, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	add := func(n int) {
		for i := range n {
			q.Add([]*span.Span{httpSpan(target, i)})
		}
	}
	exported := func(want uint64) {
		t.Helper()
		if err := q.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := account.Counts()[ledger.Exported]; n != want {
			t.Errorf("%d exported, want %d", n, want)
		}
	}
	add(100)
	exported(100)
	if n := r.spans(); n != 100 {
		t.Errorf("%d spans received, want 100", n)
	}
	for len(r.called) > 0 {
		<-r.called
	}

	r.will(func(*coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
		return nil, status.Error(codes.Unavailable, "busy")
	})
	add(50)
	<-r.called
	r.will(nil)
	exported(150)

	r.server.Stop()
	add(60)
	back := receive(t, r.addr)
	exported(210)
	if n := back.spans(); n != 60 {
		t.Errorf("%d spans received after the endpoint was back, want 60", n)
	}
	if err := q.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if lost := account.Counts().Lost(); lost != 0 {
		t.Errorf("%d lost", lost)
	}
}

func TestWrongConfiguration(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		env  map[string]string
		want []string // in the message
	}{
		{"protocol", Config{}, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
			[]string{"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc", "4317"}},
		{"protocol for traces", Config{}, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
			[]string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"}},
		{"endpoint that is no URL", Config{}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "10.0.0.1:4317"},
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=10.0.0.1:4317", "http://10.0.0.1:4317"}},
		{"certificate", Config{}, map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": "/does/not/exist"},
			[]string{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist"}},
		{"scheme", Config{Endpoint: "ftp://a:1"}, nil, []string{"ftp://a:1"}},
		{"host", Config{Endpoint: "http://:4317"}, nil, []string{"want http://host:port"}},
		{"compression", Config{Compression: "zstd"}, nil, []string{"zstd", "gzip or none"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, value := range tc.env {
				t.Setenv(name, value)
			}
			_, err := New(t.Context(), tc.cfg, zap.NewNop())
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestEndpointsThatAreUnderstood(t *testing.T) {
	for _, endpoint := range []string{"http://a:1", "https://a:1", "HTTP://a", "https://a/v1/traces", "a:1", "a", "[::1]:4317",
		"http://[::1]", "unix:///run/otel.sock", "unix:/run/otel.sock"} {
		if err := (Config{Endpoint: endpoint}).Validate(); err != nil {
			t.Error(err)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestEnvironmentOverConfigurationFile(t *testing.T) {
	env := map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:1"}
	getenv := func(name string) string { return env[name] }
	c := Config{Endpoint: "http://a:1", Compression: "gzip"}
	c.FromEnv(getenv)
	if want := (Config{Compression: "gzip"}); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	none := func(string) string { return "" }
	if !c.Configured(getenv) || c.Configured(none) || !(Config{Endpoint: "a:1"}).Configured(none) {
		t.Error("Configured is wrong")
	}
}

func TestHints(t *testing.T) {
	r := receive(t, "")
	err := exporter(t, Config{Endpoint: "https://" + r.addr}).Export(t.Context(), batchOf(1))
	if err == nil || !strings.Contains(err.Error(), "write it as http://host:port") {
		t.Errorf("TLS to a plaintext endpoint: %v", err)
	}
}

// ignore is a codec by which a receiver does not look at what it gets.
type ignore struct{}

func (ignore) Marshal(any) ([]byte, error) { return nil, nil }
func (ignore) Unmarshal([]byte, any) error { return nil }
func (ignore) Name() string                { return "ignore" }

// BenchmarkExport is the whole way, to a receiver in this process that only reads from the socket.
func BenchmarkExport(b *testing.B) {
	for _, compression := range []string{"none", "gzip"} {
		b.Run(compression, func(b *testing.B) {
			r := receive(b, "", grpc.ForceServerCodec(ignore{}))
			r.will(func(*coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
				r.requests = r.requests[:0]
				return new(coltracepb.ExportTraceServiceResponse), nil
			})
			e, batch := exporter(b, Config{Endpoint: "http://" + r.addr, Compression: compression}), batchOf(2048)
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Export(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/span")
			b.ReportMetric(float64(r.wire)/float64(len(batch)), "B/span")
		})
	}
}
