// SPDX-License-Identifier: Apache-2.0

// Package discovery knows which processes run here, what each of them is, and whether the user wants it
// traced. It reads /proc (through prometheus/procfs) and is driven by the kernel's exec, fork and exit
// events; it attaches nothing.
package discovery

import (
	"errors"
	"fmt"
	"os"

	"breadcrumb/internal/span"
)

var (
	// ErrGone says that the process ended before it could be looked at. It is normal.
	ErrGone = errors.New("process is gone")
	// ErrKernelThread says that the PID is a thread of the kernel, which has nothing to trace.
	ErrKernelThread = errors.New("kernel thread")
)

// AccessError says what could not be read of a process for want of rights, and what would help.
type AccessError struct {
	Path string
	Err  error
}

func (e *AccessError) Error() string {
	if os.Geteuid() == 0 {
		return fmt.Sprintf("cannot read %s: refused even to root, as by a security module or without CAP_SYS_PTRACE", e.Path)
	}
	return fmt.Sprintf("cannot read %s: run as root or with CAP_SYS_PTRACE", e.Path)
}

func (e *AccessError) Unwrap() error { return e.Err }

// Language is what a process is written in, or runs in. The values are those of
// telemetry.sdk.language and process.runtime.name where these have one.
type Language string

const (
	Unknown Language = ""
	Go      Language = "go"
	Python  Language = "python"
	Node    Language = "nodejs"
	Java    Language = "java"
	Ruby    Language = "ruby"
	PHP     Language = "php"
	DotNet  Language = "dotnet"
	Rust    Language = "rust"
	CPP     Language = "cpp" // C or C++, or anything else that is native
)

// Target is a process that is, or could be, traced. Once it has been handed out it is not changed any
// more: what is learnt later comes as a new Target with the same Account.
type Target struct {
	span.Target
	// Start is the process's start time in clock ticks since boot; with the PID it names the process for
	// good. It is 0 for a process that ended before it could be read.
	Start uint64
	// Parent is the PID of the process's parent when it was looked at.
	Parent uint32
	// Exe is the path of the executable as the process sees it, Args its command line. Exe is empty where
	// it may not be read. Args may hold secrets: they are not exported.
	Exe  string
	Args []string
	// Language and Version ("1.26.8", "3.11.2", "20.20.2"; empty when not known).
	Language Language
	Version  string
	// Ports are the TCP ports on which it listens, ascending.
	Ports []uint16
	// Cgroup is its path in the hierarchy that names its container, else in the cgroup2 hierarchy, else in
	// the first v1 one that says more than "/".
	Cgroup string
	// ContainerID is the 64 hex digits found in Cgroup, or empty.
	ContainerID string
	// Service is service.name.
	Service string
	// Rule says which selection rule took it ("--pid 12", "rules[2]"), or is empty.
	Rule string
	// Under are the PIDs that rules ask for by number and of which this process is a descendant.
	Under []uint32
	// Gaps says what of this process cannot be seen and why, a sentence each ("uses io_uring for sockets:
	// not seen with the tracepoint attachment").
	Gaps []string

	// runtime is process.runtime.name where it is not the language's usual one.
	runtime string
	// fixed are those of the gaps that stay while the process runs its image.
	fixed []string
	// extra are the attributes from the environments of the target and of the agent.
	extra []keyValue
}
