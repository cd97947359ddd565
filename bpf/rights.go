// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// HasCapability says whether this process has a capability (capabilities(7)) now.
func HasCapability(c int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[c/32].Effective&(1<<(c%32)) != 0
}

// refused is an error for want of rights. The library's guess at the limit of locked memory is left out: it has not
// been a cause since 5.11, and leads people astray.
type refused struct {
	error
	hint string
}

func refuse(err error) *refused {
	admin := HasCapability(unix.CAP_SYS_ADMIN)
	switch {
	case !admin && !(HasCapability(unix.CAP_BPF) && HasCapability(unix.CAP_PERFMON)):
		return &refused{err, "run as root, or with CAP_BPF and CAP_PERFMON; `breadcrumb check` says what is missing"}
	case !admin && perfParanoid() > 2 && strings.Contains(err.Error(), "perf event"):
		return &refused{err, "kernel.perf_event_paranoid is above 2: kernels with that patch, as Debian's and Ubuntu's, then refuse perf events, which kprobes are, to who has no CAP_SYS_ADMIN; sysctl kernel.perf_event_paranoid=2 allows them"}
	case lockedMemoryCounts() && lockedMemory() < enoughLocked:
		return &refused{err, fmt.Sprintf("before Linux 5.11 maps count as locked memory, of which %d KiB are allowed: raise the limit (ulimit -l, LimitMEMLOCK=) to %d or more, or add CAP_SYS_RESOURCE",
			lockedMemory()>>10, enoughLocked>>10)}
	}
	return &refused{err, "the rights are there: it is the kernel that refuses, by lockdown, by a security module, by a seccomp filter or as it was built"}
}

func (e *refused) Error() string {
	text, _, _ := strings.Cut(e.error.Error(), " (MEMLOCK")
	return text + " (" + e.hint + ")"
}

func (e *refused) Unwrap() error { return e.error }

// enoughLocked is what all maps take by default, preallocated, with room to spare; TestIdleMapsAreSmall holds them to
// less.
const enoughLocked = 64 << 20

// lockedMemoryCounts says whether maps are charged to the limit of locked memory.
func lockedMemoryCounts() bool {
	v, err := features.LinuxVersionCode()
	return err == nil && v < 5<<16|11<<8
}

// lockedMemory is the limit of it, in bytes.
func lockedMemory() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil {
		return 0
	}
	return limit.Cur
}

// perfParanoid is the sysctl kernel.perf_event_paranoid; 0 if it cannot be read.
func perfParanoid() int {
	b, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// tracefsPath is where tracefs belongs, since 4.1.
const tracefsPath = "/sys/kernel/tracing"

// Tracefs is where tracefs is mounted; empty: nowhere.
func Tracefs() string {
	for _, path := range []string{tracefsPath, "/sys/kernel/debug/tracing"} {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil && st.Type == unix.TRACEFS_MAGIC {
			return path
		}
	}
	return ""
}

// mountTracefs mounts tracefs if it is nowhere and that is allowed. It says whether it did.
func mountTracefs() bool {
	return Tracefs() == "" && unix.Mount("tracefs", tracefsPath, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil
}

// unmountTracefs undoes it, unless others use it by now.
func unmountTracefs() error {
	if err := unix.Unmount(tracefsPath, 0); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w", tracefsPath, err)
	}
	return nil
}

// errNoKprobes is why kprobes cannot work, whatever the rights.
var errNoKprobes = errors.New("the kernel was built without kprobe events (CONFIG_KPROBE_EVENTS)")

// haveKprobes says whether the kernel has kprobes as perf events (4.17).
func haveKprobes() error {
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe/type"); errors.Is(err, os.ErrNotExist) {
		return errNoKprobes
	}
	return nil
}

// ErrPreemptible is why fentry is not taken by itself on some kernels. Those who ask for it get it all the same.
var ErrPreemptible = errors.New("this kernel preempts itself: a program at a function's entry or exit is not run for a task that comes there while another one is preempted within it, and some bytes would pass unseen")

// Preemptible says whether tasks are preempted within the kernel, as far as that can be told: by the preemption model that
// was chosen at boot, or that the kernel was built with. From 6.13 on "lazy" takes the place of "voluntary", and preempts.
func Preemptible() bool {
	if b, err := os.ReadFile("/sys/kernel/debug/sched/preempt"); err == nil {
		return strings.Contains(string(b), "(full)") || strings.Contains(string(b), "(lazy)")
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	cmdline, _ := os.ReadFile("/proc/cmdline")
	return preemptible(unix.ByteSliceToString(u.Version[:]), unix.ByteSliceToString(u.Release[:]), string(cmdline))
}

// preemptible tells from uname's version ("#1 SMP PREEMPT_DYNAMIC Debian ..."), the release and the kernel's command line.
func preemptible(version, release, cmdline string) bool {
	for option := range strings.FieldsSeq(cmdline) {
		if mode, ok := strings.CutPrefix(option, "preempt="); ok {
			return mode == "full" || mode == "lazy"
		}
	}
	var major, minor int
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
	for word := range strings.FieldsSeq(version) {
		switch word {
		case "PREEMPT", "PREEMPT_RT", "PREEMPT_LAZY", "PREEMPT_{RT,LAZY}":
			return true
		case "PREEMPT_DYNAMIC", "PREEMPT_{RT,DYNAMIC}":
			return major > 6 || major == 6 && minor >= 13
		}
	}
	return false
}
