// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"breadcrumb/probes/protocol/sql"
	"breadcrumb/test/e2e/servers"
)

// talk is a database, and the agent on it and on the clients that a test starts.
type talk struct {
	t      *testing.T
	cgroup *servers.Cgroup
	db     *servers.Database
	agent  *Agent
	names  sql.Dialect
	env    []string
}

func newTalk(t *testing.T, names sql.Dialect) *talk {
	t.Helper()
	k := &talk{t: t, cgroup: servers.NewCgroup(t), names: names}
	o := servers.Options{Cgroup: k.cgroup}
	if names == sql.MySQL {
		k.db = servers.MariaDB(t, o)
		return k
	}
	k.db = servers.PostgreSQL(t, o)
	k.env = []string{"PGHOST=127.0.0.1", fmt.Sprint("PGPORT=", k.db.Port), "PGUSER=postgres", "PGDATABASE=postgres"}
	return k
}

func (k *talk) trace(flags ...string) {
	k.t.Helper()
	k.agent = StartAgent(k.t, AgentOptions{Select: []string{"--cgroup", k.cgroup.Path}, Config: largeRing, Flags: append([]string{"--output", "json"}, flags...)})
}

// bySocket has PostgreSQL's clients come by the Unix socket.
func (k *talk) bySocket() {
	k.env = append(k.env, "PGHOST="+k.db.Dir)
}

// start starts a client, with in to read from.
func (k *talk) start(in *os.File, name string, args ...string) *servers.Process {
	k.t.Helper()
	return servers.Run(k.t, servers.Options{Cgroup: k.cgroup, Env: k.env, Stdin: in}, name, args...)
}

// run runs a client to its end and returns what it wrote.
func (k *talk) run(name string, args ...string) string {
	k.t.Helper()
	p := k.start(nil, name, args...)
	<-p.Done()
	return p.Whole()
}

// succeed is run for a client that must end well.
func (k *talk) succeed(name string, args ...string) string {
	k.t.Helper()
	p := k.start(nil, name, args...)
	<-p.Done()
	if !p.Cmd.ProcessState.Success() {
		k.t.Fatalf("%s: %v\n%s", p.Cmd, p.Cmd.ProcessState, p.Tail())
	}
	return p.Whole()
}

// script writes a file for a client to read.
func (k *talk) script(text string) string {
	k.t.Helper()
	path := filepath.Join(k.t.TempDir(), "script")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		k.t.Fatal(err)
	}
	return path
}

// end ends the server and the agent. It returns what the server says that it was asked, and the spans, of which there must be two for
// each, and nothing lost.
func (k *talk) end() ([]servers.Statement, []*Span) {
	k.t.Helper()
	log := k.db.Statements(k.t)
	if k.names == sql.MySQL {
		log = statements(log)
	}
	k.agent.WaitSpans(2 * len(log))
	spans, summary := k.agent.Stop()
	NothingLost(k.t, summary, 2*len(log))
	return log, spans
}

// sides are the spans of both, which must belong together.
func sides(t *testing.T, spans []*Span) (client, server []*Span, parents map[*Span]*Span) {
	t.Helper()
	var m Mismatches
	byID, children := map[string]*Span{}, map[string]int{}
	for _, s := range spans {
		if byID[s.SpanID] != nil {
			m.add("span id twice", "%s", s)
		}
		byID[s.SpanID] = s
	}
	parents = map[*Span]*Span{}
	for _, s := range spans {
		if s.End < s.Start {
			m.add("ends before it starts", "%s", s)
		}
		if s.Kind == "client" {
			client = append(client, s)
			continue
		}
		server = append(server, s)
		p := byID[s.ParentID]
		switch {
		case p == nil || p.Kind != "client" || p.TraceID != s.TraceID:
			m.add("not under its client's", "%s", s)
			continue
		case children[p.SpanID] > 0:
			m.add("second under its client's", "%s", s)
		case p.Name != s.Name || p.Status != s.Status || s.Start < p.Start:
			m.add("differs from its client's", "%s\n\t\tunder %s", s, p)
		}
		for _, key := range []string{"db.system.name", "db.namespace", "db.operation.name", "db.collection.name", "db.query.summary", "db.query.text",
			"db.response.status_code", "error.type", "db.response.returned_rows", "db.operation.batch.size", "server.address", "server.port",
			"breadcrumb.unknown_fields", "breadcrumb.withheld", "breadcrumb.truncated"} {
			if s.Attributes[key] != p.Attributes[key] {
				m.add("differs from its client's in "+key, "%s\n\t\tunder %s", s, p)
			}
		}
		children[p.SpanID]++
		parents[s] = p
	}
	if len(client) != len(server) {
		m.add("spans of one side only", "%d of the client, %d of the server", len(client), len(server))
	}
	if err := m.Err(); err != nil {
		t.Error(err)
	}
	return client, server, parents
}

// session is what tells the connection of a server's span from others: PostgreSQL has a process for each.
func (k *talk) session(s, client *Span) string {
	if k.names == sql.PostgreSQL {
		return fmt.Sprint(s.Resource["process.pid"])
	}
	if client == nil {
		return ""
	}
	return fmt.Sprint(client.Resource["process.pid"], ":", s.Attributes["network.peer.port"])
}

// told is what a span says of a statement.
type told struct{ Text, Operation, Collection, Summary, Code string }

func (w told) String() string {
	return fmt.Sprintf("%s [%s %s] %.200q", w.Code, w.Operation, w.Collection, w.Text)
}

// Statements of the tests that change how those after them are read.
const (
	ansi    = "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'"
	notANSI = "SET sql_mode = DEFAULT"
)

// want is what a span must say of a statement in the log.
func (k *talk) want(r *sql.Reader, s servers.Statement, modes *sql.Modes) told {
	if strings.HasPrefix(s.Kind, "fastpath") {
		return told{Operation: "FunctionCall", Code: s.Code}
	}
	st := r.Read([]byte(strings.TrimSuffix(s.Text, "\x00")), false, *modes)
	switch s.Text {
	case ansi:
		*modes = sql.Modes{ANSIQuotes: true, NoBackslashEscapes: true}
	case notANSI:
		*modes = sql.Modes{}
	}
	return told{st.Text, st.Operation, st.Collection, st.Summary, s.Code}
}

func (s *Span) told() told {
	return told{s.Text("db.query.text"), s.Text("db.operation.name"), s.Text("db.collection.name"), s.Text("db.query.summary"),
		cmp.Or(s.Text("db.response.status_code"), s.Text("error.type"))}
}

// sessions are the server's spans by their connection, in their order.
func (k *talk) sessions(server []*Span, parents map[*Span]*Span) map[string][]*Span {
	by := map[string][]*Span{}
	for _, s := range server {
		key := k.session(s, parents[s])
		by[key] = append(by[key], s)
	}
	for _, list := range by {
		slices.SortStableFunc(list, func(a, b *Span) int { return cmp.Compare(a.Start, b.Start) })
	}
	return by
}

// compare holds the spans to the log: of each session the same statements, in the same order.
func (k *talk) compare(log []servers.Statement, spans []*Span) (server []*Span) {
	k.t.Helper()
	_, server, parents := sides(k.t, spans)
	reader := sql.New(k.names, sql.Sanitised)
	want, modes := map[string][]told{}, map[string]*sql.Modes{}
	for _, s := range log {
		key := strconv.Itoa(s.Session)
		if modes[key] == nil {
			modes[key] = new(sql.Modes)
		}
		want[key] = append(want[key], k.want(reader, s, modes[key]))
	}
	got := map[string][]told{}
	for key, list := range k.sessions(server, parents) {
		for _, s := range list {
			got[key] = append(got[key], s.told())
			if s.Status.Code == "error" != (got[key][len(got[key])-1].Code != "") || s.Attributes["breadcrumb.unknown_fields"] != nil {
				k.t.Errorf("outcome: %s", s)
			}
		}
	}
	if k.names == sql.MySQL { // the log does not say which connection is which
		want, got = unnamed(want), unnamed(got)
	}
	var m Mismatches
	for key := range want {
		for i, w := range want[key] {
			if i >= len(got[key]) {
				m.add("missing", "%s number %d: %s", key, i, w)
			} else if g := got[key][i]; g != w {
				m.add("not what the log says", "%s number %d: %s\n\t\twant %s", key, i, g, w)
			}
		}
		if n := len(got[key]); n > len(want[key]) {
			m.add("made up", "%s: %d of %d, the last: %s", key, n-len(want[key]), n, got[key][n-1])
		}
	}
	for key := range got {
		if want[key] == nil {
			m.add("made up", "of a session that the log does not have, %s: %s", key, got[key][0])
		}
	}
	if err := m.Err(); err != nil {
		k.t.Error(err)
	}
	return server
}

// unnamed puts sessions in an order that does not depend on their names.
func unnamed(sessions map[string][]told) map[string][]told {
	list := slices.Collect(maps.Values(sessions))
	slices.SortFunc(list, func(a, b []told) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	m := map[string][]told{}
	for i, s := range list {
		m[strconv.Itoa(i)] = s
	}
	return m
}

// texts counts spans by their statement.
func texts(spans []*Span) map[string]int {
	n := map[string]int{}
	for _, s := range spans {
		n[strings.ReplaceAll(s.Text("db.query.text"), "-?", "?")]++ // a sign is no part of a number
	}
	return n
}

// tpcb are the statements of pgbench's transaction, with their values as they are sent by each of its ways.
var tpcb = []string{
	"BEGIN",
	"UPDATE pgbench_accounts SET abalance = abalance + %s WHERE aid = %s",
	"SELECT abalance FROM pgbench_accounts WHERE aid = %s",
	"UPDATE pgbench_tellers SET tbalance = tbalance + %s WHERE tid = %s",
	"UPDATE pgbench_branches SET bbalance = bbalance + %s WHERE bid = %s",
	"INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (%s, %s, %s, %s, CURRENT_TIMESTAMP)",
	"END",
}

// shown is a statement of tpcb as a span shows it.
func shown(format, mode string) string {
	var values []any
	for i := range strings.Count(format, "%s") {
		value := fmt.Sprint("$", i+1)
		if mode == "simple" {
			value = "?"
		}
		values = append(values, value)
	}
	return fmt.Sprintf(format, values...)
}

// TestPgbench holds 20 000 statements of each way to ask PostgreSQL to its log.
func TestPgbench(t *testing.T) {
	const clients, transactions = 4, 715
	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run(mode, func(t *testing.T) {
			k := newTalk(t, sql.PostgreSQL)
			k.trace()
			k.succeed("pgbench", "-i", "-q")
			k.succeed("pgbench", "-M", mode, "-c", strconv.Itoa(clients), "-t", strconv.Itoa(transactions))
			log, spans := k.end()
			server := k.compare(log, spans)
			seen := texts(server)
			for _, format := range tpcb {
				if n := seen[shown(format, mode)]; n != clients*transactions {
					t.Errorf("%d spans of %s, want %d; texts: %q", n, shown(format, mode), clients*transactions, slices.Collect(maps.Keys(seen)))
				}
			}
			for _, s := range server {
				if _, has := s.Attributes["db.response.returned_rows"]; s.Status.Code != "unset" || has != (s.Text("db.operation.name") == "SELECT") {
					t.Fatalf("outcome: %s", s)
				}
			}
			t.Logf("%d statements", len(log))
		})
	}
}

// rowsOf holds the spans of statements to how many rows they return, -1 for none to tell of.
func rowsOf(t *testing.T, spans []*Span, want map[string]int) {
	t.Helper()
	for text, n := range want {
		found := 0
		for _, s := range spans {
			if s.Text("db.query.text") != text {
				continue
			}
			found++
			if got, has := s.Attributes["db.response.returned_rows"]; has != (n >= 0) || has && got != float64(n) {
				t.Errorf("%v rows, want %d: %s", got, n, s)
			}
		}
		if found != 2 {
			t.Errorf("%d spans of %s", found, text)
		}
	}
}

// failuresOf holds the spans of statements to how they have failed.
func failuresOf(t *testing.T, spans []*Span, want map[string]string) {
	t.Helper()
	for text, code := range want {
		if !slices.ContainsFunc(spans, func(s *Span) bool { return s.Text("db.query.text") == text && s.told().Code == code }) {
			t.Errorf("no span of %s says %s", text, code)
		}
	}
}

const psqlScript = `CREATE TABLE items(id int PRIMARY KEY, name text, price numeric(10,2));
CREATE VIEW cheap AS SELECT * FROM items WHERE price < 10;
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS $$ SELECT 2 * n $$;
CREATE INDEX ON items(name);
INSERT INTO items SELECT n, 'item ' || n, n / 7.0 FROM generate_series(1, 1000) n;
\timing on
\d
\d items
\d+ cheap
\dt
\dt+
\di
\l
\l+
\du
\df
\df twice
\sf twice
\dn
\dx
\dp
\db
\dT
\dv
\z items
\conninfo
\timing off
\encoding
SELECT twice(21) \gset
SELECT count(*) FROM items WHERE id < :twice \g
SELECT 1 AS one, 'two' AS two \gdesc
SELECT 'SELECT ' || n FROM generate_series(1, 3) n \gexec
SELECT id % 3, id % 2, count(*) FROM items GROUP BY 1, 2 \crosstabview
BEGIN;
UPDATE items SET price = price + 1 WHERE id = 7;
SAVEPOINT here;
INSERT INTO items VALUES (7, 'again', 1);
ROLLBACK TO here;
COMMIT;
BEGIN;
SELECT 1 / 0;
SELECT 'not executed';
ROLLBACK;
SELEC 1;
SELECT nothing FROM nowhere;
INSERT INTO items VALUES (1, 'twice', 2);
SELECT 'x'::int;
COPY items FROM STDIN;
2001	copied	1.5
2002	as well	2.5
\.
COPY items FROM STDIN;
2003	copied	not a number
\.
COPY (SELECT * FROM items ORDER BY id LIMIT 30) TO STDOUT;
\copy (SELECT id FROM items) TO /dev/null
\copy items(id, name) FROM PROGRAM 'printf "3001\tby program\n"'
LISTEN channel;
NOTIFY channel, 'of the payload';
SELECT 'after' AS noise;
UNLISTEN channel;
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM items ORDER BY id;
FETCH 10 FROM c;
FETCH FORWARD 20 IN c;
MOVE 5 IN c;
FETCH ALL FROM c;
CLOSE c;
COMMIT;
PREPARE find(int) AS SELECT name FROM items WHERE id = $1;
EXECUTE find(3);
EXECUTE find(4);
DEALLOCATE find;
EXECUTE find(5);
\set FETCH_COUNT 100
SELECT id FROM items WHERE id <= 250;
\unset FETCH_COUNT
DO $$ BEGIN RAISE NOTICE 'noise'; RAISE WARNING 'more'; END $$;
DO $$ BEGIN RAISE EXCEPTION 'out' USING ERRCODE = 'ZZ001'; END $$;
SELECT 1; ;
;
\lo_import /etc/hostname
SET statement_timeout = 50;
SELECT pg_sleep(100);
RESET statement_timeout;
SELECT n, 'row ' || n FROM generate_series(1, 100000) n;
TABLE cheap;
SELECT FROM items;
VALUES (1), (2), (3);
EXPLAIN SELECT * FROM items;
SHOW work_mem;
TRUNCATE items;
WITH gone AS (DELETE FROM items RETURNING *) SELECT count(*) FROM gone;
INSERT INTO items VALUES (1, 'back', 1), (2, 'and', 2) RETURNING id;
VACUUM items;
CREATE DATABASE another;
\c another
SELECT current_database();
\c postgres
DROP DATABASE another;
`

// TestPsql has psql do what it can do: over TCP, and over the Unix socket.
func TestPsql(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			k := newTalk(t, sql.PostgreSQL)
			if network == "unix" {
				k.bySocket()
			}
			k.trace()
			k.run("psql", "-X", "-f", k.script(psqlScript))
			k.run("psql", "-X", "-c", "SELECT 1; SELECT n FROM generate_series(1, 5) n; SELECT 3", "-c", "SELECT 4; SELECT 5 / 0; SELECT 6", "-c", "BEGIN; SELECT 7; COMMIT", "-c", "SELECT 8; SELEC 9", "-c", "SELECT 10")
			k.run("psql", "-X", "-l")

			sleeper := k.start(nil, "psql", "-X", "-c", "SELECT pg_sleep(1000)")
			sleeper.WaitFor(t, "a statement in the log", func() bool { return k.db.Logged(t, "SELECT pg_sleep(1000)") })
			if err := sleeper.Cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			<-sleeper.Done()

			log, spans := k.end()
			k.compare(log, spans)
			failuresOf(t, spans, map[string]string{
				"SELECT ? / ?": "22012", "SELECT nothing FROM nowhere": "42P01", "INSERT INTO items VALUES (?, ?, ?)": "23505",
				"SELECT ?::int": "22P02", "SELECT pg_sleep(?)": "57014", "SELECT ?; SELECT ? / ?; SELECT ?": "22012",
			})
			rowsOf(t, spans, map[string]int{
				"SELECT n, ? || n FROM generate_series(?, ?) n": 100000, "FETCH ? FROM c": 10, "FETCH FORWARD ? IN c": 20, "FETCH ALL FROM c": 968,
				"COPY (SELECT * FROM items ORDER BY id LIMIT ?) TO STDOUT": 30, "SELECT ?; SELECT n FROM generate_series(?, ?) n; SELECT ?": 7,
				"MOVE ? IN c": -1, "VALUES (?)": 3, "INSERT INTO items VALUES (?, ?, ?) RETURNING id": 2, "TRUNCATE items": -1,
				"CREATE DATABASE another": -1, "SELECT current_database()": 1, "BEGIN; SELECT ?; COMMIT": 1,
			})
			network := map[string]string{"tcp": "", "unix": "unix"}[network]
			for _, s := range spans {
				if s.Text("network.transport") != network {
					t.Fatalf("network: %s", s)
				}
			}
			t.Logf("%d statements", len(log))
		})
	}
}

// mariadb is how MariaDB's clients are told where to go.
func (k *talk) mariadb(network string) []string {
	args := []string{"--no-defaults", "--user=root"}
	if network == "unix" {
		return append(args, "--protocol=socket", "--socket="+k.db.Socket)
	}
	return append(args, "--protocol=tcp", "--host=127.0.0.1", fmt.Sprint("--port=", k.db.Port))
}

// statements leaves of the general log what clients have asked to be executed: they prepare, ping and choose a database as well.
func statements(log []servers.Statement) (list []servers.Statement) {
	for _, s := range log {
		if s.Kind == "Query" {
			list = append(list, s)
		}
	}
	return list
}

// TestMysqlslap holds 20 000 statements to MariaDB's log.
func TestMysqlslap(t *testing.T) {
	const clients, queries = 4, 20_000
	k := newTalk(t, sql.MySQL)
	k.trace()
	args := append(k.mariadb("tcp"), "--concurrency", strconv.Itoa(clients), "--number-of-queries", strconv.Itoa(queries), "--auto-generate-sql",
		"--auto-generate-sql-load-type=key", "--auto-generate-sql-add-autoincrement", "--auto-generate-sql-write-number=50", "--auto-generate-sql-unique-query-number=10")
	k.succeed("mariadb-slap", args...)
	log, spans := k.end()
	if len(log) < queries {
		t.Fatalf("the log has %d statements", len(log))
	}
	server := k.compare(log, spans)
	for _, s := range server {
		if s.Status.Code != "unset" || s.Text("db.query.text") == "" {
			t.Fatalf("outcome: %s", s)
		}
	}
	t.Logf("%d statements", len(log))
}

const mariadbScript = `CREATE DATABASE shop;
USE shop
CREATE TABLE items(id int PRIMARY KEY, name varchar(100), price decimal(10,2));
INSERT INTO items VALUES (1, 'it''s', 1.5), (2, "double \" quote", 2.5), (3, 'back\\slash', 3);
SELECT * FROM items WHERE name = 'x' OR id IN (1, 2, 3);
SELECT seq, concat('row ', seq) FROM seq_1_to_100000;
SELECT nothing FROM nowhere;
INSERT INTO items VALUES (1, 'again', 2);
SELEC 1;
SELECT cast('x' AS int) + 1;
SHOW WARNINGS;
CREATE TABLE loaded(id int, name varchar(100));
LOAD DATA LOCAL INFILE '@FILE@' INTO TABLE loaded FIELDS TERMINATED BY ',';
LOAD DATA LOCAL INFILE '/nowhere/at/all' INTO TABLE loaded;
SELECT count(*) FROM loaded;
delimiter //
SELECT 1; SELECT 2 UNION SELECT 3; SELECT 4//
SELECT 5; SELECT nope; SELECT 6//
CREATE PROCEDURE three(n int) BEGIN SELECT n; SELECT * FROM items LIMIT 2; UPDATE items SET price = price + 1; END//
CREATE PROCEDURE fails() BEGIN SELECT 1; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'so it is'; END//
delimiter ;
CALL fails();
CALL three(7);
PREPARE find FROM 'SELECT name FROM items WHERE id = ?';
SET @id = 2;
EXECUTE find USING @id;
EXECUTE find USING @id;
DEALLOCATE PREPARE find;
EXECUTE find USING @none;
START TRANSACTION;
UPDATE items SET price = 0 WHERE id = 1;
ROLLBACK;
BEGIN;
DELETE FROM items WHERE id = 3;
COMMIT;
SHOW TABLES;
SHOW DATABASES;
DESCRIBE items;
EXPLAIN SELECT * FROM items;
` + ansi + `;
SELECT "id", 'back\' FROM "items";
` + notANSI + `;
SELECT sleep(0.01), 1 /* in a comment */ -- and another
;
USE mysql
SELECT count(*) FROM user;
DROP DATABASE shop;
`

// TestMariadbClient has MariaDB's own client do what it can do: over TCP, and over the Unix socket; with and without compression.
func TestMariadbClient(t *testing.T) {
	for _, test := range []struct {
		name, network string
		flags         []string
	}{
		{"tcp", "tcp", nil},
		{"unix", "unix", nil},
		{"compressed", "tcp", []string{"--compress"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := newTalk(t, sql.MySQL)
			k.trace()
			var lines strings.Builder
			for i := range 2000 {
				fmt.Fprintf(&lines, "%d,name %d\n", i, i)
			}
			file := k.script(lines.String())
			args := append(append(k.mariadb(test.network), test.flags...), "--force", "--local-infile", "--comments")
			script := k.script(strings.ReplaceAll(mariadbScript, "@FILE@", file))
			k.run("mariadb", append(args, "-e", "source "+script)...)
			k.run("mariadb", append(args, "mysql", "-e", "SELECT 'done'")...)
			k.run("mariadb-admin", append(k.mariadb(test.network), "status", "ping", "processlist", "version")...)
			k.run("mariadb-show", append(k.mariadb(test.network), "--count", "mysql", "db")...)
			log, spans := k.end()
			k.compare(log, spans)
			failuresOf(t, spans, map[string]string{
				"SELECT nothing FROM nowhere": "1146", "INSERT INTO items VALUES (?, ?, ?)": "1062", "SELECT ?; SELECT nope; SELECT ?": "1054",
				"CALL fails()": "1644", "EXECUTE find USING @none": "1243",
			})
			// How many rows there are, only the rows tell: all of those of a short result are seen.
			rowsOf(t, spans, map[string]int{
				"SELECT seq, concat(?, seq) FROM seq_1_to_100000": -1, "SELECT * FROM items WHERE name = ? OR id IN (?)": 3,
				"SELECT ?; SELECT ? UNION SELECT ?; SELECT ?": 4, "CALL three(?)": 3, "SHOW TABLES": 2, "DROP DATABASE shop": -1,
			})
			t.Logf("%d statements", len(log))
		})
	}
}

// TestNoSecretIsTold has values pass that nobody but the database may see: in every form of a literal, as parameters, as data, in
// messages of errors, and as passwords. Every statement has its spans all the same.
func TestNoSecretIsTold(t *testing.T) {
	const number = "8675309424242"
	secrets := []string{servers.Secret, number, "moonbeam"}
	hidden := func(t *testing.T, k *talk, log []servers.Statement, spans []*Span) {
		t.Helper()
		planted := 0
		for _, s := range log {
			if strings.Contains(s.Text, "moonbeam") || strings.Contains(s.Text, number) {
				planted++
			}
		}
		if planted < 20 {
			t.Errorf("the log has %d statements with a secret", planted)
		}
		k.agent.mu.Lock()
		said := strings.Join(k.agent.stderr, "\n")
		k.agent.mu.Unlock()
		for _, secret := range secrets {
			for _, s := range spans {
				if strings.Contains(s.Line, secret) {
					t.Errorf("%s is in %s", secret, s.Line)
				}
			}
			if strings.Contains(said, secret) {
				t.Errorf("%s is in what the agent says", secret)
			}
		}
	}
	fill := strings.NewReplacer("@S@", servers.Secret, "@N@", number)

	t.Run("PostgreSQL", func(t *testing.T) {
		k := newTalk(t, sql.PostgreSQL)
		k.trace("--log-level", "debug")
		script := k.script(fill.Replace(`CREATE ROLE alice LOGIN PASSWORD '@S@';
SET password_encryption = 'scram-sha-256';
CREATE USER bob PASSWORD '@S@';
ALTER ROLE bob WITH ENCRYPTED PASSWORD '@S@' VALID UNTIL 'infinity';
CREATE TABLE planted(id bigint PRIMARY KEY, what text UNIQUE);
INSERT INTO planted VALUES (@N@, '@S@'), (2, E'@S@\\n'), (3, $$@S@ too$$), (4, $tag$@S@ $$ $tag$), (5, U&'@S@\\0041');
INSERT INTO planted VALUES (@N@, 'again @S@');
INSERT INTO planted VALUES (6, '@S@');
SELECT '@S@'::int;
SELECT * FROM planted WHERE what IN ('@S@', 'other') AND id < @N@ AND id > -@N@.5e3 -- @S@
;
SELECT /* @S@ /* nested @S@ */ */ what AS shown FROM planted WHERE what LIKE '%@S@%';
SELECT 'one'
'@S@' AS joined;
SELECT date '2020-01-01' AS d, interval '1 day', B'1010', X'ABCD', '@S@' || 'x', N'@S@';
PREPARE p(text) AS SELECT $1, '@S@';
EXECUTE p('@S@');
NOTIFY channel, '@S@';
DO $$ BEGIN RAISE NOTICE '@S@'; RAISE EXCEPTION '@S@'; END $$;
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $body$ SELECT '@S@'::text $body$;
SET application_name = '@S@';
SELECT set_config('my.secret', '@S@', false);
COMMENT ON TABLE planted IS '@S@';
COPY planted FROM STDIN;
7	@S@ data
\.
COPY planted FROM STDIN;
x	@S@ is no number
\.
COPY planted TO STDOUT;
SELECT '@S@ without an end;
`))
		k.run("psql", "-X", "-c", `SELECT 'before the script'`, "-f", script)
		k.run("psql", "-X", "-c", fill.Replace(`SELEC '@S@' @N@`), "-c", fill.Replace(`SELECT '@S@`))
		// A parameter's value is bound, and is no part of the statement.
		param := k.script("SELECT id FROM planted WHERE what = :what;\nSELECT :what::int;\n")
		for _, mode := range []string{"extended", "prepared"} {
			k.run("pgbench", "-n", "-M", mode, "-t", "2", "-D", "what="+servers.Secret, "-f", param)
		}
		for _, user := range []string{"alice", "bob"} {
			k.succeed("psql", "-X", "-c", "SELECT 'as "+user+"'", fmt.Sprintf("postgresql://%s:%s@127.0.0.1:%d/postgres", user, servers.Secret, k.db.Port))
			k.run("psql", "-X", "-c", "SELECT 'never'", fmt.Sprintf("postgresql://%s:not%s@127.0.0.1:%d/postgres", user, servers.Secret, k.db.Port))
		}
		log, spans := k.end()
		hidden(t, k, log, spans)
	})

	t.Run("MariaDB", func(t *testing.T) {
		k := newTalk(t, sql.MySQL)
		k.trace("--log-level", "debug")
		file := k.script(servers.Secret + ",1\n" + servers.Secret + " again,2\n")
		script := k.script(strings.ReplaceAll(fill.Replace(`CREATE DATABASE vault;
CREATE USER alice IDENTIFIED BY '@S@';
GRANT ALL ON vault.* TO alice;
SET PASSWORD FOR alice = PASSWORD('@S@');
ALTER USER alice IDENTIFIED BY "@S@";
USE vault
CREATE TABLE planted(what varchar(100) PRIMARY KEY, id bigint);
INSERT INTO planted VALUES ('@S@', @N@), ("double @S@", 2), ('back\'slash @S@', 3), (N'@S@ national', 4), (_utf8mb4'@S@ charset', 5), (x'61626364', 0x65666768);
INSERT INTO planted VALUES ('@S@', 1);
SELECT cast('@S@' AS int), @N@, -@N@, 1e@N@;
SELECT * FROM planted WHERE what IN ('@S@', "@S@") # @S@
;
SELECT 1 -- @S@
;
SELECT 1 /* @S@ */, 2 /*! + '@S@' */;
SELECT 'one' '@S@' "@S@" AS joined;
SET @secret = '@S@';
PREPARE p FROM "SELECT ?, '@S@'";
EXECUTE p USING @secret;
SELECT @N@, '@S@' REGEXP '@S@', CONVERT('@S@' USING latin1);
UPDATE planted SET what = CONCAT('@S@ new', @secret) WHERE id = @N@;
DELETE FROM planted WHERE what = '@S@ old';
SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '@S@';
CREATE PROCEDURE q(x text) SELECT x, '@S@';
CALL q('@S@');
LOAD DATA LOCAL INFILE '@FILE@' REPLACE INTO TABLE planted FIELDS TERMINATED BY ',';
SELECT * FROM planted ORDER BY what;
SELECT ¤'@S@' @N@;
SELEC '@S@' @N@;
`), "@FILE@", file))
		args := append(k.mariadb("tcp"), "--force", "--local-infile", "--comments")
		k.run("mariadb", append(args, "-e", "source "+script)...)
		k.run("mariadb", append(args, "-e", fill.Replace("SELECT '@S@"))...)
		for _, password := range []string{servers.Secret, "not" + servers.Secret} {
			k.run("mariadb", "--no-defaults", "--protocol=tcp", "--host=127.0.0.1", fmt.Sprint("--port=", k.db.Port), "--user=alice", "--password="+password, "vault", "-e", "SELECT 'as alice'")
		}
		log, spans := k.end()
		hidden(t, k, log, spans)
	})
}

// TestSQLOnOpenConnections has the agent come when connections are open: what was prepared before shows no wrong text, and what comes
// after is right.
func TestSQLOnOpenConnections(t *testing.T) {
	t.Run("psql", func(t *testing.T) {
		k := newTalk(t, sql.PostgreSQL)
		in, say, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer say.Close()
		client := k.start(in, "psql", "-X")
		in.Close()
		fmt.Fprintln(say, "PREPARE early(int) AS SELECT $1 + 1;\nBEGIN;\nDECLARE c CURSOR FOR SELECT generate_series(1, 100);\nFETCH 5 FROM c;")
		client.WaitFor(t, "answered", func() bool { return strings.Contains(client.Whole(), "(5 rows)") })
		k.trace()
		fmt.Fprintln(say, "FETCH 10 FROM c;\nEXECUTE early(1);\nSELECT 'after' AS it;\nPREPARE late AS SELECT 'x';\nEXECUTE late;\nSELECT 1 / 0;\nROLLBACK;\nEXECUTE early(2);\n\\q")
		<-client.Done()
		log := k.db.Statements(t)[4:]
		k.agent.WaitSpans(2 * len(log))
		spans, summary := k.agent.Stop()
		NothingLost(t, summary, 2*len(log))
		k.compare(log, spans)
		failuresOf(t, spans, map[string]string{"SELECT ? / ?": "22012"})
		rowsOf(t, spans, map[string]int{"FETCH ? FROM c": 10})
	})

	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run("pgbench "+mode, func(t *testing.T) {
			const clients, enough = 4, 1000
			k := newTalk(t, sql.PostgreSQL)
			k.succeed("pgbench", "-i", "-q")
			client := k.start(nil, "pgbench", "-M", mode, "-c", strconv.Itoa(clients), "-T", "1000")
			client.WaitFor(t, "begun", func() bool { return k.db.Logged(t, "INSERT INTO pgbench_history") })
			k.trace()
			seen := len(k.agent.WaitSpans(2 * enough))
			settled := time.Now().UnixNano()
			k.agent.WaitSpans(seen + 2*enough)
			k.succeed("psql", "-X", "-c", "ALTER TABLE pgbench_tellers RENAME TO gone") // that is how pgbench ends
			<-client.Done()
			log := k.db.Statements(t)
			k.agent.WaitSpan("the end", func(s *Span) bool { return s.Kind == "server" && s.Text("db.operation.name") == "ALTER TABLE" })
			spans, summary := k.agent.Stop()
			if summary.Total.Lost() > 2*clients {
				t.Errorf("the ledger says %v", summary.Total)
			}
			known := k.compareTail(log, spans, settled)
			t.Logf("%d of %d spans know their statement", known, len(spans))
			if mode != "prepared" && known < len(spans)-2*clients {
				t.Errorf("%d of %d spans know their statement", known, len(spans))
			}
		})
	}
}

// compareTail holds the spans of each session to the last statements that the log has of it: what a span says is right, or it says
// that it does not know. What began before the agent had settled may be missing: it takes a moment to find out what an open connection
// speaks. It returns how many know.
func (k *talk) compareTail(log []servers.Statement, spans []*Span, settled int64) (known int) {
	k.t.Helper()
	reader := sql.New(k.names, sql.Sanitised)
	want := map[string][]told{}
	for _, s := range log {
		key := strconv.Itoa(s.Session)
		want[key] = append(want[key], k.want(reader, s, new(sql.Modes)))
	}
	var m Mismatches
	fits := func(s *Span, w told) bool {
		g := s.told()
		if s.Attributes["breadcrumb.unknown_fields"] == nil {
			return g == w
		}
		return g.Text == "" && g.Collection == "" && g.Code == w.Code && (g.Operation == "" || g.Operation == w.Operation || g.Operation == "COMMIT" && w.Operation == "END") // the server's word for it
	}
	answers := map[string]told{} // what a client's span is to say, by its server's
	for key, list := range k.sessions(Select(spans, "", "server"), nil) {
		at := len(want[key]) - 1
		for _, s := range slices.Backward(list) {
			from := at
			for at >= 0 && !fits(s, want[key][at]) {
				at--
			}
			if at < 0 {
				m.add("not in the log", "%s", s)
				break
			}
			if at != from && s.Start > settled {
				m.add("missing", "%d of %s, after %s", from-at, key, s)
			}
			answers[s.ParentID] = want[key][at]
			at--
		}
	}
	for _, s := range spans {
		if s.Attributes["breadcrumb.unknown_fields"] == nil {
			known++
		}
		if s.Kind != "client" {
			continue
		}
		if w, ok := answers[s.SpanID]; !ok {
			if s.Start > settled {
				m.add("client's without the server's", "%s", s)
			}
		} else if !fits(s, w) {
			m.add("not what the server was asked", "%s\n\t\twant %s", s, w)
		}
	}
	if err := m.Err(); err != nil {
		k.t.Error(err)
	}
	return known
}
