// SPDX-License-Identifier: Apache-2.0

// Hello is an ordinary Go HTTP server. It knows nothing of tracing, but counts what it has served.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"
)

var served atomic.Int64

func hello(w http.ResponseWriter, _ *http.Request) {
	served.Add(1)
	_, _ = w.Write([]byte("hello\n"))
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", hello)
	mux.HandleFunc("/served", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, served.Load()) })
	log.Fatal(http.ListenAndServe(os.Args[1], mux))
}
