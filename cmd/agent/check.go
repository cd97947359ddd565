// SPDX-License-Identifier: Apache-2.0

package main

import (
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
	findings := []finding{kernelVersion(), btf(), lockdown()}
	findings = append(findings, capabilities()...)

	possible := false
	var chosen string
	for _, way := range []struct{ attach, item, follows string }{
		{"fentry", "fentry", "the cheapest way in; sees what io_uring and sendfile move as well"},
		{"kprobe", "kprobe", "as fentry, some 0.2 us a call dearer; a return may be missed, which is counted"},
		{"socket", "socket tracepoints", "as cheap as fentry; sees io_uring as bytes that are counted and not read"},
		{"syscall", "syscall tracepoints", "every system call of the machine pays some 30 ns; io_uring is not seen"},
	} {
		cfg := bpf.Default()
		cfg.Attach = way.attach
		cfg.RingBytes = 64 << 10
		core, err := bpf.Load(cfg)
		if err != nil {
			findings = append(findings, finding{way.item, "no", oneLine(err)})
			continue
		}
		if !possible {
			chosen = way.item
			findings = append(findings, finding{way.item, "yes", way.follows})
			findings = append(findings, goProbe(core))
		} else {
			findings = append(findings, finding{way.item, "yes", "not needed: " + way.follows})
		}
		possible = true
		if err := core.Close(); err != nil {
			return fmt.Errorf("undo the attempt: %w", err)
		}
	}
	findings = append(findings, procAccess(), cgroup2())

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

func btf() finding {
	const path = "/sys/kernel/btf/vmlinux"
	if _, err := os.Stat(path); err != nil {
		return finding{"kernel BTF", "no", path + " is missing: the kernel needs CONFIG_DEBUG_INFO_BTF"}
	}
	return finding{"kernel BTF", "yes", "the programs adapt to this kernel"}
}

func lockdown() finding {
	const path = "/sys/kernel/security/lockdown"
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return finding{"lockdown", "unknown", "securityfs is not mounted, or the kernel has no lockdown; nothing depends on it"}
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

// needed are the capabilities that root has, and what each of them is for.
var needed = []struct {
	name  string
	bit   uint
	loses string
}{
	{"CAP_BPF", 39, "no program can be loaded"},
	{"CAP_PERFMON", 38, "no program can be attached or read memory"},
	{"CAP_SYS_PTRACE", 19, "processes of other users cannot be looked at"},
	{"CAP_DAC_READ_SEARCH", 2, "executables of other users may not be readable"},
}

func capabilities() []finding {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return []finding{{"capabilities", "?", oneLine(err)}}
	}
	has := func(bit uint) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	const sysAdmin = 21
	var missing []string
	for _, n := range needed {
		if !has(n.bit) && !has(sysAdmin) {
			missing = append(missing, n.name+" ("+n.loses+")")
		}
	}
	if len(missing) > 0 {
		return []finding{{"capabilities", "missing", strings.Join(missing, ", ")}}
	}
	return []finding{{"capabilities", "yes", "all that are needed"}}
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
	probe, note, err := r.Attach(t)
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
