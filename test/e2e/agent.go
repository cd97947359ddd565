// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"breadcrumb/test/e2e/servers"
)

// patience is a safety net: no test passes or fails by how long something takes, but one that waits for
// what never comes has to end.
const patience = 60 * time.Second

// nobody is a user, and a group, that owns nothing.
const nobody = 65534

// Agent is a running breadcrumb.
type Agent struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{} // closed when it has exited and all that it wrote was read

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every change of what follows
	spans   []*Span
	broken  []string // lines on stdout that are no spans
	stderr  []string
	tracing bool
	summary *Summary
	stopped bool
}

// largeRing is for what says more in a second than there is room for by default, should the agent not get to run.
const largeRing = "kernel:\n  ring_bytes: 134217728\n"

// AgentOptions say how to start an agent.
type AgentOptions struct {
	// Command and its arguments before the selection; run if empty.
	Command []string
	// Select are the selection flags.
	Select []string
	// Flags come after them; --output json if empty.
	Flags []string
	// Config is written to a file that --config names.
	Config string
	// Attach is the way in, one of Attachments; whatever the agent finds best if nil.
	Attach *Attachment
	// Env is added to the environment.
	Env []string
	// Capabilities are all that it has, as a user who is not root; root's if nil.
	Capabilities []uintptr
	// Unread has nobody read what the agent prints.
	Unread bool
	// NoWait returns before the agent is tracing.
	NoWait bool
}

// Counts are the entries of a ledger by their names.
type Counts map[string]int64

// losses are the entries that are a loss.
var losses = []string{"ring_full", "map_full", "unreadable", "truncated", "unparsed", "muted", "queue_full", "export_refused"}

// Lost is the sum of all losses.
func (c Counts) Lost() int64 {
	var n int64
	for _, name := range losses {
		n += c[name]
	}
	return n
}

// Summary is what the agent says of itself when it ends.
type Summary struct {
	Total     Counts
	Processes []Account
}

// Account is the part of a summary that is about one process.
type Account struct {
	PID     int
	Service string
	Counts  Counts
}

// UnmarshalJSON reads an account, whose counts stand beside its name.
func (a *Account) UnmarshalJSON(data []byte) error {
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	a.Counts = Counts{}
	for key, value := range all {
		switch v := value.(type) {
		case string:
			if key == "service" {
				a.Service = v
			}
		case float64:
			if key == "pid" {
				a.PID = int(v)
			} else {
				a.Counts[key] = int64(v)
			}
		}
	}
	return nil
}

// Binary is the agent's executable: the one that BREADCRUMB names, else built once for all tests. With
// BREADCRUMB_KEEP, failed tests leave the spans that they got in that folder.
func Binary(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the agent needs root")
	}
	if path := os.Getenv("BREADCRUMB"); path != "" {
		return path
	}
	return servers.Build(t, "cmd/agent")
}

// PIDs selects processes by their numbers.
func PIDs(list ...*servers.Server) []string {
	var flags []string
	for _, s := range list {
		for _, pid := range s.PIDs {
			flags = append(flags, "--pid", strconv.Itoa(pid))
		}
	}
	return flags
}

// Trace starts an agent on the servers and waits until it traces them.
func Trace(t testing.TB, list ...*servers.Server) *Agent {
	t.Helper()
	return TraceBy(t, nil, list...)
}

// TraceBy is Trace by a certain way in.
func TraceBy(t testing.TB, attach *Attachment, list ...*servers.Server) *Agent {
	t.Helper()
	return StartAgent(t, AgentOptions{Select: PIDs(list...), Attach: attach})
}

// StartAgent starts an agent that ends with the test.
func StartAgent(t testing.TB, o AgentOptions) *Agent {
	t.Helper()
	if len(o.Command) == 0 {
		o.Command = []string{"run"}
	}
	if len(o.Flags) == 0 {
		o.Flags = []string{"--output", "json"}
	}
	args := append(append(append([]string{}, o.Command...), o.Select...), o.Flags...)
	if o.Attach != nil {
		args = append(args, "--attach", o.Attach.Name)
	}
	if o.Config != "" {
		path := filepath.Join(t.TempDir(), "breadcrumb.yaml")
		if err := os.WriteFile(path, []byte(o.Config), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}

	a := &Agent{t: t, done: make(chan struct{}), changed: make(chan struct{})}
	a.cmd = exec.Command(Binary(t), args...)
	a.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}, o.Env...)
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if o.Capabilities != nil {
		a.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		a.cmd.SysProcAttr.AmbientCaps = o.Capabilities
	}
	var readers sync.WaitGroup
	if !o.Unread {
		stdout, err := a.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() { a.read(stdout, a.stdoutLine) })
	}
	stderr, err := a.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readers.Go(func() { a.read(stderr, a.stderrLine) })
	go func() {
		readers.Wait()
		a.cmd.Wait()
		close(a.done)
	}()
	t.Cleanup(func() {
		a.kill()
		if t.Failed() {
			a.mu.Lock()
			defer a.mu.Unlock()
			tail := a.stderr[max(0, len(a.stderr)-40):]
			t.Logf("%s\nprinted %d spans, and on stderr:\n%s", a.cmd, len(a.spans), strings.Join(tail, "\n"))
			a.keep(os.Getenv("BREADCRUMB_KEEP"))
		}
	})
	if !o.NoWait {
		a.wait(t, "trace", func() bool { return a.tracing })
		if line := a.WaitLine("tracing"); o.Attach != nil && !strings.Contains(line, o.Attach.Feature) {
			t.Fatalf("the agent does not use %s: %s", o.Attach.Feature, line)
		}
	}
	return a
}

func (a *Agent) read(r io.Reader, line func(string)) {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		text, err := in.ReadString('\n')
		if text != "" {
			line(strings.TrimSuffix(text, "\n"))
		}
		if err != nil {
			return
		}
	}
}

func (a *Agent) stdoutLine(line string) {
	s, err := parseSpan(line)
	a.change(func() {
		if err != nil {
			a.broken = append(a.broken, err.Error())
		} else {
			a.spans = append(a.spans, s)
		}
	})
}

func (a *Agent) stderrLine(line string) {
	var summary *Summary
	if text, ok := strings.CutPrefix(line, "ledger "); ok {
		summary = &Summary{}
		if err := json.Unmarshal([]byte(text), summary); err != nil {
			a.t.Errorf("the ledger cannot be read: %v: %s", err, line)
		}
	}
	a.change(func() {
		a.stderr = append(a.stderr, line)
		a.tracing = a.tracing || saysTracing(line)
		if summary != nil {
			a.summary = summary
		}
	})
}

// Said says whether a line of the agent's log, or of its summary, holds a text.
func (a *Agent) Said(text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.stderr, func(line string) bool { return strings.Contains(line, text) })
}

// saysTracing finds the message "tracing" in a line of zap's, in either of its forms.
func saysTracing(line string) bool {
	var entry struct{ Msg string }
	if json.Unmarshal([]byte(line), &entry) == nil {
		return entry.Msg == "tracing"
	}
	for field := range strings.SplitSeq(line, "\t") {
		if field == "tracing" {
			return true
		}
	}
	return false
}

func (a *Agent) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

// wait returns when ready, which is called under the lock after every change, says so.
func (a *Agent) wait(t testing.TB, what string, ready func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		a.mu.Lock()
		ok, changed, spans := ready(), a.changed, len(a.spans)
		a.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-a.done:
			a.mu.Lock()
			ok = ready()
			a.mu.Unlock()
			if !ok {
				t.Fatalf("the agent ended (%v) before it did: %s; it has printed %d spans", a.cmd.ProcessState, what, spans)
			}
		case <-deadline:
			t.Fatalf("the agent does not: %s; it has printed %d spans", what, spans)
		}
	}
}

// PID is the agent's process.
func (a *Agent) PID() int { return a.cmd.Process.Pid }

// Signal sends the agent a signal.
func (a *Agent) Signal(s syscall.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Fatal(err)
	}
}

// RSS is the agent's resident memory in bytes.
func (a *Agent) RSS() int64 {
	a.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.PID()))
	if err != nil {
		a.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	a.t.Fatal("no VmRSS")
	return 0
}

// Spans is what was printed up to now.
func (a *Agent) Spans() []*Span {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spans[:len(a.spans):len(a.spans)]
}

// WaitSpans waits until the agent has printed n spans.
func (a *Agent) WaitSpans(n int) []*Span {
	a.t.Helper()
	a.wait(a.t, fmt.Sprintf("print %d spans", n), func() bool { return len(a.spans) >= n })
	return a.Spans()
}

// WaitSpan waits until the agent has printed a span for which match holds.
func (a *Agent) WaitSpan(what string, match func(*Span) bool) *Span {
	a.t.Helper()
	var found *Span
	next := 0
	a.wait(a.t, "print a span: "+what, func() bool {
		for ; next < len(a.spans) && found == nil; next++ {
			if match(a.spans[next]) {
				found = a.spans[next]
			}
		}
		return found != nil
	})
	return found
}

// WaitLine waits until the agent has written a line to stderr that holds text.
func (a *Agent) WaitLine(text string) string {
	a.t.Helper()
	var found string
	a.wait(a.t, "say "+text, func() bool {
		i := slices.IndexFunc(a.stderr, func(line string) bool { return strings.Contains(line, text) })
		if i >= 0 {
			found = a.stderr[i]
		}
		return i >= 0
	})
	return found
}

// Ended waits until the agent, which is not asked to, has ended. It returns its exit status and what it wrote
// to stderr.
func (a *Agent) Ended() (int, string) {
	a.t.Helper()
	select {
	case <-a.done:
	case <-time.After(patience):
		a.t.Fatal("the agent does not end")
	}
	return a.cmd.ProcessState.ExitCode(), strings.Join(a.stderr, "\n")
}

// Stop ends the agent by SIGINT, waits until it has exited with status 0, and returns all that it
// printed and its summary, whose sums must add up.
func (a *Agent) Stop() ([]*Span, *Summary) {
	a.t.Helper()
	a.Signal(syscall.SIGINT)
	return a.Wait()
}

// Wait is Stop for an agent that ends by itself.
func (a *Agent) Wait() ([]*Span, *Summary) {
	a.t.Helper()
	select {
	case <-a.done:
	case <-time.After(patience):
		a.t.Fatal("the agent does not end")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if code := a.cmd.ProcessState.ExitCode(); code != 0 {
		a.t.Fatalf("the agent ended with %v", a.cmd.ProcessState)
	}
	if len(a.broken) > 0 {
		a.t.Fatalf("stdout holds %d lines that are no spans; the first: %s", len(a.broken), a.broken[0])
	}
	if a.summary == nil {
		a.t.Fatal("the agent printed no ledger")
	}
	if err := a.summary.check(); err != nil {
		a.t.Errorf("the ledger does not add up: %v", err)
	}
	return a.spans, a.summary
}

// check holds the summary to its sums.
func (s *Summary) check() error {
	var m Mismatches
	sum := Counts{}
	of := func(who string, c Counts) {
		if open := c["seen"] - c["exported"] - c.Lost(); open != 0 {
			m.add("seen is not exported + lost", "%s, by %d: %v", who, open, c)
		}
	}
	of("total", s.Total)
	for _, p := range s.Processes {
		of(fmt.Sprintf("%s (%d)", p.Service, p.PID), p.Counts)
		for name, n := range p.Counts {
			sum[name] += n
		}
	}
	for _, name := range append([]string{"seen", "exported"}, losses...) {
		n, ok := s.Total[name]
		if !ok {
			m.add("entry missing", "%s", name)
		}
		if n != sum[name] {
			m.add("total is not the sum over processes", "%s: %d and %d", name, n, sum[name])
		}
	}
	return m.Err()
}

// kill ends an agent that a failed test left behind.
func (a *Agent) kill() {
	select {
	case <-a.done:
		return
	default:
	}
	// It gets the chance to say what it knows.
	a.cmd.Process.Signal(syscall.SIGCONT)
	a.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-a.done:
	case <-time.After(5 * time.Second):
		a.cmd.Process.Kill()
		<-a.done
	}
}

// keep writes what a failed test's agent printed to a folder, for whoever looks for the reason.
func (a *Agent) keep(folder string) {
	if folder == "" {
		return
	}
	var text strings.Builder
	for _, s := range a.spans {
		fmt.Fprintln(&text, s.Line)
	}
	path := filepath.Join(folder, strings.ReplaceAll(a.t.Name(), "/", "_")+".jsonl")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		a.t.Error(err)
	}
}

// NothingLost holds a summary to a number of messages of which none was lost.
func NothingLost(t testing.TB, s *Summary, messages int) {
	t.Helper()
	if s.Total["exported"] != int64(messages) || s.Total.Lost() != 0 {
		t.Errorf("the ledger says %v; want %d exported and nothing lost", s.Total, messages)
	}
}
