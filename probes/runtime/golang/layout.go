// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"

	"breadcrumb/bpf"
)

// ErrNotGo is returned for a file that was not built by Go.
var ErrNotGo = errors.New("not built by Go")

// ErrTooOld is returned for a program of a Go version that is not supported: before 1.19 nothing was
// compared, and before 1.17 arguments and g are not in registers.
var ErrTooOld = errors.New("versions of Go before 1.19 are not supported")

// roundTrip is called for every HTTP/1 request of a net/http client, by the goroutine that wants the
// answer, once the connection for it is there, new or reused: by Transport.RoundTrip (again for each
// attempt on another connection) and, since Go 1.26, by ClientConn.RoundTrip. From there the request goes
// over channels to the connection's own goroutines. HTTP/2 requests take another way (persistConn.alt).
// Only a proxy's CONNECT is written to such a connection without it, by the goroutine that dials. A call
// may end before it has written anything (cancelled, connection lost); the next on that connection comes
// by here again. It is far too large to be inlined.
// At its entry the receiver, the *persistConn, is in the first argument's register.
const roundTrip = "net/http.(*persistConn).roundTrip"

// chanSend and chanClose are called by whoever gives to another goroutine what that waits for at a channel: the first with
// the other's sudog as the second argument, the second with the channel as the first. Where nobody waits at the channel the
// first is not called.
const (
	chanSend  = "runtime.send"
	chanClose = "runtime.closechan"
)

// noClient is why a program without a net/http client has no site; nothing of it is missed.
const noClient = "it has no net/http client"

// runtimeMain is in every Go program.
const runtimeMain = "runtime.main"

// Layout is what must be known of a Go program to observe it. It belongs to the executable, not to the
// process, and does not change.
type Layout struct {
	Version string // as the toolchain calls itself, "go1.26.8"
	Offsets Offsets
	// Exact says that Offsets were compared with this version; else they are a guess that stands for as
	// long as what is read by them is plausible.
	Exact bool
	// RoundTrip is where net/http's client tells which goroutine a request is made for. If it is nil,
	// NoRoundTrip says why, in words for people.
	RoundTrip   *Site
	NoRoundTrip string
	// Send and Close are where goroutines hand over to others, see chanSend; nil where there is no such place.
	Send, Close *Site
	// Streams are where goroutines serve and open streams of HTTP/2. NoStreams says why not all of them are known, in words for
	// people; empty if nothing is missed.
	Streams   []StreamSite
	NoStreams string
	// GRPC and HTTP2 are what is read there; Guessed are the libraries of which no such version was compared.
	GRPC, HTTP2 bpf.StreamLayout
	Guessed     []string
}

// Site is a place for a uprobe.
type Site struct {
	Entry
	Addr       uint64 // as linked
	FileOffset uint64
}

// Analyze finds out how to observe the program in an executable file.
func Analyze(r io.ReaderAt) (l *Layout, err error) {
	defer recoverInto(&err)
	info, err := buildinfo.Read(&budget{r, maxHeaders})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotGo, err)
	}
	l = &Layout{Version: info.GoVersion}
	l.Offsets, l.Exact = Lookup(info.GoVersion)
	if l.Offsets.StackHi == 0 {
		return nil, fmt.Errorf("built by %s: %w", info.GoVersion, ErrTooOld)
	}
	im, err := openImage(r)
	if err != nil {
		return nil, err
	}
	funcs, err := im.symbols(append(streamFunctions(), roundTrip, runtimeMain, chanSend, chanClose)...)
	if err != nil {
		l.NoRoundTrip = fmt.Sprintf("its functions cannot be found: %v", err)
		return l, nil
	}
	l.RoundTrip, l.NoRoundTrip = im.roundTripSite(funcs)
	if f, ok := funcs[chanSend]; ok {
		l.Send, _ = im.site(f) // without it less is known
	}
	if f, ok := funcs[chanClose]; ok {
		l.Close, _ = im.site(f)
	}
	l.findStreams(im, funcs, info)
	return l, nil
}

func (im *image) roundTripSite(funcs map[string]Func) (site *Site, why string) {
	if _, ok := funcs[runtimeMain]; !ok {
		return nil, "its functions have no names (obfuscated)"
	}
	f, ok := funcs[roundTrip]
	if !ok {
		return nil, noClient
	}
	site, err := im.site(f)
	if err != nil {
		return nil, fmt.Sprintf("no place for a probe in %s: %v", roundTrip, err)
	}
	return site, ""
}

// maxCode bounds what is read of one function. Those that are probed have some 4 KiB.
const maxCode = 128 << 10

var errNotEntry = errors.New("its code does not begin as a Go function does")

func (im *image) site(f Func) (*Site, error) {
	if f.Size > maxCode {
		return nil, errNotEntry
	}
	code := make([]byte, f.Size)
	if _, err := im.ReadAt(code, int64(f.Addr)); err != nil {
		return nil, fmt.Errorf("read code of %s: %w", f.Name, err)
	}
	entry, err := EntrySite(code, im.machine)
	if err != nil {
		return nil, err
	}
	// Every function that is worth a probe is large enough to check its stack. Without the check these
	// bytes are something else: the start of Go's code was read wrong.
	if !entry.Checked {
		return nil, errNotEntry
	}
	if !entry.Emulated {
		return nil, errors.New("the kernel would have to single-step every call")
	}
	addr := f.Addr + uint64(entry.Offset)
	off, ok := im.fileOffset(addr)
	if !ok {
		return nil, errNotEntry
	}
	return &Site{Entry: entry, Addr: addr, FileOffset: off}, nil
}
