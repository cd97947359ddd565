// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed testdata/hello.py testdata/nginx.conf
var programs embed.FS

// kind is a server that is measured.
type kind struct {
	name, title string
	needs       string   // the program that has to be installed, if any, or a pattern for its path
	path        string   // what is requested
	parts       []string // that are measured; nil: all
	spans       int64    // that a request makes; 0: one
	start       func(b *bench, cpus []int) (*server, error)
}

var (
	goKind = kind{name: "go", title: "Go", path: "/",
		start: func(b *bench, cpus []int) (*server, error) {
			return b.startServer(cpus, nil, b.hello)
		}}
	sdkKind = kind{name: "sdk", title: "Go with the OpenTelemetry SDK", path: "/",
		start: func(b *bench, cpus []int) (*server, error) {
			return b.startServer(cpus, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + b.sink.endpoint()}, b.sdk)
		}}
	pythonKind = kind{name: "python", title: "Python", needs: python, path: "/",
		start: func(b *bench, cpus []int) (*server, error) {
			script := filepath.Join(b.dir, "hello.py")
			if err := unpack("hello.py", script, nil); err != nil {
				return nil, err
			}
			return b.startServer(cpus, nil, python, script)
		}}
	grpcKind = kind{name: "grpc", title: "grpc-go, unary", parts: []string{throughput, cores, programRuns},
		start: (*bench).startGRPC}
	nginxKind = kind{name: "nginx", title: "nginx", needs: "nginx", path: "/small.txt",
		start: (*bench).startNginx}
)

// traced are the servers that run under the agent.
var traced = []kind{goKind, pythonKind, nginxKind, grpcKind, pgxKind, pgbenchKind}

// python is the system's own: what else is called python3 may be a script that starts one.
const python = "/usr/bin/python3"

// server is one that runs and accepts connections.
type server struct {
	process *process
	addr    string
	pids    []int  // that may answer, and the one that started them
	behind  []int  // what it asks, if that was started for it
	counter string // where it says what it has served; empty: addr
	asked   int64  // by pgbench
	forks   bool   // it has a process for each connection

	// What is not done over HTTP; nil: it is.
	saturate func(cpus []int, d time.Duration) (loadResult, error)
	total    func() (int64, error) // that it has served
	renew    func() error          // has it connect to what it asks anew
}

// unpack writes one of the embedded files, filled in with data unless that is nil.
func unpack(name, to string, data any) error {
	text, err := programs.ReadFile("testdata/" + name)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	if data != nil {
		t, err := template.New(name).Parse(string(text))
		if err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		var out bytes.Buffer
		if err := t.Execute(&out, data); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		text = out.Bytes()
	}
	if err := os.WriteFile(to, text, 0o644); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return nil
}

// startServer starts a server that takes its address as the last argument.
func (b *bench) startServer(cpus []int, env []string, name string, args ...string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := b.start(launch{cpus: cpus, env: env}, name, append(args, addr)...)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: addr, pids: []int{p.pid()}}
	return s, p.until(b.ctx, "listened", func() bool { return listening(addr) })
}

// startNginx starts nginx with a worker for each CPU that it may use.
func (b *bench) startNginx(cpus []int) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	workers := len(cpus)
	if cpus == nil {
		workers = nginxWorkers
	}
	dir, err := os.MkdirTemp(b.dir, "nginx-")
	if err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := unpack("nginx.conf", config, map[string]any{"Dir": dir, "Addr": addr, "Workers": workers}); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "html"), 0o755); err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	small := strings.Repeat("The quick brown fox jumps over the lazy dog. 0123456789 abcdefg\n", 16)
	if err := os.WriteFile(filepath.Join(dir, "html", "small.txt"), []byte(small), 0o644); err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	p, err := b.start(launch{cpus: cpus, byTerm: true}, path, "-e", filepath.Join(dir, "error.log"), "-c", config)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: addr}
	err = p.until(b.ctx, "had its workers", func() bool {
		s.pids = append(children(p.pid()), p.pid())
		return len(s.pids) == workers+1 && listening(addr)
	})
	return s, err
}

// nginxWorkers is the number of workers when nginx may use every CPU.
const nginxWorkers = 2

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(url string) (string, error) {
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s: %.300s", url, res.Status, body)
	}
	return string(body), err
}

// meter counts the requests that a server has answered, by its own count: the only one that knows of
// those that a load generator has sent but does not wait for when its time is over.
type meter struct {
	s      *server
	asked  int64 // of nginx, which counts these requests too
	before int64
}

// reset starts to count. No agent may look on, which would see the question.
func (m *meter) reset() (err error) {
	m.before, err = m.total()
	return err
}

// served is the number of requests answered since reset.
func (m *meter) served() (int64, error) {
	now, err := m.total()
	return now - m.before, err
}

func (m *meter) total() (int64, error) {
	if m.s.total != nil {
		return m.s.total()
	}
	text, err := get("http://" + cmp.Or(m.s.counter, m.s.addr) + "/served")
	if err != nil {
		return 0, err
	}
	if !strings.HasPrefix(text, "Active connections") {
		return strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	}
	// https://nginx.org/en/docs/http/ngx_http_stub_status_module.html: the third line is "accepts
	// handled requests".
	lines := strings.Split(text, "\n")
	f := strings.Fields(lines[min(2, len(lines)-1)])
	if len(f) != 3 {
		return 0, fmt.Errorf("read the status of nginx: %q", text)
	}
	n, err := strconv.ParseInt(f[2], 10, 64)
	m.asked++
	return n - m.asked, err
}
