// SPDX-License-Identifier: Apache-2.0

// Command h2cserver answers over HTTP/2 in the clear, also where a connection is upgraded to it.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

func main() {
	listen := flag.String("listen", "", "address to listen at")
	flag.Parse()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, r.Proto, r.URL.Path)
	})
	log.Fatal(http.ListenAndServe(*listen, h2c.NewHandler(answer, &http2.Server{})))
}
