// SPDX-License-Identifier: Apache-2.0

// Package python observes what only CPython's own memory tells: in which context (PEP 567) a thread runs, read at the hooks
// that run anyway, and which context was copied from which, by one probe at the return of an exported function. So asyncio's
// tasks, timers and callbacks, and what they start in other threads, are known for what they work for. On uvloop, whose transports
// may send later what a task writes, one more probe tells which task does.
package python

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"runtime"
	"strings"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/probes/runtime/uprobe"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package python -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf" python python.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package python -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf -DOLD_KERNEL" pythonOld python.bpf.c

// offsets of a CPython version, in bytes, of builds for production on 64 bits with the interpreter's lock.
type offsets struct {
	context    uint16 // PyThreadState.context (Include/cpython/pystate.h)
	autoTSSkey uint64 // _PyRuntime.gilstate.autoTSSkey (Include/internal/pycore_runtime.h)
}

// versions were compared with programs of each version.
var versions = map[string]offsets{
	"3.10": {240, 584},
	"3.11": {224, 592},
	"3.12": {208, 1544},
	"3.13": {208, 2160},
}

// Runtime is the loaded probe. Its methods may be called from any goroutine.
type Runtime struct {
	core   *bpf.Core
	log    *zap.Logger
	object *uprobe.Object
}

// New loads the probe beside the core.
func New(core *bpf.Core, log *zap.Logger) (*Runtime, error) {
	read := loadPython
	if core.Old {
		read = loadPythonOld
	}
	object, err := uprobe.Load(core, "Python", read)
	if err != nil {
		return nil, err
	}
	return &Runtime{core, log, object}, nil
}

// Close unloads the probe. What was attached must have been closed before.
func (r *Runtime) Close() error { return r.object.Close() }

// Programs are the loaded programs by name.
func (r *Runtime) Programs() map[string]*ebpf.Program { return r.object.Programs() }

// Attach has the contexts of a process told apart. The note says what will not be seen of it and why, and is empty
// if nothing; the Closer is nil if there was nothing to attach to.
func (r *Runtime) Attach(ctx context.Context, t *discovery.Target) (io.Closer, string, error) {
	const unknown = "the tasks of its event loops are not told apart: "
	if runtime.GOARCH != "amd64" {
		return nil, unknown + "this is known for x86-64 only", nil
	}
	closer, note, err := uprobe.WhenMapped(ctx, func() (io.Closer, string, error) { return r.attach(ctx, t) })
	switch {
	case errors.Is(err, uprobe.ErrNotMapped):
		return nil, unknown + err.Error(), nil
	case note != "":
		note = unknown + note
	}
	return closer, note, err
}

// names of the files in which the symbols are.
var (
	libpython = regexp.MustCompile(`^libpython3\.\d+(m|d)?\.so`)
	libc      = regexp.MustCompile(`^(libc\.so\.6|libc-2\.\d+\.so)$`)
)

const (
	copyCurrent = "PyContext_CopyCurrent"
	contextType = "PyContext_Type"
	runtimeData = "_PyRuntime"
	accept4     = "accept4"
	getpeername = "getpeername"
)

func (r *Runtime) attach(ctx context.Context, t *discovery.Target) (_ io.Closer, note string, err error) {
	version, ok := strings.CutPrefix(t.Version, "3.")
	minor, _, _ := strings.Cut(version, ".")
	o, known := versions["3."+minor]
	if !ok || !known {
		return nil, fmt.Sprintf("this is known for CPython 3.10 to 3.13, and not for %q", t.Version), nil
	}
	images, err := uprobe.Mapped(t.PID, func(name string) bool { return libpython.MatchString(name) || libc.MatchString(name) },
		copyCurrent, contextType, runtimeData, accept4, getpeername)
	if err != nil {
		return nil, "", err
	}
	var python, lib *uprobe.Image
	var links uprobe.Closers
	defer func() {
		for _, i := range images {
			_ = i.Close()
		}
		if err != nil || note != "" {
			_ = links.Close()
		}
	}()
	for _, i := range images {
		switch base := path.Base(i.Path); {
		case i.Has(copyCurrent, runtimeData, contextType):
			if strings.Contains(base, "t.so") || strings.HasSuffix(base, "t") {
				return nil, "builds without the interpreter's lock are not known", nil
			}
			python = i
		case libc.MatchString(base):
			lib = i
		}
	}
	if python == nil {
		return nil, "", fmt.Errorf("%w: neither the executable nor a libpython exports %s", uprobe.ErrNotMapped, copyCurrent)
	}
	w, watched := r.core.Watched(t.PID)
	if !watched {
		return nil, "", discovery.ErrGone
	}
	l, err := r.object.Attach(python.Exe, "context_copied", uprobe.Site{Offset: python.Offset(copyCurrent), Return: true}, t.PID)
	if err != nil {
		return nil, "", fmt.Errorf("attach to %s: %w", copyCurrent, err)
	}
	links = append(links, l)
	if lib != nil && lib.Has(accept4, getpeername) {
		l, err := r.object.Attach(lib.Exe, "connection_accepted", uprobe.Site{Offset: lib.Offset(accept4), Return: true}, t.PID)
		if err != nil {
			return nil, "", fmt.Errorf("attach to %s: %w", accept4, err)
		}
		links = append(links, l)
		code := make([]byte, 32)
		at := lib.Offset(getpeername)
		if _, err := lib.ReadAt(code, int64(at)); err == nil {
			at += afterCall(code)
		}
		if l, err = r.object.Attach(lib.Exe, "peer_asked", uprobe.Site{Offset: at}, t.PID); err != nil {
			return nil, "", fmt.Errorf("attach to %s: %w", getpeername, err)
		}
		links = append(links, l)
	}
	links = append(links, r.followLoop(ctx, t))
	w.Flags |= bpf.TargetPython
	w.Context = o.context
	w.AutoTssKey = python.Address(runtimeData) + o.autoTSSkey
	w.ContextType = python.Address(contextType)
	if err := r.core.Watch(t.PID, w); err != nil {
		return nil, "", err
	}
	return links, "", nil
}
