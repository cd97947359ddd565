// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"breadcrumb/internal/ledger"

	"github.com/prometheus/procfs"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Hooks are called when the set of traced processes changes, one at a time and in order. They may look
// processes up, but not report events. A hook that is nil is not called.
type Hooks struct {
	// Added is called for each process that is to be traced from now on.
	Added func(*Target)
	// Removed is called when a process has ended, or by an exec has become one that is not wanted.
	Removed func(*Target)
	// Replaced is called instead of Removed and Added when a traced process stays so, but is known
	// otherwise: after an exec (the account is a new one), or when more is known of it (the account is
	// the same).
	Replaced func(old, new *Target)
}

const (
	// keepExited is how many processes that ended can still be looked up, for events on their way, and
	// have an account of their own.
	keepExited = 4096
	// keepServices is how many services have a sum of their own for older exited processes.
	keepServices = 1024
	// otherServices is the name of the sum of all further ones.
	otherServices = "(other)"
	// settleTime is how long after its start a process may still load the libraries that say what it is.
	settleTime = 5 * time.Second
)

// Table is the registry of the traced processes. The reader of the kernel's events tells it of execs,
// forks and exits; Scan finds what ran before, Rescan what no event tells. Its methods may be called from
// any goroutine.
//
// Events must be attached before Scan is called: then no process is missed, and events for processes that
// the scan has already seen change nothing.
type Table struct {
	inspect *Inspector
	rules   *Selector
	hooks   Hooks
	log     *zap.Logger
	// chosen are the start times of the processes that rules ask for by PID; 0 where there was none. A
	// process with another start time only has the same number.
	chosen map[uint32]uint64

	// change is held while one process is looked at and the hooks are told.
	change sync.Mutex

	// mu guards what follows. Changes hold both; hooks are called with change alone.
	mu     sync.RWMutex
	live   map[uint32]*entry
	exited []*Target          // oldest first
	recent map[uint32]*Target // those of exited that have not been replaced
	folded map[string]*Tally  // by service
}

// entry is a process that is traced, or that is not but whose children may be.
type entry struct {
	*Target
	traced  bool
	settled time.Time // until then, what the process is may still show
}

// NewTable returns an empty table. The processes that rules ask for by PID are those that have the PIDs
// now.
func NewTable(inspector *Inspector, rules *Selector, hooks Hooks, log *zap.Logger) *Table {
	t := &Table{
		inspect: inspector,
		rules:   rules,
		hooks:   hooks,
		log:     log,
		chosen:  make(map[uint32]uint64),
		live:    make(map[uint32]*entry),
		recent:  make(map[uint32]*Target),
		folded:  make(map[string]*Tally),
	}
	for _, pid := range rules.pids() {
		t.chosen[pid] = inspector.start(pid)
	}
	return t
}

// userHZ is the unit of /proc/PID/stat on every architecture that Go runs on.
const userHZ = 100

// ticks is the time since boot in the unit of Target.Start.
func ticks() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return uint64(now.Nano()) / (1e9 / userHZ)
}

// start is the start time of a process, or 0 when it is gone.
func (i *Inspector) start(pid uint32) uint64 {
	p, err := i.fs.Proc(int(pid))
	if err != nil {
		return 0
	}
	stat, err := p.Stat()
	if err != nil {
		return 0
	}
	return stat.Starttime
}

// Lookup is the traced process with a PID, also for a while after its end; nil when there is none.
func (t *Table) Lookup(pid uint32) *Target {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e, ok := t.live[pid]; ok {
		if e.traced {
			return e.Target
		}
		return nil
	}
	return t.recent[pid]
}

// Targets are the processes that are traced now, by PID.
func (t *Table) Targets() []*Target {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var all []*Target
	for _, e := range t.live {
		if e.traced {
			all = append(all, e.Target)
		}
	}
	slices.SortFunc(all, func(a, b *Target) int { return cmp.Compare(a.PID, b.PID) })
	return all
}

// Scan looks at every process that is not traced yet. It may be repeated, as when events were lost. It
// fails when a process asked for by PID does not exist; everything else is traced nevertheless.
func (t *Table) Scan() error {
	if err := t.scan(func(uint32, networks) bool { return true }); err != nil {
		return err
	}
	var errs []error
	for _, pid := range t.rules.pids() {
		if t.chosen[pid] == 0 {
			errs = append(errs, fmt.Errorf("--pid %d: no such process: `breadcrumb ps` lists those that run", pid))
		}
	}
	return errors.Join(errs...)
}

// Rescan finds what no event tells: processes that have begun to listen or were moved to another cgroup,
// where rules depend on that; and of those that are traced, new ports, runtimes that were loaded late, and
// rings. It also removes processes whose exit was lost.
func (t *Table) Rescan() error {
	switch {
	case t.rules.UsesCgroups():
		return t.scan(func(uint32, networks) bool { return true })
	case t.rules.UsesPorts():
		return t.scan(t.listens)
	}
	return t.scan(nil)
}

// listens says whether a process listens on a port that a rule asks for.
func (t *Table) listens(pid uint32, nets networks) bool {
	l := nets.listeners(t.inspect.dir(pid))
	wanted := false
	for _, port := range l {
		wanted = wanted || t.rules.wantsPort(port)
	}
	if !wanted {
		return false // nobody in its network namespace does
	}
	d, err := t.inspect.descriptors(pid)
	return err == nil && slices.ContainsFunc(l.of(d.sockets), t.rules.wantsPort)
}

// scan looks at the processes that are traced, and at those of the others that want says.
func (t *Table) scan(want func(pid uint32, nets networks) bool) error {
	nets := make(networks)
	t.mu.RLock()
	known := make([]uint32, 0, len(t.live))
	for pid := range t.live {
		known = append(known, pid)
	}
	t.mu.RUnlock()
	slices.Sort(known)
	for _, pid := range known {
		t.visit(pid, nets)
	}
	if want == nil {
		return nil
	}
	procs, err := t.inspect.fs.AllProcs()
	if err != nil {
		return fmt.Errorf("list %s: %w", t.inspect.root, err)
	}
	// A parent comes before its children, so that they are known for such.
	slices.SortFunc(procs, func(a, b procfs.Proc) int { return cmp.Compare(a.PID, b.PID) })
	for _, p := range procs {
		pid := uint32(p.PID)
		if _, ok := slices.BinarySearch(known, pid); !ok && want(pid, nets) {
			t.visit(pid, nets)
		}
	}
	return nil
}

// Listening says that a process has begun to listen on a TCP port.
func (t *Table) Listening(pid uint32) {
	if e := t.entry(pid); t.rules.UsesPorts() || e != nil && e.traced {
		t.visit(pid, nil)
	}
}

// Moved says that a process was moved to another control group.
func (t *Table) Moved(pid uint32) {
	if t.rules.UsesCgroups() {
		t.visit(pid, nil)
	}
}

// visit looks at one process without an event.
func (t *Table) visit(pid uint32, nets networks) {
	t.change.Lock()
	defer t.change.Unlock()
	t.look(pid, nets)
}

// look is visit for one who holds change.
func (t *Table) look(pid uint32, nets networks) {
	e := t.entry(pid)
	if e != nil {
		if start := t.inspect.start(pid); start == 0 || start != e.Start {
			t.exit(pid)
			e = nil
		}
	}
	if e != nil && e.traced {
		t.refresh(e, nets)
		return
	}
	found, err := t.inspect.identify(pid)
	if err != nil {
		return
	}
	if e != nil {
		found.Under = e.Under
	} else {
		found.Under = t.under(found)
	}
	wait := time.Duration(0)
	if age := ticks() - found.Start; age < uint64(settleTime/time.Second)*userHZ {
		wait = settleTime
	}
	t.admit(found, nets, wait)
}

// Exec says that a process has a new image. Where it has already ended, filename and the path of a control group
// that it was in, which may be empty, are all that is known of it.
func (t *Table) Exec(pid uint32, filename, cgroup string) {
	t.change.Lock()
	defer t.change.Unlock()
	old := t.entry(pid)
	if old == nil && t.unwanted(pid, filename) {
		return
	}
	found, err := t.inspect.identify(pid)
	switch {
	case errors.Is(err, ErrGone):
		t.execGone(pid, filename, cgroup, old)
		return
	case err != nil:
		t.log.Debug("process cannot be looked at", zap.Uint32("pid", pid), zap.Error(err))
		return
	}
	switch {
	case old == nil:
		found.Under = t.under(found)
	case old.Start == found.Start || old.Start == 0:
		found.Under = old.Under
	default:
		t.exit(pid)
		found.Under = t.under(found)
	}
	t.admit(found, nil, settleTime)
}

// unwanted says without much reading that no rule can take a process that is new here: a machine that
// compiles has thousands of execs a second.
func (t *Table) unwanted(pid uint32, filename string) bool {
	if _, ok := t.chosen[pid]; ok || t.rules.UsesPorts() || t.rules.UsesCgroups() {
		return false
	}
	look := Target{Exe: filename}
	if exe, err := os.Readlink(t.inspect.dir(pid) + "/exe"); err == nil {
		look.Exe = strings.TrimSuffix(exe, " (deleted)")
	}
	look.PID = pid
	_, ok := t.rules.Match(&look)
	return !ok
}

// execGone describes a process that had ended before it could be looked at. It stays in the table until
// its exit is told, for the events that it left.
func (t *Table) execGone(pid uint32, filename, cgroup string, old *entry) {
	if filename == "" {
		return // what it was forked from has to do
	}
	found := &Target{Exe: filename, Cgroup: cgroup, ContainerID: containerID(cgroup), Gaps: []string{"ended before it could be looked at"}}
	found.PID = pid
	if old != nil {
		found.Start, found.Parent, found.Under = old.Start, old.Parent, old.Under
		if cgroup == "" {
			found.Cgroup, found.ContainerID = old.Cgroup, old.ContainerID
		}
	}
	rule, ok := t.match(found)
	if !ok {
		t.replace(pid, nil)
		return
	}
	found.Rule = rule
	t.inspect.guess(found)
	t.replace(pid, &entry{Target: found, traced: true})
}

// Fork says that a process has a child. The child of a traced process is traced before it does anything.
func (t *Table) Fork(parent, child uint32) {
	t.change.Lock()
	defer t.change.Unlock()
	from := t.entry(parent)
	if from == nil && t.chosen[parent] != 0 { // the scan has not come to it
		t.look(parent, nil)
		from = t.entry(parent)
	}
	if from == nil {
		return
	}
	start := t.inspect.start(child)
	if e := t.entry(child); e != nil {
		if e.Start == start {
			return // the scan was here first
		}
		t.exit(child)
	}
	c := *from.Target
	c.PID, c.Start, c.Parent = child, start, parent
	c.Under = t.under(&c)
	rule, ok := t.match(&c)
	if !ok && len(c.Under) == 0 {
		return
	}
	c.Rule = rule
	c.Account = new(ledger.Account)
	switch {
	case ok && from.traced:
		c.Resource = t.inspect.resource(&c)
	case ok: // of the parent no more was read than the rules needed
		t.inspect.guess(&c)
	}
	t.replace(child, &entry{Target: &c, traced: ok, settled: from.settled})
}

// Exit says that a process has ended.
func (t *Table) Exit(pid uint32) {
	t.change.Lock()
	defer t.change.Unlock()
	t.exit(pid)
}

func (t *Table) entry(pid uint32) *entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.live[pid]
}

// under is whom a process descends from, of those that rules ask for by PID.
func (t *Table) under(found *Target) []uint32 {
	if len(t.chosen) == 0 {
		return nil
	}
	var under []uint32
	if parent := t.entry(found.Parent); parent != nil {
		under = parent.Under
	}
	if start, ok := t.chosen[found.Parent]; ok && start != 0 && start == t.inspect.start(found.Parent) && !slices.Contains(under, found.Parent) {
		under = append(slices.Clone(under), found.Parent)
	}
	return under
}

// match asks the rules.
func (t *Table) match(found *Target) (rule string, ok bool) {
	start, chosen := t.chosen[found.PID]
	return t.rules.match(found, chosen && start != found.Start)
}

// admit puts a process that was identified into the table, if it is wanted, in place of what the table
// had for its PID.
func (t *Table) admit(found *Target, nets networks, settle time.Duration) {
	var (
		d      descriptors
		denied error
		read   bool
	)
	if t.rules.UsesPorts() {
		d, denied = t.inspect.descriptors(found.PID)
		read = true
		if len(d.sockets) > 0 {
			found.Ports = nets.listeners(t.inspect.dir(found.PID)).of(d.sockets)
		}
	}
	rule, ok := t.match(found)
	if !ok {
		var e *entry
		if len(found.Under) > 0 {
			e = &entry{Target: found}
		}
		t.replace(found.PID, e)
		return
	}
	if !read {
		d, denied = t.inspect.descriptors(found.PID)
	}
	found.Rule = rule
	if err := t.inspect.complete(found, d, denied, nets); err != nil {
		t.log.Debug("process ended while it was looked at", zap.Uint32("pid", found.PID), zap.Error(err))
		t.inspect.guess(found)
	}
	e := &entry{Target: found, traced: true}
	if settle > 0 {
		e.settled = time.Now().Add(settle)
	}
	if old := t.entry(found.PID); old != nil && old.traced && old.sameImage(found) {
		found.Account = old.Account // the event comes after what it tells was seen
	}
	t.replace(found.PID, e)
}

// sameImage says that nothing shows an exec between the two.
func (t *Target) sameImage(o *Target) bool {
	return t.Start == o.Start && t.Exe == o.Exe && t.Service == o.Service && slices.Equal(t.Args, o.Args)
}

// guess describes a process of which no more than path, cgroup and PID can be known.
func (i *Inspector) guess(t *Target) {
	t.Language, t.Version, t.runtime = byName(t.Exe)
	if t.Service = i.agent.service; t.Service == "" {
		t.Service = command{exe: t.Exe, args: t.Args, cwd: func() string { return "" }, read: func(string) []byte { return nil }}.service()
	}
	t.extra = i.agent.attributes
	if t.Account == nil {
		t.Account = new(ledger.Account)
	}
	t.Resource = i.resource(t)
}

// refresh looks again at what of a traced process may have changed.
func (t *Table) refresh(e *entry, nets networks) {
	d, denied := t.inspect.descriptors(e.PID)
	if errors.Is(denied, ErrGone) {
		return // its exit will be told, or the next pass sees it
	}
	now := *e.Target
	if !e.settled.IsZero() && now.Exe != "" {
		var look Target
		if err := t.inspect.detect(t.inspect.dir(e.PID), now.Exe, &look); err == nil {
			now.Language, now.Version, now.runtime = look.Language, look.Version, look.runtime
		}
	}
	t.inspect.connect(&now, d, denied, nets)
	settled := e.settled
	if time.Now().After(settled) {
		settled = time.Time{}
	}
	if now.Language == e.Language && now.Version == e.Version && slices.Equal(now.Ports, e.Ports) && slices.Equal(now.Gaps, e.Gaps) {
		e.settled = settled // only changes read it
		return
	}
	now.Resource = t.inspect.resource(&now)
	t.replace(e.PID, &entry{Target: &now, traced: true, settled: settled})
}

// exit takes a process out.
func (t *Table) exit(pid uint32) {
	t.mu.Lock()
	e, ok := t.live[pid]
	delete(t.live, pid)
	if ok && e.traced {
		t.recent[pid] = e.Target
		t.retire(e.Target)
	}
	t.mu.Unlock()
	if ok && e.traced {
		t.removed(e.Target)
	}
}

// replace puts an entry, or nothing, in the place of a process that has not ended.
func (t *Table) replace(pid uint32, e *entry) {
	t.mu.Lock()
	old := t.live[pid]
	delete(t.recent, pid)
	if e == nil {
		delete(t.live, pid)
	} else {
		t.live[pid] = e
	}
	if old != nil && old.traced && (e == nil || !e.traced || e.Account != old.Account) {
		t.retire(old.Target)
	}
	t.mu.Unlock()

	was, is := old != nil && old.traced, e != nil && e.traced
	switch {
	case was && is:
		t.log.Debug("process is known otherwise", zap.Uint32("pid", pid), zap.String("service", e.Service), zap.String("exe", e.Exe))
		if t.hooks.Replaced != nil {
			t.hooks.Replaced(old.Target, e.Target)
		}
	case was:
		t.removed(old.Target)
	case is:
		t.log.Debug("process is traced", zap.Uint32("pid", pid), zap.String("service", e.Service), zap.String("exe", e.Exe),
			zap.String("rule", e.Rule), zap.Strings("gaps", e.Gaps))
		if t.hooks.Added != nil {
			t.hooks.Added(e.Target)
		}
	}
}

func (t *Table) removed(old *Target) {
	t.log.Debug("process is no longer traced", zap.Uint32("pid", old.PID), zap.String("service", old.Service))
	if t.hooks.Removed != nil {
		t.hooks.Removed(old)
	}
}

// Tally is an account, or the sum of those of a service's processes that have ended.
type Tally struct {
	PID       uint32 // 0 for a sum
	Service   string
	Exited    bool
	Processes int
	Counts    ledger.Counts
}

// retire keeps the account of a process that is no longer traced. The oldest is added to its service's
// sum; one with messages under way waits while there is room.
func (t *Table) retire(old *Target) {
	t.exited = append(t.exited, old)
	if len(t.exited) <= keepExited {
		return
	}
	oldest := 0
	for n, e := range t.exited[:keepExited/8] {
		if counts := e.Account.Counts(); counts.Open() == 0 {
			oldest = n
			break
		}
	}
	e := t.exited[oldest]
	t.exited = slices.Delete(t.exited, oldest, oldest+1)
	if t.recent[e.PID] == e {
		delete(t.recent, e.PID)
	}
	name := e.Service
	if t.folded[name] == nil && len(t.folded) >= keepServices {
		name = otherServices
	}
	sum := t.folded[name]
	if sum == nil {
		sum = &Tally{Service: name, Exited: true}
		t.folded[name] = sum
	}
	sum.Processes++
	sum.Counts = sum.Counts.Plus(e.Account.Counts())
}

// Accounts are all that was counted: for each process that is or was traced, and in sums for those that
// ended long ago. They are in the order of service and PID.
func (t *Table) Accounts() []Tally {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Tally, 0, len(t.live)+len(t.exited)+len(t.folded))
	for _, e := range t.live {
		if e.traced {
			all = append(all, Tally{e.PID, e.Service, false, 1, e.Account.Counts()})
		}
	}
	for _, e := range t.exited {
		all = append(all, Tally{e.PID, e.Service, true, 1, e.Account.Counts()})
	}
	for _, sum := range t.folded {
		all = append(all, *sum)
	}
	slices.SortStableFunc(all, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.PID, b.PID))
	})
	return all
}
