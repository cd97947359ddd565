// SPDX-License-Identifier: Apache-2.0

// Collector is the OpenTelemetry Collector with one pipeline: spans come in by OTLP over gRPC and go
// out by the same to another receiver. It knows nothing of breadcrumb.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry"
	"go.uber.org/zap"
)

// config has no queue between the two ends: what a sender is told is what became of its spans. Without
// compression any receiver will do.
const config = `
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: %q
exporters:
  otlp_grpc:
    endpoint: %q
    compression: none
    tls:
      insecure: true
    sending_queue:
      enabled: false
service:
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [otlp_grpc]
`

func main() {
	listen := flag.String("listen", "127.0.0.1:4317", "host:port to receive spans at")
	forward := flag.String("forward", "", "host:port of the receiver to send them to")
	flag.Parse()

	collector, err := otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Description: "OpenTelemetry Collector"},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs:              []string{"yaml:" + fmt.Sprintf(config, *listen, *forward)},
			ProviderFactories: []confmap.ProviderFactory{yamlprovider.NewFactory()},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := collector.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func factories() (otelcol.Factories, error) {
	var f otelcol.Factories
	var err error
	if f.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory()); err != nil {
		return f, err
	}
	if f.Exporters, err = otelcol.MakeFactoryMap[exporter.Factory](otlpexporter.NewFactory()); err != nil {
		return f, err
	}
	// Of itself the collector tells what it logs. What its distributions have here brings the clients of
	// Kubernetes and of a cloud along, and listens at a port more.
	f.Telemetry = telemetry.NewFactory(func() component.Config { return struct{}{} }, telemetry.WithCreateLogger(logger))
	return f, nil
}

func logger(_ context.Context, set telemetry.LoggerSettings, _ component.Config) (*zap.Logger, component.ShutdownFunc, error) {
	log, err := set.BuildZapLogger(zap.NewProductionConfig())
	return log, nil, err
}
