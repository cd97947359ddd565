// SPDX-License-Identifier: Apache-2.0

// Package java finds what the kernel side must know of a Java process to tell its virtual threads apart. Nothing is probed:
// HotSpot says of itself where the fields of its structures are, and they are read at the hooks that run anyway.
package java

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/probes/runtime/uprobe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Runtime describes Java processes to the kernel side. Its methods may be called from any goroutine.
type Runtime struct{ core *bpf.Core }

// New returns one that describes processes to core.
func New(core *bpf.Core) *Runtime { return &Runtime{core} }

// Close does nothing.
func (r *Runtime) Close() error { return nil }

// Programs are none.
func (r *Runtime) Programs() map[string]*ebpf.Program { return nil }

// The table in which HotSpot tells debuggers of its structures, and what an entry of it is like
// (src/hotspot/share/runtime/vmStructs.hpp).
const (
	table       = "gHotSpotVMStructs"
	typeName    = "gHotSpotVMStructEntryTypeNameOffset"
	fieldName   = "gHotSpotVMStructEntryFieldNameOffset"
	fieldOffset = "gHotSpotVMStructEntryOffsetOffset"
	address     = "gHotSpotVMStructEntryAddressOffset" // of a static field
	stride      = "gHotSpotVMStructEntryArrayStride"
)

var symbols = []string{table, typeName, fieldName, fieldOffset, address, stride}

// Fields that are read, here or by the kernel side.
const (
	threadObject  = "JavaThread::_threadObj"
	virtualThread = "JavaThread::_vthread"
	monitorOwner  = "JavaThread::_monitor_owner_id" // JDK 24 and newer: the id of what it runs
	stackBase     = "JavaThread::_stack_base"
	stackSize     = "JavaThread::_stack_size"
	threadList    = "ThreadsSMRSupport::_java_thread_list"
	listLength    = "ThreadsList::_length"
	listThreads   = "ThreadsList::_threads"
)

// Attach has the virtual threads of a process told apart. The note says what will not be seen of it and why, and is empty
// if nothing.
func (r *Runtime) Attach(ctx context.Context, t *discovery.Target) (io.Closer, string, error) {
	const unknown = "calls of its virtual threads have no parent: "
	_, note, err := uprobe.WhenMapped(ctx, func() (io.Closer, string, error) {
		note, err := r.describe(t)
		return nil, note, err
	})
	switch {
	case errors.Is(err, uprobe.ErrNotMapped):
		return nil, "", nil // another JVM, which has no virtual threads, or a native image
	case note != "":
		note = unknown + note
	}
	return nil, note, err
}

func (r *Runtime) describe(t *discovery.Target) (note string, err error) {
	images, err := uprobe.Mapped(t.PID, func(name string) bool { return name == "libjvm.so" }, symbols...)
	if err != nil {
		return "", err
	}
	var jvm *uprobe.Image
	for _, i := range images {
		defer i.Close()
		if strings.HasSuffix(i.Path, "/libjvm.so") && i.Has(symbols...) {
			jvm = i
		}
	}
	if jvm == nil {
		return "", uprobe.ErrNotMapped
	}
	fields, err := readFields(memory(t.PID), jvm.Address)
	switch {
	case errors.Is(err, unix.EFAULT):
		return "", uprobe.ErrNotMapped // it is starting, and has not come to it
	case errors.Is(err, unix.ESRCH):
		return "", discovery.ErrGone
	case err != nil:
		return "", fmt.Errorf("read what HotSpot says of its structures: %w", err)
	}
	if fields[virtualThread] == 0 {
		return "", nil // it has none
	}
	if fields[stackSize] != fields[stackBase]+8 || fields[threadObject] == 0 {
		return "this JVM's JavaThread is not as others are", nil
	}
	threadID := uint64(0)
	if fields[monitorOwner] == 0 {
		threadID, err = findThreadID(memory(t.PID), fields)
		switch {
		case errors.Is(err, unix.EFAULT):
			return "", uprobe.ErrNotMapped
		case errors.Is(err, unix.ESRCH):
			return "", discovery.ErrGone
		case err != nil:
			return "", err
		}
		if threadID == 0 {
			return "where a thread has its id is not to be found, as with some garbage collectors", nil
		}
	}
	w, watched := r.core.Watched(t.PID)
	if !watched {
		return "", discovery.ErrGone
	}
	w.Flags |= bpf.TargetJava
	w.ThreadObject, w.VirtualThread = uint16(fields[threadObject]), uint16(fields[virtualThread])
	w.MonitorOwner, w.ThreadId = uint16(fields[monitorOwner]), uint16(threadID)
	w.StackBase = uint16(fields[stackBase])
	return "", r.core.Watch(t.PID, w)
}

// memory is that of a process.
type memory uint32

func (m memory) read(b []byte, addr uint64) error {
	n, err := m.readSome(b, addr)
	if err == nil && n < len(b) {
		err = unix.EFAULT
	}
	return err
}

// readSome reads up to the end of what is mapped there.
func (m memory) readSome(b []byte, addr uint64) (int, error) {
	return unix.ProcessVMReadv(int(m), []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}},
		[]unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
}

func (m memory) word(addr uint64) (uint64, error) {
	var b [8]byte
	err := m.read(b[:], addr)
	return binary.LittleEndian.Uint64(b[:]), err
}

// text reads a string that ends with a NUL; one that is longer than those that matter is cut.
func (m memory) text(addr uint64) (string, error) {
	var b [64]byte
	n, err := m.readSome(b[:], addr)
	if err != nil {
		return "", err
	}
	s, _, _ := strings.Cut(string(b[:n]), "\x00")
	return s, nil
}

// maxFields bounds the table: HotSpot has some two thousand.
const maxFields = 16384

// readFields reads the offsets of the fields of the types that matter, and the addresses of those that are static, by
// "type::field". symbol is the address of one of HotSpot's.
func readFields(m memory, symbol func(name string) uint64) (map[string]uint64, error) {
	var entry struct{ at, typeName, fieldName, offset, address, stride uint64 }
	for name, to := range map[string]*uint64{
		table: &entry.at, typeName: &entry.typeName, fieldName: &entry.fieldName, fieldOffset: &entry.offset, address: &entry.address,
		stride: &entry.stride,
	} {
		var err error
		if *to, err = m.word(symbol(name)); err != nil {
			return nil, err
		}
	}
	if entry.at == 0 || entry.stride == 0 {
		return nil, uprobe.ErrNotMapped // its own start-up has not come to it
	}
	fields := map[string]uint64{}
	types := map[uint64]string{} // by the address of their names; empty for those that do not matter
	for range maxFields {
		at, err := m.word(entry.at + entry.typeName)
		if err != nil || at == 0 {
			return fields, err
		}
		name, known := types[at]
		if !known {
			if name, err = m.text(at); err != nil {
				return nil, err
			}
			if name != "JavaThread" && name != "ThreadsList" && name != "ThreadsSMRSupport" {
				name = ""
			}
			types[at] = name
		}
		if name != "" {
			at, err := m.word(entry.at + entry.fieldName)
			if err != nil {
				return nil, err
			}
			field, err := m.text(at)
			if err != nil {
				return nil, err
			}
			static, err := m.word(entry.at + entry.address)
			if err != nil {
				return nil, err
			}
			offset, err := m.word(entry.at + entry.offset)
			if err != nil {
				return nil, err
			}
			fields[name+"::"+field] = max(static, offset)
		}
		entry.at += entry.stride
	}
	return nil, errors.New("the table has no end")
}

// findThreadID finds where an object of java.lang.Thread has its id, tid: no other field holds a small number that no two
// threads share. It returns 0 where that cannot be said.
func findThreadID(m memory, fields map[string]uint64) (uint64, error) {
	const (
		most   = 256 // threads that are looked at
		fewest = 5   // JVMs have some more of their own
		size   = 64  // of the object, at least
	)
	list, err := m.word(fields[threadList])
	if err != nil {
		return 0, err
	}
	length, err := m.word(list + fields[listLength])
	if err != nil {
		return 0, err
	}
	threads, err := m.word(list + fields[listThreads])
	if err != nil {
		return 0, err
	}
	objects := [][]byte{}
	for n := range min(length&0xffffffff, most) {
		at, err := m.word(threads + 8*n)
		if err != nil {
			return 0, err
		}
		for _, offset := range []uint64{fields[threadObject], 0} { // to the handle, and to the object
			if at, err = m.word(at + offset); err != nil || at == 0 {
				break
			}
		}
		object := make([]byte, size)
		if err == nil && at != 0 && m.read(object, at) == nil {
			objects = append(objects, object)
		}
	}
	if len(objects) < fewest {
		return 0, uprobe.ErrNotMapped // it is starting
	}
	found := uint64(0)
	for offset := uint64(8); offset < size; offset += 8 {
		ids := map[uint64]bool{}
		for _, o := range objects {
			if id := binary.LittleEndian.Uint64(o[offset:]); id > 0 && id < 1<<32 {
				ids[id] = true
			}
		}
		switch {
		case len(ids) < len(objects):
		case found != 0:
			return 0, nil // there are two
		default:
			found = offset
		}
	}
	return found, nil
}
