// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"breadcrumb/test/vm/job"
)

// The states of a test and of a check.
const (
	passed  = "pass"
	failed  = "FAIL"
	skipped = "skip" // the kernel cannot do it
)

// test is a test's result, as its binary printed it.
type test struct {
	Name   string
	State  string
	Reason string `json:",omitempty"` // what it printed, if it did not pass
}

// result is what became of a check.
type result struct {
	Column     string
	Attachment string
	State      string
	Seconds    float64
	Why        string `json:",omitempty"`
	Tests      []test
}

// name says which check it is, of which attachment.
func (r result) name() string { return task{check{Column: r.Column}, r.Attachment}.name() }

// results are those of a kernel.
type results struct {
	Kernel  string // its name in the table
	Release string
	Arch    string
	Checks  []result
}

var (
	ranLine  = regexp.MustCompile(`^=== (?:RUN|CONT|NAME)\s+(\S+)$`)
	doneLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \([0-9.]+s\)$`)
)

// parseTests reads what a test binary prints with -test.v.
func parseTests(log string) []test {
	var (
		tests   []test
		current string
		said    = map[string][]string{}
	)
	for line := range strings.Lines(log) {
		line = strings.TrimRight(line, "\n")
		if m := ranLine.FindStringSubmatch(line); m != nil {
			current = m[1]
			continue
		}
		m := doneLine.FindStringSubmatch(line)
		if m == nil {
			if current != "" {
				said[current] = append(said[current], strings.TrimSpace(line))
			}
			continue
		}
		t := test{Name: m[2], State: map[string]string{"PASS": passed, "FAIL": failed, "SKIP": skipped}[m[1]]}
		if t.State != passed {
			t.Reason = strings.Join(said[t.Name], "\n")
		}
		tests = append(tests, t)
	}
	return tests
}

// judge says what a check's outcome means on the kernel.
func (k kernel) judge(t task, outcome *job.Outcome, log string) result {
	r := result{Column: t.check.Column, Attachment: t.attachment, State: failed, Tests: parseTests(log)}
	if outcome == nil {
		r.Why = "the machine ended before it did"
		return r
	}
	r.Seconds = outcome.Seconds
	ran := 0
	var why []string
	for _, one := range r.Tests {
		switch {
		case one.State == passed:
			ran++
		case one.State == failed:
			why = append(why, one.Name+" failed")
		case !k.excuses(one.Reason):
			why = append(why, fmt.Sprintf("%s was skipped, and nothing says that this kernel cannot do it: %s", one.Name, one.Reason))
		}
	}
	switch {
	case len(why) > 0:
		r.Why = strings.Join(why, "; ")
	case outcome.Exit != 0:
		r.Why = "it ended with " + outcome.Error
	case len(r.Tests) == 0:
		r.Why = "no test ran"
	case ran == 0:
		r.State = skipped
	default:
		r.State = passed
	}
	return r
}

// collect reads what the guest left in the job's folder.
func (k kernel) collect(tasks []task, img image, dir string) results {
	all := results{Kernel: k.Name, Release: img.Release, Arch: k.Arch}
	for i, t := range tasks {
		log, _ := os.ReadFile(job.LogFile(dir, i))
		var outcome *job.Outcome
		var o job.Outcome
		if job.Read(job.OutcomeFile(dir, i), &o) == nil {
			outcome = &o
		}
		all.Checks = append(all.Checks, k.judge(t, outcome, string(log)))
	}
	return all
}

// failures are the checks that failed.
func (r results) failures() []result {
	var list []result
	for _, c := range r.Checks {
		if c.State == failed {
			list = append(list, c)
		}
	}
	return list
}

// costTable is what TestCost has printed.
func costTable(log string) string {
	_, table, _ := strings.Cut(log, "a getppid takes ")
	table, _, _ = strings.Cut(table, "\n--- ")
	var b strings.Builder
	for line := range strings.Lines("a getppid takes " + table) {
		fmt.Fprintln(&b, strings.TrimSpace(line))
	}
	return b.String()
}
