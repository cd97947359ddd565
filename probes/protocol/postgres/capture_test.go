// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// kernel captures as the kernel side does: of what the client says the first of each run, of an answer its beginning and the edges of
// the calls behind it, of which it tells only some, until one ends in ReadyForQuery.
type kernel struct {
	rng      *rand.Rand
	requests probes.Direction
	events   []chunk
	pos      [2]uint64
	dir      probes.Direction // of the latest call
	run      int              // bytes of this run
	calls    int              // of this run, that were not told in full
	id       trace.SpanID
	names    int
	now      int64
}

const (
	runLimit   = 16 << 10
	pieceSize  = 512
	edgeHead   = 24
	edgeTail   = 64
	quietAfter = 8
)

// move makes events of what one call moved.
func (k *kernel) move(dir probes.Direction, data []byte) {
	k.now += 1000
	named := false
	if len(k.events) == 0 || k.dir != dir {
		k.dir, k.run, k.calls = dir, 0, 0
		if named = dir == k.requests; named {
			k.names++
			k.id = byItself(k.names)
		}
	}
	emit := func(head, tail []byte, total int) {
		c := probes.Chunk{Dir: dir, Pos: k.pos[dir], Total: uint64(total), Head: append([]byte(nil), head...), Tail: append([]byte(nil), tail...),
			Begin: k.now, End: k.now, ID: k.id, Named: named}
		c.Evidence = span.Evidence{Conn: 7, Seq: uint32(c.Pos), HasSeq: true}
		named = false
		k.events = append(k.events, chunk{Chunk: c})
		k.pos[dir] += uint64(total)
	}
	limit := runLimit
	if dir != k.requests {
		limit = 416 + k.rng.IntN(pieceSize-416)
		if k.run > 0 {
			limit = 0
		}
	}
	for len(data) > 0 && k.run < limit {
		n := min(pieceSize, len(data), limit-k.run)
		emit(data[:n], nil, n)
		k.run += n
		data = data[n:]
	}
	k.run++ // another call is another one
	if len(data) == 0 {
		return
	}
	ends := len(data) >= readySize && isReady(data[len(data)-readySize:])
	if k.calls++; k.calls > quietAfter && !(ends && dir != k.requests) {
		k.pos[dir] += uint64(len(data))
		return
	}
	if len(data) <= edgeHead+edgeTail {
		emit(data, nil, len(data))
		return
	}
	emit(data[:edgeHead], data[len(data)-edgeTail:], len(data))
}

var seeds = flag.Int("seeds", 20, "how many captures of each recording are compared")

// TestWhatIsNotCapturedIsNotMadeUp compares spans of all bytes with those of what is captured of them, without loss and with, and from
// the middle on.
func TestWhatIsNotCapturedIsNotMadeUp(t *testing.T) {
	names, _ := filepath.Glob("testdata/*.talk")
	for _, name := range names {
		talks, err := read(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, talk := range talks {
			for _, server := range []bool{true, false} {
				for _, how := range []string{"captured", "lost", "middle"} {
					t.Run(fmt.Sprintf("%s/%d/%v/%s", filepath.Base(name), i, server, how), func(t *testing.T) {
						for seed := range uint64(*seeds) {
							compareCaptures(t, talk.moves, server, how, seed)
						}
					})
				}
			}
		}
	}
}

func compareCaptures(t *testing.T, moves []move, server bool, how string, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	requests := probes.Egress
	if server {
		requests = probes.Ingress
	}
	k, all := &kernel{rng: rng, requests: requests}, &kernel{rng: rng, requests: requests}
	most := []int{100, 1000, 4096, 8192, 1 << 20}[rng.IntN(5)]
	for _, m := range moves {
		dir := requests
		if m.answer {
			dir = dir.Other()
		}
		for data := m.data; len(data) > 0; {
			n := min(len(data), most)
			k.move(dir, data[:n])
			all.now = k.now
			all.events = append(all.events, chunk{Chunk: probes.Chunk{Dir: dir, Pos: all.pos[dir], Total: uint64(n), Head: append([]byte(nil), data[:n]...),
				Begin: k.now, End: k.now, ID: k.id, Evidence: span.Evidence{Conn: 7, Seq: uint32(all.pos[dir]), HasSeq: true}}})
			all.pos[dir] += uint64(n)
			data = data[n:]
		}
	}
	conn := testConn(new(ledger.Account), server)
	switch how {
	case "lost":
		var left []chunk
		lost := false
		for _, ev := range k.events {
			if rng.IntN(20) == 0 {
				lost = true
				continue
			}
			ev.Lost, lost = lost, false
			left = append(left, ev)
		}
		if lost {
			left = append(left, chunk{Chunk: probes.Chunk{Pos: k.pos[probes.Ingress], Begin: k.now, End: k.now, Lost: true}})
		}
		k.events = left
	case "middle":
		k.events = k.events[rng.IntN(len(k.events)):]
		for len(k.events) > 0 && k.events[0].Dir == requests && !k.events[0].Named {
			k.events = k.events[1:] // where a run begins is shown by that
		}
		conn.Established = true
	}
	for len(k.events) > 0 && !recognised(k.events[0], requests) {
		k.events = k.events[1:]
	}
	e := probes.Closed
	k.events = append(k.events, chunk{end: &e, Chunk: probes.Chunk{End: k.now}})
	all.events = append(all.events, chunk{end: &e, Chunk: probes.Chunk{End: k.now}})
	whole, _ := play(t, protocol, testConn(nil, server), server, all.events)
	part, err := play(t, protocol, conn, server, k.events)
	part.balance(conn.Target.Account)
	if err != nil && err != probes.ErrUpgraded {
		t.Fatal(seed, err)
	}
	want := map[uint32]spanned{}
	for i, r := range whole.results() {
		want[whole.done[i].Evidence.Seq] = r
	}
	unknown := 0
	for i, got := range part.results() {
		w, ok := want[part.done[i].Evidence.Seq]
		if !ok {
			t.Errorf("seed %d: made up: %v", seed, got)
			continue
		}
		delete(want, part.done[i].Evidence.Seq)
		if got.Attrs["breadcrumb.unknown_fields"] != nil {
			unknown++
		}
		for key, v := range got.Attrs {
			switch {
			case w.Attrs[key] == v, key == "breadcrumb.unknown_fields", key == "breadcrumb.truncated",
				key == "db.query.text" && got.Attrs["breadcrumb.truncated"] != nil, key == "error.type" && v == "_OTHER",
				key == "db.operation.name" && got.Attrs["db.query.text"] == nil:
			default:
				t.Errorf("seed %d: %s is %v, want %v: %v", seed, key, v, w.Attrs[key], got)
			}
		}
		if got.Status != w.Status && !(got.Status == codes.Unset && got.Attrs["breadcrumb.unknown_fields"] != nil) {
			t.Errorf("seed %d: %v, want %v", seed, got, w)
		}
		if how == "captured" && got.Attrs["db.query.text"] == nil && w.Attrs["db.query.text"] != nil {
			t.Errorf("seed %d: no text of %v", seed, w)
		}
	}
	if testing.Verbose() && (len(want) > 0 || unknown > 0) {
		t.Logf("seed %d, calls of %d: %d of %d not seen, %d with unknowns, %v", seed, most, len(want), len(whole.done), unknown, conn.Target.Account.Counts())
	}
}

// pipelined is a conversation of a client that goes on before it has its answers, as drivers do on which many tasks share a connection.
// The statement "SELECT n" has n rows, or fails where n can be divided by 7.
func pipelined(rng *rand.Rand) []move {
	moves := []move{{false, []byte(startup("user", "u", "database", "shop"))}, {true, []byte(greeted)}, {false, []byte(p("s1", "SELECT 1") + sy)}, {true, []byte(okParse + idleZ)}}
	window, most := 1+rng.IntN(4), 1+rng.IntN(40)
	var ask, say string // not moved yet
	outstanding := 0
	flow := func(all bool) {
		if ask != "" && (all || rng.IntN(2) == 0) {
			moves, ask = append(moves, move{false, []byte(ask)}), ""
		}
		if say != "" && ask == "" && (all || outstanding >= window || rng.IntN(2) == 0) {
			n := len(say)
			if !all && rng.IntN(3) == 0 {
				n = 1 + rng.IntN(n)
			}
			moves = append(moves, move{true, []byte(say[:n])})
			if say = say[n:]; say == "" {
				outstanding = 0
			}
		}
	}
	n := 1
	for range 60 {
		failed := false
		for range 1 + rng.IntN(3) {
			if n++; n%50 == 1 {
				ask += b("", "s1", "planted") + e("", 0)
				if !failed {
					say += okBind + row("1") + tagged("SELECT 1")
				}
				continue
			}
			rows := n % most
			text := fmt.Sprintf("SELECT %d /* %d */", rows, n)
			if n%7 == 0 {
				text = fmt.Sprintf("SELECT fails /* %d */", n)
			}
			ask += p("", text) + b("", "", "planted") + dP("") + e("", 0)
			switch {
			case failed:
			case n%7 == 0:
				failed = true
				say += okParse + okBind + rowsOf("a") + failing("ERROR", "22012", "planted")
			default:
				say += okParse + okBind + rowsOf("a") + strings.Repeat(row("planted-1"), rows) + tagged(fmt.Sprintf("SELECT %d", rows))
			}
		}
		ask += sy
		say += idleZ
		outstanding++
		for outstanding >= window {
			flow(false)
		}
	}
	flow(true)
	flow(true)
	return moves
}

// TestPipelinesStayInStep holds spans of pipelined statements to what these say of themselves.
func TestPipelinesStayInStep(t *testing.T) {
	for seed := range uint64(*seeds) {
		moves := pipelined(rand.New(rand.NewPCG(seed, 2)))
		for _, server := range []bool{true, false} {
			for _, how := range []string{"captured", "lost", "middle"} {
				compareCaptures(t, moves, server, how, seed)
			}
			var parts []part
			for _, m := range moves {
				parts = append(parts, part{answer: m.answer, data: string(m.data)})
			}
			acc := new(ledger.Account)
			k, err := play(t, protocol, testConn(acc, server), server, append(chunks(parts, server, whole), chunk{end: ptr(probes.Closed)}))
			if err != nil || acc.Counts().Lost() > 0 {
				t.Fatal(seed, err, acc.Counts())
			}
			k.balance(acc)
			for _, s := range k.results() {
				text := s.Attrs["db.query.text"].(string)
				var rows int64
				fmt.Sscanf(text, "SELECT %d", &rows)
				fails := strings.Contains(text, "fails")
				switch {
				case s.Attrs["error.type"] == "pipeline_aborted":
				case fails != (s.Attrs["error.type"] == "22012"), !fails && s.Attrs["db.response.returned_rows"] != rows:
					t.Errorf("seed %d: %v", seed, s)
				}
			}
		}
	}
}
