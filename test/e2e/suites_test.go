// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"breadcrumb/probes/protocol/sql"
	"breadcrumb/test/e2e/servers"
)

// suite compiles the tests of a package that a module of the accuracy tests needs, and returns the program and the package's folder.
func suite(t *testing.T, pkg string) (exe, dir string) {
	t.Helper()
	run := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir = filepath.Join(servers.ModuleRoot(), "test/accuracy/testdata/sqlapp")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	exe = filepath.Join(t.TempDir(), "suite.test")
	run("test", "-c", "-o", exe, pkg)
	return exe, run("list", "-f", "{{.Dir}}", pkg)
}

// lastAsked is what is asked when a suite has ended.
const lastAsked = "SELECT 1 AS the_end_of_it"

// endSuite asks a last statement, ends the server and the agent, and holds the spans, which it returns, to the log.
func (k *talk) endSuite(least int) []*Span {
	k.t.Helper()
	if k.names == sql.MySQL {
		k.succeed("mariadb", append(k.mariadb("tcp"), "-e", lastAsked)...)
	} else {
		k.succeed("psql", "-X", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", lastAsked)
	}
	k.agent.WaitSpan(lastAsked, func(s *Span) bool {
		return s.Kind == "server" && strings.HasSuffix(s.Text("db.query.text"), " AS the_end_of_it")
	})
	log := k.db.Statements(k.t)
	spans, summary := k.agent.Stop()
	if summary.Total.Lost() > 0 {
		k.t.Errorf("the ledger says %v", summary.Total)
	}
	if k.names == sql.MySQL {
		k.compareTexts(log, spans, least)
	} else {
		k.compareSuite(log, spans, least)
	}
	return spans
}

// compareTexts holds the server's spans to MariaDB's log by how often a statement is in both: the log does not say which connection is
// which, and of what has failed it does not say for sure which one. It has the values of prepared statements in their text.
func (k *talk) compareTexts(log []servers.Statement, spans []*Span, least int) {
	k.t.Helper()
	reader, modes := sql.New(k.names, sql.Sanitised), map[int]*sql.Modes{}
	more := map[string]int{} // in the log than there are spans
	n := 0
	for _, s := range log {
		if s.Kind != "Query" && s.Kind != "Execute" {
			continue
		}
		if modes[s.Session] == nil {
			modes[s.Session] = new(sql.Modes)
		}
		more[valueless(k.want(reader, s, modes[s.Session]).Text)]++
		n++
	}
	for _, s := range Select(spans, filepath.Base(k.db.Process.Cmd.Path), "server") {
		if text := valueless(s.Text("db.query.text")); more[text] > 0 || s.Status.Code != "error" { // some fail before they are logged
			more[text]--
		}
	}
	var m Mismatches
	for text, n := range more {
		if n > 0 {
			m.add("missing", "%d of %q", n, text)
		} else if n < 0 {
			m.add("made up", "%d of %q", -n, text)
		}
	}
	if err := m.Err(); err != nil {
		k.t.Error(err)
	}
	k.t.Logf("%d statements in the log", n)
	if n < least {
		k.t.Errorf("%d statements in the log", n)
	}
}

// valueless is the beginning of a statement in which what may be the value of a parameter is one.
func valueless(text string) string {
	text = strings.NewReplacer("NULL", "?", "-?", "?").Replace(text)
	return text[:min(len(text), 500)]
}

// compareSuite holds the server's spans to its log: of each session the same statements, in their order, with their outcome; and the
// client's to those. A suite breaks off connections, asks for what the server refuses to look at, and so on:
//   - PostgreSQL does not log an empty statement, nor what it skips after an error, nor always what is cancelled before it is executed;
//   - who has gone does not see how a statement ends, and a server does not log that its client has gone;
//   - what is behind the captured part of an answer is not known, which the span says.
func (k *talk) compareSuite(log []servers.Statement, spans []*Span, least int) {
	k.t.Helper()
	reader := sql.New(k.names, sql.Sanitised)
	want, modes := map[string][]told{}, map[string]*sql.Modes{}
	for _, s := range log {
		key := strconv.Itoa(s.Session)
		if modes[key] == nil {
			modes[key] = new(sql.Modes)
		}
		if w := k.want(reader, s, modes[key]); w.Code != terminated && (w.Text != "" || w.Operation != "") {
			want[key] = append(want[key], w)
		}
	}
	var m Mismatches
	byID := map[string]*Span{}
	for _, s := range spans {
		byID[s.SpanID] = s
	}
	got, compared, unknown := map[string][]*Span{}, 0, 0
	server := Select(spans, filepath.Base(k.db.Process.Cmd.Path), "server") // the tests have servers of their own, too
	for key, list := range k.sessions(server, parentsOf(server, byID)) {
		got[key] = slices.DeleteFunc(list, unlogged)
	}
	for key, list := range got {
		for i, w := range want[key] {
			if i >= len(list) {
				m.add("missing", "%s: the last %d of %d: %s", key, len(want[key])-i, len(want[key]), w)
				break
			}
			// Those of a pipeline begin at once.
			same := i
			for same < len(list) && list[same].Start == list[i].Start && !agrees(list[same], w) {
				same++
			}
			if same == len(list) || list[same].Start != list[i].Start {
				m.add("not what the log says", "%s number %d: %s\n\t\twant %s", key, i, list[i], w)
				break // all that follows would be as well
			}
			list[i], list[same] = list[same], list[i]
			if list[i].Attributes["breadcrumb.unknown_fields"] != nil {
				unknown++
			}
			compared++
		}
		if len(list) > len(want[key]) {
			m.add("made up", "%s: %d of %d, the last: %s", key, len(list)-len(want[key]), len(list), list[len(list)-1])
		}
	}
	for key, list := range want {
		if got[key] == nil {
			m.add("missing", "%s: all %d: %s", key, len(list), list[0])
		}
	}
	if err := m.Err(); err != nil {
		k.t.Error(err)
	}
	k.t.Logf("%d statements as in the log, of which the outcome of %d is not known", compared, unknown)
	if compared < least || unknown > compared/30 {
		k.t.Errorf("%d statements, of which the outcome of %d is not known", compared, unknown)
	}
}

// agrees says whether a span is of what the log has: what it does not know, it does not say.
func agrees(s *Span, w told) bool {
	g := s.told()
	if s.Attributes["breadcrumb.unknown_fields"] != nil {
		return (g.Text == "" && g.Operation == w.Operation || g.Text == w.Text) && (g.Code == "" || g.Code == w.Code)
	}
	if strings.HasPrefix(g.Code, "connection_") {
		g.Code, w.Code = "", ""
	}
	return g == w
}

// terminated is the code of what a server answers that was told to end.
const terminated = "57P01"

// unlogged says of a server's span that it is of what the log does not have.
func unlogged(s *Span) bool {
	g := s.told()
	return g.Text == "" && g.Operation == "" && s.Attributes["breadcrumb.withheld"] == nil || g.Code == "pipeline_aborted" || g.Code == terminated
}

// parentsOf are the spans of clients above those of servers.
func parentsOf(spans []*Span, byID map[string]*Span) map[*Span]*Span {
	parents := map[*Span]*Span{}
	for _, s := range spans {
		parents[s] = byID[s.ParentID]
	}
	return parents
}

// TestDriversOwnTests has the tests of drivers ask: what nobody else would.
func TestDriversOwnTests(t *testing.T) {
	for _, test := range []struct {
		name, pkg string
		names     sql.Dialect
		skip      string // what asks others than the server, floods it, or says more at once than is captured; MariaDB: what changes the modes
		least     int
	}{
		{"pq", "github.com/lib/pq", sql.PostgreSQL, "", 1000},
		{"pgx", "github.com/jackc/pgx/v5", sql.PostgreSQL, "Stress|Timeout|TestConnSendBatchMany|TestQueryErrorWhileReturningRows|TestListenNotifyWhileBusyIsSafe", 2500},
		{"mysql", "github.com/go-sql-driver/mysql", sql.MySQL, "TestConnectorReturnsTimeout|TestLongData|TestPreparedManyCols|TestInsertRetrieveEscapedData", 500},
	} {
		t.Run(test.name, func(t *testing.T) {
			exe, dir := suite(t, test.pkg)
			k := newTalk(t, test.names)
			k.trace()
			if test.names == sql.PostgreSQL {
				k.succeed("psql", "-X", "-c", "CREATE USER pqgo SUPERUSER", "-c", "CREATE DATABASE pqgo OWNER pqgo", "-c", "CREATE DATABASE pgx_test")
				k.env = append(k.env, "PGUSER=pqgo", "PGDATABASE=pqgo", "PGX_TEST_DATABASE=postgres://postgres@"+k.db.Addr+"/pgx_test")
			} else {
				k.succeed("mariadb", append(k.mariadb("tcp"), "-e", "CREATE DATABASE gotest")...)
				k.env = append(k.env, "MYSQL_TEST_ADDR="+k.db.Addr)
			}
			// Some of its tests fail, for want of TLS or of other servers: what they ask is seen all the same.
			p := servers.Run(t, servers.Options{Cgroup: k.cgroup, Env: k.env, Dir: dir}, exe, "-test.short", "-test.timeout=5m", "-test.skip", cmp.Or(test.skip, "^$"))
			<-p.Done()
			k.endSuite(test.least)
		})
	}
}
