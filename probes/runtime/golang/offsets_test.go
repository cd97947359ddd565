// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"debug/dwarf"
	"debug/elf"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLookup(t *testing.T) {
	rows := make(map[string]Offsets)
	for _, row := range offsetTable {
		rows[row.since] = row.offsets
	}
	for _, tt := range []struct {
		version string
		row     string // none if empty
		exact   bool
	}{
		{"go1.19", "go1.19", true},
		{"go1.19.13", "go1.19", true},
		{"go1.20.14", "go1.19", true},
		{"go1.22.12", "go1.21", true},
		{"go1.23.0", "go1.23", true},
		{"go1.24.11", "go1.23", true},
		{"go1.25", "go1.25", true},
		{"go1.26.8", "go1.26", true},
		{"go1.27.4", "go1.26", true},
		{"go1.21.0 X:boringcrypto", "go1.21", true},
		{"go1.24.4-fips", "go1.23", true},
		{"go1.22.9 (Red Hat 1.22.9-1.el9)", "go1.21", true},
		{"go1.26.1+custom", "go1.26", true},
		{"go1.23rc1", "go1.23", false},
		{"go1.21beta2", "go1.21", false},
		{"devel go1.27-abcdef", "go1.26", false},
		{"devel go1.22-2f6783c098 Mon Sep 25 20:08:55 2023 +0000", "go1.21", false},
		{"go1.26-devel_5b8b4c3a Tue Aug 19 10:00:00 2025 -0700 X:greenteagc", "go1.26", false},
		{"go1.28", "go1.26", false},
		{"go1.100.3", "go1.26", false},
		{"go2.0", "go1.26", false},
		{"unknown", "go1.26", false}, // what obfuscated programs say
		{"", "go1.26", false},
		{"devel +abcdef", "go1.26", false},
		{"go1.18.10", "", false},
		{"go1.4", "", false},
	} {
		t.Run(tt.version, func(t *testing.T) {
			got, exact := Lookup(tt.version)
			if diff := cmp.Diff(rows[tt.row], got); diff != "" {
				t.Errorf("offsets (-want +got):\n%s", diff)
			}
			if exact != tt.exact {
				t.Errorf("exact = %v, want %v", exact, tt.exact)
			}
		})
	}
}

func TestOffsetsMatchToolchains(t *testing.T) {
	versions(t, func(t *testing.T, b goBuild, path string) {
		version := b.toolchain
		if version == "" {
			version = runtime.Version()
		}
		got, exact := Lookup(version)
		if !exact {
			t.Errorf("%s is not in the table", version)
		}
		if diff := cmp.Diff(dwarfOffsets(t, path), got); diff != "" {
			t.Errorf("offsets (-DWARF +table):\n%s", diff)
		}
	})
}

// dwarfOffsets reads the offsets from a program's debugging information.
func dwarfOffsets(t *testing.T, path string) Offsets {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}

	wanted := map[string]*dwarf.StructType{
		"runtime.g": nil, "runtime.hchan": nil, "runtime.sudog": nil, "runtime.m": nil, "runtime.iface": nil, "net/http.persistConn": nil, "crypto/tls.Conn": nil,
		"net.TCPConn": nil, "net.UnixConn": nil, "net.conn": nil, "net.netFD": nil,
	}
	for r := d.Reader(); ; {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			break
		}
		if e.Tag != dwarf.TagCompileUnit {
			r.SkipChildren()
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		if _, ok := wanted[name]; e.Tag != dwarf.TagStructType || !ok {
			continue
		}
		typ, err := d.Type(e.Offset)
		if err != nil {
			t.Fatal(err)
		}
		wanted[name] = typ.(*dwarf.StructType)
	}

	// field adds up the offsets on a path of embedded fields.
	field := func(name string, path ...string) (sum uint16, found bool) {
		var typ dwarf.Type = wanted[name]
		for _, want := range path {
			for {
				def, ok := typ.(*dwarf.TypedefType)
				if !ok {
					break
				}
				typ = def.Type
			}
			s, ok := typ.(*dwarf.StructType)
			if !ok || s == nil {
				t.Fatalf("%s: no struct on the way to %v: %v", name, path, typ)
			}
			found = false
			for _, f := range s.Field {
				if f.Name == want {
					sum += uint16(f.ByteOffset)
					typ, found = f.Type, true
				}
			}
			if !found {
				return 0, false
			}
		}
		return sum, true
	}
	must := func(name string, path ...string) uint16 {
		t.Helper()
		off, ok := field(name, path...)
		if !ok {
			t.Errorf("%s has no %v", name, path)
		}
		return off
	}

	if got := must("runtime.iface", "data"); got != 8 {
		t.Errorf("data word of interfaces at %d, want 8", got)
	}
	if got := must("net.UnixConn", "conn", "fd"); got != must("net.TCPConn", "conn", "fd") {
		t.Errorf("net.UnixConn differs from net.TCPConn: fd at %d", got)
	}
	if got := must("runtime.g", "stackguard0"); got != guardOffset {
		t.Errorf("g.stackguard0 at %d, want %d", got, guardOffset)
	}
	if got := must("runtime.sudog", "g"); got != 0 {
		t.Errorf("sudog.g at %d, want 0", got)
	}
	parent, _ := field("runtime.g", "parentGoid")
	return Offsets{
		StackLo:         must("runtime.g", "stack", "lo"),
		StackHi:         must("runtime.g", "stack", "hi"),
		M:               must("runtime.g", "m"),
		Goid:            must("runtime.g", "goid"),
		ParentGoid:      parent,
		Curg:            must("runtime.m", "curg"),
		Receivers:       must("runtime.hchan", "recvq", "first"),
		PersistConnConn: must("net/http.persistConn", "conn"),
		TLSConn:         must("crypto/tls.Conn", "conn"),
		ConnFD:          must("net.TCPConn", "conn", "fd"),
		Sysfd:           must("net.netFD", "pfd", "Sysfd"),
		Family:          must("net.netFD", "family"),
		Sotype:          must("net.netFD", "sotype"),
	}
}
