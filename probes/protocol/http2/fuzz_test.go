// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
)

// updates counts the changes of the table's size in a block, and says whether one comes behind a field. Where the table is not empty,
// x/net takes one only if it begins the block; where it is, one that is anywhere. RFC 7541, section 4.2, has one or two at the
// beginning.
func updates(block []byte) (n int, late bool) {
	field := false
	for len(block) > 0 {
		c := block[0]
		bits, texts := uint(4), 1
		switch {
		case c&0x80 != 0:
			bits, texts = 7, 0
		case c&0x40 != 0:
			bits = 6
		case c&0x20 != 0:
			bits, texts = 5, 0
			n, late = n+1, late || field
		}
		i, rest, ok := integer(block, bits)
		if !ok {
			return n, late
		}
		if texts > 0 && i == 0 {
			texts = 2
		}
		field = field || bits != 5
		block = rest
		for range texts {
			var err error
			if _, block, err = readText(block); err != nil {
				return n, late
			}
		}
	}
	return n, late
}

// FuzzHPACK compares with x/net's decoder. On purpose, ours is more lenient where a text is longer than maxText, of which it does not
// see whether it is well-formed; and it follows the RFC in what updates says.
func FuzzHPACK(f *testing.F) {
	for seed := range uint64(20) {
		k := newTalker(seed, seed%2 == 0)
		var blocks [3][]byte
		for i := range blocks {
			blocks[i], _ = k.block()
		}
		f.Add(blocks[0], blocks[1], blocks[2])
	}
	for _, s := range []string{"8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", "3fe1ffffff0f", "4001 6182 1fff", "8220", "ff80808080808080808000"} {
		f.Add(unhex(s), unhex("be"), unhex("20be"))
	}
	f.Add(unhex("4002 3030 8530 3031 3241"), unhex("3f30 3f30"), unhex("30")) // two changes of the table's size
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		ours, middle := newTable(true), newTable(false)
		var want []hpack.HeaderField
		theirs := hpack.NewDecoder(defaultTable, func(f hpack.HeaderField) { want = append(want, f) })
		theirs.SetAllowedMaxDynamicTableSize(1 << 30)
		for n, block := range [][]byte{a, b, c} {
			want = nil
			got, err := fieldsOf(&ours, block)
			_, oracle := theirs.Write(block)
			if oracle == nil {
				oracle = theirs.Close()
			}
			if some, errMiddle := fieldsOf(&middle, block); err == nil && errMiddle == nil {
				if len(some) != len(got) {
					t.Fatalf("block %d: %d fields of %d", n, len(some), len(got))
				}
				for i, f := range some {
					if f.name.known && f.name != got[i].name || f.value.known && f.value != got[i].value {
						t.Errorf("block %d: %v is taken for %v", n, pairs(got[i:i+1]), pairs(some[i:i+1]))
					}
				}
			} else if err == nil {
				t.Errorf("block %d: %v where the table is not complete", n, errMiddle)
			}
			if ours.size > maxTable || middle.size > maxTable {
				t.Fatalf("tables of %d and %d bytes", ours.size, middle.size)
			}
			if err != nil {
				if _, late := updates(block); oracle == nil && !late {
					t.Errorf("block %d: %v, but theirs are %v", n, err, want)
				}
				return
			}
			for i, f := range got {
				if !f.name.known || !f.value.known {
					return // too long
				}
				if i < len(want) && (f.name.s != want[i].Name || f.value.s != want[i].Value) {
					t.Errorf("block %d: %v, theirs is %v", n, pairs(got[i:i+1]), want[i])
				}
			}
			if changes, _ := updates(block); oracle != nil && changes > 1 {
				return
			}
			if oracle != nil || len(got) != len(want) {
				t.Fatalf("block %d: %d fields, theirs are %d, %v", n, len(got), len(want), oracle)
			}
		}
	})
}

// framesIn returns how many of the bytes are whole frames, if they begin with one; n at most.
func framesIn(b []byte, n int) int {
	size := 0
	for ; n > 0 && len(b)-size >= headerSize; n-- {
		f, ok := parseFrame(b[size:])
		if !ok {
			break
		}
		size = min(len(b), size+headerSize+f.length)
	}
	return size
}

// shuffle makes events of two byte streams: calls of random size in random order, as the kernel side tells them, or with some captured
// by their edges or not at all, some left out, some lost, and half-closes in between.
func shuffle(rng *rand.Rand, streams [2][]byte) []chunk {
	var list []chunk
	var pos [2]uint64
	now := int64(0)
	mood := rng.IntN(3) // all is captured; the kernel side walks; anything happens
	lost := false
	w := &walker{pieces: 128, small: 16 << rng.IntN(6), large: 512, leaves: rng.IntN(2) == 0}
	for len(streams[0]) > 0 || len(streams[1]) > 0 {
		dir := probes.Direction(rng.IntN(2))
		if len(streams[dir]) == 0 {
			dir = dir.Other()
		}
		b := streams[dir]
		switch rng.IntN(6) {
		case 0:
			b = b[:1]
		case 1:
			b = b[:min(len(b), 1+rng.IntN(40))]
		case 2, 3, 4:
			if size := framesIn(b, 1+rng.IntN(6)); size > 0 {
				b = b[:size]
			}
		}
		streams[dir] = streams[dir][len(b):]
		now += int64(rng.IntN(1000))
		c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(b)), Head: slices.Clone(b), Begin: now, End: now + 10}
		c.Evidence = span.Evidence{Seq: uint32(c.Pos), HasSeq: true}
		pos[dir] += c.Total
		switch mood {
		case 1:
			list = append(list, w.call(c, c.Head)...)
			continue
		case 2:
			switch rng.IntN(16) {
			case 0:
				lost = true
				continue
			case 1:
				continue // left out on purpose
			case 2:
				c.Head, c.Unreadable = nil, rng.IntN(2) == 0
			case 3:
				cut := rng.IntN(len(b) + 1)
				c.Head, c.Tail = c.Head[:cut], c.Head[cut+rng.IntN(len(b)-cut+1):]
			case 4:
				c.Head = c.Head[:min(len(b), headerSize+5)]
				c.Total = uint64(len(c.Head))
			case 5:
				n := uint64(rng.IntN(1 << 20))
				c.Total += n
				pos[dir] += n
			case 6:
				e := probes.End(rng.IntN(2))
				list = append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
			case 7: // what tells of a loss at an end
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

func FuzzFrames(f *testing.F) {
	for i := range exchangeTests {
		test := &exchangeTests[i]
		var streams [2][]byte
		for _, p := range test.parts() {
			dir := probes.Ingress
			if p.answer {
				dir = probes.Egress
			}
			streams[dir] = append(streams[dir], p.data...)
		}
		if len(streams[0])+len(streams[1]) < 1<<14 {
			for seed := range uint64(6) {
				f.Add(streams[0], streams[1], 6*uint64(i)+seed, seed%2 == 0)
			}
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
		run := func(events []chunk) ([]result, ledger.Counts) {
			acc := new(ledger.Account)
			conn := testConn(acc)
			conn.Established = established
			d := protocol.New(conn, server).(*decoder)
			k := newSink(t)
			for i := range events {
				ev := &events[i]
				if ev.end != nil {
					d.End(*ev.end, ev.Chunk.End, k)
				} else if d.Decode(&ev.Chunk, k) != nil {
					break
				}
				if _, _, ok := d.Waiting(); ok {
					t.Fatal("it waits")
				}
				d.Progress(ev.Dir, ev.Pos+uint64(i%3), ev.Chunk.End, k)
				bounded(t, d)
			}
			if len(d.streams) > 0 {
				t.Errorf("%d streams are open", len(d.streams))
			}
			k.balance(acc)
			return k.results(), acc.Counts()
		}
		first, counts := run(events)
		for name, again := range map[string][]chunk{"after zeroing": events, "from the start": original} {
			if got, c := run(again); !reflect.DeepEqual(first, got) || c != counts {
				t.Errorf("%s: %v, then %v; (-first +second)\n%s", name, counts, c, cmp.Diff(first, got))
			}
		}
	})
}
