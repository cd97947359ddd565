// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"python3", "/usr/bin/python3", true},
		{"python3", "/usr/bin/python3.11", false},
		{"python3*", "/usr/bin/python3.11", true},
		{"*", "/usr/bin/python3", true},
		{"**", "/usr/bin/python3", true},
		{"/usr/bin/*", "/usr/bin/python3", true},
		{"/usr/*", "/usr/bin/python3", false},
		{"/usr/**", "/usr/bin/python3", true},
		{"/usr/**/python3", "/usr/python3", true},
		{"/usr/**/python3", "/usr/local/bin/python3", true},
		{"**/bin/node", "/bin/node", true},
		{"bin/node", "/opt/bin/node", true},
		{"bin/node", "/opt/sbin/node", false},
		{"/srv/?", "/srv/a", true},
		{"/srv/?", "/srv/", false},
		{"/srv?a", "/srv/a", false},
		{"php-fpm[78]*", "/usr/sbin/php-fpm8.2", true},
		{"php-fpm[!78]*", "/usr/sbin/php-fpm8.2", false},
		{"php-fpm[^56]*", "/usr/sbin/php-fpm8.2", true},
		{"/srv[!x]a", "/srv/a", false},
		{`a\*b`, "/a*b", true},
		{`a\*b`, "/axb", false},
		{"a.b", "/axb", false},
		{"*", "", false},
	} {
		g, err := ParseGlob(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Match(tt.name); got != tt.want {
			t.Errorf("%s for %s: %t", tt.pattern, tt.name, got)
		}
	}
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"/system.slice/shop.service", "/system.slice/shop.service", true},
		{"/system.slice", "/system.slice/shop.service", true},
		{"/system.slice/*", "/system.slice/shop.service/worker", true},
		{"kubepods*", "/kubepods.slice/kubepods-pod1.slice/x.scope", true},
		{"shop.service", "/system.slice/shop.service", true},
		{"/system", "/system.slice/shop.service", false},
		{"/", "/", true},
		{"/", "/system.slice", true},
		{"**", "", false},
	} {
		g, err := ParseGlob(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.MatchAncestor(tt.name); got != tt.want {
			t.Errorf("%s for %s or above: %t", tt.pattern, tt.name, got)
		}
	}
}

func FuzzGlob(f *testing.F) {
	for _, seed := range []string{"/a/**/[!a-z]?\\*", "[]]", "[a", "**", "[^/]", "é*"} {
		f.Add(seed, "/usr/bin/python3")
	}
	f.Fuzz(func(_ *testing.T, pattern, name string) {
		if g, err := ParseGlob(pattern); err == nil {
			g.Match(name)
			g.MatchAncestor(name)
		}
	})
}

func TestBadInputIsExplained(t *testing.T) {
	port := func(s string) error { _, err := ParsePortRange(s); return err }
	glob := func(s string) error { _, err := ParseGlob(s); return err }
	rules := func(r ...Rule) error { _, err := NewSelector(r); return err }
	for _, tt := range []struct {
		err  error
		want string
	}{
		{port("http"), `port "http": "http" is not a port: write a number from 1 to 65535, or two as in 8000-8999`},
		{port("0"), `port "0": "0" is not a port: write a number from 1 to 65535, or two as in 8000-8999`},
		{port("80-"), `port "80-": "" is not a port: write a number from 1 to 65535, or two as in 8000-8999`},
		{port("90-80"), `port "90-80": the range ends before it begins: write 80-90`},
		{glob(""), `empty pattern: write "**" to match everything`},
		{glob("a[b"), `pattern "a[b": "[" without "]": write "\[" for a bracket`},
		{glob(`a\`), `pattern "a\\" ends in "\": write "\\" for a backslash`},
		{rules(Rule{}), "rules[0]: matches nothing: give one of pid, exe, port, cgroup, or all: true"},
		{rules(Rule{All: true, PID: 1}), `rules[0]: "all" together with another criterion: remove one`},
		{rules(Flags{PIDs: []uint32{uint32(os.Getpid())}}.Rules()...), "this is the agent itself, which is never traced"},
	} {
		if tt.err == nil || !strings.HasSuffix(tt.err.Error(), tt.want) {
			t.Errorf("got %v, want %s", tt.err, tt.want)
		}
	}
}

func mustGlob(t testing.TB, pattern string) Glob {
	t.Helper()
	g, err := ParseGlob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	var config struct {
		Rules []Rule `yaml:"rules"`
	}
	if err := yaml.Unmarshal([]byte(`
rules:
  - exe: /usr/bin/curl
    exclude: true
  - port: 8080
  - port: 9000-9099
    exe: "python3*"
  - cgroup: /system.slice/shop.service
  - pid: 77
`), &config); err != nil {
		t.Fatal(err)
	}
	s, err := NewSelector(append(Flags{Ports: []PortRange{{7, 7}}}.Rules(), config.Rules...))
	if err != nil {
		t.Fatal(err)
	}
	target := func(pid uint32, exe, cgroup string, ports ...uint16) *Target {
		t := &Target{Exe: exe, Cgroup: cgroup, Ports: ports}
		t.PID = pid
		return t
	}
	child := target(79, "/bin/x", "/")
	child.Under = []uint32{77}
	for _, tt := range []struct {
		name   string
		target *Target
		rule   string
		ok     bool
	}{
		{"excluded before it is included", target(77, "/usr/bin/curl", "/system.slice/shop.service", 8080), "rules[0]", false},
		{"flags come first", target(1, "/usr/bin/curl", "/", 6, 7), "--port 7", true},
		{"one of several ports", target(1, "/bin/x", "/", 80, 8080), "rules[1]", true},
		{"all criteria of a rule", target(1, "/usr/bin/python3.11", "/", 9001), "rules[2]", true},
		{"one criterion is not enough", target(1, "/usr/bin/node", "/", 9001), "", false},
		{"below a cgroup", target(1, "/bin/x", "/system.slice/shop.service/workers"), "rules[3]", true},
		{"by PID", target(77, "/bin/x", "/"), "rules[4]", true},
		{"below a PID", child, "rules[4]", true},
		{"nothing", target(78, "/bin/x", "/"), "", false},
		{"the agent itself", target(uint32(os.Getpid()), "/bin/x", "/", 7), "", false},
	} {
		if rule, ok := s.Match(tt.target); rule != tt.rule || ok != tt.ok {
			t.Errorf("%s: got %q, %t; want %q, %t", tt.name, rule, ok, tt.rule, tt.ok)
		}
	}
	if rule, ok := (*Selector)(nil).Match(child); rule != "" || ok {
		t.Errorf("no rules match: %q", rule)
	}
}

// TestWantedByTheExecutableAlone asks which files are wanted whoever runs them: the kernel side takes these from
// their first instruction.
func TestWantedByTheExecutableAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"orders", "stock"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("orders", filepath.Join(dir, "alias")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nowhere:"+dir)
	orders, all := mustGlob(t, dir+"/orders"), mustGlob(t, dir+"/*")
	shop := mustGlob(t, "/shop")
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  []string
	}{
		{"by path", []Rule{{Exe: orders}}, []string{"orders"}},
		{"by pattern", []Rule{{Exe: all}}, []string{"orders", "stock"}},
		{"by name", []Rule{{Exe: mustGlob(t, "orders")}}, []string{"orders"}},
		{"by what is not its name", []Rule{{Exe: mustGlob(t, "alias")}}, nil},
		{"but one", []Rule{{Exe: orders, Exclude: true}, {Exe: all}}, []string{"stock"}},
		{"but in a cgroup", []Rule{{Cgroup: shop, Exclude: true}, {Exe: all}}, nil},
		{"but in a cgroup, one before that", []Rule{{Exe: orders}, {Cgroup: shop, Exclude: true}, {Exe: all}}, []string{"orders"}},
		{"in a cgroup only", []Rule{{Exe: orders, Cgroup: shop}}, nil},
		{"and others by port, PID and cgroup", []Rule{{Port: PortRange{80, 80}}, {PID: 7}, {Cgroup: shop}, {Exe: orders}}, []string{"orders"}},
	} {
		s, err := NewSelector(tt.rules)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, path := range s.Images() {
			got = append(got, filepath.Base(path))
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		for _, name := range []string{"orders", "stock"} {
			if ok := s.ByImage(&Target{Exe: filepath.Join(dir, name)}); ok != slices.Contains(tt.want, name) {
				t.Errorf("%s: %s is wanted: %t", tt.name, name, ok)
			}
		}
	}
}

func TestConfigurationErrorsNameTheLine(t *testing.T) {
	var config struct {
		Rules []Rule `yaml:"rules"`
	}
	err := yaml.Unmarshal([]byte("rules:\n  - port: 90-80\n  - exe: 'a[b'\n  - pid: x\n"), &config)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"line 2", "the range ends before it begins: write 80-90", "line 3", `write "\[" for a bracket`, "line 4"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestRulesFromFlags(t *testing.T) {
	f := Flags{
		PIDs:    []uint32{12, 13},
		Exes:    []Glob{mustGlob(t, "python3*")},
		Ports:   []PortRange{{80, 80}, {8000, 8999}},
		Cgroups: []Glob{mustGlob(t, "/docker/**")},
		All:     true,
	}
	var names []string
	for _, r := range f.Rules() {
		names = append(names, r.name)
	}
	want := []string{"--pid 12", "--pid 13", "--exe python3*", "--port 80", "--port 8000-8999", "--cgroup /docker/**", "--all"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	s, err := NewSelector(f.Rules())
	if err != nil || s.Empty() {
		t.Errorf("empty: %t, %v", s.Empty(), err)
	}
	if s, err := NewSelector([]Rule{{Exclude: true, PID: 3}}); err != nil || !s.Empty() {
		t.Errorf("a selector that only excludes is not empty: %v", err)
	}
}
