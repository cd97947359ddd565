// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// loadResult is what a load generator reports.
type loadResult struct {
	Tool      string        `json:"tool"`
	Requests  int64         `json:"requests"` // answered in time
	Seconds   float64       `json:"seconds"`
	PerSecond float64       `json:"per_second"`
	Errors    int64         `json:"errors"`
	Error     string        `json:"error,omitempty"`
	Late      int64         `json:"late,omitempty"`
	P50       time.Duration `json:"p50_ns,omitempty"`
	P90       time.Duration `json:"p90_ns,omitempty"`
	P99       time.Duration `json:"p99_ns,omitempty"`
	Max       time.Duration `json:"max_ns,omitempty"`

	CPU time.Duration `json:"cpu_ns"` // of the load generator
}

const (
	// saturationConns is how many requests are under way at a time when a server is saturated.
	saturationConns = 32
	// rateConns is enough that at 1 000 requests/s hardly one waits for the one before.
	rateConns = 16
)

// saturate asks as fast as one thread can, with wrk where it is installed.
func (b *bench) saturate(s *server, path string, cpus []int, d time.Duration) (loadResult, error) {
	if s.saturate != nil {
		return s.saturate(cpus, d)
	}
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return b.generate(plan{addr: s.addr, path: path, conns: saturationConns, duration: d}, cpus)
	}
	seconds := int(d.Round(time.Second) / time.Second)
	var out bytes.Buffer
	p, err := b.start(launch{cpus: cpus, stdout: &out}, wrk, "-t", "1", "-c", strconv.Itoa(saturationConns),
		"-d", strconv.Itoa(seconds)+"s", "http://"+s.addr+path)
	if err != nil {
		return loadResult{}, err
	}
	if err := p.wait(b.ctx, d+patience); err != nil {
		return loadResult{}, err
	}
	res, err := parseWrk(out.Bytes())
	res.CPU = p.usedCPU()
	return res, err
}

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d+) requests in `)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec:\s*([\d.]+)`)
	wrkErrors   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// parseWrk reads what wrk prints.
func parseWrk(out []byte) (loadResult, error) {
	res := loadResult{Tool: "wrk"}
	requests, rate := wrkRequests.FindSubmatch(out), wrkRate.FindSubmatch(out)
	if requests == nil || rate == nil {
		return res, fmt.Errorf("read what wrk prints: %q", out)
	}
	res.Requests, _ = strconv.ParseInt(string(requests[1]), 10, 64)
	res.PerSecond, _ = strconv.ParseFloat(string(rate[1]), 64)
	if res.PerSecond > 0 {
		res.Seconds = float64(res.Requests) / res.PerSecond
	}
	for _, re := range []*regexp.Regexp{wrkErrors, wrkStatus} {
		if m := re.FindSubmatch(out); m != nil {
			for _, text := range m[1:] {
				n, _ := strconv.ParseInt(string(text), 10, 64)
				res.Errors += n
			}
			res.Error = string(m[0])
		}
	}
	return res, nil
}

// generate runs the load generator of this program.
func (b *bench) generate(p plan, cpus []int) (loadResult, error) {
	var out bytes.Buffer
	// A thread in a system call is not to be interrupted for having been there for long.
	child, err := b.start(launch{cpus: cpus, stdout: &out, env: []string{"GODEBUG=asyncpreemptoff=1"}}, b.self, "helper-load",
		"-addr", p.addr, "-path", p.path, "-conns", strconv.Itoa(p.conns), "-rate", strconv.Itoa(p.rate),
		"-duration", p.duration.String())
	if err != nil {
		return loadResult{}, err
	}
	if err := child.wait(b.ctx, p.duration+patience); err != nil {
		return loadResult{}, err
	}
	var res loadResult
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		return res, fmt.Errorf("read what the load generator reports: %w: %q", err, out.Bytes())
	}
	res.CPU = child.usedCPU()
	return res, nil
}
