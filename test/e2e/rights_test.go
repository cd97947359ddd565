// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"breadcrumb/internal/bpftest"
	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"

	"golang.org/x/sys/unix"
)

// enough are the capabilities with which everything works that docs/rights.md says.
var enough = []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}

// requireCapabilities skips the test before Linux 5.11, where maps count as locked memory, if no more may be locked.
func requireCapabilities(t *testing.T) {
	t.Helper()
	bpftest.Require(t, "5.8", "CAP_BPF")
	if !bpftest.Has("5.11") {
		unlimited := &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, unlimited); err != nil {
			t.Fatalf("raise the limit of locked memory: %v", err)
		}
	}
}

// TestFourCapabilitiesAreEnough traces a proxy and the server behind it as a user who is not root, by each attachment:
// the spans of the pooled Go client need the uprobe.
func TestFourCapabilitiesAreEnough(t *testing.T) {
	const requests = 200
	requireCapabilities(t)
	for _, attach := range Attachments {
		t.Run(attach.Name, func(t *testing.T) {
			attach.Require(t)
			if attach.Name == "kprobe" {
				allowPerfEvents(t)
			}
			s := servers.GoProxy(t, servers.Options{})
			agent := StartAgent(t, AgentOptions{Select: PIDs(s, s.Behind), Attach: attach, Capabilities: enough})
			truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 8, Trace: true}.Run()
			if err != nil {
				t.Fatal(err)
			}
			agent.WaitSpans(3 * requests)
			spans, summary := agent.Stop()
			NothingLost(t, summary, 3*requests)
			front, calls := Select(spans, "goproxy", "server"), Select(spans, "goproxy", "client")
			back := Select(spans, "goserver", "server")
			if err := Compare(front, truth, Want{}); err != nil {
				t.Errorf("the proxy's server spans: %v", err)
			}
			if err := Joined(back, calls); err != nil {
				t.Errorf("server spans behind under the proxy's client spans: %v", err)
			}
			warned := slices.ContainsFunc(agent.stderr, func(line string) bool { return strings.Contains(line, "WARN") })
			if warned && !bpftest.Has("6.6") { // uprobe_multi; a perf event may be refused without CAP_SYS_ADMIN
				agent.WaitLine("some calls of this process will have no parent")
			} else if err := Joined(calls, front); err != nil || warned {
				t.Errorf("client spans under the proxy's server spans: %v; warned: %v:\n%s", err, warned, strings.Join(agent.stderr, "\n"))
			}
		})
	}
}

// allowPerfEvents sees that they are allowed without CAP_SYS_ADMIN. Where they are not, it holds the agent to saying so,
// and lifts that in a machine that is the test's own.
func allowPerfEvents(t *testing.T) {
	t.Helper()
	const sysctl = "/proc/sys/kernel/perf_event_paranoid"
	b, err := os.ReadFile(sysctl)
	if err != nil {
		t.Fatal(err)
	}
	if level, _ := strconv.Atoi(strings.TrimSpace(string(b))); level <= 2 {
		return
	}
	agent := StartAgent(t, AgentOptions{Select: []string{"--exe", "/nothing"}, Flags: []string{"--attach", "kprobe"}, Capabilities: enough, NoWait: true})
	if code, said := agent.Ended(); code != 1 || !strings.Contains(said, "kernel.perf_event_paranoid") {
		t.Errorf("it ends with %d and says:\n%s", code, said)
	}
	if os.Getenv("CI") != "vm" {
		t.Skipf("%s does not allow kprobes without CAP_SYS_ADMIN", sysctl)
	}
	if err := os.WriteFile(sysctl, []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(sysctl, b, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestCheckNamesTheMissingCapability takes each of the capabilities away: check says which it is and what goes with
// it, and ends with 1 if that is everything.
func TestCheckNamesTheMissingCapability(t *testing.T) {
	requireCapabilities(t)
	for missing, c := range map[uintptr]struct {
		name       string
		impossible bool
	}{
		unix.CAP_BPF:             {"CAP_BPF", true},
		unix.CAP_PERFMON:         {"CAP_PERFMON", true},
		unix.CAP_SYS_PTRACE:      {"CAP_SYS_PTRACE", false},
		unix.CAP_DAC_READ_SEARCH: {"CAP_DAC_READ_SEARCH", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(Binary(t), "check")
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
				AmbientCaps: slices.DeleteFunc(slices.Clone(enough), func(c uintptr) bool { return c == missing }),
			}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if impossible := exit != nil; impossible != c.impossible {
				t.Errorf("%v; tracing is impossible: want %v\n%s", err, c.impossible, out)
			}
			line := lineOf(string(out), "capabilities")
			if !strings.Contains(line, "missing") || !strings.Contains(line, c.name) {
				t.Errorf("check says of capabilities: %q\n%s", line, out)
			}
		})
	}
}

func lineOf(text, item string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, item) {
			return line
		}
	}
	return fmt.Sprintf("no line begins with %q", item)
}
