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

// An executable is untrusted input: it belongs to whoever runs it. What is read of it is bounded, so
// that a file made for it costs neither memory nor minutes.
const (
	maxHeaders = 32 << 20  // read of headers, section names and build information
	maxRead    = 1 << 30   // read in all: tables whose section has no name are searched for
	window     = 192 << 10 // held in memory of what is read in a row
)

var errTooMuch = errors.New("more to read than is plausible")

// budget is a reader that gives up after so many bytes.
type budget struct {
	r    io.ReaderAt
	left int64
}

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooMuch
	}
	return b.r.ReadAt(p, off)
}

// image is an executable as it will be in memory, before it is moved anywhere.
type image struct {
	r        io.ReaderAt
	machine  elf.Machine
	moves    bool // linked to be moved: addresses in it may stand in relocations instead
	loads    []elf.ProgHeader
	sections map[string]elf.SectionHeader
}

func openImage(r io.ReaderAt) (*image, error) {
	f, err := elf.NewFile(&budget{r, maxHeaders})
	if err != nil {
		return nil, fmt.Errorf("read ELF headers: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%v %v executables are not supported", f.Class, f.Data)
	}
	if f.Machine != elf.EM_X86_64 && f.Machine != elf.EM_AARCH64 {
		return nil, fmt.Errorf("executables for %v are not supported", f.Machine)
	}
	im := &image{r: &budget{r, maxRead}, machine: f.Machine, moves: f.Type == elf.ET_DYN, sections: make(map[string]elf.SectionHeader)}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Filesz > 0 {
			im.loads = append(im.loads, p.ProgHeader)
		}
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS {
			im.sections[s.Name] = s.SectionHeader
		}
	}
	return im, nil
}

// load returns the segment that holds the byte at addr in the file, and what of it comes after.
func (im *image) load(addr uint64) (p elf.ProgHeader, rest uint64, ok bool) {
	for _, p := range im.loads {
		if addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return p, p.Filesz - (addr - p.Vaddr), true
		}
	}
	return elf.ProgHeader{}, 0, false
}

func (im *image) executable(addr uint64) bool {
	p, _, ok := im.load(addr)
	return ok && p.Flags&elf.PF_X != 0
}

// fileOffset says where in the file the byte at addr is; uprobes are placed by that.
func (im *image) fileOffset(addr uint64) (uint64, bool) {
	p, _, ok := im.load(addr)
	return addr - p.Vaddr + p.Off, ok
}

// ReadAt reads from the address off.
func (im *image) ReadAt(b []byte, off int64) (int, error) {
	_, rest, ok := im.load(uint64(off))
	if !ok {
		return 0, fmt.Errorf("address %#x is not in the file", uint64(off))
	}
	pos, _ := im.fileOffset(uint64(off))
	if int64(pos) < 0 {
		return 0, errTooMuch
	}
	if uint64(len(b)) <= rest {
		return im.r.ReadAt(b, int64(pos))
	}
	n, err := im.r.ReadAt(b[:rest], int64(pos))
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// chunks calls f with size bytes from addr on, a window at a time, each beginning with the last overlap
// bytes of the one before, until f returns false. at is the address of b's first byte.
func (im *image) chunks(addr, size uint64, overlap int, f func(at uint64, b []byte) bool) error {
	buf := make([]byte, min(size, window)+uint64(overlap))
	kept := 0
	for size > 0 {
		n := min(size, uint64(len(buf)-kept))
		got, err := im.ReadAt(buf[kept:kept+int(n)], int64(addr))
		if got < int(n) {
			return err
		}
		b := buf[:kept+int(n)]
		if !f(addr-uint64(kept), b) {
			return nil
		}
		addr += n
		size -= n
		kept = copy(buf, b[max(0, len(b)-overlap):])
	}
	return nil
}

// pointers reads the addresses that will stand at the given places once the program runs. Linked
// by Go itself, they stand in the file; linked by others to be moved, they stand in the relocations.
func (im *image) pointers(at ...uint64) ([]uint64, error) {
	values := make([]uint64, len(at))
	missing := false
	for i, addr := range at {
		var b [8]byte
		if _, err := im.ReadAt(b[:], int64(addr)); err != nil {
			return nil, err
		}
		values[i] = binary.LittleEndian.Uint64(b[:])
		missing = missing || values[i] == 0
	}
	if !missing || !im.moves {
		return values, nil
	}
	err := im.relocations(func(place, target uint64) bool {
		for i, addr := range at {
			if addr == place && values[i] == 0 {
				values[i] = target
			}
		}
		return true
	})
	return values, err
}

// relocations calls f with each place in which the program's own address of target will be written.
func (im *image) relocations(f func(place, target uint64) bool) error {
	rela, ok := im.sections[".rela.dyn"]
	if !ok {
		return nil
	}
	kind := uint32(elf.R_X86_64_RELATIVE)
	if im.machine == elf.EM_AARCH64 {
		kind = uint32(elf.R_AARCH64_RELATIVE)
	}
	const entry = 24 // Elf64_Rela; a window holds a whole number of them
	return im.chunks(rela.Addr, rela.Size/entry*entry, 0, func(_ uint64, b []byte) bool {
		for ; len(b) >= entry; b = b[entry:] {
			if uint32(binary.LittleEndian.Uint64(b[8:])) == kind &&
				!f(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[16:])) {
				return false
			}
		}
		return true
	})
}

// find calls f with each address, a multiple of align, at which pattern stands in a segment, until f
// returns true.
func (im *image) find(pattern []byte, align uint64, f func(addr uint64) bool) (found bool, err error) {
	for _, p := range im.loads {
		err := im.chunks(p.Vaddr, p.Filesz, len(pattern)-1, func(at uint64, b []byte) bool {
			for i := 0; !found; i++ {
				n := bytes.Index(b[i:], pattern)
				if n < 0 {
					break
				}
				i += n
				if addr := at + uint64(i); addr%align == 0 {
					found = f(addr)
				}
			}
			return !found
		})
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}
