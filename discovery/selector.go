// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// PortRange is the ports from First to Last. The zero PortRange has none.
type PortRange struct {
	First, Last uint16
}

// ParsePortRange reads "8080" or "8000-8999".
func ParsePortRange(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	var r PortRange
	for _, p := range []struct {
		text string
		port *uint16
	}{{first, &r.First}, {last, &r.Last}} {
		n, err := strconv.ParseUint(strings.TrimSpace(p.text), 10, 16)
		if err != nil || n == 0 {
			return PortRange{}, fmt.Errorf("port %q: %q is not a port: write a number from 1 to 65535, or two as in 8000-8999", s, p.text)
		}
		*p.port = uint16(n)
	}
	if r.First > r.Last {
		return PortRange{}, fmt.Errorf("port %q: the range ends before it begins: write %d-%d", s, r.Last, r.First)
	}
	return r, nil
}

// Contains says whether the port is one of them.
func (r PortRange) Contains(port uint16) bool { return port != 0 && r.First <= port && port <= r.Last }

// String is what ParsePortRange reads.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText is String.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParsePortRange, for flags and configuration files.
func (r *PortRange) UnmarshalText(text []byte) (err error) {
	*r, err = ParsePortRange(string(text))
	return err
}

// Rule takes processes, or leaves them out. All criteria that are given must hold; rules are tried in
// their order and the first that matches decides.
type Rule struct {
	// Exclude leaves the processes out that match; without it they are traced.
	Exclude bool `yaml:"exclude,omitempty"`
	// All matches every process.
	All bool `yaml:"all,omitempty"`
	// PID is a process that runs now, and with it its descendants.
	PID uint32 `yaml:"pid,omitempty"`
	// Exe is a pattern for the path of the executable, as the process sees it: "**/bin/node"; without a
	// slash, for its name: "python3*".
	Exe Glob `yaml:"exe,omitempty"`
	// Port is a TCP port, or a range "8000-8999", one of which the process listens on.
	Port PortRange `yaml:"port,omitempty"`
	// Cgroup is a pattern for the path of the process's cgroup or of one that it lies in:
	// "/system.slice/shop.service", "kubepods*".
	Cgroup Glob `yaml:"cgroup,omitempty"`

	// name is how the user knows the rule: "--pid 12", "rules[2]".
	name string
}

// Validate says what is wrong with a rule.
func (r Rule) Validate() error {
	given := r.PID != 0 || r.Exe.re != nil || r.Port != PortRange{} || r.Cgroup.re != nil
	switch {
	case r.All && given:
		return errors.New(`"all" together with another criterion: remove one`)
	case !r.All && !given:
		return errors.New("matches nothing: give one of pid, exe, port, cgroup, or all: true")
	}
	return nil
}

// matches says whether all criteria hold.
func (r Rule) matches(t *Target, reused bool) bool {
	switch {
	case r.PID != 0 && (t.PID != r.PID || reused) && !slices.Contains(t.Under, r.PID):
		return false
	case r.Exe.re != nil && !r.Exe.Match(t.Exe):
		return false
	case r.Port != PortRange{} && !slices.ContainsFunc(t.Ports, r.Port.Contains):
		return false
	case r.Cgroup.re != nil && !r.Cgroup.MatchAncestor(t.Cgroup):
		return false
	}
	return true
}

// Flags are the selection flags of a command line. Each value is a rule of its own.
type Flags struct {
	PIDs    []uint32
	Exes    []Glob
	Ports   []PortRange
	Cgroups []Glob
	All     bool
}

// Rules are the flags as rules.
func (f Flags) Rules() []Rule {
	var rules []Rule
	add := func(r Rule, format string, args ...any) {
		r.name = fmt.Sprintf(format, args...)
		rules = append(rules, r)
	}
	for _, pid := range f.PIDs {
		add(Rule{PID: pid}, "--pid %d", pid)
	}
	for _, g := range f.Exes {
		add(Rule{Exe: g}, "--exe %s", g)
	}
	for _, p := range f.Ports {
		add(Rule{Port: p}, "--port %s", p)
	}
	for _, g := range f.Cgroups {
		add(Rule{Cgroup: g}, "--cgroup %s", g)
	}
	if f.All {
		add(Rule{All: true}, "--all")
	}
	return rules
}

// Selector says which processes are wanted. It does not change and may be used from any goroutine.
type Selector struct {
	rules []Rule
	self  uint32
}

// NewSelector checks rules. Rules that do not come from flags are named rules[0], rules[1], … in the order
// given.
func NewSelector(rules []Rule) (*Selector, error) {
	s := &Selector{rules: slices.Clone(rules), self: uint32(os.Getpid())}
	var errs []error
	n := 0
	for i := range s.rules {
		r := &s.rules[i]
		if r.name == "" {
			r.name = fmt.Sprintf("rules[%d]", n)
			n++
		}
		if err := r.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
		}
		if r.PID == s.self {
			errs = append(errs, fmt.Errorf("%s: this is the agent itself, which is never traced", r.name))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// Empty says that no rule takes anything.
func (s *Selector) Empty() bool {
	return s == nil || !slices.ContainsFunc(s.rules, func(r Rule) bool { return !r.Exclude })
}

// Match says whether the process is wanted, and by which rule that is decided. The agent never is.
func (s *Selector) Match(t *Target) (rule string, ok bool) {
	return s.match(t, false)
}

// match is Match for a process of which it is known whether its PID belonged to another one when the rules
// were given. Then it is not the one that they mean.
func (s *Selector) match(t *Target, reused bool) (rule string, ok bool) {
	if s == nil || t.PID == s.self {
		return "", false
	}
	for _, r := range s.rules {
		if r.matches(t, reused) {
			return r.name, !r.Exclude
		}
	}
	return "", false
}

// Criteria of a rule.
const (
	ofPID = 1 << iota
	ofExe
	ofPort
	ofCgroup
)

// criteria are those that the rule has.
func (r Rule) criteria() (c int) {
	for _, given := range []struct {
		yes bool
		c   int
	}{{r.PID != 0, ofPID}, {r.Exe.re != nil, ofExe}, {r.Port != PortRange{}, ofPort}, {r.Cgroup.re != nil, ofCgroup}} {
		if given.yes {
			c |= given.c
		}
	}
	return c
}

// by says that every process is wanted that is like t in one criterion, whatever it is otherwise.
func (s *Selector) by(criterion int, t *Target) bool {
	if s == nil || t.PID == s.self {
		return false
	}
	for _, r := range s.rules {
		switch other := r.criteria()&^criterion != 0; {
		case other && r.Exclude:
			return false // it may be about one of them
		case other:
			// It takes processes that are wanted, whatever comes after it.
		case r.matches(t, false):
			return !r.Exclude
		}
	}
	return false
}

// ByImage says that the process is wanted for its executable alone: so is whoever else runs it.
func (s *Selector) ByImage(t *Target) bool { return s.by(ofExe, t) }

// ByCgroup says that whatever runs in a control group is wanted for that alone.
func (s *Selector) ByCgroup(path string) bool { return s.by(ofCgroup, &Target{Cgroup: path}) }

// ByPort says that whoever listens on a port is wanted for that alone.
func (s *Selector) ByPort(port uint16) bool { return s.by(ofPort, &Target{Ports: []uint16{port}}) }

// maxImages bounds what a pattern such as "/usr/bin/*" may name.
const maxImages = 1024

// Images are the files that are wanted as executables, as far as they are found: by a full path, or by a name in one of
// the folders in which the agent's own environment looks for programs.
func (s *Selector) Images() []string {
	if s == nil {
		return nil
	}
	var all []string
	for _, r := range s.rules {
		pattern := r.Exe.String()
		if r.criteria() != ofExe || r.Exclude || strings.Contains(pattern, "**") {
			continue
		}
		folders := []string{""}
		switch {
		case !strings.Contains(pattern, "/"):
			folders = filepath.SplitList(os.Getenv("PATH"))
		case pattern[0] != '/':
			continue
		}
		for _, folder := range folders {
			paths, _ := filepath.Glob(filepath.Join(folder, pattern)) // a pattern that it does not know names nothing
			for _, path := range paths {
				path, err := filepath.EvalSymlinks(path)
				if err == nil && len(all) < maxImages && s.ByImage(&Target{Exe: path}) && !slices.Contains(all, path) {
					all = append(all, path)
				}
			}
		}
	}
	return all
}

// pids are those that rules ask for by number.
func (s *Selector) pids() []uint32 {
	var pids []uint32
	if s != nil {
		for _, r := range s.rules {
			if r.PID != 0 && !slices.Contains(pids, r.PID) {
				pids = append(pids, r.PID)
			}
		}
	}
	return pids
}

// UsesCgroups says that a process may come to be wanted by being moved to another control group.
func (s *Selector) UsesCgroups() bool {
	return s != nil && slices.ContainsFunc(s.rules, func(r Rule) bool { return r.Cgroup.re != nil })
}

// UsesPorts says that a process may come to be wanted by starting to listen.
func (s *Selector) UsesPorts() bool {
	return s != nil && slices.ContainsFunc(s.rules, func(r Rule) bool { return r.Port != PortRange{} })
}

// wantsPort says whether a rule asks for a port.
func (s *Selector) wantsPort(port uint16) bool {
	return slices.ContainsFunc(s.rules, func(r Rule) bool { return r.Port.Contains(port) })
}
