// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"breadcrumb/internal/ledger"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// journal is what a table's hooks were told.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) hooks(table **Table) Hooks {
	note := func(format string, args ...any) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.lines = append(j.lines, fmt.Sprintf(format, args...))
	}
	return Hooks{
		Added: func(t *Target) {
			if (*table).Lookup(t.PID) != t {
				panic("the hook's target is not in the table")
			}
			note("+%d", t.PID)
		},
		Removed:  func(t *Target) { note("-%d", t.PID) },
		Replaced: func(_, t *Target) { note("~%d", t.PID) },
	}
}

// expect compares what was told since the last time.
func (j *journal) expect(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, want) {
		t.Errorf("hooks were told %q, want %q", j.lines, want)
	}
	j.lines = nil
}

func newTable(t testing.TB, i *Inspector, rules ...Rule) (*Table, *journal) {
	t.Helper()
	s, err := NewSelector(rules)
	if err != nil {
		t.Fatal(err)
	}
	var (
		table *Table
		j     journal
	)
	table = NewTable(i, s, j.hooks(&table), zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	return table, &j
}

func name(sign string, pid uint32) string { return fmt.Sprint(sign, pid) }

// copyOf makes the test binary a program of another name.
func copyOf(t testing.TB, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	data, err := os.ReadFile(executablePath(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func runCopy(t testing.TB, file string) *child {
	t.Helper()
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), helperVar+"=1")
	return run(t, cmd)
}

func TestScanFindsWhatRuns(t *testing.T) {
	file := copyOf(t, "scanned")
	a, b := runCopy(t, file), runCopy(t, file)
	table, j := newTable(t, newInspector(t), Rule{Exe: mustGlob(t, file)})
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	pids := []uint32{a.pid(), b.pid()}
	slices.Sort(pids)
	j.expect(t, name("+", pids[0]), name("+", pids[1]))
	got := table.Lookup(a.pid())
	if got == nil || got.Service != "scanned" || got.Rule != "rules[0]" || got.Account == nil || got.Language != Go {
		t.Fatalf("%+v", got)
	}
	if err := table.Scan(); err != nil { // the same again changes nothing
		t.Fatal(err)
	}
	j.expect(t)
	if table.Lookup(a.pid()) != got || len(table.Targets()) != 2 {
		t.Error("a second scan changed the table")
	}

	table.Exit(a.pid())
	j.expect(t, name("-", a.pid()))
	if table.Lookup(a.pid()) != got {
		t.Error("a process that ended cannot be looked up")
	}
	if targets := table.Targets(); len(targets) != 1 || targets[0].PID != b.pid() {
		t.Errorf("%v", targets)
	}
	table.Exit(a.pid())
	j.expect(t)
}

func TestExecIsLookedAtAnew(t *testing.T) {
	before, after := copyOf(t, "before"), copyOf(t, "after")
	t.Run("becomes wanted", func(t *testing.T) {
		table, j := newTable(t, newInspector(t), Rule{Exe: mustGlob(t, after)})
		c := runCopy(t, before)
		table.Exec(c.pid(), before, "")
		j.expect(t)
		c.do(t, "exec "+after)
		table.Exec(c.pid(), after, "")
		j.expect(t, name("+", c.pid()))
	})
	t.Run("stays wanted", func(t *testing.T) {
		table, j := newTable(t, newInspector(t), Rule{Exe: mustGlob(t, before)}, Rule{Exe: mustGlob(t, "after")})
		c := runCopy(t, before)
		table.Exec(c.pid(), before, "")
		j.expect(t, name("+", c.pid()))
		first := table.Lookup(c.pid())
		first.Account.Add(ledger.Seen, 1)
		first.Account.Add(ledger.Exported, 1)

		table.Exec(c.pid(), before, "") // told late, after the scan has seen it
		j.expect(t, name("~", c.pid()))
		if got := table.Lookup(c.pid()); got.Account != first.Account {
			t.Error("the account was lost")
		}

		c.do(t, "exec "+after)
		table.Exec(c.pid(), after, "")
		j.expect(t, name("~", c.pid()))
		got := table.Lookup(c.pid())
		if got.Service != "after" || got.Rule != "rules[1]" || got.Account == first.Account || got.Start != first.Start {
			t.Errorf("%+v", got)
		}
		var old []Tally
		for _, a := range table.Accounts() {
			if a.Exited {
				old = append(old, a)
			}
		}
		if len(old) != 1 || old[0].Service != "before" || old[0].Counts[ledger.Exported] != 1 {
			t.Errorf("accounts %+v", old)
		}
	})
	t.Run("is wanted no more", func(t *testing.T) {
		table, j := newTable(t, newInspector(t), Rule{Exe: mustGlob(t, before)})
		c := runCopy(t, before)
		table.Exec(c.pid(), before, "")
		c.do(t, "exec "+after)
		table.Exec(c.pid(), after, "")
		j.expect(t, name("+", c.pid()), name("-", c.pid()))
		if got := table.Lookup(c.pid()); got != nil {
			t.Errorf("its events would go to %s", got.Service)
		}
	})
}

func TestChildrenOfTracedProcessesAreTraced(t *testing.T) {
	file := copyOf(t, "parent")
	i := newInspector(t)
	table, j := newTable(t, i, Rule{Exe: mustGlob(t, file)})
	parent := runCopy(t, file)
	table.Exec(parent.pid(), file, "")
	child := uint32(parent.number(t, "fork "+file))
	table.Fork(parent.pid(), child)
	j.expect(t, name("+", parent.pid()), name("+", child))
	p, c := table.Lookup(parent.pid()), table.Lookup(child)
	if c.PID != child || c.Start < p.Start || c.Start == 0 || c.Parent != p.PID || c.Service != p.Service || c.Rule != p.Rule || c.Account == p.Account {
		t.Errorf("%+v", c)
	}
	pa, ca := attributes(t, p), attributes(t, c)
	if ca["process.pid"] != fmt.Sprint(child) || ca["service.instance.id"] == pa["service.instance.id"] {
		t.Errorf("%v", ca)
	}
	// A full look says the same of it.
	full, err := i.Inspect(child)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(attributes(t, full), ca); diff != "" {
		t.Error(diff)
	}
	table.Fork(parent.pid(), child)
	j.expect(t)

	// One that has ended already leaves its events.
	const gone = 1 << 30
	table.Fork(parent.pid(), gone)
	j.expect(t, name("+", gone))
	if g := table.Lookup(gone); g.Start != 0 || g.Service != "parent" {
		t.Errorf("%+v", g)
	}
	table.Exec(gone, "/usr/bin/other", "")
	j.expect(t, name("-", gone))

	table.Fork(gone, gone+1) // of a process that is not traced
	j.expect(t)
}

func TestDescendantsOfAChosenProcessAreTracedWhateverTheyRun(t *testing.T) {
	file, other := copyOf(t, "chosen"), copyOf(t, "other")
	parent := runCopy(t, file)
	before := uint32(parent.number(t, "fork "+other)) // started before the agent
	table, j := newTable(t, newInspector(t), Rule{Exclude: true, Exe: mustGlob(t, "excluded")}, Rule{PID: parent.pid()})
	after := uint32(parent.number(t, "fork "+other)) // started while the agent does, its events lost
	if before < parent.pid() || after < before {
		t.Skip("the process numbers have wrapped")
	}
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	j.expect(t, name("+", parent.pid()), name("+", before), name("+", after))
	if got := table.Lookup(after); got == nil || got.Rule != "rules[1]" || got.Service != "other" {
		t.Errorf("%+v", got)
	}

	later := uint32(parent.number(t, "fork "+other))
	table.Fork(parent.pid(), later)
	table.Exec(later, other, "")
	j.expect(t, name("+", later), name("~", later))
	if got := table.Lookup(later); got == nil || got.Rule != "rules[1]" || got.Service != "other" {
		t.Errorf("%+v", got)
	}

	// The child of a descendant that a rule leaves out is still a descendant.
	excluded := uint32(parent.number(t, "fork "+copyOf(t, "excluded")))
	table.Fork(parent.pid(), excluded)
	table.Exec(excluded, "", "")
	j.expect(t, name("+", excluded), name("-", excluded))
	const gone = 1 << 30
	table.Fork(excluded, gone)
	table.Exec(gone, "/usr/bin/grandchild", "")
	if got := table.Lookup(gone); got == nil || got.Service != "grandchild" || got.Rule != "rules[1]" {
		t.Errorf("%+v", got)
	}
}

func TestAPIDThatIsUsedAgainIsAnotherProcess(t *testing.T) {
	table, j := newTable(t, newInspector(t), Rule{All: true})
	c := runHelper(t)
	table.Exec(c.pid(), "", "")
	j.expect(t, name("+", c.pid()))
	first := table.Lookup(c.pid())

	// The exit was lost, and the number is another process's now.
	stale := *first
	stale.Start--
	table.live[c.pid()].Target = &stale
	if err := table.Rescan(); err != nil {
		t.Fatal(err)
	}
	j.expect(t, name("-", c.pid()), name("+", c.pid()))
	if got := table.Lookup(c.pid()); got.Start != first.Start || got.Account == first.Account {
		t.Errorf("%+v", got)
	}

	// A rule means the process that had the number at the start.
	table, j = newTable(t, newInspector(t), Rule{PID: c.pid()})
	table.chosen[c.pid()]--
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	table.Exec(c.pid(), "", "")
	j.expect(t)

	table, _ = newTable(t, newInspector(t), Rule{PID: 1 << 30})
	if err := table.Scan(); err == nil || !strings.Contains(err.Error(), "no such process") {
		t.Errorf("%v", err)
	}
}

func TestRescanFindsNewPortsAndRings(t *testing.T) {
	c := runHelper(t)
	first := uint16(c.number(t, "listen 127.0.0.1:0"))
	c.number(t, "listen 127.0.0.1:0")
	late := runHelper(t)
	table, j := newTable(t, newInspector(t), Flags{Ports: []PortRange{{first, first}}}.Rules()...)
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	j.expect(t, name("+", c.pid()))

	// Which port the kernel gives is known only afterwards.
	port := uint16(late.number(t, "listen 127.0.0.1:0"))
	rules, err := NewSelector(Flags{Ports: []PortRange{{first, first}, {port, port}}}.Rules())
	if err != nil {
		t.Fatal(err)
	}
	table.rules = rules
	if err := table.Rescan(); err != nil {
		t.Fatal(err)
	}
	j.expect(t, name("+", late.pid()))
	if got := table.Lookup(late.pid()); got == nil || got.Rule != fmt.Sprintf("--port %d", port) {
		t.Fatalf("%+v", got)
	}

	account := table.Lookup(c.pid()).Account
	third := uint16(c.number(t, "listen 127.0.0.1:0"))
	table.Listening(c.pid())
	j.expect(t, name("~", c.pid()))
	if got := table.Lookup(c.pid()); !slices.Contains(got.Ports, third) || got.Account != account {
		t.Errorf("%+v", got)
	}
	table.Listening(c.pid())
	j.expect(t)
	if c.do(t, "io_uring") != "true" {
		t.Skip("the kernel has no io_uring, or refuses it")
	}
	if err := table.Rescan(); err != nil {
		t.Fatal(err)
	}
	j.expect(t, name("~", c.pid()))
	if got := table.Lookup(c.pid()); !slices.Equal(got.Gaps, []string{ioUringGap}) {
		t.Errorf("gaps %q", got.Gaps)
	}
}

func TestForkOfAChosenProcessThatTheScanHasNotSeen(t *testing.T) {
	c := runHelper(t)
	table, j := newTable(t, newInspector(t), Rule{PID: c.pid()})
	const gone = 1 << 30
	table.Fork(c.pid(), gone)
	j.expect(t, name("+", c.pid()), name("+", gone))
}

func TestProcessThatEndedBeforeItWasLookedAtIsKnownByItsFile(t *testing.T) {
	table, j := newTable(t, newInspector(t), Rule{Exe: mustGlob(t, "short")})
	const pid = 1 << 30
	table.Exec(pid, "/usr/bin/other", "")
	j.expect(t)
	table.Exec(pid, "/usr/bin/short", "")
	j.expect(t, name("+", pid))
	got := table.Lookup(pid)
	if got.Service != "short" || len(got.Gaps) != 1 || got.Account == nil {
		t.Errorf("%+v", got)
	}
	table.Exit(pid)
	j.expect(t, name("-", pid))
	if table.Lookup(pid) != got {
		t.Error("its events have no target")
	}
}

func TestAccountsOfExitedProcessesAreBoundedAndComplete(t *testing.T) {
	i, _ := fixture(t, "shop.txtar")
	table, _ := newTable(t, i, Rule{All: true})
	const n = keepExited + 1000
	for k := range n {
		pid := uint32(1<<20 + k)
		table.Exec(pid, fmt.Sprintf("/bin/service%d", k%3), "")
		a := table.Lookup(pid).Account
		a.Add(ledger.Seen, 2)
		a.Add(ledger.Exported, 1)
		if k > 0 { // the first has a message under way
			a.Add(ledger.RingFull, 1)
		}
		table.Exit(pid)
	}
	var sum ledger.Counts
	processes, open := 0, uint32(0)
	accounts := table.Accounts()
	for _, a := range accounts {
		sum = sum.Plus(a.Counts)
		processes += a.Processes
		if !a.Exited {
			t.Errorf("%+v", a)
		}
		if a.Counts.Open() > 0 {
			open = a.PID
		}
	}
	if len(accounts) != keepExited+3 || processes != n || sum[ledger.Seen] != 2*n || sum.Open() != 1 {
		t.Errorf("%d accounts of %d processes, %d messages, %d open", len(accounts), processes, sum[ledger.Seen], sum.Open())
	}
	if open != 1<<20 {
		t.Error("the process with a message under way lost its account")
	}
	if table.Lookup(1<<20+1) != nil || table.Lookup(1<<20+n-1) == nil {
		t.Error("the wrong processes can still be looked up")
	}
	if len(table.recent) > keepExited {
		t.Errorf("%d can be looked up", len(table.recent))
	}

	for k := range keepExited + 2*keepServices {
		pid := uint32(1<<21 + k)
		table.Exec(pid, fmt.Sprintf("/bin/many%d", k), "")
		table.Exit(pid)
	}
	if len(table.folded) > keepServices+1 {
		t.Errorf("%d sums", len(table.folded))
	}
}

func TestTableMayBeUsedFromSeveralGoroutines(t *testing.T) {
	table, _ := newTable(t, newInspector(t), Rule{All: true})
	file := copyOf(t, "parent")
	c := runCopy(t, file)
	var wg sync.WaitGroup
	for _, f := range []func(k uint32){
		func(k uint32) { table.Fork(c.pid(), 1<<30+k) },
		func(k uint32) { table.Exit(1<<30 + k) },
		func(k uint32) { table.Exec(c.pid(), file, "") },
		func(k uint32) { table.Lookup(c.pid()) },
		func(k uint32) { table.Listening(c.pid()) },
		func(k uint32) { table.Accounts(); table.Targets() },
	} {
		wg.Go(func() {
			for k := range uint32(50) {
				f(k)
			}
		})
	}
	wg.Go(func() {
		if err := table.Scan(); err != nil {
			t.Error(err)
		}
		if err := table.Rescan(); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	if table.Lookup(c.pid()) == nil {
		t.Error("the process is not in the table")
	}
	if table.Lookup(uint32(os.Getpid())) != nil {
		t.Error("the agent traces itself")
	}
}

func BenchmarkScan(b *testing.B) {
	i := newInspector(b)
	s, err := NewSelector([]Rule{{All: true}})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		table := NewTable(i, s, Hooks{}, zap.NewNop())
		if err := table.Scan(); err != nil {
			b.Fatal(err)
		}
		n += len(table.Targets())
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "us/process")
}

// BenchmarkExecUnwanted is what every exec of the machine costs while something else is traced.
func BenchmarkExecUnwanted(b *testing.B) {
	table, _ := newTable(b, newInspector(b), Flags{Exes: []Glob{mustGlob(b, "none")}}.Rules()...)
	pid := uint32(os.Getppid())
	b.ReportAllocs()
	for b.Loop() {
		table.Exec(pid, "", "")
	}
}

func BenchmarkFork(b *testing.B) {
	table, _ := newTable(b, newInspector(b), Rule{All: true})
	pid := uint32(os.Getppid())
	table.Exec(pid, "", "")
	b.ReportAllocs()
	for b.Loop() {
		table.Fork(pid, 1)
		table.Exit(1)
	}
}

func BenchmarkLookup(b *testing.B) {
	table, _ := newTable(b, newInspector(b), Rule{All: true})
	pid := uint32(os.Getppid())
	table.Exec(pid, "", "")
	b.ReportAllocs()
	for b.Loop() {
		if table.Lookup(pid) == nil {
			b.Fatal("not there")
		}
	}
}
