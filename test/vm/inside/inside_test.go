// SPDX-License-Identifier: Apache-2.0

// Package inside holds the tests that run in the virtual machines of test/vm beside those of other packages:
// with one attachment, which BREADCRUMB_ATTACH names (but for TestCheck and TestCost), and few requests, for a machine that is emulated is a
// hundred times slower.
package inside

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"breadcrumb/bpf"
	"breadcrumb/probes/runtime/golang"
	"breadcrumb/probes/runtime/nodejs"
	"breadcrumb/probes/runtime/python"
	"breadcrumb/probes/runtime/tokio"
	"breadcrumb/test/e2e"
	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
	"breadcrumb/test/shop"

	"go.uber.org/zap/zaptest"
)

// attachment is the one to use.
var attachment *e2e.Attachment

func TestMain(m *testing.M) {
	for _, a := range e2e.Attachments {
		if a.Name == os.Getenv("BREADCRUMB_ATTACH") {
			attachment = a
		}
	}
	if os.Getenv("CI") != "vm" {
		fmt.Println("these tests run in virtual machines: make test-vm")
		os.Exit(0)
	}
	code := m.Run()
	servers.Clean()
	os.Exit(code)
}

// TestLoad loads and attaches every object, as the agent does.
func TestLoad(t *testing.T) {
	cfg := bpf.Default()
	cfg.Attach = attachment.Name
	core, err := bpf.Load(cfg)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Logf("attached by %s", core.Attachment)
	for name, load := range map[string]func() (io.Closer, error){
		"Go":     func() (io.Closer, error) { return golang.New(core, zaptest.NewLogger(t)) },
		"Python": func() (io.Closer, error) { return python.New(core, zaptest.NewLogger(t)) },
		"Node":   func() (io.Closer, error) { return nodejs.New(core) },
		"tokio":  func() (io.Closer, error) { return tokio.New(core) },
	} {
		probe, err := load()
		if err != nil {
			t.Errorf("%s: %+v", name, err)
		} else if err := probe.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := core.Close(); err != nil {
		t.Error(err)
	}
}

// TestServers traces a server of each of the kinds that BREADCRUMB_SERVERS names.
func TestServers(t *testing.T) {
	const requests = 100
	var kinds []servers.Kind
	var all []*servers.Server
	for _, name := range strings.Split(os.Getenv("BREADCRUMB_SERVERS"), ",") {
		kind := servers.Find(t, name)
		kinds, all = append(kinds, kind), append(all, kind.Start(t, servers.Options{}))
	}
	agent := e2e.TraceBy(t, attachment, all...)
	truth := make([][]drive.Exchange, len(all))
	for i, s := range all {
		var err error
		if truth[i], err = (drive.Plan{Addr: s.Addr, Requests: requests, Connections: 4, Trace: true}).Run(); err != nil {
			t.Fatalf("%s: %v", kinds[i].Name, err)
		}
	}
	agent.WaitSpans(len(all) * requests)
	spans, summary := agent.Stop()
	e2e.NothingLost(t, summary, len(all)*requests)
	for i, kind := range kinds {
		t.Run(kind.Name, func(t *testing.T) {
			if err := e2e.Compare(e2e.Select(spans, kind.Service, "server"), truth[i], e2e.Want{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnixSocket follows requests through nginx and a Unix socket to gunicorn.
func TestUnixSocket(t *testing.T) {
	const requests = 60
	s := servers.NginxUnix(t, servers.Options{})
	agent := e2e.TraceBy(t, attachment, s, s.Behind)
	truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 8, Trace: true}.Run()
	if err != nil {
		t.Fatal(err)
	}
	agent.WaitSpans(3 * requests)
	spans, summary := agent.Stop()
	e2e.NothingLost(t, summary, 3*requests)
	front, calls := e2e.Select(spans, "nginx", "server"), e2e.Select(spans, "nginx", "client")
	back := e2e.Select(spans, "wsgi_app", "server")
	for _, c := range []struct {
		what string
		err  error
	}{
		{"nginx's server spans", e2e.Compare(front, truth, e2e.Want{})},
		{"nginx's client spans", e2e.Compare(calls, truth, e2e.Want{Kind: "client", Foreign: true})},
		{"gunicorn's server spans", e2e.Compare(back, truth, e2e.Want{Foreign: true})},
		{"client spans under server spans", e2e.Joined(calls, front)},
		{"gunicorn's spans under client spans", e2e.Joined(back, calls)},
	} {
		if c.err != nil {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
}

// TestShop holds the parent of every span of the shop to the calls that were made.
func TestShop(t *testing.T) {
	const checkouts = 40
	s := shop.StartWithoutDatabase(t, servers.Options{})
	agent := e2e.TraceBy(t, attachment, s.All()...)
	truth, err := drive.Plan{
		Addr: s.Gateway.Addr, Requests: checkouts, Connections: 8, Trace: true,
		Request: func(i int) drive.Request { return drive.Request{Target: shop.Path(i)} },
	}.Run()
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for i := range truth {
		want += shop.Spans(i, false)
	}
	agent.WaitSpans(want)
	spans, summary := agent.Stop()
	e2e.NothingLost(t, summary, want)
	if err := e2e.Compare(e2e.Select(spans, shop.Gateway, "server"), truth, e2e.Want{Service: shop.Gateway}); err != nil {
		t.Errorf("checkouts: %v", err)
	}

	type end struct{ service, kind, method, path string }
	ends := map[end]*e2e.Span{}
	for _, span := range spans {
		ends[end{span.Service(), span.Kind, span.Text("http.request.method"), span.Path()}] = span
	}
	if len(ends) != len(spans) {
		t.Errorf("%d spans, of %d different requests", len(spans), len(ends))
	}
	under := func(child, parent end) {
		c, p := ends[child], ends[parent]
		if c == nil || p == nil {
			t.Errorf("missing: %v or %v", child, parent)
		} else if c.ParentID != p.SpanID || c.TraceID != p.TraceID {
			t.Errorf("%s\n\t\tis not under %s", c, p)
		}
	}
	for i := range truth {
		calls := shop.Calls(i)
		for _, c := range calls[1:] {
			by := calls[c.Under]
			client := end{c.From, "client", c.Method, c.Path}
			under(client, end{by.To, "server", by.Method, by.Path})
			under(end{c.To, "server", c.Method, c.Path}, client)
		}
	}
}
