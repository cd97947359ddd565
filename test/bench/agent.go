// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// agent is a running breadcrumb.
type agent struct {
	p       *process
	metrics string // URL

	mu      sync.Mutex
	tracing bool
	ledger  string
}

// startAgent starts the agent on a server and waits until it traces it.
func (b *bench) startAgent(s *server, cpus []int) (*agent, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	a := &agent{metrics: "http://" + addr + "/metrics"}
	args := []string{"run", "--otlp-endpoint", b.sink.endpoint(), "--metrics-addr", addr}
	for _, pid := range s.pids {
		args = append(args, "--pid", strconv.Itoa(pid))
	}
	a.p, err = b.start(launch{cpus: cpus, line: a.line}, b.agent, args...)
	if err != nil {
		return nil, err
	}
	err = a.p.until(b.ctx, "traced", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.tracing
	})
	if err != nil {
		return nil, err
	}
	// What starting up has left behind is no part of what is measured.
	return a, a.rest()
}

// line takes a line of what the agent logs: fields between tabs, the message being one of them.
func (a *agent) line(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(strings.Split(text, "\t"), "tracing") {
		a.tracing = true
	}
	if ledger, ok := strings.CutPrefix(text, "ledger "); ok {
		a.ledger = ledger
	}
}

// rest waits until the agent does nothing any more, but not for long.
func (a *agent) rest() error {
	const step, little, longest = 100 * time.Millisecond, 2 * time.Millisecond, 3 * time.Second
	before, err := cpuTime(a.p.pid())
	for deadline := time.Now().Add(longest); err == nil && time.Now().Before(deadline); {
		time.Sleep(step)
		var now time.Duration
		now, err = cpuTime(a.p.pid())
		if now-before < little {
			break
		}
		before = now
	}
	return err
}

// counts are the entries of the agent's ledger, summed over processes.
type counts struct {
	Seen     int64            `json:"seen"`
	Exported int64            `json:"exported"`
	Lost     map[string]int64 `json:"lost"` // by cause, where there were any
}

func (c counts) lost() int64 {
	var n int64
	for _, lost := range c.Lost {
		n += lost
	}
	return n
}

// stop lets the agent send what it has, and returns its ledger.
func (a *agent) stop(b *bench) (counts, error) {
	if err := a.p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return counts{}, fmt.Errorf("stop the agent: %w", err)
	}
	if err := a.p.wait(b.ctx, patience); err != nil {
		return counts{}, err
	}
	// The kernel frees its programs some 20 ms after its end: they are not to be taken for somebody else's.
	time.Sleep(100 * time.Millisecond)
	return parseLedger(a.ledger)
}

func parseLedger(text string) (counts, error) {
	var ledger struct{ Total map[string]int64 }
	if err := json.Unmarshal([]byte(text), &ledger); err != nil {
		return counts{}, fmt.Errorf("read the ledger %q: %w", text, err)
	}
	c := counts{Lost: map[string]int64{}}
	for name, n := range ledger.Total {
		switch {
		case name == "seen":
			c.Seen = n
		case name == "exported":
			c.Exported = n
		case n > 0: // whatever else there is, is a cause of loss
			c.Lost[name] = n
		}
	}
	return c, nil
}

// scrape reads the agent's metrics: for each name, the values by the value of a label.
func (a *agent) scrape(label string) (map[string]map[string]float64, error) {
	text, err := get(a.metrics)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the agent's metrics: %w", err)
	}
	values := map[string]map[string]float64{}
	for name, family := range families {
		values[name] = map[string]float64{}
		for _, m := range family.Metric {
			key := ""
			for _, l := range m.Label {
				if l.GetName() == label {
					key = l.GetValue()
				}
			}
			values[name][key] += metricValue(m)
		}
	}
	return values, nil
}

func metricValue(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return m.GetUntyped().GetValue()
}
