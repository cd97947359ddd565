// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// TestProxyChain follows requests through proxies, 32 at once: the driver's context, the proxy's server
// span, its client span, and the server span of the program behind it.
func TestProxyChain(t *testing.T) {
	for _, kind := range servers.Kinds {
		if !kind.Proxy {
			continue
		}
		for _, trace := range []bool{false, true} {
			t.Run(kind.Name+map[bool]string{false: "/roots", true: "/traceparent"}[trace], func(t *testing.T) {
				proxyChain(t, nil, kind, 2000, trace)
			})
		}
	}
}

func proxyChain(t *testing.T, attach *Attachment, kind servers.Kind, requests int, trace bool) {
	behind := map[string]string{"go-proxy": "goserver", "nginx-proxy": "node_server", "nginx-unix": "wsgi_app"}[kind.Name]
	s := kind.Start(t, servers.Options{})
	agent := TraceBy(t, attach, s, s.Behind)
	truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 32, Trace: trace}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(3 * requests)
	spans, summary := agent.Stop()
	NothingLost(t, summary, 3*requests)

	front := Select(spans, kind.Service, "server")
	calls := Select(spans, kind.Service, "client")
	back := Select(spans, behind, "server")
	if err := Compare(front, truth, Want{}); err != nil {
		t.Errorf("the proxy's server spans: %v", err)
	}
	if err := Compare(calls, truth, Want{Kind: "client", Foreign: true}); err != nil {
		t.Errorf("the proxy's client spans: %v", err)
	}
	if err := Compare(back, truth, Want{Foreign: true}); err != nil {
		t.Errorf("the server spans behind: %v", err)
	}
	if err := Joined(calls, front); err != nil {
		t.Errorf("client spans under the proxy's server spans: %v", err)
	}
	if err := Joined(back, calls); err != nil {
		t.Errorf("server spans behind under the proxy's client spans: %v", err)
	}
}

// TestProxyWithoutItsBackend traces only the proxy: what it forwards is not seen at the other end.
func TestProxyWithoutItsBackend(t *testing.T) {
	const requests = 500
	s := servers.GoProxy(t, servers.Options{})
	agent := Trace(t, s)
	truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 8}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(2 * requests)
	spans, _ := agent.Stop()
	front, calls := Select(spans, "", "server"), Select(spans, "", "client")
	if err := Compare(front, truth, Want{Service: "goproxy"}); err != nil {
		t.Error(err)
	}
	if err := Joined(calls, front); err != nil {
		t.Error(err)
	}
}

// TestBackendWithoutItsProxy traces only the program behind a proxy: its spans must not be under spans
// that nobody exports.
func TestBackendWithoutItsProxy(t *testing.T) {
	const requests = 500
	s := servers.NginxProxy(t, servers.Options{})
	agent := Trace(t, s.Behind)
	truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 8}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(requests)
	spans, _ := agent.Stop()
	if err := Compare(spans, truth, Want{Service: "node_server"}); err != nil {
		t.Error(err)
	}
}

// exchangesOf reads what the Go client says of its requests.
func exchangesOf(t *testing.T, out []byte) []drive.Exchange {
	t.Helper()
	var truth []drive.Exchange
	for line := range strings.Lines(string(out)) {
		var r struct {
			URL           string
			Status        int
			Before, After int64
			Error         string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Error != "" {
			t.Fatalf("%s: %v", line, err)
		}
		path := r.URL[strings.Index(r.URL[len("http://"):], "/")+len("http://"):]
		truth = append(truth, drive.Exchange{Method: "GET", Path: path, Status: r.Status, Before: r.Before, After: r.After})
	}
	return truth
}

// TestGoClient traces a client program and the server that it calls.
func TestGoClient(t *testing.T) {
	for name, args := range map[string][]string{
		"one caller":        {"-n", "300"},
		"sixteen callers":   {"-n", "2000", "-c", "16"},
		"fresh connections": {"-n", "300", "-c", "4", "-fresh"},
	} {
		t.Run(name, func(t *testing.T) {
			s := servers.Python(t, servers.Options{})
			client := copied(t, servers.GoClient(t))
			agent := StartAgent(t, AgentOptions{Select: append(PIDs(s), "--exe", client)})
			out, err := exec.Command(client, append(args, "-url", "http://"+s.Addr+"/item/")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			truth := exchangesOf(t, out)
			agent.WaitSpans(2 * len(truth))
			spans, summary := agent.Stop()
			NothingLost(t, summary, 2*len(truth))
			calls, served := Select(spans, "goclient", "client"), Select(spans, "threading_server", "server")
			if err := Compare(calls, truth, Want{Kind: "client"}); err != nil {
				t.Errorf("client spans: %v", err)
			}
			if err := Compare(served, truth, Want{Foreign: true}); err != nil {
				t.Errorf("server spans: %v", err)
			}
			if err := Joined(served, calls); err != nil {
				t.Errorf("server spans under client spans: %v", err)
			}
		})
	}
}

// TestCallThatWasGivenUp stops a server, so that its clients are gone before it reads what they sent: the work
// that it then does is still theirs.
func TestCallThatWasGivenUp(t *testing.T) {
	const requests = 20
	s := servers.Go(t, servers.Options{})
	client := copied(t, servers.GoClient(t))
	agent := StartAgent(t, AgentOptions{Select: append(PIDs(s), "--exe", client)})
	if err := s.Process.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(client, "-give-up", "-n", fmt.Sprint(requests), "-c", "4", "-url", "http://"+s.Addr+"/item/").Output()
	if err == nil {
		agent.WaitSpans(requests) // the calls are over
	}
	if err := s.Process.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	truth := exchangesOf(t, out)
	for i := range truth {
		truth[i].After = 1 << 62 // the kernel closes the connection for the client, when it likes
	}
	agent.WaitSpans(2 * requests)
	spans, summary := agent.Stop()
	NothingLost(t, summary, 2*requests)
	calls, served := Select(spans, "goclient", "client"), Select(spans, "goserver", "server")
	if err := Compare(calls, truth, Want{Kind: "client"}); err != nil {
		t.Errorf("client spans: %v", err)
	}
	if err := Joined(served, calls); err != nil || len(served) != requests {
		t.Errorf("%d server spans under client spans: %v", len(served), err)
	}
}

// TestCurl traces a client that nobody here wrote, which lives for a few requests.
func TestCurl(t *testing.T) {
	const runs, each = 20, 3
	s := servers.Go(t, servers.Options{})
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Fatalf("curl is needed for this test and not installed: %v", err)
	}
	curl := copied(t, path)
	agent := StartAgent(t, AgentOptions{Select: append(PIDs(s), "--exe", curl)})
	var truth []drive.Exchange
	for run := range runs {
		args := []string{"--silent", "--show-error", "--fail"}
		for i := range each {
			target := fmt.Sprintf("/item/curl-%d-%d", run, i)
			args = append(args, "http://"+s.Addr+target, "--output", "/dev/null")
			truth = append(truth, drive.Exchange{Method: "GET", Path: target, Status: 200, After: 1 << 62})
		}
		if out, err := exec.Command(curl, args...).CombinedOutput(); err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
	}
	agent.WaitSpans(2 * len(truth))
	spans, summary := agent.Stop()
	NothingLost(t, summary, 2*len(truth))
	calls, served := Select(spans, "curl", "client"), Select(spans, "goserver", "server")
	if err := Compare(calls, truth, Want{Kind: "client"}); err != nil {
		t.Errorf("client spans: %v", err)
	}
	if err := Compare(served, truth, Want{Foreign: true}); err != nil {
		t.Errorf("server spans: %v", err)
	}
	if err := Joined(served, calls); err != nil {
		t.Errorf("server spans under client spans: %v", err)
	}
}

// copied is a copy of an executable in a folder of the test, so that its path selects what the test
// starts and nothing else.
func copied(t *testing.T, path string) string {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	copy := filepath.Join(t.TempDir(), filepath.Base(path))
	out, err := os.OpenFile(copy, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		t.Fatal(err)
	}
	return copy
}
