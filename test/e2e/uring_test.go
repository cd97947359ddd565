// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"

	"golang.org/x/sys/unix"
)

// requireURing skips the test where the kernel has no io_uring, or refuses it.
func requireURing(t *testing.T) {
	t.Helper()
	var params [120]byte // struct io_uring_params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		t.Skipf("io_uring_setup: %v (kernel.io_uring_disabled, or a seccomp filter, or an old kernel)", errno)
	}
	unix.Close(int(fd))
}

// TestURing loads a server that serves one port by io_uring and another by ordinary system calls, on which the
// spans must be as ever. What passes by io_uring is seen as well where the kernel's functions are the way in; else
// nothing wrong must be made of it, and the agent says that it is not seen.
func TestURing(t *testing.T) {
	requireURing(t)
	for _, attach := range Attachments {
		for _, mode := range []string{"wait", "poll", "sqpoll"} {
			t.Run(attach.Name+"/"+mode, func(t *testing.T) {
				attach.Require(t)
				uring(t, attach, mode)
			})
		}
	}
}

func uring(t *testing.T, attach *Attachment, mode string) {
	const requests = 300
	ring, plain := servers.URing(t, servers.Options{}, mode)
	client := copied(t, servers.GoClient(t))
	agent := StartAgent(t, AgentOptions{Select: append(PIDs(ring), "--exe", client), Attach: attach})

	if attach.SeesURing {
		// Where the bytes are is known from when the agent has attached what is needed for it.
		warm := drive.Plan{Addr: ring.Addr, Requests: 8, Connections: 1, Request: func(i int) drive.Request {
			return drive.Request{Target: fmt.Sprint("/item/first-", i)}
		}}
		if _, err := warm.Run(); err != nil {
			t.Fatal(err)
		}
		agent.WaitLine("the entry of tcp_recvmsg is attached")
	}
	// Both ports at once: the ring's completions come while other calls are under way.
	var ringed []drive.Exchange
	failed := make(chan error)
	go func() {
		var err error
		ringed, err = drive.Plan{Addr: ring.Addr, Requests: requests, Connections: 8, Trace: true}.Run()
		failed <- err
	}()
	truth, err := drive.Plan{Addr: plain.Addr, Requests: requests, Connections: 8, Trace: true}.Run()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	// A program that calls the ring's port is traced as ever.
	out, err := exec.Command(client, "-n", fmt.Sprint(requests), "-c", "4", "-url", "http://"+ring.Addr+"/item/").Output()
	if err != nil {
		t.Fatal(err)
	}
	called := exchangesOf(t, out)
	if said := list(t, ring); !strings.Contains(said, "partly") || !strings.Contains(said, "io_uring") {
		t.Errorf("ps says nothing of io_uring: %s", said)
	}
	if attach.SeesURing {
		uringSeen(t, agent, ringed, truth, called)
		return
	}
	agent.WaitSpans(len(truth) + len(called))
	spans, summary := agent.Stop()
	calls, served := Select(spans, "goclient", ""), ByPath(Select(spans, "uring_server", ""))
	if err := Compare(calls, called, Want{Kind: "client"}); err != nil {
		t.Errorf("calls: %v", err)
	}
	// What is read of the ring all the same must be right.
	fromCalls, read := seen(served, called)
	if err := Joined(fromCalls, calls); err != nil {
		t.Errorf("the ring's spans of those calls: %v", err)
	}
	fromDriver, ringed := seen(served, ringed)
	n := len(read) + len(ringed)
	plainSpans, _ := seen(served, truth)
	if err := Compare(append(plainSpans, fromDriver...), append(truth, ringed...), Want{Service: "uring_server"}); err != nil {
		t.Errorf("the server's spans: %v", err)
	}
	for _, list := range served {
		t.Errorf("not of any request: %s", list[0])
	}
	// Some of what is not seen is counted all the same, some is not: that depends on the way in.
	t.Logf("%d of %d are spans; the ledger says %v", n, 2*requests, summary.Total)
	for _, line := range []string{"a process uses io_uring", fmt.Sprintf("uring_server (%d) moved over sockets by io_uring", ring.Process.PID())} {
		agent.WaitLine(line)
	}
}

// uringSeen holds the spans to all that the driver and the client did.
func uringSeen(t *testing.T, agent *Agent, ringed, plain, called []drive.Exchange) {
	t.Helper()
	first := func(s *Span) bool { return strings.HasPrefix(s.Path(), "/item/first-") }
	want, have := len(ringed)+len(plain)+2*len(called), 0
	agent.WaitSpan(fmt.Sprintf("%d but for the first", want), func(s *Span) bool {
		if !first(s) {
			have++
		}
		return have == want
	})
	spans, _ := agent.Stop()
	calls := Select(spans, "goclient", "client")
	served := slices.DeleteFunc(slices.Clone(Select(spans, "uring_server", "server")), first)
	if err := Compare(calls, called, Want{Kind: "client"}); err != nil {
		t.Errorf("calls: %v", err)
	}
	byPath := ByPath(served)
	fromCalls, _ := seen(byPath, called)
	if err := Joined(fromCalls, calls); err != nil || len(fromCalls) != len(called) {
		t.Errorf("%d of %d spans of those calls: %v", len(fromCalls), len(called), err)
	}
	fromDriver, _ := seen(byPath, slices.Concat(ringed, plain))
	if err := Compare(fromDriver, slices.Concat(ringed, plain), Want{Service: "uring_server"}); err != nil {
		t.Errorf("the server's spans: %v", err)
	}
	for _, list := range byPath {
		t.Errorf("not of any request: %s", list[0])
	}
}

// seen takes the spans of the exchanges out of spans, and returns them with the exchanges that have any.
func seen(spans map[string][]*Span, truth []drive.Exchange) (own []*Span, have []drive.Exchange) {
	for _, x := range truth {
		if list := spans[x.Path]; list != nil {
			own, have = append(own, list...), append(have, x)
			delete(spans, x.Path)
		}
	}
	return own, have
}

// list is the line of breadcrumb ps about the server.
func list(t *testing.T, s *servers.Server) string {
	t.Helper()
	out, err := exec.Command(Binary(t), append([]string{"ps"}, PIDs(s)...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == fmt.Sprint(s.Process.PID()) {
			return line
		}
	}
	t.Fatalf("ps does not list %d:\n%s", s.Process.PID(), out)
	return ""
}
