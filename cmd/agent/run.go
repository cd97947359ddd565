// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/export"
	"breadcrumb/export/jsonl"
	"breadcrumb/export/otlp"
	"breadcrumb/export/tree"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/recording"
	"breadcrumb/internal/span"
	"breadcrumb/internal/version"
	"breadcrumb/probes"
	"breadcrumb/probes/runtime/golang"
	"breadcrumb/probes/runtime/java"
	"breadcrumb/probes/runtime/nodejs"
	"breadcrumb/probes/runtime/python"
	"breadcrumb/probes/runtime/tokio"
	"breadcrumb/probes/runtime/uprobe"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"
	"golang.org/x/term"
)

type runCmd struct {
	selection `embed:""`
	common    `embed:""`
	tracing   `embed:""`

	MetricsAddr string `name:"metrics-addr" placeholder:"ADDR" help:"Serve /metrics, /healthz and /debug/pprof there, for instance localhost:9464."`
}

func (c *runCmd) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if c.MetricsAddr != "" {
		cfg.MetricsAddr = c.MetricsAddr
	}
	if err := c.override(&cfg); err != nil {
		return err
	}
	return run(ctx, cfg, append(c.rules(), cfg.Rules...), "")
}

type recordCmd struct {
	File      string `arg:"" type:"path" help:"Where the events are written."`
	selection `embed:""`
	common    `embed:""`
	tracing   `embed:""`
}

func (c *recordCmd) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if err := c.override(&cfg); err != nil {
		return err
	}
	if cfg.Output == "" {
		cfg.Output = "none"
	}
	return run(ctx, cfg, append(c.rules(), cfg.Rules...), c.File)
}

const (
	// rescanEvery is how often what no event tells is looked for: new ports, late libraries, lost exits.
	rescanEvery = 10 * time.Second
	// leaveAfter is how long the connections of a process that has ended are kept: they may be others' as well, and
	// their end is told as any other. Only what is still there then was lost.
	leaveAfter = 10 * time.Second
	// clockEvery is how often the clock is read anew: Unix time may be set while the agent runs.
	clockEvery = 10 * time.Second
	// flushTime is what the end of a run may take to send what is queued.
	flushTime = 10 * time.Second
)

// agent is a run: the kernel side, the processes that it watches, and the pipeline behind it.
type agent struct {
	log      *zap.Logger
	core     *bpf.Core
	runtimes map[discovery.Language]runtimeProbe
	rules    *discovery.Selector
	table    *discovery.Table
	cgroups  *discovery.Cgroups // nil: the kernel side does not choose by them
	queue    *export.Queue
	pipeline *pipeline

	mu       sync.Mutex
	probes   map[uint32]uprobe.Closers // attached to a process
	counted  map[uint32]bpf.Target     // what of the kernel's counters is in the ledger
	rings    map[uint32]string         // services that use io_uring
	leaving  []leaving                 // in the order of their time
	attached sync.WaitGroup
	noted    sync.Map // by executable and note: it was logged

	attaching     context.Context
	stopAttaching context.CancelFunc

	processesLost uint64 // events of processes that were lost, when all were last looked at
}

// runtimeProbe is what sees into the processes of one language.
type runtimeProbe interface {
	// Attach begins with a process. The note says what will not be seen of it and why; the Closer is nil if there is
	// nothing to be closed.
	Attach(ctx context.Context, t *discovery.Target) (c io.Closer, note string, err error)
	// Programs are the loaded programs by name.
	Programs() map[string]*ebpf.Program
	Close() error
}

// leaving is a process that has ended, or is not what it was.
type leaving struct {
	at      time.Time
	pid     uint32
	account *ledger.Account
}

// run traces until ctx is done; record, unless it is empty, is the file to which the events are written.
// Everything that happens to an event is here, top to bottom.
func run(ctx context.Context, cfg Config, rules []discovery.Rule, record string) (err error) {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	// A reader of standard output that goes away ends the output, not the run.
	signal.Ignore(syscall.SIGPIPE)
	inspector, err := discovery.New(discoveryConfig())
	if err != nil {
		return err
	}
	selector, err := discovery.NewSelector(rules)
	if err != nil {
		return err
	}
	if selector.Empty() {
		processes, err := inspector.Processes(nil)
		if err != nil {
			return err
		}
		return errors.New(processes.Suggest())
	}

	metrics, err := listenMetrics(cfg.MetricsAddr)
	if err != nil {
		return err
	}
	defer metrics.Close()

	// The stages, last to first.
	queue, closeOutput, err := newQueue(ctx, cfg, log)
	if err != nil {
		return err
	}
	core, err := bpf.Load(cfg.Kernel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, core.Close()) }()
	a := &agent{log: log, core: core, rules: selector, queue: queue, probes: map[uint32]uprobe.Closers{}, counted: map[uint32]bpf.Target{}, rings: map[uint32]string{}, runtimes: map[discovery.Language]runtimeProbe{}}
	a.attaching, a.stopAttaching = context.WithCancel(context.WithoutCancel(ctx))
	defer a.stopAttaching()
	seed := rand.Uint64()
	a.pipeline = newPipeline(protocols(&cfg), core, a.target, queue.Add, correlation(cfg.InferParents, seed))
	if record != "" {
		// It holds what was in the headers of requests: cookies, tokens.
		f, openErr := os.OpenFile(record, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if openErr != nil {
			return fmt.Errorf("create recording: %w", openErr)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if a.pipeline.rec, err = startRecording(f, seed); err != nil {
			return err
		}
	}
	if p, refused := golang.New(core, log.Named("go")); refused != nil {
		log.Warn("calls of Go's pooled HTTP client will have no parent", zap.Error(refused))
	} else {
		a.runtimes[discovery.Go] = p
	}
	if p, refused := python.New(core, log.Named("python")); refused != nil {
		log.Warn("calls in Python's event loops will have no parent", zap.Error(refused))
	} else {
		a.runtimes[discovery.Python] = p
	}
	a.runtimes[discovery.Java] = java.New(core)
	if p, refused := tokio.New(core); refused != nil {
		log.Warn("calls that tasks of tokio make will have no parent", zap.Error(refused))
	} else {
		a.runtimes[discovery.Rust] = p
	}
	if p, refused := nodejs.New(core); refused != nil {
		log.Warn("calls that Node makes after a timer or the like will have no parent", zap.Error(refused))
	} else {
		a.runtimes[discovery.Node] = p
	}
	defer func() {
		for _, p := range a.runtimes {
			err = errors.Join(err, p.Close())
		}
	}()
	a.table = discovery.NewTable(inspector, selector, discovery.Hooks{
		Added: a.added, Removed: a.removed, Replaced: a.replaced,
	}, log.Named("discovery"))

	a.watchBeforehand(inspector)
	// Events flow from here on: first those of processes, so that the scan misses none.
	var readers sync.WaitGroup
	readers.Go(a.readProcesses)
	if err := a.table.Scan(); err != nil {
		return errors.Join(err, a.shutDown(&readers, nil, closeOutput))
	}
	a.attached.Wait()
	a.pipeline.setClock(clockOffset())
	stopRead := make(chan struct{})
	readErr := make(chan error, 1)
	go func() { readErr <- a.read(stopRead) }()
	metrics.serve(a)
	defer metrics.Close() // before the kernel side, which it reads

	log.Info("tracing", zap.String("attachment", core.Attachment), zap.Int("processes", len(a.table.Targets())),
		zap.String("version", version.Version))
	debug.FreeOSMemory() // what reading the kernel's types took
	tick := time.NewTicker(rescanEvery)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case err = <-readErr:
			readErr <- nil
			running = false
		case <-tick.C:
			a.rescan()
			a.countKernel()
		}
	}
	// A second signal ends the agent at once.
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	close(stopRead)
	err = errors.Join(err, a.shutDown(&readers, readErr, closeOutput))
	a.summary(os.Stderr)
	return err
}

// watchBeforehand tells the kernel side whom the rules want whoever it is: those are seen from their first instruction on.
func (a *agent) watchBeforehand(inspector *discovery.Inspector) {
	for _, path := range a.rules.Images() {
		language, version, dev, inode, err := inspector.Executable(path)
		if err != nil {
			continue
		}
		if err := a.core.WatchImage(dev, inode, describe(language, version)); err != nil {
			a.late("by executable", err)
		}
	}
	if a.rules.UsesPorts() {
		if err := a.core.WatchPorts(a.rules.ByPort); err != nil {
			a.late("by port", err)
		}
	}
	if err := a.watchCgroups(); err != nil {
		a.late("by control group", err)
	}
}

func (a *agent) watchCgroups() (err error) {
	uses := a.rules.UsesCgroups()
	if !uses && !a.rules.ByCgroup("/") { // what wants all processes wants those of every control group
		return nil
	}
	if uses {
		if err := a.core.FollowCgroups(); err != nil {
			return err
		}
	}
	if a.cgroups, err = discovery.NewCgroups(a.rules); err != nil {
		return err
	}
	return a.cgroups.Chosen(a.core.WatchCgroup)
}

// late says that the kernel side cannot choose processes by itself.
func (a *agent) late(how string, err error) {
	a.log.Warn("processes that are chosen "+how+" are seen only from some milliseconds after their start on", zap.Error(err))
}

// rescan finds what no event told; where events of processes were lost, by looking at all of them.
func (a *agent) rescan() {
	look := a.table.Rescan
	if stats, err := a.core.Stats(); err == nil && stats["process_ring_full"] > a.processesLost {
		a.processesLost = stats["process_ring_full"]
		look = a.table.Scan
	}
	if err := look(); err != nil {
		a.log.Warn("look for new processes", zap.Error(err))
	}
}

// discoveryConfig is discovery's, told which version this is.
func discoveryConfig() discovery.Config {
	cfg := discovery.Default()
	cfg.Version = version.Version
	return cfg
}

// shutDown stops the flow at its source and sees out what is in it.
func (a *agent) shutDown(readers *sync.WaitGroup, readErr chan error, closeOutput func(context.Context) error) error {
	errs := []error{a.core.Detach(), a.core.Stop()}
	if readErr != nil {
		errs = append(errs, <-readErr)
	}
	readers.Wait()
	a.stopAttaching()
	a.attached.Wait()
	a.mu.Lock()
	for pid, p := range a.probes {
		errs = append(errs, p.Close())
		delete(a.probes, pid)
	}
	a.mu.Unlock()
	a.countKernel()
	if a.pipeline.rec != nil {
		errs = append(errs, a.pipeline.rec.Close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	return errors.Join(append(errs, a.queue.Shutdown(ctx), closeOutput(ctx))...)
}

// newQueue makes the exporters that are asked for and the queue before them.
func newQueue(ctx context.Context, cfg Config, log *zap.Logger) (*export.Queue, func(context.Context) error, error) {
	toOTLP := cfg.OTLP.Configured(os.Getenv)
	if cfg.Output == "" {
		cfg.Output = "none"
		if !toOTLP && term.IsTerminal(int(os.Stdout.Fd())) {
			cfg.Output = "tree"
		}
	}
	closeOutput := func(context.Context) error { return nil }
	var stdout io.Writer = os.Stdout
	if toOTLP && cfg.Output != "none" {
		w := export.NewBackgroundWriter(os.Stdout, 16<<20, log.Named("output"))
		stdout, closeOutput = w, w.Close
	}
	var exporter export.Exporter = export.Discard{}
	switch cfg.Output {
	case "tree":
		exporter = tree.New(stdout, tree.Detect(os.Stdout, os.Getenv))
	case "json":
		exporter = jsonl.New(stdout)
	}
	if toOTLP {
		client, err := otlp.New(ctx, cfg.OTLP, log.Named("otlp"))
		if err != nil {
			return nil, nil, err
		}
		if cfg.Output == "none" {
			exporter = client
		} else {
			exporter = export.Tee(client, exporter, log.Named("output"))
		}
	} else {
		if cfg.Output == "none" {
			log.Warn("spans go nowhere: give --otlp-endpoint, or --output tree or json")
		}
		// Somebody looks on.
		cfg.Queue.ScheduleDelay = min(cfg.Queue.ScheduleDelay, 200*time.Millisecond)
	}
	queue, err := export.New(cfg.Queue, exporter, probes.Recycle, log.Named("queue"))
	return queue, closeOutput, err
}

// read feeds the pipeline until the core is stopped, then ends what is under way.
func (a *agent) read(stop <-chan struct{}) error {
	clockRead := time.Now()
	defer func() { a.pipeline.stop(time.Now().UnixNano()) }()
	for {
		err := a.core.Read(a.event, func() bool {
			now := time.Now()
			if now.Sub(clockRead) > clockEvery {
				clockRead = now
				if o := clockOffset(); o-a.pipeline.conns.Clock() > 1e6 || o-a.pipeline.conns.Clock() < -1e6 {
					a.pipeline.setClock(o)
				}
			}
			a.dropLeft(now)
			a.attachOnDemand()
			for _, pid := range a.pipeline.corr.Wanting() {
				a.followHandOffs(pid)
			}
			for _, q := range a.pipeline.conns.Asking(now.UnixNano()) {
				if s, ok := a.core.ConnState(q.Key, q.ID); ok {
					a.pipeline.progress(q.ID, q.Dir, s.Pos[q.Dir], int64(s.Last[q.Dir]))
				}
			}
			a.pipeline.batch(now.UnixNano())
			return a.pipeline.pending()
		})
		if err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

func (a *agent) event(record []byte) {
	if bpf.Kind(record) == bpf.EventExec {
		a.drainProcesses() // what follows is of another program
	}
	a.pipeline.handle(record)
	if bpf.Kind(record) == bpf.EventExit {
		if e := bpf.View[bpf.ProcessEvent](record); e != nil {
			a.drainProcesses() // its exec comes before its exit
			a.table.Exit(e.Hdr.Tgid)
		}
	}
}

// readProcesses takes what happens to processes as soon as it does.
func (a *agent) readProcesses() {
	for {
		more, err := a.core.WaitProcesses()
		if err != nil {
			a.log.Error("processes that start from now on are not seen", zap.Error(err))
			return
		}
		a.drainProcesses()
		if !more {
			return
		}
	}
}

func (a *agent) drainProcesses() {
	if err := a.core.DrainProcesses(a.process); err != nil {
		a.log.Error("processes that have started are not seen", zap.Error(err))
	}
}

// process takes what happened to a process.
func (a *agent) process(e *bpf.ProcessEvent) {
	pid := e.Hdr.Tgid
	switch bpf.EventKind(e.Hdr.Kind) {
	case bpf.EventListen:
		a.table.Listening(pid)
	case bpf.EventMoved:
		a.table.Moved(pid)
	case bpf.EventCgroup:
		a.cgroupMade(e)
		return
	case bpf.EventFork:
		a.table.Fork(uint32(e.Of), pid)
	default:
		cgroup := ""
		if a.cgroups != nil {
			cgroup = a.cgroups.Path(e.Of)
		}
		a.table.Exec(pid, e.Text(), cgroup)
	}
	// The kernel side watches by itself whom it was told of beforehand, and the children of watched processes; the
	// rules may say otherwise.
	if t := a.table.Lookup(pid); t == nil {
		a.core.Unwatch(pid)
	}
}

func (a *agent) cgroupMade(e *bpf.ProcessEvent) {
	if a.cgroups == nil {
		return
	}
	path, err := e.Text(), error(nil)
	if len(path) < bpf.MaxText {
		err = a.cgroups.Made(e.Of, path, a.core.WatchCgroup)
	} else {
		err = a.cgroups.Chosen(a.core.WatchCgroup) // the path may be longer
	}
	if err != nil {
		a.late("by control group", err)
	}
}

// target is the process of an event. One that is not known yet has just been started.
func (a *agent) target(pid uint32) *span.Target {
	t := a.table.Lookup(pid)
	if t == nil {
		a.drainProcesses()
		if t = a.table.Lookup(pid); t == nil {
			return nil
		}
	}
	return &t.Target
}

// describe is what the kernel side must know of a process in a language.
func describe(language discovery.Language, version string) (w bpf.Target) {
	if language == discovery.Go {
		golang.Describe("go"+version, &w)
	}
	return w
}

// added watches a process. What its runtime needs follows as soon as its executable has been read.
func (a *agent) added(t *discovery.Target) {
	w := describe(t.Language, t.Version)
	if err := a.core.Watch(t.PID, w); err != nil {
		a.log.Warn("a process is not traced", zap.Uint32("pid", t.PID), zap.String("service", t.Service), zap.Error(err))
		return
	}
	a.watchImage(t, w)
	if t.UsesURing() {
		a.usesURing(t)
	}
	a.log.Debug("watching", zap.Uint32("pid", t.PID), zap.String("service", t.Service), zap.String("rule", t.Rule),
		zap.String("language", string(t.Language)), zap.String("version", t.Version))
	runtime := a.runtimes[t.Language]
	if runtime == nil {
		return
	}
	a.attached.Go(func() {
		probe, note, err := runtime.Attach(a.attaching, t)
		switch {
		case errors.Is(err, discovery.ErrGone):
		case err != nil:
			a.log.Warn("some calls of this process will have no parent", zap.Uint32("pid", t.PID), zap.String("service", t.Service),
				zap.String("language", string(t.Language)), zap.Error(err))
		case note != "":
			level := zap.InfoLevel
			if _, before := a.noted.LoadOrStore(t.Exe+"\x00"+note, true); before {
				level = zap.DebugLevel // of the same program, as one that a script runs again and again
			}
			a.log.Log(level, note, zap.Uint32("pid", t.PID), zap.String("service", t.Service))
		}
		if probe != nil {
			a.keep(t, probe)
		}
	})
}

// handOffProbe is a runtimeProbe that can tell of hand-offs between tasks as well.
type handOffProbe interface {
	AttachHandOffs(t *discovery.Target) (io.Closer, error)
}

// followHandOffs has those of a process told: it makes calls for nobody knows whom.
func (a *agent) followHandOffs(pid uint32) {
	t := a.table.Lookup(pid)
	if t == nil {
		return
	}
	follow := func(*discovery.Target) (io.Closer, error) { return a.core.FollowJobs() }
	if runtime, ok := a.runtimes[t.Language].(handOffProbe); ok {
		follow = runtime.AttachHandOffs
	}
	a.attached.Go(func() {
		probe, err := follow(t)
		switch {
		case errors.Is(err, discovery.ErrGone):
		case err != nil:
			a.log.Warn("calls that this process makes in pools have no parent", zap.Uint32("pid", pid),
				zap.String("service", t.Service), zap.Error(err))
		case probe != nil:
			a.log.Info("a process makes calls in threads or goroutines that serve no request: who waits for them is followed",
				zap.Uint32("pid", pid), zap.String("service", t.Service))
			a.keep(t, probe)
		}
	})
}

// keep closes what was attached to a process when that is no longer traced.
func (a *agent) keep(t *discovery.Target, probe io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.table.Lookup(t.PID); now == nil || now.Account != t.Account {
		_ = probe.Close()
		return
	}
	a.probes[t.PID] = append(a.probes[t.PID], probe)
}

// detach closes what was attached to a process, for one who holds mu.
func (a *agent) detach(pid uint32) {
	_ = a.probes[pid].Close()
	delete(a.probes, pid)
}

// watchImage has the next process that runs the executable watched at once, where that is all that the rule
// asks for.
func (a *agent) watchImage(t *discovery.Target, w bpf.Target) {
	if !a.rules.ByImage(t) {
		return
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/exe", t.PID))
	if err != nil {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := a.core.WatchImage(st.Dev, st.Ino, w); err != nil {
			a.log.Debug("short-lived processes may be missed", zap.String("exe", t.Exe), zap.Error(err))
		}
	}
}

// removed stops watching a process that has ended, or is not wanted any more.
func (a *agent) removed(t *discovery.Target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.detach(t.PID)
	if now, ok := a.core.Unwatch(t.PID); ok {
		before := a.counted[t.PID]
		probes.Count(t.Account, &before, &now)
	}
	delete(a.counted, t.PID)
	a.leaving = append(a.leaving, leaving{time.Now(), t.PID, t.Account})
}

// replaced goes on with a process that is known otherwise now.
func (a *agent) replaced(old, new *discovery.Target) {
	if old.Account == new.Account && old.Language == new.Language && old.Version == new.Version {
		if new.UsesURing() {
			a.usesURing(new)
		}
		return // more is known of it, nothing that the kernel side needs
	}
	if old.Account != new.Account {
		a.removed(old)
	} else {
		a.mu.Lock()
		a.detach(new.PID)
		a.mu.Unlock()
	}
	a.added(new)
}

func (a *agent) attachOnDemand() {
	attached, err := a.core.AttachOnDemand()
	switch {
	case err != nil:
		a.log.Warn("what a traced process needs cannot be attached: what it moves by io_uring, sendmmsg or recvmmsg is not seen, and on Unix sockets only the ends of calls are",
			zap.Error(err))
	case attached&bpf.NeedEntry != 0:
		a.log.Info("a traced process uses io_uring or recvmmsg: the entry of tcp_recvmsg is attached for it")
	case attached&bpf.NeedSyscalls != 0:
		a.log.Info("a traced process uses Unix sockets, sendmmsg or recvmmsg: sys_enter is attached for it, which costs each system call of the machine some 50 ns")
	}
}

// dropLeft gives up what is left of processes that have gone.
func (a *agent) dropLeft(now time.Time) {
	a.mu.Lock()
	n := 0
	for n < len(a.leaving) && now.Sub(a.leaving[n].at) > leaveAfter {
		n++
	}
	gone := slices.Clone(a.leaving[:n])
	a.leaving = slices.Delete(a.leaving, 0, n)
	a.mu.Unlock()
	for _, l := range gone {
		a.pipeline.drop(a.pipeline.conns.Of(l.pid, l.account), now.UnixNano())
	}
}

// countKernel brings what the kernel side lost into the ledger.
func (a *agent) countKernel() {
	for _, t := range a.table.Targets() {
		uses := false
		a.mu.Lock()
		if now, ok := a.core.Watched(t.PID); ok {
			before := a.counted[t.PID]
			probes.Count(t.Account, &before, &now)
			a.counted[t.PID] = now
			uses = now.Flags&^before.Flags&bpf.TargetURing != 0
		}
		a.mu.Unlock()
		if uses {
			a.usesURing(t)
		}
	}
}

// usesURing says once of a process that it moves bytes unseen.
func (a *agent) usesURing(t *discovery.Target) {
	if a.core.SeesURing() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.rings[t.PID]; known {
		return
	}
	a.rings[t.PID] = t.Service
	a.log.Warn("a process uses io_uring: what it moves over sockets with it is not seen", zap.Uint32("pid", t.PID),
		zap.String("service", t.Service))
}

func startRecording(w io.Writer, seed uint64) (*recording.Writer, error) {
	rec, err := recording.NewWriter(w)
	if err != nil {
		return nil, err
	}
	rec.Write(recording.Meta, fmt.Appendf(nil, `{"version":%q,"seed":%d}`, version.Version, seed))
	return rec, nil
}
