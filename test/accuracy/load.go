// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// What all scenarios call, and what calls them, are part of the test and not traced.

// slowest is how long an answer takes at most.
const slowest = 5 * time.Millisecond

// startBackends starts what all scenarios call, and returns the environment that says where: it answers after a while, over HTTP/1,
// HTTP/2 and gRPC.
func startBackends(t *testing.T) []string {
	t.Helper()
	wait := func() { time.Sleep(time.Duration(rand.Int64N(int64(slowest)))) }
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		wait()
		fmt.Fprintln(w, "answer")
	}))
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetHTTP1(true)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	t.Cleanup(web.Close)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
			return err
		}
		wait()
		return stream.SendMsg(new(emptypb.Empty))
	}))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return []string{"BACKEND=" + web.URL, "GRPC_BACKEND=" + listener.Addr().String()}
}

// apply makes n requests of a server, some at once, for the paths that it is told, each of which must be answered.
func apply(t *testing.T, s *servers.Server, n, concurrency int, path func(i int) string) {
	t.Helper()
	switch s.Speaks {
	case servers.OverGRPC:
		conns := make([]*grpc.ClientConn, min(concurrency, 4))
		for i := range conns {
			conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns[i] = conn
		}
		atOnce(t, n, concurrency, func(i int) error {
			return conns[i%len(conns)].Invoke(context.Background(), path(i), new(emptypb.Empty), new(emptypb.Empty))
		})
	case servers.OverHTTP2:
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		defer transport.CloseIdleConnections()
		client := http.Client{Transport: transport}
		atOnce(t, n, concurrency, func(i int) error {
			res, err := client.Get("http://" + s.Addr + path(i))
			if err != nil {
				return err
			}
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body)
			if err == nil && res.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", res.StatusCode)
			}
			return err
		})
	default:
		plan := drive.Plan{Network: s.Network, Addr: s.Addr, Connections: concurrency, Requests: n}
		plan.Request = func(i int) drive.Request { return drive.Request{Target: path(i)} }
		if _, err := plan.Run(); err != nil {
			t.Fatal(err)
		}
	}
}

// atOnce does n things, some at once.
func atOnce(t *testing.T, n, concurrency int, do func(i int) error) {
	t.Helper()
	var (
		next  atomic.Int64
		group sync.WaitGroup
	)
	errs := make(chan error, concurrency)
	for range concurrency {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
}
