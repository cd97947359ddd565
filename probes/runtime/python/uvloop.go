// SPDX-License-Identifier: Apache-2.0

package python

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"time"

	"breadcrumb/discovery"
	"breadcrumb/probes/runtime/uprobe"

	"go.uber.org/zap"
)

// loopLooks are how long it may take a program, one after the other, to import uvloop.
var loopLooks = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
	8 * time.Second, 16 * time.Second, 32 * time.Second}

// loopProbe is what is attached to the uvloop of a process as soon as it has one.
type loopProbe struct {
	stop  context.CancelFunc
	done  chan struct{}
	links uprobe.Closers
}

// Close detaches.
func (p *loopProbe) Close() error {
	p.stop()
	<-p.done
	return p.links.Close()
}

// followLoop attaches to the uvloop of a process, or waits for it to import one, which it need not.
func (r *Runtime) followLoop(ctx context.Context, t *discovery.Target) *loopProbe {
	ctx, stop := context.WithCancel(ctx)
	p := &loopProbe{stop: stop, done: make(chan struct{})}
	if p.look(r, t) {
		close(p.done)
		return p
	}
	go func() {
		defer close(p.done)
		for _, wait := range loopLooks {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			if p.look(r, t) {
				return
			}
		}
	}()
	return p
}

// look says whether there is nothing more to wait for.
func (p *loopProbe) look(r *Runtime, t *discovery.Target) bool {
	links, err := r.attachLoop(t)
	switch {
	case errors.Is(err, uprobe.ErrNotMapped):
		return false
	case err != nil && !errors.Is(err, discovery.ErrGone):
		r.log.Warn("what this process does over uvloop's transports has no parent", zap.Uint32("pid", t.PID),
			zap.String("service", t.Service), zap.Error(err))
	}
	p.links = links
	return true
}

var (
	loopFile    = regexp.MustCompile(`^loop\.(.+\.)?so$`)
	loopVersion = regexp.MustCompile(`(?m)^__version__ = ['"](\d+)\.(\d+)`)
)

// attachLoop fails with ErrNotMapped as long as the process has not imported uvloop.
func (r *Runtime) attachLoop(t *discovery.Target) (_ uprobe.Closers, err error) {
	images, err := uprobe.Mapped(t.PID, loopFile.MatchString)
	if err != nil {
		return nil, err
	}
	var links uprobe.Closers
	defer func() {
		for _, i := range images {
			_ = i.Close()
		}
		if err != nil {
			_ = links.Close()
		}
	}()
	for _, i := range images {
		if path.Base(path.Dir(i.Path)) != "uvloop" {
			continue
		}
		if sendsAtOnce(t.PID, path.Dir(i.Path)) {
			return nil, nil
		}
		methods, err := findMethods(i, streamMethods, "write", "writelines")
		if err != nil {
			return nil, fmt.Errorf("look for the methods of UVStream in %s: %w", i.Path, err)
		}
		for _, at := range methods {
			l, err := r.object.Attach(i.Exe, "transport_writes", uprobe.Site{Offset: at}, t.PID)
			if err != nil {
				return nil, fmt.Errorf("attach to UVStream's methods: %w", err)
			}
			links = append(links, l)
		}
		return links, nil
	}
	return nil, uprobe.ErrNotMapped
}

// sendsAtOnce says whether the uvloop in a folder of a process sends what is written in the context in which it is: from 0.23 on
// (uvloop/handles/stream.pyx, UVStream._initiate_write). One whose version is not to be found is taken to be older: what is attached
// then is needless at worst.
func sendsAtOnce(pid uint32, dir string) bool {
	f, err := discovery.OpenIn(fmt.Sprintf("/proc/%d", pid), path.Join(dir, "_version.py"))
	if err != nil {
		return false
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 1<<16))
	return version(text) >= 23
}

// version is the minor version in the text of _version.py, as if it were that of 0, or -1.
func version(text []byte) int {
	v := loopVersion.FindSubmatch(text)
	if v == nil {
		return -1
	}
	major, errMajor := strconv.ParseUint(string(v[1]), 10, 16)
	minor, errMinor := strconv.ParseUint(string(v[2]), 10, 16)
	if errMajor != nil || errMinor != nil {
		return -1
	}
	return int(major)*1000 + int(minor)
}

// streamMethods are methods of UVStream that follow one another in the table of them; of no other class do these.
var streamMethods = []string{"write", "writelines", "write_eof", "can_write_eof", "is_reading"}

const (
	methodSize    = 32      // of a PyMethodDef: name, function, flags, doc (Include/methodobject.h)
	maxRelocation = 1 << 24 // bytes of a table of relocations that is read
)

// findMethods finds the functions of some of the methods of a class in a library that exports none of them: by the table in which
// CPython finds them, whose pointers the relocations have. What comes back are places in the file of instructions at which each
// begins and the kernel emulates. All functions of a class take the object as their first argument, however CPython calls them.
func findMethods(file io.ReaderAt, table []string, wanted ...string) (sites []uint64, err error) {
	defer func() {
		if p := recover(); p != nil { // debug/elf reads what others wrote
			err = fmt.Errorf("malformed library: %v", p)
		}
	}()
	lib, err := elf.NewFile(file)
	if err != nil {
		return nil, err
	}
	if lib.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("it is for %v", lib.Machine)
	}
	l := library{lib.Progs, map[uint64]uint64{}}
	if err := l.readPointers(lib); err != nil {
		return nil, err
	}
	begins, found := uint64(0), 0
	for at := range l.pointers {
		if l.isTable(at, table) {
			begins = at
			found++
		}
	}
	if found != 1 {
		return nil, fmt.Errorf("it has %d tables of methods that look like this class's", found)
	}
	for n, name := range table {
		for _, w := range wanted {
			if name != w {
				continue
			}
			site, err := l.push(l.pointers[begins+uint64(n)*methodSize+8])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			sites = append(sites, site)
		}
	}
	return sites, nil
}

// library is a shared library whose contents are looked up by address as linked.
type library struct {
	segments []*elf.Prog
	pointers map[uint64]uint64 // by where they are
}

// readPointers reads those which are made when the library is loaded.
func (l *library) readPointers(lib *elf.File) error {
	const size = 24 // of an Elf64_Rela: offset, info, addend
	at, n := uint64(0), uint64(0)
	for _, tag := range []struct {
		tag elf.DynTag
		to  *uint64
	}{{elf.DT_RELA, &at}, {elf.DT_RELASZ, &n}} {
		values, err := lib.DynValue(tag.tag)
		if err != nil {
			return err
		}
		if len(values) != 1 {
			return fmt.Errorf("it has %d of %v", len(values), tag.tag)
		}
		*tag.to = values[0]
	}
	if n > maxRelocation {
		return fmt.Errorf("its relocations take %d bytes", n)
	}
	table := make([]byte, n)
	if l.read(at, table) != len(table) {
		return errors.New("its relocations are cut")
	}
	for ; len(table) >= size; table = table[size:] {
		if elf.R_X86_64(binary.LittleEndian.Uint32(table[8:])) == elf.R_X86_64_RELATIVE {
			l.pointers[binary.LittleEndian.Uint64(table)] = binary.LittleEndian.Uint64(table[16:])
		}
	}
	return nil
}

// read is how many bytes of what is at an address there are.
func (l *library) read(addr uint64, b []byte) int {
	for _, p := range l.segments {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			n, _ := p.ReadAt(b, int64(addr-p.Vaddr))
			return n
		}
	}
	return 0
}

// isTable says whether the names of methods begin with these at an address.
func (l *library) isTable(at uint64, names []string) bool {
	for n, name := range names {
		b := make([]byte, len(name)+1)
		if addr, ok := l.pointers[at+uint64(n)*methodSize]; !ok || l.read(addr, b) < len(b) || string(b) != name+"\x00" {
			return false
		}
	}
	return true
}

// push is where in the file the first instruction of a function is that the kernel emulates, before any other that does something.
func (l *library) push(addr uint64) (uint64, error) {
	var code [6]byte
	l.read(addr, code[:])
	begins := code[:]
	if rest, ok := bytes.CutPrefix(begins, []byte{0xf3, 0x0f, 0x1e, 0xfa}); ok { // endbr64
		begins, addr = rest, addr+4
	}
	if !(begins[0]&^7 == 0x50 || begins[0] == 0x41 && begins[1]&^7 == 0x50) { // push %reg
		return 0, fmt.Errorf("its function begins with %x", code)
	}
	for _, p := range l.segments {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return addr - p.Vaddr + p.Off, nil
		}
	}
	return 0, errors.New("its function is not in code")
}

// afterCall is how far behind the beginning of a function of the C library, which does nothing but a system call, the jump behind
// that is: the kernel emulates it, and the first argument is still in its register. 0: the function does not look like this.
func afterCall(code []byte) uint64 {
	rest, _ := bytes.CutPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) // endbr64
	const behind = 13
	if len(rest) <= behind || rest[0] != 0xb8 || // mov $number, %eax
		!bytes.Equal(rest[5:9], []byte{0x0f, 0x05, 0x48, 0x3d}) || // syscall; cmp $…, %rax
		rest[behind] != 0x73 && rest[behind] != 0x77 { // jae, ja
		return 0
	}
	return uint64(len(code)-len(rest)) + behind
}
