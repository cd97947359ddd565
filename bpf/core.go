// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Config sizes the kernel side.
type Config struct {
	// RingBytes is the size of the event buffer, rounded up to a power of two of at least a page. It has
	// to hold what happens while the agent does not run: at 20 000 requests/s, 1 MiB is some 100 ms.
	RingBytes int `yaml:"ring_bytes"`
	// HeadBytes bounds how much of a message's head is captured; what is longer is marked as truncated.
	HeadBytes int `yaml:"head_bytes"`
	// MaxConns, MaxTargets and MaxGoroutines bound what is followed at a time. Before Linux 6.1, where all of the room is taken at
	// once, MaxConns is half of its default.
	MaxConns      int `yaml:"max_connections"`
	MaxTargets    int `yaml:"max_processes"`
	MaxGoroutines int `yaml:"max_goroutines"`
	// BatchDelay is how long events may wait in the kernel before they are read: a wake-up for each would
	// cost the traced program more than everything else.
	BatchDelay time.Duration `yaml:"batch_delay"`
	// Attach is how the programs get at the bytes: "auto", or one of Attachments.
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
	case c.Attach != "auto" && !slices.Contains(Attachments, c.Attach):
		return fmt.Errorf("attach is %q: must be auto, %s", c.Attach, strings.Join(Attachments, ", "))
	}
	return nil
}

// Core is the loaded kernel side. Close detaches everything.
type Core struct {
	// Attachment is the way that was taken, as a person reads it.
	Attachment string
	// Old says that the programs are the build for kernels before 5.15.
	Old bool
	// Refused are the errors of better ways, each with the kernel's own reason.
	Refused []error
	// IDSeed is what makes the ids of requests differ from those of other agents: the probes name requests as well.
	IDSeed uint64

	cfg       Config
	specs     map[string]*ebpf.ProgramSpec
	objects   bpfMaps
	programs  map[string]*ebpf.Program
	maps      map[string]*ebpf.Map
	linksMu   sync.Mutex
	links     []link.Link
	onDemand  map[Need]string // what is not attached yet
	seesURing bool
	tracefs   bool // it was mounted for this core
	events    *ringbuf.Reader
	processes *ringbuf.Reader

	jobs        link.Link // that tells of them, while followsJobs is not 0
	followsJobs int

	stopProcesses [2]*os.File // a pipe; its read end is readable after Stop
	processesMu   sync.Mutex
	processRecord ringbuf.Record

	reader    *ebpf.Memory
	verdicts  *ebpf.Memory
	counters  *ebpf.Memory
	answer    *ebpf.Memory
	stats     []Stat
	statNames []string
}

// Attachments are the ways of getting at the bytes, as Config.Attach names them. "tracepoint" is the socket
// tracepoints where the kernel has them (6.3), else the syscall tracepoints; the two may be asked for by name.
var Attachments = []string{"fentry", "kprobe", "tracepoint", "socket", "syscall"}

// way is a set of programs that together see all bytes.
type way struct {
	Name     string // of Attachments, but for "tracepoint"
	programs []string
	optional []string        // for functions that not every kernel has
	onDemand map[Need]string // attached when the others ask for it
}

// ways are tried in this order.
var ways = []way{
	{
		Name: "fentry",
		programs: []string{bpfProgFentryTcpSendmsg, bpfProgFexitTcpSendmsg, bpfProgFentryTcpCleanupRbuf,
			bpfProgFentryUnixStreamSendmsg, bpfProgFexitUnixStreamSendmsg, bpfProgFexitUnixStreamRecvmsg,
			bpfProgFexitUnixStreamSpliceRead, bpfProgFentryUnixRelease, bpfProgFentryUnixShutdown},
		optional: []string{bpfProgFentryTcpSendpage, bpfProgFexitTcpSendpage,
			bpfProgFentryUnixStreamSendpage, bpfProgFexitUnixStreamSendpage},
		onDemand: map[Need]string{NeedEntry: bpfProgFentryTcpRecvmsg},
	},
	{
		Name: "kprobe",
		programs: []string{bpfProgKprobeTcpSendmsg, bpfProgKprobeReleaseSock, bpfProgKprobeTcpCleanupRbuf,
			bpfProgKprobeUnixStreamSendmsg, bpfProgKretprobeUnixStreamSendmsg,
			bpfProgKprobeUnixStreamRecvmsg, bpfProgKretprobeUnixStreamRecvmsg,
			bpfProgKprobeUnixStreamSpliceRead, bpfProgKretprobeUnixStreamSpliceRead,
			bpfProgKprobeUnixRelease, bpfProgKprobeUnixShutdown},
		optional: []string{bpfProgKprobeTcpSendpage, bpfProgKprobeUnixStreamSendpage, bpfProgKretprobeUnixStreamSendpage},
		onDemand: map[Need]string{NeedEntry: bpfProgKprobeTcpRecvmsg},
	},
	{
		Name:     "socket",
		programs: []string{bpfProgSockSendLength, bpfProgSockRecvLength, bpfProgTcpSendmsgLocked},
		onDemand: map[Need]string{NeedSyscalls: bpfProgSysEnter},
	},
	{ // before 6.16
		Name:     "socket",
		programs: []string{bpfProgSockSendLength, bpfProgSockRecvLength, bpfProgSysEnter},
	},
	{
		Name:     "syscall",
		programs: []string{bpfProgSysEnter, bpfProgSysExit},
	},
}

// everywhere are the programs that each way needs.
var everywhere = []string{bpfProgInetSockSetState, bpfProgSchedProcessExec, bpfProgSchedProcessFork, bpfProgSchedProcessExit}

// ofCgroups are the programs that FollowCgroups attaches.
var ofCgroups = []string{bpfProgCgroupAttachTask, bpfProgCgroupMkdir, bpfProgCgroupRmdir}

// allowed says whether Config.Attach allows the way.
func (w *way) allowed(attach string) bool {
	return attach == "auto" || attach == w.Name || attach == "tracepoint" && (w.Name == "socket" || w.Name == "syscall")
}

// functions says that it is the kernel's functions that are attached to, whoever calls them.
func (w *way) functions() bool { return w.Name == "fentry" || w.Name == "kprobe" }

// String is the way as a person reads it.
func (w *way) String() string {
	if w.Name == "socket" || w.Name == "syscall" {
		return w.Name + " tracepoints"
	}
	return w.Name
}

// Load loads and attaches the kernel side, by the first way that works. No process is watched yet.
func Load(cfg Config) (*Core, error) { return loadBuild(cfg, isOld()) }

// loadBuild is Load of one of the two builds.
func loadBuild(cfg Config, old bool) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	// Before 5.11 maps are charged to the limit of locked memory. Where it cannot be raised it may be enough.
	_ = rlimit.RemoveMemlock()
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w (it needs CONFIG_DEBUG_INFO_BTF)", err)
	}
	var errs []error
	for i := range ways {
		w := &ways[i]
		if !w.allowed(cfg.Attach) {
			continue
		}
		if w.Name == "fentry" && cfg.Attach == "auto" && Preemptible() {
			errs = append(errs, fmt.Errorf("%s: %w", w, ErrPreemptible))
			continue
		}
		if err := w.try(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w, explain(err)))
			continue
		}
		core, err := load(cfg, w, kernel, old)
		if err == nil {
			core.Refused = errs
			return core, nil
		}
		errs = append(errs, err)
	}
	// One way has two sets of programs, which may be refused for the same reason.
	errs = slices.CompactFunc(errs, func(a, b error) bool { return a.Error() == b.Error() })
	return nil, errors.Join(errs...)
}

// try attaches an empty program as the way does. What the kernel refuses altogether is then known in a moment, and
// not after all programs were verified.
func (w *way) try() error {
	const function = "tcp_sendmsg"
	spec := &ebpf.ProgramSpec{
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	}
	switch w.Name {
	case "fentry":
		spec.Type, spec.AttachType, spec.AttachTo = ebpf.Tracing, ebpf.AttachTraceFEntry, function
	case "kprobe":
		if err := haveKprobes(); err != nil {
			return err
		}
		spec.Type = ebpf.Kprobe
	default:
		return nil
	}
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return fmt.Errorf("load an empty program: %w", err)
	}
	defer program.Close()
	var l link.Link
	if w.Name == "fentry" {
		l, err = link.AttachTracing(link.TracingOptions{Program: program, AttachType: spec.AttachType})
	} else {
		l, err = link.Kprobe(function, program, nil)
	}
	if err != nil {
		return fmt.Errorf("attach an empty program to %s: %w", function, err)
	}
	return l.Close()
}

// isOld says whether the kernel lacks what the second build does without: it came with 5.11 to 5.15.
func isOld() bool {
	return errors.Is(features.HaveMapType(ebpf.TaskStorage), ebpf.ErrNotSupported) ||
		errors.Is(features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnTaskPtRegs), ebpf.ErrNotSupported)
}

// oldNodeLoops is how many event loops of Node's are followed before 6.4, where a map is charged for all that it may hold.
const oldNodeLoops = 32

// growing are maps whose elements are allocated when they are added. Programs that trace may not do so
// before 6.1: it is not safe in every context.
var growing = []string{bpfMapConns, bpfMapTargets, bpfMapImages, bpfMapCgroups}

func load(cfg Config, w *way, kernel *btf.Spec, old bool) (_ *Core, err error) {
	read := loadBpf
	if old {
		read = loadBpfOld
	}
	spec, err := read()
	if err != nil {
		return nil, fmt.Errorf("read the built-in BPF object: %w", err)
	}
	nonblock := parameters(kernel, "tcp_recvmsg") == 6
	c := &Core{Attachment: w.String(), Old: old, seesURing: w.functions(), cfg: cfg, IDSeed: rand.Uint64(), programs: map[string]*ebpf.Program{}, specs: spec.Programs, onDemand: maps.Clone(w.onDemand)}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	if err := c.readStats(spec); err != nil {
		return nil, err
	}
	if w.Name == "kprobe" {
		c.tracefs = mountTracefs() // for maxActive
	}
	if nonblock && c.onDemand[NeedEntry] == bpfProgFentryTcpRecvmsg {
		c.onDemand[NeedEntry] = bpfProgFentryTcpRecvmsgNonblock
	}
	attached := slices.Concat(w.programs, everywhere)
	for _, name := range w.optional {
		if hasFunction(kernel, spec.Programs[name].AttachTo) {
			attached = append(attached, name)
		}
	}
	wanted := map[string]*ebpf.ProgramSpec{}
	later := append(slices.Collect(maps.Values(c.onDemand)), bpfProgAsk, bpfProgSchedWaking)
	if hasTracepoint(kernel, bpfProgCgroupMkdir) {
		later = append(later, ofCgroups...)
	}
	for _, name := range slices.Concat(attached, later) {
		if wanted[name] = spec.Programs[name]; wanted[name] == nil {
			return nil, fmt.Errorf("%s: this kernel is too old for it", w)
		}
		if p := wanted[name]; p.Type == ebpf.Tracing && p.AttachType == ebpf.AttachTraceRawTp && !hasTracepoint(kernel, p.AttachTo) {
			return nil, fmt.Errorf("%s: this kernel has no tracepoint %s", w, p.AttachTo)
		}
	}
	spec.Programs = wanted
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the processors: %w", err)
	}
	spec.Maps[bpfMapStats].MaxEntries = uint32(cpus * statsPerCPU)
	spec.Maps[bpfMapEvents].MaxEntries = uint32(powerOfTwo(max(cfg.RingBytes, os.Getpagesize())))
	spec.Maps[bpfMapConns].MaxEntries = uint32(cfg.MaxConns)
	spec.Maps[bpfMapTargets].MaxEntries = uint32(cfg.MaxTargets)
	spec.Maps[bpfMapGoroutines].MaxEntries = uint32(cfg.MaxGoroutines)
	if v, err := features.LinuxVersionCode(); err == nil && v < 6<<16|1<<8 {
		for _, name := range growing {
			spec.Maps[name].Flags &^= unix.BPF_F_NO_PREALLOC
		}
		if cfg.MaxConns == Default().MaxConns {
			spec.Maps[bpfMapConns].MaxEntries /= 2 // room for all of them is taken at once
		}
	}
	if v, err := features.LinuxVersionCode(); err == nil && v < 6<<16|4<<8 {
		spec.Maps[bpfMapNodeLoops].MaxEntries = oldNodeLoops
	}
	var symbols map[string]uint64
	if w.functions() {
		symbols = kernelSymbols("vmemmap_base", "page_offset_base")
	}
	for name, value := range map[string]any{
		bpfVarVmemmapBaseAt:    symbols["vmemmap_base"],
		bpfVarPageOffsetBaseAt: symbols["page_offset_base"],
		bpfVarHeadLimit:        uint32(cfg.HeadBytes),
		bpfVarIdSeed:           c.IDSeed,
		bpfVarSyscallsOnly:     slices.Contains(w.programs, bpfProgSysExit),
		bpfVarRecvmsgNonblock:  nonblock,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s of the programs: %w", name, err)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernel}})
	if err != nil {
		return nil, fmt.Errorf("load the kernel side (%s): %w", w, explain(err))
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
	if c.counters, err = c.objects.Stats.Memory(); err != nil {
		return nil, fmt.Errorf("map the counters: %w", err)
	}
	if c.answer, err = c.objects.Answers.Memory(); err != nil {
		return nil, fmt.Errorf("map the answer's page: %w", err)
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

// hasFunction says whether the kernel, or a module that is built into it, has the function.
func hasFunction(kernel *btf.Spec, name string) bool { return parameters(kernel, name) >= 0 }

// hasTracepoint says whether the kernel has a tracepoint.
func hasTracepoint(kernel *btf.Spec, name string) bool {
	var t *btf.Typedef
	return kernel.TypeByName("btf_trace_"+name, &t) == nil
}

// parameters is how many parameters a function of the kernel has; -1: there is none of this name.
func parameters(kernel *btf.Spec, name string) int {
	var f *btf.Func
	if kernel.TypeByName(name, &f) != nil {
		return -1
	}
	proto, ok := f.Type.(*btf.FuncProto)
	if !ok {
		return -1
	}
	return len(proto.Params)
}

// maxActive is how many calls may be under way at once for a kretprobe to tell of the return of each: the most that
// the kernel allows. Without tracefs it is one for each processor, or, where the kernel preempts itself, ten or two for each.
const maxActive = 4096

func (c *Core) attach(name string) error {
	program, spec := c.programs[name], c.specs[name]
	var l link.Link
	var err error
	switch {
	case spec.Type != ebpf.Kprobe:
		l, err = link.AttachTracing(link.TracingOptions{Program: program, AttachType: spec.AttachType})
	case strings.HasPrefix(spec.SectionName, "kretprobe/"):
		if l, err = link.Kretprobe(spec.AttachTo, program, &link.KprobeOptions{RetprobeMaxActive: maxActive}); err != nil {
			l, err = link.Kretprobe(spec.AttachTo, program, nil)
		}
	default:
		l, err = link.Kprobe(spec.AttachTo, program, nil)
	}
	if err != nil {
		return fmt.Errorf("attach to %s: %w", spec.SectionName, explain(err))
	}
	// One that nothing holds is closed by the garbage collector, and the program is detached.
	c.links = append(c.links, l)
	return nil
}

// AttachOnDemand attaches what the programs have found since the last call to be needed, and says what that was.
func (c *Core) AttachOnDemand() (Need, error) {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	if len(c.onDemand) == 0 {
		return 0, nil
	}
	var b [4]byte
	if _, err := c.reader.ReadAt(b[:], readerNeeds); err != nil {
		return 0, fmt.Errorf("read what the programs need: %w", err)
	}
	var attached Need
	for need, name := range c.onDemand {
		if Need(binary.LittleEndian.Uint32(b[:]))&need == 0 {
			continue
		}
		delete(c.onDemand, need)
		if err := c.attach(name); err != nil {
			return attached, err
		}
		attached |= need
	}
	return attached, nil
}

// explain puts the likely cause beside errors that name it badly.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return fmt.Errorf("%w (the kernel's verifier refused a program; --log-level debug prints its log)", err)
	case errors.Is(err, os.ErrPermission):
		return refuse(err)
	}
	return err
}

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
	if c.tracefs {
		errs = append(errs, unmountTracefs())
	}
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
	c.links, c.onDemand = nil, nil
	return errors.Join(errs...)
}

// SeesURing says whether what io_uring moves is read as everything else; if not, it is noticed at best.
func (c *Core) SeesURing() bool { return c.seesURing }

// MountedTracefs says that tracefs was nowhere and is mounted as long as this is not closed.
func (c *Core) MountedTracefs() bool { return c.tracefs }

// MapBytes is the memory of each map, as the kernel accounts for it. Before 6.4 that is a bound for hashes, and nothing
// for ring buffers and task storage: the former are what they were made with, the latter is empty at first.
func (c *Core) MapBytes() (map[string]uint64, error) {
	sizes := map[string]uint64{}
	for name, m := range c.maps {
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("read what map %s is: %w", name, err)
		}
		n, _ := info.Memlock()
		if n == 0 && m.Type() == ebpf.RingBuf {
			n = uint64(m.MaxEntries())
		}
		sizes[name] = n
	}
	return sizes, nil
}

// Maps are the core's maps by name. A runtime's own object is given them for its own of the same name.
func (c *Core) Maps() map[string]*ebpf.Map { return c.maps }

// Programs are the loaded programs by name.
func (c *Core) Programs() map[string]*ebpf.Program { return c.programs }

const (
	readerAwake = uint32(bpfReaderStateREADER_AWAKE)
	readerIdle  = uint32(bpfReaderStateREADER_IDLE)
)

// readerNeeds is where struct reader says what is needed.
const readerNeeds = int64(unsafe.Offsetof(bpfReader{}.Needs))

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

// FollowCgroups has an event come for each process that is moved to another control group, and for each control group of
// the cgroup2 hierarchy that is made.
func (c *Core) FollowCgroups() error {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	for _, name := range ofCgroups {
		if c.programs[name] == nil {
			return errors.New("this kernel has no control groups")
		}
		if err := c.attach(name); err != nil {
			return err
		}
	}
	return nil
}

// FollowJobs has a JobEvent come when a thread has ended what another one waits for, until what it returns is closed.
func (c *Core) FollowJobs() (io.Closer, error) {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	if c.followsJobs == 0 {
		l, err := link.AttachTracing(link.TracingOptions{Program: c.programs[bpfProgSchedWaking], AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return nil, fmt.Errorf("attach to sched_waking: %w", explain(err))
		}
		c.jobs = l
	}
	c.followsJobs++
	return closer(sync.OnceValue(c.stopFollowingJobs)), nil
}

func (c *Core) stopFollowingJobs() error {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	if c.followsJobs--; c.followsJobs > 0 {
		return nil
	}
	return c.jobs.Close()
}

// closer makes a function an io.Closer.
type closer func() error

func (f closer) Close() error { return f() }

// WatchCgroup has every process watched, or not, that executes a program in a control group of the cgroup2 hierarchy,
// or is moved into it; for those below it this holds as far as nothing else is said of them. id is that of its folder's inode.
func (c *Core) WatchCgroup(id uint64, wanted bool) error {
	var value uint32
	if wanted {
		value = 1
	}
	if err := c.objects.Cgroups.Put(id, value); err != nil {
		return fmt.Errorf("watch a control group: %w", err)
	}
	return nil
}

// WatchPorts has every process watched that begins to listen on a TCP port that is wanted.
func (c *Core) WatchPorts(wanted func(port uint16) bool) error {
	for word := range uint32(1 << 16 / 64) {
		var set uint64
		for bit := range uint32(64) {
			if wanted(uint16(word*64 + bit)) {
				set |= 1 << bit
			}
		}
		if set == 0 {
			continue
		}
		if err := c.objects.Ports.Put(word, set); err != nil {
			return fmt.Errorf("watch ports: %w", err)
		}
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

// ConnState reads how far a connection is; ok is false if the kernel side does not follow it any more, or is about to
// change it. A program reads it, not a system call that looks into a map: see stats_map.h. One caller at a time.
func (c *Core) ConnState(key, id uint64) (state Answer, ok bool) {
	found, err := c.programs[bpfProgAsk].Run(&ebpf.RunOptions{Context: [2]uint64{key, id}})
	if err != nil || found == 0 {
		return state, false
	}
	b := make([]byte, binary.Size(state))
	if _, err := c.answer.ReadAt(b, 0); err != nil {
		return state, false
	}
	return *View[Answer](b), true
}

// Forget removes a connection that the kernel side cannot see ending.
func (c *Core) Forget(key uint64) { _ = c.objects.Conns.Delete(key) }

// statsPerCPU is STATS_PER_CPU of stats_map.h.
const statsPerCPU = (int(bpfStatSTATS) + 7) &^ 7

// Stats are the kernel side's counters by name (of enum stat, lower case).
func (c *Core) Stats() (map[string]uint64, error) {
	b := make([]byte, c.counters.Size())
	if _, err := c.counters.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read the counters: %w", err)
	}
	stats := make(map[string]uint64, len(c.stats))
	for cpu := 0; cpu < len(b); cpu += 8 * statsPerCPU {
		for i, stat := range c.stats {
			stats[c.statNames[i]] += binary.LittleEndian.Uint64(b[cpu+8*int(stat):])
		}
	}
	return stats, nil
}

// Backlog is how many bytes of events wait to be read.
func (c *Core) Backlog() int { return c.events.AvailableBytes() }

func powerOfTwo(n int) int { return 1 << bits.Len(uint(n-1)) }
