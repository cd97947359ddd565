// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"breadcrumb/probes/protocol/sql"
	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// drivers of the Go program that asks databases for each request.
var drivers = map[string]sql.Dialect{"pgx": sql.PostgreSQL, "postgres": sql.PostgreSQL, "mysql": sql.MySQL}

// sqlapp starts that program, which asks the database of the talk.
func (k *talk) sqlapp(driver string) *servers.Server {
	k.t.Helper()
	port := servers.FreePort(k.t)
	env := []string{fmt.Sprint("PORT=", port), "DRIVER=" + driver, "DATABASE=" + k.db.Addr}
	exe := servers.Build(k.t, "test/accuracy/testdata/sqlapp")
	return servers.Listening(k.t, servers.Run(k.t, servers.Options{Cgroup: k.cgroup, Env: env}, exe), port)
}

// get asks for a path and returns the status of the answer.
func get(t *testing.T, addr, path string) int {
	t.Helper()
	conn, err := drive.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close()
	x := conn.Do(drive.Request{Target: path})
	if x.Err != nil {
		t.Error(x.Err)
	}
	return x.Status
}

// succeeds asks for a path until that succeeds: a connection in a pool may have been lost.
func succeeds(t *testing.T, app *servers.Server, path string) {
	t.Helper()
	app.Process.WaitFor(t, "answered "+path, func() bool { return get(t, app.Addr, path) == http.StatusOK })
}

// ownParents holds the statements that tell for which request they are made to that: each has it as its parent, and is as long as it is.
func ownParents(t *testing.T, spans []*Span) (statements int) {
	t.Helper()
	var m Mismatches
	byID := map[string]*Span{}
	for _, s := range spans {
		byID[s.SpanID] = s
	}
	for _, s := range Select(spans, "sqlapp", "client") {
		_, call, ok := strings.Cut(s.Path(), "/call/")
		if !ok {
			continue
		}
		id, _, _ := strings.Cut(call, "/")
		statements++
		if p := byID[s.ParentID]; p == nil || p.Kind != "server" || !strings.HasSuffix(p.Text("url.path"), "/"+id) {
			m.add("not under its request", "%s\n\t\tunder %s", s, p)
		} else if s.Start < p.Start || s.End > p.End {
			m.add("not within its request", "%s\n\t\tunder %s", s, p)
		}
	}
	if err := m.Err(); err != nil {
		t.Error(err)
	}
	return statements
}

// TestDatabaseRestarts has a database end in the middle of a statement and come again: that statement has failed, and what is asked
// then is seen as before.
func TestDatabaseRestarts(t *testing.T) {
	for driver, names := range drivers {
		t.Run(driver, func(t *testing.T) {
			k := newTalk(t, names)
			app := k.sqlapp(driver)
			k.trace()
			for i := range 10 {
				succeeds(t, app, fmt.Sprint("/one/before", i))
			}
			var interrupted sync.WaitGroup
			interrupted.Go(func() {
				if code := get(t, app.Addr, "/slow/middle"); code != http.StatusInternalServerError {
					t.Errorf("status %d of what was interrupted", code)
				}
			})
			app.Process.WaitFor(t, "asked", func() bool { return k.db.Logged(t, "call_middle_0") })
			k.db.Restart(t)
			interrupted.Wait()
			for i := range 10 {
				succeeds(t, app, fmt.Sprint("/one/after", i))
			}
			app.Process.Stop()
			spans := k.endSuite(21)
			if n := ownParents(t, spans); n < 21 {
				t.Errorf("%d statements", n)
			}
			failed := 0
			for _, s := range ByPath(spans)["/call/middle/0"] {
				if s.Status.Code == "error" {
					failed++
				} else {
					t.Errorf("outcome: %s", s)
				}
			}
			if failed != 2 {
				t.Errorf("%d spans of what was interrupted", failed)
			}
		})
	}
}

// TestStatementOfSeconds has a statement take longer than anything waits for.
func TestStatementOfSeconds(t *testing.T) {
	for driver, names := range drivers {
		t.Run(driver, func(t *testing.T) {
			k := newTalk(t, names)
			app := k.sqlapp(driver)
			k.trace()
			succeeds(t, app, "/slow/long")
			app.Process.Stop()
			spans := k.endSuite(1)
			ownParents(t, spans)
			list := ByPath(spans)["/call/long/0"]
			if len(list) != 2 {
				t.Errorf("%d spans", len(list))
			}
			for _, s := range list {
				if d := time.Duration(s.End - s.Start); d < 3*time.Second || s.Status.Code != "unset" {
					t.Errorf("it took %v: %s", d, s)
				}
			}
		})
	}
}

// TestOneConnectionForAllRequests has requests at once take turns at a connection that outlives them all.
func TestOneConnectionForAllRequests(t *testing.T) {
	const requests = 200
	for driver, names := range drivers {
		t.Run(driver, func(t *testing.T) {
			k := newTalk(t, names)
			app := k.sqlapp(driver)
			k.trace()
			truth, err := drive.Plan{Addr: app.Addr, Requests: requests, Connections: 16,
				Request: func(i int) drive.Request { return drive.Request{Target: fmt.Sprint("/one/r", i)} }}.Run()
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range truth {
				if x.Status != http.StatusOK {
					t.Fatalf("%s: status %d", x.Target, x.Status)
				}
			}
			app.Process.Stop()
			spans := k.endSuite(requests)
			if n := ownParents(t, spans); n != requests {
				t.Errorf("%d statements, want %d", n, requests)
			}
		})
	}
}

// TestIdleInTransaction has a client keep a transaction open while others ask, and another one be thrown out for that: what passes
// between statements is in none of them, and what the server says unasked is none.
func TestIdleInTransaction(t *testing.T) {
	k := newTalk(t, sql.PostgreSQL)
	k.trace()
	in, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer say.Close()
	idle := k.start(in, "psql", "-X", "-A", "-t")
	in.Close()
	fmt.Fprintln(say, "BEGIN;\nCREATE TABLE kept AS SELECT 1 AS n;\nSELECT 'in the middle';")
	idle.WaitFor(t, "answered", func() bool { return strings.Contains(idle.Whole(), "in the middle") })
	k.succeed("psql", "-X", "-c", "SELECT 'by another'")
	fmt.Fprintln(say, "COMMIT;\nSET idle_in_transaction_session_timeout = 10;\nBEGIN;\nSELECT 'and then';")
	idle.WaitFor(t, "lost", func() bool { return k.db.Logged(t, "terminating connection due to idle-in-transaction timeout") })
	fmt.Fprintln(say, "\\q")
	<-idle.Done()
	spans := k.endSuite(8)
	of := func(kind, text string) *Span {
		for _, s := range Select(spans, "", kind) {
			if s.Text("db.query.text") == text {
				return s
			}
		}
		t.Fatalf("no %s's span of %s", kind, text)
		return nil
	}
	for _, kind := range []string{"client", "server"} {
		create, commit := of(kind, "CREATE TABLE kept AS SELECT ? AS n"), of(kind, "COMMIT")
		var other *Span
		for _, s := range Select(spans, "", kind) {
			if s.Text("db.query.text") == "SELECT ?" && s.Start > create.End && s.Start < commit.Start {
				other = s
			}
		}
		if other == nil {
			t.Errorf("nothing between %s and %s", create, commit)
		}
		for _, s := range Select(spans, "", kind) {
			if s.Status.Code != "unset" {
				t.Errorf("outcome: %s", s)
			}
		}
	}
}
