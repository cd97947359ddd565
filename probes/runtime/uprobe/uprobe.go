// SPDX-License-Identifier: Apache-2.0

// Package uprobe loads and attaches the probes that the runtimes have of their own, beside the core.
package uprobe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"breadcrumb/bpf"
	"breadcrumb/discovery"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Object is a loaded object, which shares the core's maps. Its methods may be called from any goroutine.
type Object struct {
	name string
	load func(ebpf.AttachType) (*ebpf.Collection, error)

	mu    sync.Mutex
	plain *ebpf.Collection
	multi *ebpf.Collection // for uprobe_multi; nil until it is needed
}

// Load loads an object of bpf2go's; read is the one for the core's build; object is its name, for errors.
func Load(core *bpf.Core, object string, read func() (*ebpf.CollectionSpec, error)) (*Object, error) {
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
			return nil, fmt.Errorf("load the %s probe: the core has no map %s", object, name)
		}
		own.MaxEntries, own.Flags = m.MaxEntries(), m.Flags()
		replace[name] = m
	}
	if v := spec.Variables["id_seed"]; v != nil {
		if err := v.Set(core.IDSeed); err != nil {
			return nil, fmt.Errorf("load the %s probe: set id_seed: %w", object, err)
		}
	}
	o := &Object{name: object}
	o.load = func(attach ebpf.AttachType) (*ebpf.Collection, error) {
		own := spec.Copy()
		for _, p := range own.Programs {
			p.AttachType = attach
		}
		c, err := ebpf.NewCollectionWithOptions(own, ebpf.CollectionOptions{MapReplacements: replace})
		if err != nil {
			return nil, fmt.Errorf("load the %s probe: %w", o.name, err)
		}
		return c, nil
	}
	if o.plain, err = o.load(ebpf.AttachNone); err != nil {
		return nil, err
	}
	return o, nil
}

// Close unloads the object. What was attached must have been closed before.
func (o *Object) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.plain.Close()
	if o.multi != nil {
		o.multi.Close()
	}
	return nil
}

// Programs are the loaded programs by name.
func (o *Object) Programs() map[string]*ebpf.Program {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.multi != nil {
		return o.multi.Programs
	}
	return o.plain.Programs
}

// Site is where a probe goes: an offset in a file, or the return from the function that begins there.
type Site struct {
	Offset uint64
	Return bool
}

// Emulated says whether a uprobe on an instruction of x86-64 is emulated by every kernel that we run on
// (arch/x86/kernel/uprobes.c, branch_setup_xol_ops and push_setup_xol_ops, Linux 5.10). No other prefix
// than the REX.B of PUSHQ R8 to R15 is allowed, and the longer forms of NOP are emulated since Linux 6.18
// only.
func Emulated(code []byte) bool {
	switch op := code[0]; {
	case op >= 0x50 && op <= 0x57, op == 0x90, op >= 0x70 && op <= 0x7f, op == 0xe8, op == 0xe9, op == 0xeb:
		return true
	case len(code) > 1 && op == 0x41:
		return code[1] >= 0x50 && code[1] <= 0x57
	case len(code) > 1 && op == 0x0f:
		return code[1] >= 0x80 && code[1] <= 0x8f
	}
	return false
}

// Attach puts a program in one process only: another one that runs the same file and is not watched pays nothing. It
// fails with discovery.ErrGone where the process has ended.
//
// The perf event is refused without CAP_SYS_ADMIN; uprobe_multi (6.6) is not, but before 6.10 (commit 46ba0e49b642)
// it may fire for the process's first thread alone.
func (o *Object) Attach(exe *link.Executable, program string, at Site, pid uint32) (link.Link, error) {
	l, err := o.attach(exe, program, at, pid)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
		return nil, discovery.ErrGone
	}
	return l, err
}

func (o *Object) attach(exe *link.Executable, program string, at Site, pid uint32) (link.Link, error) {
	attach := exe.Uprobe
	if at.Return {
		attach = exe.Uretprobe
	}
	l, err := attach("", o.plain.Programs[program], &link.UprobeOptions{Address: at.Offset, PID: int(pid)})
	if !errors.Is(err, os.ErrPermission) {
		return l, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.multi == nil {
		multi, refused := o.load(ebpf.AttachTraceUprobeMulti)
		if refused != nil {
			return nil, fmt.Errorf("%w; without CAP_SYS_ADMIN it takes uprobe_multi: %w", err, refused)
		}
		o.multi = multi
	}
	attachMulti := exe.UprobeMulti
	if at.Return {
		attachMulti = exe.UretprobeMulti
	}
	l, refused := attachMulti(nil, o.multi.Programs[program], &link.UprobeMultiOptions{Addresses: []uint64{at.Offset}, PID: pid})
	if refused != nil {
		return nil, fmt.Errorf("%w; without CAP_SYS_ADMIN it takes uprobe_multi: %w", err, refused)
	}
	return l, nil
}

// Closers are closed together.
type Closers []io.Closer

// Close closes all of them.
func (c Closers) Close() error {
	var errs []error
	for _, l := range c {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// ErrNotMapped says that none of a process's files has what is looked for.
var ErrNotMapped = errors.New("the process has not mapped it")

// retries are how long a process that has just started may take to map its libraries. What lives for less than the first is
// not worth a probe, as the children of a server that forks for each connection.
var retries = []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// WhenMapped calls attach until it does not fail with ErrNotMapped: a process that has just started may still be loading. It
// gives up after some seconds, or when ctx is done.
func WhenMapped(ctx context.Context, attach func() (io.Closer, string, error)) (c io.Closer, note string, err error) {
	for _, wait := range retries {
		select {
		case <-ctx.Done():
			return nil, "", nil
		case <-time.After(wait):
		}
		if c, note, err = attach(); !errors.Is(err, ErrNotMapped) {
			break
		}
	}
	return c, note, err
}
