// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// variants are ways to link a program, each with the flags that strip it.
var variants = []struct {
	build goBuild
	strip string
}{
	{goBuild{}, "-ldflags=-s -w"},
	{goBuild{flags: []string{"-buildmode=pie"}}, "-ldflags=-s -w"},
	{goBuild{arch: "amd64"}, "-ldflags=-s -w"},
	{goBuild{arch: "arm64"}, "-ldflags=-s -w"},
	{goBuild{arch: "arm64", flags: []string{"-buildmode=pie"}}, "-ldflags=-s -w"},
	{goBuild{cgo: true}, "-ldflags=-s -w"},
	{goBuild{cgo: true, flags: []string{"-ldflags=-linkmode=external"}}, "-ldflags=-linkmode=external -s -w"},
	{goBuild{cgo: true, flags: []string{"-ldflags=-linkmode=external", "-buildmode=pie"}}, "-ldflags=-linkmode=external -s -w"},
	{goBuild{cgo: true, flags: []string{"-ldflags=-linkmode=external -extldflags=-static"}}, "-ldflags=-linkmode=external -extldflags=-static -s -w"},
	// The table's header has the start of the code, in one of these as a relocation.
	{goBuild{toolchain: "go1.25.14", cgo: true, flags: []string{"-ldflags=-linkmode=external"}}, "-ldflags=-linkmode=external -s -w"},
	{goBuild{toolchain: "go1.25.14", cgo: true, flags: []string{"-ldflags=-linkmode=external", "-buildmode=pie"}}, "-ldflags=-linkmode=external -s -w"},
	{goBuild{toolchain: "go1.19.13", flags: []string{"-buildmode=pie"}}, "-ldflags=-s -w"},
}

func TestSymbolsAgreeWithGosym(t *testing.T) {
	for _, v := range variants {
		t.Run(v.build.String(), func(t *testing.T) {
			if testing.Short() && v.build.toolchain != "" {
				t.Skip("fetches a toolchain")
			}
			path := v.build.build(t)
			stripped := v.build
			stripped.flags = append([]string(nil), v.build.flags...)
			if n := len(stripped.flags); n > 0 && strings.HasPrefix(stripped.flags[0], "-ldflags") {
				stripped.flags = stripped.flags[1:]
			}
			stripped.flags = append(stripped.flags, v.strip)

			want := make(map[string]Func)
			all := oracle(t, path)
			bearers := make(map[string]int)
			for _, f := range all {
				bearers[f.Name]++
			}
			var names []string
			for i, f := range all {
				some := i == 0 || i == len(all)-1 || i%(len(all)/40) == 0
				if bearers[f.Name] > 1 || !some && f.Name != roundTrip && f.Name != runtimeMain {
					continue
				}
				want[f.Name] = Func{Name: f.Name, Addr: f.Entry, Size: f.End - f.Entry}
				names = append(names, f.Name)
			}

			for name, path := range map[string]string{"as built": path, "stripped": stripped.build(t)} {
				data := readFile(t, path)
				check(t, name, data, names, want)
				check(t, name+", sections without names", renameSections(t, data), names, want)
				if !strings.Contains(v.build.String(), "pie") || !v.build.cgo {
					// Relocations are found by their section.
					check(t, name+", no sections", dropSections(data), names, want)
				}
			}
		})
	}
}

func check(t *testing.T, what string, data []byte, names []string, want map[string]Func) {
	t.Helper()
	got, err := Symbols(bytes.NewReader(data), names...)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// renameSections returns the executable with other names for Go's own sections.
func renameSections(t *testing.T, data []byte) []byte {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Clone(data)
	shstrndx := binary.LittleEndian.Uint16(data[62:])
	s := f.Sections[shstrndx]
	names := data[s.Offset : s.Offset+s.FileSize]
	for _, name := range []string{"gopclntab", "go.module"} {
		copy(names, bytes.ReplaceAll(names, []byte(name+"\x00"), []byte(strings.Repeat("x", len(name))+"\x00")))
	}
	return data
}

// dropSections returns the executable without section headers, which no program needs to run.
func dropSections(data []byte) []byte {
	data = bytes.Clone(data)
	clear(data[40:48]) // e_shoff
	clear(data[58:64]) // e_shentsize, e_shnum, e_shstrndx
	return data
}

func TestSymbolsOfNamesThatAreNotThere(t *testing.T) {
	r := bytes.NewReader(readFile(t, goBuild{}.build(t)))
	for _, names := range [][]string{
		nil,
		{""},
		{"net/http.(*persistConn).roundTri"},
		{"et/http.(*persistConn).roundTrip"},
		{strings.Repeat("x", 1<<20)},
	} {
		got, err := Symbols(r, names...)
		if err != nil || len(got) != 0 {
			t.Errorf("%.40q: %v, %v", names, got, err)
		}
	}
}

func TestSymbolsRefusesWhatIsNoGoProgram(t *testing.T) {
	b := readFile(t, goBuild{}.build(t))
	edit := func(at int, to byte) []byte {
		c := bytes.Clone(b)
		c[at] = to
		return c
	}
	for name, data := range map[string][]byte{
		"empty":      nil,
		"text":       []byte("#!/bin/sh\n"),
		"32 bit":     edit(4, byte(elf.ELFCLASS32)),
		"big endian": edit(5, byte(elf.ELFDATA2MSB)),
		"other CPU":  edit(18, byte(elf.EM_RISCV)),
		"cut":        b[:1000],
		"no table":   bytes.ReplaceAll(b, []byte{0xf1, 0xff, 0xff, 0xff, 0, 0}, []byte{0xf2, 0xff, 0xff, 0xff, 0, 0}),
	} {
		got, err := Symbols(bytes.NewReader(data), roundTrip)
		if err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// An executable may claim anything of its size; what is read of it is bounded all the same.
func TestSymbolsOfEndlessFile(t *testing.T) {
	head := tinyELF(elf.EM_X86_64, nil, nil)
	binary.LittleEndian.PutUint64(head[64+32:], 1<<62) // file size of the first segment
	endless := &zeros{head: head}
	if _, err := Symbols(endless, roundTrip); !errors.Is(err, errTooMuch) {
		t.Errorf("error %v, want %v", err, errTooMuch)
	}
	if endless.read > maxHeaders+maxRead {
		t.Errorf("read %d bytes", endless.read)
	}
}

// zeros is a file that goes on with zeros for ever.
type zeros struct {
	head []byte
	read int
}

func (z *zeros) ReadAt(p []byte, off int64) (int, error) {
	z.read += len(p)
	clear(p)
	if off < int64(len(z.head)) {
		copy(p, z.head[off:])
	}
	return len(p), nil
}

// tinyELF makes an executable of two segments, one of code at 0x1000 and one of data at 0x100000, and no
// sections.
func tinyELF(machine elf.Machine, code, data []byte) []byte {
	const headers = 64 + 2*56
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	h.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	segment := func(off int, addr uint64, b []byte, flags elf.ProgFlag) elf.Prog64 {
		return elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(flags),
			Off: uint64(off), Vaddr: addr, Filesz: uint64(len(b)), Memsz: uint64(len(b)),
		}
	}
	var out bytes.Buffer
	binary.Write(&out, binary.LittleEndian, h)
	binary.Write(&out, binary.LittleEndian, segment(headers, tinyText, code, elf.PF_R|elf.PF_X))
	binary.Write(&out, binary.LittleEndian, segment(headers+len(code), tinyData, data, elf.PF_R))
	out.Write(code)
	out.Write(data)
	return out.Bytes()
}

const (
	tinyText = 0x1000
	tinyData = 0x100000
)

// tinyTable makes a table of functions of 16 bytes each.
func tinyTable(magic uint32, text uint64, names ...string) []byte {
	var nameTable, index, infos []byte
	n := len(names)
	for i, name := range names {
		info := uint32(n*funcSize+4) + uint32(len(infos))
		index = binary.LittleEndian.AppendUint32(index, uint32(16*i))
		index = binary.LittleEndian.AppendUint32(index, info)
		infos = binary.LittleEndian.AppendUint32(infos, uint32(16*i))
		infos = binary.LittleEndian.AppendUint32(infos, uint32(len(nameTable)))
		infos = append(infos, make([]byte, 36)...)
		nameTable = append(append(nameTable, name...), 0)
	}
	index = binary.LittleEndian.AppendUint32(index, uint32(16*n))

	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = append(b, 0, 0, 1, 8)
	ends := headerSize + len(nameTable)
	for _, word := range []uint64{
		uint64(n), 0, text, headerSize, uint64(ends), uint64(ends), uint64(ends), uint64(ends),
	} {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	b = append(b, nameTable...)
	b = append(b, index...)
	return append(b, infos...)
}

func TestSymbolsOfTinyTable(t *testing.T) {
	for _, magic := range []uint32{magic118, magic120} {
		file := tinyELF(elf.EM_X86_64, make([]byte, 48), tinyTable(magic, tinyText, "a", "aa", "b"))
		got, err := Symbols(bytes.NewReader(file), "aa", "b", "c")
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]Func{"aa": {"aa", tinyText + 16, 16}, "b": {"b", tinyText + 32, 16}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func FuzzSymbols(f *testing.F) {
	code := unhex(f, amd64Push)
	f.Add(tinyELF(elf.EM_X86_64, make([]byte, 48), tinyTable(magic120, tinyText, runtimeMain, roundTrip)))
	f.Add(tinyELF(elf.EM_X86_64, code, tinyTable(magic118, tinyText, roundTrip, runtimeMain)))
	f.Add(tinyELF(elf.EM_AARCH64, code, tinyTable(magic120, 0, roundTrip)))

	// The table of the test itself, cut.
	self, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	file, err := elf.Open(self)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	table := make([]byte, 8<<10)
	if _, err := file.Section(".gopclntab").ReadAt(table, 0); err != nil {
		f.Fatal(err)
	}
	binary.LittleEndian.PutUint64(table[24:], tinyText)
	f.Add(tinyELF(file.Machine, code, table))
	binary.LittleEndian.PutUint64(table[8:], 20)     // functions
	binary.LittleEndian.PutUint64(table[40:], 4<<10) // end of their names
	copy(table[6<<10:], table[:headerSize])          // something for the functions' table
	binary.LittleEndian.PutUint64(table[64:], 6<<10) // which begins there
	f.Add(tinyELF(file.Machine, code, table))

	f.Fuzz(func(t *testing.T, data []byte) {
		r := &counter{r: bytes.NewReader(data)}
		im, err := openImage(r) // without the recover of the exported functions
		if err != nil {
			return
		}
		funcs, _ := im.symbols(roundTrip, runtimeMain)
		for _, f := range funcs {
			im.site(f)
		}
		// Ranges may overlap, so that bytes are read more than once, but not without end.
		if limit := 4096*len(data) + maxHeaders; r.n > limit {
			t.Errorf("read %d bytes of a file of %d", r.n, len(data))
		}
	})
}

type counter struct {
	r io.ReaderAt
	n int
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.n += n
	return n, err
}
