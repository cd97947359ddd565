// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The parts of the benchmark.
const (
	throughput  = "throughput" // everything on all CPUs, saturated
	cores       = "cores"      // the server on one CPU, everything else on another
	latency     = "latency"    // at a fixed rate
	memory      = "memory"     // of the agent
	programRuns = "programs"   // ns per run of each BPF program
)

var parts = []string{throughput, cores, latency, memory, programRuns}

const (
	latencyRate = 1000  // requests/s
	memoryRate  = 20000 // requests/s
	warmUp      = 300 * time.Millisecond
	idleTime    = 2 * time.Second // until the agent's memory is taken for idle
)

// bench is a run of the benchmark: what was built and what runs now.
type bench struct {
	ctx        context.Context
	o          options
	dir        string // for everything that is written
	self       string // this binary
	agent      string // and those that were built
	hello, sdk string
	echo, sql  string
	processes  []*process
	sink       *sink
	report     report
}

func newBench(ctx context.Context, o options) (_ *bench, err error) {
	b := &bench{ctx: ctx, o: o, agent: o.agent}
	if b.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this binary: %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "breadcrumb-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	// nginx's workers may run as another user.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "breadcrumb").Output()
	if err != nil {
		return nil, fmt.Errorf("find the source tree: %w", err)
	}
	root := string(out[:max(0, len(out)-1)])
	builds := []struct {
		binary *string
		dir    string
		pkg    string
		wanted bool
	}{
		{&b.hello, root, "./test/bench/testdata/hello", true},
		{&b.echo, root, "./test/bench/testdata/grpcecho", !o.hooks && (o.wants(throughput, grpcKind.name) || o.wants(cores, grpcKind.name) || o.wants(programRuns, grpcKind.name))},
		{&b.sql, filepath.Join(root, "test/bench/sqlserver"), ".", !o.hooks && (o.wants(throughput, pgxKind.name) || o.wants(programRuns, pgxKind.name))},
		{&b.sdk, filepath.Join(root, "test/bench/sdkserver"), ".", !o.hooks && o.wants(throughput, sdkKind.name)},
		{&b.agent, root, "./cmd/agent", o.agent == ""},
	}
	for _, build := range builds {
		if !build.wanted {
			continue
		}
		*build.binary = filepath.Join(b.dir, filepath.Base(build.dir)+"-"+filepath.Base(build.pkg))
		b.progress("building %s", filepath.Join(build.dir, build.pkg))
		cmd := exec.CommandContext(ctx, "go", "build", "-o", *build.binary, build.pkg)
		cmd.Dir = build.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s in %s: %w\n%s", build.pkg, build.dir, err, out)
		}
	}
	if b.agent, err = filepath.Abs(b.agent); err != nil {
		return nil, fmt.Errorf("find the agent: %w", err)
	}
	b.report.Machine = describeMachine(ctx, b.agent)
	if o.agent == "" {
		b.report.Machine.Agent += revision(ctx, root)
	}
	b.report.Rounds, b.report.Seconds = o.rounds, o.duration.Seconds()
	b.report.Quick = o.quick
	return b, nil
}

// close stops everything, last first.
func (b *bench) close() error {
	b.stopAll()
	return os.RemoveAll(b.dir)
}

func (b *bench) stopAll() {
	for _, p := range slices.Backward(b.processes) {
		p.stop()
	}
	b.processes = nil
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// note is something that a reader of the table has to know.
func (b *bench) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.progress("%s", text)
	b.report.Notes = append(b.report.Notes, text)
}

// layout is where things run; nil is everywhere.
type layout struct{ server, rest []int }

// all runs all parts.
func (b *bench) all() error {
	began := time.Now()
	var apart layout
	if cpus := allCPUs(); len(cpus) > 1 {
		apart = layout{server: cpus[:1], rest: cpus[1:2]}
	} else {
		b.note("There is one CPU: separate cores were not measured.")
	}
	steps := []struct {
		part  string
		where layout
		skip  bool
		load  loader
	}{
		{throughput, layout{}, false, func(s *server, path string, cpus []int) (loadResult, error) {
			return b.saturate(s, path, cpus, b.o.duration)
		}},
		{cores, apart, apart.server == nil, func(s *server, path string, cpus []int) (loadResult, error) {
			return b.saturate(s, path, cpus, b.o.duration)
		}},
		{latency, layout{}, false, func(s *server, path string, cpus []int) (loadResult, error) {
			return b.generate(plan{addr: s.addr, path: path, conns: rateConns, rate: latencyRate, duration: b.o.duration / 5 * 3}, cpus)
		}},
	}
	// A part that fails does not take with it what the others have shown.
	var errs []error
	try := func(part string, measure func() error) {
		if b.ctx.Err() != nil {
			return
		}
		if err := measure(); err != nil && b.ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("%s: %w", part, err))
			b.report.Notes = append(b.report.Notes, "Not all of "+part+" was measured: there was an error.")
		}
		b.stopAll()
	}
	for _, step := range steps {
		if !step.skip {
			try(step.part, func() error { return b.pairs(step.part, step.where, step.load) })
		}
	}
	try(memory, b.memory)
	try(programRuns, b.programs)
	b.progress("%.0f seconds in all", time.Since(began).Seconds())
	if err := b.ctx.Err(); err != nil {
		errs = append(errs, err)
		b.report.Notes = append(b.report.Notes, "The run was interrupted: this is what it had shown.")
	}
	return errors.Join(errs...)
}

// loader puts a server under load.
type loader func(s *server, path string, cpus []int) (loadResult, error)

// sample is one run under load.
type sample struct {
	Load      loadResult    `json:"load"`
	Served    int64         `json:"served"` // requests, by the server's own count
	Wall      time.Duration `json:"wall_ns"`
	ServerCPU time.Duration `json:"server_cpu_ns"`
	SinkCPU   time.Duration `json:"sink_cpu_ns"`
	// Others is what everything else on the machine used, and Stolen what the hypervisor gave away, in CPUs.
	Others float64 `json:"others_cpus"`
	Stolen float64 `json:"stolen_cpus"`
	// Tracers is how many BPF programs hung on events before an agent was started.
	Tracers int `json:"tracers"`

	Spans    int64         `json:"spans"` // received by the sink
	AgentCPU time.Duration `json:"agent_cpu_ns,omitempty"`
	AgentRSS int64         `json:"agent_rss_bytes,omitempty"` // at the end of the load
	Ledger   *counts       `json:"ledger,omitempty"`
}

// pair is a run without and one with the agent, one right after the other.
type pair struct {
	Without sample `json:"without"`
	With    sample `json:"with"`
}

// row is all pairs of a part for one server.
type row struct {
	Part   string `json:"part"`
	Server string `json:"server"`
	Title  string `json:"title"`
	Spans  int64  `json:"spans_per_request"`
	Pairs  []pair `json:"pairs"`
}

// pairs measures a part for each server that it is wanted for. A round visits all servers, so that a
// bad minute of the machine spoils one pair of each and not all pairs of one.
func (b *bench) pairs(part string, where layout, load loader) (err error) {
	kinds := slices.Clone(traced)
	if part == throughput {
		kinds = slices.Insert(kinds, 1, sdkKind)
	}
	kinds = slices.DeleteFunc(kinds, func(k kind) bool { return !b.available(part, k) })
	if len(kinds) == 0 {
		return nil
	}
	if b.sink, err = b.startSink(where.rest); err != nil {
		return err
	}
	servers := map[string]*server{}
	var plain *server // that the SDK's is compared with
	for _, k := range kinds {
		if servers[k.name], err = k.start(b, where.server); err != nil {
			return err
		}
		if k.name == sdkKind.name {
			if plain, err = goKind.start(b, where.server); err != nil {
				return err
			}
		}
		for _, s := range []*server{servers[k.name], plain} {
			if s == nil {
				continue
			}
			if _, err := b.saturate(s, k.path, where.rest, max(warmUp, time.Second)); err != nil {
				return err
			}
		}
	}
	rows := make([]row, len(kinds))
	defer func() {
		for _, r := range rows {
			if len(r.Pairs) > 0 {
				b.report.Rows = append(b.report.Rows, r)
			}
		}
	}()
	for round := range b.o.rounds {
		for i, k := range kinds {
			rows[i].Part, rows[i].Server, rows[i].Title, rows[i].Spans = part, k.name, k.title, max(1, k.spans)
			var p pair
			if err := b.waitForQuiet(); err != nil {
				return err
			}
			for turn := range 2 {
				with := (round+turn)%2 == 1
				s, into, traced := servers[k.name], &p.Without, with
				if with {
					into = &p.With
				}
				if k.name == sdkKind.name {
					// The reference: with is the SDK in the server's code, and no agent.
					if traced = false; !with {
						s = plain
					}
				}
				if *into, err = b.sample(s, k.path, where, traced, load); err != nil {
					return fmt.Errorf("%s: %w", k.name, err)
				}
			}
			rows[i].Pairs = append(rows[i].Pairs, p)
			b.progress("%s", progressOf(rows[i], round, b.o.rounds))
		}
	}
	return nil
}

// undisturbed is whether everything else left the machine alone.
func (s sample) undisturbed() bool { return s.Others < quietCPUs && s.Tracers == 0 }

func (p pair) undisturbed() bool { return p.Without.undisturbed() && p.With.undisturbed() }

// quietCPUs is how much other programs may use of a machine that is called quiet.
const quietCPUs = 0.1

// waitForQuiet waits until other programs leave the machine alone, as long as was asked for.
func (b *bench) waitForQuiet() error {
	const look = 500 * time.Millisecond
	for deadline := time.Now().Add(b.o.quiet); time.Until(deadline) > look; {
		before, _ := busyTime()
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(look):
		}
		after, _ := busyTime()
		if (after-before).Seconds()/look.Seconds() < quietCPUs && tracingPrograms() == 0 {
			break
		}
	}
	return nil
}

// available is whether a part is wanted for a server that is installed.
func (b *bench) available(part string, k kind) bool {
	if !b.o.wants(part, k.name) || k.parts != nil && !slices.Contains(k.parts, part) {
		return false
	}
	if k.needs != "" {
		installed, _ := filepath.Glob(k.needs)
		if _, err := exec.LookPath(k.needs); err != nil && len(installed) == 0 {
			b.note("%s is not installed: %s was not measured for it.", k.needs, part)
			return false
		}
	}
	return true
}

// sample runs one load, under an agent that is started for it or without.
func (b *bench) sample(s *server, path string, where layout, withAgent bool, load loader) (r sample, err error) {
	r.Tracers = tracingPrograms()
	m := meter{s: s}
	if err := m.reset(); err != nil {
		return r, err
	}
	spans, err := b.sink.spans()
	if err != nil {
		return r, err
	}
	var a *agent
	if withAgent {
		if a, err = b.startAgent(s, where.rest); err != nil {
			return r, err
		}
	}
	if s.renew != nil {
		if err := s.renew(); err != nil {
			return r, fmt.Errorf("have a server connect anew: %w", err)
		}
	}
	before, err := b.usage(s, a)
	if err != nil {
		return r, err
	}
	if r.Load, err = load(s, path, where.rest); err != nil {
		return r, err
	}
	loaded, err := b.usage(s, a)
	if err != nil {
		return r, err
	}
	r.Wall = loaded.at.Sub(before.at)
	r.ServerCPU = loaded.server - before.server
	own := r.ServerCPU + loaded.behind - before.behind + loaded.agent - before.agent + loaded.sink - before.sink + r.Load.CPU
	r.Others = max(0, (loaded.busy-before.busy-own).Seconds()/r.Wall.Seconds())
	r.Stolen = (loaded.stolen - before.stolen).Seconds() / r.Wall.Seconds()
	if a != nil {
		// What it still has to do when the load has ended belongs to the load.
		if err := a.rest(); err != nil {
			return r, err
		}
		rested, err := b.usage(s, a)
		if err != nil {
			return r, err
		}
		r.AgentCPU = rested.agent - before.agent
		if r.AgentRSS, err = residentBytes(a.p.pid()); err != nil {
			return r, err
		}
		ledger, err := a.stop(b)
		if err != nil {
			return r, err
		}
		r.Ledger = &ledger
	}
	if r.Served, err = m.served(); err != nil {
		return r, err
	}
	now, err := b.sink.spans()
	if err != nil {
		return r, err
	}
	r.Spans = now - spans
	end, err := cpuTime(b.sink.p.pid())
	r.SinkCPU = end - before.sink
	return r, err
}

// usage is what everybody has used up to now.
type usage struct {
	at                                time.Time
	server, agent, sink, busy, stolen time.Duration
	behind                            time.Duration // what the server asks
}

func (b *bench) usage(s *server, a *agent) (u usage, err error) {
	u.at = time.Now()
	u.busy, u.stolen = busyTime()
	serverTime := cpuTime
	if s.forks {
		serverTime = familyTime
	}
	if u.server, err = serverTime(s.pids...); err != nil {
		return u, err
	}
	if u.behind, err = familyTime(s.behind...); err != nil {
		return u, err
	}
	if u.sink, err = cpuTime(b.sink.p.pid()); err != nil {
		return u, err
	}
	if a != nil {
		u.agent, err = cpuTime(a.p.pid())
	}
	return u, err
}

// footprint is the agent's memory.
type footprint struct {
	IdleRSS   int64              `json:"idle_rss_bytes"`
	LoadedRSS int64              `json:"loaded_rss_bytes"` // the most that was seen
	Load      loadResult         `json:"load"`
	IdleMaps  map[string]float64 `json:"idle_map_bytes"`
	Maps      map[string]float64 `json:"loaded_map_bytes"`
	Served    int64              `json:"served"`
	Spans     int64              `json:"spans"`
	Ledger    counts             `json:"ledger"`
}

const mapBytes = "breadcrumb_bpf_map_bytes"

// memory measures the agent's memory with nothing to do, and at a fixed rate of requests.
func (b *bench) memory() (err error) {
	if !b.available(memory, goKind) {
		return nil
	}
	if b.sink, err = b.startSink(nil); err != nil {
		return err
	}
	s, err := goKind.start(b, nil)
	if err != nil {
		return err
	}
	m := meter{s: s}
	if err := m.reset(); err != nil {
		return err
	}
	a, err := b.startAgent(s, nil)
	if err != nil {
		return err
	}
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(idleTime):
	}
	var f footprint
	if f.IdleRSS, err = residentBytes(a.p.pid()); err != nil {
		return err
	}
	values, err := a.scrape("map")
	if err != nil {
		return err
	}
	f.IdleMaps = values[mapBytes]

	stop, sampled := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if n, err := residentBytes(a.p.pid()); err == nil {
				most = max(most, n)
			}
			select {
			case <-stop:
				sampled <- most
				return
			case <-tick.C:
			}
		}
	}()
	f.Load, err = b.generate(plan{addr: s.addr, path: goKind.path, conns: saturationConns, rate: memoryRate,
		duration: b.o.duration}, nil)
	close(stop)
	f.LoadedRSS = <-sampled
	if err != nil {
		return err
	}
	if values, err = a.scrape("map"); err != nil {
		return err
	}
	f.Maps = values[mapBytes]
	if f.Ledger, err = a.stop(b); err != nil {
		return err
	}
	if f.Served, err = m.served(); err != nil {
		return err
	}
	if f.Spans, err = b.sink.spans(); err != nil {
		return err
	}
	b.progress("memory: %s idle, %s at %s requests/s", mebibytes(f.IdleRSS), mebibytes(f.LoadedRSS), number(f.Load.PerSecond))
	b.report.Memory = &f
	return nil
}

// programRow is what one BPF program took while a server was under load.
type programRow struct {
	Server, Program string
	Runs, Seconds   float64
	Requests        int64
}

// programs measures the run time of each BPF program, in a pass of its own: the kernel's clock around
// each run has its price.
func (b *bench) programs() (err error) {
	for _, k := range traced {
		if !b.available(programRuns, k) {
			continue
		}
		if b.sink, err = b.startSink(nil); err != nil {
			return err
		}
		s, err := k.start(b, nil)
		if err != nil {
			return err
		}
		rows, err := b.programsOf(k, s)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		b.report.Programs = append(b.report.Programs, rows...)
		b.stopAll()
	}
	return nil
}

func (b *bench) programsOf(k kind, s *server) (rows []programRow, err error) {
	m := meter{s: s}
	if err := m.reset(); err != nil {
		return nil, err
	}
	a, err := b.startAgent(s, nil)
	if err != nil {
		return nil, err
	}
	// As kernel.bpf_stats_enabled=1, but for as long as this is open, and so never longer than this
	// program lives (Linux 5.8).
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("count the run time of BPF programs: %w", err)
	}
	defer stats.Close()
	before, err := a.scrape("program")
	if err != nil {
		return nil, err
	}
	if _, err = b.saturate(s, k.path, nil, max(time.Second, b.o.duration/5*2)); err != nil {
		return nil, err
	}
	after, err := a.scrape("program")
	if err != nil {
		return nil, err
	}
	if _, err := a.stop(b); err != nil {
		return nil, err
	}
	served, err := m.served()
	if err != nil {
		return nil, err
	}
	const runs, seconds = "breadcrumb_bpf_program_runs_total", "breadcrumb_bpf_program_seconds_total"
	for name := range after[runs] {
		r := programRow{Server: k.name, Program: name, Requests: served,
			Runs: after[runs][name] - before[runs][name], Seconds: after[seconds][name] - before[seconds][name]}
		if r.Runs > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b programRow) int { return int((b.Seconds - a.Seconds) * 1e9) })
	return rows, nil
}

// tracingPrograms counts the BPF programs on this machine that hang on events, whoever loaded them.
func tracingPrograms() int {
	count := 0
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			return count
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		switch p.Type() {
		case ebpf.Tracing, ebpf.RawTracepoint, ebpf.TracePoint, ebpf.Kprobe, ebpf.PerfEvent:
			count++
		}
		_ = p.Close()
	}
}
