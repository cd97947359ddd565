// SPDX-License-Identifier: Apache-2.0

package fastcgi

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

// records returns how many of the bytes are whole records, if they begin with one; n at most.
func records(data []byte, n int) int {
	size := 0
	for ; n > 0 && len(data)-size >= headerSize; n-- {
		r, ok := parseHeader(data[size:])
		if !ok {
			break
		}
		size = min(len(data), size+headerSize+r.length+r.padding)
	}
	return size
}

// shuffle makes events of two byte streams: calls of random size in random order, some captured by their edges or not at all, some
// lost, and progress and half-closes in between.
func shuffle(rng *rand.Rand, streams [2][]byte) []chunk {
	var list []chunk
	var pos [2]uint64
	var id trace.SpanID
	now := int64(0)
	calm := rng.IntN(3) == 0 // everything is captured
	lost := false
	for n := 0; len(streams[0]) > 0 || len(streams[1]) > 0; n++ {
		dir := probes.Direction(rng.IntN(2))
		if len(streams[dir]) == 0 {
			dir = dir.Other()
		}
		data := streams[dir]
		switch rng.IntN(6) {
		case 0:
			data = data[:1]
		case 1:
			data = data[:min(len(data), 1+rng.IntN(40))]
		case 2, 3, 4:
			if size := records(data, 1+rng.IntN(6)); size > 0 {
				data = data[:size]
			}
		}
		streams[dir] = streams[dir][len(data):]
		now += int64(rng.IntN(1000))
		c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: slices.Clone(data), Begin: now, End: now + 10}
		pos[dir] += c.Total
		if rng.IntN(3) == 0 || begins(data) == probes.Yes {
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
				c.Head, c.Tail = c.Head[:min(24, len(data)/2)], c.Head[max(len(data)-8, (len(data)+1)/2):]
			case 5:
				n := uint64(rng.IntN(1 << 20))
				c.Total += n
				pos[dir] += n
			case 6:
				list = append(list, chunk{prog: true, Chunk: probes.Chunk{Dir: dir, Pos: pos[dir] + uint64(rng.IntN(3)*rng.IntN(5000)), End: now}})
			case 7:
				e := probes.End(rng.IntN(2))
				list = append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
			}
		}
		c.Lost, lost = lost, false
		list = append(list, chunk{Chunk: c})
	}
	e := probes.End(2 + rng.IntN(3))
	return append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
}

func FuzzFastCGI(f *testing.F) {
	for i, test := range exchangeTests() {
		var streams [2][]byte
		for _, p := range test.parts {
			dir := probes.Ingress
			if p.answer {
				dir = probes.Egress
			}
			streams[dir] = append(streams[dir], p.data...)
		}
		if len(streams[0])+len(streams[1]) < 1<<14 {
			f.Add(streams[0], streams[1], uint64(2*i), true)
			f.Add(streams[0], streams[1], uint64(2*i+1), false)
		}
	}
	f.Fuzz(func(t *testing.T, requests, responses []byte, seed uint64, server bool) {
		streams := [2][]byte{requests, responses}
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
		run := func(events []chunk) ([]result, map[trace.SpanID]trace.SpanID, ledger.Counts) {
			acc := new(ledger.Account)
			k := newSink(t)
			conn := testConn(acc)
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
				if r := d.request; r != nil && (len(r.params) > maxParams || len(r.head) > maxHead) {
					t.Fatalf("%d bytes of parameters, %d of head", len(r.params), len(r.head))
				}
				for i := range d.streams {
					if s := &d.streams[i]; s.first.Head != nil || s.first.Tail != nil {
						t.Fatal("the decoder keeps a chunk's bytes")
					}
				}
			}
			k.balance(acc)
			aliases := map[trace.SpanID]trace.SpanID{}
			for id, s := range k.aliases {
				aliases[id] = s.ID
			}
			return k.results(), aliases, acc.Counts()
		}
		first, aliases, counts := run(events)
		for name, again := range map[string][]chunk{"after zeroing": events, "from the start": original} {
			got, others, c := run(again)
			if !reflect.DeepEqual(first, got) || !reflect.DeepEqual(aliases, others) || c != counts {
				t.Errorf("%s: %v, then %v; (-first +second)\n%s%s", name, counts, c, cmp.Diff(first, got), cmp.Diff(aliases, others))
			}
		}
	})
}
