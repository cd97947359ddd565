// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Func is a function of a Go program.
type Func struct {
	Name string
	Addr uint64 // as linked; a program that is moved when it starts has it elsewhere
	Size uint64 // with the padding up to the next function
}

// errNoTable is returned for executables without a table of Go functions that can be read: no Go, Go
// before 1.18, or one that was made unreadable (garble does).
var errNoTable = errors.New("no readable table of Go functions")

// Symbols finds functions by name in the table that every Go program carries for its own stack traces,
// .gopclntab, which stripping leaves alone. Names that are not there are not in the result: never
// linked, or inlined everywhere. Of two functions with one name (assembly and Go's way into it) it
// yields the first. It reads only what it needs and holds a window of it at a time.
//
// The layout is that of Go 1.18 and later (runtime/symtab.go, pcHeader and _func; cmd/link/internal/ld/pcln.go).
func Symbols(r io.ReaderAt, names ...string) (funcs map[string]Func, err error) {
	defer recoverInto(&err)
	im, err := openImage(r)
	if err != nil {
		return nil, err
	}
	return im.symbols(names...)
}

func (im *image) symbols(names ...string) (map[string]Func, error) {
	t, err := im.findTable()
	if err != nil {
		return nil, err
	}
	return t.lookup(names)
}

// recoverInto turns a panic of a parser into an error. Ours are not meant to panic; they read what others
// wrote, though.
func recoverInto(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("malformed executable: %v", p)
	}
}

// table is a .gopclntab.
type table struct {
	im    *image
	addr  uint64
	size  uint64 // up to the end of what may belong to it
	text  uint64 // what the functions' entries are relative to
	nfunc uint64

	names, namesEnd uint64 // offsets in the table
	funcs           uint64
}

const (
	magic118 = 0xfffffff0 // Go 1.18 and 1.19
	magic120 = 0xfffffff1 // since Go 1.20

	headerSize = 72
	funcSize   = 8       // entry offset, offset of the _func
	maxFuncs   = 8 << 20 // Kubernetes has 180 000
	maxTable   = 1 << 30 // its offsets are of 32 bits
	maxTries   = 16      // things that look like a table, or like a module's data
)

// findTable finds the table by its section's name, else by its first bytes: where the C linker moves
// a program, it merges the section into .data.rel.ro, and section headers can be stripped too.
func (im *image) findTable() (*table, error) {
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if s, ok := im.sections[name]; ok {
			if t, err := im.readTable(s.Addr); err == nil {
				return t, nil
			}
		}
	}
	quantum := byte(1)
	if im.machine == elf.EM_AARCH64 {
		quantum = 4
	}
	var t *table
	for _, magic := range []uint32{magic120, magic118} {
		pattern := append(binary.LittleEndian.AppendUint32(nil, magic), 0, 0, quantum, 8)
		tries := 0
		_, err := im.find(pattern, 8, func(addr uint64) bool {
			var err error
			t, err = im.readTable(addr)
			tries++
			return err == nil || tries == maxTries
		})
		if err != nil {
			return nil, err
		}
		if t != nil {
			return t, nil
		}
	}
	return nil, errNoTable
}

func (im *image) readTable(addr uint64) (*table, error) {
	_, size, ok := im.load(addr)
	if !ok || size < headerSize {
		return nil, errNoTable
	}
	var h [headerSize]byte
	if _, err := im.ReadAt(h[:], int64(addr)); err != nil {
		return nil, err
	}
	magic := binary.LittleEndian.Uint32(h[:])
	if magic != magic118 && magic != magic120 || h[4] != 0 || h[5] != 0 || h[7] != 8 {
		return nil, errNoTable
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(h[8+8*i:]) }
	t := &table{
		im: im, addr: addr, size: min(size, maxTable),
		nfunc: word(0), names: word(3), namesEnd: word(4), funcs: word(7),
	}
	if t.nfunc == 0 || t.nfunc > maxFuncs ||
		t.names < headerSize || t.names > t.namesEnd || t.namesEnd > t.funcs || t.funcs > t.size ||
		t.nfunc*funcSize+4 > t.size-t.funcs {
		return nil, errNoTable
	}
	text, err := t.findText()
	if err != nil {
		return nil, err
	}
	t.text = text
	return t, nil
}

// Offsets in runtime.moduledata, the same from Go 1.18 to 1.27.
const (
	moduleHeader = 0 // pcHeader
	moduleMinPC  = 160
	moduleText   = 176
)

// findText finds the address that entries are relative to, runtime.text. Up to Go 1.25 the table's header
// has it; since then only the module's data, which has a section of its own, .go.module. It is not the
// start of .text: with cgo, C's start-up code comes first.
func (t *table) findText() (uint64, error) {
	const headerText = 24
	p, err := t.im.pointers(t.addr + headerText)
	if err != nil {
		return 0, err
	}
	if p[0] != 0 && t.im.executable(p[0]) {
		return p[0], nil
	}

	if s, ok := t.im.sections[".go.module"]; ok {
		if text, ok := t.moduleText(s.Addr); ok {
			return text, nil
		}
	}
	var text uint64
	tries := 0
	try := func(place uint64) (done bool) {
		var ok bool
		text, ok = t.moduleText(place)
		tries++
		return ok || tries == maxTries
	}
	if _, err := t.im.find(binary.LittleEndian.AppendUint64(nil, t.addr), 8, try); err != nil {
		return 0, err
	}
	if text == 0 && t.im.moves {
		tries = 0
		err := t.im.relocations(func(place, target uint64) bool {
			return target != t.addr || !try(place)
		})
		if err != nil {
			return 0, err
		}
	}
	if text == 0 {
		return 0, fmt.Errorf("start of Go code: %w", errNoTable)
	}
	return text, nil
}

// moduleText reads runtime.text from what may be the module's data, and says whether it is: it names
// this table, and its first function begins where the table says so.
func (t *table) moduleText(addr uint64) (uint64, bool) {
	p, err := t.im.pointers(addr+moduleHeader, addr+moduleMinPC, addr+moduleText)
	if err != nil {
		return 0, false
	}
	var first [4]byte
	if _, err := t.im.ReadAt(first[:], int64(t.addr+t.funcs)); err != nil {
		return 0, false
	}
	header, minPC, text := p[0], p[1], p[2]
	ok := header == t.addr && minPC == text+uint64(binary.LittleEndian.Uint32(first[:])) && t.im.executable(text)
	if !ok {
		return 0, false
	}
	return text, true
}

// lookup finds the names among the names, and then the functions that bear them.
func (t *table) lookup(names []string) (map[string]Func, error) {
	byOffset, err := t.nameOffsets(names)
	if err != nil {
		return nil, err
	}
	found := make(map[string]Func)
	if len(byOffset) == 0 {
		return found, nil
	}

	// Of each function: its entry and where its _func is, both relative. The _func begins with the
	// entry again and the offset of the name. They stand in the order of the entries, so both are read
	// through a window that only moves on.
	index := reader{im: t.im, base: t.addr + t.funcs, size: t.size - t.funcs}
	infos := reader{im: t.im, base: t.addr + t.funcs, size: t.size - t.funcs}
	for i := range t.nfunc {
		b, err := index.at(i*funcSize, funcSize+4) // and the next one's entry
		if err != nil {
			return nil, fmt.Errorf("read function table: %w", err)
		}
		entry, info, next := le32(b), le32(b[4:]), le32(b[8:])
		b, err = infos.at(uint64(info), 8)
		if err != nil {
			return nil, fmt.Errorf("read function: %w", err)
		}
		name, wanted := byOffset[le32(b[4:])]
		if !wanted {
			continue
		}
		if le32(b) != entry || next <= entry || !t.im.executable(t.text+uint64(entry)) {
			return nil, fmt.Errorf("function %s: %w", name, errNoTable)
		}
		if _, twice := found[name]; !twice {
			found[name] = Func{Name: name, Addr: t.text + uint64(entry), Size: uint64(next - entry)}
		}
		if len(found) == len(names) {
			break
		}
	}
	return found, nil
}

// nameOffsets finds where names stand in the table of names, in which each ends with a NUL.
func (t *table) nameOffsets(names []string) (map[uint32]string, error) {
	longest := 0
	for _, name := range names {
		longest = max(longest, len(name))
	}
	byOffset := make(map[uint32]string)
	base := t.addr + t.names
	err := t.im.chunks(base, t.namesEnd-t.names, longest+1, func(at uint64, b []byte) bool {
		for _, name := range names {
			pattern := append([]byte(name), 0)
			for i := 0; ; i++ {
				n := bytes.Index(b[i:], pattern)
				if n < 0 {
					break
				}
				i += n
				if at+uint64(i) == base || i > 0 && b[i-1] == 0 {
					byOffset[uint32(at-base)+uint32(i)] = name
				}
			}
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read function names: %w", err)
	}
	return byOffset, nil
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// reader reads small pieces of a range of memory through a window. Pieces are asked for in rising order;
// going back is an error, as it would let a file cost a window for every piece.
type reader struct {
	im         *image
	base, size uint64
	buf        []byte
	start      uint64 // of buf, from base
}

var errOrder = errors.New("not in order")

func (r *reader) at(off, n uint64) ([]byte, error) {
	if off > r.size || n > r.size-off {
		return nil, io.ErrUnexpectedEOF
	}
	if off < r.start {
		return nil, errOrder
	}
	if end := r.start + uint64(len(r.buf)); off+n > end {
		if r.buf == nil {
			r.buf = make([]byte, 0, min(r.size, window))
		}
		r.buf = r.buf[:min(r.size-off, uint64(cap(r.buf)))]
		if got, err := r.im.ReadAt(r.buf, int64(r.base+off)); got < len(r.buf) {
			return nil, err
		}
		r.start = off
	}
	i := off - r.start
	return r.buf[i : i+n], nil
}
