// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
)

// shuffle makes events of two byte streams: calls of random size in random order, some captured by their
// edges or not at all, some lost, and questions and closes in between.
func shuffle(rng *rand.Rand, streams [2][]byte) []chunk {
	var list []chunk
	var pos [2]uint64
	now := int64(0)
	calm := rng.IntN(3) == 0 // everything is captured
	lost := false
	id := named64(0)
	for n := 0; len(streams[0]) > 0 || len(streams[1]) > 0; n++ {
		dir := probes.Direction(rng.IntN(2))
		if len(streams[dir]) == 0 {
			dir = dir.Other()
		}
		data := streams[dir]
		switch rng.IntN(4) {
		case 0:
			data = data[:1]
		case 1:
			data = data[:min(len(data), 1+rng.IntN(40))]
		case 2:
			if i := bytes.Index(data, []byte("\n\r\n")); i >= 0 {
				data = data[:i+3]
			}
		}
		streams[dir] = streams[dir][len(data):]
		now += int64(rng.IntN(1000))
		c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(data)), Head: slices.Clone(data), Begin: now, End: now + 10}
		pos[dir] += c.Total
		if rng.IntN(3) == 0 || requestLine(data) == probes.Yes {
			id = named64(n)
			c.Named = true
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
				n := uint64(rng.IntN(1 << 20))
				c.Total += n
				pos[dir] += n
			case 5:
				list = append(list, chunk{prog: true, Chunk: probes.Chunk{Dir: dir, Pos: pos[dir] + uint64(rng.IntN(3)*rng.IntN(5000)), End: now}})
			case 6:
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

func FuzzHTTP1(f *testing.F) {
	for i, test := range exchangeTests {
		var streams [2][]byte
		for _, p := range test.parts {
			streams[p.dir] = append(streams[p.dir], p.data...)
		}
		if test.client {
			streams[0], streams[1] = streams[1], streams[0]
		}
		if len(streams[0])+len(streams[1]) < 1<<14 {
			f.Add(streams[0], streams[1], uint64(i), !test.client)
		}
	}
	f.Fuzz(func(t *testing.T, requests, responses []byte, seed uint64, server bool) {
		streams := [2][]byte{requests, responses}
		if !server {
			streams[0], streams[1] = streams[1], streams[0]
		}
		events := shuffle(rand.New(rand.NewPCG(seed, 3)), streams)
		original := make([]chunk, len(events))
		for i, ev := range events {
			ev.Head, ev.Tail = slices.Clone(ev.Head), slices.Clone(ev.Tail)
			original[i] = ev
		}
		run := func(events []chunk) ([]result, ledger.Counts) {
			acc := new(ledger.Account)
			k := newSink(t)
			d := newDecoder(testConn(acc), server, standard)
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
				if n := len(d.exchanges.items); n > 4*maxPipelined || d.exchanges.len() > maxPipelined {
					t.Fatalf("%d exchanges", n)
				}
				for _, s := range d.streams {
					if cap(s.buf) > 4*maxHead {
						t.Fatalf("%d bytes of head", cap(s.buf))
					}
				}
			}
			k.balance(acc)
			return k.results(), acc.Counts()
		}
		first, counts := run(events)
		for name, again := range map[string][]chunk{"after zeroing": events, "from the start": original} {
			got, c := run(again)
			if diff := cmp.Diff(first, got); diff != "" || c != counts {
				t.Errorf("%s: %v, then %v; (-first +second)\n%s", name, counts, c, diff)
			}
		}
	})
}
