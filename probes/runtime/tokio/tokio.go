// SPDX-License-Identifier: Apache-2.0

// Package tokio has the tasks of programs on tokio told apart, the runtime of most of Rust's asynchronous ones: where a thread keeps
// the id of the task that it runs is read out of the code that sets it, and probes tell which task spawns which, and which asks
// something of another over a channel, as a request asks the connection of an HTTP client. It needs the executable's symbols.
package tokio

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/probes/runtime/uprobe"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package tokio -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf" tokio tokio.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package tokio -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf -DOLD_KERNEL" tokioOld tokio.bpf.c

// Runtime is the loaded probe. Its methods may be called from any goroutine.
type Runtime struct {
	core   *bpf.Core
	object *uprobe.Object
}

// New loads the probe beside the core.
func New(core *bpf.Core) (*Runtime, error) {
	read := loadTokio
	if core.Old {
		read = loadTokioOld
	}
	object, err := uprobe.Load(core, "tokio", read)
	if err != nil {
		return nil, err
	}
	return &Runtime{core, object}, nil
}

// Close unloads the probe. What was attached must have been closed before.
func (r *Runtime) Close() error { return r.object.Close() }

// Programs are the loaded programs by name.
func (r *Runtime) Programs() map[string]*ebpf.Program { return r.object.Programs() }

// Attach has the tasks of a process told apart. The note says what will not be seen of it and why, and is empty if nothing; the
// Closer is nil if there was nothing to attach to, as in a program that does not use tokio.
func (r *Runtime) Attach(_ context.Context, t *discovery.Target) (io.Closer, string, error) {
	images, err := uprobe.Mapped(t.PID, func(string) bool { return false })
	if err != nil || len(images) == 0 {
		return nil, "", err
	}
	exe := images[0]
	defer exe.Close()
	version, err := tokioVersion(exe)
	if err != nil || version == "" {
		return nil, "", err
	}
	unknown := "calls of its tasks have no parent, but those that a single task makes itself: "
	if runtime.GOARCH != "amd64" {
		return nil, unknown + "this is known for x86-64 only", nil
	}
	symbols, err := exe.Symbols(func(name string) bool { return symbolOf(name) != 0 })
	if err != nil {
		return nil, "", fmt.Errorf("read the symbols of %s: %w", exe.Path, err)
	}
	l, err := findLayout(symbols, exe.Code)
	if err != nil {
		return nil, unknown + fmt.Sprintf("of tokio %s, %v", version, err), nil
	}
	closer, err := r.attach(t, exe, l)
	return closer, "", err
}

func (r *Runtime) attach(t *discovery.Target, exe *uprobe.Image, l layout) (io.Closer, error) {
	w, watched := r.core.Watched(t.PID)
	if !watched {
		return nil, discovery.ErrGone
	}
	w.Flags |= bpf.TargetTokio
	w.TaskId, w.WakerVtable = uint64(l.taskID), exe.Loaded(l.wakerVtable)
	if l.some {
		w.TaskSome = 1
	}
	if err := r.core.Watch(t.PID, w); err != nil {
		return nil, err
	}
	var links uprobe.Closers
	for _, s := range l.sites {
		link, err := r.object.Attach(exe.Exe, s.program, uprobe.Site{Offset: s.offset}, t.PID)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s: %w", s.program, err), links.Close())
		}
		links = append(links, link)
	}
	return links, nil
}

// sources is how the path of a source of tokio looks in the messages of its panics, which are never left out.
var sources = regexp.MustCompile(`/tokio-(\d+\.\d+\.\d+)/src/`)

// tokioVersion is the version of tokio that a program has, or empty.
func tokioVersion(exe *uprobe.Image) (version string, err error) {
	err = exe.Contents(func(part []byte) bool {
		for {
			i := bytes.Index(part, []byte("/tokio-"))
			if i < 0 {
				return false
			}
			part = part[i:]
			if m := sources.FindSubmatch(part[:min(len(part), 64)]); m != nil {
				version = string(m[1])
				return true
			}
			part = part[1:]
		}
	})
	return version, err
}

// symbol is one of tokio's functions, or data, that matter.
type symbol int

const (
	_ symbol = iota
	setTask
	wakerVtable
	atomicWake
	hookSpawn
	bindInner
	spawnBlocking
)

// symbols are parts of their names, which are the same in both ways in which Rust mangles names.
var symbols = map[symbol][]string{
	setTask:       {"5tokio7runtime7context19set_current_task_id"},
	wakerVtable:   {"5tokio7runtime4task5waker12WAKER_VTABLE"},
	atomicWake:    {"5tokio4sync4task12atomic_waker", "11AtomicWaker", "4wake"},
	hookSpawn:     {"5tokio7runtime10task_hooks", "9TaskHooks", "5spawn"},
	bindInner:     {"5tokio7runtime4task4list", "OwnedTasks", "10bind_inner"},
	spawnBlocking: {"5tokio7runtime8blocking4pool", "7Spawner", "10spawn_task"},
}

// symbolOf is the symbol whose mangled name it is, or 0.
func symbolOf(name string) symbol {
	if !strings.Contains(name, "5tokio") {
		return 0
	}
	for s, parts := range symbols {
		if rest, ok := behind(name, parts); ok && ends.MatchString(rest) {
			return s
		}
	}
	return 0
}

// ends is what follows on the last part: a hash, or the crate for which it was compiled. A closure within the function goes on.
var ends = regexp.MustCompile(`^(17h[0-9a-f]{16}E|Cs.*)?(\.llvm\..*)?$`)

// behind is what follows on parts, which are to be found in a name one after the other.
func behind(name string, parts []string) (rest string, ok bool) {
	for _, p := range parts {
		if _, name, ok = strings.Cut(name, p); !ok {
			return "", false
		}
	}
	return name, true
}

// layout is what of a program matters.
type layout struct {
	taskID      int64 // where a thread has the id of the task that it runs, from the thread pointer on
	some        bool
	wakerVtable uint64 // as linked
	sites       []site
}

type site struct {
	program string
	offset  uint64 // in the file
}

// findLayout finds it by an executable's symbols; code reads a function and says where in the file it begins.
func findLayout(found map[string]uprobe.Symbol, code func(uprobe.Symbol) ([]byte, uint64, error)) (l layout, err error) {
	by := map[symbol][]uprobe.Symbol{}
	for name, s := range found {
		by[symbolOf(name)] = append(by[symbolOf(name)], s)
	}
	switch {
	case len(by[setTask]) == 0 || len(by[wakerVtable]) == 0 || len(by[atomicWake]) == 0:
		return l, errors.New("the symbols are missing: the executable is stripped, or was built with LTO")
	case len(by[setTask]) > 1 || len(by[wakerVtable]) > 1:
		return l, errors.New("there are two versions")
	}
	text, _, err := code(by[setTask][0])
	if err != nil {
		return l, err
	}
	var ok bool
	if l.taskID, l.some, ok = taskID(text); !ok {
		return l, errors.New("the code does not say where a thread has the task that it runs")
	}
	l.wakerVtable = by[wakerVtable][0].Address
	if err := l.probe("receiver_woken", by[atomicWake], code); err != nil {
		return l, err
	}
	spawns, program := by[hookSpawn], "task_spawned"
	if len(spawns) == 0 {
		spawns, program = by[bindInner], "task_made"
	}
	if len(spawns) == 0 {
		return l, errors.New("the symbols of what spawns tasks are missing")
	}
	if err := l.probe(program, spawns, code); err != nil {
		return l, err
	}
	return l, l.probe("task_made", by[spawnBlocking], code)
}

// probe has a program see the calls of functions.
func (l *layout) probe(program string, functions []uprobe.Symbol, code func(uprobe.Symbol) ([]byte, uint64, error)) error {
	slices.SortFunc(functions, func(a, b uprobe.Symbol) int { return cmp.Compare(a.Address, b.Address) })
	// Functions whose code is the same may be folded into one.
	functions = slices.CompactFunc(functions, func(a, b uprobe.Symbol) bool { return a.Address == b.Address })
	for _, f := range functions {
		text, at, err := code(f)
		if err != nil {
			return err
		}
		offset, ok := entrySite(text)
		if !ok {
			return fmt.Errorf("the function at %#x has no place for a probe that is cheap", f.Address)
		}
		l.sites = append(l.sites, site{program, at + offset})
	}
	return nil
}
