// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func TestAnalyzeFindsRoundTripInEveryVersion(t *testing.T) {
	versions(t, func(t *testing.T, b goBuild, path string) {
		l := analyze(t, readFile(t, path))
		if l.RoundTrip == nil {
			t.Fatal(l.NoRoundTrip)
		}
		// The versions whose functions save BP by a MOV.
		old := strings.HasPrefix(l.Version, "go1.19") || strings.HasPrefix(l.Version, "go1.20")
		if s := l.RoundTrip; !s.Emulated || s.AtCheck != (old && b.arch == "amd64") {
			t.Errorf("%s: %+v", l.Version, s.Entry)
		}
		for name, s := range map[string]*Site{chanSend: l.Send, chanClose: l.Close} {
			if s == nil || !s.Emulated {
				t.Errorf("%s: no place in %s", l.Version, name)
			}
		}
		if !l.Exact {
			t.Errorf("%s is not in the table", l.Version)
		}
	})
}

func TestAnalyzeFindsRoundTripHoweverLinked(t *testing.T) {
	for _, v := range variants {
		t.Run(v.build.String(), func(t *testing.T) {
			if testing.Short() && v.build.toolchain != "" {
				t.Skip("fetches a toolchain")
			}
			path := v.build.build(t)
			data := readFile(t, path)
			l := analyze(t, data)
			if l.RoundTrip == nil {
				t.Fatal(l.NoRoundTrip)
			}
			s := l.RoundTrip
			for _, f := range oracle(t, path) {
				if f.Name == roundTrip && f.Entry+uint64(s.Offset) != s.Addr {
					t.Errorf("site at %#x, function at %#x", s.Addr, f.Entry)
				}
			}
			if arch := v.build.arch; arch != "arm64" && !s.AtCheck && data[s.FileOffset] != 0x55 {
				t.Errorf("at offset %#x of the file is %#x, not PUSHQ BP", s.FileOffset, data[s.FileOffset])
			}
		})
	}
}

func TestAnalyzeSaysWhyNot(t *testing.T) {
	client := readFile(t, goBuild{}.build(t))
	nohttp := readFile(t, goBuild{program: "nohttp"}.build(t))
	obfuscated := bytes.ReplaceAll(client, []byte("\x00runtime.main\x00"), []byte("\x00qxcoj5Kz9ab_\x00"))
	unreadable := bytes.ReplaceAll(client, []byte{0xf1, 0xff, 0xff, 0xff, 0, 0}, []byte{0x12, 0x34, 0x56, 0x78, 0, 0})
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"no net/http":       {nohttp, "it has no net/http client"},
		"names obfuscated":  {obfuscated, "its functions have no names (obfuscated)"},
		"no readable table": {unreadable, "its functions cannot be found: no readable table of Go functions"},
	} {
		t.Run(name, func(t *testing.T) {
			l := analyze(t, tt.data)
			if l.RoundTrip != nil || l.NoRoundTrip != tt.want {
				t.Errorf("%+v, %q; want %q", l.RoundTrip, l.NoRoundTrip, tt.want)
			}
			// Which goroutine a thread runs can be read all the same.
			if l.Offsets.Goid == 0 {
				t.Error("no offsets")
			}
		})
	}
}

func TestAnalyzeRefusesCodeThatIsNone(t *testing.T) {
	data := readFile(t, goBuild{arch: "amd64"}.build(t))
	s := analyze(t, data).RoundTrip
	start := s.FileOffset - uint64(s.Offset)
	copy(data[start:], bytes.Repeat([]byte{0xcc}, 32))
	l := analyze(t, data)
	if l.RoundTrip != nil || !strings.Contains(l.NoRoundTrip, errNotEntry.Error()) {
		t.Errorf("%+v, %q", l.RoundTrip, l.NoRoundTrip)
	}
}

func TestAnalyzeErrors(t *testing.T) {
	client := readFile(t, goBuild{}.build(t))
	// The version stands in the build information, after its length.
	l := analyze(t, client)
	old := "go1.17.1"[:len("go1.17.1")] + strings.Repeat("0", max(0, len(l.Version)-len("go1.17.1")))
	tooOld := bytes.ReplaceAll(client, []byte(l.Version), []byte(old))
	for name, tt := range map[string]struct {
		data []byte
		want error
	}{
		"empty":        {nil, ErrNotGo},
		"script":       {[]byte("#!/usr/bin/python3\nprint('hello')\n"), ErrNotGo},
		"ELF, not Go":  {tinyELF(0x3e, make([]byte, 100), make([]byte, 100)), ErrNotGo},
		"too old":      {tooOld, ErrTooOld},
		"cut":          {client[:4096], ErrNotGo},
		"no ELF magic": {client[1:], ErrNotGo},
	} {
		if l, err := Analyze(bytes.NewReader(tt.data)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v", name, l, err, tt.want)
		}
	}
}

func analyze(t *testing.T, data []byte) *Layout {
	t.Helper()
	l, err := Analyze(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func BenchmarkAnalyze(b *testing.B) {
	for _, build := range []goBuild{
		{flags: []string{"-ldflags=-s -w"}},
		{cgo: true, flags: []string{"-ldflags=-linkmode=external", "-buildmode=pie"}}, // the dearest: all is searched for
	} {
		b.Run(build.String(), func(b *testing.B) {
			f, err := os.Open(build.build(b))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			size, err := f.Seek(0, io.SeekEnd)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Analyze(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
