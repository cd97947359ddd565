// SPDX-License-Identifier: Apache-2.0

// Grpcserver is an ordinary grpc-go server of grpc.testing.TestService, without TLS. It knows nothing of tracing.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// maxMessage is more than what clients call large.
const maxMessage = 64 << 20

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port")
	flag.Parse()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	testpb.RegisterTestServiceServer(server, testService{})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	log.Fatal(server.Serve(listener))
}

type testService struct {
	testpb.UnimplementedTestServiceServer
}

func (testService) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return new(testpb.Empty), nil
}

func (testService) UnaryCall(_ context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if err := asked(req.GetResponseStatus()); err != nil {
		return nil, err
	}
	body, err := payload(req.GetResponseSize())
	return &testpb.SimpleResponse{Payload: body}, err
}

func (testService) StreamingOutputCall(req *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	if err := answer(req, stream); err != nil {
		return err
	}
	return asked(req.GetResponseStatus())
}

func (testService) StreamingInputCall(stream grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	var size int
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)})
		}
		if err != nil {
			return err
		}
		size += len(req.GetPayload().GetBody())
	}
}

func (testService) FullDuplexCall(stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(req, stream); err != nil {
			return err
		}
		if err := asked(req.GetResponseStatus()); err != nil {
			return err
		}
	}
}

// answer sends what a request asks for, until its caller has given up.
func answer(req *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for _, p := range req.GetResponseParameters() {
		if wait := time.Duration(p.GetIntervalUs()) * time.Microsecond; wait > 0 {
			select {
			case <-time.After(wait):
			case <-stream.Context().Done():
				return status.FromContextError(stream.Context().Err()).Err()
			}
		}
		body, err := payload(p.GetSize())
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: body}); err != nil {
			return err
		}
	}
	return nil
}

// asked is the error that a request asks for.
func asked(s *testpb.EchoStatus) error {
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}

func payload(size int32) (*testpb.Payload, error) {
	if size < 0 || size > maxMessage {
		return nil, status.Errorf(codes.InvalidArgument, "a payload of %d bytes", size)
	}
	return &testpb.Payload{Body: make([]byte, size)}, nil
}
