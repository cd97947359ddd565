// SPDX-License-Identifier: Apache-2.0

// Package golang observes what only a Go program's own memory tells: which goroutine does what, read at
// the hooks that run anyway, and on whose behalf net/http's client uses a pooled connection, by one
// uprobe on an instruction that the kernel emulates.
package golang

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"breadcrumb/bpf"
	"breadcrumb/discovery"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package golang -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf" golang golang.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package golang -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf -DOLD_KERNEL" golangOld golang.bpf.c

// maxLayouts bounds the executables whose layout is remembered: a node runs fewer Go programs.
const maxLayouts = 1024

// Runtime is the loaded probe. Its methods may be called from any goroutine.
type Runtime struct {
	log     *zap.Logger
	objects golangObjects
	// load loads the program once more, for links of another kind.
	load func(ebpf.AttachType) (golangObjects, error)

	mu      sync.Mutex
	layouts map[file]*Layout
	multi   golangObjects // for uprobe_multi; loaded when the first is needed
}

// file names an executable, whatever paths lead to it.
type file struct {
	dev, ino     uint64
	size, change int64
}

// New loads the probe beside the core.
func New(core *bpf.Core, log *zap.Logger) (*Runtime, error) {
	read := loadGolang
	if core.Old {
		read = loadGolangOld
	}
	spec, err := read()
	if err != nil {
		return nil, fmt.Errorf("read the built-in BPF object: %w", err)
	}
	replace := map[string]*ebpf.Map{}
	for name, own := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue // constants, of which each object has its own
		}
		m := core.Maps()[name]
		if m == nil {
			// A map of the headers that is not the core's would hold another truth, as two sequences of ids.
			return nil, fmt.Errorf("load the Go probe: the core has no map %s", name)
		}
		own.MaxEntries, own.Flags = m.MaxEntries(), m.Flags()
		replace[name] = m
	}
	r := &Runtime{log: log, layouts: map[file]*Layout{}}
	r.load = func(attach ebpf.AttachType) (o golangObjects, err error) {
		own := spec.Copy()
		for _, p := range own.Programs {
			p.AttachType = attach
		}
		if err := own.LoadAndAssign(&o, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
			return o, fmt.Errorf("load the Go probe: %w", err)
		}
		return o, nil
	}
	if r.objects, err = r.load(ebpf.AttachNone); err != nil {
		return nil, err
	}
	return r, nil
}

// Close unloads the probe. What was attached must have been closed before.
func (r *Runtime) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.objects.Close(), r.multi.Close())
}

// Programs are the loaded programs by name.
func (r *Runtime) Programs() map[string]*ebpf.Program {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.objects.PersistConnRoundTrip
	if r.multi.PersistConnRoundTrip != nil {
		p = r.multi.PersistConnRoundTrip
	}
	return map[string]*ebpf.Program{"persist_conn_round_trip": p}
}

// Describe adds to a watched process what the kernel side must know of Go programs of the version. Exact
// is false if the version was never compared and the nearest one's layout is used.
func Describe(version string, t *bpf.Target) (exact bool) {
	o, exact := Lookup(version)
	if o.StackHi == 0 {
		return false // before 1.19: nothing of it is read
	}
	t.Flags |= bpf.TargetGo
	t.Goid, t.ParentGoid = o.Goid, o.ParentGoid
	t.PersistConn, t.Sysfd, t.Family, t.Sotype = o.PersistConnConn, o.Sysfd, o.Family, o.Sotype
	return exact
}

// Attach puts the probe into a process. The note says what will not be seen of it and why, and is empty
// if nothing; the Closer is nil if there was nothing to attach to.
func (r *Runtime) Attach(t *discovery.Target) (_ io.Closer, note string, err error) {
	path := fmt.Sprintf("/proc/%d/exe", t.PID)
	layout, err := r.layout(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, "", discovery.ErrGone
	case errors.Is(err, ErrTooOld):
		return nil, err.Error() + ", its goroutines are not told apart", nil
	case err != nil:
		return nil, "", fmt.Errorf("analyse %s: %w", t.Exe, err)
	}
	if layout.RoundTrip == nil {
		if layout.NoRoundTrip == noClient {
			return nil, "", nil
		}
		return nil, "calls of its net/http client have no parent: " + layout.NoRoundTrip, nil
	}
	if !layout.Exact {
		note = layout.Version + " is not known: the layout of the nearest version is used where it proves right"
	}
	exe, err := link.OpenExecutable(path)
	if err != nil {
		return nil, "", fmt.Errorf("open %s: %w", t.Exe, err)
	}
	l, err := r.attach(exe, layout.RoundTrip.FileOffset, t.PID)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, os.ErrNotExist):
		return nil, "", discovery.ErrGone
	case err != nil:
		return nil, "", fmt.Errorf("attach to %s in %s: %w", roundTrip, t.Exe, err)
	}
	return l, note, nil
}

// attach puts the uprobe in one process only: another one that runs the same file and is not watched pays nothing. A
// Go program does not fork without an exec.
//
// The perf event is refused without CAP_SYS_ADMIN; uprobe_multi (6.6) is not, but before 6.10 (commit 46ba0e49b642)
// it may fire for the process's first thread alone.
func (r *Runtime) attach(exe *link.Executable, at uint64, pid uint32) (link.Link, error) {
	l, err := exe.Uprobe("", r.objects.PersistConnRoundTrip, &link.UprobeOptions{Address: at, PID: int(pid)})
	if !errors.Is(err, os.ErrPermission) {
		return l, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.multi.PersistConnRoundTrip == nil {
		var refused error
		if r.multi, refused = r.load(ebpf.AttachTraceUprobeMulti); refused != nil {
			return nil, fmt.Errorf("%w; without CAP_SYS_ADMIN it takes uprobe_multi: %w", err, refused)
		}
	}
	l, refused := exe.UprobeMulti(nil, r.multi.PersistConnRoundTrip, &link.UprobeMultiOptions{Addresses: []uint64{at}, PID: pid})
	if refused != nil {
		return nil, fmt.Errorf("%w; without CAP_SYS_ADMIN it takes uprobe_multi: %w", err, refused)
	}
	return l, nil
}

func (r *Runtime) layout(path string) (*Layout, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var key file
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		key = file{st.Dev, st.Ino, st.Size, st.Ctim.Nano()}
		r.mu.Lock()
		l := r.layouts[key]
		r.mu.Unlock()
		if l != nil {
			return l, nil
		}
	}
	l, err := Analyze(f)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.layouts) >= maxLayouts {
		clear(r.layouts)
	}
	r.layouts[key] = l
	return l, nil
}
