// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestInterpretersAreKnownByName(t *testing.T) {
	for _, tt := range []struct {
		exe      string
		language Language
		version  string
	}{
		{"/usr/bin/python3.11", Python, "3.11"},
		{"/usr/bin/python3", Python, ""},
		{"/usr/bin/python2.7", Python, "2.7"},
		{"/usr/local/bin/python3.13t", Python, "3.13"},
		{"/root/.pyenv/versions/3.12.1/bin/python3.12", Python, "3.12.1"},
		{"/opt/conda/bin/python", Python, ""},
		{"/opt/pypy3.10-v7.3.15-linux64/bin/pypy3", Python, ""},
		{"/usr/bin/node", Node, ""},
		{"/root/.nvm/versions/node/v20.11.1/bin/node", Node, "20.11.1"},
		{"/opt/node-v18.19.0-linux-x64/bin/node", Node, "18.19.0"},
		{"/usr/bin/nodejs", Node, ""},
		{"/usr/lib/jvm/java-17-openjdk-amd64/bin/java", Java, ""},
		{"/usr/bin/ruby3.1", Ruby, "3.1"},
		{"/usr/local/rvm/rubies/ruby-3.2.2/bin/ruby", Ruby, "3.2.2"},
		{"/root/.rbenv/versions/3.3.0/bin/ruby", Ruby, "3.3.0"},
		{"/usr/bin/php8.2", PHP, "8.2"},
		{"/usr/sbin/php-fpm8.2", PHP, "8.2"},
		{"/usr/local/sbin/php-fpm", PHP, ""},
		{"/usr/share/dotnet/dotnet", DotNet, ""},
		{"/usr/bin/pythonista", Unknown, ""},
		{"/usr/bin/node_exporter", Unknown, ""},
		{"/usr/sbin/nginx", Unknown, ""},
		{"", Unknown, ""},
	} {
		if l, v, _ := byName(tt.exe); l != tt.language || v != tt.version {
			t.Errorf("%s: %s %q, want %s %q", tt.exe, l, v, tt.language, tt.version)
		}
	}
}

func TestRuntimesAreKnownByTheirLibraries(t *testing.T) {
	for _, tt := range []struct {
		file     string
		language Language
		version  string
	}{
		{"/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", Python, "3.11"},
		{"/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1.7", Ruby, "3.1.7"},
		{"libruby-3.1.so.3.1", Ruby, ""},
		{"/usr/lib/apache2/modules/libphp8.2.so", PHP, "8.2"},
		{"/usr/lib/jvm/java-17/lib/server/libjvm.so", Java, ""},
		{"/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.1/libcoreclr.so", DotNet, "8.0.1"},
		{"/app/libcoreclr.so", DotNet, ""},
		{"libnode.so.108", Node, ""},
		{"/lib/x86_64-linux-gnu/libc.so.6", Unknown, ""},
	} {
		if l, v := byLibrary(tt.file); l != tt.language || v != tt.version {
			t.Errorf("%s: %s %q, want %s %q", tt.file, l, v, tt.language, tt.version)
		}
	}
}

func TestGoVersion(t *testing.T) {
	for in, want := range map[string]string{
		"go1.26.8": "1.26.8", "go1.26.8 X:nodwarf5": "1.26.8", "devel go1.27-abcdef Thu": "1.27-abcdef", "weird": "weird",
	} {
		if got := goVersion(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// elf32 is the header of a 32-bit program without sections.
func elf32(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, field := range []any{
		uint16(2), uint16(3), uint32(1), // an executable for the 386
		uint32(0), uint32(52), uint32(0), uint32(0), uint16(52), uint16(32), uint16(0), uint16(40), uint16(0), uint16(0),
	} {
		if err := binary.Write(&b, binary.LittleEndian, field); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestThirtyTwoBitProgramsAreNoticed(t *testing.T) {
	data := elf32(t)
	x := examine(bytes.NewReader(data), int64(len(data)), "/opt/old")
	if !x.bits32 || x.language != CPP {
		t.Errorf("%+v", x)
	}
}

func TestRustIsKnownByItsCompiler(t *testing.T) {
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("rustc is not installed")
	}
	dir := t.TempDir()
	source, exe := filepath.Join(dir, "x.rs"), filepath.Join(dir, "x")
	if err := os.WriteFile(source, []byte("fn main() { println!(\"{:?}\", std::env::args().nth(1).unwrap()); }"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(rustc, "-C", "strip=symbols", "-o", exe, source).CombinedOutput(); err != nil {
		t.Fatalf("rustc: %v\n%s", err, out)
	}
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if x := examine(f, st.Size(), exe); x.language != Rust || !x.settled || x.version == "" {
		t.Errorf("%+v", x)
	}
}

func FuzzExamine(f *testing.F) {
	f.Add(elf32(f), "/opt/old")
	for _, name := range []string{"/proc/self/exe", "/usr/bin/python3", "/bin/sh"} {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data[:min(len(data), 8192)], name)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, exe string) {
		x := examine(bytes.NewReader(data), int64(len(data)), exe)
		if x.language == Unknown {
			t.Errorf("%+v", x)
		}
		if v := elfPythonVersion(bytes.NewReader(data), int64(len(data))); len(v) > 16 {
			t.Errorf("version %q", v)
		}
	})
}

func TestFactsOfFilesAreBounded(t *testing.T) {
	var c executables
	dir := t.TempDir()
	for n := range 3 {
		if n > 0 {
			if err := os.Remove(filepath.Join(dir, "exe")); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "exe"), bytes.Repeat([]byte{'x'}, n), 0o755); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := c.get(dir, "/x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(c.known) != 3 || len(c.order) != 3 {
		t.Errorf("%d files, %d in order", len(c.known), len(c.order))
	}
	for n := range 2 * maxExecutables {
		c.add(executableID{ino: uint64(1000 + n)}, executable{})
	}
	if len(c.known) > maxExecutables || len(c.order) != len(c.known) {
		t.Errorf("%d files, %d in order", len(c.known), len(c.order))
	}
}
