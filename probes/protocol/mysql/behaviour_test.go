// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	selectUsers = "SELECT name FROM users WHERE id = 42"
	insertUsers = "INSERT INTO users VALUES (1)"
)

func TestDetect(t *testing.T) {
	long := "SELECT name FROM users WHERE id IN (" + strings.Repeat("42, ", 200) + "43)"
	for _, test := range []struct {
		name     string
		data     string
		want     probes.Verdict
		requests bool
	}{
		{"nothing", "", probes.Maybe, true},
		{"a greeting", plain.greeting("8.4.2"), probes.Yes, false},
		{"MariaDB's greeting", maria.greeting("5.5.5-10.11.6-MariaDB-0+deb12u1"), probes.Yes, false},
		{"a greeting, its first bytes", plain.greeting("8.4.2")[:20], probes.Maybe, false},
		{"a greeting of another protocol", packet(0, "\x09", "3.20\x00", strings.Repeat("x", 60)), probes.No, true},
		{"a refusal", packet(0, "\xff"+le(1040, 2)+"Too many connections"), probes.No, true},
		{"a query", query(selectUsers), probes.Yes, true},
		{"a query with attributes", packet(0, "\x03\x00\x01"+selectUsers), probes.Yes, true},
		{"a query in lower case, with blanks and a comment", query(" \n/* a */ -- b\n (select 1)"), probes.Yes, true},
		{"a header", query(selectUsers)[:4], probes.Maybe, true},
		{"one byte", query(selectUsers)[:1], probes.Maybe, true},
		{"a part", query(selectUsers)[:20], probes.Maybe, true},
		{"a long query", query(long)[:400], probes.Yes, true},
		{"a query and another", query(selectUsers) + query(insertUsers), probes.Yes, true},
		{"a query and a part", query(selectUsers) + query(insertUsers)[:9], probes.Yes, true},
		{"a query and something else", query(selectUsers) + "something else", probes.No, true},
		{"prepared", prepare(selectUsers), probes.Yes, true},
		{"executed", execute(3, "a", "b"), probes.Yes, true},
		{"executed many times", packet(0, "\x17"+le(3, 4)+"\x00"+le(7, 4)), probes.No, true},
		{"closed and executed", closeStmt(2) + execute(3), probes.Yes, true},
		{"a ping", packet(0, "\x0e"), probes.Yes, true},
		{"a reset", packet(0, "\x1f"), probes.Yes, true},
		{"the end", packet(0, "\x01"), probes.No, true},
		{"no statement", query("something else"), probes.No, true},
		{"bytes", query("SELECT \x00"), probes.No, true},
		{"numbered", packet(1, "\x03"+selectUsers), probes.No, true},
		{"OK", packet(1, okay(2)), probes.No, true},
		{"a compressed query", deflate(query(long), 0, false), probes.Yes, true},
		{"a compressed query, zstd", deflate(query(long), 0, true), probes.Yes, true},
		{"a compressed query, its header", deflate(query(long), 0, false)[:frameSize], probes.Maybe, true},
		{"a compressed query, a part", deflate(query(long), 0, false)[:60], probes.Maybe, true},
		{"a query in a frame", deflate(query(selectUsers), 0, false), probes.Yes, true},
		{"something compressed", deflate(strings.Repeat("something else", 10), 0, false), probes.No, true},
		{"HTTP", "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", probes.No, true},
		{"HTTP's answer", "HTTP/1.1 200 OK\r\n\r\n", probes.No, true},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00", probes.No, true},
		{"HTTP/2's settings", "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x10\x00\x00\x00\x06\x00\x10\x01\x40", probes.No, true},
		{"HTTP/2's data", "\x00\x04\x00\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 1024), probes.No, true},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", probes.No, true},
		{"TLS, a short record", "\x17\x03\x03\x00\x16" + strings.Repeat("x", 22), probes.No, true},
		{"PostgreSQL's start", "\x00\x00\x00\x20\x00\x03\x00\x00user\x00app\x00database\x00shop\x00\x00", probes.No, true},
		{"PostgreSQL's TLS", "\x00\x00\x00\x08\x04\xd2\x16\x2f", probes.No, true},
		{"PostgreSQL's query", "Q\x00\x00\x00\x16SELECT 1 FROM abc\x00", probes.No, true},
		{"PostgreSQL's query, of a length that is a command", "Q\x00\x00\x00\x16SELECT 1 FROM abc", probes.Maybe, true},
		{"PostgreSQL's parse", "P\x00\x00\x00\x16\x00SELECT 1 FROM a\x00\x00\x00", probes.No, true},
		{"FastCGI", "\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", probes.No, true},
		{"Redis", "*1\r\n$4\r\nPING\r\n", probes.No, true},
		{"MongoDB", "\x3a\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00" + strings.Repeat("\x00", 42), probes.No, true},
		{"the X protocol", "\x01\x00\x00\x00\x01", probes.No, true},
		{"zeros", strings.Repeat("\x00", 100), probes.No, true},
	} {
		for _, dir := range []probes.Direction{probes.Ingress, probes.Egress} {
			v, requests := protocol.Detect(dir, []byte(test.data))
			if v != test.want || v == probes.Yes && requests != test.requests {
				t.Errorf("%s: %v, from the side that asks: %v", test.name, v, requests)
			}
		}
	}
}

// TestDetectedWhereverCut: no part of what is recognised is refused, for it may come in pieces. But a keyword must be whole.
func TestDetectedWhereverCut(t *testing.T) {
	for _, data := range []string{plain.greeting("8.4.2"), maria.greeting("11.4.2-MariaDB"), query(selectUsers), packet(0, "\x03\x00\x01"+selectUsers), execute(3, "a"), closeStmt(1) + execute(3)} {
		for n := 1; n < len(data); n++ {
			if n > headerSize && n < headerSize+10 && (data[4] == byte(comQuery)) {
				continue
			}
			if v, _ := protocol.Detect(probes.Ingress, []byte(data[:n])); v == probes.No {
				t.Errorf("%q: refused", data[:n])
			}
		}
	}
}

// TestNames: the first span of a run has the kernel side's name for it, the others one of their own, the same in a replay.
func TestNames(t *testing.T) {
	q := query(insertUsers)
	ok := packet(1, okay(2))
	n := uint32(len(q))
	hello := modern.hello("shop")
	var before uint32
	for _, p := range hello {
		if !p.answer {
			before += uint32(len(p.data))
		}
	}
	for _, test := range []struct {
		name  string
		parts []part
		want  []trace.SpanID // zero: not the kernel side's
		seqs  []uint32
	}{
		{"each its own", []part{req(q).name(1), rsp(ok), req(q).name(2), rsp(ok)}, []trace.SpanID{named(1), named(2)}, []uint32{0, n}},
		{"two in one call", []part{req(q, q).name(1), rsp(ok, ok), req(q).name(2)}, []trace.SpanID{named(1), {}, named(2)}, []uint32{0, n, 2 * n}},
		{"behind what is none", []part{req(closeStmt(1), q).name(1), rsp(ok)}, []trace.SpanID{named(1)}, []uint32{9}},
		{"of the first byte", []part{req(q[:1]).name(1), req(q[1:]), rsp(ok)}, []trace.SpanID{named(1)}, []uint32{0}},
		{"of the first byte, and named again", []part{req(q[:3]).name(1), req(q[3:]).name(2), rsp(ok)}, []trace.SpanID{named(1)}, []uint32{0}},
		{"prepared, then executed", []part{req(prepare(insertUsers)).name(1), rsp(modern.prepared(1, 0, 0)), req(execute(1)).name(2), rsp(ok)}, []trace.SpanID{named(2)}, []uint32{uint32(len(prepare(insertUsers)))}},
		{"prepared and executed at once", []part{req(prepare(insertUsers), execute(lastPrepared)).name(1), rsp(modern.prepared(1, 0, 0), ok)}, []trace.SpanID{named(1)}, []uint32{uint32(len(prepare(insertUsers)))}},
		{"not prepared", []part{req(prepare(insertUsers)).name(1), rsp(packet(1, fail(1146, "")))}, []trace.SpanID{named(1)}, []uint32{0}},
		{"not prepared, and executed", []part{req(prepare(insertUsers), execute(lastPrepared)).name(1), rsp(packet(1, fail(1146, "")), packet(1, fail(1243, "")))}, []trace.SpanID{named(1), {}}, []uint32{uint32(len(prepare(insertUsers))), 0}},
	} {
		var first []trace.SpanID
		for range 2 {
			k, err := play(t, testConn(nil, true), true, chunks(append(slices.Clone(hello), test.parts...), true, whole))
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			var ids []trace.SpanID
			var seqs []uint32
			for _, s := range k.opened {
				if s.Evidence.PID != 42 || !s.Evidence.HasSeq {
					t.Errorf("%s: evidence %+v", test.name, s.Evidence)
				}
				ids = append(ids, s.ID)
				seqs = append(seqs, s.Evidence.Seq+5-before)
			}
			for i, id := range ids {
				if i < len(test.want) && (test.want[i].IsValid() && id != test.want[i] || !test.want[i].IsValid() && (isNamed(id) || !id.IsValid())) {
					t.Errorf("%s: span %d is %v, want %v", test.name, i, id, test.want[i])
				}
			}
			if !slices.Equal(seqs, test.seqs) {
				t.Errorf("%s: sequence numbers %v, want %v", test.name, seqs, test.seqs)
			}
			if first != nil && !slices.Equal(ids, first) {
				t.Errorf("%s: %v, then %v", test.name, first, ids)
			}
			first = ids
		}
	}
}

func TestNamesOfPartsAreAliases(t *testing.T) {
	load := query("LOAD DATA LOCAL INFILE 'x' INTO TABLE users")
	q := query(insertUsers)
	for _, test := range []struct {
		name  string
		parts []part
		want  []trace.SpanID
	}{
		{"a local file", []part{req(load).name(1), rsp(packet(1, "\xfbx")), req(packet(2, "data")).name(2), req(packet(3, "")), rsp(packet(4, okay(2))), req(q).name(3)}, []trace.SpanID{named(2)}},
		{"the rest of a command", []part{req(q[:10]).name(1), req(q[10:]).name(2), rsp(packet(1, okay(2)))}, []trace.SpanID{named(2)}},
		{"not the next command", []part{req(q).name(1), rsp(packet(1, okay(2))), req(q).name(2)}, nil},
	} {
		k, err := play(t, testConn(nil, false), false, chunks(append(modern.hello("shop"), test.parts...), false, whole))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if len(k.aliases) != len(test.want) {
			t.Errorf("%s: aliases %v, want %v", test.name, k.aliases, test.want)
		}
		for _, id := range test.want {
			if k.aliases[id] != k.opened[0] {
				t.Errorf("%s: %v is no alias", test.name, id)
			}
		}
	}
}

// TestSpansAreHandedOverInTime: open when the command is complete, answered when the answer begins, done with its last packet.
func TestSpansAreHandedOverInTime(t *testing.T) {
	for _, server := range []bool{true, false} {
		hello := modern.hello("shop")
		q, set := query(selectUsers), modern.set(1, 2, []string{"a"}, row("1"))
		parts := append(hello, req(q[:9]), req(q[9:]), rsp(set[:4]), rsp(set[4:20]), rsp(set[20:len(set)-1]), rsp(set[len(set)-1:]))
		states := []int{-1, int(span.Open), int(span.Open), int(span.Answered), int(span.Answered), int(span.Done)} // -1: no span
		d := protocol.New(testConn(nil, server), server)
		k := newSink(t)
		for i, ev := range chunks(parts, server, whole) {
			if err := d.Decode(&ev.Chunk, k); err != nil {
				t.Fatal(err)
			}
			i -= len(hello)
			switch {
			case i < 0:
			case len(k.opened) == 0:
				if states[i] != -1 {
					t.Errorf("step %d: no span", i)
				}
			case int(k.opened[0].State) != states[i]:
				t.Errorf("step %d: %+v", i, k.opened[0])
			case k.opened[0].Kind != map[bool]trace.SpanKind{true: trace.SpanKindServer, false: trace.SpanKindClient}[server]:
				t.Errorf("kind %v", k.opened[0].Kind)
			}
		}
	}
}

func TestEnds(t *testing.T) {
	set := modern.set(1, 2, []string{"a"}, row("1"), row("2"))
	for _, test := range []struct {
		name       string
		parts      []part
		want       []any // error.type, or "unfinished", or "truncated", or nil
		unanswered bool
	}{
		{"answered", []part{req(query(insertUsers)), rsp(packet(1, okay(2))), end(probes.Closed)}, []any{nil}, false},
		{"closed", []part{req(query(insertUsers)), end(probes.Closed)}, []any{"connection_closed"}, true},
		{"reset", []part{req(query(insertUsers)), end(probes.Reset)}, []any{"connection_reset"}, true},
		{"given up", []part{req(query(insertUsers)), end(probes.Stopped)}, []any{"unfinished"}, true},
		{"the server stops", []part{req(query(insertUsers)), end(probes.LocalClosed), end(probes.Closed)}, []any{"connection_closed"}, true},
		{"the client stops", []part{req(query(insertUsers)), end(probes.PeerClosed), rsp(packet(1, okay(2))), end(probes.Closed)}, []any{nil}, false},
		{"in the middle of an answer", []part{req(query(insertUsers)), rsp(set[:60]), end(probes.Closed)}, []any{"connection_closed"}, false},
		{"in the middle of an answer, by error", []part{req(query(insertUsers)), rsp(set[:60]), end(probes.Reset)}, []any{"connection_reset"}, false},
		{"in the middle of a command", []part{req(query(insertUsers)[:20]), end(probes.Closed)}, nil, false},
		{"several", []part{req(query(insertUsers), query(insertUsers)), rsp(packet(1, okay(2))), end(probes.Closed)}, []any{nil, "connection_closed"}, true},
		{"not prepared", []part{req(prepare(insertUsers)), end(probes.Closed)}, nil, false},
		{"an answer of which the end was not seen", []part{req(query(insertUsers)), rsp(modern.set(1, 2, []string{"a"}, slices.Repeat([]string{row("1")}, 300)...)).captured(70, 3), end(probes.Closed)}, []any{"truncated"}, false},
		{"an answer of which the end was not seen, by error", []part{req(query(insertUsers)), rsp(modern.set(1, 2, []string{"a"}, slices.Repeat([]string{row("1")}, 300)...)).captured(70, 3), end(probes.Reset)}, []any{"connection_reset"}, false},
	} {
		for _, server := range []bool{false, true} {
			acc := new(ledger.Account)
			k, err := play(t, testConn(acc, server), server, chunks(append(modern.hello("shop"), test.parts...), server, whole))
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			k.balance(acc, 0)
			var got []any
			for i, r := range k.results() {
				what := r.Attrs["error.type"]
				if (r.Status == codes.Error) != (what != nil) {
					t.Errorf("%s: status %v, %v", test.name, r.Status, what)
				}
				switch {
				case r.Attrs["breadcrumb.unfinished"] == true:
					what = "unfinished"
				case r.Attrs["breadcrumb.truncated"] == true:
					what = "truncated"
				}
				got = append(got, what)
				if i == len(test.want)-1 && k.done[i].Unanswered != test.unanswered {
					t.Errorf("%s: unanswered %v", test.name, k.done[i].Unanswered)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: server %v: (-want +got)\n%s", test.name, server, diff)
			}
		}
	}
}

func TestOtherThingsFromThereOn(t *testing.T) {
	tls := wire{caps: capsNew | clientSSL}
	login := packet(1, tls.login(1, "shop")[headerSize:headerSize+loginSize])
	for _, test := range []struct {
		name  string
		parts []part
		want  error
	}{
		{"TLS", []part{rsp(tls.greeting("8.4.2")), req(login, "\x16\x03\x01\x02\x00\x01SECRET")}, probes.ErrUpgraded},
		{"the binary log", append(modern.hello(""), req(query(insertUsers)), rsp(packet(1, okay(2))), req(packet(0, "\x12"+le(4, 4)+le(0, 2)+le(7, 4)+"SECRETlog.000001"))), probes.ErrUpgraded},
		{"the binary log, by GTID", append(modern.hello(""), req(packet(0, "\x1e"+le(4, 4)+"SECRETlog.000001"))), probes.ErrUpgraded},
		{"before 4.1", []part{rsp(plain.greeting("4.0.1")), req(packet(1, le(1, 4), le(1<<24, 4), strings.Repeat("\x00", 24), "app\x00SECRETpw"))}, probes.ErrNotProtocol},
	} {
		for _, server := range []bool{false, true} {
			for i, split := range []splitter{whole, steps(1), steps(3)} {
				acc := new(ledger.Account)
				events := chunks(test.parts, server, split)
				k, err := play(t, testConn(acc, server), server, events)
				if !errors.Is(err, test.want) {
					t.Errorf("%s: %v", test.name, err)
				}
				k.balance(acc, 0)
				var left []byte
				for _, ev := range events {
					left = append(left, ev.Head...)
				}
				if i == 0 && strings.Contains(string(left), "SECRET") {
					t.Errorf("%s: left: %q", test.name, left)
				}
			}
		}
	}
}

func TestNotThisProtocol(t *testing.T) {
	conn := testConn(new(ledger.Account), true)
	conn.Established = true
	d := protocol.New(conn, true)
	k := newSink(t)
	events := chunks([]part{req(query(selectUsers)), rsp("something else that is no answer"), req(query(selectUsers))}, true, whole)
	var errs []bool
	for _, ev := range events {
		errs = append(errs, d.Decode(&ev.Chunk, k) != nil)
	}
	if !slices.Equal(errs, []bool{false, true, true}) {
		t.Error(errs)
	}
	k.balance(conn.Target.Account, 0)
	if c := conn.Target.Account.Counts(); c[ledger.Unparsed] != 1 {
		t.Error(c)
	}
}

// TestOutOfStep: what was seen to speak the protocol is believed to do so, and found again with the next command.
func TestOutOfStep(t *testing.T) {
	ok := packet(1, okay(2))
	for _, test := range []struct {
		name  string
		parts []part
		want  []any // 0: done; or the cause of loss
	}{
		{"an answer with another number", []part{req(query(insertUsers)), rsp(packet(7, okay(2))), req(query(insertUsers)), rsp(ok)}, []any{ledger.Unparsed, 0}},
		{"an answer that is none", []part{req(query(insertUsers)), rsp(packet(1, "\x07\x08\x09")), req(query(insertUsers)), rsp(ok)}, []any{ledger.Unparsed, 0}},
		{"a command that is none", []part{req(packet(0, "\x77abc")), rsp(packet(1, fail(1047, ""))), req(query(insertUsers)), rsp(ok)}, []any{0}},
		{"an answer to nothing", []part{rsp(ok), req(query(insertUsers)), rsp(ok), rsp(ok), req(query(insertUsers)), rsp(ok)}, []any{0, 0}},
		{"a lost command", []part{req(query(insertUsers)), rsp(ok), rsp(ok).afterLoss(), req(query(insertUsers)), rsp(ok)}, []any{0, 0}},
		{"a lost answer", []part{req(query(insertUsers)), req(query(insertUsers)).name(2).afterLoss(), rsp(ok)}, []any{ledger.RingFull, 0}},
		{"lost while answered", []part{req(query(insertUsers)), rsp(ok[:5]), rsp(ok[5:]).afterLoss(), req(query(insertUsers)), rsp(ok)}, []any{ledger.RingFull, 0}},
		{"an unreadable command", []part{req(query(insertUsers)).unread(), rsp(ok), req(query(insertUsers)), rsp(ok)}, []any{0}},
		{"a command of which the beginning was not captured", []part{req(query(insertUsers)).captured(0, 9), rsp(ok), req(query(insertUsers)), rsp(ok)}, []any{0}},
		{"an unreadable answer", []part{req(query(insertUsers)), rsp(ok).unread(), req(query(insertUsers)), rsp(ok)}, []any{"truncated", 0}},
	} {
		for _, server := range []bool{false, true} {
			acc := new(ledger.Account)
			parts := append(append(modern.hello("shop"), test.parts...), end(probes.Closed))
			k, err := play(t, testConn(acc, server), server, chunks(parts, server, whole))
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			var got []any
			for _, s := range k.opened {
				switch {
				case s.State == span.Done && slices.Contains(s.Attrs, truncatedAttr):
					got = append(got, "truncated")
				case s.State == span.Done:
					got = append(got, 0)
				default:
					for e := ledger.FirstLoss; e < ledger.Entries; e++ {
						if acc.Counts()[e] > 0 {
							got = append(got, e)
						}
					}
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: server %v: (-want +got)\n%s%v", test.name, server, diff, acc.Counts())
			}
		}
	}
}

// TestLongAnswers is what is known of results that are told by their edges.
func TestLongAnswers(t *testing.T) {
	columns := []string{"id", "name"}
	many := func(w wire, n int) string {
		return w.set(1, 2, columns, slices.Repeat([]string{row("12", "some name")}, n)...)
	}
	wide := slices.Repeat(columns, 10)
	multi := func(w wire) string {
		first := w.set(1, 10, columns, slices.Repeat([]string{row("12", "some name")}, 50)...)
		return first + w.set(w.seqAfter(1, 2, 50), 2, columns, row("1", "a"))
	}
	for _, test := range []struct {
		name      string
		wire      wire
		text      string
		answer    part
		more      []part
		rows      any
		code      any
		truncated any
	}{
		{name: "all of it", wire: modern, answer: rsp(many(modern, 100)), rows: int64(100)},
		{name: "few rows", wire: modern, answer: rsp(many(modern, 100)).captured(416, 64), rows: int64(100)},
		{name: "few rows, with EOF packets", wire: plain, answer: rsp(many(plain, 100)).captured(416, 64), rows: int64(100)},
		{name: "of which reports of progress may be", wire: mariaP, answer: rsp(many(mariaP, 100)).captured(416, 64)},
		{name: "many rows", wire: modern, answer: rsp(many(modern, 5000)).captured(416, 64)},
		{name: "many rows, with EOF packets", wire: plain, answer: rsp(many(plain, 5000)).captured(416, 64)},
		{name: "many rows in several calls", wire: modern, answer: rsp(many(modern, 5000)[:16384]).captured(416, 0), more: []part{rsp(many(modern, 5000)[16384:32768]).captured(24, 64), rsp(many(modern, 5000)[60000:]).after(60000-32768).captured(24, 64)}},
		{name: "no end", wire: modern, answer: rsp(many(modern, 5000)).captured(416, 5), truncated: true},
		{name: "definitions that are not all captured", wire: modern, answer: rsp(modern.set(1, 2, wide, slices.Repeat([]string{strings.Repeat("\x01a", 20)}, 30)...)).captured(416, 64), rows: int64(30)},
		{name: "definitions that are not all captured, with EOF packets", wire: plain, answer: rsp(plain.set(1, 2, wide, slices.Repeat([]string{strings.Repeat("\x01a", 20)}, 30)...)).captured(416, 64), rows: int64(30)},
		{name: "only the EOF packet behind the definitions", wire: plain, answer: rsp(plain.set(1, 2, wide)[:len(plain.set(1, 2, wide))-9]).captured(416, 64), more: []part{rsp(packet(23, strings.Repeat("\x01a", 20)), plain.eof(24, 2))}, rows: int64(1)},
		{name: "an error behind the rows", wire: modern, answer: rsp(many(modern, 100)[:len(many(modern, 100))-11], packet(104, fail(1317, "Query SECRET was interrupted"))).captured(416, 64), code: "1317"},
		{name: "one large row", wire: modern, answer: rsp(modern.set(1, 2, columns, row("1", strings.Repeat("x", 100000)))).captured(416, 64), rows: int64(1)},
		{name: "several results", wire: modern, text: "SELECT 1 FROM a; SELECT 2 FROM b", answer: rsp(multi(modern)).captured(416, 64)},
		{name: "several results, with EOF packets", wire: plain, text: "SELECT 1 FROM a; SELECT 2 FROM b", answer: rsp(multi(plain)).captured(416, 64)},
		{name: "the first of several results", wire: modern, text: "SELECT 1 FROM a; SELECT 2 FROM b", answer: rsp(multi(modern)[:len(multi(modern))-len(modern.set(55, 2, columns, row("1", "a")))]).captured(416, 64), more: []part{rsp(modern.set(55, 2, columns, row("1", "a")))}},
	} {
		for _, server := range []bool{false, true} {
			text := test.text
			if text == "" {
				text = selectUsers
			}
			acc := new(ledger.Account)
			parts := append(append(append(test.wire.hello("shop"), req(query(text)), test.answer), test.more...), req(query(insertUsers)), rsp(packet(1, okay(2))), end(probes.Closed))
			events := chunks(parts, server, whole)
			k, err := play(t, testConn(acc, server), server, events)
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			k.balance(acc, 0)
			if len(k.done) != 2 {
				t.Fatalf("%s: %d spans, %v", test.name, len(k.done), acc.Counts())
			}
			r := k.results()
			if r[0].Attrs["db.response.returned_rows"] != test.rows || r[0].Attrs["db.response.status_code"] != test.code || r[0].Attrs["breadcrumb.truncated"] != test.truncated {
				t.Errorf("%s: server %v: %v", test.name, server, r[0].Attrs)
			}
			if r[1].Attrs["breadcrumb.truncated"] != nil || r[1].Status != codes.Unset {
				t.Errorf("%s: what follows: %v", test.name, r[1])
			}
			last := 3 + 1 + len(test.more)
			if want := int64(last+1)*1000 + int64(len(parts[last].data)); r[0].End != want {
				t.Errorf("%s: ends at %d, want %d", test.name, r[0].End, want)
			}
			for _, ev := range events {
				if s := string(ev.Head) + string(ev.Tail); strings.Contains(s, "SECRET") || strings.Contains(s, "some name") {
					t.Errorf("%s: left: %q", test.name, s)
				}
			}
		}
	}
}

// TestLongCommands are those that are longer than what is captured.
func TestLongCommands(t *testing.T) {
	long := "INSERT INTO users VALUES ('" + strings.Repeat("SECRET", 10000) + "')"
	huge := "INSERT INTO users VALUES ('" + strings.Repeat("x", 1<<24) + "')"
	ok := packet(1, okay(2))
	many := strings.Repeat(query(insertUsers), 1000)
	for _, test := range []struct {
		name      string
		parts     []part
		spans     int
		truncated []int
		uncounted uint64
	}{
		{"long", []part{req(query(long)).captured(16384, 0), rsp(ok), req(query(insertUsers)), rsp(ok)}, 2, []int{0}, 0},
		{"long, its end captured", []part{req(query(long)).captured(16384, 64), rsp(ok), req(query(insertUsers)), rsp(ok)}, 2, []int{0}, 0},
		{"long, its end not told", []part{req(query(long)[:20000]).captured(16384, 64), rsp(ok).after(0), req(query(insertUsers)).after(len(query(long)) - 20000), rsp(ok)}, 2, []int{0}, 0},
		{"long, its end not told, and the answer to it", []part{req(query(long)[:20000]).captured(16384, 64), rsp(ok), req(query(insertUsers)).after(len(query(long)) - 20000), rsp(ok)}, 2, []int{0}, 0},
		{"of several packets", []part{req(query(huge)), rsp(packet(2, okay(2))), req(query(insertUsers)), rsp(ok)}, 2, []int{0}, 0},
		{"of several packets, not captured", []part{req(query(huge)).captured(16384, 64), rsp(packet(2, okay(2))), req(query(insertUsers)), rsp(ok)}, 2, []int{0}, 0},
		{"of the length of a packet", []part{req(packet(0, "\x03"+huge[:maxPayload-1])), rsp(packet(2, okay(2))), req(query(insertUsers)), rsp(ok)}, 2, []int{0}, 0},
		{"bound values", []part{req(prepare(insertUsers)), rsp(modern.prepared(1, 1, 0)), req(execute(1, strings.Repeat("SECRET", 10000))).captured(16384, 64), rsp(ok), req(query(insertUsers)), rsp(ok)}, 2, nil, 0},
		{"many commands", []part{req(many).captured(16384, 64), rsp(strings.Repeat(ok, 1000)).captured(512, 64), req(query(insertUsers)), rsp(ok)}, -1, nil, 1},
	} {
		for _, server := range []bool{false, true} {
			acc := new(ledger.Account)
			parts := append(append(modern.hello("shop"), test.parts...), end(probes.Closed))
			k, err := play(t, testConn(acc, server), server, chunks(parts, server, whole))
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			k.balance(acc, test.uncounted)
			if test.spans >= 0 && len(k.done) != test.spans {
				t.Fatalf("%s: server %v: %d spans, %v", test.name, server, len(k.done), acc.Counts())
			}
			r := k.results()
			if last := r[len(r)-1]; last.Attrs["breadcrumb.truncated"] != nil || last.Status != codes.Unset {
				t.Errorf("%s: the last: %v", test.name, last)
			}
			if test.spans < 0 {
				continue
			}
			for i := range r {
				if got := r[i].Attrs["breadcrumb.truncated"] != nil; got != slices.Contains(test.truncated, i) || r[i].Status != codes.Unset {
					t.Errorf("%s: server %v, span %d: %v", test.name, server, i, r[i])
				}
				if s := fmt.Sprint(r[i].Attrs); strings.Contains(s, "SECRET") {
					t.Errorf("%s: %s", test.name, s)
				}
			}
		}
	}
}

// TestLargeRows: rows of several packets are one each.
func TestLargeRows(t *testing.T) {
	large := "\xfe" + le(1<<24, 8) + strings.Repeat("x", 1<<24)
	for _, w := range []wire{plain, modern} {
		answer := w.set(1, 2, []string{"a"})
		answer = answer[:len(answer)-len(w.eof(0, 2))]
		seq := 3
		if w.caps&clientDeprecateEOF == 0 {
			seq++
		}
		answer += packet(seq, large) + packet(seq+2, large) + packet(seq+4, row("1")) + w.eof(seq+5, 2)
		for _, split := range []splitter{whole, steps(1 << 20), steps(1<<20 + 7)} {
			acc := new(ledger.Account)
			parts := append(w.hello("shop"), req(query(selectUsers)), rsp(answer), end(probes.Closed))
			k, err := play(t, testConn(acc, false), false, chunks(parts, false, split))
			if err != nil || len(k.done) != 1 || k.results()[0].Attrs["db.response.returned_rows"] != int64(3) {
				t.Errorf("%v %v %v", err, k.results(), acc.Counts())
			}
		}
	}
}

// TestWhatIsKnownOfSystem: where the handshake was not seen, only what MariaDB alone does tells it.
func TestWhatIsKnownOfSystem(t *testing.T) {
	ok := packet(1, okay(2))
	conn := testConn(nil, false)
	conn.Established = true
	k, err := play(t, conn, false, chunks([]part{req(query(insertUsers)), rsp(ok), req(bulkRows(1, 0x80, "\x03\x00")), rsp(ok), req(query(insertUsers)), rsp(ok)}, false, whole))
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, r := range k.results() {
		got = append(got, r.Attrs["db.system.name"])
	}
	if diff := cmp.Diff([]any{"mysql", "mariadb", "mariadb"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestForgottenAfterALoss: a statement's id may be another's, the database another.
func TestForgottenAfterALoss(t *testing.T) {
	ok := packet(1, okay(2))
	parts := append(modern.hello("shop"), req(prepare(insertUsers)), rsp(modern.prepared(1, 0, 0)), req(execute(1)), rsp(ok), req(query(selectUsers)).afterLoss(), rsp(ok), req(execute(1)), rsp(ok),
		req(prepare(insertUsers)), rsp(modern.prepared(1, 0, 0)), req(packet(0, "\x02shop")), rsp(ok), req(execute(1)), rsp(ok))
	k, err := play(t, testConn(nil, false), false, chunks(parts, false, whole))
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, r := range k.results() {
		got = append(got, r.Attrs["db.query.text"] != nil, r.Attrs["db.namespace"])
	}
	if diff := cmp.Diff([]any{true, "shop", true, nil, false, nil, true, "shop"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestContextInAComment: what the text of a prepared statement carries is of its first execution.
func TestContextInAComment(t *testing.T) {
	ok := packet(1, okay(2))
	text := insertUsers + " /*traceparent='" + traceparent + "'*/"
	parts := append(maria.hello("shop"), req(query(text)), rsp(ok), req(prepare(text)), rsp(maria.prepared(1, 0, 0)), req(execute(1)), rsp(ok), req(execute(1)), rsp(ok),
		req(prepare(text), execute(lastPrepared)), rsp(maria.prepared(2, 0, 0), ok), req(execute(2)), rsp(ok), req(prepare(text)), rsp(packet(1, fail(1146, ""))))
	k, err := play(t, testConn(nil, false), false, chunks(parts, false, whole))
	if err != nil {
		t.Fatal(err)
	}
	var got []bool
	for _, r := range k.results() {
		got = append(got, r.Wire == traced)
	}
	if want := []bool{true, true, false, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestOvertaken: an answer that is told before its command is not taken for one to the next.
func TestOvertaken(t *testing.T) {
	acc := new(ledger.Account)
	fail := packet(1, fail(1146, ""))
	events := chunks(append(modern.hello("shop"), rsp(fail), req(query(insertUsers)), req(query(selectUsers)), rsp(packet(1, okay(2))), end(probes.Closed)), false, whole)
	late := &events[4].Chunk
	late.Begin, late.End = events[3].Begin-10, events[3].Begin+5
	k, err := play(t, testConn(acc, false), false, events)
	if err != nil {
		t.Fatal(err)
	}
	k.balance(acc, 0)
	r := k.results()
	if len(r) != 2 || r[0].Attrs["breadcrumb.truncated"] != true || r[0].Status != codes.Unset || r[0].End != events[3].Chunk.End || r[1].Attrs["breadcrumb.truncated"] != nil {
		t.Errorf("%v", r)
	}
}

func TestUnixSocket(t *testing.T) {
	conn := &probes.Conn{ID: 1, RemoteAddr: "/run/mysqld/mysqld.sock", Network: "unix", Target: new(span.Target)}
	k, err := play(t, conn, false, chunks(append(modern.hello(""), req(execute(1)), rsp(packet(1, okay(2)))), false, whole))
	if err != nil {
		t.Fatal(err)
	}
	want := []result{{Name: "/run/mysqld/mysqld.sock", Start: 4000, End: 5011, Attrs: attrs{"db.system.name": "mysql", "server.address": "/run/mysqld/mysqld.sock", "network.peer.address": "/run/mysqld/mysqld.sock", "network.transport": "unix", "breadcrumb.unknown_fields": true}}}
	if diff := cmp.Diff(want, k.results()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestEachCommandIsTheProcessesThatHasTheConnection: a connection may be given from one process to another.
func TestEachCommandIsTheProcessesThatHasTheConnection(t *testing.T) {
	conn := testConn(new(ledger.Account), true)
	first, second := conn.Target, &span.Target{Account: new(ledger.Account)}
	d := protocol.New(conn, true)
	k := newSink(t)
	hello := modern.hello("")
	for i, ev := range chunks(append(hello, req(query(insertUsers)), rsp(packet(1, okay(2))), req(query(insertUsers)), rsp(packet(1, okay(2)))), true, whole) {
		if i == len(hello)+2 {
			conn.Target = second
		}
		if err := d.Decode(&ev.Chunk, k); err != nil {
			t.Fatal(err)
		}
	}
	if k.done[0].Target != first || k.done[1].Target != second {
		t.Error("a span is another process's")
	}
	if a, b := first.Account.Counts(), second.Account.Counts(); a[ledger.Seen] != 1 || b[ledger.Seen] != 1 {
		t.Errorf("%v and %v", a, b)
	}
}

// TestBoundedMemory: neither statements that are never closed, nor commands that are never answered, nor lengths that are not kept take
// more than their limits.
func TestBoundedMemory(t *testing.T) {
	conn := testConn(new(ledger.Account), false)
	d := protocol.New(conn, false).(*decoder)
	k := newSink(t)
	var pos [2]uint64
	send := func(dir probes.Direction, data string) error {
		c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: []byte(data)}
		pos[dir] += c.Total
		return d.Decode(&c, k)
	}
	for _, p := range modern.hello("") {
		dir := probes.Egress
		if p.answer {
			dir = probes.Ingress
		}
		if err := send(dir, p.data); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 * maxStatements {
		if send(probes.Egress, prepare(selectUsers)) != nil || send(probes.Ingress, modern.prepared(i+1, 0, 0)) != nil {
			t.Fatal("it gives up")
		}
	}
	if n := len(d.session.prepared.list); n != maxStatements {
		t.Errorf("%d statements", n)
	}
	if d.session.prepared.find(3*maxStatements) == nil || d.session.prepared.find(1) != nil {
		t.Error("the oldest are kept")
	}
	for _, length := range []string{"\xff\xff\xff", "\xfe\xff\xff", "\x00\x00\x80"} {
		if err := send(probes.Egress, length+"\x00\x03SELECT "); err != nil {
			t.Fatal(err)
		}
		n := int(length[0]) | int(length[1])<<8 | int(length[2])<<16
		for left := n - 8; left > 0; left -= 1 << 20 {
			if err := send(probes.Egress, strings.Repeat("x", min(left, 1<<20))); err != nil {
				t.Fatal(err)
			}
			if size := cap(d.sides[d.in].buf); size > 2*maxText {
				t.Fatalf("%d bytes", size)
			}
		}
		if n == maxPayload {
			_ = send(probes.Egress, "\x01\x00\x00\x01x")
		}
		if err := send(probes.Ingress, packet(1+b2i(n == maxPayload), okay(2))); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	n := 0
	for ; err == nil && n < 2*maxPipelined; n++ {
		err = send(probes.Egress, query(selectUsers))
	}
	if err == nil || n != maxPipelined+1 {
		t.Errorf("%d commands, %v", n, err)
	}
	k.balance(conn.Target.Account, conn.Target.Account.Counts()[ledger.Seen]-uint64(len(k.opened)))
	runtime.KeepAlive(d)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestHostileLengths: what says that it is longer, or shorter, than it is.
func TestHostileLengths(t *testing.T) {
	for _, command := range []string{"\x03", "\x17", "\x17\x01\x00\x00\x00", "\xfa\x01\x00\x00\x00\x80\x00", "\x11", "\x11app\x00\xff", "\x03\xff\xff", "\x03\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x03\x20\x01\x00", "\x16", "\x02", "\x18", "\x19", "\x1c", "\x1b"} {
		for _, answer := range []string{"", "\x00", "\x00\xfe", "\xfe", "\xff", "\xff\xff\xff", "\xfb", "\xfc\xff", "\xfd\xff\xff\xff", "\xfe\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x02\x40\x00\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
			"\x00\x01\x00\x02\x40\x00\x00\x00\xff\x01\xff", "\x00\x01\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00"} {
			for _, server := range []bool{false, true} {
				acc := new(ledger.Account)
				parts := append(modern.hello("shop"), req(packet(0, command)), rsp(packet(1, answer)), rsp(packet(2, answer)), req(query(insertUsers)), rsp(packet(1, okay(2))), end(probes.Closed))
				k, _ := play(t, testConn(acc, server), server, chunks(parts, server, whole))
				k.balance(acc, acc.Counts()[ledger.Seen]-uint64(len(k.opened)))
			}
		}
	}
}
