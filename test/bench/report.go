// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The goals, where there are any. They hold for every request traced and exported.
var (
	throughputGoal = map[string]float64{"go": 0.85, "python": 0.92, "pgx": 0.85, "pgbench": 0.85} // requests/s with ÷ without
	coresGoal      = 0.96                                                                         // a slow-down of 4 % that the hooks cause
	medianGoal     = 1.05                                                                         // p50 with ÷ without
	agentCPUGoal   = 0.05                                                                         // seconds per 10 000 requests
	idleRSSGoal    = int64(50 << 20)
	loadedRSSGoal  = int64(120 << 20)
	mapsGoal       = int64(40 << 20)
)

// report is all that was measured.
type report struct {
	Machine  machine      `json:"machine"`
	Rounds   int          `json:"rounds"`
	Seconds  float64      `json:"seconds"`
	Quick    bool         `json:"quick,omitempty"`
	Rows     []row        `json:"rows,omitempty"`
	Memory   *footprint   `json:"memory,omitempty"`
	Programs []programRow `json:"programs,omitempty"`
	Calls    []callsRow   `json:"calls,omitempty"`
	Notes    []string     `json:"notes,omitempty"`
}

// empty is whether nothing was measured.
func (r *report) empty() bool {
	return len(r.Rows) == 0 && r.Memory == nil && len(r.Programs) == 0 && len(r.Calls) == 0
}

func (r *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// measure is a figure that is compared: how it is taken from a run and how it is written.
type measure struct {
	of    func(sample) float64
	write func(float64) string
}

var (
	perSecond    = measure{func(s sample) float64 { return s.Load.PerSecond }, number}
	perCPUSecond = measure{func(s sample) float64 { return ratio(float64(s.Served), s.ServerCPU.Seconds()) }, number}
	p50          = measure{func(s sample) float64 { return float64(s.Load.P50) }, microseconds}
	p99          = measure{func(s sample) float64 { return float64(s.Load.P99) }, microseconds}
)

// compare is a measure over all pairs of a row.
func (r row) compare(m measure) (without, with, ratios spread) {
	return spreadOf(figures(r.Pairs, func(p pair) float64 { return m.of(p.Without) })),
		spreadOf(figures(r.Pairs, func(p pair) float64 { return m.of(p.With) })),
		spreadOf(figures(r.Pairs, func(p pair) float64 { return ratio(m.of(p.With), m.of(p.Without)) }))
}

// main is the measure that a row is there for.
func (r row) main() measure {
	switch r.Part {
	case latency:
		return p50
	case cores:
		return perCPUSecond
	}
	return perSecond
}

// per10k is a CPU time per 10 000 requests, in seconds, over the runs with the agent.
func (r row) per10k(cpu func(sample) time.Duration) spread {
	return spreadOf(figures(r.Pairs, func(p pair) float64 {
		return ratio(cpu(p.With).Seconds()*10000, float64(p.With.Served))
	}))
}

// sum adds up the runs with the agent: how many spans were to be made, and what became of them.
func (r row) sum() (made, spans, lost, errors int64) {
	for _, p := range r.Pairs {
		made += p.With.Served * r.Spans
		spans += p.With.Spans
		if p.With.Ledger != nil {
			lost += p.With.Ledger.lost()
		}
		errors += p.Without.Load.Errors + p.With.Load.Errors
	}
	return made, spans, lost, errors
}

// progressOf is what a round says while it goes on.
func progressOf(r row, round, rounds int) string {
	last := row{Spans: r.Spans, Pairs: r.Pairs[len(r.Pairs)-1:]}
	m := r.main()
	without, with, ratios := last.compare(m)
	made, spans, lost, _ := last.sum()
	return fmt.Sprintf("%s %s %d/%d: %s → %s: %.3f; %d of %d spans, %d counted lost", r.Part, r.Server, round+1, rounds,
		m.write(without.Median), m.write(with.Median), ratios.Median, spans, made, lost)
}

// table is a Markdown table.
type table struct{ rows [][]string }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// String pads the columns, so that it can be read as it is. The first is aligned left.
func (t *table) String() string {
	widths := make([]int, len(t.rows[0]))
	for _, r := range t.rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len([]rune(cell)), 3)
		}
	}
	var b strings.Builder
	for n, r := range t.rows {
		for i, cell := range r {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i == 0 {
				b.WriteString("| " + cell + pad + " |")
			} else {
				b.WriteString(" " + pad + cell + " |")
			}
		}
		b.WriteByte('\n')
		if n > 0 {
			continue
		}
		b.WriteString("| " + strings.Repeat("-", widths[0]) + " |")
		for _, w := range widths[1:] {
			b.WriteString(" " + strings.Repeat("-", w-1) + ": |")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// markdown is the report for people.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Machine)
	if r.Quick {
		b.WriteString("A smoke run: one short pair for each figure, which says little.\n")
	}
	if len(r.Rows) > 0 || r.Memory != nil {
		duration := time.Duration(r.Seconds * float64(time.Second))
		fmt.Fprintf(&b, "%s of runs without and with the agent, one right after the other, the order alternating, %v each (latency %v): "+
			"the median, and in parentheses the least and the most of any pair. Go is a `net/http` server that says hello, Python the same "+
			"with `ThreadingHTTPServer`, nginx sends a file of 1 KiB by `sendfile`; all keep connections alive. Go with pgx makes a query "+
			"for each request, of a PostgreSQL that is not traced; PostgreSQL is asked what `pgbench -S` asks.\n\n",
			count(r.Rounds, "pair"), duration, duration/5*3)
		b.WriteString(r.mainTable().String())
	}
	if len(r.Programs) > 0 {
		b.WriteString("\nEach BPF program, in a pass of its own on all CPUs, saturated (its runs for processes that are not traced included):\n\n")
		b.WriteString(r.programTable().String())
	}
	if len(r.Calls) > 0 {
		fmt.Fprintf(&b, "%s of runs without and with an agent that traces another process. What a process that is **not** traced pays:\n\n",
			count(r.Rounds, "pair"))
		b.WriteString(r.callsTable().String())
	}
	if notes := append(r.surroundings(), r.Notes...); len(notes) > 0 {
		b.WriteByte('\n')
		for _, note := range notes {
			fmt.Fprintf(&b, "- %s\n", note)
		}
	}
	return b.String()
}

func (r *report) mainTable() *table {
	t := &table{}
	t.add("", "without", "with", "with ÷ without", "goal", "")
	atLeast := func(goal float64) (string, func(float64) bool) {
		return fmt.Sprintf("≥ %.2f", goal), func(v float64) bool { return v >= goal }
	}
	compare := func(row row, what string, m measure, goal string, ok func(float64) bool) {
		without, with, ratios := row.compare(m)
		verdict := ""
		if ok != nil {
			verdict = met(ok(ratios.Median))
		}
		t.add(row.Title+", "+what, m.write(without.Median), m.write(with.Median), plain(ratios), goal, verdict)
	}
	for row := range r.part(throughput) {
		goal, ok := "", (func(float64) bool)(nil)
		if row.Server == sdkKind.name {
			goal = "reference"
		} else if g := throughputGoal[row.Server]; g > 0 {
			goal, ok = atLeast(g)
		}
		compare(row, "requests/s", perSecond, goal, ok)
	}
	for row := range r.part(cores) {
		goal, ok := atLeast(coresGoal)
		compare(row, "a core of its own, requests per second of CPU time", perCPUSecond, goal, ok)
		compare(row, fmt.Sprintf("a core of its own, requests/s (%.0f %% busy)", 100*row.busy()), perSecond, "", nil)
	}
	for row := range r.part(latency) {
		rate := number(latencyRate) + " requests/s"
		compare(row, "p50 at "+rate, p50, fmt.Sprintf("≤ %.2f", medianGoal), func(v float64) bool { return v <= medianGoal })
		compare(row, "p99 at "+rate, p99, "", nil)
	}
	for row := range r.part(throughput, cores) {
		if row.Server == sdkKind.name {
			continue
		}
		cpu := row.per10k(func(s sample) time.Duration { return s.AgentCPU })
		where, goal, verdict := "", "", ""
		if row.Part == throughput {
			goal, verdict = fmt.Sprintf("≤ %.2f s", agentCPUGoal), met(cpu.Median <= agentCPUGoal)
		} else {
			where = ", a core of its own"
		}
		t.add("Agent's CPU per 10 000 requests, "+row.Title+where, "", seconds(cpu), "", goal, verdict)
	}
	if f := r.Memory; f != nil {
		memory := func(what string, bytes, goal int64) {
			t.add(what, "", mebibytes(bytes), "", "≤ "+mebibytes(goal), met(bytes <= goal))
		}
		memory("Agent's RSS, idle", f.IdleRSS, idleRSSGoal)
		memory("Agent's RSS at "+number(f.Load.PerSecond)+" requests/s", f.LoadedRSS, loadedRSSGoal)
		memory("BPF maps, idle", int64(total(f.IdleMaps)), mapsGoal)
		memory("BPF maps, under that load", int64(total(f.Maps)), mapsGoal)
	}
	complete := func(what string, made, spans, lost int64, exact bool) {
		goal, ok := "spans + lost = requests", spans+lost == made
		if exact {
			goal, ok = "1 exactly", spans == made
		}
		cell := fmt.Sprintf("%s / %s", number(float64(spans)), number(float64(made)))
		if lost > 0 {
			cell += fmt.Sprintf(", %s counted lost", number(float64(lost)))
		}
		t.add("Spans ÷ requests, "+what, "", cell, written(ratio(float64(spans), float64(made))), goal, met(ok))
	}
	for row := range r.part(throughput, cores, latency) {
		made, spans, lost, _ := row.sum()
		switch {
		case row.Server == sdkKind.name:
			t.add("Spans ÷ requests, "+row.Title, "", number(float64(spans))+" / "+number(float64(made)),
				written(ratio(float64(spans), float64(made))), "reference", "")
		case row.Part == latency:
			complete(row.Title+", "+number(latencyRate)+" requests/s", made, spans, lost, true)
		case row.Part == cores:
			complete(row.Title+", a core of its own, saturated", made, spans, lost, false)
		case row.Spans > 1:
			complete(row.Title+", queries counted as well, saturated", made, spans, lost, false)
		default:
			complete(row.Title+", saturated", made, spans, lost, false)
		}
	}
	if f := r.Memory; f != nil {
		complete(goKind.title+", "+number(f.Load.PerSecond)+" requests/s", f.Served, f.Spans, f.Ledger.lost(), true)
	}
	return t
}

// part yields the rows of some parts, in the order in which they were measured.
func (r *report) part(names ...string) func(yield func(row) bool) {
	return func(yield func(row) bool) {
		for _, row := range r.Rows {
			if slices.Contains(names, row.Part) && !yield(row) {
				return
			}
		}
	}
}

// busy is how much of its core the server used with the agent there.
func (r row) busy() float64 {
	return spreadOf(figures(r.Pairs, func(p pair) float64 {
		return ratio(p.With.ServerCPU.Seconds(), p.With.Wall.Seconds())
	})).Median
}

func (r *report) programTable() *table {
	t := &table{}
	t.add("server", "program", "ns per run", "runs per request", "ns per request")
	sum, server := 0.0, ""
	flush := func() {
		if server != "" {
			t.add(server, "**all**", "", "", fmt.Sprintf("**%.0f**", sum))
		}
		sum = 0
	}
	for _, p := range r.Programs {
		if p.Server != server {
			flush()
			server = p.Server
		}
		per := ratio(p.Seconds*1e9, float64(p.Requests))
		if per < 0.5 {
			continue
		}
		sum += per
		t.add(p.Server, "`"+p.Program+"`", fmt.Sprintf("%.0f", ratio(p.Seconds*1e9, p.Runs)),
			fmt.Sprintf("%.2f", ratio(p.Runs, float64(p.Requests))), fmt.Sprintf("%.0f", per))
	}
	flush()
	return t
}

func (r *report) callsTable() *table {
	t := &table{}
	t.add("", "without", "with", "more")
	for _, kind := range callKinds {
		without := spreadOf(figures(r.Calls, func(c callsRow) float64 { return c.Without[kind.name] }))
		with := spreadOf(figures(r.Calls, func(c callsRow) float64 { return c.With[kind.name] }))
		more := spreadOf(figures(r.Calls, func(c callsRow) float64 { return c.With[kind.name] - c.Without[kind.name] }))
		t.add(kind.title, nanoseconds(without.Median), nanoseconds(with.Median),
			fmt.Sprintf("%+.0f ns (%+.0f – %+.0f)", more.Median, more.Min, more.Max))
	}
	return t
}

// surroundings says what else a reader has to know of the figures.
func (r *report) surroundings() []string {
	var notes []string
	var others, stolen []float64
	var tracers []int
	for _, c := range r.Calls {
		tracers = append(tracers, c.Tracers)
	}
	for _, row := range r.Rows {
		for _, p := range row.Pairs {
			tracers = append(tracers, p.Without.Tracers, p.With.Tracers)
			others = append(others, p.Without.Others, p.With.Others)
			stolen = append(stolen, p.Without.Stolen, p.With.Stolen)
		}
		if _, _, _, errors := row.sum(); errors > 0 {
			notes = append(notes, fmt.Sprintf("%s of the load generator, %s, %s.", count(int(errors), "error"), row.Part, row.Server))
		}
		lost := map[string]int64{}
		for _, p := range row.Pairs {
			if p.With.Ledger != nil {
				for cause, n := range p.With.Ledger.Lost {
					lost[cause] += n
				}
			}
		}
		for _, cause := range slices.Sorted(maps.Keys(lost)) {
			notes = append(notes, fmt.Sprintf("Lost, %s, %s: %s %s.", row.Part, row.Server, number(float64(lost[cause])), cause))
		}
	}
	if len(others) > 0 {
		o, s := spreadOf(others), spreadOf(stolen)
		notes = append(notes, fmt.Sprintf("While this ran, other programs used %.2f of the %d CPUs (%.2f–%.2f), and the hypervisor took %.2f (%.2f–%.2f).",
			o.Median, r.Machine.CPUs, o.Min, o.Max, s.Median, s.Min, s.Max))
	}
	if disturbed := slices.DeleteFunc(slices.Clone(tracers), func(n int) bool { return n == 0 }); len(disturbed) > 0 {
		notes = append(notes, fmt.Sprintf("Before %d of %d runs, BPF programs of other tracers hung on events of this machine (up to %d): "+
			"they cost both sides.", len(disturbed), len(tracers), slices.Max(disturbed)))
	}
	if text := r.undisturbed(); text != "" {
		notes = append(notes, text)
	}
	var tools []string
	var sink, load []float64
	for row := range r.part(throughput) {
		if row.Server == sdkKind.name {
			continue
		}
		tools = append(tools, row.Pairs[0].With.Load.Tool)
		sink = append(sink, row.per10k(func(s sample) time.Duration { return s.SinkCPU }).Median)
		load = append(load, row.per10k(func(s sample) time.Duration { return s.Load.CPU }).Median)
	}
	slices.Sort(tools)
	if tools = slices.Compact(tools); len(tools) > 0 {
		notes = append(notes, fmt.Sprintf("Saturated by %s: %d connections, one thread, %.3f s of CPU per 10 000 requests. The OTLP endpoint, on the "+
			"same CPUs, counts spans and throws them away: %.3f s. nginx has %d workers on all CPUs, and one on a core of its own.",
			strings.Join(tools, ", "), saturationConns, spreadOf(load).Median, spreadOf(sink).Median, nginxWorkers))
	}
	return notes
}

// undisturbed compares only the pairs in which everything else left the machine alone, where that was
// not so for all.
func (r *report) undisturbed() string {
	var list []string
	all := true
	for _, row := range r.Rows {
		quiet := row
		quiet.Pairs = slices.DeleteFunc(slices.Clone(row.Pairs), func(p pair) bool { return !p.undisturbed() })
		all = all && len(quiet.Pairs) == len(row.Pairs)
		if len(quiet.Pairs) == 0 {
			continue
		}
		_, _, ratios := quiet.compare(row.main())
		list = append(list, fmt.Sprintf("%s %s %s of %s", row.Part, row.Server, plain(ratios), count(ratios.N, "pair")))
	}
	switch {
	case all:
		return ""
	case len(list) == 0:
		return "In no pair at all, other programs left the machine alone: repeat the run when they do."
	}
	return fmt.Sprintf("Only of the pairs in which other programs used less than %.1f CPUs and no other tracer was there: %s.",
		quietCPUs, strings.Join(list, ", "))
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

func total(m map[string]float64) (sum float64) {
	for _, v := range m {
		sum += v
	}
	return sum
}

// number writes a whole number with a space between groups of three digits.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	text := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}

func written(ratio float64) string {
	switch {
	case math.IsNaN(ratio):
		return "–"
	case ratio == 1:
		return "1"
	}
	return strconv.FormatFloat(ratio, 'f', 6, 64)
}

func plain(s spread) string {
	if s.N == 0 {
		return "–"
	}
	if s.N == 1 {
		return fmt.Sprintf("%.2f", s.Median)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max)
}

func seconds(s spread) string {
	if s.N == 1 {
		return fmt.Sprintf("%.3f s", s.Median)
	}
	return fmt.Sprintf("%.3f s (%.3f–%.3f)", s.Median, s.Min, s.Max)
}

func microseconds(ns float64) string { return number(ns/1000) + " µs" }

func nanoseconds(ns float64) string { return number(ns) + " ns" }

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
