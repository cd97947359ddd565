// SPDX-License-Identifier: Apache-2.0

// Goserver is an ordinary net/http server. It knows nothing of tracing.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port, or the path of a Unix socket")
	flag.Parse()

	network := "tcp"
	if strings.Contains(*listen, "/") {
		network = "unix"
	}
	listener, err := net.Listen(network, *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, routes()))
}

func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/item/{id}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "item %s\n", r.PathValue("id"))
	})
	mux.HandleFunc("POST /upload/{id}", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, n)
	})
	// Refuses without reading the body: the answer begins before the request has ended.
	mux.HandleFunc("POST /refuse/{id}", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	mux.HandleFunc("/chunked/{n}/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Chunks")
		for i := range number(r, "n") {
			fmt.Fprintf(w, "chunk %d\n", i)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Chunks", r.PathValue("n"))
	})
	mux.HandleFunc("/status/{code}/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(number(r, "code"))
	})
	mux.HandleFunc("/sleep/{ms}/{id}", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(number(r, "ms")) * time.Millisecond)
		fmt.Fprintln(w, "slept")
	})
	mux.HandleFunc("/large/{bytes}/{id}", func(w http.ResponseWriter, r *http.Request) {
		n := number(r, "bytes")
		w.Header().Set("Content-Length", strconv.Itoa(n))
		block := make([]byte, 64<<10)
		for n > 0 {
			m, err := w.Write(block[:min(n, len(block))])
			if err != nil {
				return
			}
			n -= m
		}
	})
	// Cuts the connection: before the first byte of the answer, or in the middle of its body.
	mux.HandleFunc("/cut/{where}/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("where") == "body" {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprintln(w, "the first of many")
			w.(http.Flusher).Flush()
		}
		panic(http.ErrAbortHandler)
	})
	// Changes to a protocol of its own, which sends everything back.
	mux.HandleFunc("/upgrade/{id}", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(conn, rw)
	})
	return mux
}

func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.PathValue(name))
	return n
}
