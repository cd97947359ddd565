// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"

	"github.com/google/go-cmp/cmp"
)

// languages are the telemetry.sdk.language of each server's processes.
var languages = map[string]string{
	"go": "go", "go-stripped": "go", "go-proxy": "go", "python": "python", "gunicorn-sync": "python",
	"gunicorn-gthread": "python", "node": "nodejs", "nginx": "cpp", "nginx-proxy": "cpp", "nginx-unix": "cpp",
	"java": "java", "puma": "ruby", "webrick": "ruby", "php": "php",
}

// TestWholeSpan compares everything that a few spans hold.
func TestWholeSpan(t *testing.T) {
	for _, kind := range servers.Kinds {
		t.Run(kind.Name, func(t *testing.T) {
			s := kind.Start(t, servers.Options{})
			agent := Trace(t, s)
			conn, err := drive.Dial(s.Network, s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { conn.Close() }()
			requests := []drive.Request{
				{Target: "/item/1?q=2", Header: []string{"User-Agent: driver/1.0"}},
				{Target: "/item/2", Trace: true, TraceState: "vendor=value"},
				{Target: "/nowhere/3/4"},
			}
			if kind.Does&servers.Upload != 0 {
				requests = append(requests, drive.Request{Method: "POST", Target: "/upload/4", Body: []byte("twelve bytes")})
			}
			if kind.Does&servers.Status != 0 {
				requests = append(requests, drive.Request{Target: "/status/503/5"})
			}
			var want []Span
			var truth []drive.Exchange
			for _, r := range requests {
				x := conn.Do(r)
				if x.Err != nil {
					t.Fatal(x.Err)
				}
				truth = append(truth, x)
				want = append(want, wholeSpan(s, r, x))
				if conn.Closed {
					conn.Close()
					if conn, err = drive.Dial(s.Network, s.Addr); err != nil {
						t.Fatal(err)
					}
				}
			}
			n := len(requests)
			if kind.Proxy {
				n *= 2
			}
			agent.WaitSpans(n)
			all, _ := agent.Stop()
			spans := Select(all, "", "server")
			if err := Compare(spans, truth, Want{Service: kind.Service}); err != nil {
				t.Error(err)
			}
			byPath := ByPath(spans)
			for i, w := range want {
				list := byPath[truth[i].Path]
				if len(list) == 0 {
					continue
				}
				if diff := cmp.Diff(w, stripped(list[0])); diff != "" {
					t.Errorf("%s (- want, + got):\n%s", truth[i].Target, diff)
				}
				if err := checkResource(list[0], s, languages[kind.Name]); err != nil {
					t.Errorf("the resource: %v", err)
				}
			}
		})
	}
}

// wholeSpan is the server span of an exchange, but for what differs from run to run.
// https://opentelemetry.io/docs/specs/semconv/http/http-spans/
func wholeSpan(s *servers.Server, r drive.Request, x drive.Exchange) Span {
	host, port, _ := net.SplitHostPort(x.Local)
	peerPort, _ := strconv.Atoi(port)
	want := Span{
		ParentID:   x.SpanID,
		TraceState: x.TraceState,
		Name:       x.Method,
		Kind:       "server",
		Status:     Status{Code: "unset"},
		Scope:      Scope{Name: "breadcrumb"},
		Events:     []any{},
		Links:      []any{},
		Attributes: map[string]any{
			"http.request.method":       x.Method,
			"http.response.status_code": float64(x.Status),
			"url.scheme":                "http",
			"url.path":                  x.Path,
			"server.address":            "127.0.0.1",
			"server.port":               float64(s.Port),
			"client.address":            host,
			"network.peer.address":      host,
			"network.peer.port":         float64(peerPort),
			"network.protocol.version":  "1.1",
		},
	}
	if x.TraceID != "" {
		want.TraceID = x.TraceID
		want.Attributes["breadcrumb.parent.source"] = "header"
	}
	if _, query, ok := strings.Cut(r.Target, "?"); ok {
		want.Attributes["url.query"] = query
	}
	for _, line := range r.Header {
		if agent, ok := strings.CutPrefix(line, "User-Agent: "); ok {
			want.Attributes["user_agent.original"] = agent
		}
	}
	if x.Status >= 500 {
		want.Status.Code = "error"
		want.Attributes["error.type"] = strconv.Itoa(x.Status)
	}
	return want
}

// optional are attributes that the conventions leave to us and that a span may have.
var optional = []string{"client.port", "http.request.body.size", "http.response.body.size", "network.local.address",
	"network.local.port", "network.transport", "network.type", "network.protocol.name"}

// stripped is a span without what differs from run to run, and without what is compared elsewhere.
func stripped(s *Span) Span {
	c := *s
	if c.ParentID == "" {
		c.TraceID = ""
	}
	c.SpanID, c.Start, c.End, c.Line, c.Resource, c.Scope.Version = "", 0, 0, "", nil, ""
	c.Attributes = maps.Clone(s.Attributes)
	for _, key := range optional {
		delete(c.Attributes, key)
	}
	return c
}

// checkResource holds a span's resource to what /proc says of the process.
func checkResource(s *Span, server *servers.Server, language string) error {
	var m Mismatches
	number, _ := s.Resource["process.pid"].(float64)
	pid := int(number)
	if !slices.Contains(server.PIDs, pid) {
		m.add("process.pid", "%d is none of %v", pid, server.PIDs)
		return m.Err()
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return err
	}
	hostname, _ := os.Hostname()
	for key, want := range map[string]string{
		"process.executable.path": exe,
		"process.executable.name": filepath.Base(exe),
		"telemetry.sdk.language":  language,
		"telemetry.sdk.name":      "breadcrumb",
		"host.name":               hostname,
	} {
		if got := s.Resource[key]; got != want {
			m.add(key, "%v, want %s", got, want)
		}
	}
	if id, _ := s.Resource["service.instance.id"].(string); id == "" {
		m.add("service.instance.id", "missing")
	}
	return m.Err()
}

// TestWholeClientSpan compares everything that a client's spans hold.
func TestWholeClientSpan(t *testing.T) {
	s := servers.GoProxy(t, servers.Options{})
	agent := Trace(t, s, s.Behind)
	conn, err := drive.Dial(s.Network, s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, target := range []string{"/item/1?q=2", "/status/404/2", "/status/503/3"} {
		x := conn.Do(drive.Request{Target: target, Host: "shop.example:8080"})
		if x.Err != nil {
			t.Fatal(x.Err)
		}
		agent.WaitSpan(target, func(span *Span) bool { return span.Path() == x.Path && span.Service() == "goserver" })
		call := agent.WaitSpan(target, func(span *Span) bool { return span.Path() == x.Path && span.Kind == "client" })
		server := agent.WaitSpan(target, func(span *Span) bool {
			return span.Path() == x.Path && span.Service() == "goproxy" && span.Kind == "server"
		})
		want := Span{
			TraceID:  server.TraceID,
			ParentID: server.SpanID,
			Name:     "GET",
			Kind:     "client",
			Status:   Status{Code: "unset"},
			Scope:    Scope{Name: "breadcrumb"},
			Events:   []any{},
			Links:    []any{},
			Attributes: map[string]any{
				"http.request.method":       "GET",
				"http.response.status_code": float64(x.Status),
				// ReverseProxy sends the Host of the target unless told otherwise.
				"url.full":                 "http://" + s.Behind.Addr + target,
				"server.address":           "127.0.0.1",
				"server.port":              float64(s.Behind.Port),
				"network.peer.address":     "127.0.0.1",
				"network.peer.port":        float64(s.Behind.Port),
				"network.protocol.version": "1.1",
				"breadcrumb.parent.source": "goroutine",
			},
		}
		if x.Status >= 400 {
			want.Status.Code = "error"
			want.Attributes["error.type"] = strconv.Itoa(x.Status)
		}
		if diff := cmp.Diff(want, stripped(call)); diff != "" {
			t.Errorf("%s (- want, + got):\n%s", target, diff)
		}
	}
	agent.Stop()
}
