// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

// packetsIn returns how many of the bytes are whole packets, if they begin with one; n at most.
func packetsIn(b []byte, n int) int {
	size := 0
	for ; n > 0 && len(b)-size >= headerSize; n-- {
		size = min(len(b), size+headerSize+int(b[size])+int(b[size+1])<<8+int(b[size+2])<<16)
	}
	return size
}

// shuffle makes events of two byte streams: calls of random size in random order, or in turn, some captured by their edges or not at
// all, some left out, some lost, and progress and half-closes in between.
func shuffle(rng *rand.Rand, streams [2][]byte) []chunk {
	var list []chunk
	var pos [2]uint64
	var id trace.SpanID
	now := int64(0)
	calm := rng.IntN(3) == 0 // everything is captured
	lost := false
	dir := probes.Direction(rng.IntN(2))
	for n := 0; len(streams[0]) > 0 || len(streams[1]) > 0; n++ {
		before := dir
		if dir = probes.Direction(rng.IntN(2)); len(streams[dir]) == 0 {
			dir = dir.Other()
		}
		data := streams[dir]
		switch rng.IntN(6) {
		case 0:
			data = data[:1]
		case 1:
			data = data[:min(len(data), 1+rng.IntN(40))]
		case 2, 3, 4:
			if size := packetsIn(data, 1+rng.IntN(6)); size > 0 {
				data = data[:size]
			}
		}
		streams[dir] = streams[dir][len(data):]
		now += int64(rng.IntN(1000))
		c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: slices.Clone(data), Begin: now, End: now + 10}
		pos[dir] += c.Total
		if rng.IntN(8) == 0 || dir != before {
			id, c.Named = byItself(n), true
		}
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
				c.Head, c.Tail = c.Head[:min(edgeHead, len(data)/2)], c.Head[max(len(data)-edgeTail, (len(data)+1)/2):]
			case 5:
				n := uint64(rng.IntN(1 << 20))
				c.Total += n
				pos[dir] += n
			case 6:
				list = append(list, chunk{prog: true, Chunk: probes.Chunk{Dir: dir, Pos: pos[dir] + uint64(rng.IntN(3)*rng.IntN(5000)), End: now}})
			case 7:
				e := probes.End(rng.IntN(2))
				list = append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
			case 8: // what tells of a loss at an end
				list = append(list, chunk{Chunk: probes.Chunk{Pos: pos[0], Begin: now, End: now, Lost: true}})
				continue
			}
		}
		c.Lost, lost = lost, false
		list = append(list, chunk{Chunk: c})
	}
	e := probes.End(2 + rng.IntN(3))
	return append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
}

// bounded checks what a decoder holds.
func bounded(t *testing.T, d *decoder) {
	for i := range d.sides {
		s := &d.sides[i]
		if len(s.buf) > max(maxText, maxAnswer) || len(s.frame.buf) > maxDeflated {
			t.Fatalf("%d bytes of a packet, %d of a frame", len(s.buf), len(s.frame.buf))
		}
		if s.left < 0 || s.frame.left < 0 {
			t.Fatalf("%d bytes of a packet to come, %d of a frame", s.left, s.frame.left)
		}
	}
	if d.session.prepared.bytes > maxStatementBytes {
		t.Fatalf("%d bytes of statements", d.session.prepared.bytes)
	}
	if d.queue.len() > maxPipelined || len(d.session.prepared.list) > maxStatements || len(d.bulk.types) > maxBulkTypes {
		t.Fatalf("%d commands, %d statements, %d types", d.queue.len(), len(d.session.prepared.list), len(d.bulk.types))
	}
	if len(d.greeting.version) > maxVersion || len(d.login.db) > maxName {
		t.Fatalf("%d bytes of a version, %d of a name", len(d.greeting.version), len(d.login.db))
	}
}

func FuzzDecode(f *testing.F) {
	for i, test := range exchangeTests() {
		for j, middle := range []bool{false, true} {
			var streams [2][]byte
			for _, p := range test.all(middle) {
				dir := probes.Ingress
				if p.answer {
					dir = probes.Egress
				}
				streams[dir] = append(streams[dir], p.data...)
			}
			if len(streams[0])+len(streams[1]) < 1<<14 {
				f.Add(streams[0], streams[1], uint64(4*i+2*j), true)
				f.Add(streams[0], streams[1], uint64(4*i+2*j+1), false)
			}
		}
	}
	for seed := range uint64(8) {
		parts := squeezedTalk(seed%2 == 0)
		var streams [2][]byte
		for _, p := range parts {
			dir := probes.Ingress
			if p.answer {
				dir = probes.Egress
			}
			streams[dir] = append(streams[dir], p.data...)
		}
		f.Add(streams[0], streams[1], seed, seed%4 < 2)
	}
	f.Fuzz(func(t *testing.T, commands, answers []byte, seed uint64, server bool) {
		streams := [2][]byte{commands, answers}
		if !server {
			streams[0], streams[1] = streams[1], streams[0]
		}
		rng := rand.New(rand.NewPCG(seed, 3))
		established := rng.IntN(8) == 0
		events := shuffle(rng, streams)
		original := make([]chunk, len(events))
		for i, ev := range events {
			ev.Head, ev.Tail = slices.Clone(ev.Head), slices.Clone(ev.Tail)
			original[i] = ev
		}
		squeezed := false
		run := func(events []chunk) ([]result, map[trace.SpanID]trace.SpanID, ledger.Counts) {
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
				bounded(t, d)
				squeezed = squeezed || d.squeezed == is
			}
			c := acc.Counts()
			k.balance(acc, c[ledger.Seen]-uint64(len(k.opened)))
			aliases := map[trace.SpanID]trace.SpanID{}
			for id, s := range k.aliases {
				aliases[id] = s.ID
			}
			return k.results(), aliases, c
		}
		first, aliases, counts := run(events)
		for name, again := range map[string][]chunk{"after zeroing": events, "from the start": original} {
			if name == "after zeroing" && squeezed {
				continue // what was inflated and held what had to be zeroed is gone
			}
			got, others, c := run(again)
			if !reflect.DeepEqual(first, got) || !reflect.DeepEqual(aliases, others) || c != counts {
				t.Errorf("%s: %v, then %v; (-first +second)\n%s%s", name, counts, c, cmp.Diff(first, got), cmp.Diff(aliases, others))
			}
		}
	})
}

// FuzzDetect: nothing panics, and what is a connection's beginning is one however it is cut.
func FuzzDetect(f *testing.F) {
	f.Add([]byte(plain.greeting("8.4.2")))
	f.Add([]byte(query("SELECT 1")))
	f.Add([]byte(execute(1, "a")))
	f.Add([]byte(deflate(query("SELECT 1"), 0, false)))
	f.Fuzz(func(t *testing.T, b []byte) {
		protocol.Detect(probes.Ingress, b)
	})
}
