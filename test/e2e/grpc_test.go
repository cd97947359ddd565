// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"breadcrumb/test/e2e/servers"
)

// call is what a client says of a call that it has made.
type call struct{ Method, Code string }

// callsOf reads what a client of gRPC says of its calls.
func callsOf(t *testing.T, out string) (calls []call) {
	t.Helper()
	for line := range strings.Lines(out) {
		var c call
		if err := json.Unmarshal([]byte(line), &c); err != nil || c.Method == "" {
			t.Fatalf("%s: %v", line, err)
		}
		calls = append(calls, c)
	}
	return calls
}

// tally counts calls.
func tally(calls []call) map[call]int {
	n := map[call]int{}
	for _, c := range calls {
		n[c]++
	}
	return n
}

// spanCall is what a span says of a call; the code of one whose connection ended before it is error.type.
func spanCall(s *Span) call {
	return call{s.Text("rpc.method"), cmp.Or(s.Text("rpc.response.status_code"), s.Text("error.type"))}
}

// calling runs a client to its end, in a control group, and returns what it said.
func calling(t *testing.T, cgroup *servers.Cgroup, env []string, name string, args ...string) []call {
	t.Helper()
	p := servers.Run(t, servers.Options{Cgroup: cgroup, Env: env}, name, args...)
	<-p.Done()
	return callsOf(t, p.Whole())
}

// grpcServers are servers, and what tells the process that answers.
var grpcServers = []struct {
	name  string
	start func(t testing.TB, o servers.Options) *servers.Server
}{
	{"Go", servers.GRPC},
	{"Python", func(t testing.TB, o servers.Options) *servers.Server { return servers.GRPCPython(t, o) }},
	{"asyncio", func(t testing.TB, o servers.Options) *servers.Server { return servers.GRPCPython(t, o, "asyncio") }},
	{"Node", servers.GRPCNode},
}

// grpcClients make n calls of some kinds, streams at once.
var grpcClients = []struct {
	name string
	call func(t *testing.T, cgroup *servers.Cgroup, addr string, n int, kind string, streams int) []call
}{
	{"Go", func(t *testing.T, cgroup *servers.Cgroup, addr string, n int, kind string, streams int) []call {
		return calling(t, cgroup, nil, servers.GRPCClient(t), "-addr", addr, "-n", strconv.Itoa(n), "-kind", kind, "-conns", "2", "-streams", strconv.Itoa(streams))
	}},
	{"Python", func(t *testing.T, cgroup *servers.Cgroup, addr string, n int, kind string, streams int) []call {
		return calling(t, cgroup, []string{servers.PythonPath()}, "/usr/bin/python3", servers.GRPCClientPython(t), addr, strconv.Itoa(n), kind, strconv.Itoa(streams))
	}},
	{"Node", func(t *testing.T, cgroup *servers.Cgroup, addr string, n int, kind string, streams int) []call {
		return calling(t, cgroup, []string{servers.NodePath()}, "node", servers.GRPCClientNode(t), addr, strconv.Itoa(n), kind, strconv.Itoa(streams))
	}},
}

// races are the kinds of call whose outcome the two ends may see differently.
const races = "deadline,cancel"

// TestGRPC has clients call servers in every way, and holds the spans to what the clients say.
func TestGRPC(t *testing.T) {
	for _, s := range grpcServers {
		for _, c := range grpcClients {
			if s.name != "Go" && c.name != "Go" {
				continue // each has met the other side's kind
			}
			for _, kind := range []string{"mixed,large", races} {
				t.Run(fmt.Sprintf("%s to %s/%s", c.name, s.name, strings.Split(kind, ",")[0]), func(t *testing.T) {
					cgroup := servers.NewCgroup(t)
					server := s.start(t, servers.Options{Cgroup: cgroup})
					agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
					truth := c.call(t, cgroup, server.Addr, 120, kind, 8)
					if len(truth) != 120 {
						t.Fatalf("the client has made %d calls", len(truth))
					}
					agent.WaitSpans(2 * len(truth))
					spans, summary := agent.Stop()
					NothingLost(t, summary, 2*len(truth))
					compareCalls(t, spans, truth, kind == races)
				})
			}
		}
	}
}

// TestGRPCManyAtOnce makes many calls at once on few connections.
func TestGRPCManyAtOnce(t *testing.T) {
	const calls = 20_000
	cgroup := servers.NewCgroup(t)
	server := servers.GRPC(t, servers.Options{Cgroup: cgroup})
	agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}, Config: largeRing})
	truth := calling(t, cgroup, nil, servers.GRPCClient(t), "-addr", server.Addr, "-n", strconv.Itoa(calls), "-conns", "4", "-streams", "50")
	agent.WaitSpans(2 * calls)
	spans, summary := agent.Stop()
	NothingLost(t, summary, 2*calls)
	compareCalls(t, spans, truth, false)
}

// TestGRPCOnOpenConnections has the agent come when the connections are open, and the header tables full of names.
func TestGRPCOnOpenConnections(t *testing.T) {
	const calls = 1000
	python := func(o *servers.Options, addr string) (string, []string) {
		o.Env = []string{servers.PythonPath()}
		return "/usr/bin/python3", []string{servers.GRPCClientPython(t), addr, strconv.Itoa(calls), "unary", "8", "wait"}
	}
	for _, test := range []struct {
		name   string
		server func(t testing.TB, o servers.Options) *servers.Server
		client func(o *servers.Options, addr string) (name string, args []string)
		least  float64 // of the spans of each side, the share that must know its method
	}{
		{"Go", servers.GRPC, func(_ *servers.Options, addr string) (string, []string) {
			return servers.GRPCClient(t), []string{"-addr", addr, "-n", strconv.Itoa(calls), "-conns", "2", "-streams", "8", "-wait"}
		}, 0.99},
		{"Python", grpcServers[1].start, python, 0},
		{"Python to asyncio", grpcServers[2].start, python, 0},
		{"Python to Node", grpcServers[3].start, python, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			cgroup := servers.NewCgroup(t)
			server := test.server(t, servers.Options{Cgroup: cgroup})
			in, start, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer start.Close()
			o := servers.Options{Cgroup: cgroup, Stdin: in}
			name, args := test.client(&o, server.Addr)
			client := servers.Run(t, o, name, args...)
			in.Close()
			client.WaitFor(t, "ready", func() bool { return strings.Contains(client.Whole(), "ready") })
			agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
			fmt.Fprintln(start)
			<-client.Done()
			_, lines, _ := strings.Cut(client.Whole(), "ready\n")
			truth := callsOf(t, lines)
			if len(truth) != calls {
				t.Fatalf("the client has made %d calls", len(truth))
			}
			agent.WaitSpans(2 * calls)
			spans, summary := agent.Stop()
			NothingLost(t, summary, 2*calls)
			method := truth[0].Method // of all of them, and all are answered with OK
			known, partial := map[string]int{}, 0
			for _, s := range spans {
				c := spanCall(s)
				hides := s.Attributes["breadcrumb.unknown_fields"] == true
				if hides {
					partial++
				}
				if c.Method == method {
					known[s.Kind]++
				}
				if c.Method != method && c.Method != "" || c.Code != "OK" && c.Code != "" || (c.Method == "" || c.Code == "") && !hides {
					t.Errorf("neither the call nor a span that says what it does not know: %s", s.Line)
				}
			}
			for _, kind := range []string{"client", "server"} {
				share := float64(known[kind]) / calls
				t.Logf("%s: %.1f %% know their method", kind, 100*share)
				if share < test.least {
					t.Errorf("%s: %.1f %% of the spans know their method, want %.1f %%", kind, 100*share, 100*test.least)
				}
			}
			if partial > 0 && !agent.Said(fmt.Sprintf("(breadcrumb.unknown_fields): %d", partial)) {
				t.Errorf("%d spans do not know all, and the summary does not say so", partial)
			}
		})
	}
}

// TestEtcd has etcd's own client ask etcd, eight at once.
func TestEtcd(t *testing.T) {
	const clients, rounds = 8, 10
	cgroup := servers.NewCgroup(t)
	server := servers.Etcd(t, servers.Options{Cgroup: cgroup})
	agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
	script := fmt.Sprintf(`export ETCDCTL_API=3
for c in $(seq %d); do (
	for i in $(seq %d); do
		etcdctl --endpoints %[3]s put key-$c-$i value-$i && etcdctl --endpoints %[3]s get key-$c-$i || exit 1
	done
) & jobs="$jobs $!"; done
for j in $jobs; do wait $j || exit 1; done
etcdctl --endpoints %[3]s member list && etcdctl --endpoints %[3]s lease grant 60 && etcdctl --endpoints %[3]s del key --prefix && echo done`,
		clients, rounds, server.Addr)
	client := servers.Run(t, servers.Options{Cgroup: cgroup}, "sh", "-c", script)
	<-client.Done()
	if out := client.Whole(); !strings.HasSuffix(out, "done\n") {
		t.Fatalf("etcdctl said:\n%s", client.Tail())
	}
	var truth []call
	for range clients * rounds {
		truth = append(truth, call{"etcdserverpb.KV/Put", "OK"}, call{"etcdserverpb.KV/Range", "OK"})
	}
	truth = append(truth, call{"etcdserverpb.Cluster/MemberList", "OK"}, call{"etcdserverpb.Lease/LeaseGrant", "OK"}, call{"etcdserverpb.KV/DeleteRange", "OK"})
	agent.WaitSpans(2 * len(truth))
	spans, summary := agent.Stop()
	NothingLost(t, summary, 2*len(truth))
	compareCalls(t, spans, truth, false)
}

// TestH2load has nghttp2's load generator ask nginx.
func TestH2load(t *testing.T) {
	const requests = 2000 // fewer than there is room for, should the agent not get to run
	cgroup := servers.NewCgroup(t)
	server := servers.NginxHTTP2(t, servers.Options{Cgroup: cgroup})
	agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
	client := servers.Run(t, servers.Options{Cgroup: cgroup}, "h2load", "-n", strconv.Itoa(requests), "-c", "2", "-m", "10",
		"http://"+server.Addr+"/item/one", "http://"+server.Addr+"/status/404/two")
	<-client.Done()
	if out := client.Whole(); !strings.Contains(out, "status codes: 1000 2xx, 0 3xx, 1000 4xx, 0 5xx") {
		t.Fatalf("h2load said:\n%s", out)
	}
	agent.WaitSpans(2 * requests)
	spans, summary := agent.Stop()
	NothingLost(t, summary, 2*requests)
	byID, seen := map[string]*Span{}, map[string]int{}
	for _, s := range spans {
		byID[s.SpanID] = s
	}
	for _, s := range spans {
		seen[fmt.Sprint(s.Kind, " ", s.Path(), " ", s.Attributes["http.response.status_code"])]++
		if s.Text("network.protocol.version") != "2" {
			t.Errorf("not over HTTP/2: %s", s.Line)
		}
		if parent := byID[s.ParentID]; s.Kind == "server" && (parent == nil || parent.Kind != "client" || parent.Path() != s.Path()) {
			t.Errorf("not under the request that it answers: %s", s.Line)
		}
	}
	want := map[string]int{"client /item/one 200": 1000, "server /item/one 200": 1000, "client /status/404/two 404": 1000, "server /status/404/two 404": 1000}
	if !maps.Equal(seen, want) {
		t.Errorf("spans of %v, want %v", seen, want)
	}
}

// TestUpgradeToHTTP2 has clients begin with HTTP/1: the answer to the first request comes over HTTP/2, and so does what is asked then.
func TestUpgradeToHTTP2(t *testing.T) {
	for _, test := range []struct {
		name  string
		args  []string
		paths map[string]int // their status
	}{
		{"nghttp", []string{"-u", "-n", "URL/first", "URL/second", "URL/missing"}, map[string]int{"/first": 200, "/second": 200, "/missing": 404}},
		{"nghttp", []string{"-u", "-n", "URL/missing"}, map[string]int{"/missing": 404}},
		{"curl", []string{"-sS", "--http2", "URL/first", "URL/second"}, map[string]int{"/first": 200, "/second": 200}},
		{"curl", []string{"-sS", "--http2", "-H", "Connection: Upgrade, HTTP2-Settings", "-d", "a body", "URL/first"}, map[string]int{"/first": 200}},
		{"curl", []string{"-sS", "--http2-prior-knowledge", "URL/first"}, map[string]int{"/first": 200}},
	} {
		t.Run(strings.Join(append([]string{test.name}, test.args...), " "), func(t *testing.T) {
			cgroup := servers.NewCgroup(t)
			server := servers.H2C(t, servers.Options{Cgroup: cgroup})
			agent := StartAgent(t, AgentOptions{Select: []string{"--cgroup", cgroup.Path}})
			var args []string
			for _, a := range test.args {
				args = append(args, strings.Replace(a, "URL", "http://"+server.Addr, 1))
			}
			client := servers.Run(t, servers.Options{Cgroup: cgroup}, test.name, args...)
			<-client.Done()
			n := 2 * len(test.paths)
			agent.WaitSpans(n)
			spans, summary := agent.Stop()
			NothingLost(t, summary, n)
			byID, seen := map[string]*Span{}, map[string]bool{}
			for _, s := range spans {
				byID[s.SpanID] = s
			}
			for _, s := range spans {
				seen[s.Kind+s.Path()] = true
				if s.Text("network.protocol.version") != "2" || s.Attributes["http.response.status_code"] != float64(test.paths[s.Path()]) {
					t.Errorf("not what was answered over HTTP/2: %s", s.Line)
				}
				if parent := byID[s.ParentID]; s.Kind == "server" && (parent == nil || parent.Kind != "client" || parent.Path() != s.Path()) {
					t.Errorf("not under the request that it answers: %s", s.Line)
				}
			}
			if len(seen) != n {
				t.Errorf("spans of %v, want both sides' of %v", seen, test.paths)
			}
		})
	}
}

// compareCalls holds the spans of both ends to what the client says of its calls; race: only the methods.
func compareCalls(t *testing.T, spans []*Span, truth []call, race bool) {
	t.Helper()
	want := tally(truth)
	byID := map[string]*Span{}
	var client, server []call
	for _, s := range spans {
		byID[s.SpanID] = s
	}
	for _, s := range spans {
		if s.Name != s.Text("rpc.method") || s.Text("rpc.system.name") != "grpc" || s.End < s.Start {
			t.Errorf("not a call: %s", s.Line)
		}
		if s.Kind == "client" {
			client = append(client, spanCall(s))
			continue
		}
		server = append(server, spanCall(s))
		if parent := byID[s.ParentID]; parent == nil || parent.Kind != "client" || parent.Name != s.Name || parent.TraceID != s.TraceID {
			t.Errorf("not under the call that it answers: %s", s.Line)
		}
	}
	for side, got := range map[string][]call{"client": client, "server": server} {
		if have := tally(got); !race && !maps.Equal(have, want) {
			t.Errorf("%s spans are of %v, want %v", side, have, want)
		}
		if have, want := tally(withoutCodes(got)), tally(withoutCodes(truth)); !maps.Equal(have, want) {
			t.Errorf("%s spans are of %v, want %v", side, have, want)
		}
		for _, c := range got {
			if race && !slices.Contains([]string{"OK", "CANCELLED", "DEADLINE_EXCEEDED", "connection_closed", "connection_reset"}, c.Code) {
				t.Errorf("%s span of %v", side, c)
			}
		}
	}
}

func withoutCodes(calls []call) (methods []call) {
	for _, c := range calls {
		methods = append(methods, call{Method: c.Method})
	}
	return methods
}
