// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected output")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", name, diff)
	}
}

func TestProcessesAreListed(t *testing.T) {
	i, _ := fixture(t, "shop.txtar")
	s, err := NewSelector(append([]Rule{{Exclude: true, Exe: mustGlob(t, "sshd")}}, Flags{Ports: []PortRange{{8000, 8080}}}.Rules()...))
	if err != nil {
		t.Fatal(err)
	}
	p, err := i.Processes(s)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "ps.txt", b.String())
	golden(t, "suggest.txt", p.Suggest())
	golden(t, "suggest-nothing.txt", Processes{}.Suggest())
}

func TestTheAgentIsNeverCovered(t *testing.T) {
	p, err := newInspector(t).Processes(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Rows {
		if r.PID == uint32(os.Getpid()) {
			if r.Coverage != Never || r.Selected {
				t.Errorf("%+v", r)
			}
			for _, c := range p.Candidates(len(p.Rows)) {
				if c.PID == r.PID {
					t.Error("the agent suggests itself")
				}
			}
			return
		}
	}
	t.Error("the agent is not listed")
}

func TestControlCharactersOfStrangersAreEscaped(t *testing.T) {
	for in, want := range map[string]string{
		"shop":             "shop",
		"größe":            "größe",
		`a"b`:              `a"b`,
		"a\x1b[2Jb":        `a\x1b[2Jb`,
		"a\tb\nc":          `a\tb\nc`,
		"a\u202eb":         `a\u202eb`,
		"a\xffb":           `a\xffb`,
		"\u200bzero\u00a0": `\u200bzero` + "\u00a0",
	} {
		if got := Escape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if got := clean(in); strings.ContainsAny(got, "\x1b\t\n") || strings.Contains(got, "\xff") {
			t.Errorf("%q is not clean", got)
		}
	}
}
