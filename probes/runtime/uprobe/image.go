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
	"strings"
	"sync"
	"syscall"
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

	file *os.File
	bias uint64 // what is to be added to an address as linked in the process
	*contents
}

// contents are what of a file matters, whoever maps it.
type contents struct {
	programs []elf.ProgHeader
	symbols  map[string]uint64 // as linked
}

// fileID names a file's contents, whatever paths lead to it.
type fileID struct {
	dev, ino     uint64
	size, change int64
	names        string // of the symbols that are looked for
}

// known are the contents of files that were read; a server may fork for each connection.
var known = struct {
	sync.Mutex
	files map[fileID]*contents
}{files: map[fileID]*contents{}}

// maxKnown bounds them: a node runs fewer interpreters.
const maxKnown = 256

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

// ReadAt reads the file.
func (i *Image) ReadAt(b []byte, off int64) (int, error) { return i.file.ReadAt(b, off) }

// Symbol is an entry of a table of symbols.
type Symbol struct {
	Address, Size uint64 // as linked
	Type          elf.SymType
}

// Functions are the places in the file where functions begin, by name, of those that are wanted, whether exported or not.
func (i *Image) Functions(wanted func(name string) bool) (map[string]uint64, error) {
	symbols, err := i.Symbols(wanted)
	found := map[string]uint64{}
	for name, s := range symbols {
		if s.Type != elf.STT_FUNC {
			continue
		}
		if at, ok := i.offset(s.Address); ok {
			found[name] = at
		}
	}
	return found, err
}

// Symbols are those that are wanted, by name, whether exported or not. A large table of symbols is not copied.
func (i *Image) Symbols(wanted func(name string) bool) (map[string]Symbol, error) {
	found := map[string]Symbol{}
	return found, i.mapped(func(data []byte) error {
		f, err := elf.NewFile(i.file)
		if err != nil {
			return err
		}
		for _, s := range f.Sections {
			if s.Type != elf.SHT_SYMTAB && s.Type != elf.SHT_DYNSYM || int(s.Link) >= len(f.Sections) {
				continue
			}
			const size = 24 // of an Elf64_Sym: name 4, info 1, other 1, section 2, value 8, size 8
			names := f.Sections[s.Link]
			text := data[names.Offset : names.Offset+names.Size]
			for b := data[s.Offset : s.Offset+s.Size]; len(b) >= size; b = b[size:] {
				name, value := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[8:])
				if value == 0 || binary.LittleEndian.Uint16(b[6:]) == uint16(elf.SHN_UNDEF) {
					continue
				}
				end := bytes.IndexByte(text[name:], 0)
				if end <= 0 || !wanted(unsafe.String(&text[name], end)) {
					continue
				}
				found[string(text[name:int(name)+end])] = Symbol{value, binary.LittleEndian.Uint64(b[16:]), elf.SymType(b[4] & 0xf)}
			}
		}
		return nil
	})
}

// Contents calls do with each part of the file that is loaded, until that says that it has what it wants.
func (i *Image) Contents(do func(part []byte) (enough bool)) error {
	return i.mapped(func(data []byte) error {
		for _, p := range i.programs {
			if p.Type == elf.PT_LOAD && do(data[p.Off:p.Off+p.Filesz]) {
				break
			}
		}
		return nil
	})
}

// mapped calls do with the file's bytes.
func (i *Image) mapped(do func(data []byte) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the file may be cut while it is read
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed executable: %v", p)
		}
	}()
	info, err := i.file.Stat()
	if err != nil {
		return err
	}
	data, err := unix.Mmap(int(i.file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Munmap(data)) }()
	return do(data)
}

// maxCode is how much of a function is read: those that are looked at are short.
const maxCode = 4096

// Code reads a function, and says where in the file it begins.
func (i *Image) Code(s Symbol) (code []byte, offset uint64, err error) {
	offset, ok := i.offset(s.Address)
	if !ok {
		return nil, 0, fmt.Errorf("%#x is not in the file", s.Address)
	}
	code = make([]byte, min(s.Size, maxCode))
	_, err = i.file.ReadAt(code, int64(offset))
	return code, offset, err
}

// Loaded is an address, as linked, in the process.
func (i *Image) Loaded(address uint64) uint64 { return address + i.bias }

// offset is where in the file what is linked at an address lies.
func (i *Image) offset(addr uint64) (uint64, bool) {
	for _, p := range i.programs {
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

func readImage(f *os.File, name string, start uint64, names []string) (*Image, error) {
	c, err := read(f, names)
	if err != nil {
		return nil, err
	}
	i := &Image{file: f, Path: name, contents: c}
	if i.Exe, err = link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
		return nil, err
	}
	for _, p := range c.programs {
		if p.Type == elf.PT_LOAD && p.Off == 0 {
			i.bias = start - p.Vaddr
		}
	}
	return i, nil
}

func read(f *os.File, names []string) (c *contents, err error) {
	defer func() {
		if p := recover(); p != nil { // debug/elf reads what others wrote
			err = fmt.Errorf("malformed executable: %v", p)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var id fileID
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id = fileID{st.Dev, st.Ino, st.Size, st.Ctim.Nano(), strings.Join(names, " ")}
		known.Lock()
		c := known.files[id]
		known.Unlock()
		if c != nil {
			return c, nil
		}
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	c = &contents{symbols: map[string]uint64{}}
	for _, p := range e.Progs {
		c.programs = append(c.programs, p.ProgHeader)
	}
	if len(names) > 0 {
		symbols, err := e.DynamicSymbols()
		if err != nil {
			return nil, err
		}
		for _, s := range symbols {
			if s.Section != elf.SHN_UNDEF && slices.Contains(names, s.Name) {
				c.symbols[s.Name] = s.Value
			}
		}
	}
	known.Lock()
	defer known.Unlock()
	if len(known.files) >= maxKnown {
		clear(known.files)
	}
	known.files[id] = c
	return c, nil
}
