// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Coverage says how much of a process can be traced.
type Coverage string

const (
	Covered Coverage = "yes"
	Partly  Coverage = "partly"
	Never   Coverage = "no"
)

// Row is a line of the list of processes.
type Row struct {
	*Target
	// Selected says that Rule takes the process; Rule may also be the one that leaves it out.
	Selected bool
	Coverage Coverage
	// Why says what keeps the process from being covered, or covered wholly, a sentence each.
	Why []string
}

// Processes are all processes here, but for the kernel's own threads, which are only counted.
type Processes struct {
	Rows          []Row
	KernelThreads int
}

// Processes looks at everything that runs here. The rules may be nil.
func (i *Inspector) Processes(rules *Selector) (Processes, error) {
	var all Processes
	procs, err := i.fs.AllProcs()
	if err != nil {
		return all, fmt.Errorf("list %s: %w", i.root, err)
	}
	nets := make(networks)
	for _, p := range procs {
		t, err := i.inspect(uint32(p.PID), nets)
		switch {
		case errors.Is(err, ErrKernelThread):
			all.KernelThreads++
			continue
		case err != nil:
			continue // gone, or not visible
		}
		row := Row{Target: t, Coverage: Covered, Why: t.Gaps}
		t.Rule, row.Selected = rules.Match(t)
		switch {
		case t.PID == uint32(os.Getpid()):
			row.Coverage, row.Why = Never, []string{"is breadcrumb itself"}
		case len(t.Gaps) > 0:
			row.Coverage = Partly
		}
		all.Rows = append(all.Rows, row)
	}
	slices.SortFunc(all.Rows, func(a, b Row) int { return cmp.Compare(a.PID, b.PID) })
	return all, nil
}

// Write prints the list as columns. Names come from strangers: what would move the cursor is escaped.
func (p Processes) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.StripEscape)
	fmt.Fprintln(tw, "PID\tNAME\tLANGUAGE\tPORTS\tSELECTED BY\tCOVERED\tWHY NOT")
	for _, r := range p.Rows {
		rule := r.Rule
		switch {
		case rule == "":
			rule = "-"
		case !r.Selected:
			rule = "not: " + rule
		}
		why := make([]string, len(r.Why))
		for n, s := range r.Why {
			why[n] = Escape(s)
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.PID, Escape(r.Service), Escape(r.runs()), r.ports(), Escape(rule), r.Coverage,
			cmp.Or(strings.Join(why, "; "), "-"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if p.KernelThreads > 0 {
		_, err := fmt.Fprintf(w, "not listed: %s of the kernel's own, which have nothing to trace\n", count(p.KernelThreads, "thread", "threads"))
		return err
	}
	return nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// runs is the language with its version.
func (t *Target) runs() string {
	return cmp.Or(strings.TrimSpace(string(t.Language)+" "+t.Version), "-")
}

// ports is the list of ports, which for some programs is long.
func (t *Target) ports() string {
	const shown = 6
	var s []string
	for n, port := range t.Ports {
		if n == shown {
			s = append(s, fmt.Sprintf("and %d more", len(t.Ports)-shown))
			break
		}
		s = append(s, strconv.Itoa(int(port)))
	}
	return cmp.Or(strings.Join(s, ","), "-")
}

// Candidate is something here that one would want to trace: a service, with all its processes.
type Candidate struct {
	*Target
	// Flag selects it: "--port 8080".
	Flag string
	// More is the number of further processes that the flag selects.
	More int
}

// daemons are programs of the system itself that listen, and that nobody means by "my services".
var daemons = set("systemd", "init", "systemd-resolved", "systemd-networkd", "systemd-journald", "systemd-timesyncd",
	"systemd-journal-remote", "sshd", "sshd-session", "dbus-daemon", "dbus-broker", "rpcbind", "rpc.statd", "rpc.mountd", "cupsd", "cups-browsed",
	"avahi-daemon", "chronyd", "ntpd", "dnsmasq", "master", "exim4", "sendmail", "containerd", "dockerd", "docker-proxy", "conmon", "crio", "podman",
	"kubelet", "kube-proxy", "kube-apiserver", "kube-scheduler", "kube-controller-manager", "etcd", "cloudflared", "tailscaled", "NetworkManager",
	"snapd", "rsyslogd", "xinetd", "inetd", "sssd", "winbindd", "smbd", "nmbd", "gdm3", "Xorg", "snmpd", "node_exporter", "nscd", "connmand")

// Candidates are the n best of what could be traced: what listens on TCP, a known runtime before a
// native program; where nothing listens, processes with a known runtime. The system's own daemons are left
// out.
func (p Processes) Candidates(n int) []Candidate {
	var all []Candidate
	for _, r := range p.Rows {
		if r.Coverage == Never || r.Cgroup == "/init.scope" || daemons[path.Base(cmp.Or(r.Exe, r.Service))] {
			continue
		}
		c := Candidate{Target: r.Target, Flag: fmt.Sprintf("--pid %d", r.PID)}
		switch {
		case len(r.Ports) > 0:
			c.Flag = fmt.Sprintf("--port %d", r.Ports[0])
		case r.Language == CPP || r.Language == Unknown || interpreters[interpreterName(r.Service)].plain == r.Service:
			continue // a tool, or a session
		}
		// Workers share their master's port.
		same := slices.IndexFunc(all, func(o Candidate) bool { return o.Flag == c.Flag })
		if same >= 0 {
			all[same].More++
			continue
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.PID, b.PID))
	})
	if len(all) > 0 && len(all[0].Ports) > 0 { // those without ports are mostly tools: only where there is nothing else
		all = slices.DeleteFunc(all, func(c Candidate) bool { return len(c.Ports) == 0 })
	}
	return all[:min(n, len(all))]
}

func (c Candidate) rank() (rank int) {
	if len(c.Ports) == 0 {
		rank += 2
	}
	if c.Language == CPP || c.Language == Unknown {
		rank++
	}
	return rank
}

// maxCandidates is how many are suggested.
const maxCandidates = 8

// Suggest is the text for a user who has not said what to trace.
func (p Processes) Suggest() string {
	var b strings.Builder
	b.WriteString("nothing is selected: say what to trace with --pid N, --exe GLOB, --port N, --cgroup PATH-GLOB or --all\n")
	candidates := p.Candidates(maxCandidates)
	if len(candidates) > 0 {
		b.WriteString("candidates here:\n")
		tw := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		for _, c := range candidates {
			what := fmt.Sprintf("pid %d", c.PID)
			if c.More > 0 {
				what += fmt.Sprintf(" and %d more", c.More)
			}
			if len(c.Ports) > 0 {
				what += ", listens on " + c.ports()
			}
			fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", c.Flag, Escape(c.Service), Escape(c.runs()), what)
		}
		tw.Flush()
	} else {
		b.WriteString("nothing here listens on a TCP port, as far as can be seen\n")
	}
	if denied := p.denied(); denied > 0 {
		mend := "run as root or with CAP_SYS_PTRACE"
		if os.Geteuid() == 0 {
			mend = "the kernel refuses it even to root"
		}
		fmt.Fprintf(&b, "%s could not be looked at: %s\n", count(denied, "process", "processes"), mend)
	}
	b.WriteString("`breadcrumb ps` lists all processes\n")
	return b.String()
}

// denied counts the processes of which the ports are not known for want of rights.
func (p Processes) denied() (n int) {
	for _, r := range p.Rows {
		if r.Exe == "" {
			n++
		}
	}
	return n
}
