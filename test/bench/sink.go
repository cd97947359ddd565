// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// sink is an OTLP endpoint that counts spans and throws them away. It is a process of its own, so that
// its CPU time is known, and it decodes nothing, so that it takes little.
type sink struct {
	p     *process
	addr  string
	asks  io.Writer
	tells *bufio.Reader
}

func (b *bench) startSink(cpus []int) (*sink, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start sink: %w", err)
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start sink: %w", err)
	}
	p, err := b.start(launch{cpus: cpus, stdin: inRead, stdout: outWrite}, b.self, "helper-sink", addr)
	_, _ = inRead.Close(), outWrite.Close()
	if err != nil {
		return nil, err
	}
	s := &sink{p: p, addr: addr, asks: inWrite, tells: bufio.NewReader(outRead)}
	return s, p.until(b.ctx, "listened", func() bool { return listening(addr) })
}

func (s *sink) endpoint() string { return "http://" + s.addr }

// spans is how many were received.
func (s *sink) spans() (int64, error) {
	if _, err := fmt.Fprintln(s.asks); err != nil {
		return 0, fmt.Errorf("ask the sink: %w", err)
	}
	line, err := s.tells.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("ask the sink: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
}

func sinkMain(args []string) error {
	debug.SetGCPercent(800)
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	var total atomic.Int64
	server := grpc.NewServer(grpc.ForceServerCodecV2(countingCodec{}), grpc.MaxRecvMsgSize(64<<20),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(16<<20), grpc.ReadBufferSize(256<<10))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.trace.v1.TraceService",
		Methods: []grpc.MethodDesc{{MethodName: "Export",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var spans int64
				if err := decode(&spans); err != nil {
					return nil, err
				}
				total.Add(spans)
				return nil, nil // which is encoded as the empty message: all was taken
			}}},
	}, nil)
	go func() {
		// A line asks for the count; the end of them ends the sink.
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			fmt.Println(total.Load())
		}
		server.Stop()
	}()
	return server.Serve(l)
}

// countingCodec decodes an ExportTraceServiceRequest into the number of its spans.
type countingCodec struct{}

var _ encoding.CodecV2 = countingCodec{}

func (countingCodec) Name() string { return "proto" }

func (countingCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

func (countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	n, err := countFields(buf.ReadOnlyData(), spanPath)
	*v.(*int64) = n
	return err
}

// spanPath leads to the spans of a request: resource_spans = 1, scope_spans = 2, spans = 2 of
// https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/trace/v1/trace.proto
var spanPath = []protowire.Number{1, 2, 2}

var errWire = errors.New("not a protobuf message")

// countFields counts the fields at a path through nested messages.
func countFields(message []byte, path []protowire.Number) (int64, error) {
	var count int64
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return count, errWire
		}
		message = message[n:]
		if num != path[0] || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
				return count, errWire
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return count, errWire
		}
		message = message[n:]
		if len(path) == 1 {
			count++
			continue
		}
		inner, err := countFields(value, path[1:])
		count += inner
		if err != nil {
			return count, err
		}
	}
	return count, nil
}
