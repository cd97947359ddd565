// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// smallRing is a ring buffer that is soon full.
const smallRing = "kernel:\n  ring_bytes: 65536\n"

// TestWhatIsLostIsCounted keeps the agent from reading while a server is busy: what it exports and what
// it says that it lost are together what the driver made.
func TestWhatIsLostIsCounted(t *testing.T) {
	const requests = 20_000
	for _, name := range []string{"go", "python", "node", "nginx"} {
		for _, how := range []string{"stopped", "throttled"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				s := servers.Find(t, name).Start(t, servers.Options{})
				agent := StartAgent(t, AgentOptions{Select: PIDs(s), Config: smallRing})
				release := func() { agent.Signal(syscall.SIGCONT) }
				if how == "stopped" {
					agent.Signal(syscall.SIGSTOP)
				} else {
					release = throttle(t, agent.PID(), 2)
				}
				plan := drive.Plan{Network: s.Network, Addr: s.Addr, Requests: requests, Connections: 32}
				truth, err := plan.Run()
				if err != nil {
					t.Fatal(err)
				}
				release()
				// Once it has emptied the ring it must be as good as new.
				truth = append(truth, agent.catchUp(t, s)...)
				// These few have room in the ring even if it is not read at once.
				plan.Requests, plan.Connections = 12, 2
				after, err := plan.Run()
				if err != nil {
					t.Fatal(err)
				}
				left := map[string]bool{}
				for _, x := range after {
					left[x.Path] = true
				}
				agent.waitPaths(t, left)
				spans, summary := agent.Stop()

				made := int64(len(truth) + len(after))
				t.Logf("%d made: the ledger says %v", made, summary.Total)
				if got := summary.Total["exported"] + summary.Total.Lost(); got != made {
					t.Errorf("exported + lost is %d, made were %d: %v", got, made, summary.Total)
				}
				if n := summary.Total["exported"]; n != int64(len(spans)) {
					t.Errorf("%d spans printed, %d exported", len(spans), n)
				}
				if how == "stopped" && summary.Total["ring_full"] == 0 {
					t.Error("an agent that does not read loses nothing: the test tests nothing")
				}
				// Those that are there are right.
				have := ByPath(spans)
				var seen []drive.Exchange
				for _, x := range append(truth, after...) {
					if have[x.Path] != nil {
						seen = append(seen, x)
					}
				}
				if err := Compare(spans, seen, Want{Cut: true}); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// catchUp makes requests, one after the other, until the agent sees one.
func (a *Agent) catchUp(t *testing.T, s *servers.Server) []drive.Exchange {
	t.Helper()
	var truth []drive.Exchange
	seen := map[string]bool{}
	next := 0
	for range 5000 {
		x, err := drive.Plan{Network: s.Network, Addr: s.Addr, Requests: 1, Connections: 1}.Run()
		if err != nil {
			t.Fatal(err)
		}
		truth = append(truth, x...)
		seen[x[0].Path] = true
		spans := a.Spans()
		for ; next < len(spans); next++ {
			if seen[spans[next].Path()] {
				return truth
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("the agent sees nothing any more")
	return nil
}

// throttle limits a process to a share of one CPU, in percent, until the function that it returns is
// called.
func throttle(t *testing.T, pid, percent int) func() {
	t.Helper()
	const period = 100_000 // µs
	root, version := cpuController(t)
	dir, err := os.MkdirTemp(root, "breadcrumb-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	move := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
	}
	t.Cleanup(func() {
		move(root)
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	files := map[string]string{"cpu.max": fmt.Sprint(period*percent/100, " ", period)}
	if version == 1 {
		files = map[string]string{"cpu.cfs_period_us": fmt.Sprint(period), "cpu.cfs_quota_us": fmt.Sprint(period * percent / 100)}
	}
	for name, value := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := move(dir); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := move(root); err != nil {
			t.Fatal(err)
		}
	}
}

// cpuController is the root of the hierarchy that limits CPU time, and its version.
func cpuController(t *testing.T) (string, int) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch {
		case f[2] == "cgroup" && strings.Contains(","+f[3]+",", ",cpu,"):
			return f[1], 1
		case f[2] == "cgroup2":
			controllers, _ := os.ReadFile(filepath.Join(f[1], "cgroup.subtree_control"))
			if strings.Contains(" "+string(controllers)+" ", "cpu ") {
				return f[1], 2
			}
		}
	}
	t.Fatal("no cgroup hierarchy limits CPU time")
	return "", 0
}
