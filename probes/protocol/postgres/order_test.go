// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"fmt"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/trace"
)

// TestAnswerThatIsToldBeforeWhatItAnswers: a client's thread that reads may overtake the one that writes.
func TestAnswerThatIsToldBeforeWhatItAnswers(t *testing.T) {
	answer := okParse + okBind + rowsOf("a") + row("planted") + row("planted") + tagged("SELECT 2") + idleZ
	asked := p("", "SELECT 1") + b("", "", "planted") + dP("") + e("", 0) + sy
	for _, test := range []struct {
		name  string
		parts []part
		want  []string
	}{
		{"prepared", []part{say(answer).time(3500), ask(asked).time(3000)}, []string{"3000 3500 2"}},
		{"in two pieces", []part{say(answer[:40]).time(3500), say(answer[40:]).time(3600), ask(asked).time(3000)}, []string{"3000 3600 2"}},
		{"with the rest behind it", []part{say(answer[:40]).time(3500), ask(asked).time(3000), say(answer[40:]).time(3600)}, []string{"3000 3600 2"}},
		{"of what is told in two pieces", []part{say(answer).time(3500), ask(asked[:30]).time(3000), ask(asked[30:]).time(3100)}, []string{"3000 3500 2"}},
		{"a query", []part{say(rowsOf("a"), tagged("SELECT 0"), idleZ).time(3500), ask(q("SELECT 1")).time(3000), ask(q("SELECT 2")).time(4000), say(rowsOf("a"), row("1"), tagged("SELECT 1"), idleZ).time(5000)},
			[]string{"3000 3500 0", "4000 5000 1"}},
		{"nothing was asked", []part{say(tagged("SELECT 5"), idleZ).time(3000), ask(q("SELECT 2")).time(4000), say(rowsOf("a"), row("1"), tagged("SELECT 1"), idleZ).time(5000)}, []string{"4000 5000 1"}},
	} {
		acc := new(ledger.Account)
		k, err := play(t, protocol, testConn(acc, false), false, chunks(hello(test.parts...), false, whole))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		var got []string
		for _, s := range k.results() {
			got = append(got, fmt.Sprint(s.Start, s.End, s.Attrs["db.response.returned_rows"]))
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		k.balance(acc)
	}
}

// TestNamesThatAreGivenInTheMiddle: the kernel side takes what follows a turn of the direction for a request.
func TestNamesThatAreGivenInTheMiddle(t *testing.T) {
	long := "SELECT '" + strings.Repeat("x", 1000) + "'"
	for _, test := range []struct {
		name  string
		parts []part
		id    int // of the one span
		also  int // what else it is known by; 0: nothing
	}{
		{"COPY", []part{ask(q("COPY t FROM STDIN")).name(1), say(msg(copyIn, "\x00\x00\x00")), ask(msg(copyData, "x")).name(2), ask(cDone), say(tagged("COPY 1"), idleZ)}, 1, 2},
		{"a statement", []part{ask(q(long)[:500]).name(1), say(noticing("x")), ask(q(long)[500:]).name(2), say(tagged("SELECT 1"), idleZ)}, 1, 2},
		{"a message", []part{ask(p("", "SELECT 1")).name(1), say(noticing("x")), ask(b("", ""), e("", 0), sy).name(2), say(okParse, okBind, tagged("SELECT 1"), idleZ)}, 1, 2},
		{"after a Close", []part{ask(cS("x"), sy, q("SELECT 1")).name(1), say(okClose, idleZ, tagged("SELECT 1"), idleZ)}, 1, 0},
		{"after what prepares", []part{ask(p("x", "SELECT 1"), sy).name(1), say(okParse, idleZ), ask(b("", "x"), e("", 0), sy).name(2), say(okBind, tagged("SELECT 1"), idleZ)}, 2, 0},
		{"what prepares, and fails", []part{ask(p("x", "SELECT 1"), sy).name(1), say(failing("ERROR", "42601", "x"), idleZ), ask(sy).name(2), say(idleZ)}, 1, 0},
	} {
		for _, server := range []bool{true, false} {
			acc := new(ledger.Account)
			k, err := play(t, protocol, testConn(acc, server), server, chunks(hello(test.parts...), server, whole))
			if err != nil || len(k.done) != 1 {
				t.Errorf("%s: %v, %d spans", test.name, err, len(k.done))
				continue
			}
			s := k.done[0]
			if s.ID != named(test.id) {
				t.Errorf("%s: %v, want %v", test.name, s.ID, named(test.id))
			}
			want := map[trace.SpanID]*span.Span{}
			if test.also != 0 {
				want[named(test.also)] = s
			}
			if fmt.Sprint(k.aliases) != fmt.Sprint(want) {
				t.Errorf("%s: %v", test.name, k.aliases)
			}
			k.balance(acc)
		}
	}
}

// TestSpansOfARunHaveNamesOfTheirOwn that do not change when the same is seen again, or from the other end.
func TestSpansOfARunHaveNamesOfTheirOwn(t *testing.T) {
	var ids []string
	for _, server := range []bool{true, false, true} {
		k, _ := play(t, protocol, testConn(nil, server), server, chunks(hello(ask(p("", "SELECT 1"), b("", ""), e("", 0), b("", ""), e("", 0), sy, q("SELECT 2")).name(1)), server, whole))
		var list []string
		for i, s := range k.opened {
			list = append(list, s.ID.String(), fmt.Sprint(s.Evidence.Seq-k.opened[0].Evidence.Seq))
			if (s.ID == named(1)) != (i == 0) || s.Evidence.PID != 42 {
				t.Errorf("span %d is %v", i, s)
			}
		}
		if len(list) != 6 || ids != nil && fmt.Sprint(ids) != fmt.Sprint(list) {
			t.Errorf("%q, then %q", ids, list)
		}
		ids = list
	}
}

// TestAnswered is called with the chunk in which the answer begins.
func TestAnswered(t *testing.T) {
	for _, test := range []struct {
		name  string
		parts []part
		want  string // spans that are answered, after each part
	}{
		{"a query", []part{ask(q("SELECT 1")), say(noticing("x")), say(rowsOf("a")[:1]), say(rowsOf("a")[1:]), say(tagged("SELECT 0"), idleZ)}, "00011"},
		{"prepared", []part{ask(p("", "SELECT 1"), b("", ""), e("", 0), sy), say(okParse), say(okBind, tagged("SELECT 1")), say(idleZ)}, "0111"},
		{"several", []part{ask(q("SELECT 1"), q("SELECT 2")), say(tagged("SELECT 1"), idleZ), say(tagged("SELECT 1"), idleZ)}, "012"},
		{"what is not captured", []part{ask(q("SELECT 1")), say(rowsOf("a"), big(100)).captured(0, 0)}, "01"},
	} {
		d := protocol.New(testConn(nil, true), true)
		k := newSink(t)
		got := ""
		for i, ev := range chunks(hello(test.parts...), true, whole) {
			if err := d.Decode(&ev.Chunk, k); err != nil {
				t.Fatal(err)
			}
			if i >= 2 {
				n := 0
				for _, s := range k.states {
					if s != span.Open {
						n++
					}
				}
				got += fmt.Sprint(n)
			}
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// TestUnixSockets have a path, and no port.
func TestUnixSockets(t *testing.T) {
	for _, server := range []bool{true, false} {
		c := &probes.Conn{ID: 1, Network: "unix", Target: new(span.Target)}
		if server {
			c.LocalAddr = "/run/postgresql/.s.PGSQL.5432"
		} else {
			c.RemoteAddr = "/run/postgresql/.s.PGSQL.5432"
		}
		k, _ := play(t, protocol, c, server, chunks(hello(ask(q("")), say(empty, idleZ)), server, whole))
		want := map[string]any{"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "/run/postgresql/.s.PGSQL.5432", "network.transport": "unix"}
		if !server {
			want["network.peer.address"] = "/run/postgresql/.s.PGSQL.5432"
		}
		if got := k.results(); len(got) != 1 || fmt.Sprint(got[0].Attrs) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// TestStatementsThatWereUsedLastAreKept where there are too many.
func TestStatementsThatWereUsedLastAreKept(t *testing.T) {
	acc := new(ledger.Account)
	parts := hello(ask(p("first", "SELECT 'first'"), sy), say(okParse, idleZ), ask(p("other", "SELECT 'other'"), sy), say(okParse, idleZ))
	for i := range maxStatements - 1 {
		if i == maxStatements/2 {
			parts = append(parts, ask(b("", "first"), e("", 0), sy), say(okBind, tagged("SELECT 1"), idleZ))
		}
		parts = append(parts, ask(p(fmt.Sprint("s", i), "SELECT 1"), sy), say(okParse, idleZ))
	}
	parts = append(parts, ask(b("", "first"), e("", 0), sy), say(okBind, tagged("SELECT 1"), idleZ), ask(b("", "other"), e("", 0), sy), say(okBind, tagged("SELECT 1"), idleZ))
	k, err := play(t, protocol, testConn(acc, true), true, chunks(parts, true, whole))
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, s := range k.results() {
		got = append(got, s.Attrs["db.query.text"])
	}
	if want := "[SELECT 'first' SELECT 'first' <nil>]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}
