// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"debug/elf"
	"debug/gosym"
	"os"
	"testing"
)

// oracle reads all functions of a program that has its ELF symbols, by debug/gosym.
func oracle(t testing.TB, path string) []gosym.Func {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	addrs := make(map[string]uint64)
	for _, s := range syms {
		addrs[s.Name] = s.Value
	}
	var data []byte
	for _, s := range f.Sections {
		if addr := addrs["runtime.pclntab"]; s.Type == elf.SHT_PROGBITS && addr >= s.Addr && addr < s.Addr+s.Size {
			all, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			data = all[addr-s.Addr:]
		}
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, addrs["runtime.text"]))
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Funcs) == 0 {
		t.Fatalf("debug/gosym finds no functions in %s", path)
	}
	if f := table.LookupFunc(roundTrip); f != nil && f.Entry != addrs[roundTrip] {
		t.Fatalf("%s: debug/gosym says %#x, the linker %#x", roundTrip, f.Entry, addrs[roundTrip])
	}
	return table.Funcs
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
