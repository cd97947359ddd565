// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"syscall"
	"time"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/version"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// metricsServer serves the agent's own metrics.
type metricsServer struct {
	listener net.Listener // nil: nowhere
	server   *http.Server
}

// listenMetrics takes the address, before anything is loaded that would have to be undone.
func listenMetrics(addr string) (*metricsServer, error) {
	if addr == "" {
		return &metricsServer{}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w: another program listens there, end it or give another address", err)
		}
		return nil, fmt.Errorf("serve metrics (--metrics-addr, metrics_addr): %w", err)
	}
	return &metricsServer{listener: l}, nil
}

// Close waits for those that read the metrics: what they read is closed next.
func (m *metricsServer) Close() {
	if m.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if m.server.Shutdown(ctx) != nil { // a profile takes longer, and reads nothing of that
			_ = m.server.Close()
		}
	} else if m.listener != nil {
		_ = m.listener.Close()
	}
}

// serve is called when everything that the metrics tell of is there.
func (m *metricsServer) serve(a *agent) {
	if m.listener == nil {
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(a), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	m.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return context.Background() }}
	go func() {
		if err := m.server.Serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the metrics are no longer served", zap.Error(err))
		}
	}()
	a.log.Info("metrics", zap.String("url", fmt.Sprintf("http://%s/metrics", m.listener.Addr())))
}

// collector reads everything when it is asked: nothing is counted twice for the sake of metrics.
type collector struct {
	a *agent

	info, messages, lost, exported, kernel, programNs, programRuns, programMissed, queue, watched,
	backlog, mapBytes, conns, unknownConns, unusable, refused, held, partial *prometheus.Desc
}

func newCollector(a *agent) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("breadcrumb_"+name, help, labels, nil)
	}
	process := []string{"pid", "service"}
	return &collector{
		a:             a,
		info:          desc("info", "The version and the attachment in use; always 1.", "version", "attachment"),
		messages:      desc("messages_seen_total", "Requests that were noticed, by the process that served or made them.", process...),
		exported:      desc("spans_exported_total", "Spans that the exporter has taken.", process...),
		lost:          desc("messages_lost_total", "Requests that became no span, by cause.", append(process, "cause")...),
		kernel:        desc("kernel_events_total", "What the kernel side counted: events, and what went wrong.", "kind"),
		programNs:     desc("bpf_program_seconds_total", "Run time of a BPF program; only while kernel.bpf_stats_enabled is 1.", "program"),
		programRuns:   desc("bpf_program_runs_total", "Runs of a BPF program; only while kernel.bpf_stats_enabled is 1.", "program"),
		programMissed: desc("bpf_program_missed_total", "Runs that the kernel left out because the program was running already.", "program"),
		queue:         desc("export_queue_length", "Spans that wait to be exported."),
		watched:       desc("watched_processes", "Processes that are traced now."),
		backlog:       desc("ring_buffer_bytes", "Bytes of events that wait to be read."),
		conns:         desc("connections", "Connections that are followed now."),
		unknownConns:  desc("connections_muted_total", "Connections that no protocol claims."),
		unusable:      desc("events_unusable_total", "Events that could not be used, by cause.", "cause"),
		refused:       desc("parents_refused_total", "Parents that were known and not believed, by cause.", "cause"),
		held:          desc("spans_held", "Finished spans that wait for their parents to finish."),
		partial:       desc("spans_partial_total", "Spans with breadcrumb.unknown_fields: of what was sent before the agent looked, or was lost."),
		mapBytes:      desc("bpf_map_bytes", "Memory of a BPF map as the kernel accounts for it.", "map"),
	}
}

// Describe implements prometheus.Collector: the descriptions come with the values.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.info }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	a := c.a
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.info, 1, version.Version, a.core.Attachment)
	a.countKernel()
	for _, t := range a.table.Accounts() {
		pid := fmt.Sprint(t.PID)
		counter(c.messages, float64(t.Counts[ledger.Seen]), pid, t.Service)
		counter(c.exported, float64(t.Counts[ledger.Exported]), pid, t.Service)
		for e := ledger.FirstLoss; e < ledger.Entries; e++ {
			if t.Counts[e] > 0 {
				counter(c.lost, float64(t.Counts[e]), pid, t.Service, e.String())
			}
		}
	}
	if stats, err := a.core.Stats(); err == nil {
		for name, n := range stats {
			counter(c.kernel, float64(n), name)
		}
	}
	programs := func(ps map[string]*ebpf.Program) {
		for name, p := range ps {
			if s, err := p.Stats(); err == nil {
				counter(c.programNs, s.Runtime.Seconds(), name)
				counter(c.programRuns, float64(s.RunCount), name)
				counter(c.programMissed, float64(s.RecursionMisses), name)
			}
		}
	}
	programs(a.core.Programs())
	for _, r := range a.runtimes {
		programs(r.Programs())
	}
	if sizes, err := a.core.MapBytes(); err == nil {
		for name, bytes := range sizes {
			gauge(c.mapBytes, float64(bytes), name)
		}
	}
	stats := a.pipeline.stats.Load()
	gauge(c.conns, float64(stats.conns.Open))
	counter(c.unknownConns, float64(stats.conns.Muted))
	counter(c.unusable, float64(stats.conns.Malformed), "malformed")
	counter(c.unusable, float64(stats.conns.UnknownPID), "unknown_process")
	counter(c.refused, float64(stats.corr.RefusedEnded), "ended_before")
	counter(c.refused, float64(stats.corr.RefusedStale), "goroutine_older_than_request")
	counter(c.refused, float64(stats.corr.RefusedLoop), "event_loop_not_confirmed")
	counter(c.refused, float64(stats.corr.Orphaned), "no_room_to_wait")
	gauge(c.held, float64(stats.held))
	counter(c.partial, float64(stats.partial))
	gauge(c.queue, float64(a.queue.Len()))
	gauge(c.backlog, float64(a.core.Backlog()))
	gauge(c.watched, float64(len(a.table.Targets())))
}
