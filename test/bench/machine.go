// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is where figures were measured, and with what: without it they mean nothing.
type machine struct {
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	Virtual bool   `json:"virtual"`
	Memory  int64  `json:"memory_bytes"`
	Kernel  string `json:"kernel"`
	Agent   string `json:"agent"`
	Tools   string `json:"tools"` // the versions of what was measured and measured with
}

func describeMachine(ctx context.Context, agent string) machine {
	m := machine{CPUs: len(allCPUs())}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			m.CPU = strings.TrimSpace(value)
		case "flags":
			m.Virtual = slices.Contains(strings.Fields(value), "hypervisor")
		}
	}
	if m.CPU == "" {
		m.CPU = runtime.GOARCH
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		m.Memory = int64(si.Totalram) * int64(si.Unit)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	m.Agent = words(firstLine(ctx, agent, "version"))
	tools := []string{firstLine(ctx, "go", "env", "GOVERSION")}
	plain := strings.NewReplacer("nginx version: ", "", "postgres (PostgreSQL)", "PostgreSQL")
	for _, command := range [][]string{{python, "--version"}, {"nginx", "-v"}, {"wrk", "-v"}, {program("postgres"), "--version"}} {
		if line := firstLine(ctx, command[0], command[1:]...); line != "" {
			tools = append(tools, words(plain.Replace(line)))
		}
	}
	m.Tools = strings.Join(tools, ", ")
	return m
}

// words is a name and a version, without what a program says of itself after them.
func words(line string) string {
	f := strings.Fields(line)
	return strings.Join(f[:min(2, len(f))], " ")
}

// revision is what was built, as far as version control knows.
func revision(ctx context.Context, root string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty").Output()
	if err != nil {
		return ""
	}
	return " (" + strings.TrimSpace(string(out)) + ")"
}

func firstLine(ctx context.Context, name string, args ...string) string {
	out, _ := exec.CommandContext(ctx, name, args...).CombinedOutput()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line)
}

func (m machine) String() string {
	virtual := ""
	if m.Virtual {
		virtual = " of a virtual machine"
	}
	return fmt.Sprintf("%d CPUs%s (%s), %.0f GiB, %s. %s; %s.", m.CPUs, virtual, m.CPU, float64(m.Memory)/(1<<30),
		m.Kernel, m.Agent, m.Tools)
}
