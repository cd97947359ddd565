// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

// messages returns how many of the bytes are whole messages, if they begin with one; n at most.
func messages(data []byte, n int) int {
	size := 0
	for ; n > 0 && len(data)-size >= headerSize; n-- {
		length := uint64(1) + uint64(binary.BigEndian.Uint32(data[size+1:]))
		if data[size] == 0 {
			length = uint64(binary.BigEndian.Uint32(data[size:]))
		}
		if length < 4 || length > uint64(len(data)-size) {
			break
		}
		size += int(length)
	}
	return size
}

// shuffle makes events of two byte streams: calls of random size in random order, some captured by their edges or not at all, some
// lost, and progress and half-closes in between.
func shuffle(rng *rand.Rand, streams [2][]byte, requests probes.Direction) []chunk {
	var list []chunk
	var pos [2]uint64
	var id trace.SpanID
	now := int64(0)
	calm := rng.IntN(3) == 0 // everything is captured
	lost := false
	last := requests.Other()
	for n := 0; len(streams[0]) > 0 || len(streams[1]) > 0; n++ {
		dir := last
		if rng.IntN(3) > 0 {
			dir = dir.Other()
		}
		if len(streams[dir]) == 0 {
			dir = dir.Other()
		}
		data := streams[dir]
		switch rng.IntN(8) {
		case 0:
			data = data[:1]
		case 1:
			data = data[:min(len(data), 1+rng.IntN(40))]
		case 2, 3, 4, 5, 6:
			if size := messages(data, 1+rng.IntN(6)); size > 0 {
				data = data[:size]
			}
		}
		streams[dir] = streams[dir][len(data):]
		if now += int64(rng.IntN(1000)); rng.IntN(20) == 0 {
			now += idle
		}
		c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: slices.Clone(data), Begin: now, End: now + 10}
		pos[dir] += c.Total
		if dir == requests && last != dir {
			id, c.Named = byItself(n), true
		}
		last = dir
		c.ID = id
		c.Evidence = span.Evidence{Seq: uint32(c.Pos), HasSeq: true}
		if !calm {
			switch rng.IntN(16) {
			case 0:
				lost = true
				continue
			case 1:
				continue // left out on purpose
			case 2:
				c.Head, c.Unreadable = nil, rng.IntN(2) == 0
			case 3:
				cut := rng.IntN(len(data) + 1)
				c.Head, c.Tail = c.Head[:cut], c.Head[cut+rng.IntN(len(data)-cut+1):]
			case 4:
				c.Head, c.Tail = c.Head[:min(24, len(data)/2)], c.Head[max(len(data)-64, (len(data)+1)/2):]
			case 5:
				n := uint64(rng.IntN(1 << 20))
				c.Total += n
				pos[dir] += n
			case 6:
				list = append(list, chunk{prog: true, Chunk: probes.Chunk{Dir: dir, Pos: pos[dir] + uint64(rng.IntN(3)*rng.IntN(5000)), End: now}})
			case 7:
				e := probes.End(rng.IntN(2))
				list = append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
			case 8:
				c.Begin -= int64(rng.IntN(2000))
			}
		}
		c.Lost, lost = lost, false
		list = append(list, chunk{Chunk: c})
	}
	e := probes.End(2 + rng.IntN(3))
	return append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
}

func FuzzPostgres(f *testing.F) {
	add := func(i int, parts []part) {
		var streams [2][]byte
		for _, p := range parts {
			dir := 0
			if p.answer {
				dir = 1
			}
			streams[dir] = append(streams[dir], p.data...)
		}
		if len(streams[0])+len(streams[1]) < 1<<15 {
			f.Add(streams[0], streams[1], uint64(2*i), true)
			f.Add(streams[0], streams[1], uint64(2*i+1), false)
		}
	}
	for i, test := range append(exchangeTests(), capturedTests()...) {
		add(i, test.parts)
	}
	names, _ := filepath.Glob("testdata/*.talk")
	for i, name := range names {
		talks, err := read(name)
		if err != nil {
			f.Fatal(err)
		}
		for j, talk := range talks {
			var parts []part
			for _, m := range talk.moves {
				parts = append(parts, part{answer: m.answer, data: string(m.data)})
			}
			add(1000*i+j, parts)
		}
	}
	f.Fuzz(func(t *testing.T, requests, responses []byte, seed uint64, server bool) {
		streams := [2][]byte{requests, responses}
		dir := probes.Ingress
		if !server {
			streams[0], streams[1] = streams[1], streams[0]
			dir = probes.Egress
		}
		rng := rand.New(rand.NewPCG(seed, 3))
		established := rng.IntN(8) == 0
		events := shuffle(rng, streams, dir)
		first := slices.IndexFunc(events, func(ev chunk) bool { return recognised(ev, dir) })
		if first < 0 {
			return
		}
		events = events[first:]
		original := make([]chunk, len(events))
		for i, ev := range events {
			ev.Head, ev.Tail = slices.Clone(ev.Head), slices.Clone(ev.Tail)
			original[i] = ev
		}
		run := func(events []chunk) ([]spanned, map[trace.SpanID]trace.SpanID, ledger.Counts) {
			acc := new(ledger.Account)
			k := newSink(t)
			conn := testConn(acc, server)
			conn.Established = established
			d := protocol.New(conn, server).(*decoder)
			for i := range events {
				ev := &events[i]
				if ev.end != nil {
					d.End(*ev.end, ev.Chunk.End, k)
				} else if ev.prog {
					d.Progress(ev.Dir, ev.Pos, ev.Chunk.End, k)
				} else if d.Decode(&ev.Chunk, k) != nil {
					break
				}
				d.Waiting()
				d.bounded(t)
			}
			k.balance(acc)
			aliases := map[trace.SpanID]trace.SpanID{}
			for id, s := range k.aliases {
				aliases[id] = s.ID
			}
			return k.results(), aliases, acc.Counts()
		}
		want, aliases, counts := run(events)
		if !recognised(events[0], dir) {
			t.Error("the recording is not recognised")
		}
		for name, again := range map[string][]chunk{"after zeroing": events, "from the start": original} {
			got, others, c := run(again)
			if !reflect.DeepEqual(want, got) || !reflect.DeepEqual(aliases, others) || c != counts {
				t.Errorf("%s: %v, then %v; (-first +second)\n%s%s", name, counts, c, cmp.Diff(want, got), cmp.Diff(aliases, others))
			}
		}
	})
}

// recognised says whether the connection is known by an event, and who asks.
func recognised(ev chunk, requests probes.Direction) bool {
	v, asks := detect(ev.Dir, ev.Head)
	return ev.end == nil && !ev.prog && v == probes.Yes && asks == (ev.Dir == requests)
}

// bounded checks what a connection may hold.
func (d *decoder) bounded(t *testing.T) {
	q, s := &d.queue, &d.session
	ready, holes := 0, 0
	for i := range q.len() {
		u := q.at(i)
		if u.kind.readied() {
			ready++
		}
		if u.kind == unitHole {
			holes++
		}
		if (u.ended != 0) != (i < d.held) {
			t.Fatalf("%d held, but unit %d ended at %d", d.held, i, u.ended)
		}
	}
	if q.len() > maxUnits+2 || ready != q.ready || holes != q.holes || holes > 1 || d.held > q.len() || len(d.early) > maxEarly {
		t.Fatalf("%d units, %d and %d ready, %d and %d holes, %d held, %d early", q.len(), ready, q.ready, holes, q.holes, d.held, len(d.early))
	}
	if len(s.changes) > maxUnits || len(s.portals) > maxPortals || len(s.statements.byName) > maxStatements {
		t.Fatalf("%d changes, %d portals, %d statements", len(s.changes), len(s.portals), len(s.statements.byName))
	}
	for i := range d.sides {
		if n := len(d.sides[i].buf); n > maxText {
			t.Fatalf("%d bytes of a message", n)
		}
		if n := len(d.sides[i].match); n > 2*maxEnding {
			t.Fatalf("%d bytes of an end", n)
		}
	}
	n, bytes := 0, 0
	for p := s.statements.newest; p != nil; p = p.elder {
		n++
		bytes += p.size
		if s.statements.byName[p.name] != p {
			t.Fatalf("%q is in the list only", p.name)
		}
		if p.elder == s.statements.newest {
			break
		}
	}
	if n != len(s.statements.byName) || bytes != s.statements.bytes {
		t.Fatalf("%d statements of %d bytes in the list, %d of %d in the table", n, bytes, len(s.statements.byName), s.statements.bytes)
	}
}
