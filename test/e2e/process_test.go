// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// TestShortLivedPrograms starts programs that make a few calls and end, while the agent runs.
func TestShortLivedPrograms(t *testing.T) {
	const runs, each = 30, 3
	for name, pause := range map[string]string{"that live fifty milliseconds": "15ms", "that call at once": "0"} {
		t.Run(name, func(t *testing.T) {
			s := servers.Go(t, servers.Options{})
			client := copied(t, servers.GoClient(t))
			agent := StartAgent(t, AgentOptions{Select: []string{"--exe", filepath.Dir(client) + "/*"}})
			var truth []drive.Exchange
			pids := map[int]bool{}
			for run := range runs {
				cmd := exec.Command(client, "-n", fmt.Sprint(each), "-pause", pause, "-url", fmt.Sprintf("http://%s/item/%d-", s.Addr, run))
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				pids[cmd.ProcessState.Pid()] = true
				truth = append(truth, exchangesOf(t, out)...)
			}
			agent.WaitSpans(len(truth))
			spans, summary := agent.Stop()
			NothingLost(t, summary, len(truth))
			if err := Compare(spans, truth, Want{Kind: "client", Service: "goclient"}); err != nil {
				t.Error(err)
			}
			for _, s := range spans {
				pid, _ := s.Resource["process.pid"].(float64)
				if !pids[int(pid)] {
					t.Fatalf("process.pid is none of those that ran: %s", s)
				}
			}
		})
	}
}

// TestConnectionsFromBeforeTheAgent opens connections and uses them, then starts the agent: from then on
// every request is seen, and nothing is made up for those before.
func TestConnectionsFromBeforeTheAgent(t *testing.T) {
	const conns, each = 16, 20
	for _, name := range []string{"go", "python", "node", "nginx", "java", "puma"} {
		t.Run(name, func(t *testing.T) {
			kind := servers.Find(t, name)
			s := kind.Start(t, servers.Options{})
			var open []*drive.Conn
			for i := range conns {
				conn, err := drive.Dial(s.Network, s.Addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if x := conn.Do(drive.Request{Target: fmt.Sprintf("/item/before-%d", i)}); x.Err != nil || conn.Closed {
					t.Fatalf("%+v", x)
				}
				open = append(open, conn)
				// Puma holds no more connections than it has threads busy for long.
				if name == "puma" && len(open) == 4 {
					break
				}
			}
			// One request is under way while the agent starts: the server has read a part of its body.
			part := []byte(strings.Repeat("words and ", 100)) // may be the start of a request as far as one can see
			var underway *drive.Conn
			var during drive.Exchange
			if kind.Does&servers.Upload != 0 {
				var err error
				if underway, err = drive.Dial(s.Network, s.Addr); err != nil {
					t.Fatal(err)
				}
				defer underway.Close()
				if x := underway.Do(drive.Request{Target: "/item/before-during"}); x.Err != nil || underway.Closed {
					t.Fatalf("%+v", x)
				}
				var head []byte
				head, during = underway.Head(drive.Request{Method: "POST", Target: "/upload/during",
					Header: []string{fmt.Sprint("Content-Length: ", 2*len(part))}})
				if _, err := underway.Write(append(head, part...)); err != nil {
					t.Fatal(err)
				}
				waitRead(t, underway)
			}

			agent := Trace(t, s)
			var truth []drive.Exchange
			for i := range each {
				for c, conn := range open {
					x := conn.Do(drive.Request{Target: fmt.Sprintf("/item/after-%d-%d", c, i), Trace: i%2 == 0})
					if x.Err != nil {
						t.Fatal(x.Err)
					}
					truth = append(truth, x)
				}
			}
			if underway != nil {
				if _, err := underway.Write(part); err != nil {
					t.Fatal(err)
				}
				if err := underway.Receive(&during); err != nil {
					t.Fatal(err)
				}
				if !underway.Closed {
					x := underway.Do(drive.Request{Target: "/item/after-during"})
					if x.Err != nil {
						t.Fatal(x.Err)
					}
					truth = append(truth, x)
				}
			}
			agent.WaitSpans(len(truth))
			spans, summary := agent.Stop()
			NothingLost(t, summary, len(truth))
			if err := Compare(spans, truth, Want{Service: kind.Service}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestServerStartedAfterTheAgent selects by cgroup: whatever starts there is traced from its first request.
func TestServerStartedAfterTheAgent(t *testing.T) {
	for _, name := range []string{"go", "python", "node", "gunicorn-gthread", "nginx"} {
		t.Run(name, func(t *testing.T) {
			cgroup := servers.NewCgroup(t)
			agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
			kind := servers.Find(t, name)
			s := kind.Start(t, servers.Options{Cgroup: cgroup})
			truth, err := drive.Plan{Network: s.Network, Addr: s.Addr, Requests: 200, Connections: 4}.Run()
			if err != nil {
				t.Fatal(err)
			}
			agent.WaitSpans(len(truth))
			spans, summary := agent.Stop()
			NothingLost(t, summary, len(truth))
			if err := Compare(spans, truth, Want{Service: kind.Service}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForkedForEachConnection traces a server whose children inherit the connections that it accepts.
func TestForkedForEachConnection(t *testing.T) {
	cgroup := servers.NewCgroup(t)
	s := servers.PythonForking(t, servers.Options{Cgroup: cgroup})
	agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
	truth, err := drive.Plan{Addr: s.Addr, Requests: 300, Connections: 4, Fresh: true}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(len(truth))
	spans, summary := agent.Stop()
	NothingLost(t, summary, len(truth))
	if err := Compare(spans, truth, Want{Service: "threading_server"}); err != nil {
		t.Error(err)
	}
	for _, span := range spans {
		if pid, _ := span.Resource["process.pid"].(float64); pid == 0 || int(pid) == s.Process.PID() {
			t.Fatalf("process.pid is not that of a child: %s", span)
		}
	}
}

// TestReplacedWorkers asks servers that fork workers to replace them while the agent runs.
func TestReplacedWorkers(t *testing.T) {
	for _, name := range []string{"gunicorn-sync", "nginx"} {
		t.Run(name, func(t *testing.T) {
			cgroup := servers.NewCgroup(t)
			kind := servers.Find(t, name)
			s := kind.Start(t, servers.Options{Cgroup: cgroup})
			agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
			plan := drive.Plan{Network: s.Network, Addr: s.Addr, Requests: 100, Connections: 4}
			truth, err := plan.Run()
			if err != nil {
				t.Fatal(err)
			}

			old := servers.Children(s.Process.PID())
			if err := s.Process.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
				now := servers.Children(s.Process.PID())
				if len(now) == len(old) && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) }) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("workers were %v and are %v", old, now)
				}
			}
			more, err := plan.Run()
			if err != nil {
				t.Fatal(err)
			}
			truth = append(truth, more...)
			agent.WaitSpans(len(truth))
			spans, summary := agent.Stop()
			NothingLost(t, summary, len(truth))
			if err := Compare(spans, truth, Want{Service: kind.Service}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestProgramThatIsReplaced starts a shell that becomes a server: the server's name counts.
func TestProgramThatIsReplaced(t *testing.T) {
	cgroup := servers.NewCgroup(t)
	agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}, Flags: []string{"--output", "json", "--log-level", "debug"}})
	port := servers.FreePort(t)
	exe := servers.Build(t, "test/e2e/servers/testdata/goserver")
	p := servers.Run(t, servers.Options{Cgroup: cgroup}, "sh", "-c", "exec "+exe+" -listen "+servers.Loopback(port))
	s := servers.Listening(t, p, port)
	truth, err := drive.Plan{Addr: s.Addr, Requests: 50, Connections: 2}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(len(truth))
	spans, summary := agent.Stop()
	NothingLost(t, summary, len(truth))
	if err := Compare(spans, truth, Want{Service: "goserver"}); err != nil {
		t.Error(err)
	}
}

// TestCallsRightBeforeAndAfterAnExec follows programs that make calls, become another program and make more: what came
// before is the one's, what came after the other's, however little is between.
func TestCallsRightBeforeAndAfterAnExec(t *testing.T) {
	const runs, each = 20, 3
	cgroup := servers.NewCgroup(t)
	s := servers.Go(t, servers.Options{})
	client, script := servers.GoClient(t), servers.ExecClient(t)
	begin := filepath.Join(t.TempDir(), "begin")
	commands := fmt.Sprintf("until [ -e %s ]; do sleep 0.02; done\n", begin)
	var before, after []drive.Exchange
	for run := range runs {
		for n := range each {
			before = append(before, drive.Exchange{Method: "GET", Path: fmt.Sprintf("/item/before-%d-%d", run, n), Status: 200, After: 1 << 62})
			after = append(after, drive.Exchange{Method: "GET", Path: fmt.Sprintf("/item/after-%d-%d", run, n), Status: 200, After: 1 << 62})
		}
		commands += fmt.Sprintf("/usr/bin/python3 %s %s /item/before-%d- %d %s -n %d -url http://%s/item/after-%d-\n", script, s.Addr, run, each, client, each, s.Addr, run)
	}
	// Its children are traced from their birth.
	shell := servers.Run(t, servers.Options{Cgroup: cgroup}, "sh", "-c", commands)
	agent := StartAgent(t, AgentOptions{Select: []string{"--pid", fmt.Sprint(shell.PID())}})
	if err := os.WriteFile(begin, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	<-shell.Done()
	agent.WaitSpans(2 * runs * each)
	spans, summary := agent.Stop()
	NothingLost(t, summary, 2*runs*each)
	if err := Compare(Select(spans, "exec_client", "client"), before, Want{Kind: "client"}); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := Compare(Select(spans, "goclient", "client"), after, Want{Kind: "client"}); err != nil {
		t.Errorf("after: %v", err)
	}
}

// TestOthersAreLeftAlone loads two servers of which one is selected.
func TestOthersAreLeftAlone(t *testing.T) {
	s, other := servers.Go(t, servers.Options{}), servers.Go(t, servers.Options{})
	agent := Trace(t, s)
	plan := drive.Plan{Addr: other.Addr, Requests: 200, Connections: 4}
	if _, err := plan.Run(); err != nil {
		t.Fatal(err)
	}
	plan.Addr = s.Addr
	truth, err := plan.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(len(truth))
	spans, summary := agent.Stop()
	NothingLost(t, summary, len(truth))
	if err := Compare(spans, truth, Want{}); err != nil {
		t.Error(err)
	}
}

// TestNameFromTheEnvironment gives a server a name by the variable that OpenTelemetry defines.
func TestNameFromTheEnvironment(t *testing.T) {
	s := servers.Python(t, servers.Options{Env: []string{"OTEL_SERVICE_NAME=warehouse", "OTEL_RESOURCE_ATTRIBUTES=team=blue"}})
	agent := Trace(t, s)
	truth, err := drive.Plan{Addr: s.Addr, Requests: 5, Connections: 1}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(len(truth))
	spans, _ := agent.Stop()
	if err := Compare(spans, truth, Want{Service: "warehouse"}); err != nil {
		t.Error(err)
	}
	if team := spans[0].Resource["team"]; team != "blue" {
		t.Errorf("the resource's team is %v", team)
	}
}

// TestChosenWithoutTheAgent stops the agent while programs start, are used and end: the kernel side has to know by itself
// that they are wanted.
func TestChosenWithoutTheAgent(t *testing.T) {
	const runs, each = 10, 3
	target := servers.Go(t, servers.Options{})
	client := servers.GoClient(t)
	above := servers.NewCgroup(t)
	calls := func(t *testing.T, cgroup *servers.Cgroup, name string, args ...string) []drive.Exchange {
		cmd := exec.Command(name, args...)
		if cgroup != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cgroup.FD()}
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return exchangesOf(t, out)
	}
	url := func(run int) []string {
		return []string{"-n", fmt.Sprint(each), "-url", fmt.Sprintf("http://%s/item/%d-", target.Addr, run)}
	}

	for _, way := range []struct {
		name string
		// begin returns the selection, and what is done while the agent stands still.
		begin func(t *testing.T) (selection []string, use func(run int) []drive.Exchange)
	}{
		{"started in a cgroup", func(t *testing.T) ([]string, func(int) []drive.Exchange) {
			cgroup := servers.NewCgroup(t)
			return []string{"--cgroup", cgroup.Path}, func(run int) []drive.Exchange { return calls(t, cgroup, client, url(run)...) }
		}},
		{"started in a new cgroup below it", func(t *testing.T) ([]string, func(int) []drive.Exchange) {
			return []string{"--cgroup", above.Path}, func(run int) []drive.Exchange {
				return calls(t, above.Below(t), client, url(run)...)
			}
		}},
		{"moved into a cgroup", func(t *testing.T) ([]string, func(int) []drive.Exchange) {
			cgroup := servers.NewCgroup(t)
			return []string{"--cgroup", cgroup.Path}, func(run int) []drive.Exchange {
				script := fmt.Sprintf("echo $$ > %s/cgroup.procs; exec %s %s", cgroup.Dir(), client, strings.Join(url(run), " "))
				return calls(t, nil, "sh", "-c", script)
			}
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			selection, use := way.begin(t)
			agent := StartAgent(t, AgentOptions{Select: selection})
			agent.Signal(syscall.SIGSTOP)
			var truth []drive.Exchange
			for run := range runs {
				truth = append(truth, use(run)...)
			}
			agent.Signal(syscall.SIGCONT)
			agent.WaitSpans(len(truth))
			spans, summary := agent.Stop()
			NothingLost(t, summary, len(truth))
			if err := Compare(spans, truth, Want{Kind: "client", Service: "goclient"}); err != nil {
				t.Error(err)
			}
		})
	}

	t.Run("listens on a port", func(t *testing.T) {
		port := servers.FreePort(t)
		agent := StartAgent(t, AgentOptions{Select: []string{"--port", fmt.Sprint(port)}})
		agent.Signal(syscall.SIGSTOP)
		exe := servers.Build(t, "test/e2e/servers/testdata/goserver")
		s := servers.Listening(t, servers.Run(t, servers.Options{}, exe, "-listen", servers.Loopback(port)), port)
		truth, err := drive.Plan{Addr: s.Addr, Requests: 50, Connections: 2}.Run()
		if err != nil {
			t.Fatal(err)
		}
		agent.Signal(syscall.SIGCONT)
		agent.WaitSpans(len(truth))
		spans, summary := agent.Stop()
		NothingLost(t, summary, len(truth))
		if err := Compare(spans, truth, Want{Service: "goserver"}); err != nil {
			t.Error(err)
		}
	})
}
