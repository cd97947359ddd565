// SPDX-License-Identifier: Apache-2.0

// Sdkserver is the hello server with OpenTelemetry in its code, as the SDK's documentation does it: the
// reference that the agent is compared with. It is a module of its own, so that what it needs stays out
// of the project's dependencies.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/trace"
)

var served atomic.Int64

func hello(w http.ResponseWriter, _ *http.Request) {
	served.Add(1)
	_, _ = w.Write([]byte("hello\n"))
}

func main() {
	// The endpoint comes by OTEL_EXPORTER_OTLP_ENDPOINT.
	exporter, err := otlptracegrpc.New(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)

	mux := http.NewServeMux()
	mux.Handle("/", otelhttp.NewHandler(http.HandlerFunc(hello), "hello"))
	mux.HandleFunc("/served", func(w http.ResponseWriter, r *http.Request) {
		if err := provider.ForceFlush(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, served.Load())
	})
	log.Fatal(http.ListenAndServe(os.Args[1], mux))
}
