// SPDX-License-Identifier: Apache-2.0

package python

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMethodsOfReleasedUvloops finds them in what .ci/deps test has fetched from PyPI.
func TestMethodsOfReleasedUvloops(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	libraries, _ := filepath.Glob(filepath.Join(cache, "breadcrumb/uvloop/*/uvloop/loop.*.so"))
	if len(libraries) == 0 {
		t.Skip("no release is there: .ci/deps test fetches some")
	}
	for _, path := range libraries {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(path))), func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			sites, err := findMethods(f, streamMethods, "write", "writelines")
			if err != nil || len(sites) != 2 || sites[0] == sites[1] {
				t.Fatalf("%x, %v", sites, err)
			}
			text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "_version.py"))
			if v := version(text); err != nil || v < 14 || v > 22 {
				t.Errorf("version %d, %v", v, err)
			}
		})
	}
}

// class is a library in which a class has methods, as Cython makes it.
type class struct {
	methods []string
	code    string // with which the functions begin
}

func (c class) source() string {
	var b strings.Builder
	b.WriteString("typedef struct { const char *name; void *function; int flags; const char *doc; } method;\n")
	for _, m := range c.methods {
		fmt.Fprintf(&b, "__attribute__((naked)) static void f_%s(void) { asm(\"%s\"); }\n", m, c.code)
	}
	b.WriteString("method methods[] = {\n")
	for _, m := range c.methods {
		fmt.Fprintf(&b, "{\"%s\", f_%s, 8, 0},\n", m, m)
	}
	b.WriteString("{0, 0, 0, 0}};\n")
	return b.String()
}

func (c class) build(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	source, library := filepath.Join(dir, "class.c"), filepath.Join(dir, "class.so")
	if err := os.WriteFile(source, []byte(c.source()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("gcc", "-m64", "-shared", "-fPIC", "-nostdlib", "-s", "-Wl,-z,nopack-relative-relocs", "-o", library, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		cmd = exec.Command("gcc", "-m64", "-shared", "-fPIC", "-nostdlib", "-s", "-o", library, source) // ld before 2.38
		if again, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s%s", err, out, again)
		}
	}
	text, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestFindMethods(t *testing.T) {
	const push, pushHigh, endbr = `push %rbp; ret`, `push %r12; ret`, `endbr64; push %rbx; ret`
	for name, c := range map[string]struct {
		class
		begins []byte // with what the code at the site begins
		err    string
	}{
		"push":              {class{streamMethods, push}, []byte{0x55}, ""},
		"push with prefix":  {class{append([]string{"close"}, streamMethods...), pushHigh}, []byte{0x41, 0x54}, ""},
		"another class":     {class{[]string{"write", "writelines", "write_eof", "can_write_eof", "abort"}, push}, nil, "0 tables"},
		"behind endbr64":    {class{streamMethods, endbr}, []byte{0x53}, ""},
		"another beginning": {class{streamMethods, `sub $8, %rsp; ret`}, nil, "begins with 4883ec08"},
	} {
		t.Run(name, func(t *testing.T) {
			text := c.build(t)
			sites, err := findMethods(bytes.NewReader(text), streamMethods, "write", "writelines")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%x, %v; want an error that says %q", sites, err, c.err)
				}
				return
			}
			if err != nil || len(sites) != 2 || sites[0] == sites[1] {
				t.Fatalf("%x, %v", sites, err)
			}
			for _, at := range sites {
				if !bytes.HasPrefix(text[at:], c.begins) {
					t.Errorf("at %#x is %x, want %x", at, text[at:at+4], c.begins)
				}
			}
		})
	}
}

// TestMalformedLibraries cuts a library everywhere, and puts what it does not expect into each of its words.
func TestMalformedLibraries(t *testing.T) {
	text := class{streamMethods, `push %rbp; ret`}.build(t)
	find := func(text []byte) { _, _ = findMethods(bytes.NewReader(text), streamMethods, "write", "writelines") }
	for n := 0; n < len(text); n += 7 {
		find(text[:n])
	}
	bad := bytes.Clone(text)
	for at := 0; at+8 <= len(text); at += 4 {
		for _, v := range []uint64{0, 1, 1 << 31, 1<<63 - 1, 1<<64 - 1} {
			binary.LittleEndian.PutUint64(bad[at:], v)
			find(bad)
		}
		copy(bad[at:], text[at:at+8])
	}
	if _, err := findMethods(bytes.NewReader(nil), streamMethods, "write"); err == nil {
		t.Error("nothing is taken for a library")
	}
	if _, err := findMethods(unreadable{}, streamMethods, "write"); err == nil {
		t.Error("what cannot be read is taken for a library")
	}
}

type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

func FuzzFindMethods(f *testing.F) {
	f.Add(class{streamMethods, `push %rbp; ret`}.build(f))
	f.Fuzz(func(t *testing.T, text []byte) {
		sites, err := findMethods(bytes.NewReader(text), streamMethods, "write", "writelines")
		if (err == nil) != (len(sites) == 2) {
			t.Errorf("%x, %v", sites, err)
		}
	})
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]int{
		"# a comment\n__version__ = '0.22.1'\n": 22,
		"__version__ = \"0.23.0\"":              23,
		"__version__ = '1.0.0'":                 1000,
		"__version__ = '0.99999999999.1'":       -1,
		"version = '0.22.1'":                    -1,
		"":                                      -1,
	} {
		if v := version([]byte(text)); v != want {
			t.Errorf("%q: %d, want %d", text, v, want)
		}
	}
}

// TestAfterCall knows how C libraries' getpeername begins.
func TestAfterCall(t *testing.T) {
	for name, c := range map[string]struct {
		code string
		want uint64
	}{
		"glibc 2.36":            {"b8340000000f05483d01f0ffff7301c3488b0d", 13},
		"with endbr64":          {"f30f1efab8340000000f05483d01f0ffff7301c3488b0d", 17},
		"another jump":          {"b8340000000f05483d00f0ffff7701c3488b0d", 13},
		"a far jump":            {"b8340000000f05483d01f0ffff0f8301000000c3", 0},
		"something before it":   {"4883ec08b8340000000f05483d01f0ffff7301c3", 0},
		"cut":                   {"b8340000000f05483d01f0ffff", 0},
		"nothing":               {"", 0},
		"cut in the first word": {"f30f", 0},
	} {
		code, err := hex.DecodeString(c.code)
		if err != nil {
			t.Fatal(err)
		}
		if n := afterCall(code); n != c.want {
			t.Errorf("%s: %d, want %d", name, n, c.want)
		}
	}
}
