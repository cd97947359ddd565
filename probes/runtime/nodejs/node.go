// SPDX-License-Identifier: Apache-2.0

// Package nodejs observes for whom the event loop of Node.js runs what it runs: the ids that it gives to everything that is called
// later, read from memory that never moves at the hooks that run anyway, and four probes on instructions that the kernel
// emulates.
package nodejs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/probes/runtime/uprobe"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package nodejs -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf" node node.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package nodejs -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf -DOLD_KERNEL" nodeOld node.bpf.c

// layout is where a version of Node has what is read, in bytes.
type layout struct {
	ids     uint16 // of Environment, the address of AsyncHooks' ids
	wrapID  uint16 // of AsyncWrap, its id; 0: its constructor is not probed, for it calls the other one
	context uint16 // which argument of InternalCallbackScope's constructor the async_context is, from 0
}

// layouts are those of the official builds, by major version, as their code has them.
var layouts = map[int]layout{
	20: {0x480, 0x28, 3},
	22: {0x480, 0x38, 4},
	24: {0x488, 0, 4},
}

const (
	scope   = "_ZN4node21InternalCallbackScopeC2EPNS_11EnvironmentE" // and what differs between versions
	scopeOf = "_ZN4node21InternalCallbackScopeC2EPNS_9AsyncWrapEi"
)

// programs are what is probed, and by which program. Each function begins with a push.
var programs = map[string]string{
	scope:   "callback_scope",
	scopeOf: "callback_scope_of_wrap",
	"Builtins_PromiseCapabilityDefaultResolve":                     "promise_resolved",
	"_ZNK2v88internal14MicrotaskQueue11OnCompletedEPNS0_7IsolateE": "microtasks_run",
	"uv__stream_io": "event_ready",
	"uv__server_io": "event_ready",
	"uv__async_io":  "event_ready",
	"uv__poll_io":   "event_ready",
	"uv__udp_io":    "event_ready",
}

// events are those by which it is known when the loop turns to something else.
var events = []string{"uv__stream_io", "uv__server_io", "uv__async_io"}

// Runtime is the loaded probe. Its methods may be called from any goroutine.
type Runtime struct {
	core   *bpf.Core
	object *uprobe.Object
}

// New loads the probe beside the core.
func New(core *bpf.Core) (*Runtime, error) {
	read := loadNode
	if core.Old {
		read = loadNodeOld
	}
	object, err := uprobe.Load(core, "Node", read)
	if err != nil {
		return nil, err
	}
	return &Runtime{core, object}, nil
}

// Close unloads the probe. What was attached must have been closed before.
func (r *Runtime) Close() error { return r.object.Close() }

// Programs are the loaded programs by name.
func (r *Runtime) Programs() map[string]*ebpf.Program { return r.object.Programs() }

// Attach has it known for whom a process's event loop runs what it runs. The note says what will not be seen of it and why,
// and is empty if nothing; the Closer is nil if there was nothing to attach to.
func (r *Runtime) Attach(ctx context.Context, t *discovery.Target) (io.Closer, string, error) {
	const unknown = "calls that it makes after a timer or the like have no parent: "
	closer, note, err := uprobe.WhenMapped(ctx, func() (io.Closer, string, error) { return r.attach(t) })
	switch {
	case errors.Is(err, uprobe.ErrNotMapped):
		return nil, unknown + err.Error(), nil
	case note != "":
		note = unknown + note
	}
	return closer, note, err
}

func (r *Runtime) attach(t *discovery.Target) (_ io.Closer, note string, err error) {
	number, _, _ := strings.Cut(t.Version, ".")
	major, _ := strconv.Atoi(number)
	l, known := layouts[major]
	if !known || runtime.GOARCH != "amd64" {
		return nil, fmt.Sprintf("this is known for Node 20, 22 and 24 on x86-64, and not for %q", t.Version), nil
	}
	images, err := uprobe.Mapped(t.PID, func(name string) bool { return strings.HasPrefix(name, "libnode.so") })
	if err != nil {
		return nil, "", err
	}
	defer func() {
		for _, i := range images {
			_ = i.Close()
		}
	}()
	var node *uprobe.Image
	sites := map[string]uint64{}
	for _, i := range images {
		if sites, err = i.Functions(func(name string) bool {
			return strings.HasPrefix(name, scope) && strings.Contains(name, "async_context") || programs[name] != ""
		}); err != nil {
			return nil, "", fmt.Errorf("read the symbols of %s: %w", i.Path, err)
		}
		if len(sites) > 0 {
			node = i
			break
		}
	}
	if node == nil {
		return nil, "", fmt.Errorf("%w: neither the executable nor a libnode has the symbols of Node's own functions", uprobe.ErrNotMapped)
	}
	w, watched := r.core.Watched(t.PID)
	if !watched {
		return nil, "", discovery.ErrGone
	}
	loops := r.core.Maps()["node_loops"]
	state := &bpf.NodeLoop{Events: 1}
	for _, name := range events {
		if sites[name] == 0 {
			state.Events = 0
		}
	}
	if err := loops.Put(t.PID, state); err != nil {
		return nil, "", fmt.Errorf("make room for its event loop: %w", err)
	}
	links := uprobe.Closers{loop{loops, t.PID}}
	found := map[string]bool{scopeOf: l.wrapID == 0}
	for name, at := range sites {
		program := programs[name]
		if program == "" {
			name, program = scope, programs[scope]
		}
		if name == scopeOf && l.wrapID == 0 {
			continue
		}
		link, err := r.object.Attach(node.Exe, program, uprobe.Site{Offset: at}, t.PID)
		if err != nil {
			_ = links.Close()
			return nil, "", fmt.Errorf("attach to %s: %w", name, err)
		}
		links = append(links, link)
		found[name] = true
	}
	if !found[scope] || !found[scopeOf] {
		_ = links.Close()
		return nil, "it has no symbols of node::InternalCallbackScope", nil
	}
	w.Flags |= bpf.TargetNode
	w.AsyncIds, w.AsyncWrapId, w.AsyncContext = l.ids, l.wrapID, l.context
	if err := r.core.Watch(t.PID, w); err != nil {
		_ = links.Close()
		return nil, "", err
	}
	return links, "", nil
}

// loop is the kernel side's record of an event loop.
type loop struct {
	loops *ebpf.Map
	pid   uint32
}

// Close removes it.
func (l loop) Close() error {
	if err := l.loops.Delete(l.pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}
