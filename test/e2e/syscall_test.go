// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"breadcrumb/internal/bpftest"
	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// syscallPairs are pairs of ways in which a server receives and sends.
var syscallPairs = [][2]string{
	{"read", "write"}, {"read-small", "write-small"}, {"readv", "writev"}, {"readv-segments", "writev-segments"},
	{"recvfrom", "sendto"}, {"recvmsg", "sendmsg"}, {"recvmsg-segments", "sendmsg"}, {"recvmmsg", "sendmmsg"},
	{"peek", "sendfile"}, {"nonblocking", "partial"}, {"empty", "splice"}, {"dup", "corked"},
}

// loadSyscalls sends what such a server can answer.
func loadSyscalls(t *testing.T, s *servers.Server, id string) []drive.Exchange {
	t.Helper()
	truth, err := drive.Plan{Addr: s.Addr, Requests: 60, Connections: 3, Trace: true, Request: func(i int) drive.Request {
		if i%6 == 5 {
			return drive.Request{Target: fmt.Sprintf("/large/%d/%s-%d", 300_000, id, i)}
		}
		return drive.Request{Target: fmt.Sprintf("/item/%s-%d", id, i)}
	}}.Run()
	if err != nil {
		t.Fatal(err)
	}
	more, err := drive.Plan{Addr: s.Addr, Requests: 20, Connections: 2, Depth: 5}.Run()
	if err != nil {
		t.Fatal(err)
	}
	return append(truth, more...)
}

func TestDriverAgainstSyscalls(t *testing.T) {
	for _, c := range syscallPairs {
		t.Run(c[0]+" "+c[1], func(t *testing.T) {
			loadSyscalls(t, servers.Syscalls(t, servers.Options{}, c[0], c[1]), "x")
		})
	}
	t.Run("fd passing", func(t *testing.T) {
		s := servers.FDPassing(t, servers.Options{})
		if _, err := (drive.Plan{Addr: s.Addr, Requests: 50, Connections: 3}).Run(); err != nil {
			t.Error(err)
		}
	})
}

// firstCall makes the one request by which a process that uses such calls is found out, and which is lost for it.
func firstCall(t *testing.T, s *servers.Server, agent *Agent) {
	t.Helper()
	conn, err := drive.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if x := conn.Do(drive.Request{Target: "/item/first"}); x.Err != nil {
		t.Fatal(x.Err)
	}
	agent.WaitLine("is attached for it")
}

// onDemand says whether the agent attaches what recvmmsg and sendmmsg need only when it finds that they are used.
func (a *Agent) onDemand() bool {
	switch line := a.WaitLine("\ttracing\t"); {
	case strings.Contains(line, "socket tracepoints"):
		return bpftest.Has("6.16")
	case strings.Contains(line, "syscall tracepoints"):
		return false
	}
	return true
}

// TestEverySyscall traces servers that receive and send by each system call that moves bytes.
func TestEverySyscall(t *testing.T) { everySyscall(t, nil) }

func everySyscall(t *testing.T, attach *Attachment) {
	var all []*servers.Server
	for _, c := range syscallPairs {
		all = append(all, servers.Syscalls(t, servers.Options{}, c[0], c[1]))
	}
	agent := TraceBy(t, attach, all...)
	truth := make([][]drive.Exchange, len(all))
	n, lost := 0, int64(0)
	for i, c := range syscallPairs {
		if c[0] == "recvmmsg" && agent.onDemand() {
			firstCall(t, all[i], agent)
			lost++
		}
		truth[i] = loadSyscalls(t, all[i], c[0]+c[1])
		n += len(truth[i])
	}
	agent.WaitSpans(n)
	spans, summary := agent.Stop()
	if got := summary.Total["muted"]; got != lost {
		t.Errorf("%d messages that no protocol claimed, want %d", got, lost)
	}
	summary.Total["muted"] = 0
	NothingLost(t, summary, n)
	byPID := map[any][]*Span{}
	for _, s := range spans {
		pid := s.Resource["process.pid"]
		byPID[pid] = append(byPID[pid], s)
	}
	for i, c := range syscallPairs {
		t.Run(c[0]+" "+c[1], func(t *testing.T) {
			if err := Compare(byPID[float64(all[i].Process.PID())], truth[i], Want{Service: "syscall_server"}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestConnectionsHandedToAnotherProcess traces a server whose worker gets its connections by SCM_RIGHTS.
func TestConnectionsHandedToAnotherProcess(t *testing.T) { connectionsHanded(t, nil) }

func connectionsHanded(t *testing.T, attach *Attachment) {
	s := servers.FDPassing(t, servers.Options{})
	agent := TraceBy(t, attach, s)
	truth, err := drive.Plan{Addr: s.Addr, Requests: 300, Connections: 8}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(len(truth))
	spans, summary := agent.Stop()
	NothingLost(t, summary, len(truth))
	if err := Compare(spans, truth, Want{Service: "fd_passing_server"}); err != nil {
		t.Error(err)
	}
}

// TestAddressFamilies traces a server that listens on both families, and a client that comes over either:
// the two ends of a connection are of different families when an IPv4 client meets an IPv6 socket.
func TestAddressFamilies(t *testing.T) {
	for name, host := range map[string]string{"IPv4-mapped": "127.0.0.1", "IPv6": "[::1]"} {
		t.Run(name, func(t *testing.T) {
			s := servers.GoDual(t, servers.Options{})
			client := copied(t, servers.GoClient(t))
			agent := StartAgent(t, AgentOptions{Select: append(PIDs(s), "--exe", client)})
			out, err := exec.Command(client, "-n", "200", "-c", "4", "-url", fmt.Sprintf("http://%s:%d/item/", host, s.Port)).Output()
			if err != nil {
				t.Fatal(err)
			}
			truth := exchangesOf(t, out)
			agent.WaitSpans(2 * len(truth))
			spans, summary := agent.Stop()
			NothingLost(t, summary, 2*len(truth))
			calls, served := Select(spans, "", "client"), Select(spans, "", "server")
			if err := Compare(calls, truth, Want{Kind: "client", Service: "goclient"}); err != nil {
				t.Errorf("client spans: %v", err)
			}
			if err := Compare(served, truth, Want{Foreign: true, Service: "goserver"}); err != nil {
				t.Errorf("server spans: %v", err)
			}
			if err := Joined(served, calls); err != nil {
				t.Errorf("server spans under client spans: %v", err)
			}
			address := host
			if name == "IPv6" {
				address = "::1"
			}
			for _, span := range spans {
				if got := span.Text("network.peer.address"); got != address {
					t.Fatalf("network.peer.address is %q, want %q: %s", got, address, span)
				}
			}
		})
	}
}
