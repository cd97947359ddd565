// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// kernel is one that breadcrumb claims to work on, and what it can and cannot do.
type kernel struct {
	// Name is what -kernel takes.
	Name string
	Arch string // as Go calls it
	// Suites of Debian that are searched for a package whose name Image matches; the newest is taken.
	Suites []string
	Image  *regexp.Regexp
	// Attachments that must work, among those that the built breadcrumb knows.
	Attachments []string
	// Loses are those of them that work and lose some events, for a program is not run for a task that comes while another is
	// preempted within it. Nothing that counts can be held to pass by them: they are not tried.
	Loses []string
	// Lacks are the features for want of which a test may be skipped, as the test's message calls them.
	Lacks []string
	// Small leaves out what needs programs of the host, which a kernel of another architecture cannot run.
	Small bool
}

// Attachments are called as in the agent's configuration.
const (
	fentry   = "fentry"
	kprobe   = "kprobe"
	socket   = "socket"  // tracepoints, from 6.3
	syscalls = "syscall" // tracepoints
)

// attachments are all, in the order of the table.
var attachments = []string{fentry, kprobe, socket, syscalls}

var kernels = []kernel{
	{
		Name: "5.10", Arch: "amd64", Suites: []string{"bullseye"},
		Image:       regexp.MustCompile(`^linux-image-5\.10\.[0-9.-]+-amd64$`),
		Attachments: []string{fentry, kprobe, syscalls},
		Lacks: []string{
			"socket",                           // tracepoints: 6.3, commit 6e6eda44b939
			"BPF programs that a test can run", // BPF_PROG_TYPE_SYSCALL: 5.14, commit 79a7f8bdb159
		},
	},
	{
		Name: "6.1", Arch: "amd64", Suites: []string{"bookworm"},
		Image:       regexp.MustCompile(`^linux-image-6\.1\.[0-9.-]+-amd64$`),
		Attachments: []string{fentry, kprobe, syscalls},
		Lacks:       []string{"socket"},
	},
	{
		Name: "6.12", Arch: "amd64", Suites: []string{"trixie"},
		Image:       regexp.MustCompile(`^linux-image-6\.12\.[0-9]+\+deb13-amd64$`),
		Attachments: []string{fentry, kprobe, socket, syscalls},
	},
	{
		Name: "6.18", Arch: "amd64", Suites: []string{"trixie-backports"},
		Image:       regexp.MustCompile(`^linux-image-6\.18\.[0-9]+\+deb13-amd64$`),
		Attachments: []string{kprobe, socket, syscalls}, // it is preemptible: fentry would lose events
	},
	{
		Name: "newest", Arch: "amd64", Suites: []string{"trixie-backports", "sid"},
		Image:       regexp.MustCompile(`^linux-image-[0-9]+\.[0-9]+\.[0-9]+\+deb[0-9]+-amd64$`),
		Attachments: []string{kprobe, socket, syscalls}, // it is preemptible: fentry would lose events
		Loses:       []string{socket, syscalls},         // so do tracepoints there, from some version between 6.18 and 7.3 on
	},
	{
		Name: "arm64", Arch: "arm64", Suites: []string{"trixie"},
		Image:       regexp.MustCompile(`^linux-image-6\.12\.[0-9]+\+deb13-arm64$`),
		Attachments: []string{fentry, kprobe, socket, syscalls},
		Small:       true,
	},
}

// find returns the kernels of the names, in the order of the table; all for "all".
func find(names string) ([]kernel, error) {
	if names == "all" {
		return kernels, nil
	}
	wanted := strings.Split(names, ",")
	var found []kernel
	for _, k := range kernels {
		if i := slices.Index(wanted, k.Name); i >= 0 {
			found = append(found, k)
			wanted = slices.Delete(wanted, i, i+1)
		}
	}
	if len(wanted) > 0 {
		var known []string
		for _, k := range kernels {
			known = append(known, k.Name)
		}
		return nil, fmt.Errorf("kernel %q: must be all, or of %s", wanted[0], strings.Join(known, ", "))
	}
	return found, nil
}

// excuses is whether the kernel cannot do what a test was skipped for.
func (k kernel) excuses(reason string) bool {
	return slices.ContainsFunc(k.Lacks, func(feature string) bool {
		return strings.Contains(reason, ": "+feature+" came with Linux ")
	})
}
