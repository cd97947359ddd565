// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/internal/version"
	"breadcrumb/probes/runtime/golang"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

type checkCmd struct{}

// finding is one line of the report.
type finding struct {
	item, state, follows string
}

// Run tries everything for real, by loading and attaching, and undoes it at once. No process is watched.
func (checkCmd) Run() error { return check(os.Stdout) }

func check(w io.Writer) error {
	findings := []finding{kernelVersion(), kernelTypes(), lockdown()}
	findings = append(findings, capabilities()...)
	findings = append(findings, kernelFeatures()...)

	possible, mounted := false, false
	var chosen string
	for _, way := range []struct{ attach, item, follows string }{
		{"fentry", "fentry", "the cheapest way in; sees what io_uring and sendfile move as well"},
		{"kprobe", "kprobe", "as fentry, some 0.2 us a call dearer; a return may be missed, which is counted"},
		{"socket", "socket tracepoints", "as cheap as fentry; sees io_uring as bytes that are counted and not read"},
		{"syscall", "syscall tracepoints", "every system call of the machine pays some 30 ns; io_uring is not seen"},
	} {
		if way.attach == "fentry" && bpf.Preemptible() {
			findings = append(findings, finding{way.item, "no", bpf.ErrPreemptible.Error() + "; --attach fentry takes it all the same"})
			continue
		}
		cfg := bpf.Default()
		cfg.Attach = way.attach
		cfg.RingBytes = 64 << 10
		core, err := bpf.Load(cfg)
		if err != nil {
			findings = append(findings, finding{way.item, "no", strings.TrimPrefix(oneLine(err), way.item+": ")})
			continue
		}
		if !possible {
			chosen = way.item
			findings = append(findings, finding{way.item, "yes", way.follows})
			findings = append(findings, goProbe(core))
		} else {
			findings = append(findings, finding{way.item, "yes", "not needed: " + way.follows})
		}
		possible, mounted = true, mounted || core.MountedTracefs()
		if err := core.Close(); err != nil {
			return fmt.Errorf("undo the attempt: %w", err)
		}
	}
	findings = append(findings, tracefs(mounted), cgroup2(), procAccess())

	fmt.Fprintln(w, "breadcrumb", version.String())
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.item, f.state, f.follows)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if !possible {
		fmt.Fprintln(w, "\nTracing is impossible here: no way in works, for the reasons above.")
		return errSilent
	}
	fmt.Fprintf(w, "\nTracing works, by %s.\n", chosen)
	return nil
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(discovery.Escape(strings.ReplaceAll(err.Error(), "\n", " "))), " ")
}

func kernelVersion() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{"kernel", "?", oneLine(err)}
	}
	return finding{"kernel", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])}
}

func kernelTypes() finding {
	const path = "/sys/kernel/btf/vmlinux"
	if _, err := os.Stat(path); err != nil {
		return finding{"kernel BTF", "no", path + " is missing: the kernel needs CONFIG_DEBUG_INFO_BTF"}
	}
	return finding{"kernel BTF", "yes", "the programs adapt to this kernel"}
}

func lockdown() finding {
	b, err := readLockdown()
	if errors.Is(err, fs.ErrNotExist) {
		return finding{"lockdown", "none", "the kernel has none, or securityfs is not mounted and may not be"}
	}
	if err != nil {
		return finding{"lockdown", "unknown", oneLine(err)}
	}
	text := string(b)
	if i, j := strings.IndexByte(text, '['), strings.IndexByte(text, ']'); i >= 0 && j > i {
		text = text[i+1 : j]
	}
	if strings.TrimSpace(text) == "confidentiality" {
		return finding{"lockdown", "confidentiality", "programs may not read memory: nothing can be traced"}
	}
	return finding{"lockdown", strings.TrimSpace(text), "nothing that breadcrumb does is forbidden by it"}
}

// readLockdown reads the state of lockdown, where securityfs is not mounted by mounting it for the moment.
func readLockdown() ([]byte, error) {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	dir, mkdirErr := os.MkdirTemp("", "breadcrumb-securityfs-")
	if mkdirErr != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if unix.Mount("securityfs", dir, "securityfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") != nil {
		return nil, err
	}
	b, err = os.ReadFile(dir + "/lockdown")
	return b, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
}

// needed are the capabilities that are, and what each of them unlocks.
var needed = []struct {
	name    string
	bit     int
	unlocks string
}{
	{"CAP_BPF", unix.CAP_BPF, "loading programs"},
	{"CAP_PERFMON", unix.CAP_PERFMON, "attaching them, and their reading memory"},
	{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "looking at processes of other users"},
	{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH, "reading executables and environments of other users"},
}

func capabilities() []finding {
	has := bpf.HasCapability
	admin := has(unix.CAP_SYS_ADMIN) // holds the first two
	var missing []string
	for _, n := range needed {
		if !has(n.bit) && !(admin && (n.bit == unix.CAP_BPF || n.bit == unix.CAP_PERFMON)) {
			missing = append(missing, n.name+" (would unlock "+n.unlocks+")")
		}
	}
	findings := []finding{{"capabilities", "yes", "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are there, which is enough"}}
	if len(missing) > 0 {
		findings[0] = finding{"capabilities", "missing", strings.Join(missing, ", ")}
	}
	if !admin {
		findings = append(findings, finding{"CAP_SYS_ADMIN", "no", "not needed; would unlock kprobes and, before Linux 6.6, uprobes where kernel.perf_event_paranoid is above 2; mounting tracefs, and with it room for more kretprobes"})
	}
	return findings
}

// kernelFeatures are those that programs use, or will, each tried by making or asking for it.
func kernelFeatures() []finding {
	state := func(item string, err error, follows string) finding {
		switch {
		case err == nil:
			return finding{item, "yes", follows}
		case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
			return finding{item, "no", "this kernel is too old for it, or was built without; " + follows}
		case errors.Is(err, fs.ErrPermission):
			return finding{item, "unknown", "may not be tried with these capabilities; " + follows}
		}
		return finding{item, "unknown", oneLine(err)}
	}
	_, tcx := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	if tcx != nil && !bpf.HasCapability(unix.CAP_NET_ADMIN) {
		tcx = fs.ErrPermission // the kernel does not tell the two apart
	}
	return []finding{
		state("ring buffer", features.HaveMapType(ebpf.RingBuf), "nothing works without"),
		state("uprobe_multi", features.HaveBPFLinkUprobeMulti(), "uprobes without CAP_SYS_ADMIN"),
		state("attach cookies", features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie), "not needed so far"),
		state("sockhash", features.HaveMapType(ebpf.SockHash), "not needed so far; takes CAP_NET_ADMIN"),
		state("tcx", tcx, "not needed so far; takes CAP_NET_ADMIN"),
	}
}

// loopback is the interface's number in every network namespace.
const loopback = 1

func tracefs(mounted bool) finding {
	const follows = "gives kretprobes room for many calls at once; nothing else needs it"
	path := bpf.Tracefs()
	switch {
	case path != "":
		return finding{"tracefs", path, follows}
	case mounted:
		return finding{"tracefs", "mounted", "it is nowhere, and breadcrumb mounts it while kprobes are its way in: " + follows}
	case !bpf.HasCapability(unix.CAP_SYS_ADMIN):
		return finding{"tracefs", "missing", "mount -t tracefs none /sys/kernel/tracing, or CAP_SYS_ADMIN for breadcrumb to do so; " + follows}
	}
	return finding{"tracefs", "missing", "not mounted; " + follows}
}

// goProbe tries the uprobe on this very program, which never makes the call that it is placed on.
func goProbe(core *bpf.Core) finding {
	const item = "uprobe for Go's HTTP client"
	r, err := golang.New(core, zap.NewNop())
	if err != nil {
		return finding{item, "no", oneLine(err) + "; calls of Go's pooled client have no parent"}
	}
	defer r.Close()
	t := &discovery.Target{Language: discovery.Go, Exe: "/proc/self/exe"}
	t.PID = uint32(os.Getpid())
	probe, note, err := r.Attach(context.Background(), t)
	switch {
	case err != nil:
		return finding{item, "no", oneLine(err) + "; calls of Go's pooled client have no parent"}
	case probe == nil:
		return finding{item, "unknown", note}
	}
	_ = probe.Close()
	return finding{item, "yes", "calls of Go's pooled client have a parent"}
}

func procAccess() finding {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return finding{"other processes", "no", oneLine(err)}
	}
	seen, denied := 0, 0
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		switch _, err := os.Readlink("/proc/" + e.Name() + "/exe"); {
		case err == nil:
			seen++
		case errors.Is(err, fs.ErrPermission):
			denied++
		}
	}
	switch {
	case denied == 0:
		return finding{"other processes", "yes", fmt.Sprintf("the executables of all %d can be looked at", seen)}
	case denied > seen:
		return finding{"other processes", "no", fmt.Sprintf("%d of %d may not be looked at: run as root or with CAP_SYS_PTRACE", denied, denied+seen)}
	}
	return finding{"other processes", "partly", fmt.Sprintf("%d of %d may not be looked at", denied, denied+seen)}
}

func cgroup2() finding {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return finding{"cgroup2", path, "--cgroup matches paths below it"}
		}
	}
	return finding{"cgroup2", "no", "--cgroup matches paths of cgroup v1 hierarchies"}
}
