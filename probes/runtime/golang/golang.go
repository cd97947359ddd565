// SPDX-License-Identifier: Apache-2.0

// Package golang observes what only a Go program's own memory tells: which goroutine does what, read at
// the hooks that run anyway, and on whose behalf net/http's client uses a pooled connection, by one
// uprobe on an instruction that the kernel emulates.
package golang

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/probes/runtime/uprobe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package golang -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf" golang golang.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -go-package golang -cflags "-O2 -g -Wall -Werror -I../../../bpf/libbpf -I../../../bpf -DOLD_KERNEL" golangOld golang.bpf.c

// maxLayouts bounds the executables whose layout is remembered: a node runs fewer Go programs.
const maxLayouts = 1024

// Runtime is the loaded probe. Its methods may be called from any goroutine.
type Runtime struct {
	log    *zap.Logger
	core   *bpf.Core
	object *uprobe.Object

	mu      sync.Mutex
	layouts map[file]*Layout
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
	object, err := uprobe.Load(core, "Go", read)
	if err != nil {
		return nil, err
	}
	return &Runtime{log: log, core: core, object: object, layouts: map[file]*Layout{}}, nil
}

// Close unloads the probe. What was attached must have been closed before.
func (r *Runtime) Close() error { return r.object.Close() }

// Programs are the loaded programs by name.
func (r *Runtime) Programs() map[string]*ebpf.Program { return r.object.Programs() }

// Describe adds to a watched process what the kernel side must know of Go programs of the version. Exact
// is false if the version was never compared and the nearest one's layout is used.
func Describe(version string, t *bpf.Target) (exact bool) {
	o, exact := Lookup(version)
	if o.StackHi == 0 {
		return false // before 1.19: nothing of it is read
	}
	t.Flags |= bpf.TargetGo
	t.Goid, t.ParentGoid = o.Goid, o.ParentGoid
	t.Receivers = o.Receivers
	t.PersistConn, t.Sysfd, t.Family, t.Sotype = o.PersistConnConn, o.Sysfd, o.Family, o.Sotype
	return exact
}

// Attach puts the probe into a process. The note says what will not be seen of it and why, and is empty
// if nothing; the Closer is nil if there was nothing to attach to.
func (r *Runtime) Attach(_ context.Context, t *discovery.Target) (_ io.Closer, note string, err error) {
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
	exe, err := link.OpenExecutable(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, "", discovery.ErrGone
	case err != nil:
		return nil, "", fmt.Errorf("open %s: %w", t.Exe, err)
	}
	var links uprobe.Closers
	attach := func(function, program string, at *Site) error {
		// A Go program does not fork without an exec.
		l, err := r.object.Attach(exe, program, uprobe.Site{Offset: at.FileOffset}, t.PID)
		if err != nil {
			_ = links.Close()
			if errors.Is(err, discovery.ErrGone) {
				return err
			}
			return fmt.Errorf("attach to %s in %s: %w", function, t.Exe, err)
		}
		links = append(links, l)
		return nil
	}
	if layout.RoundTrip != nil {
		if err := attach(roundTrip, "persist_conn_round_trip", layout.RoundTrip); err != nil {
			return nil, "", err
		}
	}
	if len(layout.Streams) > 0 {
		w, watched := r.core.Watched(t.PID)
		if !watched {
			_ = links.Close()
			return nil, "", discovery.ErrGone
		}
		w.Grpc, w.Http2 = layout.GRPC, layout.HTTP2
		if err := r.core.Watch(t.PID, w); err != nil {
			_ = links.Close()
			return nil, "", err
		}
	}
	for i := range layout.Streams {
		s := &layout.Streams[i]
		if err := attach(s.Function, s.Program, &s.Site); err != nil {
			return nil, "", err
		}
	}
	if links == nil {
		return nil, layout.missing(), nil
	}
	return links, layout.missing(), nil
}

// missing says what will not be seen of the program, and why.
func (l *Layout) missing() string {
	var notes []string
	if l.RoundTrip == nil && l.NoRoundTrip != noClient {
		notes = append(notes, "calls of its net/http client have no parent: "+l.NoRoundTrip)
	}
	if l.NoStreams != "" {
		notes = append(notes, "calls made over HTTP/2, or for requests over it, have no parent: "+l.NoStreams)
	}
	if !l.Exact && (l.RoundTrip != nil || len(l.Streams) > 0) {
		notes = append(notes, l.Version+" is not known: the layout of the nearest version is used where it proves right")
	}
	for _, library := range l.Guessed {
		notes = append(notes, library+" is not known: a layout is used where it proves right")
	}
	return strings.Join(notes, "; ")
}

// AttachHandOffs has it told, for a process to which Attach has been, when a goroutine gives to another one what that waits for
// at a channel. It costs the program some 0.5 us for each such moment; the Closer is nil if there is nothing to attach to.
func (r *Runtime) AttachHandOffs(t *discovery.Target) (io.Closer, error) {
	path := fmt.Sprintf("/proc/%d/exe", t.PID)
	layout, err := r.layout(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, discovery.ErrGone
	case err != nil:
		return nil, fmt.Errorf("analyse %s: %w", t.Exe, err)
	}
	exe, err := link.OpenExecutable(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", t.Exe, err)
	}
	var links uprobe.Closers
	for _, p := range []struct {
		program string
		site    *Site
	}{{"chan_send", layout.Send}, {"chan_close", layout.Close}} {
		if p.site == nil {
			continue
		}
		l, err := r.object.Attach(exe, p.program, uprobe.Site{Offset: p.site.FileOffset}, t.PID)
		if err != nil {
			_ = links.Close()
			return nil, err
		}
		links = append(links, l)
	}
	if links == nil {
		return nil, nil
	}
	return links, nil
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
