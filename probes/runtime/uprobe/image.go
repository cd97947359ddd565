// SPDX-License-Identifier: Apache-2.0

package uprobe

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"unsafe"

	"breadcrumb/discovery"

	"github.com/cilium/ebpf/link"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Image is a file that a process has mapped, open.
type Image struct {
	// Path is the file's as the process sees it.
	Path string
	// Exe is to attach probes to it.
	Exe *link.Executable

	file    *os.File
	elf     *elf.File
	symbols map[string]uint64 // as linked
	bias    uint64            // what is to be added to them in the process
}

// Close closes the file.
func (i *Image) Close() error { return i.file.Close() }

// Has says whether it exports all of the symbols, of those for which Mapped was asked.
func (i *Image) Has(symbols ...string) bool {
	for _, s := range symbols {
		if i.symbols[s] == 0 {
			return false
		}
	}
	return true
}

// Address is that of a symbol in the process.
func (i *Image) Address(symbol string) uint64 { return i.symbols[symbol] + i.bias }

// Offset is where in the file the code or data of a symbol lies.
func (i *Image) Offset(symbol string) uint64 {
	at, _ := i.offset(i.symbols[symbol])
	return at
}

// Functions are the places in the file where functions begin, by name, of those that are wanted, whether exported or not. A
// large table of symbols is not copied.
func (i *Image) Functions(wanted func(name string) bool) (_ map[string]uint64, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the file may be cut while it is read
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed executable: %v", p)
		}
	}()
	info, err := i.file.Stat()
	if err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(i.file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(data)) }()
	found := map[string]uint64{}
	for _, s := range i.elf.Sections {
		if s.Type != elf.SHT_SYMTAB && s.Type != elf.SHT_DYNSYM || int(s.Link) >= len(i.elf.Sections) {
			continue
		}
		const size = 24 // of an Elf64_Sym: name 4, info 1, other 1, section 2, value 8, size 8
		names := i.elf.Sections[s.Link]
		text := data[names.Offset : names.Offset+names.Size]
		for b := data[s.Offset : s.Offset+s.Size]; len(b) >= size; b = b[size:] {
			name, value := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[8:])
			if elf.SymType(b[4]&0xf) != elf.STT_FUNC || value == 0 || binary.LittleEndian.Uint16(b[6:]) == uint16(elf.SHN_UNDEF) {
				continue
			}
			end := bytes.IndexByte(text[name:], 0)
			if end <= 0 || !wanted(unsafe.String(&text[name], end)) {
				continue
			}
			if at, ok := i.offset(value); ok {
				found[string(text[name:int(name)+end])] = at
			}
		}
	}
	return found, nil
}

// offset is where in the file what is linked at an address lies.
func (i *Image) offset(addr uint64) (uint64, bool) {
	for _, p := range i.elf.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return addr - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}

// Mapped opens the executable of a process, and the libraries that it has mapped whose file name is wanted, and looks in
// their dynamic symbols for those of the names. What cannot be read is left out. It fails with discovery.ErrGone where the process
// has ended.
func Mapped(pid uint32, wanted func(name string) bool, symbols ...string) (images []*Image, err error) {
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
		if m.Offset != 0 || seen[m.Pathname] || m.Pathname != exe && !wanted(path.Base(m.Pathname)) {
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
		i, err := readImage(f, m.Pathname, uint64(m.StartAddr), symbols)
		if err != nil {
			_ = f.Close()
			continue
		}
		images = append(images, i)
	}
	return images, nil
}

func readImage(f *os.File, name string, start uint64, names []string) (i *Image, err error) {
	defer func() {
		if p := recover(); p != nil { // debug/elf reads what others wrote
			err = fmt.Errorf("malformed executable: %v", p)
		}
	}()
	i = &Image{file: f, Path: name, symbols: map[string]uint64{}}
	if i.elf, err = elf.NewFile(f); err != nil {
		return nil, err
	}
	if i.Exe, err = link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
		return nil, err
	}
	symbols, err := i.elf.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF && slices.Contains(names, s.Name) {
			i.symbols[s.Name] = s.Value
		}
	}
	for _, p := range i.elf.Progs {
		if p.Type == elf.PT_LOAD && p.Off == 0 {
			i.bias = start - p.Vaddr
		}
	}
	return i, nil
}
