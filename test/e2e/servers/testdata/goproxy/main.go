// SPDX-License-Identifier: Apache-2.0

// Goproxy is an ordinary reverse proxy. It knows nothing of tracing.
package main

import (
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port")
	target := flag.String("target", "", "URL of the server behind")
	flag.Parse()

	behind, err := url.Parse(*target)
	if err != nil {
		log.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 100
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(behind) },
	}
	log.Fatal(http.ListenAndServe(*listen, proxy))
}
