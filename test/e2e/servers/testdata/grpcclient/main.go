// SPDX-License-Identifier: Apache-2.0

// Grpcclient calls grpc.testing.TestService with grpc-go and prints a line of JSON for each call: what it knows of it. It
// knows nothing of tracing.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	messages   = 3                      // of each stream, in each direction that streams
	deadline   = 200 * time.Millisecond // long enough for the request to be on its way
	slow       = 10 * time.Second       // what the server waits when the caller will not
	large      = 10 << 20
	maxMessage = 64 << 20
)

// mixed is what -kind mixed stands for: all whose course does not depend on time.
const mixed = "unary,empty,server-stream,client-stream,bidi,error,late-error,health"

// codes are those of -kind error, in turn.
var codes = []code.Code{
	code.Code_NOT_FOUND, code.Code_INTERNAL, code.Code_UNAUTHENTICATED, code.Code_CANCELLED, code.Code_UNKNOWN,
	code.Code_INVALID_ARGUMENT, code.Code_DEADLINE_EXCEEDED, code.Code_ALREADY_EXISTS, code.Code_PERMISSION_DENIED,
	code.Code_RESOURCE_EXHAUSTED, code.Code_FAILED_PRECONDITION, code.Code_ABORTED, code.Code_OUT_OF_RANGE,
	code.Code_UNIMPLEMENTED, code.Code_UNAVAILABLE, code.Code_DATA_LOSS,
}

type result struct {
	Method string
	Code   string
	Before int64
	After  int64
	Error  string `json:",omitempty"` // the message of the status
}

// client makes calls on one connection.
type client struct {
	conn *grpc.ClientConn
	test testpb.TestServiceClient
	size int
}

// call makes one call of a kind; n says how many were made before.
type call func(c *client, ctx context.Context, n int) error

var kinds = map[string]struct {
	method string
	call   call
}{
	"unary":         {testpb.TestService_UnaryCall_FullMethodName, unary},
	"large":         {testpb.TestService_UnaryCall_FullMethodName, largeUnary},
	"error":         {testpb.TestService_UnaryCall_FullMethodName, failing},
	"empty":         {testpb.TestService_EmptyCall_FullMethodName, empty},
	"server-stream": {testpb.TestService_StreamingOutputCall_FullMethodName, serverStream},
	"deadline":      {testpb.TestService_StreamingOutputCall_FullMethodName, late},
	"client-stream": {testpb.TestService_StreamingInputCall_FullMethodName, clientStream},
	"bidi":          {testpb.TestService_FullDuplexCall_FullMethodName, bidi},
	"cancel":        {testpb.TestService_FullDuplexCall_FullMethodName, cancelled},
	"late-error":    {testpb.TestService_FullDuplexCall_FullMethodName, lateError},
	"health":        {grpc_health_v1.Health_Check_FullMethodName, healthCheck},
}

func main() {
	addr := flag.String("addr", "", "host:port of the server")
	count := flag.Int("n", 1, "how many calls")
	conns := flag.Int("conns", 1, "how many connections")
	streams := flag.Int("streams", 1, "how many calls at once on each connection")
	kind := flag.String("kind", "unary", "what calls, in turn if there is more than one, with commas between: mixed, "+mixed+",deadline,cancel,large")
	size := flag.Int("size", 100, "bytes in each payload")
	wait := flag.Bool("wait", false, "open the connections, make a call on each of them that has no line, print \"ready\" and wait for a line on stdin")
	flag.Parse()

	turns := strings.Split(strings.ReplaceAll(*kind, "mixed", mixed), ",")
	for _, k := range turns {
		if kinds[k].call == nil {
			log.Fatalf("no kind of call is called %s", k)
		}
	}
	var clients []*client
	for range *conns {
		c, err := connect(*addr, *size)
		if err != nil {
			log.Fatal(err)
		}
		defer c.conn.Close() // else the end of the last call may not be sent
		clients = append(clients, c)
	}
	if *wait {
		for _, c := range clients {
			if err := unary(c, context.Background(), 0); err != nil {
				log.Fatal(err)
			}
		}
		fmt.Println("ready")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			log.Fatal(err)
		}
	}

	numbers := make(chan int)
	results := make(chan result, 100)
	var group sync.WaitGroup
	for _, c := range clients {
		for range *streams {
			group.Go(func() {
				for i := range numbers {
					results <- c.one(turns[i%len(turns)], i/len(turns))
				}
			})
		}
	}
	go func() {
		for i := range *count {
			numbers <- i
		}
		close(numbers)
		group.Wait()
		close(results)
	}()
	out := json.NewEncoder(os.Stdout)
	for r := range results {
		out.Encode(r)
	}
}

func connect(addr string, size int) (*client, error) {
	conn, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	conn.Connect()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			return nil, fmt.Errorf("connect to %s: %w", addr, ctx.Err())
		}
	}
	return &client{conn: conn, test: testpb.NewTestServiceClient(conn), size: size}, nil
}

// one makes a call and says how it went.
func (c *client) one(kind string, n int) result {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := result{Method: strings.TrimPrefix(kinds[kind].method, "/"), Before: time.Now().UnixNano()}
	err := kinds[kind].call(c, ctx, n)
	r.After = time.Now().UnixNano()
	r.Code = code.Code(status.Code(err)).String()
	r.Error = status.Convert(err).Message()
	return r
}

// The servers that do not read protobuf are told by metadata which status to answer and how long to wait.

func wantCode(ctx context.Context, c code.Code) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "want-code", strconv.Itoa(int(c)))
}

func wantWait(ctx context.Context, wait time.Duration) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "want-ms", strconv.FormatInt(wait.Milliseconds(), 10))
}

// asked is a status with a message that needs escapes in a header.
func asked(c code.Code) *testpb.EchoStatus {
	return &testpb.EchoStatus{Code: int32(c), Message: "as asked – 100%"}
}

func payload(size int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, size)} }

func unary(c *client, ctx context.Context, _ int) error {
	_, err := c.test.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: int32(c.size), Payload: payload(c.size)})
	return err
}

func largeUnary(c *client, ctx context.Context, _ int) error {
	_, err := c.test.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: large, Payload: payload(large)})
	return err
}

func failing(c *client, ctx context.Context, n int) error {
	want := codes[n%len(codes)]
	_, err := c.test.UnaryCall(wantCode(ctx, want), &testpb.SimpleRequest{Payload: payload(c.size), ResponseStatus: asked(want)})
	return err
}

func empty(c *client, ctx context.Context, _ int) error {
	_, err := c.test.EmptyCall(ctx, new(testpb.Empty))
	return err
}

func healthCheck(c *client, ctx context.Context, _ int) error {
	_, err := grpc_health_v1.NewHealthClient(c.conn).Check(ctx, new(grpc_health_v1.HealthCheckRequest))
	return err
}

// output asks for a stream of answers, with a wait before each.
func (c *client) output(ctx context.Context, wait time.Duration) (grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse], error) {
	req := &testpb.StreamingOutputCallRequest{Payload: payload(c.size)}
	for range messages {
		req.ResponseParameters = append(req.ResponseParameters,
			&testpb.ResponseParameters{Size: int32(c.size), IntervalUs: int32(wait.Microseconds())})
	}
	if wait > 0 {
		ctx = wantWait(ctx, wait)
	}
	return c.test.StreamingOutputCall(ctx, req)
}

func serverStream(c *client, ctx context.Context, _ int) error {
	stream, err := c.output(ctx, 0)
	if err != nil {
		return err
	}
	return drain(stream)
}

func drain(stream grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse]) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func late(c *client, ctx context.Context, _ int) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	stream, err := c.output(ctx, slow)
	if err != nil {
		return err
	}
	return drain(stream)
}

func clientStream(c *client, ctx context.Context, _ int) error {
	stream, err := c.test.StreamingInputCall(ctx)
	if err != nil {
		return err
	}
	for range messages {
		if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: payload(c.size)}); errors.Is(err, io.EOF) {
			break // CloseAndRecv has the reason
		} else if err != nil {
			return err
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// bidi waits for the answer to each message before it sends the next.
func bidi(c *client, ctx context.Context, _ int) error {
	stream, err := c.test.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range messages {
		if err := c.exchange(stream, nil); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return drain(stream)
}

// lateError is answered with an error after an answer, when more requests could follow.
func lateError(c *client, ctx context.Context, n int) error {
	want := codes[n%len(codes)]
	stream, err := c.test.FullDuplexCall(wantCode(ctx, want))
	if err != nil {
		return err
	}
	if err := c.exchange(stream, asked(want)); err != nil {
		return err
	}
	return drain(stream)
}

// cancelled gives up after the first answer, with the stream open in both directions.
func cancelled(c *client, ctx context.Context, _ int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.test.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := c.exchange(stream, nil); err != nil {
		return err
	}
	cancel()
	return drain(stream)
}

// exchange sends a message and waits for its answer. After that the server ends the call with the status, if one is given.
func (c *client) exchange(stream grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse], status *testpb.EchoStatus) error {
	err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(c.size), ResponseStatus: status,
		ResponseParameters: []*testpb.ResponseParameters{{Size: int32(c.size)}}})
	if err != nil && !errors.Is(err, io.EOF) { // else Recv has the reason
		return err
	}
	_, err = stream.Recv()
	return err
}
