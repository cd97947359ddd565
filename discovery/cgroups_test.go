// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestCgroupsThatAreChosen(t *testing.T) {
	include := func(pattern string) Rule { return Rule{Cgroup: mustGlob(t, pattern)} }
	exclude := func(pattern string) Rule { return Rule{Cgroup: mustGlob(t, pattern), Exclude: true} }
	for _, tt := range []struct {
		name  string
		root  string
		rules []Rule
		want  []string // wanted, and with a "!" not wanted
	}{
		{"one and what is below it", "/", []Rule{include("/kubepods")}, []string{"/kubepods"}},
		{"by a pattern for names", "/", []Rule{include("pod*")}, []string{"/kubepods/pod1", "/kubepods/pod2"}},
		{"all but one", "/", []Rule{exclude("pod1"), include("kubepods")}, []string{"!/kubepods/pod1", "/kubepods"}},
		{"one within what is left out", "/", []Rule{include("app"), exclude("kubepods"), {All: true}}, []string{"!/kubepods", "/", "/kubepods/pod1/app"}},
		{"everything", "/", []Rule{{All: true}}, []string{"/"}},
		{"seen from a cgroup namespace", "/../..", []Rule{include("/../../kubepods/pod1")}, []string{"/../../kubepods/pod1"}},
		{"what else is asked for may be about one in it", "/", []Rule{{Exe: mustGlob(t, "sh"), Exclude: true}, include("kubepods")}, nil},
		{"what else is wanted does not matter", "/", []Rule{{Exe: mustGlob(t, "sh")}, include("kubepods")}, []string{"/kubepods"}},
		{"a cgroup and something else", "/", []Rule{{Exe: mustGlob(t, "sh"), Cgroup: mustGlob(t, "kubepods")}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := NewSelector(tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			ids := map[uint64]string{}
			for _, path := range []string{"", "/kubepods", "/kubepods/pod1", "/kubepods/pod1/app", "/kubepods/pod2", "/system.slice"} {
				if err := os.MkdirAll(dir+path, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "kubepods/cgroup.procs"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			c := &Cgroups{rules: rules, dir: dir, root: tt.root}
			if c.root == "/" {
				c.root = ""
			}
			if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error {
				info, err := os.Lstat(path)
				if err != nil {
					return err
				}
				ids[info.Sys().(*syscall.Stat_t).Ino] = path[len(dir):]
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			chosen := map[string]bool{}
			found := func(id uint64, wanted bool) error {
				path := c.root + ids[id]
				if path == "" {
					path = "/"
				}
				if wanted && c.Path(id) != path {
					t.Errorf("the path of %s is %q", path, c.Path(id))
				}
				if !wanted {
					path = "!" + path
				}
				chosen[path] = true
				return nil
			}
			if err := c.Chosen(found); err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(chosen)); !slices.Equal(got, tt.want) {
				t.Errorf("chosen are %q, want %q", got, tt.want)
			}
			// One by one, as they are made.
			clear(chosen)
			for id, path := range ids {
				if filepath.Base(path) == "cgroup.procs" {
					continue
				}
				if err := c.Made(id, path, found); err != nil {
					t.Fatal(err)
				}
			}
			if got := slices.Sorted(maps.Keys(chosen)); !slices.Equal(got, tt.want) {
				t.Errorf("chosen one by one are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPortsThatAreChosen(t *testing.T) {
	rules, err := NewSelector([]Rule{
		{Port: PortRange{81, 81}, Exclude: true},
		{Port: PortRange{80, 82}},
		{Exe: mustGlob(t, "sh"), Exclude: true},
		{Port: PortRange{90, 90}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint16
	for port := range uint16(100) {
		if rules.ByPort(port) {
			got = append(got, port)
		}
	}
	if want := []uint16{80, 82}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
}
