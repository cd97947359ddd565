// SPDX-License-Identifier: Apache-2.0

// Grpcapp is an ordinary grpc-go server that makes calls for each request, in ways that programs do: it knows nothing of tracing.
// It answers any method. /SHAPE/ID makes the gRPC calls /call/ID/0 and /call/ID/1 on shared connections to GRPC_BACKEND, and
// GET BACKEND/call/ID/2.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

var (
	backend  = os.Getenv("BACKEND")
	backends [2]*grpc.ClientConn
)

func main() {
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 128
	for i := range backends {
		conn, err := grpc.NewClient(os.Getenv("GRPC_BACKEND"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Fatal(err)
		}
		backends[i] = conn
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	options := []grpc.ServerOption{grpc.UnknownServiceHandler(serve)}
	if os.Getenv("WORKERS") != "" {
		options = append(options, grpc.NumStreamWorkers(8))
	}
	log.Fatal(grpc.NewServer(options...).Serve(listener))
}

// call makes the call of a number, after a while.
func call(ctx context.Context, id string, n int) error {
	time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
	if n < len(backends) {
		return backends[n].Invoke(ctx, fmt.Sprintf("/call/%s/%d", id, n), new(emptypb.Empty), new(emptypb.Empty))
	}
	res, err := http.Get(fmt.Sprintf("%s/call/%s/%d", backend, id, n))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func serve(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
		return err
	}
	method, _ := grpc.Method(stream.Context())
	shape, id, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	ctx := stream.Context()
	switch shape {
	case "sequence":
		for n := range 3 {
			if err := call(ctx, id, n); err != nil {
				return err
			}
		}
	case "errgroup":
		var group errgroup.Group
		for n := range 3 {
			group.Go(func() error { return call(ctx, id, n) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	default:
		return status.Errorf(codes.Unimplemented, "no shape %s", shape)
	}
	return stream.SendMsg(new(emptypb.Empty))
}
