// SPDX-License-Identifier: Apache-2.0

// Goapp is an ordinary net/http server that makes calls for each request, in ways that programs do: it knows nothing of
// tracing. GET /SHAPE/ID makes the calls GET BACKEND/call/ID/N, or BACKEND/NEXT/ID/N.
package main

import (
	"cmp"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	backend = os.Getenv("BACKEND")
	next    = cmp.Or(os.Getenv("NEXT"), "call")
)

func call(id string, n int) {
	time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
	res, err := http.Get(fmt.Sprintf("%s/%s/%s/%d", backend, next, id, n))
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
}

type job struct {
	id   string
	n    int
	done chan struct{}
}

var jobs = make(chan job, 1000)

func main() {
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 128
	for range 16 {
		go func() {
			for j := range jobs {
				call(j.id, j.n)
				close(j.done)
			}
		}()
	}
	server := http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: http.HandlerFunc(serve)}
	if os.Getenv("H2C") != "" {
		server.Protocols = new(http.Protocols)
		server.Protocols.SetUnencryptedHTTP2(true)
		http.DefaultTransport.(*http.Transport).Protocols = server.Protocols
	}
	log.Fatal(server.ListenAndServe())
}

func serve(w http.ResponseWriter, r *http.Request) {
	shape, id, _ := strings.Cut(r.URL.Path[1:], "/")
	switch shape {
	case "handler", "chain":
		call(id, 0)
		call(id, 1)
	case "goroutines":
		var group sync.WaitGroup
		for n := range 2 {
			group.Go(func() { call(id, n) })
		}
		group.Wait()
	case "errgroup":
		var group errgroup.Group
		for n := range 3 {
			group.Go(func() error {
				call(id, n)
				return nil
			})
		}
		_ = group.Wait()
	case "pool":
		for n := range 2 {
			j := job{id, n, make(chan struct{})}
			jobs <- j
			<-j.done
		}
	default:
		http.NotFound(w, r)
		return
	}
	fmt.Fprintln(w, "done")
}
