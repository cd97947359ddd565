// SPDX-License-Identifier: Apache-2.0

// Grpcecho is an ordinary grpc-go server of grpc.testing.BenchmarkService, which answers with what it is asked for. It knows nothing
// of tracing, but counts what it has served, and says so at another address over HTTP/1.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

var served atomic.Int64

type echo struct {
	testpb.UnimplementedBenchmarkServiceServer
}

func (echo) UnaryCall(_ context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	served.Add(1)
	return &testpb.SimpleResponse{Payload: req.GetPayload()}, nil
}

func main() {
	counter, addr := os.Args[1], os.Args[2]
	http.HandleFunc("/served", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, served.Load()) })
	go func() { log.Fatal(http.ListenAndServe(counter, nil)) }()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	testpb.RegisterBenchmarkServiceServer(server, echo{})
	log.Fatal(server.Serve(listener))
}
