// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// kernel captures as the kernel side does: what the client says up to a limit, of an answer the beginning, then pieces by their edges,
// and when there were some, only those that look like the end of a result.
type kernel struct {
	requests probes.Direction
	pos      [2]uint64
	last     [2]int64 // when the last byte of a direction passed
	told     [2]uint64
	dir      probes.Direction
	started  bool
	room     int // what is captured of the run in full
	calls    int // of it that were told by their edges
	id       trace.SpanID
	names    int
	event    int  // bytes that an event can hold
	tails    bool // the first call of an answer is told with its end
	rng      *rand.Rand
}

// conversations is how many are made; each takes some milliseconds.
const conversations = 100

const (
	runLimit     = 16 << 10
	edgeHead     = 24
	edgeTail     = 64
	silenceAfter = 8
)

// endsResult is what the kernel side takes for the end of a result.
func endsResult(data string) bool {
	n := len(data)
	if n >= 9 && data[n-9:n-6] == "\x05\x00\x00" && data[n-5] == headEOF {
		return true
	}
	for size := minOK; size <= 60 && n >= headerSize+size; size++ {
		if p := data[n-headerSize-size:]; p[0] == byte(size) && p[1] == 0 && p[2] == 0 && p[4] == headEOF {
			return true
		}
	}
	return false
}

// move makes events of what one call moved between begin and end.
func (k *kernel) move(dir probes.Direction, data string, begin, end int64) []chunk {
	var list []chunk
	named := false
	if !k.started || k.dir != dir {
		k.started, k.dir = true, dir
		if other := dir.Other(); k.told[other] < k.pos[other] {
			list = append(list, chunk{prog: true, Chunk: probes.Chunk{Dir: other, Pos: k.pos[other], End: k.last[other]}})
			k.told[other] = k.pos[other]
		}
		if k.room, k.calls = k.event, 0; dir == k.requests {
			k.room = runLimit
			k.names++
			k.id, named = named64(k.names), true
		}
	}
	k.last[dir] = end
	emit := func(head, tail string, total int) {
		c := probes.Chunk{Dir: dir, Pos: k.pos[dir], Total: uint64(total), Head: []byte(head), Tail: []byte(tail), Begin: begin, End: end, ID: k.id, Named: named}
		c.Evidence = span.Evidence{Conn: 7, Seq: uint32(c.Pos), HasSeq: true}
		named = false
		list = append(list, chunk{Chunk: c})
		k.pos[dir] += uint64(total)
		k.told[dir] = k.pos[dir]
	}
	if dir == k.requests {
		for data != "" && k.room > 0 {
			n := min(len(data), k.event, k.room)
			emit(data[:n], "", n)
			data = data[n:]
			k.room -= n
		}
	} else if k.room > 0 {
		n := min(len(data), k.room)
		tail := data[n:]
		if len(tail) > edgeTail {
			tail = tail[len(tail)-edgeTail:]
		}
		if !k.tails {
			tail = ""
		}
		emit(data[:n], tail, len(data))
		k.room = 0
		return list
	}
	if data == "" {
		return list
	}
	if k.calls++; k.calls > silenceAfter && !(dir != k.requests && endsResult(data)) {
		k.pos[dir] += uint64(len(data))
		return list
	}
	n := min(len(data), edgeHead)
	tail := data[n:]
	emit(data[:n], tail[max(0, len(tail)-edgeTail):], len(data))
	return list
}

func named64(n int) trace.SpanID {
	return trace.SpanID{0xcc, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// made is a command that a conversation holds.
type made struct {
	text       string
	code       string // of its error
	rows       int64  // -1: none
	start, end int64
}

// talk is a conversation as the kernel side reports it.
type talk struct {
	events []chunk
	made   []made
	server bool
	maria  bool
}

type talker struct {
	rng   *rand.Rand
	k     *kernel
	wire  wire
	talk  talk
	now   int64
	ids   int
	stmts map[int]string
}

func (w *talker) write(client bool, data string, atOnce bool) (begin, end int64) {
	dir := w.k.requests
	if !client {
		dir = dir.Other()
	}
	first := int64(-1)
	size := 16 << 10
	if !atOnce && w.rng.IntN(4) == 0 {
		size = 1 + w.rng.IntN(2000)
	}
	for data != "" {
		n := min(len(data), size)
		if !atOnce && w.rng.IntN(3) == 0 {
			n = min(n, 1+w.rng.IntN(600))
		}
		if first < 0 && client {
			n = min(len(data), max(n, 16))
		}
		for n < len(data) && !client && endsResult(data[:n]) {
			n++ // what is not the end must not look like it, which is rare
		}
		begin := w.now
		w.now += 1 + int64(w.rng.IntN(100))
		if first < 0 {
			first = begin
		}
		w.talk.events = append(w.talk.events, w.k.move(dir, data[:n], begin, w.now)...)
		data = data[n:]
		end = w.now
		w.now += int64(w.rng.IntN(50))
	}
	return first, end
}

// answer is what a statement gets, and what is to be known of it.
func (w *talker) answer(m *made, binary bool) string {
	switch w.rng.IntN(5) {
	case 0:
		m.rows = -1
		return packet(1, okay(2))
	case 1:
		m.rows, m.code = -1, strconv.Itoa(1000+w.rng.IntN(900))
		n, _ := strconv.Atoi(m.code)
		return packet(1, fail(n, "SECRET "+strings.Repeat("m", w.rng.IntN(600))))
	}
	n := w.rng.IntN(4)
	switch w.rng.IntN(4) {
	case 0:
		n = w.rng.IntN(60)
	case 1:
		n = w.rng.IntN(700)
	}
	columns := make([]string, 1+w.rng.IntN(4))
	if w.rng.IntN(6) == 0 {
		columns = make([]string, 1+w.rng.IntN(40))
	}
	for i := range columns {
		columns[i] = fmt.Sprint("c", i)
	}
	m.rows = int64(n)
	rows := make([]string, n)
	wide := 1 + w.rng.IntN(30)
	if w.rng.IntN(8) == 0 {
		wide = 1 + w.rng.IntN(3000)
	}
	for i := range rows {
		if binary {
			rows[i] = "\x00" + strings.Repeat("\x00", (len(columns)+9)/8)
		}
		for range columns {
			rows[i] += str(w.filler(w.rng.IntN(wide)))
		}
	}
	set := w.wire.set(1, 2, columns, rows...)
	if w.rng.IntN(12) == 0 { // it fails while the rows are sent
		last := w.wire.eof(w.wire.seqAfter(1, len(columns), n)-1&0xff, 2)
		m.rows, m.code = -1, "1317"
		set = set[:len(set)-len(last)] + packet(w.wire.seqAfter(1, len(columns), n)-1&0xff, fail(1317, "Query execution was interrupted"))
	}
	return set
}

// filler is text that may look like packets.
func (w *talker) filler(n int) string {
	if w.rng.IntN(2) == 0 {
		return strings.Repeat("x", n)
	}
	return strings.Repeat("\x05\x00\x00\x07\xfe\x00\x00\x02\x00 SELECT 1", n/8+1)[:n]
}

func (w *talker) statement(n int) string {
	text := fmt.Sprintf("SELECT a%d FROM t%d WHERE x = '", n, n)
	size := w.rng.IntN(40)
	switch w.rng.IntN(8) {
	case 0:
		size = w.rng.IntN(3000)
	case 1:
		size = w.rng.IntN(60000)
	}
	return text + strings.Repeat("v", size) + "'"
}

// exchange is one command and its answer.
func (w *talker) exchange(n int) {
	switch w.rng.IntN(8) {
	case 0: // a prepared statement
		text := fmt.Sprintf("SELECT a%d FROM t%d WHERE x = ?", n, n)
		w.write(true, prepare(text), w.rng.IntN(2) == 0)
		w.ids++
		w.stmts[w.ids] = text
		w.write(false, w.wire.prepared(w.ids, 1, 1+w.rng.IntN(30)), w.rng.IntN(2) == 0)
		return
	case 1:
		if w.ids > 0 {
			id := 1 + w.rng.IntN(w.ids)
			m := made{text: w.stmts[id]}
			data := execute(id, strings.Repeat("SECRET", w.rng.IntN(6000)))
			if w.rng.IntN(3) == 0 && id != 1 && w.stmts[1] != "" {
				w.stmts[1] = ""
				data = closeStmt(1) + data
			}
			answer := w.answer(&m, true)
			m.start, _ = w.write(true, data, w.rng.IntN(2) == 0)
			_, m.end = w.write(false, answer, w.rng.IntN(2) == 0)
			w.talk.made = append(w.talk.made, m)
		}
		return
	case 2:
		w.unusual(n)
		return
	case 3:
		w.write(true, packet(0, "\x0e"), true)
		w.write(false, packet(1, okay(2)), true)
		return
	}
	m := made{text: w.statement(n)}
	answer := w.answer(&m, false)
	m.start, _ = w.write(true, query(m.text), w.rng.IntN(2) == 0)
	_, m.end = w.write(false, answer, w.rng.IntN(2) == 0)
	w.talk.made = append(w.talk.made, m)
}

// unusual is a command with several results, or with the data of a file, or several commands at once.
func (w *talker) unusual(n int) {
	name := fmt.Sprintf("a%d FROM t%d", n, n)
	atOnce := w.rng.IntN(2) == 0
	switch w.rng.IntN(3) {
	case 0:
		m := made{text: "SELECT " + name + "; SELECT " + name}
		rows := w.rng.IntN(200)
		m.rows = int64(rows) + 1
		first := w.wire.set(1, 10, []string{"a"}, slices.Repeat([]string{row("some value")}, rows)...)
		m.start, _ = w.write(true, query(m.text), atOnce)
		_, m.end = w.write(false, first+w.wire.set(w.wire.seqAfter(1, 1, rows), 2, []string{"a", "b"}, row("1", "2")), atOnce)
		w.talk.made = append(w.talk.made, m)
	case 1:
		m := made{text: fmt.Sprintf("LOAD DATA LOCAL INFILE 'x' INTO TABLE t%d", n), rows: -1}
		m.start, _ = w.write(true, query(m.text), atOnce)
		w.write(false, packet(1, "\xfbx"), true)
		data, seq := "", 2
		for range w.rng.IntN(6) {
			data += packet(seq, strings.Repeat("SECRET,data\n", 1+w.rng.IntN(1500)))
			seq++
		}
		w.write(true, data+packet(seq, ""), atOnce)
		_, m.end = w.write(false, packet(seq+1, okay(2)), true)
		w.talk.made = append(w.talk.made, m)
	case 2:
		commands, answers := "", ""
		before := len(w.talk.made)
		for range 2 + w.rng.IntN(3) {
			m := made{text: "SELECT " + name, rows: 1}
			commands += query(m.text)
			answers += w.wire.set(1, 2, []string{"a"}, row("1"))
			w.talk.made = append(w.talk.made, m)
		}
		start, _ := w.write(true, commands, true)
		_, end := w.write(false, answers, true)
		for i := range w.talk.made[before:] {
			w.talk.made[before+i].start, w.talk.made[before+i].end = start, end
		}
	}
}

func converse(rng *rand.Rand, server bool, exchanges int) talk {
	k := &kernel{requests: probes.Egress, rng: rng, event: 416 + 32*rng.IntN(4), tails: rng.IntN(2) == 0}
	if server {
		k.requests = probes.Ingress
	}
	w := &talker{rng: rng, k: k, now: 1000, stmts: map[int]string{}}
	w.wire = []wire{plain, modern, maria, mariaP}[rng.IntN(4)]
	w.talk.server, w.talk.maria = server, w.wire.maria
	for _, p := range w.wire.hello("shop") {
		w.write(!p.answer, p.data, true)
	}
	for n := range exchanges {
		w.exchange(n)
	}
	e := probes.Closed
	// What passed unseen is told with the end.
	for dir := range probes.Direction(2) {
		if k.told[dir] < k.pos[dir] {
			w.talk.events = append(w.talk.events, chunk{prog: true, Chunk: probes.Chunk{Dir: dir, Pos: k.pos[dir], End: k.last[dir]}},
				chunk{Chunk: probes.Chunk{Dir: dir, Pos: k.pos[dir], Begin: k.last[dir], End: k.last[dir]}})
		}
	}
	w.talk.events = append(w.talk.events, chunk{end: &e, Chunk: probes.Chunk{End: w.now + 5000}})
	return w.talk
}

// compare holds a span to what was made.
func (m *made) compare(t *testing.T, how string, r *result) {
	t.Helper()
	truncated := r.Attrs["breadcrumb.truncated"] == true
	name, _ := statementAttrs(m.text, nil)["db.query.summary"].(string)
	if r.Attrs["db.query.text"] == nil { // the answer to its preparation was not seen
		name = "shop"
	}
	if r.Name != name && r.Name != "192.0.2.7:3306" {
		t.Errorf("%s: %q, want %q", how, r.Name, name)
	}
	code, _ := r.Attrs["db.response.status_code"].(string)
	if r.Attrs["error.type"] == "_OTHER" && m.code != "" {
		code = m.code // that it failed is known
	}
	if code != m.code && !(truncated && code == "") || (r.Status == codes.Error) != (code != "") {
		t.Errorf("%s: %s has code %q, want %q", how, r.Name, code, m.code)
	}
	if n, ok := r.Attrs["db.response.returned_rows"].(int64); ok && n != m.rows {
		t.Errorf("%s: %s has %d rows, want %d", how, r.Name, n, m.rows)
	}
	if r.Start != m.start {
		t.Errorf("%s: %s starts at %d, want %d", how, r.Name, r.Start, m.start)
	}
	if r.End != m.end {
		t.Errorf("%s: %s ends at %d, want %d (truncated %v)", how, r.Name, r.End, m.end, truncated)
	}
}

func TestConversationsAsTheKernelReportsThem(t *testing.T) {
	var all, counted, unknown, results, untold int
	for seed := range uint64(conversations) {
		server := seed%2 == 0
		talk := converse(rand.New(rand.NewPCG(seed, 1)), server, 12)
		acc := new(ledger.Account)
		k, err := play(t, testConn(acc, server), server, talk.events)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		k.balance(acc, 0)
		got := k.results()
		if len(got) != len(talk.made) {
			t.Errorf("seed %d: %d spans of %d, lost %v", seed, len(got), len(talk.made), acc.Counts())
		}
		for i := range min(len(got), len(talk.made)) {
			talk.made[i].compare(t, fmt.Sprint("seed ", seed), &got[i])
			all++
			if _, ok := got[i].Attrs["db.response.returned_rows"]; ok {
				counted++
			}
			if talk.made[i].rows >= 0 {
				results++
			}
			if got[i].Attrs["db.query.text"] == nil {
				untold++
			}
			if got[i].Status == codes.Unset && talk.made[i].code != "" {
				unknown++
			}
		}
		if t.Failed() {
			for _, ev := range talk.events {
				t.Logf("%v prog=%v named=%v lost=%v pos=%d total=%d head=%d tail=%d %.60q", ev.Dir, ev.prog, ev.Named, ev.Lost, ev.Pos, ev.Total, len(ev.Head), len(ev.Tail), ev.Head)
			}
			for i, s := range k.opened {
				t.Log(i, s.ID, s.Name, s.State, s.Start, s.End, s.Attrs)
			}
			return
		}
		again, _ := play(t, testConn(new(ledger.Account), server), server, talk.events)
		if diff := cmp.Diff(got, again.results()); diff != "" {
			t.Fatalf("seed %d: after zeroing: (-first +second)\n%s", seed, diff)
		}
	}
	t.Logf("%d commands, %d without a statement, %d of %d results counted, %d errors not seen", all, untold, counted, results, unknown)
}

func TestEveryCommandIsCountedOnceWhenEventsAreLost(t *testing.T) {
	good, all := 0, 0
	for seed := range uint64(conversations) {
		server := seed%2 == 0
		rng := rand.New(rand.NewPCG(seed, 2))
		talk := converse(rng, server, 12)
		rate := []int{50, 10, 3}[rng.IntN(3)]
		var kept []chunk
		lost := false
		for _, ev := range talk.events {
			if ev.end == nil && !ev.prog {
				if rng.IntN(rate) == 0 {
					lost = true
					continue
				}
				ev.Lost, lost = lost, false
			} else if ev.end != nil && lost {
				kept = append(kept, chunk{Chunk: probes.Chunk{Lost: true, End: ev.Chunk.End}})
			}
			kept = append(kept, ev)
		}
		acc := new(ledger.Account)
		k, err := play(t, testConn(acc, server), server, kept)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		k.balance(acc, acc.Counts()[ledger.Seen]-uint64(len(k.opened)))
		byStart := map[int64][]*made{}
		for i := range talk.made {
			m := &talk.made[i]
			byStart[m.start] = append(byStart[m.start], m)
		}
		all += len(talk.made)
		for _, r := range k.results() {
			if len(byStart[r.Start]) == 0 {
				t.Errorf("seed %d: a span %s that starts at %d", seed, r.Name, r.Start)
				continue
			}
			m := byStart[r.Start][0]
			byStart[r.Start] = byStart[r.Start][1:]
			good++
			if r.Attrs["breadcrumb.truncated"] == true || r.Attrs["db.query.text"] == nil {
				r.End = m.end
				if r.Attrs["db.query.text"] == nil {
					r.Name = "192.0.2.7:3306"
				}
			}
			m.compare(t, fmt.Sprint("seed ", seed), &r)
		}
		if t.Failed() {
			for _, ev := range kept {
				t.Logf("%v prog=%v named=%v lost=%v pos=%d total=%d head=%d tail=%d %.60q", ev.Dir, ev.prog, ev.Named, ev.Lost, ev.Pos, ev.Total, len(ev.Head), len(ev.Tail), ev.Head)
			}
			for i, s := range k.opened {
				t.Log(i, s.ID, s.Name, s.State, s.Start, s.End, s.Attrs)
			}
			return
		}
	}
	t.Logf("%d spans of %d commands", good, all)
}
