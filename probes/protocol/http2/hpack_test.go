// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
)

// unhex decodes what may be written in groups and lines.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// pairs are fields as "name: value"; what is not known is "?".
func pairs(list []field) []string {
	out := make([]string, 0, len(list))
	for _, f := range list {
		name, value := "?", "?"
		if f.name.known {
			name = f.name.s
		}
		if f.value.known {
			value = f.value.s
		}
		out = append(out, name+": "+value)
	}
	return out
}

// fieldsOf decodes a block.
func fieldsOf(t *table, block []byte) ([]field, error) {
	var list []field
	err := t.decode(block, func(f field) { list = append(list, f) })
	return list, err
}

// TestExamplesOfTheRFC are those of RFC 7541, appendix C.
func TestExamplesOfTheRFC(t *testing.T) {
	type step struct {
		block string
		want  []string
		table []string // newest first
		size  int
	}
	requests := []step{
		{want: []string{":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"},
			table: []string{":authority: www.example.com"}, size: 57},
		{want: []string{":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"},
			table: []string{"cache-control: no-cache", ":authority: www.example.com"}, size: 110},
		{want: []string{":method: GET", ":scheme: https", ":path: /index.html", ":authority: www.example.com", "custom-key: custom-value"},
			table: []string{"custom-key: custom-value", "cache-control: no-cache", ":authority: www.example.com"}, size: 164},
	}
	const date1, date2 = "date: Mon, 21 Oct 2013 20:13:21 GMT", "date: Mon, 21 Oct 2013 20:13:22 GMT"
	const location, cookie = "location: https://www.example.com", "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
	responses := []step{
		{want: []string{":status: 302", "cache-control: private", date1, location},
			table: []string{location, date1, "cache-control: private", ":status: 302"}, size: 222},
		{want: []string{":status: 307", "cache-control: private", date1, location},
			table: []string{":status: 307", location, date1, "cache-control: private"}, size: 222},
		{want: []string{":status: 200", "cache-control: private", date2, location, "content-encoding: gzip", cookie},
			table: []string{cookie, "content-encoding: gzip", date2}, size: 215},
	}
	with := func(list []step, blocks ...string) []step {
		list = slices.Clone(list)
		for i := range list {
			list[i].block = blocks[i]
		}
		return list
	}
	for _, test := range []struct {
		name  string
		max   int
		steps []step
	}{
		{"C.2.1", 4096, []step{{"400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
			[]string{"custom-key: custom-header"}, []string{"custom-key: custom-header"}, 55}}},
		{"C.2.2", 4096, []step{{"040c 2f73 616d 706c 652f 7061 7468", []string{":path: /sample/path"}, []string{}, 0}}},
		{"C.2.3", 4096, []step{{"1008 7061 7373 776f 7264 0673 6563 7265 74", []string{"password: secret"}, []string{}, 0}}},
		{"C.2.4", 4096, []step{{"82", []string{":method: GET"}, []string{}, 0}}},
		{"C.3", 4096, with(requests,
			"8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
			"8286 84be 5808 6e6f 2d63 6163 6865",
			"8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65")},
		{"C.4", 4096, with(requests,
			"8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
			"8286 84be 5886 a8eb 1064 9cbf",
			"8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf")},
		{"C.5", 256, with(responses,
			`4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
			2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
			"4803 3330 37c1 c0bf",
			`88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
			54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
			5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31`)},
		{"C.6", 256, with(responses,
			`4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
			2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3`,
			"4883 640e ffc1 c0bf",
			`88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
			77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
			9587 3160 65c0 03ed 4ee5 b106 3d50 07`)},
	} {
		tab := newTable(true)
		tab.resize(test.max)
		for i, s := range test.steps {
			got, err := fieldsOf(&tab, unhex(s.block))
			if err != nil {
				t.Fatalf("%s.%d: %v", test.name, i+1, err)
			}
			if diff := cmp.Diff(s.want, pairs(got)); diff != "" {
				t.Errorf("%s.%d: (-want +got)\n%s", test.name, i+1, diff)
			}
			entries := pairs(tab.entries)
			slices.Reverse(entries)
			if diff := cmp.Diff(s.table, entries); diff != "" || tab.size != s.size || !tab.complete {
				t.Errorf("%s.%d: table of %d bytes, want %d, complete %v; (-want +got)\n%s", test.name, i+1, tab.size, s.size, tab.complete, diff)
			}
		}
	}
}

// TestIntegersOfTheRFC are those of appendix C.1.
func TestIntegersOfTheRFC(t *testing.T) {
	for _, test := range []struct {
		in   string
		bits uint
		want uint64
		ok   bool
	}{
		{"0a", 5, 10, true},
		{"1f9a0a", 5, 1337, true},
		{"2a", 8, 42, true},
		{"ff8000", 7, 127, true},
		{"ffffffffffffffffff7f", 7, 1<<63 - 1 + 127, true},
		{"ffffffffffffffffffff01", 7, 0, false},
		{"ff80808080808080808000", 7, 0, false},
		{"ff", 7, 0, false},
		{"ff80", 7, 0, false},
	} {
		if n, rest, ok := integer(unhex(test.in), test.bits); n != test.want || ok != test.ok || len(rest) > 0 {
			t.Errorf("%s: %d %v, %d bytes left; want %d %v", test.in, n, ok, len(rest), test.want, test.ok)
		}
	}
}

// talker makes header blocks as an encoder does.
type talker struct {
	rng *rand.Rand
	enc *hpack.Encoder
	buf bytes.Buffer
	max uint32 // of the table
	big bool   // tables may be of any size
}

func newTalker(seed uint64, big bool) *talker {
	k := &talker{rng: rand.New(rand.NewPCG(seed, 7)), max: defaultTable, big: big}
	k.enc = hpack.NewEncoder(&k.buf)
	k.enc.SetMaxDynamicTableSizeLimit(1 << 20)
	return k
}

var letters = "abcdefghijklmnopqrstuvwxyz0123456789-/. ~\x00\xff\xc3\xa9"

func (k *talker) word(max int) string {
	b := make([]byte, k.rng.IntN(max+1))
	for i := range b {
		b[i] = letters[k.rng.IntN(len(letters))]
	}
	return string(b)
}

// field is one that was there before, more or less, or a new one.
func (k *talker) field() hpack.HeaderField {
	f := hpack.HeaderField{Sensitive: k.rng.IntN(10) == 0}
	switch k.rng.IntN(4) {
	case 0:
		s := static[1+k.rng.IntN(len(static)-1)]
		f.Name, f.Value = s.name.s, s.value.s
	case 1:
		f.Name = static[1+k.rng.IntN(len(static)-1)].name.s
	case 2:
		f.Name = fmt.Sprintf("x-%d", k.rng.IntN(40))
	default:
		f.Name = "x-" + k.word(30)
	}
	switch k.rng.IntN(6) {
	case 0: // as it is
	case 1, 2, 3:
		f.Value = fmt.Sprintf("value %d", k.rng.IntN(3))
	case 4:
		f.Value = k.word(40)
	default:
		f.Value = k.word(600)
	}
	return f
}

// block is the next header block, and what is in it.
func (k *talker) block() ([]byte, []string) {
	k.buf.Reset()
	for k.rng.IntN(20) == 0 {
		k.max = []uint32{0, 31, 100, 256, 1000, 4096}[k.rng.IntN(6)]
		if k.big && k.rng.IntN(2) == 0 {
			k.max = []uint32{8192, 64 << 10, 128 << 10}[k.rng.IntN(3)]
		}
		k.enc.SetMaxDynamicTableSize(k.max)
	}
	want := []string{}
	for range k.rng.IntN(12) {
		f := k.field()
		if err := k.enc.WriteField(f); err != nil {
			panic(err)
		}
		want = append(want, f.Name+": "+f.Value)
	}
	return bytes.Clone(k.buf.Bytes()), want
}

func TestFieldsAreAsEncoded(t *testing.T) {
	for seed := range uint64(40) {
		k := newTalker(seed, false)
		tab := newTable(true)
		for n := range 400 {
			block, want := k.block()
			got, err := fieldsOf(&tab, block)
			if err != nil {
				t.Fatalf("seed %d, block %d: %v", seed, n, err)
			}
			if diff := cmp.Diff(want, pairs(got)); diff != "" {
				t.Fatalf("seed %d, block %d: (-want +got)\n%s", seed, n, diff)
			}
			if len(want) > 0 && tab.size > int(k.max) || !tab.complete { // a change is told with the next field
				t.Fatalf("seed %d, block %d: %d of %d bytes, complete %v", seed, n, tab.size, k.max, tab.complete)
			}
		}
	}
}

// isKnown checks that what is known of a field is right.
func isKnown(t *testing.T, got field, want string) (name, value bool) {
	t.Helper()
	n, v, _ := strings.Cut(strings.TrimPrefix(want, ":"), ": ")
	if want[0] == ':' {
		n = ":" + n
	}
	if got.name.known && got.name.s != n || got.value.known && got.value.s != v {
		t.Errorf("%q is taken for %q", want, pairs([]field{got}))
	}
	if !got.name.known && got.name.s != "" || !got.value.known && got.value.s != "" {
		t.Errorf("%+v has a text that is not known", got)
	}
	return got.name.known, got.value.known
}

// TestLargeTables are those of which not all is kept.
func TestLargeTables(t *testing.T) {
	for seed := range uint64(10) {
		k := newTalker(seed, true)
		tab := newTable(true)
		unknown := 0
		for n := range 3000 {
			block, want := k.block()
			got, err := fieldsOf(&tab, block)
			if err != nil || len(got) != len(want) {
				t.Fatalf("seed %d, block %d: %v, %d fields of %d", seed, n, err, len(got), len(want))
			}
			for i := range got {
				if name, value := isKnown(t, got[i], want[i]); !name || !value {
					unknown++
				}
			}
			if tab.size > maxTable || len(tab.entries) > maxTable/entryOverhead || t.Failed() {
				t.Fatalf("seed %d, block %d: %d bytes, %d entries", seed, n, tab.size, len(tab.entries))
			}
		}
		if unknown > 300 {
			t.Errorf("seed %d: %d fields are not known", seed, unknown)
		}
	}
}

// reference is what a field in a block refers to: the entry's number among all that were ever added; -1: none, or a static one.
type reference struct {
	entry int
	whole bool // it is all of the field
	adds  bool // the field is added
}

// references reads the representations in a block. added is how many entries were added before.
func references(t *testing.T, block []byte, added int) []reference {
	var list []reference
	for len(block) > 0 {
		c := block[0]
		bits := uint(4)
		switch {
		case c&0x80 != 0:
			bits = 7
		case c&0x40 != 0:
			bits = 6
		case c&0x20 != 0:
			bits = 5
		}
		i, rest, ok := integer(block, bits)
		if !ok {
			t.Fatal("bad integer")
		}
		block = rest
		if bits == 5 {
			continue
		}
		r := reference{entry: -1, whole: bits == 7, adds: bits == 6}
		if i >= uint64(len(static)) {
			r.entry = added - 1 - int(i-uint64(len(static)))
		}
		list = append(list, r)
		texts := 1
		switch {
		case r.whole:
			texts = 0
		case i == 0:
			texts = 2
		}
		for range texts {
			var err error
			if _, block, err = readText(block); err != nil {
				t.Fatal(err)
			}
		}
		if r.adds {
			added++
		}
	}
	return list
}

// TestAttachedInTheMiddle misses blocks at the beginning, and some later.
func TestAttachedInTheMiddle(t *testing.T) {
	for _, big := range []bool{false, true} {
		for seed := range uint64(60) {
			k := newTalker(seed, big)
			tab := newTable(false)
			added := 0                // entries, ever
			from := 0                 // of them, the first that was seen
			unnamed := map[int]bool{} // those that were seen, with the name of one that was not
			raised := false           // the table may be, or have been, larger than it is taken for
			known, unknown := 0, 0
			for n := range 400 {
				block, want := k.block()
				refs := references(t, block, added)
				if n < int(seed) || n < 300 && k.rng.IntN(50) == 0 {
					if n >= int(seed) {
						tab.stale()
					}
					for _, r := range refs {
						if r.adds {
							added++
						}
					}
					from, raised = added, big
					clear(unnamed)
					continue
				}
				got, err := fieldsOf(&tab, block)
				if err != nil || len(got) != len(want) {
					t.Fatalf("seed %d, block %d: %v, %d fields of %d", seed, n, err, len(got), len(want))
				}
				for i, r := range refs {
					name, value := isKnown(t, got[i], want[i])
					old := r.entry >= 0 && r.entry < from
					wantName, wantValue := !old && !unnamed[r.entry], !old || !r.whole
					if name != wantName && (name || !raised) || value != wantValue && (value || !raised) {
						t.Fatalf("seed %d, block %d: %q: known %v %v; refers to %d, the first seen is %d", seed, n, want[i], name, value, r.entry, from)
					}
					if r.adds {
						unnamed[added] = !name
						added++
					}
					if name && value {
						known++
					} else {
						unknown++
					}
				}
			}
			if known < 3*unknown {
				t.Errorf("seed %d: %d fields known, %d not", seed, known, unknown)
			}
		}
	}
}

func TestMalformedBlocks(t *testing.T) {
	for _, test := range []struct{ name, block string }{
		{"index 0", "80"},
		{"name of a reference beyond the table", "7f0000"},
		{"reference beyond the table", "be"},
		{"reference far beyond the table", "ffffffffff7f"},
		{"reference that is no number", "ffffffffffffffffffffff7f"},
		{"number ends early", "ff"},
		{"number ends early, later", "ff80"},
		{"no name", "40"},
		{"no value", "4001 61"},
		{"name ends early", "4005 61"},
		{"value ends early", "4001 6105 62"},
		{"value of more than there is", "4001 617f ffff ff7f"},
		{"value of 2^63 bytes", "4001 617f ffff ffff ffff ffff 7f"},
		{"Huffman: padding is not of ones", "4001 6181 00"},
		{"Huffman: padding of a whole byte", "4001 6182 1fff"},
		{"Huffman: the end of the string is in it", "4001 6184 ffff fffc"},
		{"Huffman: of a name", "4081 0001 61"},
		{"size behind a field", "8220"},
		{"size behind a literal", "4001 6101 6220"},
		{"size beyond all", "3fe1ffffff0f"},
		{"size ends early", "3f"},
	} {
		tab := newTable(true)
		if _, err := fieldsOf(&tab, unhex("4001 6b01 76")); err != nil {
			t.Fatal(err)
		}
		block := append(unhex("82"), unhex(test.block)...)
		switch {
		case strings.HasPrefix(test.name, "size"):
			block = block[1:]
		case test.name == "reference beyond the table":
			block[1]++
		}
		got, err := fieldsOf(&tab, block)
		if err == nil {
			t.Errorf("%s: %v", test.name, pairs(got))
		}
		if len(tab.entries) > 0 || tab.complete {
			t.Errorf("%s: the table has %v, complete %v", test.name, pairs(tab.entries), tab.complete)
		}
		// What comes next is of a table that is not known.
		got, err = fieldsOf(&tab, unhex("82be 4001 6101 62be"))
		if diff := cmp.Diff([]string{":method: GET", "?: ?", "a: b", "a: b"}, pairs(got)); diff != "" || err != nil {
			t.Errorf("%s: then %v, (-want +got)\n%s", test.name, err, diff)
		}
	}
}

// TestLongTexts are those that are longer than what is kept; the rest of the block is known all the same.
func TestLongTexts(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	for name, block := range map[string][]byte{
		"plain":   append(append(append(unhex("0001 61"), integerOf(0, 7, uint64(len(long)))...), long...), 0x82),
		"Huffman": append(append(append(unhex("0001 61"), integerOf(0x80, 7, hpack.HuffmanEncodeLength(long))...), hpack.AppendHuffmanString(nil, long)...), 0x82),
	} {
		tab := newTable(true)
		got, err := fieldsOf(&tab, block)
		if diff := cmp.Diff([]string{"a: ?", ":method: GET"}, pairs(got)); diff != "" || err != nil {
			t.Errorf("%s: %v, (-want +got)\n%s", name, err, diff)
		}
	}
}

// integerOf is the opposite of integer.
func integerOf(first byte, bits uint, n uint64) []byte {
	mask := uint64(1)<<bits - 1
	if n < mask {
		return []byte{first | byte(n)}
	}
	b := []byte{first | byte(mask)}
	for n -= mask; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
