// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
)

// want is a span that a test wants: of a statement, from one part to another, by their numbers from 1 on.
type want struct {
	text     string // empty: it is not known
	from, to int
	id       int // that the kernel side gave
	attrs    attrs
	name     string // where it is not what the statement is about
	message  string
	fails    string // SQLSTATE
	rows     int    // and one more; 0: none are told
}

type attrs map[string]any

const (
	rows0 = 1 + iota // want.rows
	rows1
	rows2
	rows3
)

// exchangeTest is a conversation, which is seen from both ends.
type exchangeTest struct {
	name        string
	parts       []part
	want        []want
	established bool
	open        bool // it does not begin with the start of the connection
	err         error
	lost        map[ledger.Entry]uint64
	whole       bool // how the bytes are split matters
}

var reader = sql.New(sql.PostgreSQL, sql.Raw)

// span is what is wanted of one side.
func (w *want) span(server bool, database string) spanned {
	s := spanned{Start: int64(w.from) * 1000, End: int64(w.to) * 1000, Message: w.message}
	a := map[string]any{"db.system.name": "postgresql", "server.address": "192.0.2.7", "server.port": int64(5432)}
	if server {
		a["client.address"], a["network.peer.address"], a["network.peer.port"] = "192.0.2.1", "192.0.2.1", int64(40000)
	} else {
		a["network.peer.address"], a["network.peer.port"] = "192.0.2.7", int64(5432)
	}
	s.Name = "192.0.2.7:5432"
	if database != "" {
		a["db.namespace"] = database
		s.Name = database
	}
	if w.id != 0 {
		s.ID = named(w.id).String()
	}
	if w.text != "" {
		st := reader.Read([]byte(w.text), false, sql.Modes{})
		s.Wire = st.Context
		for key, v := range map[string]string{"db.operation.name": st.Operation, "db.collection.name": st.Collection, "db.stored_procedure.name": st.Procedure,
			"db.query.summary": st.Summary, "db.query.text": st.Text} {
			if v != "" {
				a[key] = v
			}
		}
		if st.Statements > 1 {
			a["db.operation.batch.size"] = int64(st.Statements)
		}
		if st.Summary != "" {
			s.Name = st.Summary
		}
	}
	if w.name != "" {
		s.Name = w.name
	}
	if w.fails != "" {
		s.Status = codes.Error
		a["db.response.status_code"], a["error.type"] = w.fails, w.fails
		s.Message = "ERROR " + w.fails
		if name := conditions[w.fails]; name != "" {
			s.Message += " " + name
		}
		if w.message != "" {
			s.Message = w.message
		}
	}
	if w.rows > 0 {
		a["db.response.returned_rows"] = int64(w.rows - 1)
	}
	for k, v := range w.attrs {
		switch v := v.(type) {
		case nil:
			delete(a, k)
		case int:
			a[k] = int64(v)
		default:
			a[k] = v
		}
		if k == "error.type" {
			s.Status = codes.Error
		}
	}
	s.Attrs = a
	return s
}

func unknowns(more attrs) attrs {
	if more == nil {
		more = attrs{}
	}
	more["breadcrumb.unknown_fields"] = true
	return more
}

var abortedAttrs = attrs{"error.type": "pipeline_aborted"}

const abortedMessage = "not executed: what came before it has failed"

// hello begins a connection, as parts 1 and 2.
func hello(parts ...part) []part {
	return append([]part{ask(startup("user", "app", "database", "shop")), say(greeted)}, parts...)
}

func big(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(row(fmt.Sprintf("planted-row-%06d", i), "planted-value"))
	}
	return b.String()
}

func exchangeTests() []exchangeTest {
	const sel, ins = "SELECT a FROM t WHERE b = 1", "INSERT INTO t VALUES ($1, 'literal')"
	t := rowsOf("a")
	return []exchangeTest{
		{
			name:  "a query",
			parts: hello(ask(q(sel)).name(1), say(t, row("planted"), row("planted"), tagged("SELECT 2"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 4, id: 1, rows: rows2}},
		},
		{
			name:  "queries one after the other",
			parts: hello(ask(q(sel)).name(1), say(t, tagged("SELECT 0"), idleZ), ask(q("BEGIN")).name(2), say(tagged("BEGIN"), z("T")), ask(q(ins)).name(3), say(tagged("INSERT 0 1"), z("T")), ask(q("COMMIT")).name(4), say(tagged("COMMIT"), idleZ), ask(bye)),
			want: []want{{text: sel, from: 3, to: 4, id: 1, rows: rows0}, {text: "BEGIN", from: 5, to: 6, id: 2},
				{text: ins, from: 7, to: 8, id: 3}, {text: "COMMIT", from: 9, to: 10, id: 4}},
		},
		{
			name:  "a query with rows that it has changed",
			parts: hello(ask(q("UPDATE t SET a = 1 RETURNING a")), say(t, row("1"), row("2"), row("3"), tagged("UPDATE 3"), idleZ)),
			want:  []want{{text: "UPDATE t SET a = 1 RETURNING a", from: 3, to: 4, rows: rows3}},
		},
		{
			name:  "a table made of a query",
			parts: hello(ask(q("CREATE TABLE x AS SELECT 1")), say(tagged("SELECT 1"), idleZ)),
			want:  []want{{text: "CREATE TABLE x AS SELECT 1", from: 3, to: 4}},
		},
		{
			name:  "several statements at once",
			parts: hello(ask(q("SELECT 1; UPDATE t SET a = 1; SELECT 2")), say(t, row("1"), tagged("SELECT 1"), tagged("UPDATE 7"), t, row("2"), row("2"), tagged("SELECT 2"), idleZ)),
			want:  []want{{text: "SELECT 1; UPDATE t SET a = 1; SELECT 2", from: 3, to: 4, rows: rows3}},
		},
		{
			name:  "an error in the middle of several",
			parts: hello(ask(q("SELECT 1; SELECT 1/0; SELECT 2")), say(t, row("1"), tagged("SELECT 1"), failing("ERROR", "22012", "planted"), idleZ)),
			want:  []want{{text: "SELECT 1; SELECT 1/0; SELECT 2", from: 3, to: 4, rows: rows1, fails: "22012"}},
		},
		{
			name:  "nothing to do",
			parts: hello(ask(q("")), say(empty, idleZ)),
			want:  []want{{from: 3, to: 4}},
		},
		{
			name: "an error, whatever language it is in",
			parts: hello(ask(q("SELECT 'literal'::int")),
				say(msg(errorResponse, "SFEHLER\x00VERROR\x00C22P02\x00Mungültige Eingabe: \"planted\"\x00DDetail planted\x00\x00"), idleZ)),
			want: []want{{text: "SELECT 'literal'::int", from: 3, to: 4, fails: "22P02"}},
		},
		{
			name:  "an error without a severity of its own, and a code that has no name here",
			parts: hello(ask(q(sel)), say(msg(errorResponse, "SERROR\x00CZZ123\x00Mplanted\x00\x00"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 4, fails: "ZZ123"}},
		},
		{
			name:  "an error without a code",
			parts: hello(ask(q(sel)), say(msg(errorResponse, "SERROR\x00Mplanted\x00\x00"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 4, message: "ERROR", attrs: attrs{"error.type": "_OTHER"}}},
		},
		{
			name:  "the server goes down in the middle of a query",
			parts: hello(ask(q(sel)), say(t, row("1"), failing("FATAL", "57P01", "terminating")), end(probes.LocalClosed)),
			want:  []want{{text: sel, from: 3, to: 4, fails: "57P01", message: "FATAL 57P01 admin_shutdown"}},
		},
		{
			name:  "the server goes down while nothing is asked",
			parts: hello(ask(q(sel)), say(t, tagged("SELECT 0"), idleZ), say(failing("FATAL", "57P01", "terminating")), end(probes.LocalClosed)),
			want:  []want{{text: sel, from: 3, to: 4, rows: rows0}},
		},
		{
			name:  "the connection is closed before the answer",
			parts: hello(ask(q(sel)), end(probes.LocalClosed)),
			want:  []want{{text: sel, from: 3, to: 4, attrs: attrs{"error.type": "connection_closed"}}},
		},
		{
			name:  "the connection is reset in the middle of the answer",
			parts: hello(ask(q(sel)), say(t, row("1")), end(probes.Reset)),
			want:  []want{{text: sel, from: 3, to: 5, attrs: attrs{"error.type": "connection_reset"}}},
		},
		{
			name:  "the agent stops in the middle of the answer",
			parts: hello(ask(q(sel)), say(t, row("1")), end(probes.Stopped)),
			want:  []want{{text: sel, from: 3, to: 5, attrs: attrs{"breadcrumb.unfinished": true}}},
		},
		{
			name:  "the client closes its side and gets its answer",
			parts: hello(ask(q(sel)), end(probes.PeerClosed), say(t, row("1"), tagged("SELECT 1"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 5, rows: rows1}},
		},
		{
			name: "what may come at any time",
			parts: hello(say(notify), ask(q(sel)), say(noticing("planted"), t), say(notify, row("1"), param("TimeZone", "UTC")), say(noticing("x"), tagged("SELECT 1"), noticing("y"), idleZ, notify),
				say(noticing("z")), ask(q("BEGIN")), say(tagged("BEGIN"), z("T"))),
			want: []want{{text: sel, from: 4, to: 7, rows: rows1}, {text: "BEGIN", from: 9, to: 10}},
		},

		// With what prepares it.
		{
			name:  "a statement without a name",
			parts: hello(ask(p("", ins), b("", "", "planted"), dP(""), e("", 0), sy).name(1), say(okParse, okBind, none, tagged("INSERT 0 1"), idleZ)),
			want:  []want{{text: ins, from: 3, to: 4, id: 1}},
		},
		{
			name: "a statement with a name, prepared before and executed twice",
			parts: hello(ask(p("s1", sel), dS("s1"), sy).name(1), say(okParse, oids, t, idleZ), ask(b("", "s1", "planted"), e("", 0), sy).name(2), say(okBind, row("1"), tagged("SELECT 1"), idleZ),
				ask(b("", "s1", "planted"), e("", 0), sy).name(3), say(okBind, tagged("SELECT 0"), idleZ)),
			want: []want{{text: sel, from: 5, to: 6, id: 2, rows: rows1}, {text: sel, from: 7, to: 8, id: 3, rows: rows0}},
		},
		{
			name: "with Flush",
			parts: hello(ask(p("s1", sel), dS("s1"), fl), say(okParse, oids, t), ask(b("", "s1"), e("", 0), fl).name(2), say(okBind, row("1"), tagged("SELECT 1")), ask(sy), say(idleZ),
				ask(q("BEGIN")), say(tagged("BEGIN"), z("T"))),
			want: []want{{text: sel, from: 5, to: 6, id: 2, rows: rows1}, {text: "BEGIN", from: 9, to: 10}},
		},
		{
			name: "a statement that was closed, and another one of its name",
			parts: hello(ask(p("s", sel), b("", "s"), e("", 0), sy), say(okParse, okBind, tagged("SELECT 0"), idleZ),
				ask(cS("s"), p("s", ins), b("", "s", "planted"), e("", 0), sy), say(okClose, okParse, okBind, tagged("INSERT 0 1"), idleZ),
				ask(b("", "s", "planted"), e("", 0), sy), say(okBind, tagged("INSERT 0 1"), idleZ),
				ask(cS("s"), sy), say(okClose, idleZ), ask(b("", "s", "planted"), e("", 0), sy), say(failing("ERROR", "26000", "no such statement"), idleZ)),
			want: []want{{text: sel, from: 3, to: 4, rows: rows0}, {text: ins, from: 5, to: 6}, {text: ins, from: 7, to: 8},
				{from: 11, to: 12, fails: "26000", attrs: unknowns(nil)}},
		},
		{
			name: "a statement of a name that there is",
			parts: hello(ask(p("s", sel), sy), say(okParse, idleZ), ask(p("s", ins), b("", "s", "x"), e("", 0), sy), say(failing("ERROR", "42P05", "there is one"), idleZ),
				ask(b("", "s"), e("", 0), sy), say(okBind, tagged("SELECT 0"), idleZ)),
			want: []want{{text: ins, from: 5, to: 6, fails: "42P05"}, {text: sel, from: 7, to: 8, rows: rows0}},
		},
		{
			name:  "what cannot be prepared",
			parts: hello(ask(p("s", "SELEC 1"), dS("s"), sy).name(3), say(failing("ERROR", "42601", "planted"), idleZ), ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)),
			want:  []want{{text: "SELEC 1", from: 3, to: 4, id: 3, fails: "42601"}, {text: sel, from: 5, to: 6, rows: rows0}},
		},
		{
			name: "what cannot be prepared, with Flush",
			parts: hello(ask(p("s", "SELEC 1"), dS("s"), fl), say(failing("ERROR", "42601", "planted")), ask(sy), say(idleZ),
				ask(p("s", sel), dS("s"), fl), say(okParse, oids, t), ask(b("", "s"), e("", 0), sy), say(okBind, row("1"), tagged("SELECT 1"), idleZ)),
			want: []want{{text: "SELEC 1", from: 3, to: 4, fails: "42601"}, {text: sel, from: 9, to: 10, rows: rows1}},
		},
		{
			name:  "what cannot be executed, in all parts of it",
			parts: hello(ask(p("", sel), b("", "", "planted"), e("", 0), sy), say(okParse, failing("ERROR", "22P02", "planted"), idleZ), ask(p("", sel), b("", ""), e("", 0), sy), say(okParse, okBind, row("1"), failing("ERROR", "22012", "planted"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 4, fails: "22P02"}, {text: sel, from: 5, to: 6, fails: "22012"}},
		},
		{
			name: "of several that are prepared at once, the first fails",
			parts: hello(ask(p("a", "SELEC 1"), dS("a"), p("b", sel), dS("b"), sy).name(3), say(failing("ERROR", "42601", "planted"), idleZ),
				ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)),
			want: []want{{text: "SELEC 1", from: 3, to: 4, id: 3, fails: "42601"}, {text: sel, from: 5, to: 6, rows: rows0}},
		},
		{
			name:  "of several that are prepared at once, the second fails",
			parts: hello(ask(p("a", sel), dS("a"), p("b", "SELEC 1"), dS("b"), p("c", ins), sy), say(okParse, oids, t, failing("ERROR", "42601", "planted"), idleZ)),
			want:  []want{{text: "SELEC 1", from: 3, to: 4, fails: "42601"}},
		},
		{
			name:  "what fails as it is committed",
			parts: hello(ask(p("", ins), b("", "", "x"), e("", 0), sy), say(okParse, okBind, tagged("INSERT 0 1")), say(failing("ERROR", "23505", "planted"), idleZ)),
			want:  []want{{text: ins, from: 3, to: 5, fails: "23505"}},
		},
		{
			name: "several before one Sync",
			parts: hello(ask(p("", "SELECT 1"), b("", ""), dP(""), e("", 0), p("", ins), b("", "", "x"), e("", 0), p("", "SELECT 3"), b("", ""), e("", 0), sy).name(1),
				say(okParse, okBind, t, row("1"), tagged("SELECT 1")), say(okParse, okBind, tagged("INSERT 0 1")), say(okParse, okBind, row("1"), row("1"), tagged("SELECT 2"), idleZ)),
			want: []want{{text: "SELECT 1", from: 3, to: 4, id: 1, rows: rows1}, {text: ins, from: 3, to: 5}, {text: "SELECT 3", from: 3, to: 6, rows: rows2}},
		},
		{
			name: "an error in the middle of several before one Sync",
			parts: hello(ask(p("", "SELECT 1"), b("", ""), e("", 0), p("", "SELECT nothing"), b("", ""), e("", 0), p("", "SELECT 3"), b("", ""), e("", 0), p("", "SELECT 4"), b("", ""), e("", 0), sy),
				say(okParse, okBind, row("1"), tagged("SELECT 1"), failing("ERROR", "42703", "nothing")), say(idleZ), ask(b("", ""), e("", 0), sy), say(failing("ERROR", "26000", "x"), idleZ)),
			want: []want{{text: "SELECT 1", from: 3, to: 4, rows: rows1}, {text: "SELECT nothing", from: 3, to: 4, fails: "42703"},
				{text: "SELECT 3", from: 3, to: 4, attrs: abortedAttrs, message: abortedMessage}, {text: "SELECT 4", from: 3, to: 4, attrs: abortedAttrs, message: abortedMessage},
				{from: 6, to: 7, fails: "26000", attrs: unknowns(nil)}},
		},
		{
			name: "an error before all was sent",
			parts: hello(ask(p("", "SELECT nothing"), b("", ""), e("", 0), p("", "SELECT 2")), say(failing("ERROR", "42703", "nothing")), ask(b("", ""), e("", 0), sy), say(idleZ),
				ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)),
			want: []want{{text: "SELECT nothing", from: 3, to: 4, fails: "42703"}, {text: "SELECT 2", from: 3, to: 4, attrs: abortedAttrs, message: abortedMessage},
				{text: sel, from: 7, to: 8, rows: rows0}},
		},
		{
			name: "several with a Sync each",
			parts: hello(ask(p("", "SELECT 1"), b("", ""), e("", 0), sy, p("", "SELECT nothing"), b("", ""), e("", 0), sy, p("", "SELECT 3"), b("", ""), e("", 0), sy),
				say(okParse, okBind, row("1"), tagged("SELECT 1"), idleZ, failing("ERROR", "42703", "nothing"), idleZ), say(okParse, okBind, tagged("SELECT 0"), idleZ)),
			want: []want{{text: "SELECT 1", from: 3, to: 4, rows: rows1}, {text: "SELECT nothing", from: 3, to: 4, fails: "42703"}, {text: "SELECT 3", from: 3, to: 5, rows: rows0}},
		},
		{
			name:  "a client that goes on while it is answered",
			parts: hello(ask(q("SELECT 1")), ask(q("SELECT 2")), say(t, row("1"), tagged("SELECT 1"), idleZ, t), ask(q("SELECT 3")), say(tagged("SELECT 0"), idleZ), say(t, row("1"), row("1"), tagged("SELECT 2"), idleZ)),
			want:  []want{{text: "SELECT 1", from: 3, to: 5, rows: rows1}, {text: "SELECT 2", from: 4, to: 7, rows: rows0}, {text: "SELECT 3", from: 6, to: 8, rows: rows2}},
		},
		{
			name: "rows by portions",
			parts: hello(ask(p("", sel), b("c1", ""), dP("c1"), e("c1", 2), sy), say(okParse, okBind, t, row("1"), row("2"), stop, z("T")), ask(e("c1", 2), sy), say(row("3"), row("4"), stop, z("T")), ask(e("c1", 2), sy),
				say(row("5"), tagged("SELECT 1"), z("T")), ask(cP("c1"), sy), say(okClose, z("T")), ask(e("c1", 2), sy), say(failing("ERROR", "34000", "x"), z("E"))),
			want: []want{{text: sel, from: 3, to: 4, rows: rows2}, {text: sel, from: 5, to: 6, rows: rows2}, {text: sel, from: 7, to: 8, rows: rows1},
				{from: 11, to: 12, fails: "34000", attrs: unknowns(nil)}},
		},
		{
			name:  "nothing, prepared",
			parts: hello(ask(p("", ""), b("", ""), e("", 0), sy), say(okParse, okBind, empty, idleZ)),
			want:  []want{{from: 3, to: 4}},
		},
		{
			name: "SQL that takes statements away",
			parts: hello(ask(p("s1", sel), p("S2", ins), p("s3", "SELECT 3"), sy), say(okParse, okParse, okParse, idleZ), ask(q("deallocate s1; ")), say(tagged("DEALLOCATE"), idleZ), ask(q(`DEALLOCATE PREPARE "S2"`)), say(tagged("DEALLOCATE"), idleZ),
				ask(b("", "s1"), e("", 0), b("", "S2"), e("", 0), b("", "s3"), e("", 0), sy), say(failing("ERROR", "26000", "x"), idleZ),
				ask(q("DISCARD ALL")), say(tagged("DISCARD ALL"), idleZ), ask(b("", "s3"), e("", 0), sy), say(failing("ERROR", "26000", "x"), idleZ)),
			want: []want{{text: "deallocate s1; ", from: 5, to: 6}, {text: `DEALLOCATE PREPARE "S2"`, from: 7, to: 8}, {from: 9, to: 10, fails: "26000", attrs: unknowns(nil)},
				{from: 9, to: 10, attrs: unknowns(abortedCopy()), message: abortedMessage}, {text: "SELECT 3", from: 9, to: 10, attrs: abortedAttrs, message: abortedMessage},
				{text: "DISCARD ALL", from: 11, to: 12}, {from: 13, to: 14, fails: "26000", attrs: unknowns(nil)}},
		},
		{
			name:  "SQL that prepares and executes",
			parts: hello(ask(q("PREPARE x AS SELECT 1")), say(tagged("PREPARE"), idleZ), ask(q("EXECUTE x")), say(t, row("1"), tagged("SELECT 1"), idleZ), ask(b("", "x"), e("", 0), sy), say(okBind, row("1"), tagged("SELECT 1"), idleZ)),
			want: []want{{text: "PREPARE x AS SELECT 1", from: 3, to: 4}, {text: "EXECUTE x", from: 5, to: 6, rows: rows1},
				{from: 7, to: 8, rows: rows1, name: "SELECT shop", attrs: unknowns(attrs{"db.operation.name": "SELECT"})}},
		},
		{
			name: "the context of who prepares is that of the first execution",
			parts: hello(ask(p("s", "SELECT 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/"), sy), say(okParse, idleZ), ask(b("", "s"), e("", 0), sy), say(okBind, tagged("SELECT 0"), idleZ),
				ask(q("SELECT 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01'*/")), say(t, tagged("SELECT 0"), idleZ)),
			want: []want{{text: "SELECT 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/", from: 5, to: 6, rows: rows0},
				{text: "SELECT 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01'*/", from: 7, to: 8, rows: rows0}},
		},

		// Functions, and COPY.
		{
			name:  "a function",
			parts: hello(ask(fn(957, "planted")).name(1), say(msg(callResponse, int32s(7)+"planted"), idleZ), ask(fn(957, "planted")), say(failing("ERROR", "42883", "x"), idleZ)),
			want: []want{{from: 3, to: 4, id: 1, name: "FunctionCall shop", attrs: attrs{"db.operation.name": "FunctionCall"}},
				{from: 5, to: 6, name: "FunctionCall shop", fails: "42883", attrs: attrs{"db.operation.name": "FunctionCall"}}},
		},
		{
			name: "COPY in",
			parts: hello(ask(q("COPY t FROM STDIN")).name(1), say(msg(copyIn, "\x00"+int16s(0))), ask(msg(copyData, "planted\n"), msg(copyData, "planted\n")).name(2), ask(msg(copyData, "planted\n"), cDone), say(tagged("COPY 3"), idleZ),
				ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)),
			want: []want{{text: "COPY t FROM STDIN", from: 3, to: 7, id: 1}, {text: sel, from: 8, to: 9, rows: rows0}},
		},
		{
			name: "COPY in, prepared, with a Sync before the data",
			parts: hello(ask(p("", "COPY t FROM STDIN"), b("", ""), dP(""), e("", 0), sy), say(okParse, okBind, none, msg(copyIn, "\x00"+int16s(0))), ask(msg(copyData, "planted\n"), cDone, sy), say(tagged("COPY 1"), idleZ),
				ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)),
			want: []want{{text: "COPY t FROM STDIN", from: 3, to: 6}, {text: sel, from: 7, to: 8, rows: rows0}},
		},
		{
			name:  "COPY in, with the data behind it",
			parts: hello(ask(q("COPY t FROM STDIN"), msg(copyData, "planted\n"), cDone), say(msg(copyIn, "\x00"+int16s(0)), tagged("COPY 1"), idleZ), ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)),
			want:  []want{{text: "COPY t FROM STDIN", from: 3, to: 4}, {text: sel, from: 5, to: 6, rows: rows0}},
		},
		{
			name:  "COPY in that the client gives up",
			parts: hello(ask(q("COPY t FROM STDIN")), say(msg(copyIn, "\x00"+int16s(0))), ask(msg(copyData, "planted\n"), msg(copyFail, "planted\x00")), say(failing("ERROR", "57014", "planted"), idleZ)),
			want:  []want{{text: "COPY t FROM STDIN", from: 3, to: 6, fails: "57014"}},
		},
		{
			name:  "COPY in that the server gives up",
			parts: hello(ask(q("COPY t FROM STDIN")), say(msg(copyIn, "\x00"+int16s(0))), ask(msg(copyData, "planted\n")), say(failing("ERROR", "22P04", "planted"), idleZ), ask(msg(copyData, "planted\n"), cDone), ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)),
			want:  []want{{text: "COPY t FROM STDIN", from: 3, to: 6, fails: "22P04"}, {text: sel, from: 8, to: 9, rows: rows0}},
		},
		{
			name:  "COPY out",
			parts: hello(ask(q("COPY t TO STDOUT")), say(msg(copyOut, "\x00"+int16s(0)), msg(copyData, "planted\n"), msg(copyData, "planted\n"), msg(copyDone, ""), tagged("COPY 2"), idleZ)),
			want:  []want{{text: "COPY t TO STDOUT", from: 3, to: 4, rows: rows2}},
		},
		{
			name:  "COPY both ways",
			parts: hello(ask(q("START_REPLICATION 0/0")), say(msg(copyBoth, "\x00"+int16s(0))), ask(msg(copyData, "planted"))),
			want:  []want{{text: "START_REPLICATION 0/0", from: 3, to: 4}},
			err:   probes.ErrUpgraded,
		},

		// How connections begin.
		{
			name:  "the user's name is the database's",
			parts: []part{ask(startup("user", "shop")), say(msg(authentication, int32s(10)+"SCRAM-SHA-256\x00\x00")), ask(msg(password, "SCRAM-SHA-256\x00planted")), say(msg(authentication, int32s(11)+"planted")), ask(msg(password, "planted")), say(msg(authentication, int32s(12)+"planted"), greeted), ask(q(sel)).name(1), say(t, tagged("SELECT 0"), idleZ)},
			want:  []want{{text: sel, from: 7, to: 8, id: 1, rows: rows0}},
		},
		{
			name: "no TLS",
			parts: []part{ask(int32s(8) + int32s(codeGSS)), say("N"), ask(int32s(8) + int32s(codeTLS)), say("N"), ask(startup("user", "u", "database", "shop")), say(msg(authentication, int32s(3))), ask(msg(password, "planted\x00")),
				say(msg(negotiate, int32s(0)+int32s(0)), greeted), ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)},
			want: []want{{text: sel, from: 9, to: 10, rows: rows0}},
		},
		{name: "TLS", parts: []part{ask(int32s(8) + int32s(codeTLS)), say("S"), ask("\x16\x03\x01planted")}, err: probes.ErrUpgraded},
		{name: "GSS", parts: []part{ask(int32s(8) + int32s(codeGSS)), say("G"), ask("planted")}, err: probes.ErrUpgraded},
		{name: "a cancellation", parts: []part{ask(int32s(16) + int32s(codeCancel) + int32s(77) + "plan")}, err: probes.ErrUpgraded},
		{name: "replication", parts: []part{ask(startup("user", "u", "replication", "database")), say(greeted)}, err: probes.ErrUpgraded},
		{
			name:  "no replication",
			parts: []part{ask(startup("user", "u", "replication", "off", "database", "shop")), say(greeted), ask(q(sel)), say(t, tagged("SELECT 0"), idleZ)},
			want:  []want{{text: sel, from: 3, to: 4, rows: rows0}},
		},
		{name: "a password that is wrong", parts: []part{ask(startup("user", "u")), say(msg(authentication, int32s(3))), ask(msg(password, "planted\x00")), say(failing("FATAL", "28P01", "planted")), end(probes.LocalClosed)}},
		{
			name:  "a query together with the start",
			parts: []part{ask(startup("user", "u", "database", "shop"), q(sel)), say(greeted, t, tagged("SELECT 0"), idleZ)},
			want:  []want{{text: sel, from: 1, to: 2, rows: rows0}},
		},

		// In the middle.
		{
			name:        "a statement that was prepared before",
			established: true, open: true,
			parts: []part{ask(b("", "s1", "planted"), e("", 0), sy).name(1).after(1000), say(okBind, row("1"), row("2"), tagged("SELECT 2"), idleZ).after(500), ask(p("s1", sel), b("", "s1"), e("", 0), sy), say(okParse, okBind, tagged("SELECT 0"), idleZ)},
			want: []want{{from: 1, to: 2, id: 1, rows: rows2, name: "SELECT 192.0.2.7:5432", attrs: unknowns(attrs{"db.operation.name": "SELECT"})},
				{text: sel, from: 3, to: 4, rows: rows0}},
		},
		{
			name:        "in the middle of an answer",
			established: true, open: true, whole: true,
			parts: []part{say(okBind, row("1"), row("2")).after(500), say(row("3"), tagged("SELECT 3"), idleZ), ask(q(sel)).after(99), say(t, row("1"), tagged("SELECT 1"), idleZ)},
			want:  []want{{text: sel, from: 3, to: 4, rows: rows1}},
		},
	}
}

// capturedTests are of what is not captured in full; how the bytes are split would matter.
func capturedTests() []exchangeTest {
	const sel, ins = "SELECT a FROM t WHERE b = 1", "INSERT INTO t VALUES ($1, 'literal')"
	t := rowsOf("a", "b")
	rows := big(500)
	end500 := tagged("SELECT 500") + idleZ
	next, answered := ask(q(sel)), say(t, row("1", "2"), tagged("SELECT 1"), idleZ)
	long := "SELECT '" + strings.Repeat("literal ", 3000) + "'"
	var batch, batched string
	for range 400 {
		batch += b("", "s1", strings.Repeat("planted ", 4)) + e("", 0)
		batched += okBind + tagged("INSERT 0 1")
	}
	seen := (16 << 10) / (len(batch) / 400) // of the batch, in what is captured
	known := 450 / (len(batched) / 400)
	list := []exchangeTest{
		{
			name:  "many rows in one call",
			parts: hello(ask(q(sel)), say(t, rows, end500).captured(450, 64), next, answered),
			want:  []want{{text: sel, from: 3, to: 4, rows: 501}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name: "many rows in many calls",
			parts: hello(ask(q(sel)), say(t, rows).captured(450, 64), say(rows).captured(24, 64), say(rows).captured(24, 64), say(rows, rows, end500).after(1<<20).captured(24, 64),
				next, answered),
			want: []want{{text: sel, from: 3, to: 7, rows: 501}, {text: sel, from: 8, to: 9, rows: rows1}},
		},
		{
			name:  "many rows, prepared",
			parts: hello(ask(p("", sel), b("", "", "planted"), dP(""), e("", 0), sy), say(okParse, okBind, t, rows).captured(450, 64), say(rows, end500).captured(24, 64), next, answered),
			want:  []want{{text: sel, from: 3, to: 5, rows: 501}, {text: sel, from: 6, to: 7, rows: rows1}},
		},
		{
			name:  "many rows, as far as they were asked for",
			parts: hello(ask(p("", sel), b("", "", "planted"), e("", 500), sy), say(okParse, okBind, rows, stop, z("T")).captured(450, 64), ask(e("", 500), sy), say(rows, tagged("SELECT 499"), idleZ).captured(450, 64)),
			want:  []want{{text: sel, from: 3, to: 4, rows: 501}, {text: sel, from: 5, to: 6, rows: 500}},
		},
		{
			name:  "a row that is long",
			parts: hello(ask(q(sel)), say(t, row(strings.Repeat("planted", 10000), "x")).captured(450, 64), say(row("1", "2"), tagged("SELECT 2"), idleZ).captured(24, 64)),
			want:  []want{{text: sel, from: 3, to: 5, rows: rows2}},
		},
		{
			name:  "the end in two calls",
			parts: hello(ask(q(sel)), say(t, rows, end500[:len(end500)-13]).captured(450, 64), say(end500[len(end500)-13:]), next, answered),
			want:  []want{{text: sel, from: 3, to: 5, rows: 501}, {text: sel, from: 6, to: 7, rows: rows1}},
		},
		{
			name:  "the end was not told",
			parts: hello(ask(q(sel)), say(t, rows).captured(450, 64), ask(q(ins)), say(tagged("INSERT 0 1"), idleZ).after(5000), next, answered),
			want:  []want{{text: sel, from: 3, to: 4, attrs: unknowns(nil)}, {text: ins, from: 5, to: 6}, {text: sel, from: 7, to: 8, rows: rows1}},
		},
		{
			name:  "the end was not told, but when it was",
			parts: hello(ask(q(sel)), say(t, rows).captured(450, 64), part{answer: true, prog: 5000}, ask(q(ins)), say(tagged("INSERT 0 1"), idleZ).after(5000)),
			want:  []want{{text: sel, from: 3, to: 5, attrs: unknowns(nil)}, {text: ins, from: 6, to: 7}},
		},
		{
			name:  "the connection ends, and the end of the answer was not told",
			parts: hello(ask(q(sel)), say(t, rows).captured(450, 64), end(probes.Closed)),
			want:  []want{{text: sel, from: 3, to: 4, attrs: unknowns(nil)}},
		},
		{
			name:  "the agent stops in the middle of many rows",
			parts: hello(ask(q(sel)), say(t, rows).captured(450, 64), end(probes.Stopped)),
			want:  []want{{text: sel, from: 3, to: 5, attrs: attrs{"breadcrumb.unfinished": true}}},
		},
		{
			name:  "many rows, and an error",
			parts: hello(ask(q(sel)), say(t, rows, failing("ERROR", "57014", "planted"), idleZ).captured(450, 200), next, answered),
			want:  []want{{text: sel, from: 3, to: 4, fails: "57014"}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "many rows, and an error of which the end is seen",
			parts: hello(ask(q(sel)), say(t, rows, failing("ERROR", "57014", "planted"), idleZ).captured(450, 40), next, answered),
			want:  []want{{text: sel, from: 3, to: 4, message: "ERROR", attrs: attrs{"error.type": "_OTHER"}}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "many rows, and what may be an error",
			parts: hello(ask(q(sel)), say(t, rows, strings.Replace(noticing("planted"), "some_routine", "exec_stmt_rais", 1), idleZ).captured(450, 5), next, answered),
			want:  []want{{text: sel, from: 3, to: 4, attrs: unknowns(nil)}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "a function, and many rows of several statements",
			parts: hello(ask(q("SELECT 1; SELECT 2")), say(t, row("1", "2"), tagged("SELECT 1"), t, rows, end500).captured(450, 64), next, answered),
			want:  []want{{text: "SELECT 1; SELECT 2", from: 3, to: 4}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name: "several before one Sync",
			parts: hello(ask(p("", sel), b("", "", "planted"), e("", 0), p("", ins), b("", "", "x"), e("", 0), p("", sel), b("", ""), e("", 0), sy),
				say(okParse, okBind, rows, tagged("SELECT 500"), okParse, okBind, tagged("INSERT 0 1"), okParse, okBind, rows, end500).captured(450, 64), next, answered),
			want: []want{{text: sel, from: 3, to: 4}, {text: ins, from: 3, to: 4}, {text: sel, from: 3, to: 4, rows: 501}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name: "several before one Sync, and an error that may be of any",
			parts: hello(ask(p("", sel), b("", "", "planted"), e("", 0), p("", ins), b("", "", "x"), e("", 0), sy),
				say(okParse, okBind, rows, tagged("SELECT 500"), failing("ERROR", "23505", "planted"), idleZ).captured(450, 200), next, answered),
			want: []want{{text: sel, from: 3, to: 4, attrs: unknowns(nil)}, {text: ins, from: 3, to: 4, attrs: unknowns(nil)}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "several with a Sync each, all of which are seen to be answered",
			parts: hello(ask(p("", sel), b("", ""), e("", 0), sy, p("", ins), b("", ""), e("", 0), sy), say(okParse, okBind, rows, end500).captured(450, 64), say(okParse, okBind, tagged("INSERT 0 1"), idleZ), next, answered),
			want:  []want{{text: sel, from: 3, to: 4 + 1, attrs: unknowns(nil)}, {text: ins, from: 3, to: 5}, {text: sel, from: 6, to: 7, rows: rows1}},
		},
		{
			name:  "several with a Sync each, of which it is not known what is answered, and a pause",
			parts: hello(ask(p("", sel), b("", ""), e("", 0), sy, p("", ins), b("", ""), e("", 0), sy), say(okParse, okBind, rows, end500, okParse, okBind, tagged("INSERT 0 1"), idleZ).captured(450, 64), next.time(idle+4000), answered.time(idle+5000)),
			want:  []want{{text: sel, from: 3, to: 4, attrs: unknowns(nil)}, {text: ins, from: 3, to: 4}, {text: sel, from: idle/1000 + 4, to: idle/1000 + 5, rows: rows1}},
		},
		{
			name: "several with a Sync each, of which it is not known what is answered, and the client goes on",
			parts: hello(ask(p("", sel), b("", ""), e("", 0), sy, p("", ins), b("", ""), e("", 0), sy), say(okParse, okBind, rows, end500, okParse, okBind, tagged("INSERT 0 1"), idleZ).captured(450, 64), next, answered,
				next.time(2*idle), answered.time(2*idle+1000)),
			want: []want{{text: sel, from: 2 * idle / 1000, to: 2*idle/1000 + 1, rows: rows1}},
			lost: map[ledger.Entry]uint64{ledger.Truncated: 3},
		},
		{
			name:  "a statement that is long",
			parts: hello(ask(q(long)).captured(16<<10, 0), answered, next, answered),
			want:  []want{{text: long[:16<<10-5], from: 3, to: 4, rows: rows1, attrs: attrs{"breadcrumb.truncated": true}}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "a statement that is long, of which the rest is not told",
			parts: hello(ask(q(long)[:500]), say(noticing("planted")), answered, next.after(len(q(long))-500), answered),
			want:  []want{{text: long[:500-5], from: 3, to: 5, rows: rows1, attrs: attrs{"breadcrumb.truncated": true}}, {text: sel, from: 6, to: 7, rows: rows1}},
		},
		{
			name:  "values that are long",
			parts: hello(ask(p("", ins), b("", "", strings.Repeat("planted", 5000)), e("", 0), sy).captured(1000, 64), say(okParse, okBind, tagged("INSERT 0 1"), idleZ), next, answered),
			want:  []want{{text: ins, from: 3, to: 4}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "values that are long, of which the end is not seen, and what follows neither",
			parts: hello(ask(p("", ins), b("", "", strings.Repeat("planted", 5000)), e("", 0), sy).captured(1000, 0), say(okParse, okBind, tagged("INSERT 0 1"), idleZ), next, answered),
			want:  []want{{text: ins, from: 3, to: 4}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "values that are long, of which only the beginning is told",
			parts: hello(ask((p("", sel) + b("", "", strings.Repeat("planted", 5000)))[:1000]), say(okParse, okBind, row("1", "2"), tagged("SELECT 1"), idleZ), ask(q(ins)).after(34100), say(tagged("INSERT 0 1"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 4, rows: rows1}, {text: ins, from: 5, to: 6}},
		},
		{
			name:  "values that are long, of which only the beginning is told, and that are wrong",
			parts: hello(ask((p("", sel) + b("", "", strings.Repeat("planted", 5000)))[:1000]), say(okParse, failing("ERROR", "22P02", "planted"), idleZ), ask(q(ins)).after(34100), say(tagged("INSERT 0 1"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 4, fails: "22P02"}, {text: ins, from: 5, to: 6}},
		},
		{
			name: "more in one run than is captured",
			parts: hello(ask(p("s1", ins), sy), say(okParse, idleZ), ask(batch[:16<<10]), ask(batch[16<<10:], sy).captured(0, 0), say(batched, idleZ).captured(450, 64), ask(b("", "s1", "x"), e("", 0), sy),
				say(okBind, tagged("INSERT 0 1"), idleZ)),
			want: slices.Concat(sames(want{text: ins, from: 5, to: 7}, known), sames(want{text: ins, from: 5, to: 7, attrs: unknowns(nil)}, seen-known), []want{{text: ins, from: 8, to: 9}}),
		},
		{
			name:  "more in one run than is captured, and all that is answered is",
			parts: hello(ask(p("s1", ins), sy), say(okParse, idleZ), ask(batch[:16<<10]), ask(batch[16<<10:], sy).captured(0, 0), say(batched, idleZ), ask(b("", "s1", "x"), e("", 0), sy), say(okBind, tagged("INSERT 0 1"), idleZ)),
			want:  append(sames(want{text: ins, from: 5, to: 7}, seen+1), want{text: ins, from: 8, to: 9}),
			lost:  map[ledger.Entry]uint64{ledger.Truncated: 400 - uint64(seen) - 1},
		},
		{
			name:  "COPY in, of which not all is captured",
			parts: hello(ask(q("COPY t FROM STDIN")), say(msg(copyIn, "\x00"+int16s(0))), ask(strings.Repeat(msg(copyData, "planted\n"), 5000), cDone).captured(1000, 64), say(tagged("COPY 5000"), idleZ), next, answered),
			want:  []want{{text: "COPY t FROM STDIN", from: 3, to: 6}, {text: sel, from: 7, to: 8, rows: rows1}},
		},
		{
			name:  "COPY out, of which not all is captured",
			parts: hello(ask(q("COPY t TO STDOUT")), say(msg(copyOut, "\x00"+int16s(0)), strings.Repeat(msg(copyData, "planted\n"), 5000), msg(copyDone, ""), tagged("COPY 5000"), idleZ).captured(450, 64), next, answered),
			want:  []want{{text: "COPY t TO STDOUT", from: 3, to: 4, rows: 5001}, {text: sel, from: 5, to: 6, rows: rows1}},
		},
		{
			name:  "what comes at any time, while nothing is asked, was not told",
			parts: hello(next, answered, ask(q(ins)), say(tagged("INSERT 0 1"), idleZ).after(4567)),
			want:  []want{{text: sel, from: 3, to: 4, rows: rows1}, {text: ins, from: 5, to: 6}},
		},
		{
			name:  "an answer that could not be read",
			parts: hello(next, say(t, row("1", "2"), tagged("SELECT 1"), idleZ).unread(), ask(q(ins)), say(tagged("INSERT 0 1"), idleZ)),
			want:  []want{{text: sel, from: 3, to: 4, attrs: unknowns(nil)}, {text: ins, from: 5, to: 6}},
		},
		{
			name:  "a query that could not be read",
			parts: hello(next.unread(), answered, ask(q(ins)), say(tagged("INSERT 0 1"), idleZ)),
			want:  []want{{text: ins, from: 5, to: 6}},
			lost:  map[ledger.Entry]uint64{ledger.Unreadable: 1},
		},

		// Where events were lost.
		{
			name:  "the answer was lost",
			parts: hello(next, ask(q(ins)).afterLoss().name(2), say(tagged("INSERT 0 1"), idleZ).after(200), next, answered),
			want:  []want{{text: ins, from: 4, to: 5, id: 2}, {text: sel, from: 6, to: 7, rows: rows1}},
			lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
		},
		{
			name:  "the beginning of the answer was lost",
			parts: hello(next, say(row("1", "2"), tagged("SELECT 9"), idleZ).after(200).afterLoss(), ask(q(ins)), say(tagged("INSERT 0 1"), idleZ)),
			want:  []want{{text: ins, from: 5, to: 6}},
			lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
		},
		{
			name:  "a query was lost, which the kernel side has counted",
			parts: hello(next, answered, say(tagged("INSERT 0 1"), idleZ).afterLoss(), next.after(77), answered),
			want:  []want{{text: sel, from: 3, to: 4, rows: rows1}, {text: sel, from: 6, to: 7, rows: rows1}},
		},
		{
			name:  "one of several before a Sync was lost",
			parts: hello(ask(p("s1", ins), sy), say(okParse, idleZ), ask(b("", "s1", "x"), e("", 0)), ask(b("", "s1", "x"), e("", 0), sy).after(50).afterLoss().unnamed(), say(batched, idleZ), ask(b("", "s1", "x"), e("", 0), sy), say(okBind, tagged("INSERT 0 1"), idleZ)),
			want:  []want{{text: ins, from: 8, to: 9}},
			lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
		},
	}
	for i := range list {
		list[i].whole = true
	}
	return list
}

func sames(w want, n int) (list []want) {
	for range n {
		list = append(list, w)
	}
	return list
}

func abortedCopy() attrs { return attrs{"error.type": "pipeline_aborted"} }

func TestExchanges(t *testing.T) {
	for _, test := range append(exchangeTests(), capturedTests()...) {
		for _, server := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", test.name, server), func(t *testing.T) { test.run(t, server) })
		}
	}
}

func (test *exchangeTest) run(t *testing.T, server bool) {
	var want []spanned
	database := "shop"
	if test.open {
		database = ""
	}
	for i := range test.want {
		want = append(want, test.want[i].span(server, database))
	}
	check := func(how string, events []chunk) {
		t.Helper()
		acc := new(ledger.Account)
		conn := testConn(acc, server)
		conn.Established = test.established
		k, err := play(t, protocol, conn, server, events)
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v", how, err, test.err)
		}
		if got := k.results(); len(want)+len(got) > 0 && !reflect.DeepEqual(want, got) {
			t.Errorf("%s: (-want +got)\n%s", how, cmp.Diff(want, got))
		}
		k.balance(acc)
		c := acc.Counts()
		for e := ledger.FirstLoss; e < ledger.Entries; e++ {
			if c[e] != test.lost[e] {
				t.Errorf("%s: %d lost by %v, want %d", how, c[e], e, test.lost[e])
			}
		}
		for i := range events {
			for _, part := range [][]byte{events[i].Head, events[i].Tail} {
				if s := string(part); strings.Contains(s, "planted") {
					t.Errorf("%s: left in event %d: %q", how, i, s)
				}
			}
		}
	}
	check("whole", chunks(test.parts, server, whole))
	if test.whole {
		return
	}
	for n := 1; n < 12; n++ {
		check(fmt.Sprintf("by %d", n), chunks(test.parts, server, steps(n)))
		if t.Failed() {
			return
		}
	}
	for i, p := range test.parts {
		for n := 1; n < len(p.data); n++ {
			check(fmt.Sprintf("part %d split at %d", i, n), chunks(test.parts, server, splitAt(i, n)))
			if t.Failed() {
				return
			}
		}
	}
}
