// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"
)

// TestWhatIsHeldIsBounded says things again and again that nobody says that often.
func TestWhatIsHeldIsBounded(t *testing.T) {
	const n = 20000
	list := func(f func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(f(i))
		}
		return b.String()
	}
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	text := strings.Repeat("SELECT 1 + ", 300) + "1"
	for _, test := range []struct {
		name           string
		asked, answers string
		seen           uint64 // 0: any number
	}{
		{"queries", list(func(int) string { return q("SELECT 1") }), "", n},
		{"executions", list(func(int) string { return p("", "SELECT 1") + b("", "") + e("", 0) }), "", n},
		{"functions", list(func(int) string { return fn(1, "x") }), "", n},
		{"Syncs", list(func(int) string { return sy }), "", 0},
		{"Parses", list(func(i int) string { return p(name(i), "SELECT 1") }), "", 0},
		{"Parses that are answered", list(func(i int) string { return p(name(i), "SELECT 1") + sy }), list(func(int) string { return okParse + idleZ }), 0},
		{"Parses of what is long", list(func(i int) string { return p(name(i), text) + sy })[:20<<20], list(func(int) string { return okParse + idleZ }), 0},
		{"Binds", list(func(i int) string { return b(name(i), "s") }), "", 0},
		{"Closes", list(func(i int) string { return cS(name(i)) }), "", 0},
		{"Flushes", list(func(i int) string { return b(name(i), "s") + fl }), "", 0},
		{"a name that is long", p(strings.Repeat("s", 1<<20), "SELECT 1") + b(strings.Repeat("s", 1<<20), strings.Repeat("s", 1<<20)) + msg(execute, strings.Repeat("s", 9000)+"\x00\x00\x00\x00\x00"), "", 1},
		{"a statement that is long", q(strings.Repeat("x", 1<<20)), "", 1},
		{"results", q("SELECT 1"), list(func(int) string { return tagged("SELECT 1") }), 1},
		{"parameters that are long", q("SELECT 1"), list(func(int) string { return param("x", strings.Repeat("y", 20000)) })[:20<<20], 1},
		{"a tag that is long", q("SELECT 1"), tagged(strings.Repeat("X", 20000)) + idleZ, 1},
		{"an error that is long", q("SELECT 1"), msg(errorResponse, strings.Repeat("SERROR\x00C12345\x00", 1<<16)+"\x00") + idleZ, 1},
		{"answers before what they answer", "", list(func(int) string { return tagged("SELECT 1") }), 0},
	} {
		for _, server := range []bool{true, false} {
			for _, size := range []int{1 << 20, 1000} {
				t.Run(fmt.Sprintf("%s/%v/%d", test.name, server, size), func(t *testing.T) {
					acc := new(ledger.Account)
					k := newSink(t)
					d := protocol.New(testConn(acc, server), server).(*decoder)
					asked, answers := startup("user", "u")+test.asked, greeted+test.answers
					for _, ev := range chunks([]part{ask(asked), say(answers), ask(q("SELECT 2")), say(tagged("SELECT 1"), idleZ)}, server, steps(size)) {
						if err := d.Decode(&ev.Chunk, k); err != nil {
							break
						}
						d.bounded(t)
					}
					d.End(probes.Closed, 1e6, k)
					k.balance(acc)
					if seen := acc.Counts()[ledger.Seen]; test.seen != 0 && (seen < test.seen || seen > test.seen+1) {
						t.Errorf("%d seen, want %d", seen, test.seen)
					}
				})
			}
		}
	}
}

// TestBadLengthsAreNotBelieved has messages with lengths that they cannot have.
func TestBadLengthsAreNotBelieved(t *testing.T) {
	for _, bad := range []string{
		"Q\x00\x00\x00\x03", "Q\xff\xff\xff\xff", "Q\x7f\xff\xff\xff", "S\x00\x00\x00\x05x", "E\x00\x01\x00\x00", "B\x00\x00\x00\x04", "\x00\x00\x00\x00\x00", "x\x00\x00\x00\x04",
	} {
		for _, server := range []bool{true, false} {
			var many []part
			for range maxDoubts + 1 {
				many = append(many, ask(bad), say(tagged("SELECT 1")))
			}
			acc := new(ledger.Account)
			_, err := play(t, protocol, testConn(acc, server), server, chunks(append([]part{ask(startup("user", "u"))}, many...), server, whole))
			if !errors.Is(err, probes.ErrNotProtocol) {
				t.Errorf("%q: %v", bad, err)
			}
			// Of a connection that is known, it is taken for a mistake of one's own.
			acc = new(ledger.Account)
			k, err := play(t, protocol, testConn(acc, server), server, append(chunks(hello(ask(bad), say(tagged("SELECT 1"), idleZ), ask(q("SELECT 1")), say(tagged("SELECT 1"), idleZ)), server, whole), chunk{end: ptr(probes.Closed)}))
			if err != nil || len(k.done) != 1 {
				t.Errorf("%q: %d spans, %v, %v", bad, len(k.done), acc.Counts(), err)
			}
			k.balance(acc)
		}
	}
	for _, bad := range []string{
		"C\x00\x00\x00\x04", "Z\x00\x00\x00\x05X", "Z\x00\x00\x00\x06II", "D\x80\x00\x00\x06\x00\x00", "1\x00\x00\x00\x08\x00\x00\x00\x00", "y\x00\x00\x00\x04",
	} {
		for _, server := range []bool{true, false} {
			acc := new(ledger.Account)
			k, err := play(t, protocol, testConn(acc, server), server, append(chunks(hello(ask(q("SELECT 1")), say(bad), say(row("planted"), tagged("SELECT 1"), idleZ), ask(q("SELECT 2")), say(tagged("SELECT 1"), idleZ)), server, whole), chunk{end: ptr(probes.Closed)}))
			if err != nil || len(k.done) != 2 {
				t.Errorf("%q: %d spans, %v, %v", bad, len(k.done), acc.Counts(), err)
			}
			k.balance(acc)
		}
	}
}

// TestNoSecretIsShown sanitises statements and looks for secrets anywhere in spans and in what is left of the bytes, but for the texts
// of statements.
func TestNoSecretIsShown(t *testing.T) {
	sanitised := New(sql.Sanitised)
	for _, test := range append(exchangeTests(), capturedTests()...) {
		for _, server := range []bool{true, false} {
			events := chunks(test.parts, server, whole)
			k, _ := play(t, sanitised, testConn(new(ledger.Account), server), server, events)
			for _, s := range k.results() {
				if shown := fmt.Sprint(s); strings.Contains(shown, "literal") || strings.Contains(shown, "planted") {
					t.Errorf("%s: %s", test.name, shown)
				}
			}
		}
	}
}

// TestSettingsSayHowStatementsAreRead: where a string ends depends on them.
func TestSettingsSayHowStatementsAreRead(t *testing.T) {
	const backslash = `SELECT 'a\'planted', 'b' FROM t`
	answer := say(rowsOf("a"), tagged("SELECT 0"), idleZ)
	for _, test := range []struct {
		name  string
		parts []part
		shown string // of the last statement
	}{
		{"backslashes escape", hello(ask(q("SET standard_conforming_strings = off")), say(tagged("SET"), param("standard_conforming_strings", "off"), idleZ), ask(q(backslash)), answer), "SELECT ?, ? FROM t"},
		{"they do not any more", hello(ask(q("SET x")), say(tagged("SET"), param("standard_conforming_strings", "off"), idleZ), ask(q("SET y")), say(tagged("SET"), param("standard_conforming_strings", "on"), idleZ), ask(q(`SELECT '\', 'b' FROM t`)), answer), "SELECT ?, ? FROM t"},
		{"it is not known", []part{ask(q(backslash)).after(100), answer}, ""},
		{"it is not known any more", hello(ask(q("SELECT 1")), say(rowsOf("a"), big(100), idleZ).captured(300, 64), ask(q(backslash)), answer), ""},
		{"characters that look like others", hello(ask(q("SET x")), say(tagged("SET"), param("client_encoding", "SJIS"), idleZ), ask(q("SELECT 1, E'\x83\x5c' || 'planted' FROM t")), answer), "SELECT ?, E"},
	} {
		k, err := play(t, New(sql.Sanitised), testConn(nil, true), true, chunks(test.parts, true, whole))
		list := k.results()
		if err != nil || len(list) == 0 {
			t.Errorf("%s: %v, %v", test.name, err, list)
			continue
		}
		last := list[len(list)-1]
		shown, _ := last.Attrs["db.query.text"].(string)
		if !strings.HasPrefix(shown, test.shown) || test.shown == "" && shown != "" || strings.Contains(fmt.Sprint(list), "planted") {
			t.Errorf("%s: %v", test.name, last)
		}
		if (last.Attrs["breadcrumb.withheld"] != nil) != (test.shown == "") {
			t.Errorf("%s: %v", test.name, last)
		}
	}
}
