// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// script is a conversation with a server, and what its spans must say.
type script struct {
	name string
	only string // the one server that can do it, or empty
	talk func(d *dialogue)
}

// dialogue is a script being played.
type dialogue struct {
	*testing.T
	server *servers.Server
	id     string
	truth  []drive.Exchange
	checks map[string]func(*Span) error
}

// open connects.
func (d *dialogue) open() *drive.Conn {
	d.Helper()
	conn, err := drive.Dial(d.server.Network, d.server.Addr)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close() })
	return conn
}

// path is a target that no other request has.
func (d *dialogue) path(format string, args ...any) string {
	return fmt.Sprintf(format, args...) + fmt.Sprintf("/%s-%d", d.id, len(d.truth))
}

// expect adds an exchange for which there must be one span.
func (d *dialogue) expect(x drive.Exchange, checks ...func(*Span) error) {
	d.truth = append(d.truth, x)
	d.checks[x.Path] = func(s *Span) error {
		var errs []error
		for _, check := range checks {
			errs = append(errs, check(s))
		}
		return errors.Join(errs...)
	}
}

// do makes a request that must succeed and expects its span.
func (d *dialogue) do(conn *drive.Conn, r drive.Request, status int, checks ...func(*Span) error) {
	d.Helper()
	x := conn.Do(r)
	if x.Err != nil || x.Status != status {
		d.Fatalf("%s %s: status %d, want %d: %v", x.Method, x.Target, x.Status, status, x.Err)
	}
	d.expect(x, checks...)
}

// has checks an attribute.
func has(key string, want any) func(*Span) error {
	return func(s *Span) error {
		if got := s.Attributes[key]; got != want {
			return fmt.Errorf("%s is %#v, want %#v", key, got, want)
		}
		return nil
	}
}

// lacks checks that an attribute is not there.
func lacks(key string) func(*Span) error {
	return func(s *Span) error {
		if got, ok := s.Attributes[key]; ok {
			return fmt.Errorf("%s is %#v, want none", key, got)
		}
		return nil
	}
}

// failed checks that the span says of what it died, and that it is an error.
func failed(s *Span) error {
	if s.Text("error.type") == "" || s.Status.Code != "error" {
		return fmt.Errorf("error.type is %q and the status %q, want both to tell of an error", s.Text("error.type"), s.Status.Code)
	}
	return nil
}

func named(name string) func(*Span) error {
	return func(s *Span) error {
		if s.Name != name {
			return fmt.Errorf("the name is %q, want %q", s.Name, name)
		}
		return nil
	}
}

func coded(code string) func(*Span) error {
	return func(s *Span) error {
		if s.Status.Code != code {
			return fmt.Errorf("the status is %q, want %q", s.Status.Code, code)
		}
		return nil
	}
}

// write sends bytes as they are.
func (d *dialogue) write(w io.Writer, text string) {
	d.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		d.Fatal(err)
	}
}

// waitRead waits until the server has read everything that was sent: a reset discards what it has not.
// The connection must have been used before.
func waitRead(t testing.TB, conn *drive.Conn) {
	t.Helper()
	// The line of the server's end, as a little-endian machine prints it, which may be an IPv6 socket: both
	// addresses, and the state "established".
	line := func(prefix string) string {
		address := func(a net.Addr) string {
			ip := a.(*net.TCPAddr).IP.To4()
			return fmt.Sprintf("%s%02X%02X%02X%02X:%04X ", prefix, ip[3], ip[2], ip[1], ip[0], a.(*net.TCPAddr).Port)
		}
		return ": " + address(conn.RemoteAddr()) + address(conn.LocalAddr()) + "01 "
	}
	tables := map[string]string{"/proc/net/tcp": line(""), "/proc/net/tcp6": line("0000000000000000FFFF0000")}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		found := false
		for file, want := range tables {
			table, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			_, rest, ok := strings.Cut(string(table), want)
			found = found || ok
			if queues, _, _ := strings.Cut(rest, " "); strings.HasSuffix(queues, ":00000000") {
				return
			}
		}
		if !found {
			t.Fatalf("no line holds any of %q", tables)
		}
	}
	t.Fatal("the server does not read")
}

var scripts = []script{
	{name: "HEAD has a length and no body", talk: func(d *dialogue) {
		conn := d.open()
		for range 3 {
			d.do(conn, drive.Request{Method: "HEAD", Target: d.path("/item")}, 200, named("HEAD"))
			d.do(conn, drive.Request{Target: d.path("/item")}, 200, named("GET"))
		}
	}},
	{name: "204 and 304 have no body", talk: func(d *dialogue) {
		conn := d.open()
		for range 3 {
			d.do(conn, drive.Request{Target: d.path("/status/204")}, 204)
			d.do(conn, drive.Request{Target: d.path("/status/304")}, 304)
			d.do(conn, drive.Request{Target: d.path("/item")}, 200, coded("unset"))
		}
	}},
	{name: "a server's error is an error and a client's is not", talk: func(d *dialogue) {
		conn := d.open()
		d.do(conn, drive.Request{Target: d.path("/status/404")}, 404, coded("unset"), lacks("error.type"))
		d.do(conn, drive.Request{Target: d.path("/status/500")}, 500, coded("error"), has("error.type", "500"))
		d.do(conn, drive.Request{Target: d.path("/status/503")}, 503, coded("error"), has("error.type", "503"))
		d.do(conn, drive.Request{Target: d.path("/item")}, 200, coded("unset"), lacks("error.type"))
	}},
	{name: "chunked answers with trailers", talk: func(d *dialogue) {
		conn := d.open()
		for _, n := range []int{0, 1, 2, 50} {
			d.do(conn, drive.Request{Target: d.path("/chunked/%d", n)}, 200)
			d.do(conn, drive.Request{Target: d.path("/item")}, 200)
		}
	}},
	{name: "chunked requests with trailers", talk: func(d *dialogue) {
		conn := d.open()
		for _, body := range []string{"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;ext=\"1\"\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"} {
			d.do(conn, drive.Request{Method: "POST", Target: d.path("/upload"), Body: []byte(body),
				Header: []string{"Transfer-Encoding: chunked", "Trailer: X-Sum"}}, 200, named("POST"))
			d.do(conn, drive.Request{Target: d.path("/item")}, 200)
		}
	}},
	{name: "a body that looks like requests", talk: func(d *dialogue) {
		conn := d.open()
		body := strings.Repeat("GET /item/not-a-request HTTP/1.1\r\nHost: x\r\n\r\n", 40)
		d.do(conn, drive.Request{Method: "POST", Target: d.path("/upload"), Body: []byte(body)}, 200)
		d.do(conn, drive.Request{Target: d.path("/item")}, 200)

		// In writes of their own.
		head, x := conn.Head(drive.Request{Method: "POST", Target: d.path("/upload"), Body: []byte(body)})
		x.Before = time.Now().UnixNano()
		d.write(conn, string(head))
		for line := range strings.Lines(body) {
			d.write(conn, line)
		}
		if err := conn.Receive(&x); err != nil {
			d.Fatal(err)
		}
		d.expect(x)
		d.do(conn, drive.Request{Target: d.path("/item")}, 200)
	}},
	{name: "large bodies both ways", talk: func(d *dialogue) {
		conn := d.open()
		for range 2 {
			d.do(conn, drive.Request{Method: "POST", Target: d.path("/upload"), Body: make([]byte, 5<<20)}, 200)
			d.do(conn, drive.Request{Target: d.path("/large/%d", 5<<20)}, 200)
			d.do(conn, drive.Request{Target: d.path("/item")}, 200)
		}
	}},
	{name: "100-continue", talk: func(d *dialogue) {
		conn := d.open()
		for range 2 {
			body := "what was asked for"
			head, x := conn.Head(drive.Request{Method: "POST", Target: d.path("/upload"),
				Header: []string{"Expect: 100-continue", fmt.Sprint("Content-Length: ", len(body))}})
			x.Before = time.Now().UnixNano()
			d.write(conn, string(head))
			if err := conn.ReceiveInterim(&x); err != nil {
				d.Fatal(err)
			}
			d.write(conn, body)
			if err := conn.Receive(&x); err != nil {
				d.Fatal(err)
			}
			d.expect(x)
			d.do(conn, drive.Request{Target: d.path("/item")}, 200)
		}
	}},
	{name: "an answer that begins before the request has ended", talk: func(d *dialogue) {
		conn := d.open()
		head, x := conn.Head(drive.Request{Method: "POST", Target: d.path("/refuse"), Header: []string{"Content-Length: 10000000"}})
		x.Before = time.Now().UnixNano()
		d.write(conn, string(head))
		d.write(conn, strings.Repeat("x", 1000))
		if err := conn.Receive(&x); err != nil {
			d.Fatal(err)
		}
		conn.Close()
		d.expect(x, has("http.response.status_code", 413.0))
	}},
	{name: "upgrade to another protocol", talk: func(d *dialogue) {
		conn := d.open()
		x := conn.Do(drive.Request{Target: d.path("/upgrade"), Header: []string{"Connection: Upgrade", "Upgrade: echo"}})
		if x.Err != nil || x.Status != 101 {
			d.Fatalf("%+v", x)
		}
		d.expect(x, has("http.response.status_code", 101.0), coded("unset"))
		// What follows looks like HTTP and is none.
		const words = "GET /item/opaque HTTP/1.1\r\nHost: x\r\n\r\n"
		for range 5 {
			d.write(conn, words)
			echo := make([]byte, len(words))
			if _, err := io.ReadFull(conn.Buffered(), echo); err != nil || string(echo) != words {
				d.Fatalf("%q %v", echo, err)
			}
		}
	}},
	{name: "heads in pieces", talk: func(d *dialogue) {
		conn := d.open()
		for _, size := range []int{1, 2, 3, 7, 16, 40} {
			x, err := conn.SendSplit(drive.Request{Target: d.path("/item"), Trace: true, TraceState: "a=1"}, size)
			if err == nil {
				err = conn.Receive(&x)
			}
			if err != nil {
				d.Fatal(err)
			}
			d.expect(x)
			x, err = conn.SendSplit(drive.Request{Method: "POST", Target: d.path("/upload"), Body: []byte("in pieces too"), Trace: true}, size)
			if err == nil {
				err = conn.Receive(&x)
			}
			if err != nil {
				d.Fatal(err)
			}
			d.expect(x)
		}
	}},
	{name: "a long head", talk: func(d *dialogue) {
		conn := d.open()
		for _, size := range []int{1000, 4000, 9000, 14000} {
			fill := "X-Fill: " + strings.Repeat("y", size)
			d.do(conn, drive.Request{Target: d.path("/item"), Header: []string{fill}}, 200)
			d.do(conn, drive.Request{Target: d.path("/item")}, 200)
		}
	}},
	{name: "a very long head", only: "go", talk: func(d *dialogue) {
		conn := d.open()
		for _, size := range []int{30_000, 60_000, 200_000} {
			d.do(conn, drive.Request{Target: d.path("/item"), Header: []string{"X-Fill: " + strings.Repeat("y", size)}}, 200)
			d.do(conn, drive.Request{Target: d.path("/item"), Trace: true}, 200)
		}
	}},
	{name: "pipelining", talk: func(d *dialogue) {
		for _, depth := range []int{2, 5, 16} {
			truth, err := drive.Plan{Network: d.server.Network, Addr: d.server.Addr, Requests: 10 * depth, Connections: 2, Depth: depth, Trace: depth == 5}.Run()
			if err != nil {
				d.Fatal(err)
			}
			for _, x := range truth {
				d.expect(x)
			}
		}
	}},
	{name: "pipelining with answers of all kinds", talk: func(d *dialogue) {
		conn := d.open()
		requests := []drive.Request{
			{Target: d.path("/status/204") + "-a"}, {Method: "HEAD", Target: d.path("/item") + "-b"}, {Target: d.path("/chunked/3") + "-c"},
			{Method: "POST", Target: d.path("/upload") + "-d", Body: []byte("GET / HTTP/1.1\r\n\r\n")}, {Target: d.path("/status/304") + "-e"},
			{Target: d.path("/sleep/20") + "-f"}, {Target: d.path("/item") + "-g"},
		}
		var all []byte
		exchanges := make([]drive.Exchange, len(requests))
		for i, r := range requests {
			var head []byte
			head, exchanges[i] = conn.Head(r)
			exchanges[i].Before = time.Now().UnixNano()
			all = append(append(all, head...), r.Body...)
		}
		d.write(conn, string(all))
		for i := range exchanges {
			if err := conn.Receive(&exchanges[i]); err != nil {
				d.Fatal(err)
			}
			d.expect(exchanges[i])
		}
	}},
	{name: "a connection for each request", talk: func(d *dialogue) {
		truth, err := drive.Plan{Network: d.server.Network, Addr: d.server.Addr, Requests: 300, Connections: 8, Fresh: true, Trace: true}.Run()
		if err != nil {
			d.Fatal(err)
		}
		for _, x := range truth {
			d.expect(x)
		}
	}},
	{name: "HTTP/1.0", talk: func(d *dialogue) {
		for range 3 {
			conn := d.open()
			path := d.path("/item")
			x := drive.Exchange{Method: "GET", Target: path, Path: path, Before: time.Now().UnixNano()}
			d.write(conn, "GET "+path+" HTTP/1.0\r\n\r\n")
			if err := conn.Receive(&x); err != nil {
				d.Fatal(err)
			}
			d.expect(x, has("network.protocol.version", "1.0"))
			conn.Close()
		}
	}},
	{name: "queries, and secrets in them", talk: func(d *dialogue) {
		conn := d.open()
		d.do(conn, drive.Request{Target: d.path("/item") + "?q=shoes&page=2"}, 200, has("url.query", "q=shoes&page=2"))
		d.do(conn, drive.Request{Target: d.path("/item") + "?q=shoes&sig=abcdef&X-Goog-Signature=1"}, 200,
			has("url.query", "q=shoes&sig=REDACTED&X-Goog-Signature=REDACTED"))
		d.do(conn, drive.Request{Target: d.path("/item")}, 200, lacks("url.query"))
	}},
	{name: "the target in absolute form", only: "go", talk: func(d *dialogue) {
		conn := d.open()
		path := d.path("/item")
		x := conn.Do(drive.Request{Target: "http://" + d.server.Addr + path})
		x.Path = path
		if x.Err != nil || x.Status != 200 {
			d.Fatalf("%+v", x)
		}
		d.expect(x)
	}},
	{name: "a method that is not known", talk: func(d *dialogue) {
		conn := d.open()
		x := conn.Do(drive.Request{Method: "PROPFIND", Target: d.path("/item")})
		if x.Err != nil || x.Status != 200 {
			d.Fatalf("%+v", x)
		}
		x.Method = "_OTHER"
		d.expect(x, named("HTTP"), has("http.request.method_original", "PROPFIND"))
		d.do(conn, drive.Request{Target: d.path("/item")}, 200)
	}},
	{name: "a client that goes away before the answer", talk: func(d *dialogue) {
		for i := range 4 {
			conn := d.open()
			d.do(conn, drive.Request{Target: d.path("/item")}, 200)
			x, err := conn.Send(drive.Request{Target: d.path("/sleep/50")})
			if err != nil {
				d.Fatal(err)
			}
			waitRead(d, conn)
			if i%2 == 0 {
				conn.Reset()
			} else {
				conn.Close()
			}
			// The server may still write an answer that nobody reads, or notice.
			x.After = 1 << 62
			d.truth = append(d.truth, x)
			d.checks[x.Path] = func(s *Span) error {
				if s.Number("http.response.status_code") == 200 {
					return nil
				}
				return errors.Join(failed(s), lacks("http.response.status_code")(s))
			}
		}
	}},
	{name: "a client that goes away in the middle of its body", talk: func(d *dialogue) {
		for i := range 4 {
			conn := d.open()
			d.do(conn, drive.Request{Target: d.path("/item")}, 200)
			head, x := conn.Head(drive.Request{Method: "POST", Target: d.path("/upload"), Header: []string{"Content-Length: 100000"}})
			x.Before, x.After = time.Now().UnixNano(), 1<<62
			d.write(conn, string(head)+"not all of it")
			waitRead(d, conn)
			if i%2 == 0 {
				conn.Reset()
			} else {
				conn.Close()
			}
			d.truth = append(d.truth, x)
			d.checks[x.Path] = func(s *Span) error {
				// Go's handler sees the error and answers 400 into the void.
				if code := s.Number("http.response.status_code"); code == 400 {
					return nil
				}
				return errors.Join(failed(s), lacks("http.response.status_code")(s))
			}
		}
	}},
	{name: "a server that cuts the connection before its answer", talk: func(d *dialogue) {
		for range 3 {
			conn := d.open()
			x := conn.Do(drive.Request{Target: d.path("/cut/head")})
			if x.Err == nil || x.Status != 0 {
				d.Fatalf("%+v", x)
			}
			d.expect(x, failed, lacks("http.response.status_code"))
		}
	}},
	{name: "a server that cuts the connection in the middle of its answer", talk: func(d *dialogue) {
		for range 3 {
			conn := d.open()
			x := conn.Do(drive.Request{Target: d.path("/cut/body")})
			if x.Err == nil || x.Status != 200 {
				d.Fatalf("%+v", x)
			}
			d.expect(x, failed, has("http.response.status_code", 200.0))
		}
	}},
	{name: "many slow requests at once", talk: func(d *dialogue) {
		var mu sync.Mutex
		var group sync.WaitGroup
		for i := range 40 {
			conn, path := d.open(), d.path("/sleep/%d", 20+i%5*10)+fmt.Sprint("-", i)
			group.Go(func() {
				x := conn.Do(drive.Request{Target: path, Trace: i%2 == 0})
				mu.Lock()
				defer mu.Unlock()
				if x.Err != nil || x.Status != 200 {
					d.Errorf("%+v", x)
				}
				d.expect(x)
			})
		}
		group.Wait()
	}},
}

func TestScriptsAgainstServers(t *testing.T) {
	for _, name := range []string{"go", "node"} {
		t.Run(name, func(t *testing.T) {
			s := servers.Find(t, name).Start(t, servers.Options{})
			for i, sc := range scripts {
				if sc.only != "" && sc.only != name {
					continue
				}
				t.Run(sc.name, func(t *testing.T) {
					d := &dialogue{T: t, server: s, id: fmt.Sprint(i), checks: map[string]func(*Span) error{}}
					sc.talk(d)
					if len(d.checks) != len(d.truth) {
						t.Errorf("%d paths of %d requests", len(d.checks), len(d.truth))
					}
				})
			}
		})
	}
}

// TestHTTP plays every script to two servers that do the work very differently.
func TestHTTP(t *testing.T) {
	for _, name := range []string{"go", "node"} {
		t.Run(name, func(t *testing.T) { playScripts(t, nil, name) })
	}
}

func playScripts(t *testing.T, attach *Attachment, name string) {
	s := servers.Find(t, name).Start(t, servers.Options{})
	agent := TraceBy(t, attach, s)
	var played []*dialogue
	all := map[string]bool{}
	for i, sc := range scripts {
		if sc.only != "" && sc.only != name {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			d := &dialogue{T: t, server: s, id: fmt.Sprintf("%s-%d", name, i), checks: map[string]func(*Span) error{}}
			sc.talk(d)
			for _, x := range d.truth {
				all[x.Path] = true
			}
			played = append(played, d)
		})
	}
	agent.waitPaths(t, all)
	spans, summary := agent.Stop()
	NothingLost(t, summary, len(all))
	byPath := ByPath(spans)
	for _, d := range played {
		var own []*Span
		for _, x := range d.truth {
			own = append(own, byPath[x.Path]...)
			delete(byPath, x.Path)
		}
		if err := compareScript(own, d); err != nil {
			t.Errorf("%s: %v", d.Name(), err)
		}
	}
	for _, list := range byPath {
		t.Errorf("not of any request: %s", list[0])
	}
}

// compareScript compares a script's spans with what it did, and with what it says of single spans.
func compareScript(spans []*Span, d *dialogue) error {
	var errs []error
	for i := range d.truth {
		x := &d.truth[i]
		for _, s := range spans {
			if s.Path() != x.Path {
				continue
			}
			if x.Status == 0 {
				x.Status = s.Number("http.response.status_code") // the script's own checks are about it
			}
			if check := d.checks[x.Path]; check != nil {
				if err := check(s); err != nil {
					errs = append(errs, fmt.Errorf("%w: %s", err, s))
				}
			}
		}
	}
	return errors.Join(append(errs, Compare(spans, d.truth, Want{}))...)
}

// waitPaths waits until there is a span for each path, and returns all spans of these paths.
func (a *Agent) waitPaths(t *testing.T, paths map[string]bool) []*Span {
	t.Helper()
	left := make(map[string]bool, len(paths))
	for p := range paths {
		left[p] = true
	}
	next := 0
	defer func() {
		if len(left) > 0 {
			t.Logf("%d paths are missing: %.500q", len(left), slices.Sorted(maps.Keys(left)))
		}
	}()
	a.wait(t, fmt.Sprintf("print spans of %d paths", len(paths)), func() bool {
		for ; next < len(a.spans); next++ {
			delete(left, a.spans[next].Path())
		}
		return len(left) == 0
	})
	var found []*Span
	for _, s := range a.Spans() {
		if paths[s.Path()] {
			found = append(found, s)
		}
	}
	return found
}
