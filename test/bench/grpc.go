// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// grpcConns is how many connections the calls of a gRPC client share.
const grpcConns = 4

// startGRPC starts the echo server, which counts what it has served at another address.
func (b *bench) startGRPC(cpus []int) (*server, error) {
	counter, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s, err := b.startServer(cpus, nil, b.echo, counter)
	if err == nil {
		s.counter = counter
		s.saturate = func(cpus []int, d time.Duration) (loadResult, error) { return b.saturateGRPC(s, cpus, d) }
	}
	return s, err
}

// saturateGRPC makes unary calls, as many as it can.
func (b *bench) saturateGRPC(s *server, cpus []int, d time.Duration) (loadResult, error) {
	var out bytes.Buffer
	var res loadResult
	p, err := b.start(launch{cpus: cpus, stdout: &out}, b.self, "helper-grpc", "-addr", s.addr, "-calls", strconv.Itoa(saturationConns), "-duration", d.String())
	if err != nil {
		return res, err
	}
	if err := p.wait(b.ctx, d+patience); err != nil {
		return res, err
	}
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		return res, fmt.Errorf("read what the load generator reports: %w: %q", err, out.Bytes())
	}
	res.CPU = p.usedCPU()
	return res, nil
}

// grpcMain is the load generator for gRPC: an ordinary client.
func grpcMain(args []string) error {
	flags := flag.NewFlagSet("grpc", flag.ContinueOnError)
	addr := flags.String("addr", "", "")
	calls := flags.Int("calls", 1, "")
	duration := flags.Duration("duration", time.Second, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var clients [grpcConns]testpb.BenchmarkServiceClient
	for i := range clients {
		conn, err := grpc.NewClient(*addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		clients[i] = testpb.NewBenchmarkServiceClient(conn)
	}
	var (
		done   atomic.Int64
		failed atomic.Pointer[error]
		group  sync.WaitGroup
	)
	start := time.Now()
	for i := range *calls {
		group.Go(func() {
			client := clients[i%len(clients)]
			req := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte("hello")}}
			for time.Since(start) < *duration && failed.Load() == nil {
				if _, err := client.UnaryCall(context.Background(), req); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	res := loadResult{Tool: "grpc-go", Requests: done.Load(), Seconds: time.Since(start).Seconds()}
	res.PerSecond = float64(res.Requests) / res.Seconds
	if err := failed.Load(); err != nil {
		res.Errors, res.Error = 1, (*err).Error()
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}
