// SPDX-License-Identifier: Apache-2.0

// Package otlp sends spans to an OpenTelemetry collector over gRPC. It writes the bytes of a request
// itself, which costs a tenth of building messages, and leaves connection, TLS, headers and the standard
// variables to otlptracegrpc. Retrying is the queue's business.
// https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
package otlp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"breadcrumb/export"
	"breadcrumb/internal/span"
	"breadcrumb/internal/version"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// reconnect bounds gRPC's own pause between attempts to connect, by default two minutes, so that an
// endpoint that is back is noticed by the queue's next attempt or the one after.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// Exporter is an export.Exporter for OTLP over gRPC.
type Exporter struct {
	client   otlptrace.Client
	requests requests
	answer   *coltracepb.ExportTraceServiceResponse // of the last call; nil if that failed
}

// New makes an exporter; it connects when the first spans are sent. What Config and the standard variables
// say wrongly is an error here.
func New(ctx context.Context, cfg Config, log *zap.Logger) (*Exporter, error) {
	if err := errors.Join(cfg.Validate(), cfg.checkEnv(os.Getenv)); err != nil {
		return nil, err
	}
	e := new(Exporter)
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false}),
		otlptracegrpc.WithDialOption(
			grpc.WithConnectParams(reconnect),
			grpc.WithUserAgent("breadcrumb/"+version.Version),
			grpc.WithChainUnaryInterceptor(e.keepAnswer),
		),
	}
	if cfg.Endpoint != "" {
		endpoint, err := cfg.options()
		if err != nil {
			return nil, err
		}
		opts = append(opts, endpoint...)
	}
	// Any name but gzip means none to otlptracegrpc, with a complaint to the global error handler.
	if name, v := lookup(os.Getenv, "COMPRESSION"); cfg.Compression == "" && v != "" && v != "gzip" && v != "none" {
		log.Warn("unknown compression, spans are sent uncompressed", zap.String(name, v))
	}
	if cfg.Compression == "gzip" {
		opts = append(opts, otlptracegrpc.WithCompressor("gzip"))
	}
	e.client = otlptracegrpc.NewClient(opts...)
	if err := e.client.Start(ctx); err != nil {
		return nil, fmt.Errorf("start the otlp client: %w", err)
	}
	return e, nil
}

// keepAnswer keeps the answer of a call: the client wraps what it says in an internal error type.
func (e *Exporter) keepAnswer(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	e.answer = nil
	err := invoke(ctx, method, req, reply, conn, opts...)
	if err == nil {
		e.answer, _ = reply.(*coltracepb.ExportTraceServiceResponse)
	}
	return err
}

// Export sends a batch, in several requests if it is large.
func (e *Exporter) Export(ctx context.Context, batch []*span.Span) error {
	var result export.Error
	for result.Done < len(batch) {
		request, n := e.requests.fill(batch[result.Done:])
		e.answer = nil
		err := e.client.UploadTraces(ctx, request)
		if err != nil && e.answer == nil {
			result.Retry, result.After = retryable(err)
			result.Err = explain(err)
			return &result
		}
		result.Done += n
		partial := e.answer.GetPartialSuccess()
		result.Refused += int(min(max(partial.GetRejectedSpans(), 0), int64(n)))
		if msg := partial.GetErrorMessage(); msg != "" {
			result.Err = fmt.Errorf("the endpoint says %q", msg)
		}
	}
	if result.Refused > 0 && result.Err == nil {
		result.Err = errors.New("the endpoint gives no reason")
	}
	if result.Err != nil {
		return &result
	}
	return nil
}

// Shutdown closes the connection.
func (e *Exporter) Shutdown(ctx context.Context) error { return e.client.Stop(ctx) }

// retryable is the rule of the protocol.
// https://opentelemetry.io/docs/specs/otlp/#failures
func retryable(err error) (bool, time.Duration) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true, 0
	}
	s := status.Convert(err)
	var after time.Duration
	told := false
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			told, after = true, info.GetRetryDelay().AsDuration()
		}
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return true, after
	case codes.ResourceExhausted:
		return told, after
	}
	return false, 0
}

// explain adds to an error what its text does not tell a person.
func explain(err error) error {
	text := err.Error()
	hint := ""
	switch {
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		hint = "the endpoint speaks plaintext: write it as http://host:port"
	case strings.Contains(text, "error reading server preface"):
		hint = "the endpoint may speak TLS only (https://host:port), or not gRPC; OTLP over gRPC is usually at port 4317"
	case status.Code(err) == codes.Unimplemented:
		hint = "this is not the endpoint of an OTLP trace receiver; OTLP over gRPC is usually at port 4317"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}
