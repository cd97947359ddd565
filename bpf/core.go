// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Config sizes the kernel side.
type Config struct {
	// RingBytes is the size of the event buffer, rounded up to a power of two of at least a page. It has
	// to hold what happens while the agent does not run: at 20 000 requests/s, 1 MiB is some 100 ms.
	RingBytes int `yaml:"ring_bytes"`
	// HeadBytes bounds how much of a message's head is captured; what is longer is marked as truncated.
	HeadBytes int `yaml:"head_bytes"`
	// MaxConns, MaxTargets and MaxGoroutines bound what is followed at a time.
	MaxConns      int `yaml:"max_connections"`
	MaxTargets    int `yaml:"max_processes"`
	MaxGoroutines int `yaml:"max_goroutines"`
	// BatchDelay is how long events may wait in the kernel before they are read: a wake-up for each would
	// cost the traced program more than everything else.
	BatchDelay time.Duration `yaml:"batch_delay"`
	// Attach is "auto", "socket" (socket tracepoints) or "syscall" (syscall tracepoints).
	Attach string `yaml:"attach"`
}

// Default is a Config for a node of any size.
func Default() Config {
	return Config{
		RingBytes:     8 << 20,
		HeadBytes:     16 << 10,
		MaxConns:      65536,
		MaxTargets:    16384,
		MaxGoroutines: 32768,
		BatchDelay:    10 * time.Millisecond,
		Attach:        "auto",
	}
}

// Validate says what is wrong with the configuration, and what would be right.
func (c Config) Validate() error {
	switch {
	case c.RingBytes < 4096 || c.RingBytes > 1<<30:
		return fmt.Errorf("ring_bytes is %d: must be between 4096 and 1073741824", c.RingBytes)
	case c.HeadBytes < 512 || c.HeadBytes > 65536:
		return fmt.Errorf("head_bytes is %d: must be between 512 and 65536", c.HeadBytes)
	case c.MaxConns < 1 || c.MaxTargets < 1 || c.MaxGoroutines < 1:
		return errors.New("max_connections, max_processes and max_goroutines must be at least 1")
	case c.BatchDelay < 0 || c.BatchDelay > time.Second:
		return fmt.Errorf("batch_delay is %s: must be between 0s and 1s", c.BatchDelay)
	case c.Attach != "auto" && c.Attach != "socket" && c.Attach != "syscall":
		return fmt.Errorf("attach is %q: must be auto, socket or syscall", c.Attach)
	}
	return nil
}

// Core is the loaded kernel side. Close detaches everything.
type Core struct {
	// Attachment says which way in was taken: "socket tracepoints" or "syscall tracepoints".
	Attachment string

	cfg       Config
	onDemand  string // program that is attached when the others ask for it; "" when it is, or when none is
	objects   bpfMaps
	programs  map[string]*ebpf.Program
	maps      map[string]*ebpf.Map
	linksMu   sync.Mutex
	links     []link.Link
	events    *ringbuf.Reader
	processes *ringbuf.Reader

	stopProcesses [2]*os.File // a pipe; its read end is readable after Stop
	processesMu   sync.Mutex
	processRecord ringbuf.Record

	reader    *ebpf.Memory
	verdicts  *ebpf.Memory
	stats     []Stat
	statNames []string
}

// way is a set of programs that together see all bytes.
type way struct {
	attach   string // Config.Attach that allows it, beside "auto"
	name     string
	programs []string
	onDemand string // attached when the others ask for it
}

// ways are tried in this order: the cheapest first.
var ways = []way{
	{attach: "socket", name: "socket tracepoints",
		programs: []string{bpfProgSockSendLength, bpfProgSockRecvLength, bpfProgTcpSendmsgLocked},
		onDemand: bpfProgSysEnter},
	{attach: "socket", name: "socket tracepoints", // before 6.16
		programs: []string{bpfProgSockSendLength, bpfProgSockRecvLength, bpfProgSysEnter}},
	{attach: "syscall", name: "syscall tracepoints",
		programs: []string{bpfProgSysEnter, bpfProgSysExit}},
}

// everywhere are the programs that each way needs.
var everywhere = []string{bpfProgInetSockSetState, bpfProgSchedProcessExec, bpfProgSchedProcessFork, bpfProgSchedProcessExit}

// Load loads and attaches the kernel side. No process is watched yet.
func Load(cfg Config) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var errs []error
	for _, w := range ways {
		if cfg.Attach != "auto" && cfg.Attach != w.attach {
			continue
		}
		core, err := load(cfg, w)
		if err == nil {
			return core, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func load(cfg Config, w way) (_ *Core, err error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("read the built-in BPF object: %w", err)
	}
	c := &Core{Attachment: w.name, onDemand: w.onDemand, cfg: cfg, programs: map[string]*ebpf.Program{}}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	if err := c.readStats(spec); err != nil {
		return nil, err
	}
	attached := slices.Concat(w.programs, everywhere)
	wanted := map[string]*ebpf.ProgramSpec{}
	for _, name := range attached {
		wanted[name] = spec.Programs[name]
	}
	if w.onDemand != "" {
		wanted[w.onDemand] = spec.Programs[w.onDemand]
	}
	spec.Programs = wanted
	spec.Maps[bpfMapEvents].MaxEntries = uint32(powerOfTwo(max(cfg.RingBytes, os.Getpagesize())))
	spec.Maps[bpfMapConns].MaxEntries = uint32(cfg.MaxConns)
	spec.Maps[bpfMapTargets].MaxEntries = uint32(cfg.MaxTargets)
	spec.Maps[bpfMapGoroutines].MaxEntries = uint32(cfg.MaxGoroutines)
	if err := spec.Variables[bpfVarHeadLimit].Set(uint32(cfg.HeadBytes)); err != nil {
		return nil, fmt.Errorf("set head_bytes: %w", err)
	}
	if err := spec.Variables[bpfVarIdSeed].Set(rand.Uint64()); err != nil {
		return nil, fmt.Errorf("set the seed of request ids: %w", err)
	}
	if err := spec.Variables[bpfVarSyscallsOnly].Set(slices.Contains(w.programs, bpfProgSysExit)); err != nil {
		return nil, fmt.Errorf("tell the programs how they are attached: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the kernel side (%s): %w", w.name, explain(err))
	}
	c.programs = maps.Clone(coll.Programs)
	c.maps = maps.Clone(coll.Maps)
	delete(c.maps, ".rodata")
	if err := coll.Assign(&c.objects); err != nil {
		coll.Close()
		return nil, fmt.Errorf("find the kernel side's maps: %w", err)
	}
	if c.reader, err = c.objects.Readers.Memory(); err != nil {
		return nil, fmt.Errorf("map the reader's page: %w", err)
	}
	if c.verdicts, err = c.objects.Verdicts.Memory(); err != nil {
		return nil, fmt.Errorf("map the verdicts: %w", err)
	}
	if c.events, err = ringbuf.NewReader(c.objects.Events); err != nil {
		return nil, fmt.Errorf("open the event buffer: %w", err)
	}
	if c.processes, err = ringbuf.NewReader(c.objects.Processes); err != nil {
		return nil, fmt.Errorf("open the process event buffer: %w", err)
	}
	if c.stopProcesses[0], c.stopProcesses[1], err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	for _, name := range attached {
		if err := c.attach(name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Core) attach(name string) error {
	l, err := link.AttachTracing(link.TracingOptions{Program: c.programs[name], AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return fmt.Errorf("attach to tracepoint %s: %w", name, explain(err))
	}
	// One that nothing holds is closed by the garbage collector, and the program is detached.
	c.links = append(c.links, l)
	return nil
}

// AttachOnDemand attaches sys_enter if the programs have found since the last call that it is needed, and says
// whether it did.
func (c *Core) AttachOnDemand() (bool, error) {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	if c.onDemand == "" {
		return false, nil
	}
	var b [4]byte
	if _, err := c.reader.ReadAt(b[:], readerSyscalls); err != nil {
		return false, fmt.Errorf("read what the programs need: %w", err)
	}
	if binary.LittleEndian.Uint32(b[:]) == 0 {
		return false, nil
	}
	name := c.onDemand
	c.onDemand = ""
	if err := c.attach(name); err != nil {
		return false, err
	}
	return true, nil
}

// explain puts the likely cause beside errors that name it badly.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return fmt.Errorf("%w (the kernel's verifier refused a program; --log-level debug prints its log)", err)
	case errors.Is(err, os.ErrPermission):
		return &refused{err}
	}
	return err
}

// refused is an error for want of rights. The library's guess at the locked memory limit is left out: it has
// not been a cause since 5.11, and leads people astray.
type refused struct{ error }

func (e *refused) Error() string {
	text, _, _ := strings.Cut(e.error.Error(), " (MEMLOCK")
	return text + " (run as root, or with CAP_BPF and CAP_PERFMON; `breadcrumb check` says what is missing)"
}

func (e *refused) Unwrap() error { return e.error }

func (c *Core) readStats(spec *ebpf.CollectionSpec) error {
	var enum *btf.Enum
	if err := spec.Types.TypeByName("stat", &enum); err != nil {
		return fmt.Errorf("read the counters' names: %w", err)
	}
	for _, v := range enum.Values {
		if v.Name == "STATS" {
			continue
		}
		c.stats = append(c.stats, Stat(v.Value))
		c.statNames = append(c.statNames, strings.ToLower(strings.TrimPrefix(v.Name, "STAT_")))
	}
	return nil
}

// Close detaches and unloads everything.
func (c *Core) Close() error {
	errs := []error{c.Detach()}
	if c.events != nil {
		errs = append(errs, c.events.Close())
	}
	if c.processes != nil {
		errs = append(errs, c.processes.Close())
	}
	for _, f := range c.stopProcesses {
		if f != nil {
			_ = f.Close() // the other end may be closed already, by Stop
		}
	}
	for _, p := range c.programs {
		errs = append(errs, p.Close())
	}
	errs = append(errs, c.objects.Close())
	return errors.Join(errs...)
}

// Detach stops the flow of events; what is in the buffers can still be read.
func (c *Core) Detach() error {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	var errs []error
	for i := len(c.links) - 1; i >= 0; i-- {
		errs = append(errs, c.links[i].Close())
	}
	c.links, c.onDemand = nil, ""
	return errors.Join(errs...)
}

// Maps are the core's maps by name. A runtime's own object is given them for its own of the same name.
func (c *Core) Maps() map[string]*ebpf.Map { return c.maps }

// Programs are the loaded programs by name.
func (c *Core) Programs() map[string]*ebpf.Program { return c.programs }

const (
	readerAwake = uint32(bpfReaderStateREADER_AWAKE)
	readerIdle  = uint32(bpfReaderStateREADER_IDLE)
)

// readerSyscalls is where struct reader says that sys_enter is needed.
const readerSyscalls = int64(unsafe.Offsetof(bpfReader{}.Syscalls))

// setReader tells the kernel side how the reader waits.
func (c *Core) setReader(state uint32, wakeAt int) error {
	var b [8]byte
	binary.LittleEndian.PutUint32(b[:], state)
	binary.LittleEndian.PutUint32(b[4:], uint32(wakeAt))
	_, err := c.reader.WriteAt(b[:], 0)
	return err
}

// batchRecords is how many events are one batch at most.
const batchRecords = 8192

// Read hands each event to handle, in order, and calls batch when it has read what there was; batch says
// whether it wants to be called again without an event. The record is valid during the call only. Read
// returns nil after Stop, when everything has been read.
//
// While there are events it looks every Config.BatchDelay; the first event after a silence wakes it.
func (c *Core) Read(handle func(record []byte), batch func() (again bool)) error {
	var (
		rec    ringbuf.Record
		past   = time.Unix(1, 0)
		wakeAt = c.events.BufferSize() / 4
		busy   = true
		again  = true
	)
	for {
		// Wait for the next batch.
		state, deadline := readerAwake, time.Now().Add(c.cfg.BatchDelay)
		if !busy && !again {
			state, deadline = readerIdle, time.Time{}
		}
		if err := c.setReader(state, wakeAt); err != nil {
			return fmt.Errorf("set the reader's state: %w", err)
		}
		if state == readerIdle && c.events.AvailableBytes() > 0 {
			deadline = past // it came before the state was set, and woke nobody
		}
		c.events.SetDeadline(deadline)
		busy = false
		n := 0
		for {
			err := c.events.ReadInto(&rec)
			switch {
			case err == nil:
				if !busy {
					busy = true
					c.events.SetDeadline(past)
				}
				handle(rec.RawSample)
				if n++; n%batchRecords == 0 {
					batch() // a reader that never catches up still has other things to do
				}
				continue
			case errors.Is(err, ringbuf.ErrFlushed):
				batch()
				return nil
			case !errors.Is(err, os.ErrDeadlineExceeded):
				return fmt.Errorf("read the event buffer: %w", err)
			}
			break
		}
		again = batch()
	}
}

// WaitProcesses returns true when there may be something for DrainProcesses, and false after Stop.
func (c *Core) WaitProcesses() (bool, error) {
	fds := []unix.PollFd{
		{Fd: int32(c.objects.Processes.FD()), Events: unix.POLLIN},
		{Fd: int32(c.stopProcesses[0].Fd()), Events: unix.POLLIN},
	}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("wait for process events: %w", err)
		}
		return fds[1].Revents == 0, nil
	}
}

// DrainProcesses hands what has happened to processes to handle, in order. An event of a process is there
// before any of the process's own. It may be called from any goroutine; handle runs on one at a time.
func (c *Core) DrainProcesses(handle func(e *ProcessEvent)) error {
	c.processesMu.Lock()
	defer c.processesMu.Unlock()
	c.processes.SetDeadline(time.Unix(1, 0))
	for {
		err := c.processes.ReadInto(&c.processRecord)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the process event buffer: %w", err)
		}
		if e := View[ProcessEvent](c.processRecord.RawSample); e != nil {
			handle(e)
		}
	}
}

// Stop makes Read and WaitProcesses return when they have read what there is. Detach before it.
func (c *Core) Stop() error {
	return errors.Join(c.events.Flush(), c.stopProcesses[1].Close())
}

// WatchImage has every process watched, as t says, that executes the file from now on.
func (c *Core) WatchImage(dev, inode uint64, t Target) error {
	key := bpfImage{Inode: inode, Dev: unix.Major(dev)<<20 | unix.Minor(dev)&0xfffff}
	if err := c.objects.Images.Put(key, t); err != nil {
		return fmt.Errorf("watch an executable: %w", err)
	}
	return nil
}

// Watch adds a process to those that are seen, or changes what is known of it.
func (c *Core) Watch(pid uint32, t Target) error {
	var old Target
	if err := c.objects.Targets.Lookup(pid, &old); err == nil {
		// Inherited from its parent at birth; keep what was counted.
		t.RingFull, t.MapFull, t.Muted = old.RingFull, old.MapFull, old.Muted
	}
	if err := c.objects.Targets.Put(pid, t); err != nil {
		return fmt.Errorf("watch process %d: %w (max_processes is %d)", pid, err, c.cfg.MaxTargets)
	}
	return nil
}

// Watched returns the kernel side's view of a process; ok is false if it is not watched.
func (c *Core) Watched(pid uint32) (t Target, ok bool) {
	return t, c.objects.Targets.Lookup(pid, &t) == nil
}

// Unwatch removes a process and returns what was counted for it.
func (c *Core) Unwatch(pid uint32) (t Target, ok bool) {
	if c.objects.Targets.Lookup(pid, &t) != nil {
		return t, false
	}
	return t, c.objects.Targets.Delete(pid) == nil
}

// Verdict tells the kernel side what to do with a connection.
func (c *Core) Verdict(conn uint64, v VerdictKind) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], conn>>16<<8|uint64(v))
	if _, err := c.verdicts.WriteAt(b[:], int64(conn&0xffff)*8); err != nil {
		return fmt.Errorf("write a verdict: %w", err)
	}
	return nil
}

// ConnState reads how far a connection is; ok is false if the kernel side does not follow it any more.
func (c *Core) ConnState(key, id uint64) (state Conn, ok bool) {
	if c.objects.Conns.Lookup(key, &state) != nil || state.Id != id {
		return state, false
	}
	return state, true
}

// Forget removes a connection that the kernel side cannot see ending.
func (c *Core) Forget(key uint64) { _ = c.objects.Conns.Delete(key) }

// Stats are the kernel side's counters by name (of enum stat, lower case).
func (c *Core) Stats() (map[string]uint64, error) {
	stats := make(map[string]uint64, len(c.stats))
	var perCPU []uint64
	for i, stat := range c.stats {
		if err := c.objects.Stats.Lookup(uint32(stat), &perCPU); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", c.statNames[i], err)
		}
		for _, n := range perCPU {
			stats[c.statNames[i]] += n
		}
	}
	return stats, nil
}

// Backlog is how many bytes of events wait to be read.
func (c *Core) Backlog() int { return c.events.AvailableBytes() }

func powerOfTwo(n int) int { return 1 << bits.Len(uint(n-1)) }
