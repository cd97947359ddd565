// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"breadcrumb/internal/recording"
	"breadcrumb/test/e2e"
	"breadcrumb/test/e2e/servers"
)

var (
	number  = flag.Int("requests", 5000, "with -full: how many requests are made, by 1, by 8 and by 64 at once")
	full    = flag.Bool("full", false, "make every request of the published table, and write it")
	record  = flag.String("record", "", "keep what happens in a small run of each in a `folder`, for the replay test")
	compare = flag.Bool("throughput", true, "with -full: measure the throughput without the agent too")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *full {
		scenarios = append(scenarios, more...)
	}
	code := m.Run()
	servers.Clean()
	os.Exit(code)
}

// emulated says that it is a virtual machine in which it runs, where everything takes a hundred times as long.
func emulated() bool { return os.Getenv("BREADCRUMB_ATTACH") != "" }

// load is how a scenario is driven.
type load struct{ requests, concurrency int }

// loads are what each scenario is driven with: one request at a time, if there are any, and many at once.
func loads() (single load, many []load) {
	switch {
	case *record != "":
		return single, []load{{24, 8}}
	case emulated():
		return single, []load{{160, 16}}
	case *full:
		return load{*number, 1}, []load{{*number, 8}, {*number, 64}}
	}
	return single, []load{{600, 64}}
}

// TestParents holds the parent of every call to the truth: none may be wrong.
func TestParents(t *testing.T) {
	var table table
	defer func() {
		if *full {
			table.publish(t)
		}
	}()
	single, many := loads()
	if single.requests > 0 { // they wait most of the time
		t.Run("one at once", func(t *testing.T) {
			for _, s := range scenarios {
				t.Run(s.name(), func(t *testing.T) {
					t.Parallel()
					s.check(t, single, &table)
				})
			}
		})
	}
	for _, s := range scenarios {
		t.Run(s.name(), func(t *testing.T) {
			for _, l := range many {
				s.check(t, l, &table)
			}
		})
	}
}

// check drives the scenario and holds what comes of it to the truth.
func (s scenario) check(t *testing.T, l load, table *table) {
	t.Helper()
	r := s.measure(t, l)
	t.Logf("%d at once: %s", l.concurrency, r)
	table.add(s, r)
	if r.missing > 0 || r.dangling > 0 {
		t.Errorf("%d calls have no span, %d parents were never exported", r.missing, r.dangling)
	}
	if r.unjoined > 0 {
		t.Errorf("%d requests that were served are not under the call that made them", r.unjoined)
	}
	if r.wrong > 0 {
		t.Errorf("%d of %d parents are wrong, by %v", r.wrong, r.calls(), r.misled)
	}
	least := s.Least
	if emulated() { // before a rule has what it needs, more is over
		least /= 2
	}
	if right := r.percent(r.right); l.concurrency > 1 && right < least && *record == "" {
		t.Errorf("%.2f %% of the parents are right, want at least %.2f %%", right, s.Least)
	}
}

const (
	document   = "docs/accuracy.md"
	tableBegin = "<!-- make accuracy: begin -->\n"
	tableEnd   = "<!-- make accuracy: end -->\n"
	header     = "| runtime | calls | at once | right | none | wrong | requests/s with ÷ without | by | requests, on |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |\n"
)

// table is what is published: a line for each scenario and load.
type table struct {
	mu   sync.Mutex
	rows map[string]string // by the cells that name the line
}

// rowKey is the cells of a line that name it.
func rowKey(row string) string { return strings.Join(strings.SplitN(row, "|", 5)[1:4], "|") }

func (b *table) add(s scenario, r *result) {
	ratio := ""
	if r.plain > 0 {
		ratio = fmt.Sprintf("%.2f", r.rate/r.plain)
	}
	row := s.cells(r.concurrency) + fmt.Sprintf(" %.2f %% | %.2f %% | %d | %s | %s | %d, %s |\n", r.percent(r.right), r.percent(r.none), r.wrong, ratio, strings.Join(slices.Sorted(maps.Keys(r.sources)), ", "),
		r.requests, time.Now().Format(time.DateOnly))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rows == nil {
		b.rows = map[string]string{}
	}
	b.rows[rowKey(row)] = row
}

// cells are the beginning of a line, which names it.
func (s scenario) cells(concurrency int) string {
	shape := s.Shape
	if s.Note != "" {
		shape += " (" + s.Note + ")"
	}
	return fmt.Sprintf("| %s | %s | %d |", s.Runtime, shape, concurrency)
}

// publish puts the lines into the document, in the place of those that it has of the same, in the scenarios' order, and those of
// the greatest load into the README.
func (b *table) publish(t *testing.T) {
	t.Helper()
	rows := map[string]string{}
	for line := range strings.Lines(published(t, document)) {
		if strings.Count(line, "|") > 4 {
			rows[rowKey(line)] = line
		}
	}
	maps.Copy(rows, b.rows)
	var whole, short strings.Builder
	whole.WriteString(header)
	short.WriteString(header)
	for _, s := range scenarios {
		for _, concurrency := range []int{1, 8, 64} {
			row := rows[rowKey(s.cells(concurrency))]
			whole.WriteString(row)
			if concurrency == 64 {
				short.WriteString(row)
			}
		}
	}
	fmt.Print(whole.String())
	replace(t, document, whole.String())
	replace(t, "README.md", short.String())
}

// published is the table in a file.
func published(t *testing.T, name string) string {
	t.Helper()
	_, table, _ := cut(t, name)
	return table
}

// replace puts another table into a file.
func replace(t *testing.T, name, table string) {
	t.Helper()
	before, _, after := cut(t, name)
	if err := os.WriteFile(filepath.Join(servers.ModuleRoot(), name), []byte(before+tableBegin+table+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// cut cuts a file at the lines between which the table stands.
func cut(t *testing.T, name string) (before, table, after string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servers.ModuleRoot(), name))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	table, after, found := strings.Cut(rest, tableEnd)
	if !ok || !found {
		t.Fatalf("%s lacks the lines between which the table stands", name)
	}
	return before, table, after
}

// result is what became of a scenario under one load.
type result struct {
	load
	perRequest         int
	right, none, wrong int
	missing            int // calls without a span
	dangling           int
	unjoined           int            // requests that a service served for another one, and that are not under its call
	sources, misled    map[string]int // of right parents, and of wrong ones
	rate, plain        float64        // requests/s with the agent, and without
}

// calls is how many were made.
func (r *result) calls() int { return r.requests * r.perRequest }

func (r *result) percent(n int) float64 { return 100 * float64(n) / float64(r.calls()) }

func (r *result) String() string {
	return fmt.Sprintf("right %.2f none %.2f wrong %.2f %% of %d, %v", r.percent(r.right), r.percent(r.none), r.percent(r.wrong), r.calls(), r.sources)
}

func (s scenario) measure(t *testing.T, l load) *result {
	t.Helper()
	server := s.Start(t, servers.Options{Env: startBackends(t)})
	defer server.Process.Stop()
	after := ""
	if s.Shape == "call" {
		after = "/0" // a proxy, which passes the path on
	}
	run := func(n int, prefix string) float64 {
		begin := time.Now()
		apply(t, server, n, l.concurrency, func(i int) string { return fmt.Sprintf("/%s/%s%d%s", s.Shape, prefix, i, after) })
		return float64(n) / time.Since(begin).Seconds()
	}
	r := &result{load: l, perRequest: s.Calls, sources: map[string]int{}, misled: map[string]int{}}
	if *record == "" {
		// Some things are done once and belong to no request: undici has its first calls wait until its parser is compiled.
		run(l.requests/5, "warm")
	}
	var o e2e.AgentOptions
	for s := server; s != nil; s = s.Behind {
		o.Select = append(o.Select, e2e.PIDs(s)...)
	}
	if *full && *compare && l.concurrency > 1 {
		r.throughput(t, o, run)
	}
	file := filepath.Join(t.TempDir(), "recording")
	if *record != "" {
		o.Command = []string{"record", file}
	}
	agent := e2e.StartAgent(t, o)
	run(l.requests, "")
	calls, requests := s.tree("")
	agent.WaitSpans(l.requests * (requests + len(calls)))
	spans, _ := agent.Stop()
	if *record != "" {
		keep(t, file, filepath.Join(*record, strings.NewReplacer("/", "-", " ", "-", ",", "", "(", "", ")", "").Replace(s.name())+".recording"))
	}
	r.judge(s, spans)
	return r
}

// rounds are how often the throughput is measured, without the agent and with it.
const rounds = 3

// throughput measures it without the agent and with it, in turns. What the agent prints is read by nobody: that would take of the
// processors what is not the agent's.
func (r *result) throughput(t *testing.T, o e2e.AgentOptions, run func(n int, prefix string) float64) {
	t.Helper()
	o.Unread = true
	n := r.requests / rounds
	for range rounds {
		r.plain += run(n, "plain") / rounds
		agent := e2e.StartAgent(t, o)
		r.rate += run(n, "timed") / rounds
		agent.Stop()
	}
}

// keep copies a recording without what it says of the machine.
func keep(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, err := recording.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := recording.NewWriter(out)
	if err != nil {
		t.Fatal(err)
	}
	for {
		kind, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if kind == recording.Target {
			var target struct {
				PID      uint32           `json:"pid"`
				Resource []map[string]any `json:"resource"`
			}
			if err := json.Unmarshal(data, &target); err != nil {
				t.Fatal(err)
			}
			target.Resource = slices.DeleteFunc(target.Resource, func(a map[string]any) bool {
				return a["key"] != "service.name" && a["key"] != "process.runtime.name"
			})
			if data, err = json.Marshal(target); err != nil {
				t.Fatal(err)
			}
		}
		w.Write(kind, data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// madeFor says whether a call is for a request, by their paths: a request for "/shape/id" makes the calls "/call/id/number", where
// the id of a service that was called has more than one part; a proxy passes on the path.
func madeFor(call, request string) bool {
	_, made, _ := strings.Cut(strings.TrimPrefix(call, "/"), "/")
	_, id, _ := strings.Cut(strings.TrimPrefix(request, "/"), "/")
	return call == request || path.Dir(made) == id
}

// judge compares every parent with the ids in the paths.
func (r *result) judge(s scenario, spans []*e2e.Span) {
	open := map[string]bool{}
	for i := range r.requests {
		calls, _ := s.tree(strconv.Itoa(i))
		if s.Shape == "call" {
			calls = []string{fmt.Sprintf("/call/%d/0", i)}
		}
		for _, path := range calls {
			open[path] = true
		}
	}
	byID := map[string]*e2e.Span{}
	for _, s := range spans {
		byID[s.SpanID] = s
	}
	for _, s := range spans {
		if s.ParentID != "" && byID[s.ParentID] == nil {
			r.dangling++
		}
		if s.Kind == "server" {
			if caller := byID[s.ParentID]; caller == nil || caller.Kind != "client" || caller.Path() != s.Path() {
				r.unjoined++
			}
			continue
		}
		if !open[s.Path()] {
			continue
		}
		delete(open, s.Path())
		parent := byID[s.ParentID]
		switch {
		case parent == nil:
			r.none++
		case parent.Kind == "server" && madeFor(s.Path(), parent.Path()) && parent.TraceID == s.TraceID:
			r.right++
			r.sources[s.Text("breadcrumb.parent.source")]++
		default:
			r.wrong++
			r.misled[s.Text("breadcrumb.parent.source")]++
		}
	}
	r.missing = len(open)
	r.unjoined -= r.requests // those of the driver
}
