// SPDX-License-Identifier: Apache-2.0

// Drive sends checkouts to the shop at a gentle rate, each with a number of its own, and says how they
// went, and on standard output how many spans that makes. It ends after a time, or when it is interrupted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/shop"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "the gateway")
	rate := flag.Float64("rate", 3, "requests per second")
	last := flag.Duration("for", 15*time.Second, "how long")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *last)
	defer cancel()

	var group sync.WaitGroup
	var ok, notFound, failed atomic.Int64
	conns := make(chan *drive.Conn, 16)
	tick := time.NewTicker(time.Duration(float64(time.Second) / *rate))
	defer tick.Stop()
	n := 0
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			continue
		}
		n++
		group.Go(func() {
			switch checkout(*addr, conns, n) {
			case 200:
				ok.Add(1)
			case 404:
				notFound.Add(1)
			default:
				failed.Add(1)
			}
		})
	}
	group.Wait()
	spans := 0
	for i := range n {
		spans += shop.Spans(i+1, true)
	}
	fmt.Fprintf(os.Stderr, "%d checkouts: %d paid, %d of unknown articles, %d failed\n",
		n, ok.Load(), notFound.Load(), failed.Load())
	fmt.Println(spans)
}

// checkout makes one request on a kept connection and returns the status of its answer.
func checkout(addr string, conns chan *drive.Conn, n int) int {
	var conn *drive.Conn
	select {
	case conn = <-conns:
	default:
		var err error
		if conn, err = drive.Dial("tcp", addr); err != nil {
			return 0
		}
	}
	x := conn.Do(drive.Request{Target: shop.Path(n)})
	if x.Err != nil || conn.Closed {
		conn.Close()
		return x.Status
	}
	select {
	case conns <- conn:
	default:
		conn.Close()
	}
	return x.Status
}
