// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"breadcrumb/probes/protocol/sql"
	"breadcrumb/test/e2e/servers"
)

// TestPgBouncer has clients ask PostgreSQL through a proxy that serves them all with one thread, over fewer connections than they
// have: both ends of both connections have their spans, the same in all, in one trace.
func TestPgBouncer(t *testing.T) {
	const clients, transactions, connections = 6, 100, 3
	for _, mode := range []string{"simple", "extended"} {
		t.Run(mode, func(t *testing.T) {
			k := newTalk(t, sql.PostgreSQL)
			proxy := servers.PgBouncer(t, servers.Options{Cgroup: k.cgroup}, k.db, connections)
			k.trace()
			k.env = append(k.env, fmt.Sprint("PGPORT=", proxy.Port))
			var running []*servers.Process
			for i := range clients {
				running = append(running, k.start(nil, "pgbench", "-n", "-M", mode, "-t", strconv.Itoa(transactions), "-f", k.script(throughProxy(i))))
			}
			for _, p := range running {
				<-p.Done()
			}
			log := k.db.Statements(t)
			asked := clients * transactions * 8
			// What it sets up a connection with is the proxy's own.
			if own := len(log) - asked; own < 0 || own > connections {
				t.Errorf("%d statements in the log, of which clients made %d", len(log), asked)
			}
			k.agent.WaitSpans(2*asked + 2*len(log))
			spans, summary := k.agent.Stop()
			NothingLost(t, summary, 2*asked+2*len(log))
			front, back := endsOf(spans)
			k.compare(log, back)
			sides(t, front)
			right, none := passedOn(t, front, back)
			t.Logf("parents within the proxy: %d right, %d none", right, none)
			// Those who wait for a connection and ask the same, as for BEGIN, are not told apart.
			if right < asked*9/10 {
				t.Errorf("%d of %d have a parent", right, asked)
			}
		})
	}
}

// throughProxy is a script of eight statements, of which most tell who asks by the name of a column.
func throughProxy(client int) string {
	var script strings.Builder
	fmt.Fprint(&script, "\\set value random(1, 1000)\n")
	for n := range 4 {
		fmt.Fprintf(&script, "SELECT pg_sleep(:value / 1e6) AS call_%d_%d;\n", client, n)
	}
	fmt.Fprintf(&script, "BEGIN;\nSELECT :value AS call_%d_4;\nSELECT :value AS call_%d_5;\nEND;\n", client, client)
	return script.String()
}

// endsOf splits spans into those of the connections of clients to the proxy, and of the proxy's own.
func endsOf(spans []*Span) (front, back []*Span) {
	for _, s := range spans {
		if (s.Service() == "pgbouncer") == (s.Kind == "server") {
			front = append(front, s)
		} else {
			back = append(back, s)
		}
	}
	return front, back
}

// passedOn holds the parents of the proxy's calls to what it was asked: the same, by the same, once, and at the time.
func passedOn(t *testing.T, front, back []*Span) (right, none int) {
	t.Helper()
	var m Mismatches
	requests := map[string]*Span{}
	for _, s := range Select(front, "", "server") {
		requests[s.SpanID] = s
	}
	for _, s := range Select(back, "", "client") {
		if s.Text("db.operation.name") == "SET" {
			continue // the proxy's own, for whoever comes next
		}
		if s.ParentID == "" {
			none++
			continue
		}
		request := requests[s.ParentID]
		delete(requests, s.ParentID)
		switch {
		case request == nil:
			m.add("not under a request, or as another is", "%s", s)
		case request.TraceID != s.TraceID || request.Text("db.query.text") != s.Text("db.query.text") || s.Start < request.Start || s.End > request.End:
			m.add("wrong parent", "%s\n\t\tunder %s", s, request)
		default:
			right++
		}
	}
	if err := m.Err(); err != nil {
		t.Error(err)
	}
	return right, none
}
