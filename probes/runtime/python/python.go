// SPDX-License-Identifier: Apache-2.0

// Package python observes what only CPython's own memory tells: in which context (PEP 567) a thread runs, read at the hooks
// that run anyway, and which context was copied from which, by one probe at the return of an exported function. So asyncio's
// tasks, timers and callbacks, and what they start in other threads, are known for what they work for.
package python

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"runtime"
	"strings"
	"time"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/probes/runtime/uprobe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/prometheus/procfs"
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

// retries are how long after its start a process may take to map its libraries; then discovery will have named it by
// something else.
var retries = []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// Attach has the contexts of a process told apart. The note says what will not be seen of it and why, and is empty
// if nothing; the Closer is nil if there was nothing to attach to.
func (r *Runtime) Attach(ctx context.Context, t *discovery.Target) (_ io.Closer, note string, err error) {
	const unknown = "the tasks of its event loops are not told apart: "
	if runtime.GOARCH != "amd64" {
		return nil, unknown + "this is known for x86-64 only", nil
	}
	for _, wait := range retries {
		select {
		case <-ctx.Done():
			return nil, "", nil
		case <-time.After(wait):
		}
		var closer io.Closer
		if closer, note, err = r.attach(t); !errors.Is(err, errNotMapped) {
			if note != "" {
				note = unknown + note
			}
			return closer, note, err
		}
	}
	return nil, unknown + err.Error(), nil
}

// errNotMapped says that no file of the process has the interpreter's symbols: it may still be loading.
var errNotMapped = errors.New("neither its executable nor a libpython that it has loaded exports PyContext_CopyCurrent")

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
)

func (r *Runtime) attach(t *discovery.Target) (_ io.Closer, note string, err error) {
	version, ok := strings.CutPrefix(t.Version, "3.")
	minor, _, _ := strings.Cut(version, ".")
	o, known := versions["3."+minor]
	if !ok || !known {
		return nil, fmt.Sprintf("this is known for CPython 3.10 to 3.13, and not for %q", t.Version), nil
	}
	images, err := mapped(t.PID)
	if err != nil {
		return nil, "", err
	}
	var python, lib *image
	var links closers
	defer func() {
		for _, i := range images {
			_ = i.Close()
		}
		if err != nil || note != "" {
			_ = links.Close()
		}
	}()
	for _, i := range images {
		switch base := path.Base(i.name); {
		case i.symbols[copyCurrent] != 0 && i.symbols[runtimeData] != 0 && i.symbols[contextType] != 0:
			if strings.Contains(base, "t.so") || strings.HasSuffix(base, "t") {
				return nil, "builds without the interpreter's lock are not known", nil
			}
			python = i
		case libc.MatchString(base):
			lib = i
		}
	}
	if python == nil {
		return nil, "", errNotMapped
	}
	w, watched := r.core.Watched(t.PID)
	if !watched {
		return nil, "", discovery.ErrGone
	}
	l, err := r.object.Attach(python.exe, "context_copied", uprobe.Site{Offset: python.offset(copyCurrent), Return: true}, t.PID)
	if err != nil {
		return nil, "", fmt.Errorf("attach to %s: %w", copyCurrent, err)
	}
	links = append(links, l)
	if lib != nil && lib.symbols[accept4] != 0 {
		l, err := r.object.Attach(lib.exe, "connection_accepted", uprobe.Site{Offset: lib.offset(accept4), Return: true}, t.PID)
		if err != nil {
			return nil, "", fmt.Errorf("attach to %s: %w", accept4, err)
		}
		links = append(links, l)
	}
	w.Flags |= bpf.TargetPython
	w.Context = o.context
	w.AutoTssKey = python.symbols[runtimeData] + python.bias + o.autoTSSkey
	w.ContextType = python.symbols[contextType] + python.bias
	if err := r.core.Watch(t.PID, w); err != nil {
		return nil, "", err
	}
	return links, "", nil
}

// closers are closed together.
type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, l := range c {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// image is a file that a process has mapped.
type image struct {
	*os.File
	name    string
	exe     *link.Executable
	elf     *elf.File
	symbols map[string]uint64 // those of the above that it exports, as linked
	bias    uint64            // what is to be added to them in the process
}

// offset is where in the file a function begins.
func (i *image) offset(symbol string) uint64 {
	at, _ := uprobe.FileOffset(i.elf, i.symbols[symbol])
	return at
}

// mapped opens the executable of a process, and what it has mapped of the libraries that matter.
func mapped(pid uint32) (images []*image, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	proc, err := procfs.NewProc(int(pid))
	if err != nil {
		return nil, discovery.ErrGone
	}
	maps, err := proc.ProcMaps()
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("read %s/maps: %w", dir, err)
	case err != nil:
		return nil, discovery.ErrGone
	}
	exe, _ := os.Readlink(dir + "/exe")
	seen := map[string]bool{}
	for _, m := range maps {
		base := path.Base(m.Pathname)
		if m.Offset != 0 || seen[m.Pathname] || m.Pathname != exe && !libpython.MatchString(base) && !libc.MatchString(base) {
			continue
		}
		seen[m.Pathname] = true
		open := func() (*os.File, error) { return discovery.OpenIn(dir, m.Pathname) }
		if m.Pathname == exe {
			open = func() (*os.File, error) { return os.Open(dir + "/exe") }
		}
		f, err := open()
		if err != nil {
			continue // it was replaced; its symbols are not to be had
		}
		i, err := readImage(f, m.Pathname, uint64(m.StartAddr))
		if err != nil {
			_ = f.Close()
			continue
		}
		images = append(images, i)
	}
	return images, nil
}

func readImage(f *os.File, name string, start uint64) (i *image, err error) {
	defer func() {
		if p := recover(); p != nil { // debug/elf reads what others wrote
			err = fmt.Errorf("malformed executable: %v", p)
		}
	}()
	i = &image{File: f, name: name, symbols: map[string]uint64{}}
	if i.elf, err = elf.NewFile(f); err != nil {
		return nil, err
	}
	if i.exe, err = link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
		return nil, err
	}
	symbols, err := i.elf.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		switch s.Name {
		case copyCurrent, contextType, runtimeData, accept4:
			if s.Section != elf.SHN_UNDEF {
				i.symbols[s.Name] = s.Value
			}
		}
	}
	for _, p := range i.elf.Progs {
		if p.Type == elf.PT_LOAD && p.Off == 0 {
			i.bias = start - p.Vaddr
		}
	}
	return i, nil
}
